"""Small random IDEFICS checkpoints become one GGUF file; what is wrong or not supported is named."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.convert_checkpoint import convert_safetensors_bytes
from models.description import described
from models.idefics import ADDED, END, IMAGE, MARK, NUMBERS, PIECE_IDS, TURN_END, published

import kosmos_edge
from kosmos_edge import _core
from kosmos_edge.convert import convert, verify
from kosmos_edge.convert.models import MODELS, find_model
from kosmos_edge.errors import ModelCorrupt

OF = described()["idefics"]
Weights = dict[str, np.ndarray]
ADDED_ROWS = "model.embed_tokens.additional_embedding.weight"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return OF.write_checkpoint(tmp_path_factory.mktemp("idefics") / "hf")


def changed(checkpoint: Path, folder: Path, weights: dict[str, Any] | None = None, **settings: Any) -> Path:
    """The checkpoint with some other weights (None: without), and other settings: "config__vision_config__key" is a
    path in config.json; None takes a key out."""
    shutil.copytree(checkpoint, folder)
    for path, value in settings.items():
        file, *keys = path.split("__")
        where = folder / f"{file}.json"
        root = json.loads(where.read_text()) if where.exists() else {}
        inner = root
        for key in keys[:-1]:
            inner = inner[key]
        inner.pop(keys[-1], None)
        if value is not None:
            inner[keys[-1]] = value
        where.write_text(json.dumps(root))
    state = {**published(OF.tiny.weights), **(weights or {})}
    values = {n: (w.shape, np.ascontiguousarray(w, "f").tobytes()) for n, w in state.items() if w is not None}
    (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(values, "F32"))
    return folder


def without(folder: Path, *texts: str) -> Path:
    """The checkpoint's vocabulary without those added tokens, which are the last."""
    path = folder / "tokenizer.json"
    root = json.loads(path.read_text())
    root["added_tokens"] = [token for token in root["added_tokens"] if token["content"] not in texts]
    path.write_text(json.dumps(root))
    return folder


def contents(path: Path) -> tuple[dict[str, Any], dict[str, tuple[str, bytes]]]:
    """-> (metadata without what tells of the source's files, tensors)"""
    file = _core.GgufFile(str(path))
    metadata = {key: value for key, value in file.metadata().items() if not key.endswith("source.sha256")}
    return metadata, {name: (dtype, file.tensor_data(name)) for name, dtype, *_ in file.tensors()}


def test_its_row() -> None:
    assert find_model({"model_type": "idefics"}) is MODELS["idefics"]
    with pytest.raises(ModelCorrupt, match="model_type is 'idefics2'"):
        find_model({"model_type": "idefics2"})


def test_rows_of_added_tokens_stand_behind_the_others(checkpoint: Path, tmp_path: Path) -> None:
    """Every value of the checkpoint but the tower's last norm, which nothing reads."""
    _, tensors = contents(convert(checkpoint, tmp_path / "a.gguf", type="f32").output)
    assert {name: data for name, (_, data) in tensors.items()} == {n: w.tobytes() for n, w in OF.tiny.weights.items()}
    state = published(OF.tiny.weights)
    rows = state["model.embed_tokens.weight"].tobytes() + state[ADDED_ROWS].tobytes()
    assert tensors["token_embd.weight"][1] == rows and state[ADDED_ROWS].shape[0] == 3


def test_both_parts_in_files_of_their_own(checkpoint: Path, tmp_path: Path) -> None:
    """Sharded, the added rows in front: the order of the files is not that of the rows."""
    folder = tmp_path / "sharded"
    shutil.copytree(checkpoint, folder)
    (folder / "model.safetensors").unlink()
    state = {name: (w.shape, w.tobytes()) for name, w in published(OF.tiny.weights).items()}
    first = {name: value for name, value in state.items() if "additional" in name}
    rest = {name: value for name, value in state.items() if name not in first}
    places = {}
    for number, part in enumerate((first, rest)):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        (folder / file).write_bytes(convert_safetensors_bytes(part, "F32"))
        places |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    a, b = (convert(path, tmp_path / f"{i}.gguf", type="q8_0").output for i, path in enumerate((checkpoint, folder)))
    assert contents(a) == contents(b) and verify(b) == []


def test_rows_without_a_token_are_left_out(checkpoint: Path, tmp_path: Path) -> None:
    more = np.concatenate([published(OF.tiny.weights)[ADDED_ROWS], np.ones((5, NUMBERS["embedding_length"]))])
    head = np.concatenate([published(OF.tiny.weights)["lm_head.additional_fc.weight"], more[3:]])
    weights = {ADDED_ROWS: more, "lm_head.additional_fc.weight": head}
    padded = changed(checkpoint, tmp_path / "m", weights, config__additional_vocab_size=8)
    a, b = (convert(path, tmp_path / f"{i}.gguf", type="f32").output for i, path in enumerate((checkpoint, padded)))
    assert contents(a)[1] == contents(b)[1]


def test_all_rows_in_one_matrix(checkpoint: Path, tmp_path: Path) -> None:
    """additional_vocab_size 0."""
    state = published(OF.tiny.weights)
    weights: dict[str, Any] = {
        "model.embed_tokens.weight": OF.tiny.weights["token_embd.weight"], ADDED_ROWS: None,
        "lm_head.weight": OF.tiny.weights["output.weight"], "lm_head.additional_fc.weight": None,
    }  # fmt: skip
    rows = len(state["model.embed_tokens.weight"]) + 3
    whole = changed(checkpoint, tmp_path / "m", weights, config__vocab_size=rows, config__additional_vocab_size=0)
    a, b = (convert(path, tmp_path / f"{i}.gguf", type="f32").output for i, path in enumerate((checkpoint, whole)))
    assert contents(a) == contents(b)


def test_the_keys_are_what_the_engine_reads(checkpoint: Path, tmp_path: Path) -> None:
    metadata, _ = contents(convert(checkpoint, tmp_path / "a.gguf", type="f32").output)
    own = {key.removeprefix("idefics."): value for key, value in metadata.items() if key.startswith("idefics.")}
    expected = {
        "context_length": 512, "embedding_length": 256, "block_count": 4, "feed_forward_length": 512,
        "attention.head_count": 4, "attention.head_count_kv": 4, "attention.key_length": 64, "rope.freq_base": 10000.0,
        "cross_attention.every": 2, "cross_attention.head_norms": True, "perceiver.block_count": 2,
        "perceiver.attention.head_count": 2, "perceiver.attention.key_length": 96,
        "perceiver.feed_forward_length": 1024, "perceiver.query_count": 8, "perceiver.attention.head_norms": True,
        "image.token_id": PIECE_IDS + 1, "image.mark_token_id": PIECE_IDS, "generation.end_token_id": END,
        "generation.max_new_tokens": 128, "prompt.question": "User:{image}{question}<end_of_utterance>\nAssistant:",
    }  # fmt: skip
    assert {key: own[key] for key in expected} == expected
    assert own["attention.layer_norm_rms_epsilon"] == np.float32(1e-6)
    assert own["perceiver.attention.layer_norm_epsilon"] == np.float32(1e-5)
    assert metadata["clip.use_gelu"] is True and metadata["clip.vision.projection_dim"] == 256
    assert metadata["tokenizer.ggml.tokens"][PIECE_IDS:] == [MARK, IMAGE, TURN_END] == list(ADDED)
    assert metadata["tokenizer.ggml.token_type"][PIECE_IDS:] == [4, 4, 4]  # formats of prompts hold them
    assert "tokenizer.ggml.padding_token_id" not in metadata  # it is the unknown token
    assert metadata["general.license"] == "other"


def test_a_vocabulary_without_an_end_of_turns_is_of_the_base_model(checkpoint: Path, tmp_path: Path) -> None:
    base = without(changed(checkpoint, tmp_path / "m"), TURN_END)
    path = convert(base, tmp_path / "a.gguf", type="f32").output
    metadata, tensors = contents(path)
    assert metadata["idefics.generation.end_token_id"] == 2 and metadata["idefics.vocab_size"] == PIECE_IDS + 2
    assert metadata["idefics.prompt.caption"] == "{image}"
    assert metadata["idefics.prompt.question"] == "{image}Question: {question} Answer:"
    assert len(tensors["output.weight"][1]) == (PIECE_IDS + 2) * 256 * 4 and verify(path) == []
    assert kosmos_edge.load(path, threads=1).model_info["eos"] == 2


def test_small_types_where_rows_allow_them(checkpoint: Path, tmp_path: Path) -> None:
    report = convert(checkpoint, tmp_path / "a.gguf", type="q4_k_m")
    _, tensors = contents(report.output)
    assert tensors["blk.0.cross.attn_k.weight"][0] == "Q4_K" and tensors["mm.blk.1.attn_output.weight"][0] == "Q8_0"
    assert {tensors[name][0] for name in ("mm.query", "blk.2.cross.ffn_alpha", "mm.output_norm.bias")} == {"F32"}


VECTOR = {"model.gated_cross_attn_layers.0.alpha_dense": np.ones((1, 1, 256), np.float32)}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "gates of vectors": ({"config__alpha_type": "vector"}, "alpha_type is 'vector', expected 'float'"),
    "a gate of a vector": ({"weights": VECTOR}, r"alpha_dense has the shape \(1, 1, 256\), expected \(1,\)"),
    "no perceiver": ({"config__use_resampler": False}, "use_resampler is False, expected true"),
    "no perceiver by default": ({"config__use_resampler": None}, "use_resampler is None, expected true"),
    "tied": ({"config__tie_word_embeddings": True}, "tie_word_embeddings is True, expected False"),
    "another activation": ({"config__hidden_act": "gelu"}, "hidden_act is 'gelu', expected 'silu'"),
    "a quick GELU": ({"config__vision_config__hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'"),
    "odd heads": ({"config__num_attention_heads": 7}, "hidden_size is 256, expected a multiple of 7 heads"),
    "odd heads of the tower": ({"config__vision_config__num_attention_heads": 7}, "no multiple of 7 heads"),
    "other blocks that look": ({"config__cross_layer_interval": 1}, r"gated_cross_attn_layers.2.*is missing"),
    "blocks that do not go round": ({"config__num_hidden_layers": 3}, "a multiple of cross_layer_interval, 2"),
    "no norms of heads": ({"config__qk_layer_norms": False}, "q_layer_norm.weight .*is not a tensor of IDEFICS"),
    "scaled positions": ({"config__rope_scaling": {"type": "linear"}}, "rope_scaling is .*, expected none"),
    "other positions": ({"config__rope_parameters": {"rope_type": "yarn"}}, "rope_type is 'yarn', expected 'default'"),
    "fewer rows": ({"config__additional_vocab_size": 1}, "tokens, the embedding has"),
    "other rows": ({"config__additional_vocab_size": 4}, r"additional_embedding.weight has the shape .*, expected"),
    "no rows": ({"weights": {ADDED_ROWS: None}}, "embed_tokens.weight has the shape"),
    "another size": ({"preprocessor_config__image_size": 224}, "image_size is 224; only 56 is supported"),
    "a cut picture": ({"preprocessor_config__do_center_crop": True}, "do_center_crop is True"),
    "a perceiver of other heads": ({"config__perceiver_config__resampler_n_heads": 3}, "blocks.0.0.q_proj.weight has"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_supported_is_named(checkpoint: Path, tmp_path: Path, case: str) -> None:
    settings, message = WRONG[case]
    with pytest.raises(ModelCorrupt, match=message):
        convert(changed(checkpoint, tmp_path / "m", **settings), tmp_path / "a.gguf")


def test_a_vocabulary_without_images_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    other = without(changed(checkpoint, tmp_path / "m"), *ADDED)
    with pytest.raises(ModelCorrupt, match=r"there is no token <fake_token_around_image>"):
        convert(other, tmp_path / "a.gguf")


def test_parts_of_other_types_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    """One matrix of two types is none that a file can hold."""
    folder = changed(checkpoint, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    state = {name: (w.shape, w.tobytes()) for name, w in published(OF.tiny.weights).items()}
    added = {ADDED_ROWS: state.pop(ADDED_ROWS)}
    (folder / "a.safetensors").write_bytes(convert_safetensors_bytes(state, "F32"))
    shape, values = added[ADDED_ROWS]
    (folder / "b.safetensors").write_bytes(convert_safetensors_bytes({ADDED_ROWS: (shape, values)}, "F16"))
    places = {**dict.fromkeys(state, "a.safetensors"), ADDED_ROWS: "b.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    with pytest.raises(ModelCorrupt, match=r"additional_embedding.weight is F16 .*expected those of .*F32"):
        convert(folder, tmp_path / "a.gguf")
