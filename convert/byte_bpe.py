"""Byte-level BPE, GPT-2's kind: from tokenizer.json, or vocab.json + merges.txt, to tokenizer.ggml.*."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt

from .bpe_files import (
    AddedToken,
    Settings,
    find_token,
    place_tokens,
    read_bpe_json,
    read_ids,
    read_merges,
    read_settings,
    unused_rows,
)
from .gguf import Entry
from .sources.files import MAX_TOKENIZER_BYTES, brief, parse_json
from .sources.tokenizer_files import TokenizerFiles
from .tokenizer import UNUSED

_CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CL100K = rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|" + _REST
# (how a text is cut, whether a stretch that is a piece needs no merges) -> tokenizer.ggml.pre, as the engine has it.
_CUTS = {
    (_CONTRACTIONS + r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", False): "gpt-2",
    (_CL100K, True): "llama-bpe",
    (_CL100K, False): "dbrx",
    (rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|" + _REST, False): "qwen2",
}
_GPT2 = next(iter(_CUTS))[0]
_KINDS = {"gpt-2": "gpt2", "llama-bpe": "cl100k", "dbrx": "cl100k", "qwen2": "qwen2"}  # -> _core's name


@dataclass(frozen=True)
class ByteBpe:
    """Tokens by id in GPT-2's alphabet, GGUF's types of them, merges "left right"; pre: tokenizer.ggml.pre."""

    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    pre: str
    bos: int
    eos: int
    pad: int | None
    add_bos: bool
    where: Path
    nfc: bool = False  # texts are brought into Unicode's form C first

    def padded(self, rows: int) -> "ByteBpe":
        """With unused tokens for the rows of an embedding that is longer than the vocabulary."""
        more = unused_rows(len(self.tokens), rows, self.where)
        return replace(self, tokens=self.tokens + more, kinds=self.kinds + [UNUSED] * len(more))

    def entries(self) -> list[Entry]:
        """tokenizer.ggml.* of a GGUF file."""
        return [
            ("tokenizer.ggml.model", "str", "gpt2"),  # llama.cpp's name of byte-level BPE
            ("tokenizer.ggml.pre", "str", self.pre),
            *([("tokenizer.ggml.normalizer", "str", "nfc")] if self.nfc else []),
            ("tokenizer.ggml.tokens", "[str]", self.tokens),
            ("tokenizer.ggml.token_type", "[i32]", self.kinds),
            ("tokenizer.ggml.merges", "[str]", self.merges),
            ("tokenizer.ggml.bos_token_id", "u32", self.bos),
            ("tokenizer.ggml.eos_token_id", "u32", self.eos),
            *([] if self.pad is None else [("tokenizer.ggml.padding_token_id", "u32", self.pad)]),
            ("tokenizer.ggml.add_bos_token", "bool", self.add_bos),
            ("tokenizer.ggml.add_space_prefix", "bool", False),
        ]


def read_byte_bpe(files: TokenizerFiles) -> ByteBpe:
    """The vocabulary in tokenizer.json, or else in vocab.json + merges.txt, which are cut as GPT-2 cuts.

    ModelCorrupt for any other kind of tokenizer, and for options that the engine does not have.
    """
    file = files.first("tokenizer.json", "vocab.json")
    root = parse_json(file.read_all(MAX_TOKENIZER_BYTES), file.path)
    if isinstance(root.get("model"), dict):
        found = read_bpe_json(root, file.path)
        pre = _read_cut(root, bool(found.model.get("ignore_merges")), file.path)
        if found.model.get("byte_fallback"):
            raise ModelCorrupt(f"{file.path}: byte_fallback is true; a byte-level BPE has no need of it")
        made = make_byte_bpe(found.ids, found.merges, found.added, pre, read_settings(files), file.path)
        return replace(made, nfc=_read_nfc(root, file.path))
    listed = files.optional("merges.txt")
    if listed is None:
        raise ModelCorrupt(f"{file.path}: there is no merges.txt beside it")
    try:
        lines = listed.read_all(MAX_TOKENIZER_BYTES).decode().split("\n")
    except UnicodeDecodeError:
        raise ModelCorrupt(f"{listed.path} is not UTF-8") from None
    merges = read_merges([line for line in lines if line and not line.startswith("#version")], listed.path)
    settings = read_settings(files)
    return make_byte_bpe(read_ids(root, file.path), merges, settings.added_tokens(), "gpt-2", settings, file.path)


def make_byte_bpe(
    ids: dict[str, int],
    merges: list[tuple[str, str]],
    added: dict[int, AddedToken],
    pre: str,
    settings: Settings,
    where: Path,
) -> ByteBpe:
    """The vocabulary of those parts, as the engine takes it."""
    tokens, kinds = place_tokens(ids, added, where)
    eos = find_token(tokens, kinds, settings.name("eos_token"), "eos_token", where)
    bos_name = settings.name("bos_token")
    bos = eos if bos_name is None else find_token(tokens, kinds, bos_name, "bos_token", where)
    unk_name = settings.name("unk_token")
    if unk_name is not None:  # no text becomes it: every byte has a piece
        find_token(tokens, kinds, unk_name, "unk_token", where)
    pad_name = settings.name("pad_token")
    pad = None if pad_name is None else find_token(tokens, kinds, pad_name, "pad_token", where)
    joined = [f"{left} {right}" for left, right in merges]
    add_bos = settings.flag("add_bos_token", False)
    try:  # what the engine refuses is not written
        _core.Tokenizer.byte_bpe(tokens, kinds, joined, _KINDS[pre], pre == "llama-bpe")
    except ModelCorrupt as error:
        raise ModelCorrupt(f"{where}: {error}") from None
    return ByteBpe(tokens, kinds, joined, pre, bos, eos, pad, add_bos, where)


def _read_cut(root: dict[str, Any], whole_pieces: bool, where: Path) -> str:
    """tokenizer.ggml.pre of a tokenizer.json, by its pre_tokenizer."""
    cut = root.get("pre_tokenizer")
    parts = cut.get("pretokenizers") if isinstance(cut, dict) and cut.get("type") == "Sequence" else [cut]
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts) or not 0 < len(parts) <= 2:
        raise ModelCorrupt(f"{where}: pre_tokenizer is {brief(cut)}; expected ByteLevel, or Split and ByteLevel")
    level = parts[-1]
    if level.get("type") != "ByteLevel" or level.get("add_prefix_space", True) is not False:
        raise ModelCorrupt(
            f"{where}: pre_tokenizer is {_kind(level)} with add_prefix_space {brief(level.get('add_prefix_space'))}; "
            "expected ByteLevel with false"
        )
    pattern: Any = _GPT2
    if len(parts) == 2:
        split = parts[0]
        form = split.get("pattern")
        pattern = form.get("Regex") if isinstance(form, dict) else None
        # The pattern fits every text as a whole, so that what it fits may be kept apart, or the rest be removed.
        way = (split.get("behavior"), bool(split.get("invert")))
        usual = split.get("type") == "Split" and way in (("Isolated", False), ("Removed", True))
        if not usual or level.get("use_regex", True) is not False:
            raise ModelCorrupt(f"{where}: pre_tokenizer is {_kind(split)} and ByteLevel in a form that is not known")
    elif level.get("use_regex", True) is not True:
        raise ModelCorrupt(f"{where}: pre_tokenizer ByteLevel does not cut words (use_regex false), nor does another")
    pre, other = (
        _CUTS.get((pattern, whole)) if isinstance(pattern, str) else None for whole in (whole_pieces, not whole_pieces)
    )
    if pre is None and other is None:
        raise ModelCorrupt(f"{where}: pre_tokenizer cuts by {brief(pattern)}; expected one of {', '.join(_KINDS)}")
    if pre is None:
        raise ModelCorrupt(
            f"{where}: ignore_merges is {whole_pieces}; {other} is supported with {not whole_pieces} alone"
        )
    return pre


def _read_nfc(root: dict[str, Any], where: Path) -> bool:
    """Whether a tokenizer.json brings texts into Unicode's form C; it may have no other normalizer."""
    normalizer = root.get("normalizer")
    if normalizer is not None and (not isinstance(normalizer, dict) or normalizer.get("type") != "NFC"):
        raise ModelCorrupt(f"{where}: normalizer is {_kind(normalizer)}; a byte-level BPE has none here, or NFC")
    return normalizer is not None


def _kind(part: Any) -> str:
    return brief(part.get("type") if isinstance(part, dict) else part)
