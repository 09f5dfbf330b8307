"""Vocabularies for the text tests: a sentencepiece model trained here, the published one."""

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sentencepiece

from kosmos_edge import _core
from kosmos_edge.convert.models.kosmos_layout import SPECIALS, TAGS, layout, location

NORMAL, UNKNOWN, CONTROL, TAG, UNUSED = 1, 2, 3, 4, 5


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def proto_fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) of one protobuf message: ints, floats (fixed32) and bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == 0:
            value, at = _varint(data, at)
        elif key & 7 == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        elif key & 7 == 5:
            value, at = struct.unpack_from("<f", data, at)[0], at + 4
        else:
            raise ValueError(f"wire type {key & 7}")
        yield key >> 3, value


def _field(number: int, payload: bytes) -> bytes:
    out, size = bytes([number << 3 | 2]), len(payload)
    while size > 127:
        out, size = out + bytes([size & 127 | 128]), size >> 7
    return out + bytes([size]) + payload


def with_charsmap(model: bytes, charsmap: bytes) -> bytes:
    """The same sentencepiece model with another normaliser map."""
    kept = b"".join(_field(n, v) for n, v in proto_fields(model) if n != 3)
    return kept + _field(3, _field(1, b"custom") + _field(2, charsmap))


class Vocabulary:
    """A sentencepiece model and the tokenizer built from it, with KOSMOS-2's ids: spm id + 1, <mask>, tags, cells."""

    def __init__(self, model: bytes, cells: int = 1024) -> None:
        self.model = model
        self.reference = sentencepiece.SentencePieceProcessor(model_proto=model)
        fields = list(proto_fields(model))
        pieces = [dict(proto_fields(v)) for n, v in fields if n == 1]
        normalizer = dict(proto_fields(next(v for n, v in fields if n == 3)))
        assert [p.get(3, NORMAL) for p in pieces[:3]] == [UNKNOWN, CONTROL, CONTROL]
        assert all(p.get(3, NORMAL) == NORMAL for p in pieces[3:])
        self.charsmap: bytes = normalizer.get(2, b"")
        tags = [*TAGS, *(location(i) for i in range(cells))]
        self.pieces = [*layout([p[1].decode() for p in pieces[3:]], TAGS, 0), *tags[len(TAGS) :]]
        self.scores = [0.0] * len(SPECIALS) + [p.get(2, 0.0) for p in pieces[3:]] + [0.0] * (1 + len(tags))
        self.types = [CONTROL] * 3 + [UNKNOWN] + [NORMAL] * (len(pieces) - 3) + [UNUSED] + [TAG] * len(tags)
        self.mask = len(pieces) + 1
        self.tokenizer = _core.Tokenizer(self.pieces, self.scores, self.types, self.charsmap)

    def expected(self, text: str) -> list[int]:
        """sentencepiece's ids, renumbered."""
        return [3 if i == 0 else i + 1 for i in self.reference.encode(text)]

    def id(self, piece: str) -> int:
        """The id of a piece that is in the vocabulary."""
        return self.pieces.index(piece)


def train(folder: Path, vocab_size: int = 900) -> Vocabulary:
    """A unigram model with nmt_nfkc, trained in about a second on a corpus made from a fixed seed."""
    rng = random.Random(20)
    starts, ends = [*"bcdgmntw", "kl", "st"], [*"aeio", "ar", "en"]
    syllables = [start + end for start in starts for end in ends]
    syllables += [*"éñßก漢語😀", "λό", "γος", "слов", "日本", "한국", "שלום", "مرح", "12", "'s"]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(1500)]
    weights = [1 / (i + 1) for i in range(len(words))]
    lines = []
    for _ in range(4000):
        sentence = " ".join(rng.choices(words, weights, k=rng.randint(3, 14)))
        lines.append(sentence.capitalize() + rng.choice([".", ",", "?", "!", " <a_b>", ":"]))
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(lines), encoding="utf-8")
    prefix = folder / "model"
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(prefix),
        vocab_size=vocab_size,
        model_type="unigram",
        normalization_rule_name="nmt_nfkc",
        character_coverage=0.9995,
        num_threads=1,
        minloglevel=2,
    )
    return Vocabulary(prefix.with_suffix(".model").read_bytes())
