"""The journal of a run: which answers exist and which sidecars were written, so that a run can be resumed.

One SQLite file. An answer is kept under the content of its picture, the model and the request: a renamed picture is
known, a changed one is not. A kill loses at most the answers that were not finished. Several processes may use one
journal (shards); on a network file system each should have its own.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kosmos_edge.errors import InvalidRequest, KosmosIOError

VERSION = 1
_SETTLED_SECONDS = 2  # a file that was changed this recently may change again without a new time
_BLOCK = 1 << 20
_TABLES = """
CREATE TABLE IF NOT EXISTS answers(key BLOB PRIMARY KEY, run TEXT NOT NULL, answer TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sidecars(
    path BLOB PRIMARY KEY, key BLOB NOT NULL, before BLOB, after BLOB NOT NULL, done INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files(
    path BLOB PRIMARY KEY, size INTEGER NOT NULL, time INTEGER NOT NULL, number INTEGER NOT NULL, digest BLOB NOT NULL)
    WITHOUT ROWID;
"""


class JournalError(KosmosIOError):
    """The journal cannot be read or written: no picture can be answered."""


@dataclass(frozen=True, slots=True)
class Written:
    """What the journal knows of a sidecar."""

    key: bytes  # of the answer in it
    before: bytes | None  # digest of the content before; None: there was no file
    after: bytes  # digest of the content that was to be written
    done: bool  # it was written


def digest_bytes(data: bytes) -> bytes:
    """The digest of a picture's or a sidecar's content: SHA-256."""
    return hashlib.sha256(data).digest()


def request_digest(parts: Mapping[str, Any]) -> bytes:
    """The digest of everything that an answer depends on besides the picture."""
    return digest_bytes(json.dumps(parts, sort_keys=True, ensure_ascii=True, default=repr).encode())


def answer_key(content: bytes, request: bytes) -> bytes:
    """The key of an answer: of the picture's content and the request (with the model in it)."""
    return digest_bytes(content + request)


class Journal:
    """An open journal; a context manager. Raises JournalError where the file cannot be used."""

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        """path: the file, with its folders created; None: a temporary one of this run alone."""
        self.path = None if path is None else Path(path)
        self._run = os.urandom(8).hex()
        self._finished: list[tuple[bytes]] = []
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise JournalError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
        with self._errors():
            self._base = sqlite3.connect("" if self.path is None else self.path, timeout=60, isolation_level=None)
            try:
                self._base.execute("PRAGMA journal_mode=WAL")
                self._base.execute("PRAGMA synchronous=FULL")  # what was finished survives a power failure, too
                found = self._base.execute("PRAGMA user_version").fetchone()[0]
                tables = self._base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                if found != VERSION and tables:
                    raise InvalidRequest(f"{self.path}: not a journal of this version; name another file")
                self._base.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version={VERSION}; COMMIT;")
                self._base.execute("CREATE TEMP TABLE seen(content BLOB PRIMARY KEY, name BLOB NOT NULL) WITHOUT ROWID")
            except BaseException:
                self._base.close()
                raise

    def close(self) -> None:
        """Closes the file."""
        try:
            if self._finished:
                with self._errors(), self._transaction():
                    self._note_finished()
        finally:
            self._base.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- answers

    def answer(self, key: bytes, *, earlier: bool) -> str | None:
        """The kept answer; earlier: also one of an earlier run."""
        with self._errors():
            row = self._base.execute("SELECT answer, run FROM answers WHERE key=?", (key,)).fetchone()
        return None if row is None or not (earlier or row[1] == self._run) else str(row[0])

    def keep(self, key: bytes, answer: str, sidecars: Iterable[tuple[str, bytes | None, bytes]] = ()) -> None:
        """Keeps an answer, and that these sidecars are going to be written: (path, digest before, digest after)."""
        with self._errors(), self._transaction():
            self._base.execute("INSERT OR REPLACE INTO answers VALUES(?,?,?)", (key, self._run, answer))
            self._intend(key, sidecars)

    # ---- sidecars

    def intend(self, key: bytes, sidecars: Iterable[tuple[str, bytes | None, bytes]]) -> None:
        """As in keep, for an answer that is there."""
        with self._errors(), self._transaction():
            self._intend(key, sidecars)

    def _intend(self, key: bytes, sidecars: Iterable[tuple[str, bytes | None, bytes]]) -> None:
        self._note_finished()
        rows = [(os.fsencode(path), key, before, after) for path, before, after in sidecars]
        self._base.executemany("INSERT OR REPLACE INTO sidecars VALUES(?,?,?,?,0)", rows)

    def written(self, path: str) -> Written | None:
        """What is known of the sidecar of this absolute path."""
        with self._errors():
            row = self._base.execute(
                "SELECT key, before, after, done FROM sidecars WHERE path=?", (os.fsencode(path),)
            ).fetchone()
        return None if row is None else Written(row[0], row[1], row[2], bool(row[3]))

    def finish(self, path: str) -> None:
        """The sidecar was written. Noted with the next change: until then its content tells that it was written."""
        self._finished.append((os.fsencode(path),))

    def _note_finished(self) -> None:
        self._base.executemany("UPDATE sidecars SET done=1 WHERE path=?", self._finished)
        self._finished.clear()

    # ---- contents

    def seen(self, content: bytes, name: str) -> str | None:
        """The name of the picture of this run that has this content; None, and from now on this one, if none has."""
        with self._errors():
            done = self._base.execute("INSERT OR IGNORE INTO seen VALUES(?,?)", (content, os.fsencode(name)))
            if done.rowcount:
                return None
            row = self._base.execute("SELECT name FROM seen WHERE content=?", (content,)).fetchone()
        return os.fsdecode(row[0])

    def file_digest(self, path: str | os.PathLike[str]) -> bytes:
        """The digest of a file's content; of one that is unchanged since it was last read, without reading it."""
        name = os.fsencode(os.path.abspath(path))
        with open(path, "rb") as file:
            info = os.fstat(file.fileno())
            state = info.st_size, info.st_mtime_ns, info.st_ino & (2**63 - 1)
            with self._errors():
                row = self._base.execute(
                    "SELECT digest FROM files WHERE path=? AND size=? AND time=? AND number=?", (name, *state)
                ).fetchone()
            if row is not None:
                return bytes(row[0])
            found = hashlib.sha256()
            while block := file.read(_BLOCK):
                found.update(block)
        if info.st_mtime_ns < (time.time() - _SETTLED_SECONDS) * 1e9:
            with self._errors():
                self._base.execute("INSERT OR REPLACE INTO files VALUES(?,?,?,?,?)", (name, *state, found.digest()))
        return found.digest()

    # ---- inside

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._base.execute("ROLLBACK")
            raise
        self._base.execute("COMMIT")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise JournalError(
                errno.EIO, f"the journal cannot be used: {error}", str(self.path or "journal")
            ) from error
