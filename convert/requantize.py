"""GGUF file in, the same model in another storage type out.

Every tensor that changes its type is decoded to float32 and encoded again, in chunks of whole rows; one that keeps it
is copied. From a float32 file the result has the tensors that the checkpoint itself would have become; from a
quantized file it has that file's losses too. The metadata are copied as they stand but for the type and the checksums.
"""

import hashlib
import math
import os
import struct
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kosmos_edge import _core
from kosmos_edge.errors import Cancelled, InvalidRequest, KosmosError, ModelCorrupt

from .atomic import AtomicFile
from .gguf import ALIGNMENT, Entry, TensorInfo, data_offsets, encode_header
from .models import kosmos2
from .pipeline import CHUNK_BYTES, WORKERS, Cancellable, ConvertReport, Progress
from .recipe import RECIPES, Recipe, choose_type, find_recipe, wanted_type
from .sources.files import SourceFile

_OWN = ("general.alignment", "general.file_type", "kosmos2.checksum.sha256")
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # by GGUF value type
_STRING = 8
_FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class _Piece:
    """Whole rows of one tensor."""

    tensor: int
    start: int  # bytes from the tensor's beginning
    size: int
    values: int


def stored_type(path: str | os.PathLike[str]) -> str | None:
    """The recipe that a GGUF file's tensors follow, by its general.file_type; None where it is none of ours."""
    number = _core.GgufFile(os.fspath(path)).metadata().get("general.file_type")
    return next((recipe.name for recipe in RECIPES.values() if recipe.file_type == number), None)


def requantize(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    type: str,
    overwrite: bool = False,
    progress: Progress | None = None,
    cancel: Cancellable | None = None,
) -> ConvertReport:
    """Writes the model of one GGUF file to another, stored as `type` (see `recipe.RECIPES`); memory is a few chunks.

    progress: called with (source bytes done, source bytes in all, tensor's name). cancel: polled at every chunk.
    Errors: InvalidRequest (type, output exists or is the source), ModelNotFound, ModelCorrupt (source), KosmosIOError
    (disk), Cancelled. After any error the output is what it was before.
    """
    recipe = find_recipe(type)
    file = _core.GgufFile(os.fspath(source))
    settings = _core.read_config(os.fspath(source))
    tensors = file.tensors()
    kosmos2.check_stored(os.fspath(source), settings, tensors)  # a file that the engine would refuse is refused here
    blocks = settings["decoder"]["layers"]
    infos = [TensorInfo(name, choose_type(recipe, name, shape, blocks), shape) for name, _, shape, *_ in tensors]
    fallbacks = [
        f"{info.name}: stored as {info.dtype}, its rows of {info.shape[-1]} values do not fit {wanted}"
        for info in infos
        if info.dtype != (wanted := wanted_type(recipe, info.name, info.shape, blocks))
    ]
    target = Path(output)
    with SourceFile(Path(source)) as raw:
        if target.exists() and os.path.samefile(target, source):
            raise InvalidRequest(f"{target} is the file to convert: choose another output")
        kept = [
            entry
            for entry in _entries(raw, min((offset for *_, offset, _ in tensors), default=raw.size))
            if entry[0] not in _OWN
        ]
        offsets, data_bytes = data_offsets(infos)
        data_at = len(_header(kept, recipe, infos, ["0" * 64] * len(infos)))
        hashes = [hashlib.sha256() for _ in infos]
        with AtomicFile(target, data_at + data_bytes, overwrite) as out:
            written = [0] * len(infos)
            for piece, data in _encoded(raw, tensors, infos, progress, cancel):
                i = piece.tensor
                out.write(data_at + offsets[i] + written[i], data)
                hashes[i].update(data)
                written[i] += len(data)
            if infos:  # padding after the last tensor
                end = offsets[-1] + infos[-1].nbytes
                out.write(data_at + end, bytes(data_bytes - end))
            out.write(0, _header(kept, recipe, infos, [h.hexdigest() for h in hashes]))
            out.commit(lambda path: _check(path, infos))
    return ConvertReport(
        source=Path(source),
        output=target,
        type=recipe.name,
        source_bytes=sum(nbytes for *_, nbytes in tensors),
        output_bytes=data_at + data_bytes,
        tensors=dict(Counter(info.dtype for info in infos)),
        fallbacks=fallbacks,
        sha256=[],
    )


def _header(kept: list[Entry], recipe: Recipe, infos: list[TensorInfo], checksums: list[str]) -> bytes:
    own: list[Entry] = [
        ("general.file_type", "u32", recipe.file_type),
        ("general.alignment", "u32", ALIGNMENT),
        ("kosmos2.checksum.sha256", "[str]", checksums),
    ]
    return encode_header([*kept, *own], infos)


def _encoded(
    raw: SourceFile,
    tensors: list[tuple[str, str, tuple[int, ...], int, int]],
    infos: list[TensorInfo],
    progress: Progress | None,
    cancel: Cancellable | None,
) -> Iterator[tuple[_Piece, bytes]]:
    """All tensors in order, as the bytes to store."""
    total = sum(nbytes for *_, nbytes in tensors)
    done = 0
    pending: deque[tuple[_Piece, Future[bytes]]] = deque()

    def encode(dtype: str, info: TensorInfo, data: bytearray, piece: _Piece) -> bytes:
        if dtype == info.dtype:
            return bytes(data)
        source = dtype if dtype in _FLOATS else "F32"
        values = data if dtype in _FLOATS else _core.dequantize(dtype, data, piece.values)
        return _core.quantize(info.dtype, values, source, info.shape[-1] if info.shape else 1)

    def finish() -> tuple[_Piece, bytes]:
        nonlocal done
        piece, future = pending.popleft()
        try:
            data = future.result()
        except KosmosError as error:  # a value that the type cannot hold
            raise ModelCorrupt(f"{raw.path}: tensor {infos[piece.tensor].name!r}: {error}") from error
        done += piece.size
        if progress is not None:
            progress(done, total, infos[piece.tensor].name)
        return piece, data

    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="kosmos-requantize")
    try:
        for i, (_, dtype, shape, offset, nbytes) in enumerate(tensors):
            for piece in _pieces(i, dtype, shape, nbytes):
                if cancel is not None and cancel.cancelled:
                    raise Cancelled(f"conversion cancelled after {done} of {total} bytes")
                data = raw.read(offset + piece.start, piece.size)
                pending.append((piece, pool.submit(encode, dtype, infos[i], data, piece)))
                if len(pending) > 2 * WORKERS:
                    yield finish()
        while pending:
            yield finish()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pieces(tensor: int, dtype: str, shape: tuple[int, ...], nbytes: int) -> Iterator[_Piece]:
    """Pieces of whole rows that cover a tensor, of about CHUNK_BYTES as float32."""
    row = shape[-1] if shape else 1
    rows = math.prod(shape) // row
    row_bytes = nbytes // rows
    step = max(1, CHUNK_BYTES // (4 * row))
    for first in range(0, rows, step):
        count = min(step, rows - first)
        yield _Piece(tensor, first * row_bytes, count * row_bytes, count * row)


def _check(path: Path, infos: list[TensorInfo]) -> None:
    found = [(name, dtype, tuple(shape)) for name, dtype, shape, *_ in _core.GgufFile(str(path)).tensors()]
    if found != [(info.name, info.dtype, info.shape) for info in infos]:
        raise KosmosError("internal: the tensors of the written file are not those that were to be written")


# ---- metadata, as the bytes they are


def _entries(raw: SourceFile, data_at: int) -> list[Entry]:
    """Every key of a file that GgufFile has checked, with its value's bytes: (key, "raw", bytes)."""
    head = bytes(raw.read(0, data_at))
    at = 24  # after magic, version, numbers of tensors and keys
    entries: list[Entry] = []
    for _ in range(_count(head, 16)):
        length = _count(head, at)
        key = head[at + 8 : at + 8 + length].decode()
        start = at + 8 + length
        (kind,) = struct.unpack_from("<I", head, start)
        at = _skip(head, start + 4, kind)
        entries.append((key, "raw", head[start:at]))
    return entries


def _skip(head: bytes, at: int, kind: int) -> int:
    """The end of a value."""
    if kind in _SCALAR_BYTES:
        return at + _SCALAR_BYTES[kind]
    if kind == _STRING:
        return at + 8 + _count(head, at)
    (inner,) = struct.unpack_from("<I", head, at)
    count = _count(head, at + 4)
    at += 12
    if inner in _SCALAR_BYTES:
        return at + count * _SCALAR_BYTES[inner]
    for _ in range(count):
        at = _skip(head, at, inner)
    return at


def _count(head: bytes, at: int) -> int:
    return int.from_bytes(head[at : at + 8], "little")
