"""A tensor of a checkpoint: where its bytes lie. Nothing is read until it is asked for."""

import math
from dataclasses import dataclass

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt

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

    def hash_up_to(self, start: int) -> None:
        """Lets the file's hash catch up to byte `start` of the tensor."""
        self.file.hash_up_to(self.offset + start)


@dataclass(frozen=True)
class _Runs(SourceTensor):
    """Values that lie in runs of equal length in the file; offset: of the first one."""

    run: int = 0  # bytes that lie together
    stride: int = 0  # bytes from the start of one run to that of the next

    def read(self, start: int, count: int) -> bytearray:
        found = bytearray()
        while len(found) < count:
            at = start + len(found)
            found += self.file.read(self._place(at), min(self.run - at % self.run, count - len(found)))
        return found

    def hash_up_to(self, start: int) -> None:
        self.file.hash_up_to(self._place(start))

    def _place(self, start: int) -> int:
        """Where in the file byte `start` of the tensor is."""
        return self.offset + start // self.run * self.stride + start % self.run


def every_third(tensor: SourceTensor, rows: int, part: int) -> SourceTensor:
    """A third of a tensor's rows: of each three times `rows` of them the part 0, 1 or 2."""
    assert tensor.shape[0] % (3 * rows) == 0
    run = rows * math.prod(tensor.shape[1:]) * ITEM_BYTES[tensor.dtype]
    shape = (tensor.shape[0] // 3, *tensor.shape[1:])
    return _Runs(tensor.name, tensor.dtype, shape, tensor.file, tensor.offset + part * run, run, 3 * run)


@dataclass(frozen=True)
class _Stacked(SourceTensor):
    """Several tensors, one behind the other; file and offset are the first one's."""

    parts: tuple[SourceTensor, ...] = ()

    def read(self, start: int, count: int) -> bytearray:
        found = bytearray()
        for part, at, size in self._within(start, count):
            found += part.read(at, size)
        return found

    def hash_up_to(self, start: int) -> None:
        part, at, _ = self._within(start, 1)[0]
        part.hash_up_to(at)

    def _within(self, start: int, count: int) -> list[tuple[SourceTensor, int, int]]:
        """(part, first byte in it, bytes of it) of a stretch."""
        found = []
        for part in self.parts:
            at, end = max(start, 0), min(start + count, part.nbytes)
            if at < end:
                found.append((part, at, end - at))
            start -= part.nbytes
        return found


def stacked(parts: list[SourceTensor]) -> SourceTensor:
    """The rows of tensors of one type and width (at least one of them), one tensor's behind the other's."""
    first = parts[0]
    for part in parts[1:]:
        if (part.dtype, part.shape[1:]) != (first.dtype, first.shape[1:]):
            raise ModelCorrupt(
                f"{part.file.path}: {part.name} is {part.dtype} with rows of {part.shape[1:]}, "
                f"expected those of {first.name}: {first.dtype}, {first.shape[1:]}"
            )
    if len(parts) == 1:
        return first
    shape = (sum(part.shape[0] for part in parts), *first.shape[1:])
    return _Stacked(first.name, first.dtype, shape, first.file, first.offset, tuple(parts))


@dataclass(frozen=True)
class ZeroTensor(SourceTensor):
    """Zeros that no file holds. file and offset: of a tensor beside which it is to be written."""

    def read(self, start: int, count: int) -> bytearray:
        """`count` zeros."""
        return bytearray(count)


@dataclass(frozen=True)
class OneTensor(ZeroTensor):
    """Float32 ones that no file holds."""

    def read(self, start: int, count: int) -> bytearray:
        """`count` bytes of ones; a stretch begins and ends with a value."""
        return bytearray(b"\0\0\x80\x3f" * (count // 4))


def floats(tensor: SourceTensor, first: int, count: int) -> bytes:
    """`count` values from value `first` on, as float32."""
    width = FLOAT_BYTES[tensor.dtype]
    return _core.dequantize(tensor.dtype, tensor.read(first * width, count * width), count)


@dataclass(frozen=True)
class _Changed(SourceTensor):
    """Float32 values that are computed from those of `base`; file and offset are its own."""

    base: SourceTensor

    def hash_up_to(self, start: int) -> None:
        self.base.hash_up_to(start // 4 * FLOAT_BYTES[self.base.dtype])


@dataclass(frozen=True)
class _LowRank(_Changed):
    left: SourceTensor  # (rows, rank)
    right: SourceTensor  # (rank, columns)
    scale: float

    def read(self, start: int, count: int) -> bytearray:
        """A stretch of whole rows."""
        rank, cols = self.right.shape
        assert start % (4 * cols) == 0 and count % (4 * cols) == 0
        first, rows = start // (4 * cols), count // (4 * cols)
        weights = floats(self.base, first * cols, rows * cols)
        left, right = floats(self.left, first * rank, rows * rank), floats(self.right, 0, rank * cols)
        return bytearray(_core.add_low_rank(weights, left, right, cols, rank, self.scale))


def with_low_rank(base: SourceTensor, left: SourceTensor, right: SourceTensor, scale: float) -> SourceTensor:
    """base + scale * left right, in float32: a matrix and a change of low rank that was trained for it (LoRA)."""
    fits = len(right.shape) == 2 and left.shape == (base.shape[0], right.shape[0]) and right.shape[1:] == base.shape[1:]
    if not fits or any(tensor.dtype not in FLOAT_BYTES for tensor in (base, left, right)):
        raise ModelCorrupt(
            f"{left.file.path}: {left.name} {left.shape} times {right.name} {right.shape} is no change of "
            f"{base.name} {base.shape}"
        )
    return _LowRank(base.name, "F32", base.shape, base.file, base.offset, base, left, right, scale)


@dataclass(frozen=True)
class _Resized(_Changed):
    size: int
    new_size: int
    first: int  # rows in front of the grid, which stay

    def read(self, start: int, count: int) -> bytearray:
        width = self.shape[-1]
        kept = floats(self.base, 0, self.first * width)
        grid = floats(self.base, self.first * width, self.size * self.size * width)
        whole = kept + _core.resize_grid(grid, self.size, self.new_size, width)
        return bytearray(whole[start : start + count])


def resized_positions(table: SourceTensor, new_size: int, first: int) -> SourceTensor:
    """A table of positions (first + n * n, width) as one of a grid of new_size * new_size: as torch interpolates it,
    bicubic. The same where it has that size; ModelCorrupt where its grid is no square."""
    size = math.isqrt(max(0, table.shape[0] - first)) if len(table.shape) == 2 else 0
    if size == 0 or table.shape[0] != first + size * size or table.dtype not in FLOAT_BYTES:
        raise ModelCorrupt(f"{table.file.path}: {table.name} {table.shape} is no table of a square's positions")
    if size == new_size:
        return table
    shape = (first + new_size * new_size, table.shape[1])
    return _Resized(table.name, "F32", shape, table.file, table.offset, table, size, new_size, first)
