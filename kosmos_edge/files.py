"""Paths and file objects of pictures -> what can be decoded: which are refused, and how they are read.

* A file object that can seek is read from its start to its end, and its position is put back: any number of threads
  may use the same one, and it may be used again. One that cannot (a pipe, a socket) is read from where it is to its
  end, by whoever comes first; it can be used once.
* A path may name a pipe or a device, which is read to its end as it comes; a folder and a socket are refused.
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

MAX_STREAM_BYTES = 1 << 30  # of a pipe or a file object: these have no size to look at beforehand
# pathlib takes one of two slashes away
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]+://|(?:https?|ftp|file|s3|gs):/|data:[a-z0-9.+-]*/?[a-z0-9.+-]*[;,])", re.I)
GIVEN_FILE = "the given file object"


def url_problem(name: str) -> InvalidRequest | None:
    """Why a name that is a URL, and no file of this name, is no picture."""
    if not _URL.match(name) or os.path.lexists(name):
        return None
    shown = name if len(name) <= 100 else f"{name[:100]}..."
    kind = name.partition(":")[0].lower()
    way = {"file": "give the path itself", "data": "decode it and give the bytes"}
    return InvalidRequest(f"{shown}: URLs are not fetched; {way.get(kind, 'download the picture and give its path')}")


def irregular(mode: int) -> str | None:
    """What a file of this st_mode is, where it is none that holds a picture as files do; None where it is one."""
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return "is a directory, expected a picture file"
    if stat.S_ISFIFO(mode):
        return "is a pipe, expected a picture file"
    if stat.S_ISSOCK(mode):
        return "is a socket, expected a picture file"
    return "is a device, expected a picture file"


def system_error(error: OSError, name: str) -> KosmosIOError:
    """The operating system's refusal; says where a link leads that leads nowhere."""
    text = error.strerror or str(error)
    if error.errno == errno.ENOENT:
        with contextlib.suppress(OSError, ValueError):
            text += f" (a link to {os.readlink(name)})"
    return KosmosIOError(error.errno or errno.EIO, text, name)


def path_name(path: str | os.PathLike[str]) -> str:
    """The path as a string that may be opened, or InvalidRequest (a URL), ImageDecodeError."""
    name = os.fsdecode(os.fspath(path))
    if "\0" in name:
        raise ImageDecodeError(f"{name!r}: a path cannot contain a NUL character")
    if problem := url_problem(name):
        raise problem
    return name


def open_file(name: str, *, pipes: bool) -> BinaryIO:
    """The file, or the bytes of a pipe or a device, where these are allowed."""
    try:
        mode = os.stat(name).st_mode
        what = irregular(mode)
        if what is None:
            return open(name, "rb")
        if stat.S_ISDIR(mode) or stat.S_ISSOCK(mode):
            raise ImageDecodeError(f"{name}: {what}")
        if not pipes:
            raise ImageDecodeError(f"{name}: {what}; to read it as a stream, give it opened")
        with open(name, "rb") as file:  # Pillow needs to seek
            return BytesIO(_read_all(file, name))
    except OSError as error:
        if isinstance(error, KosmosIOError):
            raise
        raise system_error(error, name) from error


def read_stream(file: Any, name: str = GIVEN_FILE) -> bytes:
    """All of a file object that can seek; of another one what is left. Threads may share it."""
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
        raise ImageDecodeError(f"{name}: at its end; it cannot seek, so it can be used only once")
    return data


def _rewind(file: Any) -> int | None:
    """Goes to the start; -> the position before, None where the object cannot seek."""
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
        part = file.read(MAX_STREAM_BYTES + 1 - len(data))  # a pipe gives less than asked for
        if not isinstance(part, bytes | bytearray):
            raise InvalidRequest(f"{name}: expected a binary file object, its read() gave {type(part).__name__}")
        if not part:
            return bytes(data)
        data += part
    raise ImageDecodeError(f"{name}: more than {MAX_STREAM_BYTES} bytes, which is the limit for a stream")


def read_stdin(stdin: Any) -> bytes:
    """What is left of standard input, also where it is a file that was read in part before."""
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
