"""Brings an index to the state of folders: new and changed pictures in, vanished ones out."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from kosmos_edge.apps.index.store import IndexDamaged, Row, Store
from kosmos_edge.apps.index.vectors import image_vector
from kosmos_edge.errors import (
    Cancelled,
    DeviceUnavailable,
    Forked,
    ImageDecodeError,
    InvalidRequest,
    KosmosError,
    KosmosIOError,
    WorkerDied,
)
from kosmos_edge.files import irregular
from kosmos_edge.images import Opening
from kosmos_edge.model import Model

Outcome: TypeAlias = Literal["added", "changed", "unchanged", "reused", "failed"]
OnPicture: TypeAlias = Callable[[str, Outcome, "KosmosError | None"], None]
MAX_FILE = 1 << 30  # bytes of a picture's file
_COMMIT_SECONDS = 1.0
_SETTLED_SECONDS = 2  # a file that was changed this recently may change again without a new time


@dataclass(slots=True)
class Update:
    """What an update did, in numbers of pictures."""

    added: int = 0  # computed, under a new path
    changed: int = 0  # computed, under a known path
    unchanged: int = 0
    reused: int = 0  # the content was known under another path: a copy, or a renamed file
    removed: int = 0  # vanished
    failed: list[tuple[str, KosmosError]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        names = ("added", "changed", "unchanged", "reused", "removed", "notes")
        failed = [{"path": path, "error": str(error)} for path, error in self.failed]
        return {name: getattr(self, name) for name in names} | {"failed": failed}


@dataclass(slots=True)
class Updating:
    """One update, into an open store."""

    store: Store
    model: Model
    width: int  # of a vector; 0: that of the first picture
    captions: bool
    opening: Opening
    on_picture: OnPicture | None
    done: Update = field(default_factory=Update)

    def run(self, paths: Iterable[str | os.PathLike[str]], folders: Sequence[str | os.PathLike[str]]) -> Update:
        """paths: the pictures, as they are now; folders: where a picture of the index that is on the disk no longer is
        removed."""
        seen: set[str] = set()
        self.store.keep_fact("complete", False)
        self.store.begin()
        last = time.monotonic()
        try:
            for given in paths:
                path = os.path.abspath(given)
                if path in seen:
                    continue
                seen.add(path)
                self._one(path)
                if time.monotonic() - last >= _COMMIT_SECONDS:
                    self.store.commit()
                    self.store.begin()
                    last = time.monotonic()
            self._remove_vanished(seen, [os.path.abspath(folder) for folder in folders])
            self.store.keep_fact("complete", True)
        finally:
            self.store.commit()
        return self.done

    def _one(self, path: str) -> None:
        known = self.store.row(path)
        error = None
        try:
            outcome = self._take(path, known)
        except (KosmosError, OSError) as caught:
            if isinstance(caught, _OF_THE_RUN):
                raise
            error = caught if isinstance(caught, KosmosError) else _refused(path, caught)
            outcome = "failed"
            if known is not None:  # what the index has of it is of another content
                self.store.remove(known.id)
            self.done.failed.append((path, error))
        else:
            setattr(self.done, outcome, getattr(self.done, outcome) + 1)
        if self.on_picture is not None:
            self.on_picture(path, outcome, error)

    def _take(self, path: str, known: Row | None) -> Outcome:
        info = os.stat(path)
        has_all = known is not None and (known.caption is not None or not self.captions)
        if known is not None and has_all and (known.size, known.time) == (info.st_size, info.st_mtime_ns):
            return "unchanged"
        data, info = _read(path)
        settled = info.st_mtime_ns < (time.time() - _SETTLED_SECONDS) * 1e9
        stamp = info.st_mtime_ns if settled else -1
        digest = hashlib.sha256(data).digest()
        same = known if known is not None and known.digest == digest else self.store.content(digest)
        encoded = None
        caption = None if same is None else same.caption
        if self.captions and caption is None:
            encoded = self._encode(data, path)
            caption = self.model.caption(encoded).text.strip()
        if known is not None and same is known:
            self.store.refresh(known.id, info.st_size, stamp, caption)
            return "unchanged"
        if same is not None:
            self.store.put(path, info.st_size, stamp, digest, self.store.vector(same.id), caption)
            return "reused"
        if encoded is None:
            encoded = self._encode(data, path)
        vector = image_vector(encoded).tobytes()
        if self.width == 0:
            self.width = len(vector) // 4
            self.store.keep_fact("width", self.width)
        if len(vector) != 4 * self.width:
            raise ImageDecodeError(f"{path}: a vector of {len(vector) // 4} values, expected {self.width}")
        self.store.put(path, info.st_size, stamp, digest, vector, caption)
        return "added" if known is None else "changed"

    def _encode(self, data: bytes, path: str) -> Any:
        try:
            return self.model.encode(self.opening.open(data))
        except ImageDecodeError as error:
            raise ImageDecodeError(f"{path}: {_without_name(str(error))}") from error

    def _remove_vanished(self, seen: set[str], folders: list[str]) -> None:
        for folder in folders:
            inside = folder.rstrip(os.sep) + os.sep
            gone = [
                row
                for row in self.store.rows()
                if row.path not in seen and row.path.startswith(inside) and not os.path.lexists(row.path)
            ]
            if gone and not any(path.startswith(inside) for path in seen):  # perhaps a disk that is not mounted
                self.done.notes.append(
                    f"{folder}: none of its {len(gone)} pictures is there any more; they stay in the index"
                )
                continue
            for row in gone:
                self.store.remove(row.id)
            self.done.removed += len(gone)


# These are no picture's fault.
_OF_THE_RUN = (Cancelled, WorkerDied, Forked, IndexDamaged, DeviceUnavailable, InvalidRequest)


def _without_name(text: str) -> str:
    """Messages about bytes begin with what the bytes are called."""
    return text.partition(": ")[2] or text


def _refused(path: str, error: OSError) -> KosmosIOError:
    return KosmosIOError(error.errno or 0, error.strerror or str(error), path)


def _read(path: str) -> tuple[bytes, os.stat_result]:
    """A file's bytes and its state; from one open file, so that they belong together."""
    what = irregular(os.stat(path).st_mode)
    if what is not None:
        raise ImageDecodeError(f"{path}: {what}")
    with open(path, "rb") as file:
        before = os.fstat(file.fileno())
        if before.st_size > MAX_FILE:
            raise ImageDecodeError(f"{path}: {before.st_size} bytes, expected at most {MAX_FILE}")
        data = file.read(MAX_FILE + 1)
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(data) != after.st_size:
        raise ImageDecodeError(f"{path}: the file changed while it was read")
    return data, after
