"""sentencepiece's unigram model as T5 has it: from tokenizer.json or spiece.model to tokenizer.ggml.*.

Ids: the model's own pieces, `<extra_id_99>` ... `<extra_id_0>`, and what was added behind these. tokenizer.json has all
of them; beside a sentencepiece model the settings count the extra ids and list what was added.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt

from .bpe_files import AddedToken, Settings, find_token, place_tokens, read_added, read_settings
from .gguf import Entry
from .sources.files import MAX_TOKENIZER_BYTES, brief, is_json, parse_json
from .sources.tokenizer_files import TokenizerFiles
from .tokenizer import (
    CONTROL,
    MAX_SCORE,
    UNIGRAM,
    UNKNOWN,
    Unigram,
    read_sentencepiece_model,
    read_unigram_json,
)

_UNK = 2
_MOST_EXTRA_IDS = 10000
_SINGLE = struct.Struct("<f")


@dataclass(frozen=True)
class UnigramVocabulary:
    """Tokens by id, their scores (natural log) and GGUF's types of them, sentencepiece's compiled normaliser (may be
    empty). Texts end with eos."""

    tokens: list[str]
    scores: list[float]
    kinds: list[int]
    charsmap: bytes
    eos: int
    pad: int
    unk: int
    where: Path

    def entries(self) -> list[Entry]:
        """tokenizer.ggml.* of a GGUF file."""
        return [
            ("tokenizer.ggml.model", "str", "t5"),  # llama.cpp's name of sentencepiece unigram
            ("tokenizer.ggml.tokens", "[str]", self.tokens),
            ("tokenizer.ggml.scores", "[f32]", self.scores),
            ("tokenizer.ggml.token_type", "[i32]", self.kinds),
            ("tokenizer.ggml.padding_token_id", "u32", self.pad),
            ("tokenizer.ggml.eos_token_id", "u32", self.eos),
            ("tokenizer.ggml.unknown_token_id", "u32", self.unk),
            ("tokenizer.ggml.add_eos_token", "bool", True),
            ("tokenizer.ggml.add_space_prefix", "bool", True),
            ("tokenizer.ggml.remove_extra_whitespaces", "bool", True),
            ("tokenizer.ggml.precompiled_charsmap", "[u8]", self.charsmap),
        ]


def read_t5_vocabulary(files: TokenizerFiles) -> UnigramVocabulary:
    """The vocabulary in tokenizer.json, or else in spiece.model with what the files beside it add."""
    file = files.first("tokenizer.json", "spiece.model")
    data, where = file.read_all(MAX_TOKENIZER_BYTES), file.path
    settings = read_settings(files)
    if is_json(data, where):
        added = read_added(parse_json(data, where).get("added_tokens"), where)
        return _finished(read_unigram_json(data, where, _UNK), added, settings, where)
    return _from_sentencepiece(data, settings, where)


def _from_sentencepiece(data: bytes, settings: Settings, where: Path) -> UnigramVocabulary:
    model = read_sentencepiece_model(data, where)
    if model.model_type != UNIGRAM:
        raise ModelCorrupt(f"{where}: model type {model.model_type}, expected 1 (unigram)")
    if not (model.blank_prefix and model.fold_blanks and model.escapes_blanks):
        raise ModelCorrupt(f"{where}: its rules of blanks are not T5's: one before every text, runs of them as one")
    extra = settings.config.get("extra_ids", 100)
    if type(extra) is not int or not 0 <= extra <= _MOST_EXTRA_IDS:
        raise ModelCorrupt(f"{settings.where}: extra_ids is {brief(extra)}, expected 0..{_MOST_EXTRA_IDS}")
    pieces = [*model.pieces, *(f"<extra_id_{extra - 1 - i}>" for i in range(extra))]
    ids = _ids(pieces, where)
    listed = settings.added_tokens()
    tokens, _ = place_tokens(ids, listed, where)
    scores = [*model.scores, *([0.0] * (len(tokens) - len(model.scores)))]
    control = {i: AddedToken(pieces[i], special=True) for i in range(len(model.pieces), len(pieces))}
    control |= {i: AddedToken(model.pieces[i], special=True) for i, kind in enumerate(model.kinds) if kind == CONTROL}
    return _finished(Unigram(tokens, scores, model.charsmap), {**control, **listed}, settings, where)


def _ids(pieces: list[str], where: Path) -> dict[str, int]:
    ids = {piece: i for i, piece in enumerate(pieces)}
    if len(ids) != len(pieces):
        raise ModelCorrupt(f"{where}: a piece occurs twice")
    return ids


def _finished(found: Unigram, added: dict[int, AddedToken], settings: Settings, where: Path) -> UnigramVocabulary:
    """The rules that hold for every T5 vocabulary; what the engine refuses is not written."""
    tokens, kinds = place_tokens(_ids(found.pieces, where), added, where)
    eos = find_token(tokens, kinds, settings.name("eos_token", "</s>"), "eos_token", where)
    pad = find_token(tokens, kinds, settings.name("pad_token", "<pad>"), "pad_token", where)
    unk = find_token(tokens, kinds, settings.name("unk_token", "<unk>"), "unk_token", where)
    if unk != _UNK:
        raise ModelCorrupt(f"{where}: unk_token is {unk}, expected {_UNK}")
    kinds[unk] = UNKNOWN
    for piece, score in zip(tokens, found.scores, strict=True):
        if not abs(score) < MAX_SCORE:  # also refuses NaN
            raise ModelCorrupt(f"{where}: piece {piece!r} has the score {score}")
    # A piece that no text becomes by its score has none.
    scores = [
        0.0 if kind in (CONTROL, UNKNOWN) else _SINGLE.unpack(_SINGLE.pack(score))[0]
        for kind, score in zip(kinds, found.scores, strict=True)
    ]
    try:
        _core.Tokenizer(tokens, scores, kinds, found.charsmap, unk)
    except ModelCorrupt as error:
        raise ModelCorrupt(f"{where}: {error}") from None
    return UnigramVocabulary(tokens, scores, kinds, found.charsmap, eos, pad, unk, where)
