"""A model file that appears under its name complete or not at all. Links, modes and places: kosmos_edge/targets.py.

The bytes go to `.NAME.part-<random>` in the same folder, under a lock; then fsync, a check by the caller, rename,
fsync of the folder. A failure removes the temporary file; what a killed process left is removed by the next run for
the same target, recognised by the name pattern and by nobody holding its lock.
"""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from kosmos_edge.errors import InvalidRequest, KosmosIOError
from kosmos_edge.targets import find_target, give_name, lock

_NAME_BYTES = 255  # what file systems allow


def _stem(target: Path) -> str:
    """What the names of the target's temporary files start with."""
    stem = f".{target.name}.part-"
    if len(os.fsencode(stem)) + 16 > _NAME_BYTES:
        stem = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:32]}.part-"
    return stem


def remove_leftovers(target: Path) -> list[Path]:
    """Removes temporary files of `target` whose process is gone; -> what was removed."""
    pattern = re.compile(re.escape(_stem(target)) + "[0-9a-f]{16}")
    removed = []
    for path in sorted(target.parent.iterdir()):
        if not pattern.fullmatch(path.name) or path.is_symlink() or not path.is_file():
            continue
        try:
            fd = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            continue  # gone meanwhile, or not ours to touch
        try:
            if lock(fd):
                path.unlink(missing_ok=True)
                removed.append(path)
        except OSError:
            pass  # in use (Windows)
        finally:
            os.close(fd)
    return removed


def _kind(info: os.stat_result | None) -> str:
    mode = 0 if info is None else info.st_mode
    kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISREG, "an open descriptor"))
    return next((name for test, name in kinds if test(mode)), "a device")


class AtomicFile:
    """`with AtomicFile(target, size) as out: out.write(offset, data); out.commit(check)`"""

    def __init__(self, target: Path, size: int, overwrite: bool) -> None:
        """size: bytes that the file will have.

        KosmosIOError when the folder is missing, unwritable or too full; InvalidRequest for a device or pipe, which
        takes no file with a header that is written last, and for a file that exists, without `overwrite`.
        """
        self._to = find_target(target, overwrite=overwrite)
        if self._to.in_place:
            raise InvalidRequest(f"{target} is {_kind(self._to.info)}: a model can be written to a file only")
        if not overwrite and os.path.lexists(target):  # a link that leads nowhere
            raise InvalidRequest(f"{target} exists: use overwrite (--overwrite) to replace it, or choose another name")
        self._target = self._to.path
        self._overwrite = overwrite
        self._size = size
        try:
            remove_leftovers(self._target)
            free = shutil.disk_usage(self._target.parent).free
            if free < size:
                raise KosmosIOError(f"{self._target.parent} has {free} bytes free, {target.name} needs {size}")
            self._path, self._fd = self._create()
        except KosmosIOError:
            raise
        except (OSError, ValueError) as error:
            raise KosmosIOError(f"cannot write to {self._target.parent}: {error}") from error
        self._committed = False

    def _create(self) -> tuple[Path, int]:
        while True:
            path = self._target.parent / (_stem(self._target) + secrets.token_hex(8))
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
            # Another process may clean up between creation and lock: then the name is gone, and another one is taken.
            if lock(fd) and path.exists():
                return path, fd
            os.close(fd)

    def write(self, offset: int, data: bytes) -> None:
        """Puts `data` at `offset`."""
        view = memoryview(data)
        try:
            os.lseek(self._fd, offset, os.SEEK_SET)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise self._io_error(error) from error

    def commit(self, check: Callable[[Path], None]) -> None:
        """Gives the file its name. `check` gets the complete temporary file and raises when it is not right."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._io_error(error) from error
        check(self._path)
        try:
            give_name(self._fd, self._path, self._to, overwrite=self._overwrite)
        except OSError as error:
            raise KosmosIOError(f"cannot name the finished file {self._target}: {error.strerror}") from error
        self._committed = True

    def _io_error(self, error: OSError) -> KosmosIOError:
        free = shutil.disk_usage(self._target.parent).free
        return KosmosIOError(
            f"cannot write {self._target}: {error.strerror}; the file needs {self._size} bytes, {free} bytes are free"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._committed:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # closed already on Windows
            os.close(self._fd)
