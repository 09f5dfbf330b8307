"""Runs a native call so that Ctrl-C, a cancel object or a closed iterator ends it soon.

The native code releases the GIL and polls a CancelToken between layers. Python delivers KeyboardInterrupt only to the
main thread and only between its bytecodes, so there the call runs in a helper thread while the main thread waits in
short steps.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeVar

from kosmos_edge._native import _core
from kosmos_edge.errors import Cancelled, Forked, KosmosError, OutOfMemory
from kosmos_edge.results import Done, Event, OnEvent

T = TypeVar("T")
POLL_SECONDS = 0.02
LEAVE_SECONDS = 0.15  # after Ctrl-C: how long to wait for the helper before continuing without it
CANCEL_SECONDS = 0.04  # the same after a cancel: the decoder of a big image cannot be interrupted


def check_process(process: int) -> None:
    """Raises Forked unless this process has that id: threads do not survive a fork, and locks may stay locked."""
    if os.getpid() != process:
        raise Forked("the model was loaded by the parent process: load it again in this one")


def is_cancelled(cancel: Any) -> bool:
    """Whether the caller's cancel object (a CancelToken, or anything with is_set()) is set."""
    if cancel is None:
        return False
    if hasattr(cancel, "cancelled"):
        return bool(cancel.cancelled)
    return bool(cancel.is_set())


def without_frames(error: BaseException) -> BaseException:
    """Strips tracebacks from a KosmosError and its causes; returns the error.

    Its message is enough; its frames would keep images and the model in memory for as long as the error is kept.
    """
    parts: list[BaseException] = [error] if isinstance(error, KosmosError) else []
    for part in parts:  # grows
        part.__traceback__ = None
        parts += [p for p in (part.__cause__, part.__context__) if p is not None and not any(p is q for q in parts)]
    return error


class Flag(Protocol):
    """A flag that ends a call: a CancelToken, or a batch."""

    @property
    def cancelled(self) -> bool:
        """Whether the call must end."""


def start_thread(work: Callable[[], None], name: str, *, daemon: bool = False) -> threading.Thread:
    """A started thread, or OutOfMemory."""
    thread = threading.Thread(target=work, name=name, daemon=daemon)
    try:
        thread.start()
    except RuntimeError as error:
        raise OutOfMemory(f"no thread could be started: {error}") from error
    return thread


def apart(call: Callable[[], T], flag: Flag) -> T:
    """call() on a daemon thread, which does not keep the interpreter from exiting; its result or error.

    For calls that may block and cannot be interrupted: open(), read(), a decoder. Raises Cancelled soon after the flag
    is set.
    """
    if flag.cancelled:
        raise Cancelled("cancelled by the caller")
    results: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()
    calls = [call]
    del call  # as below

    def work() -> None:
        try:
            results.append(calls.pop()())
        except BaseException as error:  # handed over to the waiting thread
            errors.append(without_frames(error))
        finally:
            done.set()

    start_thread(work, "kosmos-edge file", daemon=True)
    while not done.wait(POLL_SECONDS):
        if flag.cancelled and not done.wait(CANCEL_SECONDS):
            raise Cancelled("cancelled by the caller")
    if errors:
        raise errors.pop()
    return results.pop()


def run(call: Callable[[_core.CancelToken], T], cancel: Any = None) -> T:
    """call(token) here or in a helper thread; its result or exception.

    Raises Cancelled within about 0.06 s of `cancel` being set, KeyboardInterrupt within about 0.2 s of Ctrl-C; a helper
    that is still running then ends by itself.
    """
    token, calls = _core.CancelToken(), [call]
    del call  # an error that a caller keeps holds this frame, which must not hold the model
    if is_cancelled(cancel):
        calls.clear()
        raise Cancelled("cancelled before it began")
    results: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            results.append(calls.pop()(token))
        except BaseException as error:  # handed over to the waiting thread
            errors.append(without_frames(error))
        finally:
            done.set()

    try:
        if cancel is None and threading.current_thread() is not threading.main_thread():
            return calls.pop()(token)
        start_thread(work, "kosmos-edge call")
        _wait(done, token, cancel)
        if errors:
            raise errors.pop()
        return results[0]
    except KosmosError as error:
        without_frames(error)
        raise


def _wait(done: threading.Event, token: _core.CancelToken, cancel: Any) -> None:
    """Waits until the helper is done, or was cancelled and the wait for it is over."""
    try:
        while not done.wait(POLL_SECONDS):
            if is_cancelled(cancel):
                token.cancel()
                if not done.wait(CANCEL_SECONDS):
                    raise Cancelled("cancelled by the caller")
    except Cancelled:
        raise
    except BaseException:
        token.cancel()
        done.wait(LEAVE_SECONDS)
        raise


def stream(call: Callable[[_core.CancelToken, OnEvent], None], cancel: Any = None) -> Generator[Event, None, None]:
    """The events that call(token, emit) emits, from a helper thread; its exception, if any, comes after them.

    Closing the generator (or dropping it) cancels the call and waits for its end.
    """
    process, token, calls = os.getpid(), _core.CancelToken(), [call]
    del call  # as above
    if is_cancelled(cancel):
        calls.clear()
        raise Cancelled("cancelled before it began")
    events: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            calls.pop()(token, events.put)
            events.put(None)
        except BaseException as error:  # passed to the iterating thread
            events.put(without_frames(error))

    worker = start_thread(work, "kosmos-edge stream")
    item: Event | BaseException | None = None
    interrupted = False
    try:
        while True:
            check_process(process)
            if is_cancelled(cancel):
                token.cancel()
            item = None
            try:
                item = events.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        token.cancel()
        try:
            if worker is not threading.current_thread():
                worker.join()
        except KeyboardInterrupt:
            if not interrupted:  # the first one: nobody has heard of it
                raise
        finally:
            del item  # breaks the reference cycle between the error and this frame


def with_image(events: Generator[Event, None, None], image: Any) -> Generator[Event, None, None]:
    """The events; the last one's result knows its image."""
    with contextlib.closing(events):
        for event in events:
            if isinstance(event, Done):
                event.result.image = image
            yield event
