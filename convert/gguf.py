"""The layout of a GGUF file: metadata and tensor table to bytes, offsets of the tensors.

Format version 3 (ggml/docs/gguf.md): magic, version, counts, key-value pairs, tensor infos, padding to the alignment,
data. Dimensions are written innermost first. Everything is fixed by the arguments: no dates, no host names, no order
of dicts.
"""

import array
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .recipe import TYPES, stored_bytes

ALIGNMENT = 64
VERSION = 3
# (key, type, value); types: u32, u64, i32, f32, bool, str, and [u8] [i32] [f32] [str] for arrays; raw is a value's
# bytes, its type included.
Entry = tuple[str, str, Any]
_SCALARS = {"u32": (4, "<I"), "u64": (10, "<Q"), "i32": (5, "<i"), "f32": (6, "<f"), "bool": (7, "<?")}
_ARRAYS = {"[i32]": (5, "i"), "[f32]": (6, "f")}
_STRING, _ARRAY, _U8 = 8, 9, 0


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the file. shape: outermost first."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return stored_bytes(self.dtype, self.shape)


def pad(size: int) -> int:
    """The next multiple of the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def data_offsets(tensors: Iterable[TensorInfo]) -> tuple[list[int], int]:
    """-> (offset of each tensor in the data section, bytes of that section)"""
    offsets, at = [], 0
    for tensor in tensors:
        offsets.append(at)
        at = pad(at + tensor.nbytes)
    return offsets, at


def encode_header(metadata: list[Entry], tensors: list[TensorInfo]) -> bytes:
    """Everything before the data section, padded. Its length depends on the lengths of strings and arrays only."""
    out = bytearray(struct.pack("<4sIQQ", b"GGUF", VERSION, len(tensors), len(metadata)))
    for key, kind, value in metadata:
        out += _string(key)
        out += _value(kind, value)
    for tensor, offset in zip(tensors, data_offsets(tensors)[0], strict=True):
        out += _string(tensor.name)
        out += struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *reversed(tensor.shape))
        out += struct.pack("<IQ", TYPES[tensor.dtype][0], offset)
    return bytes(out.ljust(pad(len(out)), b"\0"))


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(kind: str, value: Any) -> bytes:
    if kind == "raw":
        return bytes(value)
    if kind in _SCALARS:
        number, form = _SCALARS[kind]
        return struct.pack("<I", number) + struct.pack(form, value)
    if kind == "str":
        return struct.pack("<I", _STRING) + _string(value)
    if kind == "[str]":
        return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(_string, value))
    if kind == "[u8]":
        return struct.pack("<IIQ", _ARRAY, _U8, len(value)) + bytes(value)
    number, code = _ARRAYS[kind]
    values = array.array(code, value)
    if sys.byteorder == "big":
        values.byteswap()
    return struct.pack("<IIQ", _ARRAY, number, len(values)) + values.tobytes()
