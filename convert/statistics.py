"""What the matrices of a model are multiplied with, and its file: GGUF's form of llama.cpp's importance matrix.

For each matrix NAME the file has float32 tensors NAME.in_sum2 (1, columns), the sum of the squared inputs, and
NAME.counts (1, 1), how many inputs that were; ours also have NAME.in_sum, the sum of the inputs, which it ignores.
"""

import array
import hashlib
import math
import os
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest, KosmosError

from .atomic import AtomicFile
from .gguf import ALIGNMENT, Entry, TensorInfo, data_offsets, encode_header
from .sources.files import SourceFile

_SQUARES, _COUNTS, _SUM = ".in_sum2", ".counts", ".in_sum"
_LISTED = 5
Floats: TypeAlias = "array.array[float]"


@dataclass(frozen=True)
class Inputs:
    """Of one matrix: sums over its inputs, one value per column."""

    count: int
    squares: Floats  # float32
    sum: "Floats | None" = None  # float32; None where a file has none

    def importance(self) -> bytes:
        """Mean squares, float32."""
        return floats(value / self.count for value in self.squares)

    def mean(self) -> bytes | None:
        """Float32, or None where it is not known."""
        return None if self.sum is None else floats(value / self.count for value in self.sum)


@dataclass(frozen=True)
class Statistics:
    """Of all matrices that were multiplied with anything."""

    inputs: dict[str, Inputs]
    datasets: list[str]  # what was read, for people
    chunks: int  # pictures and texts that were read
    chunk_size: int = 1  # of llama.cpp's, in tokens; 1 in ours
    sha256: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha256()
        for name, row in sorted(self.inputs.items()):
            digest.update(f"{name} {row.count} {len(row.squares)}\n".encode())
            digest.update(little(row.squares) + (b"" if row.sum is None else little(row.sum)))
        object.__setattr__(self, "sha256", digest.hexdigest())

    @property
    def tokens(self) -> int:
        """Inputs of the matrix that had the most."""
        return max((row.count for row in self.inputs.values()), default=0)

    def check(self, where: str, shapes: dict[str, tuple[int, ...]]) -> None:
        """InvalidRequest, naming what differs, unless every matrix is one of a model's. where: names the statistics."""
        strange = sorted(set(self.inputs) - set(shapes))
        if strange:
            raise InvalidRequest(
                f"{where} was made with another model: {len(strange)} of its {len(self.inputs)} matrices are none of "
                f"this one's: {', '.join(strange[:_LISTED])}"
            )
        for name, row in sorted(self.inputs.items()):
            if len(shapes[name]) != 2 or shapes[name][-1] != len(row.squares):
                raise InvalidRequest(
                    f"{where} was made with another model: {name} has {len(row.squares)} columns there and the shape "
                    f"{shapes[name]} here"
                )

    def entries(self) -> list[Entry]:
        """What a model's file says of the statistics that it was rounded with; the first four keys are llama.cpp's."""
        return [
            ("quantize.imatrix.file", "str", ""),
            ("quantize.imatrix.dataset", "str", ", ".join(self.datasets)),
            ("quantize.imatrix.entries_count", "u32", len(self.inputs)),
            ("quantize.imatrix.chunks_count", "u32", self.chunks),
            ("quantize.imatrix.tokens_count", "u32", self.tokens),
            ("quantize.imatrix.sha256", "str", self.sha256),
        ]


def floats(values: Iterable[float]) -> bytes:
    """As little-endian float32."""
    return little(array.array("f", values))


def little(values: "array.array[float]") -> bytes:
    """The bytes of an array in little-endian order."""
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


def big_array(code: str, data: bytes) -> "array.array[float]":
    """The values of little-endian bytes."""
    out: array.array[float] = array.array("f" if code == "f" else "d", data)
    if sys.byteorder == "big":
        out.byteswap()
    return out


def recorded(
    recorder: _core.ActivationRecorder, shapes: dict[str, tuple[int, ...]], datasets: list[str], chunks: int
) -> Statistics:
    """The statistics of what a recorder was told, of the model's matrices alone. InvalidRequest for NaN or infinity."""
    inputs = {}
    for name in recorder.names():
        sums = recorder.find(name)
        if len(shapes.get(name, ())) == 2 and shapes[name][-1] == sums.cols:
            row = Inputs(
                sums.rows, array.array("f", big_array("d", sums.squares)), array.array("f", big_array("d", sums.sum))
            )
            check_values(name, row)
            inputs[name] = row
    return Statistics(inputs, datasets, chunks)


def check_values(name: str, row: Inputs) -> None:
    """InvalidRequest for a count below 1, negative squares, NaN or infinity."""
    if row.count < 1:
        raise InvalidRequest(f"{name}: its inputs were counted {row.count} times; expected 1 or more")
    for i, value in enumerate(row.squares):
        if not (math.isfinite(value) and value >= 0):
            raise InvalidRequest(f"{name}: the sum of squares of column {i} is {value}; expected a finite number >= 0")
    for i, value in enumerate(row.sum or ()):
        if not math.isfinite(value):
            raise InvalidRequest(f"{name}: the sum of column {i} is {value}; expected a finite number")


def write_statistics(statistics: Statistics, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """InvalidRequest where the file exists, KosmosIOError."""
    infos, blobs = [], []
    for name, row in sorted(statistics.inputs.items()):
        if row.sum is not None:
            infos.append(TensorInfo(name + _SUM, "F32", (1, len(row.sum))))
            blobs.append(little(row.sum))
        infos += [
            TensorInfo(name + _SQUARES, "F32", (1, len(row.squares))),
            TensorInfo(name + _COUNTS, "F32", (1, 1)),
        ]
        blobs += [little(row.squares), struct.pack("<f", row.count)]
    entries: list[Entry] = [
        ("general.type", "str", "imatrix"),
        ("general.alignment", "u32", ALIGNMENT),
        ("imatrix.datasets", "[str]", statistics.datasets),
        ("imatrix.chunk_count", "u32", statistics.chunks),
        ("imatrix.chunk_size", "u32", statistics.chunk_size),
    ]
    header = encode_header(entries, infos)
    offsets, size = data_offsets(infos)
    data = bytearray(size)
    for offset, blob in zip(offsets, blobs, strict=True):
        data[offset : offset + len(blob)] = blob
    with AtomicFile(Path(path), len(header) + size, overwrite) as out:
        out.write(0, header)
        out.write(len(header), bytes(data))
        out.commit(lambda written: None)


def read_statistics(path: str | os.PathLike[str]) -> Statistics:
    """An importance matrix of ours or of llama.cpp (llama-imatrix --output-format gguf).

    ModelNotFound, ModelCorrupt (no GGUF file), InvalidRequest (no importance matrix, or not sound).
    """
    name = os.fspath(path)
    with SourceFile(Path(path)) as raw:
        magic = bytes(raw.read(0, min(4, raw.size)))
    if magic != b"GGUF":
        raise InvalidRequest(f"{name} is no GGUF file (it begins with {magic!r}); llama.cpp's old form is not read")
    file = _core.GgufFile(name)
    metadata = file.metadata()
    kind = metadata.get("general.type")
    if kind != "imatrix":
        raise InvalidRequest(f"{name}: general.type is {kind!r}, expected 'imatrix', an importance matrix")
    found: dict[str, dict[str, array.array[float]]] = {}
    for tensor, dtype, shape, *_ in file.tensors():
        base, dot, suffix = tensor.rpartition(".")
        if dot + suffix not in (_SQUARES, _COUNTS, _SUM):
            continue
        if dtype != "F32" or math.prod(shape) != shape[-1]:
            raise InvalidRequest(
                f"{name}: {tensor} is {dtype} {tuple(shape)}; expected one row of F32 (experts are not known)"
            )
        found.setdefault(base, {})[dot + suffix] = big_array("f", file.tensor_data(tensor))
    if not found:
        raise InvalidRequest(f"{name} has no matrix (NAME{_SQUARES} and NAME{_COUNTS})")
    inputs = {}
    for base, parts in sorted(found.items()):
        squares, counts, sums = parts.get(_SQUARES), parts.get(_COUNTS), parts.get(_SUM)
        if squares is None or counts is None or len(counts) != 1 or len(sums or squares) != len(squares):
            raise InvalidRequest(f"{name}: {base} needs {_SQUARES}, {_COUNTS} of one value, and of one length {_SUM}")
        if not 1 <= counts[0] < 1 << 53:
            raise InvalidRequest(f"{name}: {base}{_COUNTS} is {counts[0]}; expected 1 or more")
        row = Inputs(int(counts[0]), squares, sums)
        try:
            check_values(base, row)
        except KosmosError as error:
            raise InvalidRequest(f"{name}: {error}") from None
        inputs[base] = row
    datasets = metadata.get("imatrix.datasets", [])
    return Statistics(
        inputs,
        [str(text) for text in datasets] if isinstance(datasets, list) else [],
        int(metadata.get("imatrix.chunk_count", 0)),
        int(metadata.get("imatrix.chunk_size", 1)),
    )
