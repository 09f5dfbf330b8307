"""BERT's uncased WordPiece: the vocabulary in tokenizer.json or vocab.txt, with the tokens that are added to it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt

from .bpe_files import place_tokens, read_added, read_ids, read_settings
from .sources.files import MAX_TOKENIZER_BYTES, brief, is_json, parse_json
from .sources.tokenizer_files import TokenizerFiles
from .tokenizer import CONTROL, NORMAL, UNKNOWN

# What bert-base-uncased has, and the engine does.
_MODEL = {"unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
_NORMALIZER = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
_SETTINGS = {"do_lower_case": True, "tokenize_chinese_chars": True, "strip_accents": None}


@dataclass(frozen=True)
class WordPiece:
    """Tokens by id. begin, end: ids that stand around every text. unk: of a word that pieces do not cover."""

    tokens: list[str]
    begin: int
    end: int
    unk: int


def read_word_piece(files: TokenizerFiles) -> WordPiece:
    """ModelCorrupt for another kind of tokenizer, and for settings that are not those of bert-base-uncased."""
    file = files.first("tokenizer.json", "vocab.txt")
    data, where = file.read_all(MAX_TOKENIZER_BYTES), file.path
    settings = read_settings(files)
    _only(settings.config, _SETTINGS, str(settings.where))
    if is_json(data, where):
        root = parse_json(data, where)
        ids, added = _json_ids(root, where), read_added(root.get("added_tokens"), where)
    else:
        ids, added = _text_ids(data, where), settings.added_tokens()
    tokens, _ = place_tokens(ids, added, where)
    named = {}
    for name, default in (("cls_token", "[CLS]"), ("sep_token", "[SEP]"), ("unk_token", "[UNK]")):
        text = settings.name(name, default)
        if text not in tokens:
            raise ModelCorrupt(f"{where}: {name} is {brief(text)}, which is no token of the vocabulary")
        named[name] = tokens.index(text)
    found = WordPiece(tokens, named["cls_token"], named["sep_token"], named["unk_token"])
    types = [NORMAL] * len(tokens)
    types[found.begin] = types[found.end] = CONTROL
    types[found.unk] = UNKNOWN
    try:  # what the engine refuses is not written
        _core.Tokenizer.word_piece(tokens, types, found.unk)
    except ModelCorrupt as error:
        raise ModelCorrupt(f"{where}: {error}") from None
    return found


def _only(found: dict[str, Any], expected: dict[str, Any], where: str) -> None:
    """What is absent has the expected value."""
    for key, value in expected.items():
        if found.get(key, value) != value:
            raise ModelCorrupt(f"{where}: {key} is {brief(found[key])}; only {value!r} is supported")


def _json_ids(root: dict[str, Any], where: Path) -> dict[str, int]:
    """The pieces of a tokenizer.json, whose steps must be BERT's."""
    parts = {}
    for name, kind in (("model", "WordPiece"), ("normalizer", "BertNormalizer"), ("pre_tokenizer", "BertPreTokenizer")):
        part = root.get(name)
        if not isinstance(part, dict) or part.get("type", kind) != kind:
            found = part.get("type") if isinstance(part, dict) else part
            raise ModelCorrupt(f"{where}: {name} is {brief(found)}; expected {kind}")
        parts[name] = part
    _only(parts["model"], _MODEL, f"{where}: model")
    _only(parts["normalizer"], _NORMALIZER, f"{where}: normalizer")
    return read_ids(parts["model"].get("vocab"), where)


def _text_ids(data: bytes, where: Path) -> dict[str, int]:
    """The pieces of a vocab.txt, one per line."""
    try:
        lines = data.decode().replace("\r\n", "\n").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ModelCorrupt(f"{where}: not valid UTF-8: {error}") from None
    ids = {piece: number for number, piece in enumerate(lines)}
    if len(ids) != len(lines):
        raise ModelCorrupt(f"{where}: {len(lines)} pieces, {len(ids)} different ones")
    return read_ids(ids, where)
