"""Resumable downloads of large files, checked before they are renamed.

huggingface_hub finds the file (address, headers, token) and its HTTP client carries the bytes; what it does not do is
to keep a partial download for the next run and to compare hashes. The partial file `NAME.kosmos-edge.part` lies beside
the destination, under a lock; it is renamed once its size and hash are those that the hub announced.
"""

import contextlib
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from kosmos_edge.errors import Cancelled, KosmosIOError, ModelCorrupt
from kosmos_edge.targets import PART, part_name

if sys.platform != "win32":
    import fcntl

CHUNK_BYTES = 1 << 20
ATTEMPTS = 6  # in a row that bring nothing
TIMEOUT_S = 30.0
Progress = Callable[[int], None]  # bytes of this file so far


class Cancellable(Protocol):
    """What `cancel` must look like: _core.CancelToken does."""

    @property
    def cancelled(self) -> bool: ...


class _Retry(Exception):
    """The connection failed; what was received is kept."""


@dataclass(frozen=True)
class Digest:
    """How the hub identifies a file's content: SHA-256 of a large file, git's blob id of a small one."""

    kind: str  # "SHA-256" or "git blob id"
    hex: str
    size: int  # of the file in bytes: a part of git's blob id

    def start(self) -> Any:
        """A hash object that has seen nothing of the file."""
        if self.kind == "SHA-256":
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)

    def matches(self, path: Path) -> bool:
        """Whether the file at `path` has this content."""
        if path.stat().st_size != self.size:
            return False
        with path.open("rb") as file:
            return bool(_hash_into(self.start(), file, None, None).hexdigest() == self.hex)


def _hash_into(digest: Any, file: Any, progress: Progress | None, cancel: Cancellable | None) -> Any:
    done = 0
    while part := file.read(CHUNK_BYTES):
        _check(cancel)
        digest.update(part)
        done += len(part)
        if progress is not None:
            progress(done)
    return digest


def _check(cancel: Cancellable | None) -> None:
    if cancel is not None and cancel.cancelled:
        raise Cancelled("download cancelled; it will be resumed by the next one")


class _Partial:
    """The downloaded part of a file: its bytes on disk, their number and their hash."""

    def __init__(self, file: Any, digest: Digest, progress: Progress | None, cancel: Cancellable | None) -> None:
        self._file = file
        self._digest = digest
        self.size = digest.size
        self._progress = progress
        self._cancel = cancel
        self.have = file.seek(0, os.SEEK_END)
        if self.have > self.size:
            self.restart()
        file.seek(0)
        self.hash = _hash_into(digest.start(), file, progress, cancel)

    def restart(self) -> None:
        """Forgets everything."""
        self._file.truncate(0)
        self._file.seek(0)
        self.have = 0
        self.hash = self._digest.start()

    def append(self, data: bytes) -> None:
        """Takes more bytes; ModelCorrupt when they are more than announced."""
        _check(self._cancel)
        if self.have + len(data) > self.size:
            raise ModelCorrupt(f"the server sent more than the {self.size} bytes that the hub announced")
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self.hash.update(data)
        self.have += len(data)
        if self._progress is not None:
            self._progress(self.have)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[Any]:
    """The partial file, opened for reading and writing, and locked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b", buffering=0) as file:
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise KosmosIOError(f"{path} is being downloaded by another process") from None
        yield file


def download(
    url: str,
    headers: dict[str, str],
    destination: Path,
    digest: Digest,
    progress: Progress | None = None,
    cancel: Cancellable | None = None,
) -> None:
    """Fetches `url` to `destination`: exactly the bytes of `digest`, or no file.

    KosmosIOError after too many failures in a row (the partial file stays and is resumed by the next call);
    ModelCorrupt when what came is not what was announced (it is removed).
    """
    destination = destination.resolve()  # a link stays, and what it leads to is written
    if destination.exists() and not destination.is_file():
        raise KosmosIOError(f"cannot write {destination}: it exists and is not a regular file")
    part = destination.with_name(part_name(destination.name, PART))
    try:
        with _locked(part) as file:
            if destination.exists():
                part.unlink()
                return
            try:
                _fill(url, headers, _Partial(file, digest, progress, cancel), digest, cancel)
            except ModelCorrupt:
                file.truncate(0)
                with contextlib.suppress(OSError):  # open files stay on Windows: empty
                    part.unlink()
                raise
            os.fsync(file.fileno())
            if sys.platform != "win32":
                os.replace(part, destination)
        if sys.platform == "win32":  # cannot rename an open file
            os.replace(part, destination)
    except OSError as error:
        if isinstance(error, KosmosIOError):
            raise
        raise KosmosIOError(f"cannot write {part}: {error.strerror}") from error


def _fill(url: str, headers: dict[str, str], partial: _Partial, digest: Digest, cancel: Cancellable | None) -> None:
    """Requests what is missing until everything is there and its hash is right."""
    failures = 0
    while partial.have < partial.size:
        before = partial.have
        try:
            _fetch(url, headers, partial)
        except _Retry as error:
            failures = 0 if partial.have > before else failures + 1
            if failures >= ATTEMPTS:
                have = f"{partial.have} of {partial.size} bytes are here"
                raise KosmosIOError(f"{url}: {error} ({have}; run again to continue)") from None
            _check(cancel)
            time.sleep(min(2.0**failures / 2, 8.0))
    found = partial.hash.hexdigest()
    if found != digest.hex:
        raise ModelCorrupt(
            f"{url}: {digest.kind} of the download is {found}, the hub announces {digest.hex}; it was removed"
        )


def _fetch(url: str, headers: dict[str, str], partial: _Partial) -> None:
    """One request for what is missing; _Retry when it breaks off."""
    from huggingface_hub import get_session

    session = get_session()
    http_error = import_module(type(session).__module__.partition(".")[0]).HTTPError  # httpx or its successor
    wanted = {**headers, "Accept-Encoding": "identity"}
    if partial.have:
        wanted["Range"] = f"bytes={partial.have}-"
    try:
        with session.stream("GET", url, headers=wanted, follow_redirects=True, timeout=TIMEOUT_S) as response:
            if response.status_code == 416:  # the file on the server is another one now
                partial.restart()
                raise _Retry("the server does not have the range that is missing")
            if response.status_code >= 500 or response.status_code == 429:
                raise _Retry(f"the server answers {response.status_code}")
            if response.status_code >= 400:
                hint = " (a token in HF_TOKEN may be needed)" if response.status_code in (401, 403) else ""
                raise KosmosIOError(f"{url}: the server answers {response.status_code}{hint}")
            span = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", response.headers.get("Content-Range", ""))
            if partial.have and not (response.status_code == 206 and span and int(span[1]) == partial.have):
                partial.restart()  # the whole file, or another part of it
                if response.status_code == 206:
                    raise _Retry("the server sent another range than requested")
            for data in response.iter_bytes(CHUNK_BYTES):
                partial.append(data)
    except http_error as error:
        raise _Retry(f"{type(error).__name__}: {error}") from error
    if partial.have < partial.size:
        raise _Retry("the connection ended early")
