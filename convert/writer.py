"""Writes a GGUF file from pieces of tensors: read in order, encoded by a few threads, put in their places.

Memory is a few pieces, whatever the size of the model.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kosmos_edge import _core
from kosmos_edge.errors import Cancelled, KosmosError, ModelCorrupt

from .atomic import AtomicFile
from .gguf import TensorInfo, data_offsets

CHUNK_BYTES = 1 << 22  # of source values per piece of work
WORKERS = 2
Progress = Callable[[int, int, str], None]


class Cancellable(Protocol):
    """What `cancel` must look like: _core.CancelToken does."""

    @property
    def cancelled(self) -> bool: ...


@dataclass(frozen=True)
class Piece:
    """Whole rows of one tensor. The pieces of a tensor come in their order; tensors may come in any."""

    tensor: int  # index in the file
    source_bytes: int
    where: str  # of the source, for messages
    read: Callable[[], bytearray]
    encode: Callable[[bytearray], bytes]  # source bytes -> stored bytes; runs on a thread


def write_model(
    target: Path,
    infos: list[TensorInfo],
    pieces: Iterable[Piece],
    *,
    header_bytes: int,
    header: Callable[[list[str]], bytes],
    check: Callable[[Path], None],
    total: int,
    overwrite: bool,
    progress: Progress | None,
    cancel: Cancellable | None,
) -> int:
    """Writes the file under its name once everything is in it and `check` has accepted it; -> its bytes.

    header: called at the end with the SHA-256 of each tensor's stored bytes; gives header_bytes bytes. total: source
    bytes of all pieces. progress: called with (source bytes done, total, tensor's name). cancel: polled at every piece.
    """
    offsets, data_bytes = data_offsets(infos)
    with AtomicFile(target, header_bytes + data_bytes, overwrite) as out:
        places = [header_bytes + offset for offset in offsets]
        checksums = _write_tensors(out, infos, places, pieces, total, progress, cancel)
        if data_bytes:  # padding after the last tensor
            end = offsets[-1] + infos[-1].nbytes
            out.write(header_bytes + end, bytes(data_bytes - end))
        head = header(checksums)
        if len(head) != header_bytes:
            raise KosmosError(f"internal: the header has {len(head)} bytes, expected {header_bytes}")
        out.write(0, head)
        out.commit(check)
    return header_bytes + data_bytes


def _write_tensors(
    out: AtomicFile,
    infos: list[TensorInfo],
    places: list[int],
    pieces: Iterable[Piece],
    total: int,
    progress: Progress | None,
    cancel: Cancellable | None,
) -> list[str]:
    """-> the SHA-256 of each tensor's stored bytes, in the order of the file."""
    hashes = [hashlib.sha256() for _ in infos]
    written = [0] * len(infos)
    done = 0
    pending: deque[tuple[Piece, Future[bytes]]] = deque()

    def finish_one() -> None:
        nonlocal done
        piece, future = pending.popleft()
        try:
            data = future.result()
        except KosmosError as error:  # a value that the type cannot hold
            raise ModelCorrupt(f"{piece.where}: {error}") from error
        i = piece.tensor
        out.write(places[i] + written[i], data)
        hashes[i].update(data)
        written[i] += len(data)
        done += piece.source_bytes
        if progress is not None:
            progress(done, total, infos[i].name)

    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="kosmos-convert")
    try:
        for piece in pieces:
            if cancel is not None and cancel.cancelled:
                raise Cancelled(f"conversion cancelled after {done} of {total} bytes")
            pending.append((piece, pool.submit(piece.encode, piece.read())))
            if len(pending) > 2 * WORKERS:
                finish_one()
        while pending:
            finish_one()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    for info, size in zip(infos, written, strict=True):
        if size != info.nbytes:
            raise KosmosError(f"internal: {info.name} became {size} bytes of {info.dtype}, expected {info.nbytes}")
    return [h.hexdigest() for h in hashes]


def check_tensors(path: Path, infos: list[TensorInfo]) -> None:
    """Opens the finished file: its tensors must be those that were to be written."""
    found = [(name, dtype, tuple(shape)) for name, dtype, shape, *_ in _core.GgufFile(str(path)).tensors()]
    if found != [(info.name, info.dtype, info.shape) for info in infos]:
        raise KosmosError("internal: the tensors of the written file are not those that were to be written")
