"""The vocabulary of a checkpoint, from tokenizer.json or sentencepiece.bpe.model: both give the same pieces and
scores.

Ids: `<s> <pad> </s> <unk>`, the sentencepiece pieces from its number 3 on, `<mask>`, eleven tags, the patch indices.
tokenizer.json: the format of the `tokenizers` package (Unigram + Precompiled). sentencepiece:
sentencepiece_model.proto.
"""

import base64
import binascii
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt, ModelNotFound

from .sources.files import MAX_TOKENIZER_BYTES, Folder, SourceFile, brief, parse_json

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
MASK = "<mask>"
TAGS = (
    "</doc>",
    "<image>",
    "</image>",
    "</chunk>",
    "</line>",
    "<phrase>",
    "</phrase>",
    "<object>",
    "</object>",
    "</delimiter_of_multi_objects/>",
    "<grounding>",
)
LOCATION_BINS = 32  # per side, of a vocabulary that does not list its patch indices
# Types of GGUF's tokenizer.ggml.token_type.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5
_MAX_PIECES = 1 << 20
_MAX_SCORE = 1e30  # float32 has room for it


def patch_index(i: int) -> str:
    """The piece of location cell i (row-major from the upper left)."""
    return f"<patch_index_{i:04d}>"


@dataclass(frozen=True)
class Vocabulary:
    """Pieces by id, their unigram scores (natural log), and sentencepiece's compiled normalizer (may be empty)."""

    pieces: list[str]
    scores: list[float]
    charsmap: bytes
    location_bins: int

    @property
    def types(self) -> list[int]:
        """GGUF's token types by id."""
        special = {MASK: UNUSED, SPECIALS[3]: UNKNOWN, **dict.fromkeys(SPECIALS[:3], CONTROL)}
        first_tag = len(self.pieces) - len(TAGS) - self.location_bins**2
        return [USER_DEFINED if i >= first_tag else special.get(piece, NORMAL) for i, piece in enumerate(self.pieces)]


def find_vocabulary(folder: Folder, given: Path | None, files: list[SourceFile]) -> Vocabulary:
    """Reads tokenizer.json or sentencepiece.bpe.model (+ dict.txt) of `folder`, or of `given` (a file or a folder).

    Opened files are added to `files`.
    """
    name = ""
    if given is not None:
        is_folder = os.path.isdir(given)
        folder = Folder(given if is_folder else given.parent)
        if not is_folder:
            files.append(SourceFile(given))
            name = given.name
    if not name:
        names = [n for n in ("tokenizer.json", "sentencepiece.bpe.model") if folder.has(n)]
        if not names:
            raise ModelNotFound(f"no tokenizer.json and no sentencepiece.bpe.model in {folder.path}")
        files.append(folder.open(names[0]))
    file = files[-1]
    data = file.read_all(MAX_TOKENIZER_BYTES)
    if data[:1] == b"{":
        return read_tokenizer_json(data, file.path)
    symbols = None
    if folder.has("dict.txt"):
        files.append(folder.open("dict.txt"))
        symbols = files[-1].read_all(MAX_TOKENIZER_BYTES)
    return read_sentencepiece(data, file.path, symbols)


def _checked(pieces: list[str], scores: list[float], charsmap: bytes, where: Path) -> Vocabulary:
    """The rules that hold for every KOSMOS-2 vocabulary."""

    def bad(what: str) -> ModelCorrupt:
        return ModelCorrupt(f"{where}: {what}")

    if tuple(pieces[:4]) != SPECIALS:
        raise bad(f"the first pieces are {pieces[:4]}, expected {list(SPECIALS)}")
    if len(set(pieces)) != len(pieces):
        raise bad("a piece occurs twice")
    if "" in pieces:
        raise bad(f"piece {pieces.index('')} is empty")
    cells = 0
    while cells < len(pieces) and pieces[-1 - cells].startswith("<patch_index_"):
        cells += 1
    bins = math.isqrt(cells)
    first = len(pieces) - cells
    if bins == 0 or bins * bins != cells or pieces[first:] != [patch_index(i) for i in range(cells)]:
        raise bad(f"expected the vocabulary to end in <patch_index_0000> ... of a square grid, got {cells} such pieces")
    tags = pieces[first - len(TAGS) : first]
    if sorted(tags) != sorted(TAGS) or pieces[first - len(TAGS) - 1] != MASK:
        raise bad(f"expected {MASK} and the tags {' '.join(TAGS)} before the patch indices, got {tags}")
    for piece, score in zip(pieces, scores, strict=True):
        if not abs(score) < _MAX_SCORE:  # also refuses NaN
            raise bad(f"piece {piece!r} has the score {score}")
    fixed = {*SPECIALS, *pieces[first - len(TAGS) - 1 :]}  # never chosen by score
    single = struct.Struct("<f")
    rounded = [0.0 if p in fixed else single.unpack(single.pack(s))[0] for p, s in zip(pieces, scores, strict=True)]
    vocabulary = Vocabulary(pieces, rounded, charsmap, bins)
    try:
        _core.Tokenizer(pieces, rounded, vocabulary.types, charsmap)  # what the engine refuses is not written
    except ModelCorrupt as error:
        raise bad(str(error)) from None
    return vocabulary


# ---- tokenizer.json


def read_tokenizer_json(data: bytes, where: Path) -> Vocabulary:
    """The vocabulary of a `tokenizers` file; anything but KOSMOS-2's kind of tokenizer is an error."""

    def bad(what: str) -> ModelCorrupt:
        return ModelCorrupt(f"{where}: {what}")

    root = parse_json(data, where)
    model = root.get("model")
    if not isinstance(model, dict) or model.get("type") != "Unigram":
        raise bad(f"expected a Unigram model, got {brief(model.get('type') if isinstance(model, dict) else model)}")
    if model.get("unk_id") != 3 or model.get("byte_fallback"):
        raise bad(
            f"expected unk_id 3 without byte fallback, got {brief(model.get('unk_id'))} "
            f"and byte_fallback {brief(model.get('byte_fallback'))}"
        )
    vocab = model.get("vocab")
    if not isinstance(vocab, list) or not 4 < len(vocab) <= _MAX_PIECES:
        raise bad(f"model.vocab is not a list of 5..{_MAX_PIECES} pieces")
    pieces, scores = [], []
    for i, entry in enumerate(vocab):
        if not (
            isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and type(entry[1]) in (int, float)
        ):
            raise bad(f"model.vocab[{i}] is {brief(entry)}, expected [piece, score]")
        if not abs(entry[1]) < _MAX_SCORE:  # float() of a larger integer may not exist
            raise bad(f"piece {brief(entry[0])} has the score {brief(entry[1])}")
        pieces.append(_encodable(entry[0], where))
        scores.append(float(entry[1]))
    added = root.get("added_tokens", [])
    if not isinstance(added, list) or len(added) > _MAX_PIECES or not all(isinstance(token, dict) for token in added):
        raise bad("added_tokens is not a list of objects")
    for token in sorted(added, key=lambda t: t["id"] if type(t.get("id")) is int else -1):
        number, content = token.get("id"), token.get("content")
        if type(number) is not int or not isinstance(content, str) or not 0 <= number <= len(pieces):
            raise bad(f"added token {brief(content)} has no id that continues the vocabulary of {len(pieces)}")
        if number == len(pieces):
            pieces.append(_encodable(content, where))
            scores.append(0.0)
        elif pieces[number] != content:
            raise bad(f"added token {number} is {content!r}, the vocabulary has {pieces[number]!r} there")
    return _checked(pieces, scores, _charsmap(root.get("normalizer"), where), where)


def _encodable(piece: str, where: Path) -> str:
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


def read_sentencepiece(data: bytes, where: Path, symbols: bytes | None) -> Vocabulary:
    """The vocabulary of a sentencepiece unigram model. symbols: fairseq's dict.txt, which must list the same pieces."""

    def bad(what: str) -> ModelCorrupt:
        return ModelCorrupt(f"{where}: {what}")

    pieces: list[str] = []
    scores: list[float] = []
    kinds: list[int] = []
    charsmap, model_type = b"", 1
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
            kind = dict(_fields(value, where)).get(3, 1)
            model_type = kind if isinstance(kind, int) else -1
        elif number == 3 and isinstance(value, bytes):  # normalizer_spec
            charsmap_value = dict(_fields(value, where)).get(2, b"")
            charsmap = charsmap_value if isinstance(charsmap_value, bytes) else b""
    if model_type != 1:
        raise bad(f"model type {model_type}, expected 1 (unigram)")
    if pieces[:3] != ["<unk>", "<s>", "</s>"]:
        raise bad(f"the first pieces are {pieces[:3]}, expected ['<unk>', '<s>', '</s>']")
    odd = [piece for piece, kind in zip(pieces[3:], kinds[3:], strict=True) if kind != NORMAL]
    if odd:
        raise bad(
            f"{len(odd)} pieces are not normal ones (the first is {odd[0]!r}); KOSMOS-2's tags are not in its model"
        )
    if symbols is not None:
        _compare_dict(pieces[3:], symbols, where)
    tail = [MASK, *TAGS, *(patch_index(i) for i in range(LOCATION_BINS**2))]
    return _checked([*SPECIALS, *pieces[3:], *tail], [0.0] * 4 + scores[3:] + [0.0] * len(tail), charsmap, where)


def _compare_dict(pieces: list[str], symbols: bytes, where: Path) -> None:
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
