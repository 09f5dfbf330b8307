"""CLIP's vocabulary: byte-level BPE of words in small letters, whose last piece ends in </w>; from tokenizer.json, or
vocab.json + merges.txt, to tokenizer.ggml.*."""

from pathlib import Path
from typing import Any

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt

from .bpe_files import find_token, place_tokens, read_bpe_json, read_ids, read_merges, read_settings
from .byte_bpe import ByteBpe
from .sources.files import MAX_TOKENIZER_BYTES, brief, parse_json
from .sources.tokenizer_files import TokenizerFiles

WORD_END = "</w>"
PRE = "clip"  # tokenizer.ggml.pre, as the engine has it
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_CUT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_CUTS = (_CUT, r"<\|startoftext\|>|<\|endoftext\|>|" + _CUT)
_STEPS = ["NFC", "Replace", "Lowercase"]  # of the normalizer


def read_clip_bpe(files: TokenizerFiles) -> ByteBpe:
    """The vocabulary. Padding is left out: nothing is padded. ModelCorrupt for any other kind of tokenizer."""
    file = files.first("tokenizer.json", "vocab.json")
    root = parse_json(file.read_all(MAX_TOKENIZER_BYTES), file.path)
    settings = read_settings(files)
    if isinstance(root.get("model"), dict):
        found = read_bpe_json(root, file.path, word_end=WORD_END)
        _check_cut(root, file.path)
        _check_normalizer(root, file.path)
        ids, merges, added = found.ids, found.merges, found.added
    else:
        listed = files.optional("merges.txt")
        if listed is None:
            raise ModelCorrupt(f"{file.path}: there is no merges.txt beside it")
        try:
            lines = listed.read_all(MAX_TOKENIZER_BYTES).decode().split("\n")
        except UnicodeDecodeError:
            raise ModelCorrupt(f"{listed.path} is not UTF-8") from None
        merges = read_merges([line for line in lines if line and not line.startswith("#version")], listed.path)
        ids, added = read_ids(root, file.path), settings.added_tokens()
    where = file.path
    tokens, kinds = place_tokens(ids, added, where)
    bos = find_token(tokens, kinds, settings.name("bos_token", _BEGIN), "bos_token", where)
    eos = find_token(tokens, kinds, settings.name("eos_token", _END), "eos_token", where)
    joined = [f"{left} {right}" for left, right in merges]
    try:  # what the engine refuses is not written
        _core.Tokenizer.byte_bpe(tokens, kinds, joined, PRE)
    except ModelCorrupt as error:
        raise ModelCorrupt(f"{where}: {error}") from None
    return ByteBpe(tokens, kinds, joined, PRE, bos, eos, None, True, where)


def _check_cut(root: dict[str, Any], where: Path) -> None:
    cut = root.get("pre_tokenizer")
    parts = cut.get("pretokenizers") if isinstance(cut, dict) else None
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, dict) for part in parts):
        raise ModelCorrupt(f"{where}: pre_tokenizer is {brief(cut)}; expected Split and ByteLevel")
    split, level = parts
    pattern = split.get("pattern")
    text = pattern.get("Regex") if isinstance(pattern, dict) else None
    if text not in _CUTS or split.get("behavior") != "Removed" or split.get("invert") is not True:
        raise ModelCorrupt(f"{where}: pre_tokenizer cuts by {brief(pattern)}; expected to keep {_CUT}")
    if level.get("type") != "ByteLevel" or level.get("add_prefix_space", True) is not False:
        raise ModelCorrupt(
            f"{where}: pre_tokenizer ends in {brief(level)}; expected ByteLevel with add_prefix_space false"
        )


def _check_normalizer(root: dict[str, Any], where: Path) -> None:
    normalizer = root.get("normalizer")
    parts = normalizer.get("normalizers") if isinstance(normalizer, dict) else None
    steps = [part.get("type") for part in parts] if isinstance(parts, list) else None
    if steps != _STEPS:
        raise ModelCorrupt(f"{where}: normalizer is {brief(normalizer)}; expected a sequence of {', '.join(_STEPS)}")
