"""The vocabularies of KOSMOS-1 and KOSMOS-2, from tokenizer.json or sentencepiece.bpe.model: both give the same pieces
and scores.

Ids: `<s> <pad> </s> <unk>`, the sentencepiece pieces from its number 3 on, `<mask>`, the tags, and where the model has
boxes the location tokens. fairseq's dict.txt, where it is there, must list the same pieces.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt

from ..gguf import Entry
from ..sources.files import MAX_TOKENIZER_BYTES, is_json
from ..sources.tokenizer_files import TokenizerFiles
from ..tokenizer import (
    CONTROL,
    MAX_SCORE,
    NORMAL,
    UNIGRAM,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Unigram,
    compare_dict,
    read_sentencepiece_model,
    read_unigram_json,
)
from .kosmos_layout import BOS, EOS, LOCATION_BINS, MASK, PAD, SPECIALS, TAGS, UNK, layout, location


@dataclass(frozen=True)
class Vocabulary:
    """Pieces by id, their unigram scores (natural log), sentencepiece's compiled normaliser (may be empty)."""

    pieces: list[str]
    scores: list[float]
    charsmap: bytes
    location_bins: int  # 0: the model has no boxes
    tags: int  # how many

    @property
    def types(self) -> list[int]:
        """GGUF's token types by id."""
        special = {MASK: UNUSED, SPECIALS[UNK]: UNKNOWN, **dict.fromkeys(SPECIALS[:UNK], CONTROL)}
        first_tag = len(self.pieces) - self.tags - self.location_bins**2
        return [USER_DEFINED if i >= first_tag else special.get(piece, NORMAL) for i, piece in enumerate(self.pieces)]

    def entries(self) -> list[Entry]:
        """tokenizer.ggml.* of a GGUF file."""
        return [
            ("tokenizer.ggml.model", "str", "t5"),  # llama.cpp's name of sentencepiece unigram
            ("tokenizer.ggml.tokens", "[str]", self.pieces),
            ("tokenizer.ggml.scores", "[f32]", self.scores),
            ("tokenizer.ggml.token_type", "[i32]", self.types),
            ("tokenizer.ggml.bos_token_id", "u32", BOS),
            ("tokenizer.ggml.padding_token_id", "u32", PAD),
            ("tokenizer.ggml.eos_token_id", "u32", EOS),
            ("tokenizer.ggml.unknown_token_id", "u32", UNK),
            ("tokenizer.ggml.add_bos_token", "bool", True),
            ("tokenizer.ggml.add_space_prefix", "bool", True),
            ("tokenizer.ggml.remove_extra_whitespaces", "bool", True),
            ("tokenizer.ggml.precompiled_charsmap", "[u8]", self.charsmap),
        ]


def read_vocabulary(files: TokenizerFiles, tags: Sequence[str], boxes: bool) -> Vocabulary:
    """Reads tokenizer.json or sentencepiece.bpe.model (+ dict.txt). boxes: whether location tokens end it."""
    file = files.first("tokenizer.json", "sentencepiece.bpe.model")
    data = file.read_all(MAX_TOKENIZER_BYTES)
    if is_json(data, file.path):
        return read_tokenizer_json(data, file.path, tags, boxes)
    listed = files.optional("dict.txt")
    symbols = None if listed is None else listed.read_all(MAX_TOKENIZER_BYTES)
    return read_sentencepiece(data, file.path, symbols, tags, boxes)


def read_tokenizer_json(data: bytes, where: Path, tags: Sequence[str] = TAGS, boxes: bool = True) -> Vocabulary:
    """The vocabulary of a `tokenizers` file; anything but KOSMOS's kind of tokenizer is an error."""
    return _checked(read_unigram_json(data, where, UNK), where, tags, boxes)


def read_sentencepiece(
    data: bytes, where: Path, symbols: bytes | None, tags: Sequence[str] = TAGS, boxes: bool = True
) -> Vocabulary:
    """The vocabulary of a sentencepiece unigram model. symbols: fairseq's dict.txt, which must list the same pieces."""

    def bad(what: str) -> ModelCorrupt:
        return ModelCorrupt(f"{where}: {what}")

    model = read_sentencepiece_model(data, where)
    if model.model_type != UNIGRAM:
        raise bad(f"model type {model.model_type}, expected 1 (unigram)")
    if model.pieces[:3] != ["<unk>", "<s>", "</s>"]:
        raise bad(f"the first pieces are {model.pieces[:3]}, expected ['<unk>', '<s>', '</s>']")
    pieces = model.pieces[3:]
    odd = [piece for piece, kind in zip(pieces, model.kinds[3:], strict=True) if kind != NORMAL]
    if odd:
        raise bad(
            f"{len(odd)} pieces are not normal ones (the first is {odd[0]!r}); KOSMOS's tags are not in its model"
        )
    if symbols is not None:
        compare_dict(pieces, symbols, where)
    tokens = layout(pieces, tags, LOCATION_BINS if boxes else 0)
    fixed = len(tokens) - len(SPECIALS) - len(pieces)
    scores = [0.0] * len(SPECIALS) + model.scores[3:] + [0.0] * fixed
    return _checked(Unigram(tokens, scores, model.charsmap), where, tags, boxes)


def _checked(found: Unigram, where: Path, tags: Sequence[str], boxes: bool) -> Vocabulary:
    """The rules that hold for every KOSMOS vocabulary."""
    pieces = found.pieces

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
    if not boxes and cells:
        raise bad(f"{cells} location tokens in the vocabulary of a model without boxes")
    if boxes and (bins == 0 or bins * bins != cells or pieces[first:] != [location(i) for i in range(cells)]):
        raise bad(f"expected the vocabulary to end in <patch_index_0000> ... of a square grid, got {cells} such pieces")
    listed = pieces[first - len(tags) : first]
    if sorted(listed) != sorted(tags) or pieces[first - len(tags) - 1] != MASK:
        place = "before the location tokens" if boxes else "at the end"
        raise bad(f"expected {MASK} and the tags {' '.join(tags)} {place}, got {listed}")
    for piece, score in zip(pieces, found.scores, strict=True):
        if not abs(score) < MAX_SCORE:  # also refuses NaN
            raise bad(f"piece {piece!r} has the score {score}")
    fixed = {*SPECIALS, *pieces[first - len(tags) - 1 :]}  # never chosen by score
    single = struct.Struct("<f")
    rounded = [
        0.0 if p in fixed else single.unpack(single.pack(s))[0] for p, s in zip(pieces, found.scores, strict=True)
    ]
    vocabulary = Vocabulary(pieces, rounded, found.charsmap, bins, len(tags))
    try:
        _core.Tokenizer(pieces, rounded, vocabulary.types, found.charsmap)  # what the engine refuses is not written
    except ModelCorrupt as error:
        raise bad(str(error)) from None
    return vocabulary
