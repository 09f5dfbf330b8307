"""sentencepiece's BPE, LLaMA's kind: from tokenizer.json or tokenizer.model to tokenizer.ggml.*.

A tokenizer.json lists merges in their order, a sentencepiece model a score for each piece. The engine goes by scores:
those of a tokenizer.json are made of the order of its merges, which must be every way to put a piece together.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt

from .bpe_files import (
    BpeJson,
    Settings,
    find_token,
    place_tokens,
    read_bpe_json,
    read_settings,
    unused_rows,
)
from .gguf import Entry
from .sources.files import MAX_TOKENIZER_BYTES, brief, is_json, parse_json
from .sources.tokenizer_files import TokenizerFiles
from .tokenizer import BPE, BYTE, NORMAL, UNKNOWN, UNUSED, SentencePiece, read_sentencepiece_model

_BLANK = "\u2581"
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_UNUSED_SCORE = -10000.0  # llama.cpp's


@dataclass(frozen=True)
class BlankRules:
    """When a blank is put before a text. every_segment: before each stretch between added tokens, else only where the
    prompt begins (transformers' legacy). before_blank: also where the stretch begins with a blank."""

    prefix: bool
    every_segment: bool
    before_blank: bool
    fold: bool  # runs of blanks become one


@dataclass(frozen=True)
class SpmBpe:
    """Tokens by id, their scores and GGUF's types of them, sentencepiece's compiled normaliser (may be empty)."""

    tokens: list[str]
    scores: list[float]
    kinds: list[int]
    charsmap: bytes
    blanks: BlankRules
    unk: int
    bos: int
    eos: int
    pad: int | None
    add_bos: bool
    where: Path

    def padded(self, rows: int) -> "SpmBpe":
        """With unused tokens for the rows of an embedding that is longer than the vocabulary."""
        more = unused_rows(len(self.tokens), rows, self.where)
        return replace(
            self,
            tokens=self.tokens + more,
            scores=self.scores + [_UNUSED_SCORE] * len(more),
            kinds=self.kinds + [UNUSED] * len(more),
        )

    def entries(self) -> list[Entry]:
        """tokenizer.ggml.* of a GGUF file."""
        return [
            ("tokenizer.ggml.model", "str", "llama"),  # llama.cpp's name of sentencepiece BPE
            ("tokenizer.ggml.tokens", "[str]", self.tokens),
            ("tokenizer.ggml.scores", "[f32]", self.scores),
            ("tokenizer.ggml.token_type", "[i32]", self.kinds),
            ("tokenizer.ggml.bos_token_id", "u32", self.bos),
            ("tokenizer.ggml.eos_token_id", "u32", self.eos),
            ("tokenizer.ggml.unknown_token_id", "u32", self.unk),
            *([] if self.pad is None else [("tokenizer.ggml.padding_token_id", "u32", self.pad)]),
            ("tokenizer.ggml.add_bos_token", "bool", self.add_bos),
            ("tokenizer.ggml.add_space_prefix", "bool", self.blanks.prefix),
            ("tokenizer.ggml.remove_extra_whitespaces", "bool", self.blanks.fold),
            ("tokenizer.ggml.space_prefix_every_segment", "bool", self.blanks.every_segment),
            ("tokenizer.ggml.space_prefix_before_space", "bool", self.blanks.before_blank),
            *([("tokenizer.ggml.precompiled_charsmap", "[u8]", self.charsmap)] if self.charsmap else []),
        ]


def read_spm_bpe(files: TokenizerFiles, *, llama_class: bool = False) -> SpmBpe:
    """The vocabulary in tokenizer.json, or else in tokenizer.model with the added tokens of the files beside it.

    llama_class: transformers opens this model's tokenizer.json with its class LlamaTokenizer, which goes by `legacy` of
    tokenizer_config.json and not by the file's normalizer and pre_tokenizer. ModelCorrupt for any other kind of
    tokenizer, and for options that the engine does not have.
    """
    file = files.first("tokenizer.json", "tokenizer.model")
    data = file.read_all(MAX_TOKENIZER_BYTES)
    settings = read_settings(files)
    if is_json(data, file.path):
        return from_json(read_bpe_json(parse_json(data, file.path), file.path), settings, file.path, llama_class)
    return from_sentencepiece(read_sentencepiece_model(data, file.path), settings, file.path)


def from_sentencepiece(model: SentencePiece, settings: Settings, where: Path) -> SpmBpe:
    """The vocabulary of a sentencepiece model, which puts a blank also before a blank."""
    if model.model_type != BPE:
        raise ModelCorrupt(f"{where}: model type {model.model_type}, expected 2 (BPE)")
    if not model.escapes_blanks:
        raise ModelCorrupt(f"{where}: blanks are not written as U+2581 before words; only that is supported")
    ids = {piece: i for i, piece in enumerate(model.pieces)}
    if not ids or len(ids) != len(model.pieces):
        raise ModelCorrupt(f"{where}: {len(model.pieces)} pieces, {len(ids)} different ones")
    added = {i: token for i, token in settings.added_tokens().items() if i >= len(ids) or model.pieces[i] != token.text}
    tokens, kinds = place_tokens(ids, added, where)
    kinds[: len(ids)] = model.kinds
    rules = BlankRules(model.blank_prefix, settings.flag("legacy", True), True, model.fold_blanks)
    scores = model.scores + [0.0] * (len(tokens) - len(ids))
    return _finished(tokens, scores, kinds, model.charsmap, rules, settings, where)


def from_json(found: BpeJson, settings: Settings, where: Path, llama_class: bool = False) -> SpmBpe:
    """The vocabulary of a tokenizer.json. llama_class: see read_spm_bpe."""
    model = found.model
    unknown = model.get("unk_token") or settings.name("unk_token", "<unk>")  # transformers 5 writes null
    if unknown == settings.name("eos_token", "</s>") and "<unk>" in found.ids:  # Vicuna as InstructBLIP has it
        unknown = "<unk>"
    if model.get("ignore_merges"):
        raise ModelCorrupt(f"{where}: ignore_merges is true; a sentencepiece BPE always merges")
    if not isinstance(unknown, str) or unknown not in found.ids:
        raise ModelCorrupt(f"{where}: unk_token is {brief(unknown)}, expected a piece of the vocabulary")
    tokens, kinds = place_tokens(found.ids, found.added, where)
    kinds[found.ids[unknown]] = UNKNOWN
    if model.get("byte_fallback"):
        missing = [piece for piece in _BYTES if piece not in found.ids]
        if missing:
            raise ModelCorrupt(f"{where}: byte_fallback is true, {len(missing)} bytes have no piece ({missing[0]})")
        for piece in _BYTES:
            kinds[found.ids[piece]] = BYTE
    elif model.get("fuse_unk") is not True:
        raise ModelCorrupt(f"{where}: neither byte_fallback nor fuse_unk is true; expected one of them")
    scores = _scores(found, tokens, kinds, where)
    rules = _json_blanks(found.root, where)
    if llama_class:
        prefix, legacy = settings.flag("add_prefix_space", True), settings.flag("legacy", rules.every_segment)
        rules = BlankRules(prefix, legacy, False, False)
    return _finished(tokens, scores, kinds, b"", rules, settings, where)


def _finished(
    tokens: list[str],
    scores: list[float],
    kinds: list[int],
    charsmap: bytes,
    rules: BlankRules,
    settings: Settings,
    where: Path,
) -> SpmBpe:
    if UNKNOWN not in kinds:
        raise ModelCorrupt(f"{where}: no piece stands for what is unknown")
    unk = kinds.index(UNKNOWN)
    bos = find_token(tokens, kinds, settings.name("bos_token", "<s>"), "bos_token", where)
    eos = find_token(tokens, kinds, settings.name("eos_token", "</s>"), "eos_token", where)
    pad_name = settings.name("pad_token")
    pad = None if pad_name is None else find_token(tokens, kinds, pad_name, "pad_token", where)
    vocabulary = SpmBpe(
        tokens, scores, kinds, charsmap, rules, unk, bos, eos, pad, settings.flag("add_bos_token", True), where
    )
    try:  # what the engine refuses is not written
        _core.Tokenizer.spm_bpe(tokens, scores, kinds, charsmap, unk)
    except ModelCorrupt as error:
        raise ModelCorrupt(f"{where}: {error}") from None
    return vocabulary


def _scores(found: BpeJson, tokens: list[str], kinds: list[int], where: Path) -> list[float]:
    """A score for each token: the earlier its merges come, the higher; pieces that nothing is merged to come last."""

    def normal(piece: str) -> bool:
        number = found.ids.get(piece)
        return number is not None and kinds[number] == NORMAL

    specials = {token.text for token in found.added.values()}
    ranks: dict[str, int] = {}
    listed: set[tuple[str, str]] = set()
    last = ""
    for i, (left, right) in enumerate(found.merges):
        piece = left + right
        if piece in specials:  # such a text is cut out before anything is merged
            continue
        if not (normal(left) and normal(right) and normal(piece)):
            raise ModelCorrupt(
                f"{where}: merge {i}, {brief(left)} and {brief(right)}, is not of pieces of the vocabulary"
            )
        if piece != last and piece in ranks:
            raise ModelCorrupt(
                f"{where}: the merges to {brief(piece)} do not follow each other (merge {i}): "
                "this order has no scores; convert from the sentencepiece model, tokenizer.model"
            )
        ranks.setdefault(piece, len(ranks))
        listed.add((left, right))
        last = piece
    for piece in found.ids:
        if not normal(piece):
            continue
        for cut in range(1, len(piece)):
            pair = (piece[:cut], piece[cut:])
            if normal(pair[0]) and normal(pair[1]) and pair not in listed:
                raise ModelCorrupt(
                    f"{where}: {brief(pair[0])} and {brief(pair[1])} are pieces and so is {brief(piece)}, "
                    "but they are no merge: this is not sentencepiece's kind of BPE"
                )
    scores = [0.0] * len(tokens)
    rest = len(ranks)
    for number, token in enumerate(tokens):
        if kinds[number] == UNUSED:
            scores[number] = _UNUSED_SCORE
        elif kinds[number] == NORMAL:
            scores[number] = -float(ranks.get(token, rest))
            rest += token not in ranks
    return scores


def _json_blanks(root: dict[str, Any], where: Path) -> BlankRules:
    """When a tokenizer.json has a blank before a text, by its normalizer (before every segment) or pre_tokenizer."""
    normalizer, cut = root.get("normalizer"), root.get("pre_tokenizer")
    steps = _part(normalizer).get("normalizers") if _kind(normalizer) == "Sequence" else [normalizer] * bool(normalizer)
    prepends = replaces = False
    for step in map(_part, steps if isinstance(steps, list) else [None]):
        if step.get("type") == "Prepend" and step.get("prepend") == _BLANK:
            prepends = True
        elif (step.get("type"), step.get("pattern"), step.get("content")) == ("Replace", {"String": " "}, _BLANK):
            replaces = True
        else:
            raise ModelCorrupt(f"{where}: normalizer {brief(step.get('type'))} is not one of sentencepiece's BPE")
    scheme: Any = "never"
    if cut is not None:
        given = _part(cut)
        scheme = given.get("prepend_scheme", "always")
        whole = given.get("type") == "Metaspace" and given.get("replacement") == _BLANK and given.get("split") is False
        if not whole or scheme not in ("always", "first", "never"):
            raise ModelCorrupt(
                f"{where}: pre_tokenizer is {brief(_kind(cut))}; expected Metaspace that does not split, or none"
            )
    if not replaces and cut is None:
        raise ModelCorrupt(f"{where}: neither its normalizer nor its pre_tokenizer writes blanks as U+2581")
    return BlankRules(prepends or scheme != "never", prepends or scheme == "always", prepends, False)


def _part(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"type": value}


def _kind(value: Any) -> Any:
    return _part(value).get("type")
