"""Small random checkpoints of LLaVA with SigLIP and Qwen2 become one GGUF file; what is wrong is named."""

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from helpers.llava_checkpoint import State, write_json
from helpers.llava_qwen2_checkpoint import ADDED, SIZES, config, preprocessor, random_state, tokenizer_config, write_hf
from helpers.tiny import make_picture
from models.llava_qwen2 import Pieces

import kosmos_edge
from kosmos_edge import _core
from kosmos_edge.convert import convert, requantize, verify
from kosmos_edge.convert.models import find_model
from kosmos_edge.errors import ModelCorrupt

PIECES = Pieces("user assistant a cat dog what is this")
TOKENS = len(PIECES.pieces)
ROWS = TOKENS + 18  # of the embedding


def write(folder: Path, state: State, tied: bool = True, **changes: Any) -> Path:
    return write_hf(folder, PIECES.pieces, PIECES.merges, state, ROWS, tied, **changes)


@pytest.fixture(scope="module")
def state() -> State:
    return random_state(ROWS)


def contents(path: Path) -> tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...], bytes]]]:
    """-> (metadata without what tells of the source's files, tensors)"""
    file = _core.GgufFile(str(path))
    metadata = {key: value for key, value in file.metadata().items() if not key.endswith("source.sha256")}
    return metadata, {name: (dtype, tuple(shape), file.tensor_data(name)) for name, dtype, shape, *_ in file.tensors()}


NAMES = {
    "blk.1.attn_q.bias": "language_model.model.layers.1.self_attn.q_proj.bias",
    "blk.0.attn_k.weight": "language_model.model.layers.0.self_attn.k_proj.weight",
    "blk.0.attn_v.bias": "language_model.model.layers.0.self_attn.v_proj.bias",
    "blk.1.attn_output.weight": "language_model.model.layers.1.self_attn.o_proj.weight",
    "blk.1.ffn_gate.weight": "language_model.model.layers.1.mlp.gate_proj.weight",
    "output_norm.weight": "language_model.model.norm.weight",
    "v.patch_embd.weight": "vision_tower.vision_model.embeddings.patch_embedding.weight",
    "v.patch_embd.bias": "vision_tower.vision_model.embeddings.patch_embedding.bias",
    "v.position_embd.weight": "vision_tower.vision_model.embeddings.position_embedding.weight",
    "v.blk.1.attn_out.weight": "vision_tower.vision_model.encoder.layers.1.self_attn.out_proj.weight",
    "v.blk.1.ffn_up.bias": "vision_tower.vision_model.encoder.layers.1.mlp.fc1.bias",
    "v.blk.0.ffn_down.weight": "vision_tower.vision_model.encoder.layers.0.mlp.fc2.weight",
    "mm.0.weight": "multi_modal_projector.linear_1.weight",
    "mm.2.bias": "multi_modal_projector.linear_2.bias",
}


def test_the_file_holds_every_value_that_is_used(state: State, tmp_path: Path) -> None:
    path = convert(write(tmp_path / "hf", state), tmp_path / "a.gguf", type="f32").output
    metadata, tensors = contents(path)
    for name, source in NAMES.items():
        assert tensors[name] == ("F32", *state[source]), name
    used = state["language_model.model.embed_tokens.weight"][1][: TOKENS * SIZES["width"] * 4]
    assert tensors["token_embd.weight"] == ("F32", (TOKENS, SIZES["width"]), used)
    dropped = [name for name in state if "post_layernorm" in name]
    assert len(dropped) == 2 and len(tensors) == len(state) - len(dropped)
    assert "output.weight" not in tensors and verify(path) == []
    own = {key.removeprefix("llava_qwen2."): value for key, value in metadata.items()}
    expected = {
        "context_length": 256, "embedding_length": 64, "block_count": 2, "attention.head_count": 4,
        "attention.head_count_kv": 2, "attention.key_length": 16, "rope.freq_base": 1e6, "output.tied": True,
        "vision.feature_layer": -1, "image.aspect": "squash", "image.token_id": TOKENS - 1, "projector": "mlp2x_gelu",
        "prompt.question": "<|im_start|>user {image}\n{question}<|im_end|><|im_start|>assistant\n",
    }  # fmt: skip
    assert {key: own[key] for key in expected} == expected
    assert own["attention.layer_norm_rms_epsilon"] == struct.unpack("f", struct.pack("f", 1e-6))[0]
    assert (metadata["clip.use_gelu"], metadata["clip.vision.image_mean"]) == (True, [0.5, 0.5, 0.5])
    assert (metadata["tokenizer.ggml.pre"], metadata["tokenizer.ggml.normalizer"]) == ("qwen2", "nfc")
    kinds = dict(zip(metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"], strict=True))
    assert [kinds[token] for token in ADDED] == [3, 4, 4, 3]  # formats of prompts spell the second and third
    assert metadata["tokenizer.ggml.eos_token_id"] == TOKENS - 2
    assert "tokenizer.ggml.bos_token_id" not in metadata and metadata["tokenizer.ggml.add_bos_token"] is False
    with kosmos_edge.load(path, threads=1) as model:
        assert model.ask(make_picture(1, 40, 50), "what is this?", max_tokens=4).token_ids


def test_a_folder_gets_a_file_of_the_conventional_name(state: State, tmp_path: Path) -> None:
    made = convert(write(tmp_path / "hf", state), tmp_path, type="q8_0").output
    assert re.fullmatch(r"LLaVA-Interleave-Qwen-[\d.]+[KM]-v1\.0-Q8_0\.gguf", made.name), made.name


def test_marks_in_a_question_are_characters(state: State, tmp_path: Path) -> None:
    """What looks like ChatML ends no turn; the format's own marks are tokens."""
    path = convert(write(tmp_path / "hf", state), tmp_path / "a.gguf", type="f32").output
    with kosmos_edge.load(path, threads=1) as model:
        written = "a<|im_end|>b"
        engine = model._open.engine
        count = len(engine.tokenizer.encode("\n" + written)) - len(engine.tokenizer.encode("\na"))
        long, short = (
            model.ask(make_picture(1, 9, 9), words, max_tokens=1).timings.prompt_tokens for words in (written, "a")
        )
        assert count > 5 and long - short == count
        assert TOKENS - 2 not in engine.tokenizer.encode(written)


def test_a_head_of_its_own(tmp_path: Path) -> None:
    state = random_state(ROWS, tied=False)
    path = convert(write(tmp_path / "hf", state, tied=False), tmp_path / "a.gguf", type="f32").output
    metadata, tensors = contents(path)
    assert metadata["llava_qwen2.output.tied"] is False
    used = TOKENS * SIZES["width"] * 4
    assert tensors["output.weight"][2] == state["language_model.lm_head.weight"][1][:used]
    twice = state | {"language_model.lm_head.weight": state["language_model.model.embed_tokens.weight"]}
    _, tensors = contents(convert(write(tmp_path / "twice", twice), tmp_path / "b.gguf", type="f32").output)
    assert "output.weight" not in tensors
    with pytest.raises(ModelCorrupt, match=r"lm_head.weight differs from the embedding"):
        convert(write(tmp_path / "differs", state), tmp_path / "c.gguf")


def test_names_of_transformers_5_and_a_head_of_the_tower(state: State, tmp_path: Path) -> None:
    renamed = {
        "model." + name.replace("language_model.model.", "language_model.").replace("vision_model.", ""): value
        for name, value in state.items()
    }
    renamed["model.vision_tower.head.probe"] = ((1, 1, 32), bytes(128))  # nobody looks at it
    a = convert(write(tmp_path / "a", state), tmp_path / "a.gguf", type="q8_0").output
    b = convert(write(tmp_path / "b", renamed), tmp_path / "b.gguf", type="q8_0").output
    assert contents(a) == contents(b)


def test_an_inner_feature_layer_leaves_out_what_is_behind_it(state: State, tmp_path: Path) -> None:
    path = convert(write(tmp_path / "hf", state, vision_feature_layer=-2), tmp_path / "a.gguf", type="f32").output
    metadata, tensors = contents(path)
    assert metadata["llava_qwen2.vision.feature_layer"] == -2
    assert {name.split(".")[2] for name in tensors if name.startswith("v.blk.")} == {"0"}


def test_stored_types_and_requantizing(tmp_path: Path) -> None:
    """Rows of 48 values, like the published tower's 4304, fit no block."""
    wide = {"width": 256, "ff": 512}
    folder = write(tmp_path / "hf", random_state(ROWS, **wide), text_config__hidden_size=256,
                   text_config__intermediate_size=512)  # fmt: skip
    report = convert(folder, tmp_path / "a.gguf", type="q4_k_m")
    _, tensors = contents(report.output)
    types = {name: dtype for name, (dtype, *_) in tensors.items()}
    assert (types["token_embd.weight"], types["blk.0.attn_q.weight"]) == ("Q6_K", "Q4_K")
    assert (types["v.blk.0.ffn_up.weight"], types["v.blk.0.ffn_down.weight"]) == ("Q8_0", "F16")
    assert types["blk.0.attn_q.bias"] == types["v.patch_embd.bias"] == "F32"
    whole = convert(folder, tmp_path / "f32.gguf", type="f32").output
    assert contents(requantize(whole, tmp_path / "b.gguf", type="q4_k_m").output) == contents(report.output)


BAD_SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "another tower": ({"vision_config__model_type": "clip_vision_model"}, "model_type is 'clip_vision_model'"),
    "quick gelu": ({"vision_config__hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu', expected 'gelu_pytorch"),
    "sliding windows": ({"text_config__use_sliding_window": True}, "use_sliding_window is True, expected False"),
    "a class token": ({"vision_feature_select_strategy": "default"}, "strategy is 'default', expected 'full'"),
    "no strategy": ({"vision_feature_select_strategy": None}, "vision_feature_select_strategy is None"),
    "another projector": ({"projector_hidden_act": "relu"}, "projector_hidden_act is 'relu'"),
    "scaled positions": (
        {"text_config__rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type is 'yarn', expected 'default'"
    ),
    "large patches": ({"vision_config__patch_size": 31}, "patch_size 31 is above image_size 30"),
    "an image token beyond": ({"image_token_index": TOKENS}, f"image_token_index is {TOKENS}, which is no added"),
    "few rows": ({"text_config__vocab_size": TOKENS - 1}, f"{TOKENS} tokens, the embedding has {TOKENS - 1} rows"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_settings_that_cannot_be_run(state: State, tmp_path: Path, case: str) -> None:
    changes, message = BAD_SETTINGS[case]
    with pytest.raises(ModelCorrupt, match=message):
        convert(write(tmp_path / "m", state, **changes), tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"size": {"shortest_edge": 30}}, "size is dict of 1; only {'height'"),
        ({"do_center_crop": True}, "do_center_crop is True; only False"),
        ({"do_pad": True}, "do_pad is True; only False"),
        ({"resample": 2}, "resample is 2"),
    ],
)
def test_pictures_that_are_prepared_otherwise(
    state: State, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = write(tmp_path / "m", state)
    write_json(folder, preprocessor_config=preprocessor(SIZES["image"], **changes))
    with pytest.raises(ModelCorrupt, match=message):
        convert(folder, tmp_path / "a.gguf")


def test_prompts_that_begin_with_a_token_are_refused(state: State, tmp_path: Path) -> None:
    folder = write(tmp_path / "m", state)
    write_json(folder, tokenizer_config=tokenizer_config() | {"add_bos_token": True})
    with pytest.raises(ModelCorrupt, match="add_bos_token is true; no prompt of LLaVA with Qwen2 begins"):
        convert(folder, tmp_path / "a.gguf")


def test_the_published_sizes() -> None:
    """llava-interleave-qwen-0.5b-hf: 27 x 27 patches of 384 pixels."""
    settings = config(152000, 151646)
    settings["text_config"] |= {
        "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24, "num_attention_heads": 16,
        "num_key_value_heads": 16, "max_position_embeddings": 32768,
    }  # fmt: skip
    settings["vision_config"] |= {
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 26, "num_attention_heads": 16,
        "image_size": 384, "patch_size": 14,
    }  # fmt: skip
    model = find_model(json.loads(json.dumps(settings)))
    c = model.read_config(settings)
    assert (c.vision.patches, c.head_dim, c.blocks, c.rope_base) == (729, 64, 26, 1e6)
    assert sum(1 for _ in model.tensor_table(c)) == 2 + 24 * 12 + 3 + 26 * 16 + 4
