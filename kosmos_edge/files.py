"""Reads image files: which paths and file objects are refused, and how the others are read.

* A file object that can seek is read from start to end, and its position is restored: any number of threads may use it,
  and it may be used again. One that cannot (a pipe, a socket) is read from its position to its end by the first caller;
  it can be used once.
* A path may name a pipe or a device, which is read to its end; a folder and a socket are refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from io import BytesIO, UnsupportedOperation
from typing import Any, BinaryIO

from kosmos_edge.errors import ImageDecodeError, InvalidRequest, KosmosIOError
from kosmos_edge.sharing import exclusive, file_keys

MAX_STREAM_BYTES = 1 << 30  # of a pipe or a file object, whose size is unknown beforehand
# pathlib removes one of two slashes
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]+://|(?:https?|ftp|file|s3|gs):/|data:[a-z0-9.+-]*/?[a-z0-9.+-]*[;,])", re.I)
GIVEN_FILE = "the given file object"


def url_problem(name: str) -> InvalidRequest | None:
    """The error for a name that is a URL, unless a file has this name."""
    if not _URL.match(name) or os.path.lexists(name):
        return None
    shown = name if len(name) <= 100 else f"{name[:100]}..."
    kind = name.partition(":")[0].lower()
    way = {"file": "pass the path itself", "data": "decode it and pass the bytes"}
    return InvalidRequest(f"{shown}: URLs are not fetched; {way.get(kind, 'download the image and pass its path')}")


def irregular(mode: int) -> str | None:
    """What a file of this st_mode is if it is not a regular file; None for a regular one."""
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return "is a directory, expected an image file"
    if stat.S_ISFIFO(mode):
        return "is a pipe, expected an image file"
    if stat.S_ISSOCK(mode):
        return "is a socket, expected an image file"
    return "is a device, expected an image file"


def system_error(error: OSError, name: str) -> KosmosIOError:
    """The operating system's error; for a dead link it names the target."""
    text = error.strerror or str(error)
    if error.errno == errno.ENOENT:
        with contextlib.suppress(OSError, ValueError):
            text += f" (a link to {os.readlink(name)})"
    return KosmosIOError(error.errno or errno.EIO, text, name)


def path_name(path: str | os.PathLike[str]) -> str:
    """The path as a string; InvalidRequest for a URL, ImageDecodeError for a NUL character."""
    name = os.fsdecode(os.fspath(path))
    if "\0" in name:
        raise ImageDecodeError(f"{name!r}: a path cannot contain a NUL character")
    if problem := url_problem(name):
        raise problem
    return name


def open_file(name: str, *, pipes: bool) -> BinaryIO:
    """The opened file; of a pipe or a device, if allowed, its bytes."""
    try:
        mode = os.stat(name).st_mode
        what = irregular(mode)
        if what is None:
            return open(name, "rb")
        if stat.S_ISDIR(mode) or stat.S_ISSOCK(mode):
            raise ImageDecodeError(f"{name}: {what}")
        if not pipes:
            raise ImageDecodeError(f"{name}: {what}; to read it as a stream, pass the opened file")
        with open(name, "rb") as file:  # Pillow needs to seek
            return BytesIO(_read_all(file, name))
    except OSError as error:
        if isinstance(error, KosmosIOError):
            raise
        raise system_error(error, name) from error


def read_stream(file: Any, name: str = GIVEN_FILE) -> bytes:
    """All bytes of a file object that can seek; of another one the remaining bytes. Threads may share it."""
    with exclusive(file_keys([file])):
        try:
            start = _rewind(file)
            try:
                data = _read_all(file, name)
            finally:
                if start is not None:
                    file.seek(start)
        except ValueError as error:  # closed, opened as text or for writing
            if isinstance(error, InvalidRequest):
                raise
            raise InvalidRequest(f"{name}: expected an open binary file object: {error}") from error
        except OSError as error:
            raise KosmosIOError(error.errno or errno.EIO, error.strerror or str(error), name) from error
    if not data and start is None:
        raise ImageDecodeError(f"{name}: already at its end; it cannot seek, so it can be used only once")
    return data


def _rewind(file: Any) -> int | None:
    """Seeks to the start; returns the position before, or None if the object cannot seek."""
    if hasattr(file, "seekable"):
        if not file.seekable():
            return None
        start = file.tell()
        file.seek(0)
    else:
        try:
            start = file.tell()
            file.seek(0)
        except (AttributeError, UnsupportedOperation, OSError):
            return None
    return int(start)


def _read_all(file: BinaryIO, name: str) -> bytes:
    data = bytearray()
    while len(data) <= MAX_STREAM_BYTES:
        part = file.read(MAX_STREAM_BYTES + 1 - len(data))  # a pipe returns less than requested
        if not isinstance(part, bytes | bytearray):
            raise InvalidRequest(f"{name}: expected a binary file object, its read() gave {type(part).__name__}")
        if not part:
            return bytes(data)
        data += part
    raise ImageDecodeError(f"{name}: more than {MAX_STREAM_BYTES} bytes, which is the limit for a stream")


def read_stdin(stdin: Any) -> bytes:
    """The remaining bytes of standard input, even if it is a file that was partly read before."""
    if stdin is None:
        raise KosmosIOError(errno.EBADF, "standard input is closed", "-")
    try:
        return _read_all(stdin.buffer, "-")
    except ValueError as error:  # closed by this program
        if isinstance(error, InvalidRequest):
            raise
        raise KosmosIOError(errno.EBADF, str(error), "-") from error
    except KosmosIOError:
        raise
    except OSError as error:
        raise KosmosIOError(error.errno or errno.EIO, error.strerror or str(error), "-") from error
