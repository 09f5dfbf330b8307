"""What the files of a BPE tokenizer say, before either kind of BPE makes a vocabulary of it: pieces and merges of
tokenizer.json or vocab.json + merges.txt, added tokens, the names of special tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_edge.errors import ModelCorrupt

from .sources.files import MAX_TOKENIZER_BYTES, brief, read_json
from .sources.tokenizer_files import TokenizerFiles
from .tokenizer import CONTROL, MAX_PIECES, NORMAL, UNUSED, USER_DEFINED, encodable

MAX_MERGES = 1 << 21
MAX_PIECE_BYTES = 1024
MAX_TOTAL_BYTES = 8 << 20  # of all pieces


@dataclass(frozen=True)
class AddedToken:
    """A token beside the merged pieces. special: a control token, which no text becomes and no answer shows."""

    text: str
    special: bool


@dataclass(frozen=True)
class Settings:
    """tokenizer_config.json, special_tokens_map.json and added_tokens.json; empty where they are missing."""

    config: dict[str, Any]
    special: dict[str, Any]
    added: dict[str, Any]
    where: Path

    def name(self, kind: str, default: str | None = None) -> str | None:
        """The text of "bos_token", "eos_token", "pad_token" or "unk_token"."""
        for source in (self.config, self.special):
            value = source.get(kind)
            if isinstance(value, dict):
                value = value.get("content")
            if isinstance(value, str):
                return value
            if value is not None:
                raise ModelCorrupt(f"{self.where}: {kind} is {brief(value)}, expected a text")
        return default

    def flag(self, key: str, default: bool) -> bool:
        """A flag of tokenizer_config.json; null is as good as absent."""
        value = self.config.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise ModelCorrupt(f"{self.where}: {key} is {brief(value)}, expected true or false")
        return value

    def added_tokens(self) -> dict[int, AddedToken]:
        """The tokens that tokenizer_config.json or added_tokens.json put beside a sentencepiece model or vocab.json."""
        decoder = self.config.get("added_tokens_decoder")
        if isinstance(decoder, dict):
            rows = [
                {"id": _number(key), **value} if isinstance(value, dict) else value for key, value in decoder.items()
            ]
            return read_added(rows, self.where)
        several = self.special.get("additional_special_tokens")
        named = [*self.special.values(), *(several if isinstance(several, list) else [])]
        texts = {value.get("content") if isinstance(value, dict) else value for value in named if _is_token(value)}
        return read_added(
            [{"id": number, "content": text, "special": text in texts} for text, number in self.added.items()],
            self.where,
        )


@dataclass(frozen=True)
class BpeJson:
    """A tokenizer.json whose model is a BPE. ids: of the model's pieces, without added tokens that are none."""

    root: dict[str, Any]
    model: dict[str, Any]
    ids: dict[str, int]
    merges: list[tuple[str, str]]
    added: dict[int, AddedToken]


def read_settings(files: TokenizerFiles) -> Settings:
    """The settings that lie beside a tokenizer's main file."""

    def optional(name: str) -> dict[str, Any]:
        file = files.optional(name)
        return {} if file is None else read_json(file, MAX_TOKENIZER_BYTES)

    name = "tokenizer_config.json"
    special, added = optional("special_tokens_map.json"), optional("added_tokens.json")
    return Settings(optional(name), special, added, files.folder / name)


def read_bpe_json(root: dict[str, Any], where: Path, word_end: str = "") -> BpeJson:
    """The parts of a tokenizer.json. Options that change how a BPE merges must have their usual values; word_end: what
    the last piece of a word ends in."""
    model = root.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE" if "merges" in model else None) != "BPE":
        raise ModelCorrupt(f"{where}: model is {brief(_type_of(model))}; expected a BPE model")
    for key in ("dropout", "continuing_subword_prefix"):
        if model.get(key):
            raise ModelCorrupt(f"{where}: model.{key} is {brief(model[key])}; only none is supported")
    if (model.get("end_of_word_suffix") or "") != word_end:
        found = brief(model.get("end_of_word_suffix"))
        raise ModelCorrupt(f"{where}: model.end_of_word_suffix is {found}; only {word_end or 'none'} is supported")
    for key in ("truncation", "padding"):
        if root.get(key) is not None:
            raise ModelCorrupt(f"{where}: {key} is {brief(root[key])}; only null is supported")
    ids = read_ids(model.get("vocab"), where)
    return BpeJson(
        root, model, ids, read_merges(model.get("merges"), where), read_added(root.get("added_tokens"), where)
    )


def read_ids(vocab: Any, where: Path) -> dict[str, int]:
    """Piece -> id, of model.vocab or vocab.json."""
    if not isinstance(vocab, dict) or not 0 < len(vocab) <= MAX_PIECES:
        raise ModelCorrupt(f"{where}: the vocabulary is {brief(vocab)}, expected an object of 1..{MAX_PIECES} pieces")
    total = 0
    for piece, number in vocab.items():
        if type(number) is not int or not 0 <= number < MAX_PIECES:
            raise ModelCorrupt(
                f"{where}: piece {brief(piece)} has the id {brief(number)}, expected 0..{MAX_PIECES - 1}"
            )
        total += _size(piece, where)
    if total > MAX_TOTAL_BYTES:
        raise ModelCorrupt(f"{where}: the pieces have {total} bytes, at most {MAX_TOTAL_BYTES} are expected")
    return vocab


def read_merges(merges: Any, where: Path) -> list[tuple[str, str]]:
    """Pairs in the order in which they are applied: ["a b", ...] or [["a", "b"], ...]."""
    if not isinstance(merges, list) or len(merges) > MAX_MERGES:
        raise ModelCorrupt(f"{where}: the merges are {brief(merges)}, expected a list of at most {MAX_MERGES}")
    pairs = []
    for i, merge in enumerate(merges):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
            raise ModelCorrupt(f"{where}: merge {i} is {brief(merge)}, expected two pieces")
        pairs.append((parts[0], parts[1]))
    return pairs


def read_added(rows: Any, where: Path) -> dict[int, AddedToken]:
    """id -> token, of tokenizer.json's added_tokens or what is like it."""
    if rows is None:
        return {}
    if not isinstance(rows, list) or len(rows) > MAX_PIECES or not all(isinstance(row, dict) for row in rows):
        raise ModelCorrupt(f"{where}: the added tokens are {brief(rows)}, expected a list of objects")
    found: dict[int, AddedToken] = {}
    for row in rows:
        number, text, special = row.get("id"), row.get("content"), row.get("special", False)
        if type(number) is not int or not 0 <= number < MAX_PIECES or not isinstance(text, str):
            raise ModelCorrupt(f"{where}: added token {brief(text)} has the id {brief(number)}")
        if not isinstance(special, bool):
            raise ModelCorrupt(f"{where}: added token {brief(text)}: special is {brief(special)}")
        _size(text, where)
        for key in ("lstrip", "rstrip", "single_word"):  # of a control token they do not matter: no text becomes one
            if not special and row.get(key):
                raise ModelCorrupt(
                    f"{where}: added token {brief(text)}: {key} is {brief(row[key])}; only false is supported"
                )
        if found.setdefault(number, AddedToken(text, special)).text != text:
            raise ModelCorrupt(
                f"{where}: added tokens {brief(found[number].text)} and {brief(text)} have one id, {number}"
            )
    return found


def place_tokens(ids: Mapping[str, int], added: Mapping[int, AddedToken], where: Path) -> tuple[list[str], list[int]]:
    """Tokens by id, and their types in GGUF's numbers. An id that nothing has becomes an unused token."""
    tokens: dict[int, str] = {}
    for piece, number in ids.items():
        if tokens.setdefault(number, piece) != piece:
            raise ModelCorrupt(f"{where}: pieces {brief(tokens[number])} and {brief(piece)} have one id, {number}")
    for number, token in added.items():
        if tokens.setdefault(number, token.text) != token.text:
            raise ModelCorrupt(
                f"{where}: added token {number} is {brief(token.text)}, "
                f"the vocabulary has {brief(tokens[number])} there"
            )
    count = 1 + max(tokens)
    if count > 2 * len(tokens):
        raise ModelCorrupt(
            f"{where}: {len(tokens)} tokens have ids up to {count - 1}; expected them without large gaps"
        )
    kinds = [NORMAL if number in tokens else UNUSED for number in range(count)]
    for number, token in added.items():
        kinds[number] = CONTROL if token.special else USER_DEFINED
    return [tokens.get(number, unused_token(number)) for number in range(count)], kinds


def unused_token(number: int) -> str:
    """The name of a row of the embedding that has no token, as llama.cpp spells it."""
    return f"[PAD{number}]"


def unused_rows(count: int, rows: int, where: Path) -> list[str]:
    """The tokens that an embedding of that many rows has behind a vocabulary of `count`."""
    if count > rows:
        raise ModelCorrupt(f"{where}: the vocabulary has {count} tokens, the embedding {rows} rows")
    return [unused_token(number) for number in range(count, rows)]


def find_token(tokens: list[str], kinds: list[int], text: str | None, what: str, where: Path) -> int:
    """The id of a special token, which becomes a control token. ModelCorrupt where the vocabulary does not have it."""
    if text is None or text not in tokens:
        raise ModelCorrupt(f"{where}: {what} is {brief(text)}, which is no token of the vocabulary")
    number = tokens.index(text)
    if kinds[number] in (NORMAL, USER_DEFINED):
        kinds[number] = CONTROL
    return number


def _number(text: str) -> Any:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 8 else text


def _is_token(value: Any) -> bool:
    return isinstance(value.get("content") if isinstance(value, dict) else value, str)


def _type_of(model: Any) -> Any:
    return model.get("type") if isinstance(model, dict) else model


def _size(piece: str, where: Path) -> int:
    size = len(encodable(piece, where).encode())
    if not 0 < size <= MAX_PIECE_BYTES:
        raise ModelCorrupt(f"{where}: piece {brief(piece)} has {size} bytes, expected 1..{MAX_PIECE_BYTES}")
    return size
