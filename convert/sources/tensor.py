"""A tensor of a checkpoint: where its bytes lie. Nothing is read until it is asked for."""

import math
from dataclasses import dataclass

from .files import SourceFile

# Bytes per value of the types that weights come in (the names are GGUF's and safetensors').
FLOAT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
# Of the types that a checkpoint may hold beside them, in tensors that are skipped.
ITEM_BYTES = {
    **FLOAT_BYTES,
    "F64": 8,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}

MAX_DIMS = 8
MAX_ELEMENTS = 1 << 40


@dataclass(frozen=True)
class SourceTensor:
    """Contiguous, row-major, little-endian values in a file. shape: outermost first; may be empty (a scalar)."""

    name: str
    dtype: str  # a key of ITEM_BYTES
    shape: tuple[int, ...]
    file: SourceFile
    offset: int  # bytes from the start of the file

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.elements * ITEM_BYTES[self.dtype]

    def read(self, start: int, count: int) -> bytearray:
        """`count` bytes from byte `start` of the tensor."""
        return self.file.read(self.offset + start, count)
