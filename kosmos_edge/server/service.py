"""One request's way: body, place in the queue, model, images, plan, events; and what all requests share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from kosmos_edge._native import _core
from kosmos_edge.inference.tasks import Plan, ScorePlan
from kosmos_edge.model import Model
from kosmos_edge.results import Done, Event, Ranking, Result
from kosmos_edge.server.errors import ApiError, Disconnected, api_error, refuse
from kosmos_edge.server.fields import parse_json
from kosmos_edge.server.keeper import Keeper
from kosmos_edge.server.metrics import Metrics
from kosmos_edge.server.pictures import Source
from kosmos_edge.server.responses import Render, openai_error
from kosmos_edge.server.scheduler import Job, Outcome, Scheduler, Shown
from kosmos_edge.server.settings import Settings

logger = logging.getLogger("kosmos_edge.server")
WAITERS = 16  # threads that fetch images, or wait for their turn to decode one
SEND_SECONDS = 30.0  # a client that takes nothing in for so long is given up
DISCARD_SECONDS = 5.0  # for the rest of a body that is too large


@dataclass(slots=True)
class Asked:
    """What a route wants computed. options: None for a ranking, whose image is `image`."""

    plan: Plan | ScorePlan
    options: Mapping[str, Any] | None = None
    image: Shown | None = None


class Service:
    """What the requests of one server share. For the event loop's thread."""

    def __init__(self, settings: Settings, load: Callable[[], Model], id: str) -> None:
        """load: loads the model. id: its name in requests."""
        self.settings = settings
        self.metrics = Metrics()
        self.scheduler = Scheduler(settings.batch_size)
        self.keeper = Keeper(load, id, settings.keep_alive, self.scheduler.forget)
        self.pool = ThreadPoolExecutor(WAITERS, "kosmos-edge picture")
        self.started = int(time.time())
        self.places = 0  # requests that wait or are being computed
        self.bodies = 0  # bytes of bodies that are being received

    def check_room(self) -> None:
        """429 if all places are taken."""
        if self.places >= self.settings.batch_size + self.settings.queue:
            raise ApiError(
                429, f"{self.places} requests are waiting; try again later", code="queue_full", retry_after=1
            )

    def close(self) -> None:
        """Ends every job and the thread."""
        self.scheduler.stop(1.0)
        self.pool.shutdown(wait=False, cancel_futures=True)


class Call:
    """A job's outcomes, for one request: raises its error, and Disconnected when the client has gone."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._next: Outcome | None = None

    def emit(self, outcome: Outcome) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
            self._loop.call_soon_threadsafe(self._outcomes.put_nowait, outcome)

    async def _take(self) -> Event | Ranking:
        try:
            async with asyncio.timeout_at(self._context.deadline):
                outcome = await self._outcomes.get()
        except TimeoutError:
            raise self._context.too_late() from None
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def first(self) -> None:
        """Waits for the first outcome, so that an error before it has a status of its own."""
        self._next = await self._take()

    async def events(self) -> AsyncGenerator[Event, None]:
        """All events, the last of which is Done."""
        while True:
            event, self._next = self._next or await self._take(), None
            assert not isinstance(event, Ranking | BaseException)
            if isinstance(event, Done):
                self._context.count(event.result)
            yield event
            if isinstance(event, Done):
                return

    async def result(self) -> Result:
        """The answer; events before it are dropped."""
        async for event in self.events():
            if isinstance(event, Done):
                return event.result
        raise AssertionError("the last event is Done")

    async def ranking(self) -> Ranking:
        """The ranking."""
        found = await self._take()
        assert isinstance(found, Ranking)
        return found


class Context:
    """One request."""

    def __init__(self, service: Service, request: Request, stack: contextlib.AsyncExitStack) -> None:
        self.service, self.request, self._stack = service, request, stack
        self.settings = service.settings
        self.deadline = asyncio.get_running_loop().time() + self.settings.request_seconds
        self.id = uuid.uuid4().hex
        self.created = int(time.time())
        self.tokenizer: _core.Tokenizer  # of the model that answers; from start on

    def too_late(self) -> ApiError:
        """The error when the request's time is over."""
        return ApiError(504, f"no answer within {self.settings.request_seconds:g} s", code="timeout")

    def count(self, result: Result) -> None:
        """Counts an answer in the metrics."""
        metrics, timings = self.service.metrics, result.timings
        metrics.tokens.inc(timings.tokens)
        metrics.prompt_tokens.inc(timings.prompt_tokens)
        metrics.reused_tokens.inc(timings.reused_tokens)
        metrics.passes.inc(timings.passes)
        metrics.drafted_tokens.inc(timings.drafted_tokens)
        metrics.accepted_tokens.inc(timings.accepted_tokens)

    # ---- body

    async def json(self) -> Any:
        """The body's JSON value."""
        kind = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(415, f"Content-Type: expected application/json, got {kind[:60] or 'none'}")
        if self.request.headers.get("content-encoding", "identity").lower() != "identity":
            raise ApiError(415, "Content-Encoding: compressed bodies are not taken")
        try:
            return parse_json(await self._body())
        except ApiError as error:
            if error.status == 413 and "expect" not in self.request.headers:
                await self._discard()
            raise

    async def _discard(self) -> None:
        """Reads on for some seconds: a client that is still sending when the connection ends may miss the answer."""
        with contextlib.suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(DISCARD_SECONDS):
                async for _ in self.request.stream():
                    pass

    async def _body(self) -> bytes:
        most, service = self.settings.max_body, self.service
        too_large = ApiError(413, f"the body: more than {most} bytes", code="body_too_large")
        length = self.request.headers.get("content-length", "")
        if length.isdigit() and int(length) > most:
            raise too_large
        data = bytearray()
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                async for part in self.request.stream():
                    if service.bodies + len(part) > self.settings.max_bodies:
                        raise ApiError(503, "too much is being received at once", code="overloaded", retry_after=1)
                    data += part
                    service.bodies += len(part)
                    if len(data) > most:
                        raise too_large
            return bytes(data)
        except TimeoutError:
            seconds = self.settings.body_seconds
            raise ApiError(408, f"the body did not come within {seconds:g} s", code="timeout") from None
        except ClientDisconnect:
            raise Disconnected from None
        finally:
            service.bodies -= len(data)

    def sources(self, texts: Sequence[str], params: Sequence[str]) -> list[Source]:
        """The images of the request; params: the field that holds each."""
        if len(texts) > self.settings.max_images:
            raise refuse(params[-1], f"expected at most {self.settings.max_images} images, got {len(texts)}")
        return [Source(text, param, self.settings) for text, param in zip(texts, params, strict=True)]

    def check_model(self, name: str | None) -> None:
        """404 if the request wants another model."""
        keeper = self.service.keeper
        if name is not None and not keeper.answers_to(name):
            message = f"the model {name[:100]!r} is not served here; this is {keeper.about.id!r}"
            raise ApiError(404, message, param="model", code="model_not_found")

    # ---- computing

    async def start(
        self, build: Callable[[Model], Asked], sources: Sequence[Source] = (), *, stream: bool = False
    ) -> Call:
        """Queues what `build` makes with the model; the call ends with the request. build runs in another thread."""
        service, call = self.service, Call(self)
        service.check_room()
        service.places += 1
        self._stack.callback(self._leave)
        watcher = asyncio.ensure_future(self._watch(call))
        self._stack.callback(watcher.cancel)
        try:
            async with asyncio.timeout_at(self.deadline):
                model = await self._stack.enter_async_context(service.keeper.use())
                loop = asyncio.get_running_loop()
                job = await loop.run_in_executor(service.pool, _prepare, model, build, sources, call.emit, stream)
        except TimeoutError:
            raise self.too_late() from None
        service.metrics.images.inc(len(sources))
        self.tokenizer = job.session.engine.tokenizer
        self._stack.callback(service.scheduler.cancel, job)
        service.scheduler.submit(job)
        return call

    def _leave(self) -> None:
        self.service.places -= 1

    async def _watch(self, call: Call) -> None:
        """Tells the call when the client goes."""
        message: Message = {}
        while message.get("type") != "http.disconnect":
            message = await self.request.receive()
        call.emit(Disconnected())


def _prepare(
    model: Model,
    build: Callable[[Model], Asked],
    sources: Sequence[Source],
    emit: Callable[[Outcome], None],
    stream: bool,
) -> Job:
    """The job, with its images decoded."""
    begun = time.perf_counter()
    asked = build(model)
    if isinstance(asked.plan, ScorePlan):
        session, options = model.settle(None, {})[0], None
    else:
        assert asked.options is not None
        session, options = model.settle(asked.plan, asked.options)
    for source in sources:
        source.load(session)
    return Job(session, model.name, asked.plan, options, emit, stream, asked.image, begun=begun)


class Streamed(Response):  # type: ignore[misc]  # starlette's types are not looked at
    """A response whose parts are sent as they come."""

    def __init__(
        self, chunks: AsyncIterator[bytes], failed: Callable[[ApiError], bytes], media_type: str, headers: Any = None
    ) -> None:
        """failed: the last part after an error."""
        self.chunks, self._failed = chunks, failed
        self.media_type = media_type
        self.status_code, self.background = 200, None
        self.init_headers({"Cache-Control": "no-store", **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends all of it; quietly ends if the client has gone."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async with contextlib.aclosing(self.chunks) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    await _send_part(send, chunk, more=True)
            await _send_part(send, b"", more=False)
        except (Disconnected, TimeoutError):
            return
        except (ApiError, Exception) as error:
            await _send_part(send, self._failed(logged(error)), more=False)


async def _send_part(send: Send, body: bytes, *, more: bool) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await send({"type": "http.response.body", "body": body, "more_body": more})


def logged(error: Exception) -> ApiError:
    """The ApiError of an exception; writes to the log what the client is not told."""
    found = api_error(error)
    if found.status == 500:
        logger.error("an error in the server", exc_info=error)
    return found


@dataclass(frozen=True)
class Endpoint:
    """A route's handler as an ASGI application: errors become responses, and nothing outlives the request."""

    service: Service
    route: str
    handle: Callable[[Context], Awaitable[Response]]
    render: Render = field(default=openai_error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        metrics, begun, status = self.service.metrics, time.perf_counter(), "499"
        async with contextlib.AsyncExitStack() as stack:
            try:
                response = await self.handle(Context(self.service, Request(scope, receive), stack))
            except Disconnected:
                response = Response(status_code=499)
            except asyncio.CancelledError:  # the server stops, and this has taken too long
                status = "503"
                raise
            except Exception as error:
                response = self.render(logged(error))
            status = str(response.status_code)
            try:
                await response(scope, receive, send)
            finally:
                metrics.requests.labels(self.route, status).inc()
                metrics.seconds.labels(self.route).observe(time.perf_counter() - begun)


__all__ = ["Asked", "Call", "Context", "Endpoint", "Service", "Streamed", "logged"]
