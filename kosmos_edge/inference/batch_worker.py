"""The threads of a batch: one or more decode and resize images, one computes.

The computing thread encodes an image when a place is free, and between images lets the native batch decode
one token for every open answer. It ends when nothing is left to do and is restarted by the next image,
so an abandoned iterator keeps no thread waiting.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from kosmos_edge._native import _core
from kosmos_edge.errors import Cancelled
from kosmos_edge.images import Opening, Picture
from kosmos_edge.inference.answering import Answering
from kosmos_edge.inference.encoded import EncodedImage, Prepared
from kosmos_edge.inference.requests import Request
from kosmos_edge.inference.running import (
    CANCEL_SECONDS,
    POLL_SECONDS,
    apart,
    check_process,
    is_cancelled,
    start_thread,
    without_frames,
)
from kosmos_edge.inference.session import EngineSession
from kosmos_edge.results import Ranking, Result

MAX_PICTURE_THREADS = 4


def picture_threads(threads: int) -> int:
    """How many threads decode images for this number of computing threads."""
    return max(1, min(MAX_PICTURE_THREADS, threads // 4))


@dataclass(slots=True, eq=False)
class Job:
    """One image of the batch."""

    source: Any  # as the caller gave it
    picture: Future[Any]  # what Session.prepare makes of it
    done: threading.Event = field(default_factory=threading.Event)
    result: Result | Ranking | None = None  # or
    error: BaseException | None = None

    def end(self, result: Result | Ranking | None, error: BaseException | None = None) -> None:
        """Called when the worker has finished the image."""
        self.result, self.error = result, None if error is None else without_frames(error)
        self.done.set()


@runtime_checkable
class Openable(Protocol):
    """An entry of a batch that holds its images inside."""

    def opened(self, open: Callable[[Any], Any]) -> Any:
        """The entry with its images opened."""
        ...


class BatchWorker:
    """A context manager; leaving it cancels unfinished answers."""

    def __init__(self, session: EngineSession, request: Request, size: int, opening: Opening) -> None:
        self._session, self._request, self._opening = session, request, opening
        self._size = size if request.joins else 1
        threads = picture_threads(self._session.engine.threads)
        self.ahead = 2 * self._size + threads  # pictures in the making at a time; bounds memory
        self._pictures = ThreadPoolExecutor(threads, "kosmos-edge picture")
        self._process = os.getpid()
        self._token = _core.CancelToken()
        self._lock = threading.Lock()  # of the two below
        self._waiting: deque[Job] = deque()
        self._thread: threading.Thread | None = None  # None: nothing to do
        self._batch = _core.Batch(self._session.engine, self._size)
        self._open: dict[int, tuple[Job, Answering]] = {}  # by the native batch's key

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._process:  # forked: neither the threads nor what they hold are here
            return
        self._token.cancel()
        thread = self._thread
        try:
            at_once = kind is not None and issubclass(kind, KeyboardInterrupt | Cancelled)
            self._pictures.shutdown(wait=not at_once, cancel_futures=True)
            if thread is not None and thread is not threading.current_thread():
                thread.join(CANCEL_SECONDS if at_once else None)
        except KeyboardInterrupt:
            if kind is None or not issubclass(kind, KeyboardInterrupt):  # the first one: nobody has heard of it
                raise

    # ---- the caller's thread

    def submit(self, source: Any) -> Job:
        """Adds an image; it is decoded as soon as a thread is free."""
        check_process(self._process)
        job = Job(source, self._pictures.submit(self._prepare, source))
        with self._lock:
            self._waiting.append(job)
            if self._thread is None:
                self._thread = start_thread(self._work, "kosmos-edge batch")
        return job

    def wait(self, job: Job) -> BaseException | None:
        """Waits until the job has its result, or its error, which is returned; forwards a cancellation."""
        while True:
            if is_cancelled(self._request.cancel):
                self._token.cancel()
                return Cancelled("cancelled by the caller")
            check_process(self._process)
            if job.done.wait(POLL_SECONDS):
                return job.error

    # ---- a picture's thread

    def _prepare(self, source: Any) -> Any:
        if isinstance(source, EncodedImage):
            return source
        return source.opened(self._open_picture) if isinstance(source, Openable) else self._open_picture(source)

    def _open_picture(self, source: Any) -> Prepared | Picture:
        picture = apart(partial(self._opening.open, source), self._token)
        return picture if self._request.guided else self._session.prepare(picture)

    # ---- the computing thread

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting and not self._open:
                    self._thread = None
                    return
            if not threading.main_thread().is_alive():  # the interpreter is exiting: no one takes results
                self._token.cancel()
            try:
                self._refill()
                if self._open:
                    self._step()
            except BaseException as error:  # ends all open answers; later ones are still computed
                self._fail(error)

    def _refill(self) -> None:
        """Begins the next answer if a place is free; waits for its image only if there is nothing else to do."""
        if len(self._open) == self._size or not self._waiting:
            return
        job = self._waiting[0]
        while not job.picture.done():
            if self._open:
                return
            if self._token.cancelled:
                break
            with contextlib.suppress(TimeoutError):
                job.picture.exception(POLL_SECONDS)
        self._waiting.popleft()
        try:
            if self._token.cancelled:
                raise Cancelled("cancelled by the caller")
            begun = self._request.begin(self._session, job.picture.result(), self._token)
            if not isinstance(begun, Answering):
                job.end(begun)
            elif self._size == 1 or not begun.joins:
                job.end(begun.run(self._token))
            else:
                key = self._batch.add(begun.native, self._token)
                self._open[key] = job, begun
        except BaseException as error:
            job.end(None, error)

    def _step(self) -> None:
        for finished in self._batch.step(self._token):
            job, answering = self._open.pop(finished.key)
            try:
                job.end(answering.result(finished.result()))
            except BaseException as error:
                job.end(None, error)

    def _fail(self, error: BaseException) -> None:
        self._batch.clear()
        for job, _ in self._open.values():
            job.end(None, error)
        self._open.clear()
