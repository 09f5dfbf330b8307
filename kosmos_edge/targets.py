"""Where output goes: one set of rules for everything that writes a file.

- A link is followed: what it points to is written, the link stays.
- A regular file appears complete or not at all: the bytes go to a file beside it, which is renamed at the end. A new
  file gets the mode that the umask gives, one that is replaced keeps its own.
- A device, a pipe, a socket, /dev/stdout and every other open descriptor is written to in place, never replaced.
- A folder, a place that is missing, and one that may not be written to are refused before any work.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from kosmos_edge.errors import InvalidRequest, KosmosIOError

if sys.platform != "win32":
    import fcntl

PART = ".kosmos-edge.part"  # of files whose half is worth nothing: the next run takes it over
_NAME_BYTES = 255  # what file systems allow
_MAX_LINKS = 40  # as Linux
# What these name is no file of its own but an open descriptor: to open or rename it would lose the place in the file.
_DESCRIPTOR = re.compile(r"/(?:dev|proc/(?P<process>\d+)(?:/task/\d+)?)/fd/(?P<number>\d+)")
_IN_THE_WAY = (errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # file systems without any


@dataclass(frozen=True, slots=True)
class Target:
    """A place that can be written to."""

    name: str  # as the caller wrote it
    path: Path  # where the links lead
    info: os.stat_result | None  # of what is there now
    in_place: bool  # a device, pipe, socket or open descriptor
    descriptor: int | None = None  # of this process

    @property
    def identity(self) -> object:
        """Equal for two targets that are one file; None for a character device, which anybody may write to."""
        if self.info is None:
            return str(self.path)
        return None if stat.S_ISCHR(self.info.st_mode) else (self.info.st_dev, self.info.st_ino)


def find_target(given: str | os.PathLike[str], *, overwrite: bool) -> Target:
    """Finds out what a name stands for, and whether it may be written to; changes nothing.

    Errors: InvalidRequest (a folder; a file that exists, without `overwrite`), KosmosIOError (no such folder, no
    permission, a name that the system refuses).
    """
    name = os.fspath(given)
    if not name or "\0" in name:
        raise InvalidRequest(f"expected the name of a file to write, got {name!r}")
    try:
        return _find(name, overwrite)
    except KosmosIOError:
        raise
    except OSError as error:
        raise _refused(error, name) from error


def _find(name: str, overwrite: bool) -> Target:
    path, descriptor = _follow(name)
    if descriptor is not None:
        info = os.fstat(descriptor)
        if not is_writable(descriptor):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    else:
        try:
            info = os.stat(path)
        except FileNotFoundError:
            _check_parent(name, path)
            return Target(name, Path(path), None, False)
    if stat.S_ISDIR(info.st_mode):
        raise InvalidRequest(f"{name} is a folder: name a file to write")
    if descriptor is not None or _DESCRIPTOR.fullmatch(path):
        return Target(name, Path(path), info, True, descriptor)
    if not overwrite and (stat.S_ISREG(info.st_mode) or stat.S_ISBLK(info.st_mode)):
        raise InvalidRequest(f"{name} exists: ask for overwriting (--overwrite), or choose another name")
    if not os.access(path, os.W_OK):
        raise KosmosIOError(errno.EACCES, "cannot write: it is not writable", name)
    if not stat.S_ISREG(info.st_mode):
        return Target(name, Path(path), info, True)
    _check_parent(name, path)
    return Target(name, Path(path), info, False)


def _follow(name: str) -> tuple[str, int | None]:
    """Where links lead, and the descriptor's number where that is an open descriptor of this process."""
    if name.endswith(tuple(filter(None, (os.sep, os.altsep)))) and not os.path.isdir(name):
        raise KosmosIOError(errno.ENOENT, f"cannot write: there is no folder {name}", name)
    path = name
    for _ in range(_MAX_LINKS):
        path = os.path.normpath(os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)))
        found = _DESCRIPTOR.fullmatch(path)
        if found is not None:
            own = found["process"] is None or int(found["process"]) == os.getpid()
            return path, int(found["number"]) if own else None
        if not os.path.islink(path):
            return path, None
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def is_writable(descriptor: int) -> bool:
    """Whether an open descriptor was opened for writing."""
    if sys.platform == "win32":
        return True
    return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def _check_parent(name: str, path: str) -> None:
    check_folder(os.path.dirname(path) or os.curdir, name)


def check_folder(folder: str | os.PathLike[str], name: str | None = None) -> None:
    """KosmosIOError unless files can be made in the folder; name: what is to be written there."""
    shown = os.fspath(folder)
    if not os.path.isdir(folder):
        raise KosmosIOError(errno.ENOENT, f"cannot write: there is no folder {shown}", name or shown)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise KosmosIOError(errno.EACCES, f"cannot write: the folder {shown} is not writable", name or shown)


def check_place(folder: str, what: str) -> None:
    """Whether a folder is there and takes files, or could be made. what: why it must be a folder. Changes nothing."""
    above = os.path.abspath(folder)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above):
        raise InvalidRequest(f"{what}, and {above} is none")
    check_folder(above, folder)


def make_folder(folder: str, what: str) -> None:
    """Makes a folder, with those above it; see check_place."""
    check_place(folder, what)
    with writing(folder):
        os.makedirs(folder, exist_ok=True)


def standard_output() -> Target | None:
    """What stdout is, to be compared with a target; None where it is closed."""
    with contextlib.suppress(OSError):
        return Target("stdout", Path(os.devnull), os.fstat(1), True, 1)
    return None


def refuse_inputs(option: str, targets: Iterable[Target], files: Iterable[str]) -> None:
    """InvalidRequest where a target is one of the files that are read, by whatever name."""
    existing = {target.identity: target for target in targets if target.info is not None}
    existing.pop(None, None)
    for file in files if existing else ():
        try:
            info = os.stat(file)
        except (OSError, ValueError):
            continue
        target = existing.get((info.st_dev, info.st_ino))
        if target is not None:
            raise InvalidRequest(f"{option}: {target.name} is {file} itself, which is read: choose another name")


def _refused(error: OSError, name: str) -> KosmosIOError:
    return KosmosIOError(error.errno or errno.EIO, f"cannot write: {error.strerror or error}", name)


@contextlib.contextmanager
def writing(name: str) -> Iterator[None]:
    """Names the target in what the system refuses."""
    try:
        yield
    except KosmosIOError:
        raise
    except OSError as error:
        raise _refused(error, name) from error


# ---- in place


def open_in_place(target: Target) -> int:
    """A descriptor to write to; its place is the end of what is there already. May wait for the reader of a pipe."""
    with writing(target.name):
        if target.descriptor is not None:
            return os.dup(target.descriptor)
        assert target.info is not None
        if stat.S_ISSOCK(target.info.st_mode):
            import socket

            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.connect(str(target.path))
                return connection.detach()
        return os.open(target.path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOCTTY", 0))


def write_all(descriptor: int, data: bytes) -> None:
    """Every byte, however few the system takes at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


# ---- beside the target


def part_name(name: str, suffix: str) -> str:
    """The name of the file beside a target that has not got its own yet; a hash where the name is too long."""
    if len(os.fsencode(name + suffix)) <= _NAME_BYTES:
        return name + suffix
    import hashlib

    return hashlib.sha256(os.fsencode(name)).hexdigest()[:32] + suffix


def part_path(target: Target, suffix: str) -> Path:
    """Where the bytes of a target that is a file are collected."""
    return target.path.with_name(part_name(target.path.name, suffix))


def lock(descriptor: int, *, wait: bool = False) -> bool:
    """Takes the file's lock unless another process has it. Windows needs none: it refuses to remove open files."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        return error.errno in _NO_LOCKS
    return True


def give_name(descriptor: int, path: Path, target: Target, *, overwrite: bool) -> None:
    """The finished file `path`, which is on the disk, becomes the target, with the mode of the file that it replaces.

    Without `overwrite` a file that has come there meanwhile is kept (InvalidRequest). On Windows the descriptor is
    closed.
    """
    if not overwrite and os.path.lexists(target.path):
        raise InvalidRequest(f"{target.name} exists: it has come there meanwhile")
    if sys.platform == "win32":  # cannot rename an open file
        os.close(descriptor)
        os.replace(path, target.path)
        return
    if target.info is not None:
        with contextlib.suppress(OSError):  # only root may give files away
            os.fchown(descriptor, target.info.st_uid, target.info.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(target.info.st_mode))
    os.replace(path, target.path)
    folder = os.open(target.path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Part:
    """The file beside a target in which the bytes are collected: open, locked, under a name of its own.

    `size` is what an earlier run left in it. Leaving the context closes it; its owner removes or names it.
    """

    def __init__(self, target: Target, suffix: str, *, wait: bool) -> None:
        """wait: for another process that writes the same target; else that is KosmosIOError."""
        self.target = target
        self.path = part_path(target, suffix)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        flags |= getattr(os, "O_NONBLOCK", 0)  # should a pipe have this name
        with writing(target.name):
            while True:
                try:
                    self.descriptor = os.open(self.path, flags, 0o666)
                except OSError as error:
                    if error.errno not in _IN_THE_WAY or not os.path.lexists(self.path):
                        raise
                    text = f"cannot write: {self.path} is in the way"  # a folder, a link, somebody else's file
                    raise KosmosIOError(error.errno or errno.EIO, text, target.name) from error
                try:
                    if self._is_ours(wait):
                        break
                except BaseException:
                    os.close(self.descriptor)
                    raise
                os.close(self.descriptor)

    def _is_ours(self, wait: bool) -> bool:
        """Whether the file has its name and we have its lock; False where another process has just finished it."""
        info = os.fstat(self.descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise KosmosIOError(errno.EEXIST, f"cannot write: {self.path} is in the way", self.target.name)
        if not lock(self.descriptor, wait=wait):
            raise KosmosIOError(errno.EBUSY, f"another process is writing it, to {self.path}", self.target.name)
        self.size = os.fstat(self.descriptor).st_size
        with contextlib.suppress(FileNotFoundError):
            now = os.stat(self.path)
            return (now.st_dev, now.st_ino) == (info.st_dev, info.st_ino)
        return False

    def truncate(self, size: int) -> None:
        """Forgets what stands behind the first `size` bytes."""
        os.ftruncate(self.descriptor, size)
        os.lseek(self.descriptor, size, os.SEEK_SET)

    def become_target(self, *, overwrite: bool) -> None:
        """See give_name."""
        with writing(self.target.name):
            os.fsync(self.descriptor)  # some disks say only now that they are full
            give_name(self.descriptor, self.path, self.target, overwrite=overwrite)

    def remove(self) -> None:
        """Removes it."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # closed already on Windows
            os.close(self.descriptor)


def write_whole(target: Target, data: bytes, *, overwrite: bool = True) -> None:
    """Puts the bytes there at once: a file appears complete or stays what it was. KosmosIOError, InvalidRequest."""
    if target.in_place:
        descriptor = open_in_place(target)
        try:
            with writing(target.name):
                write_all(descriptor, data)
        finally:
            os.close(descriptor)
        return
    with Part(target, PART, wait=True) as part:
        try:
            with writing(target.name):
                part.truncate(0)
                write_all(part.descriptor, data)
            part.become_target(overwrite=overwrite)
        except BaseException:
            part.remove()
            raise
