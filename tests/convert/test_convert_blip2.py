"""Small random BLIP-2 checkpoints become one GGUF file; what is wrong or not supported is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.convert_checkpoint import convert_safetensors_bytes
from models.blip2 import END, NUMBERS, PIECES, published
from models.description import described

import kosmos_edge
from kosmos_edge import _core
from kosmos_edge.convert import convert, verify
from kosmos_edge.convert.models import MODELS, find_model
from kosmos_edge.errors import ModelCorrupt

OF = described()["blip2"]
Weights = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return OF.write_checkpoint(tmp_path_factory.mktemp("blip2") / "hf")


def changed(
    checkpoint: Path,
    folder: Path,
    rename: Callable[[str], str] = str,
    weights: Weights | None = None,
    **settings: Any,
) -> Path:
    """The checkpoint with other names of tensors, some other weights, and other settings: "config__text_config__key"
    is a path in config.json; None takes a key out."""
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
    state = {rename(name): array for name, array in {**published(OF.tiny.weights), **(weights or {})}.items()}
    values = {name: (array.shape, np.ascontiguousarray(array, "f").tobytes()) for name, array in state.items()}
    (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(values, "F32"))
    return folder


def contents(path: Path) -> tuple[dict[str, Any], dict[str, tuple[str, bytes]]]:
    """-> (metadata without what tells of the source's files, tensors)"""
    file = _core.GgufFile(str(path))
    metadata = {key: value for key, value in file.metadata().items() if not key.endswith("source.sha256")}
    return metadata, {name: (dtype, file.tensor_data(name)) for name, dtype, *_ in file.tensors()}


def test_its_row() -> None:
    assert find_model({"model_type": "blip-2"}) is MODELS["blip-2"]


def test_queries_keys_and_values_are_taken_apart(checkpoint: Path, tmp_path: Path) -> None:
    _, tensors = contents(convert(checkpoint, tmp_path / "a.gguf", type="f32").output)
    whole = published(OF.tiny.weights)["vision_model.encoder.layers.1.self_attn.qkv.bias"]
    found = b"".join(tensors[f"v.blk.1.attn_{part}.bias"][1] for part in "qkv")
    assert found == whole.tobytes() and len(set(whole.tolist())) > 1000
    assert {name: data for name, (_, data) in tensors.items()} == {n: w.tobytes() for n, w in OF.tiny.weights.items()}


def test_the_keys_are_what_the_engine_reads(checkpoint: Path, tmp_path: Path) -> None:
    metadata, _ = contents(convert(checkpoint, tmp_path / "a.gguf", type="f32").output)
    expected = {
        "blip2.context_length": 512, "blip2.embedding_length": 256, "blip2.qformer.query_count": 8,
        "blip2.qformer.cross_attention_every": 2, "blip2.generation.end_token_id": END,
        "blip2.generation.max_new_tokens": 64, "blip2.image.token_id": len(PIECES.pieces) - 1,
        "blip2.prompt.caption": "{image}", "blip2.prompt.question": "{image}Question: {question} Answer:",
        "clip.use_gelu": True, "clip.vision.embedding_length": 352, "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.padding_token_id": 1,
        "general.license": "other",
    }  # fmt: skip
    assert {key: metadata[key] for key in expected} == expected
    assert metadata["blip2.qformer.attention.layer_norm_epsilon"] == np.float32(1e-12)
    assert metadata["clip.vision.attention.layer_norm_epsilon"] == np.float32(1e-6)


LAYOUTS: dict[str, Callable[[str], str]] = {
    "transformers 5": lambda name: (
        "model." + name.replace("language_model.model.", "language_model.") if name != "lm_head.weight" else name
    ),
    "with buffers": str,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_of_other_versions_give_the_same_file(checkpoint: Path, tmp_path: Path, layout: str) -> None:
    more = {"qformer.embeddings.position_ids": np.zeros((1, 4))} if layout == "with buffers" else {}
    head = {"language_model.lm_head.weight": OF.tiny.weights["token_embd.weight"]} if more else {}
    other = changed(checkpoint, tmp_path / "other", LAYOUTS[layout], more | head)
    a = convert(checkpoint, tmp_path / "a.gguf", type="q8_0").output
    assert contents(a) == contents(convert(other, tmp_path / "b.gguf", type="q8_0").output)


def test_an_old_vocabulary_has_no_placeholder(checkpoint: Path, tmp_path: Path) -> None:
    """Of before transformers 4.46: no <image>, and rows of the embedding that only pad it."""
    old = changed(checkpoint, tmp_path / "old", config__image_token_index=None)
    settings = json.loads((old / "tokenizer_config.json").read_text())
    del settings["added_tokens_decoder"][str(len(PIECES.pieces) - 1)]
    (old / "tokenizer_config.json").write_text(json.dumps(settings))
    path = convert(old, tmp_path / "a.gguf", type="f32").output
    metadata, tensors = contents(path)
    tokens = len(PIECES.pieces) - 1
    assert metadata["blip2.image.token_id"] == 1 and metadata["blip2.vocab_size"] == tokens
    embedding = OF.tiny.weights["token_embd.weight"][:tokens]
    assert tensors["token_embd.weight"] == ("F32", embedding.tobytes()) and verify(path) == []


def test_generation_config_says_how_answers_end(checkpoint: Path, tmp_path: Path) -> None:
    own = changed(checkpoint, tmp_path / "own", generation_config__eos_token_id=77, generation_config__bos_token_id=2)
    metadata, _ = contents(convert(own, tmp_path / "a.gguf").output)
    assert metadata["blip2.generation.end_token_id"] == 77
    assert kosmos_edge.load(tmp_path / "a.gguf", threads=1).model_info["eos"] == 77


def test_small_types_where_rows_allow_them(checkpoint: Path, tmp_path: Path) -> None:
    """The tower's rows, 352 here and 1408 as published, are stored in blocks of 32, and the report says so."""
    report = convert(checkpoint, tmp_path / "a.gguf", type="q4_k_m")
    _, tensors = contents(report.output)
    assert tensors["v.blk.0.ffn_up.weight"][0] == tensors["mm.blk.2.cross.attn_v.weight"][0] == "Q8_0"
    assert tensors["v.blk.0.ffn_down.weight"][0] == "Q6_K" and tensors["blk.0.ffn_up.weight"][0] == "Q4_K"
    assert tensors["mm.query"][0] == "F32"
    assert any("v.blk.0.attn_q.weight: stored as Q8_0, its rows of 352" in text for text in report.fallbacks)


WRONG = {
    "another decoder": (
        {"config__text_config__model_type": "bloom"},
        "text_config.model_type is 'bloom', expected 'opt'",
    ),
    "post-norm": ({"config__text_config__do_layer_norm_before": False}, "do_layer_norm_before is False, expected True"),
    "projected embeddings": ({"config__text_config__word_embed_proj_dim": 64}, "expected hidden_size, 256"),
    "another activation": ({"config__text_config__activation_function": "gelu"}, "'gelu', expected 'relu'"),
    "a Q-Former with text": ({"config__qformer_config__use_qformer_text_input": True}, "expected False"),
    "another feature width": ({"config__qformer_config__encoder_hidden_size": 64}, "the tower's width, 352"),
    "too many heads": ({"config__qformer_config__num_attention_heads": 7}, "a multiple of 7 heads"),
    "no qkv bias": ({"config__vision_config__qkv_bias": False}, "qkv_bias is False, expected True"),
    "a quick GELU": ({"config__vision_config__hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'"),
    "a cut picture": ({"preprocessor_config__do_center_crop": True}, "do_center_crop is True"),
    "another size": ({"preprocessor_config__size": {"height": 224, "width": 224}}, "only .*56"),
    "no token there": ({"config__image_token_index": 5}, "image_token_index is 5, which is no added token"),
    "no id": ({"config__image_token_index": -1}, "image_token_index is -1, expected a token id"),
    "an end of two": ({"generation_config__eos_token_id": [1, 2]}, "eos_token_id is .*, expected one of"),
    "an end beyond": ({"config__text_config__eos_token_id": 50118}, "eos_token_id is 50118, expected one of"),
    "too few rows": ({"config__text_config__vocab_size": 9}, "tokens, the embedding has 9 rows"),
    "other layers": ({"config__qformer_config__num_hidden_layers": 4}, r"qformer.encoder.layer.3.*is missing"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_supported_is_named(checkpoint: Path, tmp_path: Path, case: str) -> None:
    settings, message = WRONG[case]
    with pytest.raises(ModelCorrupt, match=message):
        convert(changed(checkpoint, tmp_path / "m", **settings), tmp_path / "a.gguf")


def test_a_head_of_its_own_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    head = {"language_model.lm_head.weight": np.ones((len(PIECES.pieces), NUMBERS["embedding_length"]))}
    with pytest.raises(ModelCorrupt, match=r"lm_head\.weight differs from the embedding"):
        convert(changed(checkpoint, tmp_path / "m", weights=head), tmp_path / "a.gguf")


def test_one_tensor_under_two_names_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    twice = {"model.language_projection.bias": OF.tiny.weights["mm.0.bias"]}
    with pytest.raises(ModelCorrupt, match=r"are the same tensor, language_projection\.bias"):
        convert(changed(checkpoint, tmp_path / "m", weights=twice), tmp_path / "a.gguf")
