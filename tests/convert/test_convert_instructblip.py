"""InstructBLIP's checkpoint: two vocabularies, layouts of several versions, what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.convert_checkpoint import convert_safetensors_bytes
from models.description import described
from models.instructblip import EOS, QUESTION_PIECES, published

import kosmos_edge
from kosmos_edge import _core
from kosmos_edge.convert import convert, verify
from kosmos_edge.convert.models import MODELS, find_model
from kosmos_edge.errors import ModelCorrupt, ModelNotFound

OF = described()["instructblip"]
TOKENS = len(OF.tiny.vocabulary.pieces)
Weights = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return OF.write_checkpoint(tmp_path_factory.mktemp("instructblip") / "hf")


def set_in(file: Path, path: str, value: Any) -> None:
    """A value of a JSON file; "a__b" is a path in it, None takes a key out."""
    root = json.loads(file.read_text()) if file.exists() else {}
    *sections, last = path.split("__")
    inner = root
    for key in sections:
        inner = inner[key]
    inner.pop(last, None)
    if value is not None:
        inner[last] = value
    file.write_text(json.dumps(root))


def changed(
    checkpoint: Path,
    folder: Path,
    rename: Callable[[str], str] = str,
    weights: Weights | None = None,
    question: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """The checkpoint with other names of tensors, some other weights, and other settings: "config__text_config__key".
    question: settings of the Q-Former's tokenizer."""
    shutil.copytree(checkpoint, folder)
    for path, value in settings.items():
        file, _, inner = path.partition("__")
        set_in(folder / f"{file}.json", inner, value)
    for key, value in (question or {}).items():
        set_in(folder / "qformer_tokenizer" / "tokenizer_config.json", key, value)
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
    assert find_model({"model_type": "instructblip"}) is MODELS["instructblip"]


def test_the_keys_are_what_the_engine_reads(checkpoint: Path, tmp_path: Path) -> None:
    path = convert(checkpoint, tmp_path / "a.gguf", type="f32").output
    metadata, tensors = contents(path)
    expected = {
        "instructblip.context_length": 512, "instructblip.attention.head_count_kv": 2,
        "instructblip.qformer.query_count": 8, "instructblip.qformer.context_length": 64,
        "instructblip.qformer.tokenizer": "bert-uncased", "instructblip.qformer.tokens": QUESTION_PIECES,
        "instructblip.qformer.begin_token_id": 2, "instructblip.qformer.end_token_id": 3,
        "instructblip.qformer.unknown_token_id": 1, "instructblip.generation.max_new_tokens": 256,
        "instructblip.image.token_id": TOKENS - 1, "instructblip.begin_token_id": EOS,
        "instructblip.prompt.caption": "{image}A short image description.",
        "instructblip.prompt.question": "{image}Question: {question} Short answer:",
        "clip.use_gelu": True, "tokenizer.ggml.model": "llama", "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": EOS, "tokenizer.ggml.unknown_token_id": 0, "general.license": "other",
        "tokenizer.ggml.space_prefix_every_segment": False,
    }  # fmt: skip
    assert {key: metadata[key] for key in expected} == expected
    assert metadata["instructblip.qformer.attention.layer_norm_epsilon"] == np.float32(1e-12)
    assert metadata["clip.vision.attention.layer_norm_epsilon"] == np.float32(1e-6)
    assert metadata["instructblip.attention.layer_norm_rms_epsilon"] == np.float32(1e-5)
    assert {name: data for name, (_, data) in tensors.items()} == {n: w.tobytes() for n, w in OF.tiny.weights.items()}
    sources = [text.partition(":")[0] for text in _core.GgufFile(str(path)).metadata()["instructblip.source.sha256"]]
    assert "qformer_tokenizer/vocab.txt" in sources and "qformer_tokenizer/tokenizer_config.json" in sources


LAYOUTS: dict[str, Callable[[str], str]] = {
    "transformers 5": lambda name: (
        "lm_head.weight"
        if name == "language_model.lm_head.weight"
        else "model." + name.replace("language_model.model.", "language_model.")
    ),
    "with buffers": str,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_of_other_versions_give_the_same_file(checkpoint: Path, tmp_path: Path, layout: str) -> None:
    more = {"qformer.embeddings.position_ids": np.zeros((1, 4))} if layout == "with buffers" else {}
    more |= {f"language_model.model.layers.{i}.self_attn.rotary_emb.inv_freq": np.ones(4) for i in range(2) if more}
    other = changed(checkpoint, tmp_path / "other", LAYOUTS[layout], more)
    a = convert(checkpoint, tmp_path / "a.gguf", type="q8_0").output
    assert contents(a) == contents(convert(other, tmp_path / "b.gguf", type="q8_0").output)


def word_json(folder: Path) -> None:
    """The Q-Former's vocabulary as tokenizer.json alone."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    root = {
        "added_tokens": [{"id": QUESTION_PIECES.index(text), "content": text, **flags} for text in names],
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {piece: i for i, piece in enumerate(QUESTION_PIECES[:-1])},
        },
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(root), encoding="utf-8")


def test_the_questions_vocabulary_in_one_file(checkpoint: Path, tmp_path: Path) -> None:
    other = changed(checkpoint, tmp_path / "other")
    word_json(other / "qformer_tokenizer")
    (other / "qformer_tokenizer" / "vocab.txt").unlink()
    (other / "qformer_tokenizer" / "added_tokens.json").unlink()
    a = convert(checkpoint, tmp_path / "a.gguf").output
    assert contents(a) == contents(convert(other, tmp_path / "b.gguf").output)


def test_rows_of_words_that_only_pad_the_table(checkpoint: Path, tmp_path: Path) -> None:
    words = "qformer.embeddings.word_embeddings.weight"
    more = np.concatenate([published(OF.tiny.weights)[words], np.ones((3, 256))])
    other = changed(
        checkpoint, tmp_path / "other", weights={words: more},
        config__qformer_config__vocab_size=len(QUESTION_PIECES) + 3,
    )  # fmt: skip
    a = convert(checkpoint, tmp_path / "a.gguf").output
    assert contents(a) == contents(convert(other, tmp_path / "b.gguf").output)


def test_prompts_that_begin_with_a_token_of_their_own(checkpoint: Path, tmp_path: Path) -> None:
    other = changed(
        checkpoint, tmp_path / "other", tokenizer_config__bos_token="<s>", tokenizer_config__unk_token="<unk>"
    )
    metadata, _ = contents(convert(other, tmp_path / "a.gguf").output)
    assert metadata["instructblip.begin_token_id"] == metadata["tokenizer.ggml.bos_token_id"] == 1


def test_llamas_ids_in_generation_config_do_not_matter(checkpoint: Path, tmp_path: Path) -> None:
    """Those of the published file are another vocabulary's."""
    other = changed(
        checkpoint, tmp_path / "other", generation_config__bos_token_id=0, generation_config__eos_token_id=1
    )
    a = convert(checkpoint, tmp_path / "a.gguf").output
    made = convert(other, tmp_path / "b.gguf").output
    assert contents(a) == contents(made) and verify(made) == []
    assert kosmos_edge.load(made, threads=1).model_info["eos"] == EOS


def test_a_vocabulary_without_placeholder(checkpoint: Path, tmp_path: Path) -> None:
    """Old ones have no image_token_index: what is unknown stands for it, which no text becomes."""
    other = changed(checkpoint, tmp_path / "other", config__image_token_index=None)
    metadata, _ = contents(convert(other, tmp_path / "a.gguf").output)
    assert metadata["instructblip.image.token_id"] == 0


def test_a_tied_head(checkpoint: Path, tmp_path: Path) -> None:
    same = {"language_model.lm_head.weight": OF.tiny.weights["token_embd.weight"]}
    a = convert(changed(checkpoint, tmp_path / "x", weights=same), tmp_path / "a.gguf").output
    tied = changed(checkpoint, tmp_path / "y", weights=same, config__text_config__tie_word_embeddings=True)
    assert contents(a) == contents(convert(tied, tmp_path / "b.gguf").output)
    wrong = changed(checkpoint, tmp_path / "z", config__text_config__tie_word_embeddings=True)
    with pytest.raises(ModelCorrupt, match="differs from the embedding"):
        convert(wrong, tmp_path / "c.gguf")


def test_without_the_questions_vocabulary(checkpoint: Path, tmp_path: Path) -> None:
    other = changed(checkpoint, tmp_path / "other")
    shutil.rmtree(other / "qformer_tokenizer")
    with pytest.raises(ModelNotFound, match=r"no folder .*qformer_tokenizer"):
        convert(other, tmp_path / "a.gguf")
    (other / "qformer_tokenizer").mkdir()
    with pytest.raises(ModelNotFound, match=r"no tokenizer\.json and no vocab\.txt"):
        convert(other, tmp_path / "a.gguf")


WRONG = {
    "another decoder": (
        {"config__text_config__model_type": "bloom"},
        "text_config.model_type is 'bloom', expected 'llama'",
    ),
    "scaled rotary positions": ({"config__text_config__rope_scaling": {"type": "yarn"}}, "'default' or 'linear'"),
    "relative positions": ({"config__qformer_config__position_embedding_type": "relative_key"}, "'absolute'"),
    "another feature width": ({"config__qformer_config__encoder_hidden_size": 64}, "the tower's width, 352"),
    "a quick GELU": ({"config__vision_config__hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'"),
    "a cut picture": ({"preprocessor_config__do_center_crop": True}, "do_center_crop is True"),
    "no added token": ({"config__image_token_index": 300}, "image_token_index is 300, which is no added token"),
    "no token": ({"config__image_token_index": 100_000}, "image_token_index is 100000, which is no added token"),
    "no id": ({"config__image_token_index": "x"}, "image_token_index is 'x', expected a token id"),
    "too few rows": ({"config__text_config__vocab_size": 9}, "tokens, the embedding has 9 rows"),
    "too few words": ({"config__qformer_config__vocab_size": 9}, "tokens, qformer_config.vocab_size is 9"),
    "no beginning": ({"tokenizer_config__add_bos_token": False}, "every prompt of InstructBLIP begins with one"),
    "other layers": ({"config__qformer_config__num_hidden_layers": 4}, r"qformer.encoder.layer.3.*is missing"),
    "other positions": ({"config__qformer_config__max_position_embeddings": 512}, r"position_embeddings.*\(512, 256\)"),
    "a cased question": ({"question": {"do_lower_case": False}}, "do_lower_case is False; only True is supported"),
    "kept accents": ({"question": {"strip_accents": False}}, "strip_accents is False; only None is supported"),
    "no such token": ({"question": {"sep_token": "[END]"}}, r"sep_token is '\[END\]', which is no token"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_supported_is_named(checkpoint: Path, tmp_path: Path, case: str) -> None:
    settings, message = WRONG[case]
    with pytest.raises(ModelCorrupt, match=message):
        convert(changed(checkpoint, tmp_path / "m", **settings), tmp_path / "a.gguf")


WORDS: dict[str, tuple[Callable[[dict], None], str]] = {
    "BPE": (lambda root: root["model"].update(type="BPE"), "model is 'BPE'; expected WordPiece"),
    "another mark": (lambda root: root["model"].update(continuing_subword_prefix="@@"), "continuing_subword_prefix is"),
    "longer words": (
        lambda root: root["model"].update(max_input_chars_per_word=200),
        "max_input_chars_per_word is 200",
    ),
    "another unknown": (lambda root: root["model"].update(unk_token="?"), "unk_token is '\\?'"),
    "another normalizer": (lambda root: root.update(normalizer={"type": "NFC"}), "'NFC'; expected BertNormalizer"),
    "kept capitals": (lambda root: root["normalizer"].update(lowercase=False), "lowercase is False; only True"),
    "no cuts": (lambda root: root.update(pre_tokenizer=None), "pre_tokenizer is None; expected BertPreTokenizer"),
    "no pieces": (lambda root: root["model"].update(vocab={}), "expected an object of 1"),
    "no list": (lambda root: root["model"].update(vocab=[]), "expected an object of 1"),
}


@pytest.mark.parametrize("case", WORDS)
def test_another_kind_of_question_vocabulary(checkpoint: Path, tmp_path: Path, case: str) -> None:
    other = changed(checkpoint, tmp_path / "other")
    word_json(other / "qformer_tokenizer")
    file = other / "qformer_tokenizer" / "tokenizer.json"
    root = json.loads(file.read_text())
    change, message = WORDS[case]
    change(root)
    file.write_text(json.dumps(root))
    with pytest.raises(ModelCorrupt, match=message):
        convert(other, tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[UNK]\n[UNK]\n", "2 pieces, 1 different ones"),
        (b"\xff\n", "not valid UTF-8"),
        (b"a\n\nb\n", "has 0 bytes"),
        (b"a\nb\n", "cls_token is"),
    ],
)
def test_a_bad_list_of_pieces(checkpoint: Path, tmp_path: Path, text: bytes, message: str) -> None:
    other = changed(checkpoint, tmp_path / "other")
    (other / "qformer_tokenizer" / "vocab.txt").write_bytes(text)
    (other / "qformer_tokenizer" / "added_tokens.json").unlink()
    with pytest.raises(ModelCorrupt, match=message):
        convert(other, tmp_path / "a.gguf")


def test_one_tensor_under_two_names_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    twice = {"model.language_projection.bias": OF.tiny.weights["mm.0.bias"]}
    with pytest.raises(ModelCorrupt, match=r"are the same tensor, language_projection\.bias"):
        convert(changed(checkpoint, tmp_path / "m", weights=twice), tmp_path / "a.gguf")
