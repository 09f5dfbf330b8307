"""Standard streams that are closed, full or broken, and signals.

If stdout cannot be written, the command prints one line and fails; a failed write to stderr is ignored. SIGTERM and
SIGHUP end a command as Ctrl-C does, with the same cleanup.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from kosmos_edge.errors import KosmosIOError
from kosmos_edge.targets import is_writable

T = TypeVar("T")
ENDING_SIGNALS = ("SIGTERM", "SIGHUP")
REPEAT_SECONDS = 1.0  # `timeout` and others send a signal twice: the second one must not interrupt the cleanup


class Ended(KeyboardInterrupt):
    """A signal that ends the command; code that handles Ctrl-C handles it, too."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP raise Ended in the main thread. An ignored signal (nohup) stays ignored.

    On exit both are ignored if one was raised: the cleanup is done, and the process ends.
    """
    last = [-REPEAT_SECONDS]
    taken = []

    def end(number: int, _: Any) -> None:
        now = time.monotonic()
        if now - last[0] >= REPEAT_SECONDS:
            last[0] = now
            raise Ended(number)

    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in ENDING_SIGNALS if hasattr(signal, name)]
        taken = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in taken:
            signal.signal(number, end)
        yield
    finally:
        heard = last[0] >= 0  # the process will exit with that signal's status: a second one must not change it
        for number in taken:
            signal.signal(number, signal.SIG_IGN if heard else signal.SIG_DFL)


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Inside, stdin, stdout and stderr are usable even if closed; an OSError names stdout or stdin."""
    _occupy_descriptors()
    before = sys.stdin, sys.stdout, sys.stderr
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        # Always write UTF-8; file names that are not UTF-8 keep their bytes.
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors=errors)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_Closed()))
    sys.stdout, sys.stderr = _Stream(sys.stdout, "stdout"), _Stream(sys.stderr, None)
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
        for stream in (sys.stdout, sys.stderr):
            _let_go(stream)


def keep_bytecode_whole() -> None:
    """Under a file-size limit (ulimit -f), writes no .pyc files and removes those that the limit has truncated.

    Python before 3.12.8 and 3.13.1 does not notice that a .pyc file was truncated, and later starts fail to read it.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit == resource.RLIM_INFINITY:
        return
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # for worker processes
    for module in list(sys.modules.values()):
        with contextlib.suppress(OSError, TypeError):
            cached = getattr(module, "__cached__", None)
            if cached is not None and os.path.getsize(cached) == limit:
                os.unlink(cached)


def plain_error(error: BaseException) -> str:
    """The error in one line: for an OSError file and reason, without the error number."""
    if isinstance(error, OSError) and error.strerror:
        shown = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        text = f"{' -> '.join(shown)}: {error.strerror}" if shown else error.strerror
    else:
        text = str(error) or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)
    return " ".join(text.split("\n"))


def check_stdout() -> None:
    """KosmosIOError if stdout is closed or open for reading only."""
    stream = sys.stdout.stream if isinstance(sys.stdout, _Stream) else sys.stdout
    closed = stream is None
    with contextlib.suppress(OSError, AttributeError):  # a stream without a descriptor: a test's, or a notebook's
        closed = closed or not is_writable(stream.fileno())
    if closed:
        raise KosmosIOError(errno.EBADF, "it is closed, and the results would go there", "stdout")


def stdout_is_closed() -> bool:
    """Whether the command was started without a stdout."""
    try:
        check_stdout()
    except KosmosIOError:
        return True
    return False


def _occupy_descriptors() -> None:
    """Opens /dev/null for those of 0, 1 and 2 that are closed; 0 for writing and 1 for reading, so that use fails.

    Otherwise the next opened file, perhaps the model, would get the number, and a message would be written into it.
    """
    if os.name != "posix":
        return
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                opened = os.open(os.devnull, flags)
                if opened != number:
                    os.dup2(opened, number)
                    os.close(opened)
                os.set_inheritable(number, True)


def _let_go(stream: Any) -> None:
    """Drops the buffer of a broken stream, which would make Python exit with status 120."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(null, stream.fileno())
            finally:
                os.close(null)
            stream.flush()


class _Closed(io.RawIOBase):
    """A closed stdin."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        raise KosmosIOError(errno.EBADF, "it is closed", "stdin")


class _Stream(io.TextIOBase):
    """stdout or stderr. name: used in errors; None: failed writes are ignored."""

    def __init__(self, stream: Any, name: str | None) -> None:
        self.stream = stream
        self._name = name

    def _try(self, call: Callable[[], T], otherwise: T) -> T:
        try:
            if self.stream is None:
                raise OSError(errno.EBADF, "it is closed")
            return call()
        except OSError as error:
            if self._name is None:
                return otherwise
            raise KosmosIOError(error.errno or errno.EIO, error.strerror or str(error), self._name) from error

    def write(self, text: str) -> int:
        return self._try(lambda: self.stream.write(text), 0)

    def flush(self) -> None:
        if self.stream is not None:
            self._try(self.stream.flush, None)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self.stream is not None and bool(self.stream.isatty())

    def fileno(self) -> int:
        if self.stream is None:
            raise io.UnsupportedOperation("fileno")
        return int(self.stream.fileno())

    @property
    def buffer(self) -> Any:
        """For bytes, which click writes when a shell asks for completions."""
        return self.stream.buffer

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self.stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return getattr(self.stream, "errors", None)
