"""Bounded reader of safetensors files.

Layout: an 8-byte little-endian length, that many bytes of JSON {name: {dtype, shape, data_offsets: [begin, end]}},
then the buffer. The ranges must tile the buffer exactly: no gap, no overlap, no byte left over; shape x dtype must
equal the range.
"""

from typing import Any

from kosmos_edge.errors import ModelCorrupt

from .files import SourceFile, brief, parse_json
from .tensor import ITEM_BYTES, MAX_DIMS, MAX_ELEMENTS, SourceTensor

MAX_HEADER_BYTES = 1 << 24
MAX_TENSORS = 1 << 16
_FIELDS = {"dtype", "shape", "data_offsets"}


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_ELEMENTS * 8


def _entry(file: SourceFile, name: str, entry: Any, buffer: int, buffer_bytes: int) -> SourceTensor:
    def bad(what: str) -> ModelCorrupt:
        return ModelCorrupt(f"{file.path}: tensor {name!r}: {what}")

    if not isinstance(entry, dict) or set(entry) != _FIELDS:
        raise bad(f"expected an object with {sorted(_FIELDS)}, got {brief(entry)}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise bad(f"dtype {brief(dtype)} is not one of {', '.join(ITEM_BYTES)}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMS or not all(_is_count(n) for n in shape):
        raise bad(f"shape {brief(shape)} is not a list of at most {MAX_DIMS} non-negative integers")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_count(n) for n in offsets):
        raise bad(f"data_offsets {brief(offsets)} are not two non-negative integers")
    begin, end = offsets
    if not begin <= end <= buffer_bytes:
        raise bad(f"data_offsets {begin}..{end} do not lie in the buffer of {buffer_bytes} bytes")
    tensor = SourceTensor(name, dtype, tuple(shape), file, buffer + begin)
    if tensor.elements > MAX_ELEMENTS or tensor.nbytes != end - begin:
        raise bad(f"shape {shape} of {dtype} needs {tensor.nbytes} bytes, data_offsets hold {end - begin}")
    return tensor


def read_safetensors(file: SourceFile) -> dict[str, SourceTensor]:
    """The tensors of a file, by name."""
    if file.size < 8:
        raise ModelCorrupt(f"{file.path}: {file.size} bytes are too few for a safetensors file")
    header_bytes = int.from_bytes(file.read(0, 8), "little")
    if header_bytes > MAX_HEADER_BYTES or header_bytes > file.size - 8:
        raise ModelCorrupt(
            f"{file.path}: header of {header_bytes} bytes, expected at most {min(MAX_HEADER_BYTES, file.size - 8)}"
        )
    header = parse_json(bytes(file.read(8, header_bytes)), file.path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelCorrupt(f"{file.path}: __metadata__ is not an object of strings")
    if not 0 < len(header) <= MAX_TENSORS:
        raise ModelCorrupt(f"{file.path}: {len(header)} tensors, expected 1..{MAX_TENSORS}")
    buffer = 8 + header_bytes
    tensors = {name: _entry(file, name, entry, buffer, file.size - buffer) for name, entry in header.items()}
    at = buffer
    for tensor in sorted(tensors.values(), key=lambda t: (t.offset, t.nbytes)):
        if tensor.offset != at:
            word = "overlaps the one before" if tensor.offset < at else "leaves a gap"
            raise ModelCorrupt(
                f"{file.path}: tensor {tensor.name!r} starts at byte {tensor.offset}, expected {at}: it {word}"
            )
        at += tensor.nbytes
    if at != file.size:
        raise ModelCorrupt(f"{file.path}: the tensors end at byte {at}, the file at {file.size}")
    return tensors
