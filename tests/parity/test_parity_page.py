"""The parts of a reader of pages, against transformers' KOSMOS-2.5 in float32: whitened patches of a grid, an encoder
with tables of rows and columns, a resampler in which the padding has its weight, a decoder with segments."""

import math
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import GgufContent, encode_tensor, write_gguf

from kosmos_edge import _core

pytestmark = pytest.mark.usefixtures("transformers_here")

WIDTH, HEADS, LAYERS, FF = 48, 3, 2, 72
LATENTS, TEXT_WIDTH, TEXT_HEADS = 6, 64, 2
MAX_PATCHES, PATCH = 40, 4
PATCH_VALUES = 3 * PATCH * PATCH


def close(got: np.ndarray, want: np.ndarray) -> bool:
    """Whether every row is within 1e-4 of its largest value."""
    return bool((np.abs(got - want).max(-1) <= 1e-4 * np.abs(want).max(-1)).all())


def draw(model, seed: int) -> dict[str, np.ndarray]:
    """Random weights, norms and biases, too, at the size of one; -> the tensors by name."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                p.normal_(1, 0.2)
            elif p.ndim >= 2:
                p.normal_(0, p[0].numel() ** -0.5)
            else:
                p.normal_(0, 0.2)
    return {name: t.detach().float().numpy() for name, t in model.state_dict().items()}


def save(path: Path, tensors: dict[str, np.ndarray]) -> str:
    write_gguf(path, GgufContent({}, {n: encode_tensor(n, np.ascontiguousarray(t), "F32") for n, t in tensors.items()}))
    return str(path)


# ---- pictures


@pytest.mark.parametrize("size", [(37, 37), (90, 61), (61, 90), (24, 2), (5, 60), (300, 25), (1, 1), (64, 48)])
def test_patches_equal_the_processor(size: tuple[int, int]) -> None:
    from PIL import Image
    from transformers.models.kosmos2_5.image_processing_pil_kosmos2_5 import Kosmos2_5ImageProcessorPil

    width, height = size
    rng = np.random.default_rng(width * 1000 + height)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    processor = Kosmos2_5ImageProcessorPil(max_patches=MAX_PATCHES, patch_size={"height": PATCH, "width": PATCH})
    theirs = processor(Image.fromarray(pixels), return_tensors="np")
    flat = np.asarray(theirs["flattened_patches"][0])
    rows, cols, data = _core.testing.patch_grid(pixels.tobytes(), width, height, PATCH, MAX_PATCHES)
    seen = flat[: rows * cols]
    assert (rows, cols) == (int(seen[-1, 0]), int(seen[-1, 1])) and not flat[rows * cols :].any()
    ours = np.frombuffer(data, np.float32).reshape(rows * cols, PATCH_VALUES)
    assert np.abs(ours - seen[:, 2:]).max() <= 1e-5 * max(1.0, np.abs(seen[:, 2:]).max())


@pytest.mark.parametrize(
    ("width", "height", "rows", "cols"), [(1000, 714, 54, 75), (16, 16, 64, 64), (120, 10, 18, 221), (10, 120, 221, 18)]
)
def test_grids_of_published_size(width: int, height: int, rows: int, cols: int) -> None:
    """The first is the published example (1200 x 864); all by math.floor of the processor's formula."""
    scale = math.sqrt(4096 * (16 / height) * (16 / width))
    assert (rows, cols) == (math.floor(scale * height / 16), math.floor(scale * width / 16))
    grid = _core.testing.patch_grid(bytes(3 * width * height), width, height, 16, 4096)
    assert grid[:2] == (rows, cols)


# ---- encoder and resampler


def page_tensors(vision: dict[str, np.ndarray], projection: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    out = {
        "v.patch_embd.weight": vision["embeddings.patch_projection.weight"],
        "v.patch_embd.bias": vision["embeddings.patch_projection.bias"],
        "v.row_embd.weight": vision["embeddings.row_embedder.weight"],
        "v.col_embd.weight": vision["embeddings.column_embedder.weight"],
        "v.post_ln.weight": vision["layernorm.weight"],
        "mm.latent_query": projection["latent_query"],
    }
    names = {
        "pre_attention_layer_norm": "ln1", "attention.query": "attn_q", "attention.key": "attn_k",
        "attention.value": "attn_v", "attention.output": "attn_out", "pre_mlp_layer_norm": "ln2",
        "mlp.wi_0": "ffn_gate", "mlp.wi_1": "ffn_up", "mlp.wo": "ffn_down",
    }  # fmt: skip
    for i in range(LAYERS):
        for theirs, ours in names.items():
            out[f"v.blk.{i}.{ours}.weight"] = vision[f"encoder.layer.{i}.{theirs}.weight"]
    for theirs, ours in {"dense": "dense", **{f"x_attn.{p}_proj": f"attn_{p}" for p in ("q", "k", "v", "out")}}.items():
        for kind in ("weight", "bias"):
            out[f"mm.{ours}.{kind}"] = projection[f"{theirs}.{kind}"]
    return out


def config(max_patches: int = MAX_PATCHES):
    from transformers import Kosmos2_5Config

    return Kosmos2_5Config(
        latent_query_num=LATENTS,
        vision_config={
            "hidden_size": WIDTH, "patch_embed_hidden_size": PATCH_VALUES, "intermediate_size": FF, "head_dim": 16,
            "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "max_num_patches": max_patches + 1,
            "attn_implementation": "eager",
        },
        text_config={
            "embed_dim": TEXT_WIDTH, "attention_heads": TEXT_HEADS, "layers": LAYERS, "ffn_dim": 96, "vocab_size": 101,
            "max_position_embeddings": 64, "attn_implementation": "eager",
        },
    )  # fmt: skip


def compare_page(grid: tuple[int, int], max_patches: int, seed: int, path: Path) -> int:
    """The encoder's features and the image tokens of a random picture; -> bytes of the workspace."""
    import torch
    from transformers.models.kosmos2_5 import modeling_kosmos2_5 as theirs

    settings = config(max_patches)
    vision = theirs.Kosmos2_5VisionModel(settings.vision_config).eval()
    projection = theirs.Kosmos2_5ImageToTextProjection(settings).eval()
    file = save(path / "page.gguf", page_tensors(draw(vision, seed), draw(projection, seed + 10)))

    rows, cols = grid
    patches = np.random.default_rng(seed).standard_normal((rows * cols, PATCH_VALUES)).astype(np.float32)
    flat = np.zeros((1, max_patches, 2 + PATCH_VALUES), np.float32)
    flat[0, : rows * cols, 0] = np.repeat(np.arange(1, rows + 1), cols)
    flat[0, : rows * cols, 1] = np.tile(np.arange(1, cols + 1), rows)
    flat[0, : rows * cols, 2:] = patches
    with torch.no_grad():
        hidden = vision(torch.from_numpy(flat)).last_hidden_state
        features = torch.nn.functional.normalize(hidden, dim=-1)
        tokens = projection(features)[0][0].numpy()
    shape = {
        "width": WIDTH, "heads": HEADS, "head_dim": 16, "ff_width": FF, "layers": LAYERS, "norm": "rms", "eps": 1e-6,
        "norm_bias": False, "bias": False, "gated": True, "activation": "gelu_tanh", "patch_values": PATCH_VALUES,
        "max_patches": max_patches, "table_rows": max_patches + 1, "latents": LATENTS, "project_width": TEXT_WIDTH,
        "project_heads": TEXT_HEADS,
    }  # fmt: skip
    page = _core.testing.Page(file, shape)
    got, image = (np.frombuffer(data, np.float32) for data in page.forward(patches, rows, cols))
    n = min(rows * cols + 1, max_patches)  # one row of the padding
    assert close(got.reshape(n, WIDTH), features[0, :n].numpy())
    assert close(image.reshape(LATENTS, TEXT_WIDTH), tokens)
    return page.workspace_bytes


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("grid", [(5, 8), (3, 7), (1, 1), (1, 40), (39, 1)])
def test_features_and_image_tokens(grid: tuple[int, int], seed: int, tmp_path: Path) -> None:
    compare_page(grid, MAX_PATCHES, seed, tmp_path)


def workspace_bytes(
    *, n: int, width: int, ff: int, patch_values: int, latents: int, project_width: int, project_heads: int
) -> int:
    """Of a page of n rows. What is between two products exists for 1,024 rows at a time; the resampler's heads are 8
    values wider, for the weight of the padding. Fewer than 8 rows get memory for 8 (csrc/layers/workspace.h)."""
    some, wide = min(n, 1024), project_width + 8 * project_heads
    encoder = n * (width + 3 * width + width) + some * (width + 2 * ff + patch_values)
    return 4 * (encoder + (n + latents) * 2 * wide + max(latents, 8) * (wide + project_width))


def test_a_page_of_many_patches_and_its_memory(tmp_path: Path) -> None:
    """Over 1,024 patches attention goes by tiles and products go in parts: the same values, and only so much memory."""
    got = compare_page((40, 33), 1400, 3, tmp_path)
    assert got == workspace_bytes(
        n=40 * 33 + 1, width=WIDTH, ff=FF, patch_values=PATCH_VALUES, latents=LATENTS, project_width=TEXT_WIDTH,
        project_heads=TEXT_HEADS,
    )  # fmt: skip
    published = workspace_bytes(
        n=4096, width=1536, ff=3968, patch_values=768, latents=2048, project_width=1536, project_heads=16
    )
    assert published <= 280 << 20


# ---- decoder


@pytest.mark.parametrize("seed", [0, 1])
def test_a_decoder_with_segments(seed: int, tmp_path: Path) -> None:
    import torch
    from transformers.models.kosmos2_5 import modeling_kosmos2_5 as theirs

    settings = config().text_config
    model = theirs.Kosmos2_5TextForCausalLM(settings).eval()
    state = draw(model, seed)
    tensors = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "segment_embd.weight": state["model.segment_emb.weight"],
    }
    names = {
        "self_attn_layer_norm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v", "self_attn.out_proj": "attn_output", "final_layer_norm": "ffn_norm",
        "ffn.fc1": "ffn_up", "ffn.ffn_layernorm": "ffn_sub_norm", "ffn.fc2": "ffn_down",
    }  # fmt: skip
    for kind in ("weight", "bias"):
        tensors[f"output_norm.{kind}"] = state[f"model.layer_norm.{kind}"]
        for i in range(LAYERS):
            for source, ours in names.items():
                tensors[f"blk.{i}.{ours}.{kind}"] = state[f"model.layers.{i}.{source}.{kind}"]
    decoder = _core.testing.Decoder(
        save(tmp_path / "decoder.gguf", tensors),
        {
            "width": TEXT_WIDTH, "heads": TEXT_HEADS, "ff_width": 96, "layers": LAYERS, "vocab": 101, "context": 64,
            "embedding_scale": math.sqrt(TEXT_WIDTH), "position": "sinusoid", "offset": 2, "segments": 2,
            "ffn_sub_norm": True,
        },
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    ids = rng.integers(3, 101, 20)
    mask = np.array([0, -1, *[1] * 6, -1, *[0] * 11])
    vectors = rng.standard_normal((6, TEXT_WIDTH)).astype(np.float32)
    with torch.no_grad():
        want = model(
            input_ids=torch.from_numpy(ids)[None],
            image_embeds=torch.from_numpy(vectors)[None],
            image_embeds_position_mask=torch.from_numpy(mask)[None],
        ).logits[0]
    ours = [-1 if m == 1 else int(i) for i, m in zip(ids, mask, strict=True)]
    segments = [int(m != 0) for m in mask]
    got = decoder.forward(ours, 0, list(range(20)), vectors=vectors, segments=segments)
    assert close(np.frombuffer(got, np.float32).reshape(20, 101), want.numpy())
