"""Byte-level BPE vocabularies in a checkpoint's files: the converted one gives the ids of the tokenizers library; files
of another kind are refused."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.bpe_vocabularies import random_texts

from kosmos_edge import _core
from kosmos_edge.convert.byte_bpe import ByteBpe, read_byte_bpe
from kosmos_edge.convert.gguf import encode_header
from kosmos_edge.convert.sources.files import Folder
from kosmos_edge.convert.sources.tokenizer_files import TokenizerFiles
from kosmos_edge.errors import ModelCorrupt

tokenizers = pytest.importorskip("tokenizers", reason="the reference is the tokenizers library")
from helpers.byte_bpe_vocabularies import ADDED, Trained  # noqa: E402 (it needs tokenizers)

CONFIG = {"eos_token": "</s>", "bos_token": {"content": "</s>"}}
PRE = {"gpt-2": ("gpt2", False), "llama-bpe": ("cl100k", True), "dbrx": ("cl100k", False), "qwen2": ("qwen2", False)}


@pytest.fixture(scope="module", params=PRE)
def pair(request: pytest.FixtureRequest) -> tuple[str, Trained]:
    return request.param, Trained(*PRE[request.param])


@pytest.fixture(scope="module")
def gpt2() -> Trained:
    return Trained("gpt2")


def read(folder: Path) -> ByteBpe:
    files: list[Any] = []
    try:
        return read_byte_bpe(TokenizerFiles(Folder(folder), None, files))
    finally:
        for file in files:
            file.close()


def load(vocabulary: ByteBpe, folder: Path) -> _core.Tokenizer:
    """The engine's tokenizer, from the keys of a file."""
    path = folder / "vocabulary.gguf"
    path.write_bytes(encode_header(vocabulary.entries(), []))
    return _core.Tokenizer.load(str(path))


def write_json(folder: Path, **files: Any) -> Path:
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return folder


def tokenizer_json(trained: Trained, **changes: Any) -> dict[str, Any]:
    return json.loads(trained.reference.to_str()) | changes


def texts_for(trained: Trained, count: int, seed: int) -> list[str]:
    readable = [trained.tokenizer.text(i) for i, kind in enumerate(trained.types) if kind == 1]
    texts = random_texts(readable, count, seed)
    hidden = ("</s>", *ADDED)
    return [t for t in texts if all(unicodedata.category(c) != "Cn" for c in t) and not any(s in t for s in hidden)]


def test_a_tokenizer_json_gives_its_ids(pair: tuple[str, Trained], tmp_path: Path) -> None:
    pre, trained = pair
    vocabulary = read(write_json(tmp_path, tokenizer=tokenizer_json(trained), tokenizer_config=CONFIG))
    assert (vocabulary.pre, vocabulary.tokens, vocabulary.merges) == (pre, trained.pieces, trained.merges)
    assert vocabulary.kinds == trained.types
    tokenizer = load(vocabulary, tmp_path)
    texts = texts_for(trained, 3_000, seed=31)
    assert len(texts) > 1_500
    assert [t for t in texts if tokenizer.encode(t) != trained.expected(t)] == []
    for text in ("<image>", "a <md>b<image>\n", "<md><md>"):
        assert tokenizer.encode_with_tags(text) == trained.expected(text)


def test_its_own_cut_is_gpt2s(gpt2: Trained, tmp_path: Path) -> None:
    """ByteLevel cuts by itself, too: as most files have it."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    written = tokenizer_json(gpt2, pre_tokenizer=level)
    library = tokenizers.Tokenizer.from_str(json.dumps(written))
    tokenizer = load(read(write_json(tmp_path, tokenizer=written, tokenizer_config=CONFIG)), tmp_path)
    texts = texts_for(gpt2, 2_000, seed=32)
    assert [t for t in texts if tokenizer.encode(t) != library.encode(t, add_special_tokens=False).ids] == []


def test_vocab_json_and_merges_txt_give_their_ids(gpt2: Trained, tmp_path: Path) -> None:
    kept = {piece: i for i, piece in enumerate(gpt2.pieces) if piece not in ADDED}
    write_json(
        tmp_path,
        vocab=kept,
        added_tokens={text: gpt2.pieces.index(text) for text in ADDED},
        special_tokens_map={"eos_token": "</s>", "additional_special_tokens": ["<image>"]},
    )
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(gpt2.merges) + "\n", encoding="utf-8")
    vocabulary = read(tmp_path)
    assert vocabulary.tokens == gpt2.pieces and vocabulary.pre == "gpt-2"
    assert [vocabulary.kinds[gpt2.pieces.index(t)] for t in ("</s>", "<image>", "<md>")] == [3, 3, 4]
    assert vocabulary.bos == vocabulary.eos == gpt2.pieces.index("</s>")
    tokenizer = load(vocabulary, tmp_path)
    texts = texts_for(gpt2, 2_000, seed=33)
    assert [t for t in texts if tokenizer.encode(t) != gpt2.expected(t)] == []


def test_its_keys_are_llama_cpps(gpt2: Trained, tmp_path: Path) -> None:
    config = CONFIG | {"pad_token": "<md>", "unk_token": "</s>", "add_bos_token": True}
    padded = read(write_json(tmp_path, tokenizer=tokenizer_json(gpt2), tokenizer_config=config)).padded(720)
    values = {key.removeprefix("tokenizer.ggml."): value for key, _, value in padded.entries()}
    assert (values["model"], values["pre"], values["merges"]) == ("gpt2", "gpt-2", gpt2.merges)
    count = len(gpt2.pieces)
    assert values["tokens"] == [*gpt2.pieces, *(f"[PAD{i}]" for i in range(count, 720))]
    types = list(gpt2.types)
    types[gpt2.pieces.index("<md>")] = 3  # padding is no text
    assert values["token_type"] == [*types, *[5] * (720 - count)]
    assert values["padding_token_id"] == gpt2.pieces.index("<md>")
    assert values["add_bos_token"] is True and values["add_space_prefix"] is False
    with pytest.raises(ModelCorrupt, match=f"720 tokens, the embedding {count} rows"):
        padded.padded(count)


LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}


def _cut(*parts: Any) -> Callable[[dict[str, Any]], object]:
    return lambda root: root.update(pre_tokenizer={"type": "Sequence", "pretokenizers": list(parts)})


BAD: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a normalizer": (
        lambda r: r.update(normalizer={"type": "NFKC"}),
        "normalizer is 'NFKC'; a byte-level BPE has none",
    ),
    "no cut": (lambda r: r.update(pre_tokenizer=None), "pre_tokenizer is None; expected ByteLevel"),
    "words alone": (lambda r: r.update(pre_tokenizer={"type": "Whitespace"}), "is 'Whitespace' with add_prefix_space"),
    "a blank before": (lambda r: r.update(pre_tokenizer={"type": "ByteLevel"}), "with add_prefix_space None"),
    "nothing cuts": (lambda r: r.update(pre_tokenizer=LEVEL), "does not cut words"),
    "cut twice": (
        _cut({"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Isolated"}, LEVEL | {"use_regex": True}),
        "in a form that is not known",
    ),
    "an unknown pattern": (
        _cut({"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Isolated"}, LEVEL),
        "cuts by 'x'; expected one of gpt-2, llama-bpe, dbrx, qwen2",
    ),
    "three steps": (_cut(LEVEL, LEVEL, LEVEL), "expected ByteLevel, or Split and ByteLevel"),
    "whole pieces": (lambda r: r["model"].update(ignore_merges=True), "gpt-2 is supported with False alone"),
    "byte fallback": (lambda r: r["model"].update(byte_fallback=True), "byte_fallback is true"),
    "a byte is missing": (lambda r: r["model"]["vocab"].pop("A"), "no normal piece is the byte 65"),
    "a merge of strangers": (lambda r: r["model"]["merges"].append("zz qq"), "names a piece that is not a normal one"),
    "another model": (lambda r: r["model"].update(type="WordPiece"), "model is 'WordPiece'; expected a BPE model"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tokenizer_json_is_refused(gpt2: Trained, tmp_path: Path, case: str) -> None:
    change, message = BAD[case]
    written = tokenizer_json(gpt2)
    change(written)
    with pytest.raises(ModelCorrupt, match=message):
        read(write_json(tmp_path, tokenizer=written, tokenizer_config=CONFIG))


def test_an_end_of_text_is_needed(gpt2: Trained, tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match="eos_token is None, which is no token"):
        read(write_json(tmp_path, tokenizer=tokenizer_json(gpt2)))


def test_vocab_json_needs_merges(gpt2: Trained, tmp_path: Path) -> None:
    write_json(tmp_path, vocab={"a": 0}, tokenizer_config=CONFIG)
    with pytest.raises(ModelCorrupt, match=r"there is no merges.txt beside it"):
        read(tmp_path)
    (tmp_path / "merges.txt").write_bytes(b"\xff")
    with pytest.raises(ModelCorrupt, match=r"merges.txt is not UTF-8"):
        read(tmp_path)
