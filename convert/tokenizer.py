"""Vocabulary files: `tokenizer.json` of the `tokenizers` package and sentencepiece's .model, and what a GGUF file says
of them. What a model makes of the pieces is its module's business.

tokenizer.json: Unigram + Precompiled. sentencepiece: sentencepiece_model.proto.
"""

import base64
import binascii
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_edge.errors import ModelCorrupt

from .sources.files import brief, parse_json

# Types of GGUF's tokenizer.ggml.token_type.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE = 1, 2  # trainer_spec.model_type of a sentencepiece model
MAX_PIECES = 1 << 20
MAX_SCORE = 1e30  # float32 has room for it


@dataclass(frozen=True)
class Unigram:
    """Pieces by id, their scores (natural log), and sentencepiece's compiled normaliser (may be empty)."""

    pieces: list[str]
    scores: list[float]
    charsmap: bytes


@dataclass(frozen=True)
class SentencePiece(Unigram):
    """A sentencepiece model. kinds: by id, in the numbers of NORMAL and its kin. The flags are its normaliser's:
    a blank before every text, runs of blanks become one, blanks are written as U+2581 before (not behind) words."""

    kinds: list[int]
    model_type: int
    blank_prefix: bool
    fold_blanks: bool
    escapes_blanks: bool


# ---- tokenizer.json


def read_unigram_json(data: bytes, where: Path, unk: int) -> Unigram:
    """The vocabulary of a `tokenizers` file of type Unigram with that unk_id and sentencepiece's normaliser."""

    def bad(what: str) -> ModelCorrupt:
        return ModelCorrupt(f"{where}: {what}")

    root = parse_json(data, where)
    model = root.get("model")
    if not isinstance(model, dict) or model.get("type") != "Unigram":
        raise bad(f"expected a Unigram model, got {brief(model.get('type') if isinstance(model, dict) else model)}")
    if model.get("unk_id") != unk or model.get("byte_fallback"):
        raise bad(
            f"expected unk_id {unk} without byte fallback, got {brief(model.get('unk_id'))} "
            f"and byte_fallback {brief(model.get('byte_fallback'))}"
        )
    vocab = model.get("vocab")
    if not isinstance(vocab, list) or not 4 < len(vocab) <= MAX_PIECES:
        raise bad(f"model.vocab is not a list of 5..{MAX_PIECES} pieces")
    pieces, scores = [], []
    for i, entry in enumerate(vocab):
        if not (
            isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and type(entry[1]) in (int, float)
        ):
            raise bad(f"model.vocab[{i}] is {brief(entry)}, expected [piece, score]")
        if not abs(entry[1]) < MAX_SCORE:  # float() of a larger integer may not exist
            raise bad(f"piece {brief(entry[0])} has the score {brief(entry[1])}")
        pieces.append(encodable(entry[0], where))
        scores.append(float(entry[1]))
    added = root.get("added_tokens", [])
    if not isinstance(added, list) or len(added) > MAX_PIECES or not all(isinstance(token, dict) for token in added):
        raise bad("added_tokens is not a list of objects")
    for token in sorted(added, key=lambda t: t["id"] if type(t.get("id")) is int else -1):
        number, content = token.get("id"), token.get("content")
        if type(number) is not int or not isinstance(content, str) or not 0 <= number <= len(pieces):
            raise bad(f"added token {brief(content)} has no id that continues the vocabulary of {len(pieces)}")
        if number == len(pieces):
            pieces.append(encodable(content, where))
            scores.append(0.0)
        elif pieces[number] != content:
            raise bad(f"added token {number} is {content!r}, the vocabulary has {pieces[number]!r} there")
    return Unigram(pieces, scores, _charsmap(root.get("normalizer"), where))


def encodable(piece: str, where: Path) -> str:
    """The piece, which must be valid Unicode: JSON may spell half of a surrogate pair."""
    try:
        piece.encode()
    except UnicodeEncodeError:
        raise ModelCorrupt(f"{where}: piece {piece!r} is not valid Unicode") from None
    return piece


def _charsmap(normalizer: Any, where: Path) -> bytes:
    """The compiled map of a Precompiled normalizer, alone or in the Sequence that transformers writes around it."""
    parts = (
        normalizer.get("normalizers")
        if isinstance(normalizer, dict) and normalizer.get("type") == "Sequence"
        else [normalizer]
    )
    charsmap = b""
    for part in parts if isinstance(parts, list) else []:
        kind = part.get("type") if isinstance(part, dict) else part
        if kind == "Precompiled" and not charsmap:
            try:
                charsmap = base64.b64decode(part.get("precompiled_charsmap") or "", validate=True)
            except (binascii.Error, TypeError, ValueError) as error:
                raise ModelCorrupt(f"{where}: precompiled_charsmap is not base64: {error}") from None
        elif kind not in (None, "Replace", "Strip"):  # runs of blanks and blanks at the ends: sentencepiece's own rules
            raise ModelCorrupt(f"{where}: normalizer {brief(kind)} is not one of sentencepiece's")
    return charsmap


# ---- sentencepiece


def _fields(data: bytes, where: Path) -> Iterator[tuple[int, int | float | bytes]]:
    """(field number, value) of a protobuf message; numbers are unsigned, fixed 32 bit fields are floats."""
    at = 0

    def bad() -> ModelCorrupt:
        return ModelCorrupt(f"{where}: not a sentencepiece model (malformed at byte {at} of a message)")

    def varint() -> int:
        nonlocal at
        value = 0
        for shift in range(0, 70, 7):
            if at >= len(data):
                break
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise bad()

    while at < len(data):
        key = varint()
        number, kind = key >> 3, key & 7
        if kind == 0:
            yield number, varint()
            continue
        size = varint() if kind == 2 else {1: 8, 5: 4}.get(kind, -1)
        if size < 0 or size > len(data) - at:
            raise bad()
        value = data[at : at + size]
        at += size
        yield number, struct.unpack("<f", value)[0] if kind == 5 else value


def read_sentencepiece_model(data: bytes, where: Path) -> SentencePiece:
    """What a sentencepiece .model holds. ModelCorrupt where it is not one."""

    def bad(what: str) -> ModelCorrupt:
        return ModelCorrupt(f"{where}: {what}")

    pieces: list[str] = []
    scores: list[float] = []
    kinds: list[int] = []
    charsmap, model_type, suffix = b"", 1, False
    flags = [True, True, True]
    for number, value in _fields(data, where):
        if number == 1 and isinstance(value, bytes):
            piece = dict(_fields(value, where))
            text, score, kind = piece.get(1), piece.get(2, 0.0), piece.get(3, NORMAL)
            if not isinstance(text, bytes) or not isinstance(score, float) or not isinstance(kind, int):
                raise bad(f"piece {len(pieces)} is malformed")
            try:
                pieces.append(text.decode())
            except UnicodeDecodeError:
                raise bad(f"piece {len(pieces)} is not UTF-8") from None
            scores.append(score)
            kinds.append(kind)
        elif number == 2 and isinstance(value, bytes):  # trainer_spec
            trainer = dict(_fields(value, where))
            kind = trainer.get(3, 1)
            model_type = kind if isinstance(kind, int) else -1
            suffix = trainer.get(24, 0) != 0  # treat_whitespace_as_suffix
        elif number == 3 and isinstance(value, bytes):  # normalizer_spec
            normalizer = dict(_fields(value, where))
            charsmap_value = normalizer.get(2, b"")
            charsmap = charsmap_value if isinstance(charsmap_value, bytes) else b""
            flags = [normalizer.get(key, 1) != 0 for key in (3, 4, 5)]
    prefix, fold, escapes = flags
    return SentencePiece(pieces, scores, charsmap, kinds, model_type, prefix, fold, escapes and not suffix)


def compare_dict(pieces: list[str], symbols: bytes, where: Path) -> None:
    """fairseq numbers symbols by dict.txt ("piece count" per line): its order must be the model's."""
    try:
        lines = symbols.decode().rstrip("\n").split("\n")
    except UnicodeDecodeError:
        raise ModelCorrupt(f"{where.parent / 'dict.txt'} is not UTF-8") from None
    listed = [line.rsplit(" ", 1)[0] for line in lines]
    if listed != pieces:
        at = next(
            (i for i, (a, b) in enumerate(zip(listed, pieces, strict=False)) if a != b), min(len(listed), len(pieces))
        )
        raise ModelCorrupt(
            f"{where.parent / 'dict.txt'}: line {at + 1} of {len(listed)} is {listed[at : at + 1]}, "
            f"the sentencepiece model has {pieces[at : at + 1]} there ({len(pieces)} pieces)"
        )
