"""The thread that computes: takes jobs from a queue into one continuous batch, and hands events back.

Answers join and leave the batch as they come; a row's bits do not depend on the rows beside it, so each answer is the
one that a client would get alone. Beams, rankings and models in a worker process are computed one by one.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from kosmos_edge._native import _core
from kosmos_edge.errors import Cancelled
from kosmos_edge.images import Picture
from kosmos_edge.inference.answering import Answering
from kosmos_edge.inference.encoded import EncodedImage, Prepared
from kosmos_edge.inference.prompts import PictureSegment
from kosmos_edge.inference.protocol import Session
from kosmos_edge.inference.running import without_frames
from kosmos_edge.inference.session import EngineSession
from kosmos_edge.inference.tasks import Plan, ScorePlan
from kosmos_edge.options import Options
from kosmos_edge.results import Done, Event, Ranking, Result, Timings

Outcome: TypeAlias = "Event | Ranking | BaseException"
ENCODED_BYTES = 64 << 20  # of image vectors kept for further questions about the same images


@dataclass(eq=False, slots=True)
class Shown:
    """An image of a request; its place in a plan. `picture` is set before the job is submitted."""

    data: bytes
    key: bytes = b""  # equal for equal images
    picture: Picture | Prepared | None = None
    decode_ms: float = 0.0


@dataclass(eq=False)
class Job:
    """One request. `emit` is called in the computing thread: events if `stream`, then Done, a Ranking or an error."""

    session: Session
    name: str
    plan: Plan | ScorePlan
    options: Options | None  # None: of a ranking
    emit: Callable[[Outcome], None]
    stream: bool = False
    image: Shown | None = None  # of a ranking
    token: _core.CancelToken = field(default_factory=_core.CancelToken)
    begun: float = field(default_factory=time.perf_counter)
    decode_ms: float = 0.0
    encode_ms: float = 0.0


class Scheduler:
    """Jobs in, events out. submit, cancel and stop may be called from any thread."""

    def __init__(self, batch_size: int) -> None:
        self._size = batch_size
        self._condition = threading.Condition()  # of the four below
        self._waiting: deque[Job] = deque()
        self._stopping = False
        self._forget = False
        self._running = 0  # jobs that the thread has taken
        self._open: dict[int, tuple[Job, Answering]] = {}  # by the native batch's key; of the thread alone, as below
        self._batch: _core.Batch | None = None
        self._session: Session | None = None  # of the batch and the encoded images
        self._encoded: OrderedDict[bytes, tuple[EncodedImage, int]] = OrderedDict()
        self._thread = threading.Thread(target=self._work, name="kosmos-edge server", daemon=True)
        self._thread.start()

    # ---- from any thread

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Jobs that are being computed."""
        return self._running

    def submit(self, job: Job) -> None:
        """Adds a job; Cancelled once the scheduler stops."""
        with self._condition:
            if self._stopping:
                raise Cancelled("the server is stopping")
            self._waiting.append(job)
            self._condition.notify()

    def cancel(self, job: Job) -> None:
        """Ends a job soon, without waiting: at once in the queue, else between two passes of the model."""
        job.token.cancel()
        with self._condition:
            if job not in self._waiting:
                return
            self._waiting.remove(job)
        self._end(job, Cancelled("cancelled by the caller"))

    def forget(self) -> None:
        """Lets go of a model that is not used any more."""
        with self._condition:
            self._forget = True
            self._condition.notify()

    def stop(self, seconds: float) -> None:
        """Ends every job, and the thread; waits for it up to that long."""
        with self._condition:
            self._stopping = True
            left = list(self._waiting)
            self._waiting.clear()
            self._condition.notify()
        for job in left:
            self._end(job, Cancelled("the server is stopping"))
        self._thread.join(seconds)

    # ---- the computing thread

    def _work(self) -> None:
        while True:
            with self._condition:
                while not (self._waiting or self._open or self._stopping or self._forget):
                    self._condition.wait()
                if self._stopping and not self._open:
                    return
            if self._stopping:
                for job, _ in self._open.values():
                    job.token.cancel()
            try:
                self._refill()
                if self._open:
                    self._step()
            except BaseException as error:  # of a pass: ends all open answers; later ones are still computed
                self._fail(error)

    def _refill(self) -> None:
        """Begins the next job if a place is free: one, so that open answers go on between two images."""
        if self._forget and not self._open:
            self._forget = False
            self._drop()
        with self._condition:
            if not self._waiting or len(self._open) == self._size:
                return
            job = self._waiting[0]
            if self._open and job.session is not self._session:
                return  # another model: when the answers of this one have ended
            self._waiting.popleft()
            self._running += 1
        if job.session is not self._session:
            self._drop()
            self._session = job.session
        try:
            self._begin(job)
        except BaseException as error:
            self._end(job, error, running=True)

    def _begin(self, job: Job) -> None:
        if job.token.cancelled:
            raise Cancelled("cancelled by the caller")
        if isinstance(job.plan, ScorePlan):
            image = None if job.image is None else self._encode(job, job.image)
            if job.plan.behind is not None:
                self._place(job, job.plan.behind)
            ranking = job.session.score(job.name, image, job.plan, job.token)
            ranking.timings = _with_times(ranking.timings, job)
            self._end(job, ranking, running=True)
            return
        assert job.options is not None
        emit = job.emit if job.stream else None
        self._place(job, job.plan)
        if isinstance(job.session, EngineSession) and job.options.num_beams == 1 and not job.options.contrasts:
            answering = job.session.begin(job.name, job.plan, job.options, job.token, emit)
            if self._batch is None:
                self._batch = _core.Batch(job.session.engine, self._size)
            self._open[self._batch.add(answering.native, job.token)] = job, answering
        elif emit is None:
            self._finish(job, job.session.run(job.name, job.plan, job.options, job.token))
        else:
            last: list[Result] = []

            def pass_on(event: Event) -> None:
                if isinstance(event, Done):
                    last.append(event.result)
                else:
                    emit(event)

            job.session.stream(job.name, job.plan, job.options, job.token, pass_on)
            self._finish(job, last[0])

    def _place(self, job: Job, plan: Plan) -> None:
        """Puts encoded images at their places in the plan."""
        plan.segments = [
            PictureSegment(self._encode(job, segment.source)) if isinstance(segment, PictureSegment) else segment
            for segment in plan.segments
        ]

    def _encode(self, job: Job, shown: Shown) -> EncodedImage:
        """The encoded image: an earlier request's where it is the same one, so that its prompt is reused, too."""
        if shown.key in self._encoded:
            self._encoded.move_to_end(shown.key)
            return self._encoded[shown.key][0]
        assert shown.picture is not None
        encoded = job.session.encode(shown.picture, job.token)  # type: ignore[arg-type]  # Prepared, too
        job.decode_ms += shown.decode_ms
        job.encode_ms += encoded.encode_ms
        rows, width = encoded.shape
        self._encoded[shown.key] = encoded, rows * width * 4
        while len(self._encoded) > 1 and sum(size for _, size in self._encoded.values()) > ENCODED_BYTES:
            self._encoded.popitem(last=False)
        return encoded

    def _step(self) -> None:
        assert self._batch is not None
        only = next(iter(self._open.values()))[0].token if len(self._open) == 1 else None  # ends its pass, too
        for finished in self._batch.step(only):
            job, answering = self._open.pop(finished.key)
            try:
                self._finish(job, answering.result(finished.result()))
            except BaseException as error:
                self._end(job, error, running=True)

    def _finish(self, job: Job, result: Result) -> None:
        result.timings = _with_times(result.timings, job)
        self._end(job, Done(result), running=True)

    def _fail(self, error: BaseException) -> None:
        if self._batch is not None:
            self._batch.clear()
        jobs = [job for job, _ in self._open.values()]
        self._open.clear()
        for job in jobs:
            self._end(job, error, running=True)

    def _drop(self) -> None:
        self._batch, self._session = None, None
        self._encoded.clear()

    def _end(self, job: Job, outcome: Outcome, *, running: bool = False) -> None:
        if running:
            with self._condition:
                self._running -= 1
        job.emit(without_frames(outcome) if isinstance(outcome, BaseException) else outcome)


def _with_times(timings: Timings, job: Job) -> Timings:
    """The timings of an answer whose images were decoded and encoded before."""
    total = (time.perf_counter() - job.begun) * 1000
    return replace(timings, decode_image_ms=job.decode_ms, encode_ms=job.encode_ms, total_ms=total)
