"""Layers of shapes that KOSMOS-2 has not, against transformers in float32: decoders with RMS norms, rotary or learned
positions, shared keys, gated or plain feed-forwards, norms behind the sums, outputs of their own; vision towers that
stop early, drop the class token or have none; projectors."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny import GgufContent, encode_tensor, write_gguf

from kosmos_edge import _core

pytestmark = pytest.mark.usefixtures("transformers_here")

TOLERANCE = 1e-4  # largest difference over largest magnitude, per row
SEEDS = [0, 1]
VOCAB, CONTEXT = 101, 64


def close(got: np.ndarray, want: np.ndarray) -> bool:
    """Whether every row is within the tolerance."""
    return bool((np.abs(got - want).max(-1) <= TOLERANCE * np.abs(want).max(-1)).all())


def draw(model, seed: int) -> None:
    """Weights that keep activations at the size of one: their own initial ones hide most faults."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim >= 2:
                p.normal_(0, p[0].numel() ** -0.5)
            else:
                p.normal_(1 if "norm" in name.split(".")[-2] and name.endswith("weight") else 0, 0.2)


def save(path: Path, tensors: dict[str, np.ndarray], dtype: str = "F32") -> None:
    """The tensors as a GGUF file."""
    write_gguf(path, GgufContent({}, {n: encode_tensor(n, np.ascontiguousarray(t), dtype) for n, t in tensors.items()}))


def arrays(model) -> dict[str, np.ndarray]:
    """The model's tensors by name."""
    return {name: t.detach().float().numpy() for name, t in model.state_dict().items()}


def renamed(state: dict[str, np.ndarray], names: dict[str, str], layers: int, prefix: str, ours: str) -> dict:
    """Tensors of a stack: names of modules of a layer, theirs -> ours."""
    out = {}
    for i in range(layers):
        for theirs, mine in names.items():
            for kind in ("weight", "bias"):
                if (key := f"{prefix}.{i}.{theirs}.{kind}") in state:
                    out[f"{ours}.{i}.{mine}.{kind}"] = state[key]
    return out


@dataclass
class Made:
    """A decoder of transformers, and what its file and shape are."""

    model: object
    tensors: dict[str, np.ndarray]
    shape: dict[str, object]


LLAMA = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def llama(seed: int, heads: int = 4, kv_heads: int = 2, dim: int = 16, tied: bool = False, factor: float = 1.0,
          interleaved: bool = False, act: str = "silu") -> Made:  # fmt: skip
    """LLaMA; interleaved: query and key rows in the order of llama.cpp's files."""
    from transformers import LlamaConfig, LlamaForCausalLM

    rope = {"rope_type": "linear", "factor": factor} if factor != 1 else {"rope_type": "default"}
    config = LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=heads, head_dim=dim,
        num_key_value_heads=kv_heads, vocab_size=VOCAB, max_position_embeddings=CONTEXT, rms_norm_eps=1e-6,
        tie_word_embeddings=tied, rope_parameters={**rope, "rope_theta": 1234.0}, hidden_act=act,
        attn_implementation="eager",
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    draw(model, seed)
    state = arrays(model)
    tensors = renamed(state, LLAMA, 3, "model.layers", "blk")
    if interleaved:
        for name in tensors:
            if "attn_q" in name or "attn_k" in name:
                w = tensors[name].reshape(-1, 2, dim // 2, 64)
                tensors[name] = w.swapaxes(1, 2).reshape(-1, 64)
    tensors |= {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
    }
    if not tied:
        tensors["output.weight"] = state["lm_head.weight"]
    shape = {
        "width": 64, "ff_width": 96, "heads": heads, "kv_heads": kv_heads, "head_dim": dim, "norm": "rms", "eps": 1e-6,
        "norm_bias": False, "bias": False, "activation": {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}[act],
        "gated": True, "layers": 3, "vocab": VOCAB, "context": CONTEXT, "position": "rope", "base": 1234.0, "dims": dim,
        "interleaved": interleaved, "scale": factor, "tied_output": tied,
    }  # fmt: skip
    return Made(model, tensors, shape)


OPT = {
    "self_attn_layer_norm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.out_proj": "attn_output", "final_layer_norm": "ffn_norm",
    "fc1": "ffn_up", "fc2": "ffn_down",
}  # fmt: skip


def opt(seed: int, pre_norm: bool = True) -> Made:
    """OPT: learned positions from 2 on, ReLU; its 350M size has its norms behind the sums, and none at the end."""
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        hidden_size=48, word_embed_proj_dim=48, ffn_dim=80, num_hidden_layers=2, num_attention_heads=3,
        vocab_size=VOCAB, max_position_embeddings=CONTEXT, do_layer_norm_before=pre_norm, dropout=0.0,
        attn_implementation="eager",
    )  # fmt: skip
    model = OPTForCausalLM(config).eval()
    draw(model, seed)
    state = arrays(model)
    tensors = renamed(state, OPT, 2, "model.decoder.layers", "blk")
    tensors["token_embd.weight"] = state["model.decoder.embed_tokens.weight"]
    tensors["position_embd.weight"] = state["model.decoder.embed_positions.weight"]
    if pre_norm:
        tensors |= {f"output_norm.{k}": state[f"model.decoder.final_layer_norm.{k}"] for k in ("weight", "bias")}
    shape = {
        "width": 48, "ff_width": 80, "heads": 3, "activation": "relu", "layers": 2, "vocab": VOCAB, "context": CONTEXT,
        "position": "learned", "offset": 2, "post_norm": not pre_norm, "final_norm": pre_norm,
    }  # fmt: skip
    return Made(model, tensors, shape)


NEOX = {
    "input_layernorm": "attn_norm", "attention.dense": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down",
}  # fmt: skip


def neox(seed: int) -> Made:
    """GPT-NeoX: a quarter of each head is turned, norms with biases, an output of its own."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, vocab_size=VOCAB,
        max_position_embeddings=CONTEXT, use_parallel_residual=False, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
        attn_implementation="eager",
    )  # fmt: skip
    model = GPTNeoXForCausalLM(config).eval()
    draw(model, seed)
    state = arrays(model)
    tensors = renamed(state, NEOX, 2, "gpt_neox.layers", "blk")
    for i in range(2):
        for kind in ("weight", "bias"):  # rows are [head][q, k, v][dim]
            w = state[f"gpt_neox.layers.{i}.attention.query_key_value.{kind}"]
            w = w.reshape(2, 3, 32, *w.shape[1:])
            for j, part in enumerate("qkv"):
                tensors[f"blk.{i}.attn_{part}.{kind}"] = w[:, j].reshape(64, *w.shape[3:])
    tensors["token_embd.weight"] = state["gpt_neox.embed_in.weight"]
    tensors |= {f"output_norm.{k}": state[f"gpt_neox.final_layer_norm.{k}"] for k in ("weight", "bias")}
    tensors["output.weight"] = model.get_output_embeddings().weight.detach().numpy()
    shape = {
        "width": 64, "ff_width": 128, "heads": 2, "activation": "gelu_erf", "layers": 2, "vocab": VOCAB,
        "context": CONTEXT, "position": "rope", "base": 10000.0, "dims": 8, "tied_output": False,
    }  # fmt: skip
    return Made(model, tensors, shape)


MPT = {
    "norm_1": "attn_norm", "attn.out_proj": "attn_output", "norm_2": "ffn_norm", "ffn.up_proj": "ffn_up",
    "ffn.down_proj": "ffn_down",
}  # fmt: skip


def mpt(seed: int, heads: int = 4, most: int = 8, qk_norm: bool = False, context: int = CONTEXT) -> Made:
    """MPT: ALiBi, neither biases nor betas. transformers has no norms of queries and keys, and takes the steepest slope
    for granted: here both are as in MPT's own code."""
    import torch
    from transformers import MptConfig, MptForCausalLM
    from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

    width = 16 * heads
    config = MptConfig(
        d_model=width, n_heads=heads, n_layers=2, max_seq_len=context, vocab_size=VOCAB,
        attn_config={"alibi": True, "alibi_bias_max": most},
    )  # fmt: skip
    model = MptForCausalLM(config).eval()
    model.transformer.build_mpt_alibi_tensor = lambda n, length, device: build_mpt_alibi_tensor(n, length, most, device)
    draw(model, seed)
    state = arrays(model)
    tensors = renamed(state, MPT, 2, "transformer.blocks", "blk")
    for i in range(2):
        thirds = np.split(state[f"transformer.blocks.{i}.attn.Wqkv.weight"], 3)
        tensors |= {f"blk.{i}.attn_{part}.weight": w for part, w in zip("qkv", thirds, strict=True)}
        if not qk_norm:
            continue
        gains = [torch.rand(width) + 0.5 for _ in "qk"]
        tensors |= {f"blk.{i}.attn_{part}_norm.weight": g.numpy() for part, g in zip("qk", gains, strict=True)}

        def norm(module: object, given: object, out: Any, gains: list = gains) -> Any:
            q, k, v = out.chunk(3, -1)
            q, k = (torch.nn.functional.layer_norm(x, (width,), g) for x, g in zip((q, k), gains, strict=True))
            return torch.cat([q, k, v], -1)

        model.transformer.blocks[i].attn.Wqkv.register_forward_hook(norm)
    tensors["token_embd.weight"] = state["transformer.wte.weight"]
    tensors["output_norm.weight"] = state["transformer.norm_f.weight"]
    shape = {
        "width": width, "ff_width": 4 * width, "heads": heads, "norm_bias": False, "bias": False, "qk_norm": qk_norm,
        "activation": "gelu_erf", "layers": 2, "vocab": VOCAB, "context": context, "position": "alibi",
        "most": float(most),
    }  # fmt: skip
    return Made(model, tensors, shape)


DECODERS: dict[str, Callable[[int], Made]] = {
    "llama": llama,
    "llama, keys of each head": lambda seed: llama(seed, kv_heads=4),
    "llama, keys of all heads": lambda seed: llama(seed, kv_heads=1),
    "llama, heads wider than the model": lambda seed: llama(seed, heads=8, kv_heads=4, dim=24),
    "llama, tied, scaled positions": lambda seed: llama(seed, tied=True, factor=4.0),
    "llama, pairs side by side": lambda seed: llama(seed, interleaved=True),
    "llama, gelu": lambda seed: llama(seed, act="gelu_pytorch_tanh"),
    "opt": opt,
    "opt, norms behind the sums": lambda seed: opt(seed, pre_norm=False),
    "gpt-neox": neox,
    "mpt": mpt,
    "mpt, norms of queries and keys": lambda seed: mpt(seed, qk_norm=True),
    "mpt, heads that are no power of two": lambda seed: mpt(seed, heads=6, most=16),
}


def logits_of(model, ids: list[int]) -> np.ndarray:
    """(ids, vocab) of transformers."""
    import torch

    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", DECODERS)
def test_decoder(name: str, seed: int, tmp_path: Path) -> None:
    """Every position's logits at once, then a prompt and tokens one by one over its cache."""
    made = DECODERS[name](seed)
    save(tmp_path / "x.gguf", made.tensors)
    ids = [int(i) for i in np.random.default_rng(seed).integers(0, VOCAB, 40)]
    want = logits_of(made.model, ids)
    decoder = _core.testing.Decoder(str(tmp_path / "x.gguf"), made.shape)
    whole = np.frombuffer(decoder.forward(ids, 0, list(range(40))), np.float32).reshape(40, VOCAB)
    assert close(whole, want)
    decoder.restart()
    last = np.frombuffer(decoder.forward(ids[:25], 0, [3, 24]), np.float32).reshape(2, VOCAB)
    np.testing.assert_array_equal(last, whole[[3, 24]])
    for i in range(25, 40):
        one = np.frombuffer(decoder.forward([ids[i]], i, [0]), np.float32)
        np.testing.assert_array_equal(one, whole[i])
    some = np.frombuffer(decoder.forward([ids[39]], 39, [0], vocab_subset=[0, 7, 100]), np.float32)
    np.testing.assert_array_equal(some, whole[39, [0, 7, 100]])


@pytest.mark.parametrize("seed", SEEDS)
def test_distances_up_to_the_context(seed: int, tmp_path: Path) -> None:
    """ALiBi at positions beyond 2,000: a long prompt at once, in pieces, and token by token behind it."""
    made, length = mpt(seed, qk_norm=seed == 1, context=2304), 2304
    save(tmp_path / "x.gguf", made.tensors)
    ids = [int(i) for i in np.random.default_rng(seed).integers(0, VOCAB, length)]
    at = [0, 1, 255, 256, 1023, 1024, 1025, 2047, 2048, *range(length - 6, length)]
    want = logits_of(made.model, ids)[at]
    decoder = _core.testing.Decoder(str(tmp_path / "x.gguf"), made.shape)
    whole = np.frombuffer(decoder.forward(ids, 0, at), np.float32).reshape(len(at), VOCAB)
    assert close(whole, want)
    decoder.restart()
    for begin in range(0, length - 4, 700):
        decoder.forward(ids[begin : min(begin + 700, length - 4)], begin, [])
    for i in range(length - 4, length):
        one = np.frombuffer(decoder.forward([ids[i]], i, [0]), np.float32)
        np.testing.assert_array_equal(one, whole[at.index(i)])


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("name", ["llama", "opt"])
def test_vectors_take_the_place_of_tokens(name: str, on_device: bool, tmp_path: Path) -> None:
    """Vectors that are the embeddings of tokens give those tokens' logits, bit for bit, scaled like them."""
    made = DECODERS[name](0)
    save(tmp_path / "x.gguf", made.tensors)
    decoder = _core.testing.Decoder(str(tmp_path / "x.gguf"), {**made.shape, "embedding_scale": 1.7})
    ids = [int(i) for i in np.random.default_rng(0).integers(0, VOCAB, 20)]
    want = decoder.forward(ids, 0, list(range(20)))
    at = [0, 5, 6, 7, 11, 19]
    vectors = np.ascontiguousarray(made.tensors["token_embd.weight"][[ids[i] for i in at]])
    mixed = [-1 if i in at else token for i, token in enumerate(ids)]
    decoder.restart()
    assert decoder.forward(mixed, 0, list(range(20)), vectors, on_device) == want
    decoder.restart()
    assert decoder.forward(mixed, 0, list(range(20)), np.zeros_like(vectors), on_device) != want


@pytest.mark.parametrize("isa", _core.available_isas())
def test_instruction_sets_and_threads(isa: str, tmp_path: Path) -> None:
    """Every instruction set is as near; threads change no bit."""
    made = llama(5, heads=8, kv_heads=2, dim=24)
    save(tmp_path / "x.gguf", made.tensors)
    ids = [int(i) for i in np.random.default_rng(5).integers(0, VOCAB, 40)]
    got = [
        _core.testing.Decoder(str(tmp_path / "x.gguf"), made.shape, isa=isa, threads=threads).forward(
            ids, 0, list(range(40))
        )
        for threads in (1, 3)
    ]
    assert got[0] == got[1]
    assert close(np.frombuffer(got[0], np.float32).reshape(40, VOCAB), logits_of(made.model, ids))


CLIP = {
    "layer_norm1": "ln1", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out", "layer_norm2": "ln2", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
}  # fmt: skip
SIDE, PATCH = 3, 4  # patches per side, pixels


def cut(pixels: np.ndarray) -> np.ndarray:
    """(3, height, width) -> (patches, 3 * patch^2)."""
    p = pixels.reshape(3, SIDE, PATCH, SIDE, PATCH).transpose(1, 3, 0, 2, 4)
    return np.ascontiguousarray(p.reshape(SIDE * SIDE, -1), np.float32)


def tower_tensors(state: dict[str, np.ndarray], layers: int) -> dict[str, np.ndarray]:
    """Those of CLIP and SigLIP, whatever of them is there."""
    state = {name.removeprefix("vision_model."): t for name, t in state.items()}
    tensors = renamed(state, CLIP, layers, "encoder.layers", "v.blk")
    for theirs, ours in {
        "embeddings.class_embedding": "v.class_embd", "embeddings.patch_embedding.weight": "v.patch_embd.weight",
        "embeddings.patch_embedding.bias": "v.patch_embd.bias",
        "embeddings.position_embedding.weight": "v.position_embd.weight", "pre_layrnorm.weight": "v.pre_ln.weight",
        "pre_layrnorm.bias": "v.pre_ln.bias", "post_layernorm.weight": "v.post_ln.weight",
        "post_layernorm.bias": "v.post_ln.bias",
    }.items():  # fmt: skip
        if theirs in state:
            tensors[ours] = state[theirs]
    return tensors


SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 3}
TOWER = {
    "width": 48, "ff_width": 80, "heads": 3, "patches": SIDE * SIDE, "patch_values": 3 * PATCH * PATCH,
}  # fmt: skip


def tower_of(config, model_class, seed: int):
    """A vision tower of transformers, its tensors' values drawn, and pixels for it."""
    model = model_class(config).eval()
    draw(model, seed)
    return model, np.random.default_rng(seed).standard_normal((3, SIDE * PATCH, SIDE * PATCH)).astype(np.float32)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("products", [1, 2])
def test_clip_features_before_the_last_layer_with_a_projector(seed: int, products: int, tmp_path: Path) -> None:
    """LLaVA's: hidden state -2, patches only, no last norm; then one product, or two around a GELU."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(**SIZES, image_size=SIDE * PATCH, patch_size=PATCH, attn_implementation="eager")
    model, pixels = tower_of(config, CLIPVisionModel, seed)
    torch.manual_seed(seed)
    first, second = torch.nn.Linear(48, 56), torch.nn.Linear(56, 56)
    with torch.no_grad():
        hidden = model(torch.from_numpy(pixels)[None], output_hidden_states=True).hidden_states[-2][0, 1:]
        want = first(hidden) if products == 1 else second(torch.nn.functional.gelu(first(hidden)))
    tensors = tower_tensors(arrays(model), 2)
    tensors = {n: t for n, t in tensors.items() if not n.startswith("v.post_ln")}
    for name, linear in {"mm.0": first, "mm.2": second}.items():
        if name == "mm.0" or products == 2:
            tensors |= {f"{name}.{k}": t for k, t in arrays(linear).items()}
    save(tmp_path / "x.gguf", tensors)
    shape = {
        **TOWER, "layers": 2, "activation": "quick_gelu", "last_norm": False, "keep_class": False,
        "project_width": 56, "products": products,
    }  # fmt: skip
    tower = _core.testing.Tower(str(tmp_path / "x.gguf"), shape)
    for _ in range(2):  # a workspace used again
        got = np.frombuffer(tower.forward(cut(pixels)), np.float32).reshape(SIDE * SIDE, 56)
        assert close(got, want.numpy())


@pytest.mark.parametrize("seed", SEEDS)
def test_clip_with_the_last_norm_on_all_tokens(seed: int, tmp_path: Path) -> None:
    """BLIP's and mPLUG-Owl's use of such a tower; here with erf GELU."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        **SIZES, image_size=SIDE * PATCH, patch_size=PATCH, hidden_act="gelu", attn_implementation="eager"
    )
    model, pixels = tower_of(config, CLIPVisionModel, seed)
    with torch.no_grad():
        hidden = model(torch.from_numpy(pixels)[None]).last_hidden_state[0]
        inner = getattr(model, "vision_model", model)
        want = inner.post_layernorm(hidden).numpy()
    save(tmp_path / "x.gguf", tower_tensors(arrays(model), 3))
    tower = _core.testing.Tower(str(tmp_path / "x.gguf"), {**TOWER, "layers": 3, "activation": "gelu_erf"})
    got = np.frombuffer(tower.forward(cut(pixels)), np.float32).reshape(1 + SIDE * SIDE, 48)
    assert close(got, want)


@pytest.mark.parametrize("seed", SEEDS)
def test_siglip(seed: int, tmp_path: Path) -> None:
    """No class token, a bias of the patches, no first norm, tanh GELU."""
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        **SIZES, image_size=SIDE * PATCH, patch_size=PATCH, vision_use_head=False, attn_implementation="eager"
    )
    model, pixels = tower_of(config, SiglipVisionModel, seed)
    with torch.no_grad():
        want = model(torch.from_numpy(pixels)[None]).last_hidden_state[0].numpy()
    save(tmp_path / "x.gguf", tower_tensors(arrays(model), 3))
    shape = {
        **TOWER, "layers": 3, "activation": "gelu_tanh", "eps": config.layer_norm_eps, "class_token": False,
        "patch_bias": True, "pre_norm": False,
    }  # fmt: skip
    got = np.frombuffer(_core.testing.Tower(str(tmp_path / "x.gguf"), shape).forward(cut(pixels)), np.float32)
    assert close(got.reshape(SIDE * SIDE, 48), want)


@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_rope_table(factor: float) -> None:
    """Cosines and sines of LlamaRotaryEmbedding, to a rounding of the angle."""
    import torch
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    kind = {"rope_type": "linear", "factor": factor} if factor != 1 else {"rope_type": "default"}
    config = LlamaConfig(
        hidden_size=128,
        num_attention_heads=1,
        max_position_embeddings=4096,
        rope_parameters={**kind, "rope_theta": 1e4},
    )
    cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1), torch.arange(4096)[None])
    want = np.concatenate([cos[0, :, :64].numpy(), sin[0, :, :64].numpy()], axis=1)
    got = np.frombuffer(_core.testing.rope_table(1e4, 128, factor, 4096), np.float32).reshape(4096, 128)
    angle = np.arange(4096)[:, None] / factor * 1e4 ** (-np.arange(64) / 64)
    assert (np.abs(got - want) <= 2e-7 + 2.5e-7 * np.concatenate([angle, angle], axis=1)).all()
    assert np.abs(got[:64] - want[:64]).max() <= 4e-6


def idefics(seed: int, head_norms: bool) -> tuple[Made, np.ndarray]:
    """IDEFICS' language model, whose rows look at images in front of every second block; features of two images."""
    from transformers import IdeficsConfig, IdeficsForVisionText2Text

    vision = {"embed_dim": 40, "image_size": 8, "patch_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = IdeficsConfig(
        vocab_size=VOCAB, additional_vocab_size=0, hidden_size=64, intermediate_size=96, num_hidden_layers=4,
        num_attention_heads=4, cross_layer_interval=2, qk_layer_norms=head_norms, use_resampler=False,
        vision_config={**vision, "intermediate_size": 64}, alpha_type="float", rms_norm_eps=1e-6,
        max_position_embeddings=CONTEXT, tie_word_embeddings=False, attn_implementation="eager",
    )  # fmt: skip
    model = IdeficsForVisionText2Text(config).eval()
    draw(model, seed)
    state = arrays(model)
    tensors = renamed(state, LLAMA, 4, "model.layers", "blk")
    cross = {theirs.replace("self_attn", "cross_attn"): f"cross.{ours}" for theirs, ours in LLAMA.items()}
    cross |= {"cross_attn.q_layer_norm": "cross.attn_q_norm", "cross_attn.k_layer_norm": "cross.attn_k_norm"}
    for name, tensor in renamed(state, cross, 2, "model.gated_cross_attn_layers", "blk").items():
        tensors[name.replace("blk.1.", "blk.2.")] = tensor
    for i in (0, 1):
        for theirs, ours in {"alpha_cross_attn": "attn_alpha", "alpha_dense": "ffn_alpha"}.items():
            gate = dict(model.named_parameters())[f"model.gated_cross_attn_layers.{i}.{theirs}"]
            gate.data += 0.7  # far enough from zero to be seen
            tensors[f"blk.{2 * i}.cross.{ours}"] = gate.detach().numpy()
    tensors["token_embd.weight"] = state["model.embed_tokens.weight"]
    tensors["output_norm.weight"], tensors["output.weight"] = state["model.norm.weight"], state["lm_head.weight"]
    block = {
        "width": 64, "ff_width": 96, "heads": 4, "norm": "rms", "eps": 1e-6, "norm_bias": False, "bias": False,
        "activation": "silu", "gated": True,
    }  # fmt: skip
    shape = {
        **block, "layers": 4, "vocab": VOCAB, "context": CONTEXT, "position": "rope", "dims": 16, "tied_output": False,
        "cross": {**block, "every": 2, "memory_width": 40, "head_norms": head_norms},
    }  # fmt: skip
    features = np.random.default_rng(seed).standard_normal((2, 5, 40)).astype(np.float32)
    return Made(model, tensors, shape), features


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("head_norms", [False, True])
def test_rows_look_at_images(head_norms: bool, seed: int, tmp_path: Path) -> None:
    """Text before the first image sees nothing, text behind each image that image; at once, and token by token."""
    import torch

    made, features = idefics(seed, head_norms)
    save(tmp_path / "x.gguf", made.tensors)
    ids = [int(i) for i in np.random.default_rng(seed).integers(0, VOCAB, 30)]
    seen = [-1] * 4 + [0] * 11 + [1] * 15
    mask = torch.tensor([[[int(s == 0), int(s == 1)] for s in seen]])
    with torch.no_grad():
        want = made.model(
            torch.tensor([ids]), image_encoder_embeddings=torch.from_numpy(features)[None], image_attention_mask=mask
        ).logits[0]
    decoder = _core.testing.Decoder(str(tmp_path / "x.gguf"), made.shape)
    assert [decoder.remember(f) for f in features] == [0, 1]
    whole = np.frombuffer(decoder.forward(ids, 0, list(range(30)), memories=seen), np.float32).reshape(30, VOCAB)
    assert close(whole, want.numpy())
    decoder.restart()
    last = np.frombuffer(decoder.forward(ids[:18], 0, [17], memories=seen[:18]), np.float32)
    np.testing.assert_array_equal(last, whole[17])
    for i in range(18, 30):
        one = np.frombuffer(decoder.forward([ids[i]], i, [0], memories=[1]), np.float32)
        np.testing.assert_array_equal(one, whole[i])
