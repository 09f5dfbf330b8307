"""Output files: one set of rules for everything that writes a file.

- A link is followed: its target is written, the link stays.
- A regular file appears complete or not at all: the bytes go to a temporary file in the same folder, which is renamed
  at the end. A new file gets the mode that the umask gives, a replaced one keeps its mode.
- A device, a pipe, a socket, /dev/stdout and every other open descriptor is written in place, never replaced.
- A folder, a missing folder, and an unwritable place are refused before any work.
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

PART = ".kosmos-edge.part"  # for files that are useless if incomplete: the next run reuses it
_NAME_BYTES = 255  # the limit of file systems
_MAX_LINKS = 40  # as Linux
# These name open descriptors, not files: opening or renaming them would lose the position in the file.
_DESCRIPTOR = re.compile(r"/(?:dev|proc/(?P<process>\d+)(?:/task/\d+)?)/fd/(?P<number>\d+)")
_IN_THE_WAY = (errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # file systems without any


@dataclass(frozen=True, slots=True)
class Target:
    """A place that can be written."""

    name: str  # as the caller wrote it
    path: Path  # with links resolved
    info: os.stat_result | None  # of the existing file
    in_place: bool  # a device, pipe, socket or open descriptor
    descriptor: int | None = None  # of this process

    @property
    def identity(self) -> object:
        """Equal for two targets that are the same file; None for a character device, which several may write."""
        if self.info is None:
            return str(self.path)
        return None if stat.S_ISCHR(self.info.st_mode) else (self.info.st_dev, self.info.st_ino)


def find_target(given: str | os.PathLike[str], *, overwrite: bool) -> Target:
    """Determines what a name stands for and whether it can be written; changes nothing.

    Raises InvalidRequest (a folder; an existing file without `overwrite`; -, which others take for stdout),
    KosmosIOError (no such folder, no permission, a name that the system refuses).
    """
    name = os.fspath(given)
    if not name or "\0" in name:
        raise InvalidRequest(f"expected the name of a file to write, got {name!r}")
    _refuse_dash(name, "file")
    try:
        return _find(name, overwrite)
    except KosmosIOError:
        raise
    except OSError as error:
        raise _refused(error, name) from error


def _refuse_dash(name: str, kind: str) -> None:
    """InvalidRequest for -, which means stdout elsewhere: whoever writes it does not want a file of that name."""
    if name == "-":
        raise InvalidRequest(f"-: expected the name of a {kind} to write; this does not go to stdout (./- is a {kind})")


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
        raise InvalidRequest(f"{name} exists: use overwrite (--overwrite) to replace it, or choose another name")
    if not os.access(path, os.W_OK):
        raise KosmosIOError(errno.EACCES, "cannot write: it is not writable", name)
    if not stat.S_ISREG(info.st_mode):
        return Target(name, Path(path), info, True)
    _check_parent(name, path)
    return Target(name, Path(path), info, False)


def _follow(name: str) -> tuple[str, int | None]:
    """The path with links resolved, and the number if it is an open descriptor of this process."""
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
    """KosmosIOError unless files can be created in the folder; name: the file for the message."""
    shown = os.fspath(folder)
    if not os.path.isdir(folder):
        raise KosmosIOError(errno.ENOENT, f"cannot write: there is no folder {shown}", name or shown)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise KosmosIOError(errno.EACCES, f"cannot write: the folder {shown} is not writable", name or shown)


def check_place(folder: str, what: str) -> None:
    """Checks that a folder is writable or could be created. what: why it must be a folder. Changes nothing."""
    _refuse_dash(folder, "folder")
    above = os.path.abspath(folder)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above):
        raise InvalidRequest(f"{what}, and {above} is not one")
    check_folder(above, folder)


def make_folder(folder: str, what: str) -> None:
    """Creates a folder and its parents; see check_place."""
    check_place(folder, what)
    with writing(folder):
        os.makedirs(folder, exist_ok=True)


def standard_output() -> Target | None:
    """stdout as a Target, to compare with others; None if it is closed."""
    with contextlib.suppress(OSError):
        return Target("stdout", Path(os.devnull), os.fstat(1), True, 1)
    return None


def refuse_inputs(option: str, targets: Iterable[Target], files: Iterable[str]) -> None:
    """InvalidRequest if a target is one of the input files, under any name."""
    existing = {target.identity: target for target in targets if target.info is not None}
    existing.pop(None, None)
    for file in files if existing else ():
        try:
            info = os.stat(file)
        except (OSError, ValueError):
            continue
        target = existing.get((info.st_dev, info.st_ino))
        if target is not None:
            raise InvalidRequest(f"{option}: {target.name} is the same file as the input {file}: choose another name")


def _refused(error: OSError, name: str) -> KosmosIOError:
    return KosmosIOError(error.errno or errno.EIO, f"cannot write: {error.strerror or error}", name)


@contextlib.contextmanager
def writing(name: str) -> Iterator[None]:
    """Names the target in an error of the operating system."""
    try:
        yield
    except KosmosIOError:
        raise
    except OSError as error:
        raise _refused(error, name) from error


# ---- in place


def open_in_place(target: Target) -> int:
    """A descriptor for writing at the end of the existing content. May wait for the reader of a pipe."""
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
    """Writes all bytes, in as many calls as the system needs."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


# ---- beside the target


def part_name(name: str, suffix: str) -> str:
    """The name of the temporary file of a target; a hash if the name is too long."""
    if len(os.fsencode(name + suffix)) <= _NAME_BYTES:
        return name + suffix
    import hashlib

    return hashlib.sha256(os.fsencode(name)).hexdigest()[:32] + suffix


def part_path(target: Target, suffix: str) -> Path:
    """The path of the temporary file of a target."""
    return target.path.with_name(part_name(target.path.name, suffix))


def lock(descriptor: int, *, wait: bool = False) -> bool:
    """Locks the file unless another process has locked it. Windows needs no lock: it refuses to remove open files."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        return error.errno in _NO_LOCKS
    return True


def give_name(descriptor: int, path: Path, target: Target, *, overwrite: bool) -> None:
    """Renames the finished file `path`, which is on the disk, to the target; a replaced file's mode is kept.

    Without `overwrite` a file that was created there meanwhile is kept (InvalidRequest). On Windows the descriptor is
    closed.
    """
    if not overwrite and os.path.lexists(target.path):
        raise InvalidRequest(f"{target.name} exists: it was created meanwhile")
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
    """The temporary file of a target: open and locked.

    `size` is that of an earlier run's content. Leaving the context closes the file; its owner removes or renames it.
    """

    def __init__(self, target: Target, suffix: str, *, wait: bool) -> None:
        """wait: for another process that writes the same target; otherwise that is KosmosIOError."""
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
        """Whether the file still has its name and we hold its lock; False if another process has just renamed it."""
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
        """Truncates the file to `size` bytes."""
        os.ftruncate(self.descriptor, size)
        os.lseek(self.descriptor, size, os.SEEK_SET)

    def become_target(self, *, overwrite: bool) -> None:
        """See give_name."""
        with writing(self.target.name):
            os.fsync(self.descriptor)  # some disks report only now that they are full
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
    """Writes the bytes at once: a file appears complete or stays unchanged. Raises KosmosIOError, InvalidRequest."""
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
