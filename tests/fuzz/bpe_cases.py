"""Small BPE vocabularies of both kinds, damaged, and how the converter reads them: for the fuzz target `bpe`."""

import json
from pathlib import Path
from typing import Any

from helpers.convert_checkpoint import convert_sentencepiece_bytes
from mutation import Chance

from kosmos_edge import _core
from kosmos_edge.convert.byte_bpe import read_byte_bpe
from kosmos_edge.convert.gguf import encode_header
from kosmos_edge.convert.sources.files import Folder, SourceFile
from kosmos_edge.convert.sources.tokenizer_files import TokenizerFiles
from kosmos_edge.convert.spm_bpe import read_spm_bpe
from kosmos_edge.errors import ModelCorrupt, ModelNotFound

_SPECIALS = ["<unk>", "<s>", "</s>"]
_ADDED = [{"id": i, "content": text, "special": True} for i, text in enumerate(_SPECIALS)]


def _spm_json() -> dict[str, Any]:
    pieces = [*_SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), "ab", "▁a", "▁", "a", "b", "é"]
    return {
        "added_tokens": [*_ADDED, {"id": len(pieces), "content": "<image>", "special": False}],
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {piece: i for i, piece in enumerate(pieces)},
            "merges": [["a", "b"], ["▁", "a"]],
        },
    }


def _byte_json() -> dict[str, Any]:
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = [*map(chr, prints), *(chr(256 + i) for i in range(256 - len(prints)))]
    pieces = [*_SPECIALS, *alphabet, "ab", "Ġa"]
    return {
        "added_tokens": _ADDED,
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
        "model": {"type": "BPE", "vocab": {p: i for i, p in enumerate(pieces)}, "merges": ["a b", "Ġ a"]},
    }


_SETTINGS = {"bos_token": "<s>", "eos_token": "</s>", "legacy": False, "pad_token": {"content": "<unk>"}}
_BYTE_PIECES = [f"<0x{byte:02X}>" for byte in range(256)]


def make_bpe(chance: Chance) -> dict[str, bytes]:
    """The files of one tokenizer, one of them damaged."""

    def text(value: Any) -> bytes:
        if chance.one_in(8):
            return chance.damage(json.dumps(value).encode())
        return json.dumps(chance.damage_json(value)).encode("utf-8", "surrogatepass")

    settings = json.dumps(_SETTINGS).encode() if chance.one_in(2) else text(_SETTINGS)
    kind = chance.choice(("spm", "byte", "model", "files"))
    files = {"tokenizer_config.json": settings}
    if kind == "model":
        pieces = [*_BYTE_PIECES, "▁a", "▁", "a", "b"]
        scores = [
            chance.choice((0.0, -1.0, -2.0, float("nan"))) if chance.one_in(50) else -float(i) for i in range(260)
        ]
        kinds = [6] * 256 + [1] * 4
        data = convert_sentencepiece_bytes(pieces, scores, b"", model_type=2, kinds=kinds)
        return files | {"tokenizer.model": chance.damage(data) if chance.one_in(2) else data}
    if kind == "files":
        model = _byte_json()["model"]
        merges = "#version: 0.2\n" + "\n".join(model["merges"]) + "\n"
        lines = chance.damage(merges.encode()) if chance.one_in(2) else merges.encode()
        return files | {"vocab.json": text(model["vocab"]), "merges.txt": lines}
    return files | {"tokenizer.json": text(_spm_json() if kind == "spm" else _byte_json())}


def open_bpe(folder: Path) -> list[_core.Tokenizer]:
    """The tokenizers of the vocabularies that both readers make of a folder's files, through a file's keys. Raises what
    the last reader raised where none of them accepts the files."""
    found, errors = [], []
    for read in (read_spm_bpe, read_byte_bpe):
        opened: list[SourceFile] = []
        try:
            vocabulary = read(TokenizerFiles(Folder(folder), None, opened))
        except (ModelCorrupt, ModelNotFound) as error:
            errors.append(error)
            continue
        finally:
            for file in opened:
                file.close()
        path = folder / "vocabulary.gguf"
        path.write_bytes(encode_header(vocabulary.padded(len(vocabulary.tokens) + 2).entries(), []))
        found.append(_core.Tokenizer.load(str(path)))
    if not found:
        raise errors[-1]
    return found
