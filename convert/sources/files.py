"""The files of a checkpoint: regular files inside the folder that the user named, read by position, hashed in
passing.

Reads are positioned reads of a few megabytes and not a mapping: a file that shrinks or fails while it is read is then
an error with a message instead of SIGBUS, and peak memory is the chunk size.
"""

import hashlib
import json
import os
import re
import stat
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kosmos_edge.errors import KosmosIOError, ModelCorrupt, ModelNotFound

_PLAIN_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")
_GAP = 1 << 22  # bytes hashed at a time where no tensor is read
MAX_JSON_BYTES = 1 << 20  # config.json and its kin
MAX_INDEX_BYTES = 1 << 24
MAX_TOKENIZER_BYTES = 1 << 26


class SourceFile:
    """One open file. Its SHA-256 costs no second pass over what is read in ascending order after `hash_up_to`."""

    def __init__(self, path: Path, name: str | None = None) -> None:
        """Opens `path` (a link is followed), which must be a regular file. `name` is how records call it."""
        self.path = path
        self.name = name or path.name
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        try:
            self._file = open(os.open(path, flags), "rb", buffering=0)  # noqa: SIM115 (closed by close())
        except (FileNotFoundError, NotADirectoryError):
            raise ModelNotFound(f"no such file: {path}") from None
        except OSError as error:
            raise KosmosIOError(f"cannot open {path}: {error.strerror}") from error
        except ValueError as error:  # a NUL in the path
            raise ModelNotFound(f"no such file: {path!r}: {error}") from None
        self._stat = os.fstat(self._file.fileno())
        if not stat.S_ISREG(self._stat.st_mode):
            self._file.close()
            raise ModelNotFound(f"{path} is not a regular file")
        self.size = self._stat.st_size
        self._hash = hashlib.sha256()
        self._hashed = 0  # bytes from the start that the hash has seen

    def read(self, offset: int, count: int) -> bytearray:
        """`count` bytes from `offset`; the range must lie in the file."""
        if offset < 0 or count < 0 or offset + count > self.size:
            raise ModelCorrupt(
                f"{self.path}: bytes {offset}..{offset + count} lie outside of the file ({self.size} bytes)"
            )
        data = self._read_raw(offset, count)
        if offset <= self._hashed < offset + count:
            self._hash.update(memoryview(data)[self._hashed - offset :])
            self._hashed = offset + count
        return data

    def hash_up_to(self, offset: int) -> None:
        """Lets the hash catch up to `offset`, so that it goes on with the reads that follow there."""
        while self._hashed < offset:
            part = self._read_raw(self._hashed, min(_GAP, offset - self._hashed))
            self._hash.update(part)
            self._hashed += len(part)

    def read_all(self, limit: int) -> bytes:
        """The whole file, which may have at most `limit` bytes."""
        if self.size > limit:
            raise ModelCorrupt(f"{self.path} has {self.size} bytes; at most {limit} are expected of such a file")
        return bytes(self.read(0, self.size))

    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the whole file; reads what was not read yet. Fails when the file changed meanwhile."""
        self.hash_up_to(self.size)
        now = os.fstat(self._file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self._stat.st_size, self._stat.st_mtime_ns):
            raise ModelCorrupt(f"{self.path} was changed while it was read")
        return self._hash.hexdigest()

    def same_as(self, path: Path) -> bool:
        """Whether `path` leads to this very file (the same name, a hard link or a symbolic link)."""
        try:
            return os.path.samestat(os.stat(path), self._stat)
        except OSError:
            return False

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_raw(self, offset: int, count: int) -> bytearray:
        data = bytearray(count)
        view = memoryview(data)
        done = 0
        try:
            self._file.seek(offset)
            while done < count:
                got = self._file.readinto(view[done:])
                if not got:
                    raise ModelCorrupt(f"{self.path} became shorter while it was read: no bytes at {offset + done}")
                done += got
        except OSError as error:
            raise KosmosIOError(f"cannot read {self.path} at byte {offset + done}: {error.strerror}") from error
        return data


class Folder:
    """A checkpoint's folder: opens plain names in it, never anything that lies elsewhere."""

    def __init__(self, path: Path, prefix: str = "") -> None:
        """prefix: of its files' names in records."""
        self.path = path
        self._prefix = prefix
        self._root = path.resolve()
        # The hub's cache: snapshots/<commit>/<name> links to ../../blobs/<hash>, which may link to a store of its own.
        self._blobs = (path.parent.parent / "blobs").resolve() if path.parent.name == "snapshots" else None

    def has(self, name: str) -> bool:
        return os.path.exists(self.path / name)

    def inner(self, name: str) -> "Folder | None":
        """The folder of that plain name in this one, if there is one; it must not be a link that leaves."""
        path = self.path / name
        if not os.path.isdir(path):
            return None
        if not path.resolve().is_relative_to(self._root):
            raise ModelCorrupt(f"{path} is a link that leaves its folder (to {path.resolve()}); put the folder there")
        found = Folder(path, f"{self._prefix}{name}/")
        found._blobs = self._blobs
        return found

    def open(self, name: str) -> SourceFile:
        """The file of that name; names come from checkpoints, so only plain ones that stay inside are accepted."""
        if not _PLAIN_NAME.fullmatch(name) or name in (".", ".."):
            raise ModelCorrupt(f"{self.path}: {name!r} is not a plain file name (letters, digits, '.', '_', '-')")
        path = self.path / name
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError):
            raise ModelNotFound(f"no such file: {path}") from None
        if not real.is_relative_to(self._root) and not self._is_blob(path):
            raise ModelCorrupt(f"{path} is a link that leaves its folder (to {real}); put the file itself there")
        return SourceFile(real, self._prefix + name)

    def _is_blob(self, path: Path) -> bool:
        """Whether `path` is a link to a file that the hub's cache holds by its hash."""
        if self._blobs is None or not path.is_symlink():
            return False
        target = path.parent / os.readlink(path)
        return target.parent.resolve() == self._blobs and _PLAIN_NAME.fullmatch(target.name) is not None


def brief(value: object) -> str:
    """A value of a parsed file for a message: short, and without descending into it."""
    if isinstance(value, (dict, list, tuple)):
        return f"{type(value).__name__} of {len(value)}"
    return repr(value[:80] if isinstance(value, (str, bytes)) else value)[:120]


def is_json(data: bytes, where: Path) -> bool:
    """Whether a tokenizer's file is meant to be JSON: by its name, or by what it begins with."""
    return where.suffix == ".json" or data[:1] == b"{"


def parse_json(data: bytes, where: Path) -> dict[str, Any]:
    """A JSON object without duplicate keys, NaN or infinities; everything else is ModelCorrupt."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key occurs twice in one object")
        return result

    def constant(text: str) -> None:
        raise ValueError(f"{text} is not JSON")

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise ModelCorrupt(f"{where}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelCorrupt(f"{where}: expected a JSON object, got {type(value).__name__}")
    return value


def read_json(file: SourceFile, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The JSON object that makes up `file`."""
    return parse_json(file.read_all(limit), file.path)
