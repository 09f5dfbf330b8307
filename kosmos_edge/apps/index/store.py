"""The file of an index: one SQLite file with a row for each picture.

What was committed survives a kill: SQLite's journal brings the file back to the last commit at the next opening.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

from kosmos_edge.errors import InvalidRequest, KosmosIOError

VERSION = 1
_OURS = 0x4B45_4978  # application_id, "KEIx"
_MAX_PARAMETERS = 500  # in one statement; SQLite allows 999 in old builds
_TABLES = """
CREATE TABLE pictures(
    id INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB NOT NULL UNIQUE, size INTEGER NOT NULL, time INTEGER NOT NULL,
    digest BLOB NOT NULL, vector BLOB NOT NULL, caption TEXT);
CREATE INDEX contents ON pictures(digest);
CREATE TABLE facts(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class IndexDamaged(KosmosIOError):
    """The file of the index is damaged, cut off, or cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Row:
    """A picture, without its vector."""

    id: int  # a changed picture gets a new one; never used again
    path: str  # absolute
    size: int  # of the file, bytes
    time: int  # of its last change, nanoseconds; -1: too recent to trust
    digest: bytes  # SHA-256 of the file
    caption: str | None


class Store:
    """An open index file; a context manager. Raises IndexDamaged where SQLite cannot go on."""

    def __init__(self, path: str | os.PathLike[str], mode: Literal["read", "write"]) -> None:
        """write: creates a file that is not there. InvalidRequest for a file that is no index, or of another version;
        KosmosIOError where there is none to read."""
        self.path = Path(os.path.abspath(path))
        shown = os.fspath(path)
        if os.path.isdir(path):
            raise InvalidRequest(f"{shown} is a folder; expected the file of an index")
        if mode == "read" and not os.path.exists(path):
            raise KosmosIOError(
                errno.ENOENT, "no such index; `kosmos-edge index build PHOTOS -o INDEX` makes one", shown
            )
        if mode == "write" and not os.path.isdir(self.path.parent):
            raise KosmosIOError(errno.ENOENT, "cannot write: its folder does not exist", shown)
        with self._errors():
            self._base = self._connect(mode)
            try:
                self._check(mode)
            except BaseException:
                self._base.close()
                raise

    def _connect(self, mode: Literal["read", "write"]) -> sqlite3.Connection:
        if mode == "write":
            return sqlite3.connect(self.path, timeout=60, isolation_level=None)
        address = "file:" + quote(self.path.as_posix().encode("utf-8", "surrogateescape"), safe="/:") + "?mode=ro"
        return sqlite3.connect(address, timeout=60, isolation_level=None, uri=True)

    def _check(self, mode: Literal["read", "write"]) -> None:
        tables = self._base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not tables and mode == "write":
            self._create()
        if self._base.execute("PRAGMA application_id").fetchone()[0] != _OURS:
            raise InvalidRequest(f"{self.path}: this file is no index of pictures")
        found = self._base.execute("PRAGMA user_version").fetchone()[0]
        if found != VERSION:
            raise InvalidRequest(f"{self.path}: an index of version {found}; expected {VERSION}: build it again")
        pages, size = (self._base.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        if os.path.getsize(self.path) < pages * size:  # SQLite would take zeros for the missing bytes of a page
            raise sqlite3.DatabaseError(f"malformed: {os.path.getsize(self.path)} of {pages * size} bytes are there")

    def _create(self) -> None:
        """Makes the tables, unless another process has made them in the meantime."""
        self._base.execute("BEGIN IMMEDIATE")
        try:
            if not self._base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in _TABLES.split(";"):
                    self._base.execute(statement)
                self._base.execute(f"PRAGMA application_id={_OURS}")
                self._base.execute(f"PRAGMA user_version={VERSION}")
        finally:
            self._base.execute("COMMIT")

    def close(self) -> None:
        """Closes the file; what a transaction has not committed is undone."""
        self._base.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- facts

    def fact(self, key: str) -> Any:
        """A kept value; None where there is none."""
        with self._errors():
            row = self._base.execute("SELECT value FROM facts WHERE key=?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def keep_fact(self, key: str, value: Any) -> None:
        """Keeps a JSON-ready value."""
        with self._errors():
            self._base.execute("INSERT OR REPLACE INTO facts VALUES(?,?)", (key, json.dumps(value)))

    # ---- pictures

    def __len__(self) -> int:
        with self._errors():
            return int(self._base.execute("SELECT count(*) FROM pictures").fetchone()[0])

    def rows(self, ids: Iterable[int] | None = None) -> Iterator[Row]:
        """All pictures, the oldest row first; or those of these ids, in no certain order."""
        columns = "SELECT id, path, size, time, digest, caption FROM pictures"
        with self._errors():
            if ids is None:
                found = list(self._base.execute(f"{columns} ORDER BY id"))
            else:
                found = list(self._by_ids(columns, ids))
        for id, path, size, time, digest, caption in found:
            yield Row(id, os.fsdecode(path), size, time, bytes(digest), caption)

    def row(self, path: str) -> Row | None:
        """The picture of this absolute path."""
        return self._one("path=?", os.fsencode(path))

    def content(self, digest: bytes) -> Row | None:
        """A picture with this content, first one with a caption."""
        return self._one("digest=? ORDER BY caption IS NULL, id LIMIT 1", digest)

    def vector(self, id: int) -> bytes:
        """The float32 values of a picture's vector."""
        with self._errors():
            return bytes(self._base.execute("SELECT vector FROM pictures WHERE id=?", (id,)).fetchone()[0])

    def vectors(self, ids: Iterable[int] | None = None) -> Iterator[tuple[int, bytes]]:
        """(id, vector) of all pictures, by id; or of these ids, in no certain order."""
        columns = "SELECT id, vector FROM pictures"
        with self._errors():
            yield from self._base.execute(f"{columns} ORDER BY id") if ids is None else self._by_ids(columns, ids)

    def put(self, path: str, size: int, time: int, digest: bytes, vector: bytes, caption: str | None) -> None:
        """Adds a picture, in the place of what this path had before."""
        with self._errors():
            self._base.execute("DELETE FROM pictures WHERE path=?", (os.fsencode(path),))
            self._base.execute(
                "INSERT INTO pictures(path, size, time, digest, vector, caption) VALUES(?,?,?,?,?,?)",
                (os.fsencode(path), size, time, digest, vector, caption),
            )

    def refresh(self, id: int, size: int, time: int, caption: str | None) -> None:
        """The same content has another time of change, or a caption now."""
        with self._errors():
            self._base.execute("UPDATE pictures SET size=?, time=?, caption=? WHERE id=?", (size, time, caption, id))

    def remove(self, id: int) -> None:
        """Forgets a picture."""
        with self._errors():
            self._base.execute("DELETE FROM pictures WHERE id=?", (id,))

    def begin(self) -> None:
        """Changes from here on are written together, by commit()."""
        with self._errors():
            self._base.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Writes the changes since begin()."""
        with self._errors():
            if self._base.in_transaction:
                self._base.execute("COMMIT")

    # ---- inside

    def _one(self, condition: str, value: bytes) -> Row | None:
        with self._errors():
            found = self._base.execute(
                f"SELECT id, path, size, time, digest, caption FROM pictures WHERE {condition}", (value,)
            ).fetchone()
        if found is None:
            return None
        id, path, size, time, digest, caption = found
        return Row(id, os.fsdecode(path), size, time, bytes(digest), caption)

    def _by_ids(self, columns: str, ids: Iterable[int]) -> Iterator[Any]:
        wanted = list(ids)
        for start in range(0, len(wanted), _MAX_PARAMETERS):
            part = wanted[start : start + _MAX_PARAMETERS]
            yield from self._base.execute(f"{columns} WHERE id IN ({','.join('?' * len(part))})", part)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            text = str(error)
            if "not a database" in text:
                raise InvalidRequest(f"{self.path}: this file is no index of pictures") from error
            damaged = "malformed" in text or "corrupt" in text
            why = f"the index is damaged ({text}); delete it and build it again" if damaged else f"the index: {text}"
            raise IndexDamaged(errno.EIO, why, str(self.path)) from error
