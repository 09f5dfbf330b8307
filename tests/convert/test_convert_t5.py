"""Small random BLIP-2 and InstructBLIP checkpoints with Flan-T5 become one GGUF file; what is wrong or not supported is
named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.convert_checkpoint import _field, _varint, convert_safetensors_bytes
from models.blip2_t5 import EOS, PAD, UNK, published
from models.description import described

from kosmos_edge import _core
from kosmos_edge.convert import convert, verify
from kosmos_edge.convert.models import MODELS, find_model
from kosmos_edge.errors import ModelCorrupt, ModelNotFound

OF = described()["blip2_t5"]
V = OF.tiny.vocabulary
EXTRA = 4
SHARED, HEAD = "language_model.shared.weight", "language_model.lm_head.weight"
Weights = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return OF.write_checkpoint(tmp_path_factory.mktemp("t5") / "hf")


def changed(
    checkpoint: Path,
    folder: Path,
    weights: Callable[[Weights], Weights] = dict,
    **settings: Any,
) -> Path:
    """The checkpoint with other weights and settings: "config__text_config__key" is a path in config.json; None takes a
    key out."""
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
    state = weights(published(OF.tiny.weights))
    values = {name: (array.shape, np.ascontiguousarray(array, "f").tobytes()) for name, array in state.items()}
    (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(values, "F32"))
    return folder


def sentencepiece(pieces: list[str], kinds: list[int], model_type: int = 1, flags: bytes = b"") -> bytes:
    """A sentencepiece model of T5's kind. flags: fields of its normalizer_spec."""
    out = b""
    for piece, score, kind in zip(pieces, V.scores, kinds, strict=False):
        body = _field(1, 2, piece.encode()) + _field(2, 5, np.float32(score).tobytes())
        out += _field(1, 2, body + (_field(3, 0, _varint(kind)) if kind != 1 else b""))
    out += _field(2, 2, _field(3, 0, _varint(model_type)))
    return out + _field(3, 2, _field(1, 2, b"nmt_nfkc") + _field(2, 2, V.charsmap) + flags)


def with_spiece(folder: Path, data: bytes | None = None) -> Path:
    """spiece.model instead of tokenizer.json, and the image's placeholder in added_tokens.json."""
    own = len(V.pieces) - EXTRA - 1
    (folder / "tokenizer.json").unlink()
    (folder / "spiece.model").write_bytes(sentencepiece(V.pieces[:own], V.types[:own]) if data is None else data)
    (folder / "added_tokens.json").write_text(json.dumps({"<image>": V.id("<image>")}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": ["<image>"]}))
    return folder


def contents(path: Path) -> tuple[dict[str, Any], dict[str, tuple[str, bytes]]]:
    """-> (metadata without what tells of the source's files, tensors)"""
    file = _core.GgufFile(str(path))
    metadata = {key: value for key, value in file.metadata().items() if not key.endswith("source.sha256")}
    return metadata, {name: (dtype, file.tensor_data(name)) for name, dtype, *_ in file.tensors()}


def test_their_rows() -> None:
    """The language model decides; one without a model_type is BLIP-2's default, OPT."""
    t5, opt, llama = ({"text_config": {"model_type": kind}} for kind in ("t5", "opt", "llama"))
    for family, other in (("blip-2", opt), ("instructblip", llama)):
        assert find_model({"model_type": family, **t5}) is MODELS[f"{family.replace('-', '')}_t5"]
        assert find_model({"model_type": family, **other}) is find_model({"model_type": family}) is MODELS[family]


def test_the_keys_are_what_the_engine_reads(checkpoint: Path, tmp_path: Path) -> None:
    metadata, tensors = contents(convert(checkpoint, tmp_path / "a.gguf", type="f32").output)
    expected = {
        "blip2_t5.context_length": 512, "blip2_t5.block_count": 2, "blip2_t5.encoder.block_count": 3,
        "blip2_t5.attention.key_length": 64, "blip2_t5.attention.relative_buckets_count": 32,
        "blip2_t5.attention.relative_max_distance": 128, "blip2_t5.decoder_start_token_id": PAD,
        "blip2_t5.image.token_id": V.id("<image>"), "tokenizer.ggml.model": "t5", "tokenizer.ggml.eos_token_id": EOS,
        "tokenizer.ggml.unknown_token_id": UNK, "tokenizer.ggml.add_eos_token": True, "general.license": "mit",
        "tokenizer.ggml.token_type": V.types,
    }  # fmt: skip
    assert {key: metadata[key] for key in expected} == expected
    assert "tokenizer.ggml.bos_token_id" not in metadata
    assert {name: data for name, (_, data) in tensors.items()} == {n: w.tobytes() for n, w in OF.tiny.weights.items()}


def twice(weights: Weights) -> Weights:
    stacks = {f"language_model.{stack}.embed_tokens.weight": weights[SHARED] for stack in ("encoder", "decoder")}
    return weights | stacks


def padded(weights: Weights) -> Weights:
    return weights | {
        name: np.concatenate([weights[name], np.ones((27, weights[name].shape[1]))]) for name in (SHARED, HEAD)
    }


LAYOUTS: dict[str, tuple[Callable[[Weights], Weights], dict[str, Any]]] = {
    "the embedding in each stack": (twice, {}),
    "rows that pad the vocabulary": (padded, {"config__text_config__vocab_size": len(V.pieces) + 27}),
    "newer settings": (
        dict,
        {"config__text_config__tie_word_embeddings": True, "config__text_config__scale_decoder_outputs": False},
    ),
    "sizes that are the default": (
        dict,
        {"config__text_config__n_positions": None, "config__text_config__relative_attention_num_buckets": None},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_layouts_give_the_same_file(checkpoint: Path, tmp_path: Path, layout: str) -> None:
    weights, settings = LAYOUTS[layout]
    other = changed(checkpoint, tmp_path / "other", weights, **settings)
    a = convert(checkpoint, tmp_path / "a.gguf", type="q8_0").output
    assert contents(a) == contents(convert(other, tmp_path / "b.gguf", type="q8_0").output)


def test_a_head_that_is_the_embedding(checkpoint: Path, tmp_path: Path) -> None:
    def tied(weights: Weights) -> Weights:
        return {name: array for name, array in weights.items() if name != HEAD}

    settings = {"config__text_config__tie_word_embeddings": True, "config__text_config__scale_decoder_outputs": False}
    _, tensors = contents(convert(changed(checkpoint, tmp_path / "m", tied, **settings), tmp_path / "a.gguf").output)
    _, floats = contents(convert(tmp_path / "m", tmp_path / "b.gguf", type="f32").output)
    assert floats["output.weight"] == floats["token_embd.weight"]
    assert tensors["output.weight"][0] == "Q6_K" and tensors["token_embd.weight"][0] == "Q4_K"


def test_a_sentencepiece_model_gives_the_same_vocabulary(checkpoint: Path, tmp_path: Path) -> None:
    """With the extra ids and what was added counted behind it."""
    other = with_spiece(changed(checkpoint, tmp_path / "other"))
    a, b = (contents(convert(folder, tmp_path / f"{i}.gguf").output) for i, folder in enumerate((checkpoint, other)))
    assert a == b


def test_an_old_vocabulary_has_no_placeholder(checkpoint: Path, tmp_path: Path) -> None:
    old = with_spiece(changed(checkpoint, tmp_path / "old", config__image_token_index=None))
    (old / "added_tokens.json").unlink()
    path = convert(old, tmp_path / "a.gguf", type="f32").output
    metadata, _ = contents(path)
    assert metadata["blip2_t5.image.token_id"] == UNK and metadata["blip2_t5.vocab_size"] == len(V.pieces) - 1
    assert verify(path) == []


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "relu": ({"config__text_config__feed_forward_proj": "relu"}, "feed_forward_proj is 'relu', expected 'gated-gelu'"),
    "no gate named": ({"config__text_config__feed_forward_proj": None}, "feed_forward_proj is None"),
    "version 1.0's output": (
        {"config__text_config__tie_word_embeddings": True}, "tie_word_embeddings is True, expected false",
    ),
    "a scaled output": (
        {"config__text_config__scale_decoder_outputs": True}, "scale_decoder_outputs is True, expected false",
    ),
    "no start": ({"config__text_config__decoder_start_token_id": -1}, "decoder_start_token_id is -1"),
    "another start": ({"generation_config__decoder_start_token_id": 7}, "decoder_start_token_id is 7, expected 0"),
    "too few rows": ({"config__text_config__vocab_size": 9}, "tokens, the embedding has 9 rows"),
    "other layers": ({"config__text_config__num_layers": 4}, r"encoder\.block\.3.*is missing"),
    "other buckets": ({"config__text_config__relative_attention_num_buckets": 16}, "attention_bias.* expected"),
    "no token there": ({"config__image_token_index": 5}, "image_token_index is 5, which is no added token"),
    "no end": ({"tokenizer_config__eos_token": "<end>"}, "eos_token is '<end>', which is no token"),
    "another unknown one": ({"tokenizer_config__unk_token": "a"}, "unk_token is"),
    "a cut picture": ({"preprocessor_config__do_center_crop": True}, "do_center_crop is True"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_supported_is_named(checkpoint: Path, tmp_path: Path, case: str) -> None:
    settings, message = WRONG[case]
    with pytest.raises(ModelCorrupt, match=message):
        convert(changed(checkpoint, tmp_path / "m", **settings), tmp_path / "a.gguf")


def test_other_sentencepiece_models_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    own = len(V.pieces) - EXTRA - 1
    pieces, kinds = V.pieces[:own], V.types[:own]
    folder = with_spiece(changed(checkpoint, tmp_path / "m"))
    for data, message in (
        (sentencepiece(pieces, kinds, model_type=2), "model type 2, expected 1"),
        (sentencepiece(pieces, kinds, flags=_field(3, 0, _varint(0))), "its rules of blanks"),
        (sentencepiece([*pieces[:-1], pieces[3]], kinds), "a piece occurs twice"),
        (b"no protobuf", "not a sentencepiece model"),
    ):
        (folder / "spiece.model").write_bytes(data)
        with pytest.raises(ModelCorrupt, match=message):
            convert(folder, tmp_path / "a.gguf")
    with_extra = json.loads((folder / "tokenizer_config.json").read_text()) | {"extra_ids": -1}
    (folder / "tokenizer_config.json").write_text(json.dumps(with_extra))
    (folder / "spiece.model").write_bytes(sentencepiece(pieces, kinds))
    with pytest.raises(ModelCorrupt, match="extra_ids is -1"):
        convert(folder, tmp_path / "a.gguf")


def test_a_head_that_is_another_in_one_stack_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    def other(weights: Weights) -> Weights:
        return weights | {"language_model.encoder.embed_tokens.weight": weights[SHARED] + 1}

    with pytest.raises(ModelCorrupt, match=r"encoder\.embed_tokens\.weight differs from the embedding"):
        convert(changed(checkpoint, tmp_path / "m", other), tmp_path / "a.gguf")


def test_instructblip_needs_the_questions_vocabulary(tmp_path: Path) -> None:
    folder = described()["instructblip_t5"].write_checkpoint(tmp_path / "m")
    shutil.rmtree(folder / "qformer_tokenizer")
    with pytest.raises(ModelNotFound, match="qformer_tokenizer"):
        convert(folder, tmp_path / "a.gguf")
