"""isolation="process": the model in a worker process, which may crash or be killed while this one lives.

A Session whose work is done elsewhere: calls, options and pictures go to the worker, results and events come back. This
process neither opens the model file nor decodes a picture that it is given as a path, bytes or a file object. A
worker's end fails the calls that ran in it with WorkerDied; the next call starts another one. What must outlive a
worker is kept here: the vectors of encoded pictures.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import threading
import time
import weakref
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from types import SimpleNamespace, TracebackType
from typing import Any, Self, cast

from PIL import Image

from kosmos_edge._native import _core
from kosmos_edge.errors import Cancelled, InvalidRequest, KosmosError
from kosmos_edge.files import path_name, read_stream
from kosmos_edge.images import AS_USUAL, ImageInput, Opening, Picture
from kosmos_edge.inference import tasks
from kosmos_edge.inference.batch_worker import picture_threads
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.inference.prompts import PictureSegment
from kosmos_edge.inference.requests import GenerateRequest, Request, ScoreRequest
from kosmos_edge.inference.running import CANCEL_SECONDS, POLL_SECONDS, Flag, apart, is_cancelled, without_frames
from kosmos_edge.isolation.process import Encoded, LoadProgress, Settings, Worker, Workers
from kosmos_edge.options import Options
from kosmos_edge.results import Done, OnEvent, Ranking, Result

_keys = itertools.count(1)  # of encoded pictures and batches


class RemoteEngine(SimpleNamespace):
    """What a Session's engine says of itself: device, description, isa, threads, context_length, ..., metadata."""


class RemoteEmbedding:
    """Stands for the worker's ImageEmbedding; the vectors are here, so that another worker can have them."""

    def __init__(self, workers: Workers, vectors: bytes, shape: tuple[int, int], encode_ms: float, key: int) -> None:
        self.key, self.shape, self.encode_ms = key, shape, encode_ms
        self._workers, self._vectors = workers, vectors
        weakref.finalize(self, _drop, workers, key).atexit = False

    def tobytes(self) -> bytes:
        """Little-endian float32."""
        return self._vectors

    def _ask(self, name: str, nothing: Any) -> Any:
        worker = self._workers.running()
        if worker is None or self.key not in worker.known:
            return nothing
        return remote_call(self._workers, name, [self.key], _core.CancelToken())[0]

    @property
    def kept_positions(self) -> int:
        """As _core.ImageEmbedding's; 0 where the worker that kept them is gone."""
        return int(self._ask("kept", (0, 0))[0])

    @property
    def kept_bytes(self) -> int:
        """As _core.ImageEmbedding's; 0 where the worker that kept them is gone."""
        return int(self._ask("kept", (0, 0))[1])

    def forget(self) -> None:
        """As _core.ImageEmbedding's."""
        self._ask("forget", None)


def _drop(workers: Workers, key: int) -> None:
    """Notes that the worker may forget an encoded picture; sends nothing, for garbage is collected at any moment."""
    worker = workers.running()
    if worker is not None and key in worker.known:
        worker.known.discard(key)
        worker.dropped.append(key)


def remote_call(
    workers: Workers,
    name: str,
    arguments: list[Any],
    token: Flag,
    encoded: Encoded | None = None,
    on_event: OnEvent | None = None,
) -> tuple[Any, Worker]:
    """-> the call's result and the worker that gave it; its error is raised. A cancelled call is not waited for."""
    inbox: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    worker, number = workers.begin(name, arguments, inbox, token, encoded)
    try:
        while True:
            if token.cancelled:  # even if events arrive without a pause
                raise Cancelled("cancelled by the caller")
            try:
                kind, value = inbox.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if kind == "result":
                return value, worker
            if kind == "error":
                raise value
            if on_event is not None:
                on_event(value)
    except BaseException:
        worker.cancel(number)
        raise
    finally:
        value = (
            None  # an error that is raised holds this frame, which must not hold it: else both wait for the collector
        )


class Pictures:
    """The pictures of one call in the form in which they are sent; the same object twice is sent once."""

    def __init__(self, engine: Any, token: Flag, opening: Opening = AS_USUAL) -> None:
        """token: cancels calls that may block. opening: how to open an image here if it cannot be sent unopened."""
        self._engine, self._token, self._opening = engine, token, opening
        self._places: dict[int, int] = {}
        self._sources: list[Any] = []  # keeps the ids above alive
        self.packed: list[Any] = []
        self.encoded: Encoded = {}

    def add(self, source: Any) -> int:
        """The picture's number."""
        if id(source) not in self._places:
            self._places[id(source)] = len(self.packed)
            self._sources.append(source)
            self.packed.append(self.pack(source))
        return self._places[id(source)]

    def pack(self, source: Any) -> Any:
        """[kind, value, ...]"""
        if isinstance(source, EncodedImage):
            if source.engine is not self._engine:
                raise InvalidRequest("an encoded image can be used only with the model that encoded it")
            key = cast(RemoteEmbedding, source.embedding).key
            self.encoded[key] = [
                source.width,
                source.height,
                source.source,
                source.notes,
                source.encode_ms,
                source.tobytes(),
            ]
            return ["encoded", key]
        if isinstance(source, str | os.PathLike):
            return ["path", path_name(source), _folder()]
        if isinstance(source, bytes | bytearray):
            return ["bytes", source]
        if isinstance(source, Picture):
            return ["picture", source]
        if not isinstance(source, Image.Image) and hasattr(source, "read"):
            return ["stream", apart(partial(read_stream, source), self._token)]
        if not isinstance(source, Image.Image):
            try:
                view = memoryview(source)
            except TypeError:
                view = None
            if view is not None and view.ndim == 1 and view.contiguous and view.format in ("B", "b", "c"):
                return ["bytes", view]
        return ["picture", apart(partial(self._opening.open, source), self._token)]  # pixels already, or no picture

    def plan(self, plan: tasks.Plan) -> tasks.Plan:
        """The plan with numbers in place of its pictures; None stays."""
        segments = [
            PictureSegment(self.add(s.source)) if isinstance(s, PictureSegment) and s.source is not None else s
            for s in plan.segments
        ]
        return replace(plan, segments=segments)


def check_guide(options: Options) -> None:
    """InvalidRequest for a guide of this process."""
    if options.guide not in (None, "self"):
        raise InvalidRequest("guide: a model or a function of this process cannot guide one with isolation='process'")


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


class RemoteSession:
    """A Session in a worker process."""

    def __init__(self, settings: Settings, token: _core.CancelToken, progress: LoadProgress | None = None) -> None:
        """Starts the worker and loads the model; raises what loading raises, and WorkerDied. progress: of the load."""
        self._workers = Workers(settings)
        self._close = weakref.finalize(self, self._workers.close)
        try:
            facts = dict(self._workers.worker(token, progress).facts)
        except BaseException:
            self._close()
            raise
        vocabulary = facts.pop("vocabulary")
        del facts["library"]
        self.engine = cast(Any, RemoteEngine(**facts, tokenizer=SimpleNamespace(size=vocabulary)))

    @property
    def process_id(self) -> int | None:
        """The worker's process id; None if none runs."""
        worker = self._workers.running()
        return None if worker is None else worker.process_id

    def check_process(self) -> None:
        """Forked in a child of the process that loaded the model."""
        self._workers.check_process()

    def fit(self, options: Options) -> Options:
        """As Session.fit; the tokenizer is over there."""
        if not options.choices:
            return options
        sent = replace(options, cancel=None)
        fitted = remote_call(self._workers, "fit", [sent], _core.CancelToken())[0]
        assert isinstance(fitted, Options)
        return replace(fitted, cancel=options.cancel)

    def encode(self, image: ImageInput | EncodedImage, token: _core.CancelToken) -> EncodedImage:
        """As Session.encode; the vectors come back."""
        if isinstance(image, EncodedImage):
            Pictures(self.engine, token).pack(image)
            return image
        key = next(_keys)
        packed = Pictures(self.engine, token).pack(image)
        answer, worker = remote_call(self._workers, "encode", [key, packed], token)
        width, height, source, notes, encode_ms, shape, vectors = answer
        worker.known.add(key)
        embedding = RemoteEmbedding(self._workers, bytes(vectors), shape, encode_ms, key)
        return EncodedImage(width, height, source, notes, encode_ms, cast(Any, embedding), self.engine)

    def embed_texts(self, texts: tuple[str, ...], truncate: bool, token: _core.CancelToken) -> tuple[bytes, int]:
        """As Session.embed_texts."""
        data, cut = remote_call(self._workers, "embed_texts", [list(texts), truncate], token)[0]
        return bytes(data), cut

    def run(self, name: str, plan: tasks.Plan, options: Options, token: _core.CancelToken) -> Result:
        """As Session.run."""
        start = time.perf_counter()
        result = self._generate("run", name, plan, options, token)
        assert isinstance(result, Result)
        result.timings = replace(result.timings, total_ms=(time.perf_counter() - start) * 1000)
        return result

    def stream(self, name: str, plan: tasks.Plan, options: Options, token: _core.CancelToken, emit: OnEvent) -> None:
        """As Session.stream."""
        start = time.perf_counter()

        def pass_on(event: Any) -> None:
            if isinstance(event, Done):
                total_ms = (time.perf_counter() - start) * 1000
                event.result.timings = replace(event.result.timings, total_ms=total_ms)
            emit(event)

        self._generate("stream", name, plan, options, token, pass_on)

    def _generate(
        self,
        call: str,
        name: str,
        plan: tasks.Plan,
        options: Options,
        token: _core.CancelToken,
        on_event: OnEvent | None = None,
    ) -> Any:
        check_guide(options)
        pictures = Pictures(self.engine, token)
        sent, checked = pictures.plan(plan), replace(options, cancel=None)
        arguments = [name, sent, pictures.packed, checked]
        return remote_call(self._workers, call, arguments, token, pictures.encoded, on_event)[0]

    def score(self, name: str, image: Any, plan: tasks.ScorePlan, token: _core.CancelToken) -> Ranking:
        """As Session.score."""
        start = time.perf_counter()
        pictures = Pictures(self.engine, token)
        packed = None if image is None else pictures.pack(image)
        sent = replace(plan, behind=pictures.plan(plan.behind)) if plan.behind else plan
        arguments = [name, packed, sent, pictures.packed]
        ranking = remote_call(self._workers, "score", arguments, token, pictures.encoded)[0]
        assert isinstance(ranking, Ranking)
        ranking.timings = replace(ranking.timings, total_ms=(time.perf_counter() - start) * 1000)
        return ranking

    def batch_worker(self, request: Request, size: int, opening: Opening) -> Any:
        """As Session.batch_worker."""
        return RemoteBatch(self._workers, self.engine, request, size, opening)


@dataclass(slots=True, eq=False)
class RemoteJob:
    """One picture of a batch on its way; the inbox of its call."""

    source: Any
    done: threading.Event = field(default_factory=threading.Event)
    result: Result | Ranking | None = None  # or
    error: BaseException | None = None

    def put(self, answer: tuple[str, Any]) -> None:
        """The worker's answer, or how it ended."""
        kind, value = answer
        self.result, self.error = (value, None) if kind == "result" else (None, value)
        self.done.set()


class RemoteBatch:
    """A BatchWorker in the worker process. If the worker ends, the batch continues in the next one."""

    def __init__(self, workers: Workers, engine: Any, request: Request, size: int, opening: Opening) -> None:
        if isinstance(request, GenerateRequest):
            check_guide(request.options)
        self._workers, self._request, self._size = workers, request, size
        self._opening = opening
        self.ahead = 2 * (size if request.joins else 1) + picture_threads(engine.threads)
        self._engine = engine
        self._worker: Worker | None = None  # the one in which the batch is open
        self._key = 0

    @property
    def cancelled(self) -> bool:
        """Whether the caller has cancelled: the batch is its calls' token."""
        return is_cancelled(self._request.cancel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        worker = self._worker
        if worker is None or worker is not self._workers.running():
            return
        inbox = RemoteJob(None)
        with contextlib.suppress(KosmosError, KeyboardInterrupt):
            worker.call("close_batch", [self._key], inbox)
            inbox.done.wait(CANCEL_SECONDS)

    def submit(self, source: Any) -> RemoteJob:
        """Sends a picture; it is decoded over there."""
        job = RemoteJob(source)
        try:
            pictures = Pictures(self._engine, self, self._opening)
            packed = pictures.pack(source)
            self._open().call("submit", [self._key, packed], job, self, pictures.encoded)
        except KosmosError as error:
            job.put(("error", without_frames(error)))  # its frames hold the job
        return job

    def wait(self, job: RemoteJob) -> BaseException | None:
        """As BatchWorker.wait."""
        while True:
            if self.cancelled:
                return Cancelled("cancelled by the caller")
            self._workers.check_process()
            if job.done.wait(POLL_SECONDS):
                return job.error

    def _open(self) -> Worker:
        """A worker in which the batch is open."""
        worker = self._workers.worker(self)
        if worker is not self._worker:
            pictures = Pictures(self._engine, self)
            self._key = next(_keys)
            arguments = [self._key, self._packed_request(pictures), self._size, asdict(self._opening)]
            _, self._worker = remote_call(self._workers, "open_batch", arguments, self, pictures.encoded)
            worker = self._worker
        return worker

    def _packed_request(self, pictures: Pictures) -> list[Any]:
        r = self._request
        if isinstance(r, GenerateRequest):
            plan = pictures.plan(r.plan(None))
            return ["generate", r.name, plan, pictures.packed, replace(r.options, cancel=None)]
        assert isinstance(r, ScoreRequest)  # calls are sent one by one
        behind = None if r.plan.behind is None else pictures.plan(r.plan.behind)
        return ["score", r.name, replace(r.plan, behind=behind), pictures.packed]
