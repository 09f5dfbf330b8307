"""Calls of a model for asyncio: one after another on one thread, and a cancelled task ends its call.

The verbs compute on threads anyway, so an event loop only has to wait for them. A model has one Lane: calls that are
awaited at the same time run in the order in which they were made. Side by side they would take turns in the same
computing threads, each with the memory of a running answer.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any, Protocol, TypeVar

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.inference.running import is_cancelled
from kosmos_edge.results import Event, Result

T = TypeVar("T")


class Lane:
    """A thread for the awaited calls of one model; it starts with the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Queues the call."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, "kosmos-edge await")
            return self._pool.submit(call)

    def close(self) -> None:
        """Ends the thread behind the calls that are queued; a later call starts another one."""
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(wait=False)
                self._pool = None


class Owner(Protocol):
    """What an awaited call needs from a Model."""

    @property
    def awaiting(self) -> Lane:
        """The model's lane. Raises what a call of a closed model raises."""
        ...


class Flag:
    """A cancel object: set by its owner, or by the caller's own one."""

    def __init__(self, cancel: Any = None) -> None:
        self._cancel, self._own = cancel, threading.Event()

    def set(self) -> None:
        """Ends the call soon."""
        self._own.set()

    def is_set(self) -> bool:
        """Whether the call must end."""
        return self._own.is_set() or is_cancelled(self._cancel)


async def call(owner: Owner, work: Callable[[Flag], T], cancel: Any = None) -> T:
    """work(flag) in the lane. If the task is cancelled, a queued call is dropped and a running one ends by its flag."""
    flag = Flag(cancel)
    future = owner.awaiting.submit(lambda: work(flag))
    try:
        return await asyncio.wrap_future(future)
    finally:
        flag.set()


class AsyncAnswer(Coroutine[Any, Any, Result], AsyncIterator[Event]):
    """An answer that is computed when it is waited for, once: `await` gives the Result, `async for` the events.

    A coroutine, so that asyncio.create_task takes it. The events are those of stream=True: TextDelta, EntityEvent and
    finally Done. Cancelling the task ends the computation within about 0.06 s, and so does aclose() or dropping the
    iterator. Errors are those of the verb.
    """

    def __init__(self, owner: Owner, verb: Callable[..., Any], arguments: dict[str, Any]) -> None:
        """verb: gets the arguments, stream and cancel."""
        self._owner, self._verb, self._arguments = owner, verb, arguments
        self._cancel = arguments.pop("cancel", None)
        self._used = False
        self._events: AsyncGenerator[Event, None] | None = None
        self._whole: Coroutine[Any, Any, Result] | None = None

    def __await__(self) -> Generator[Any, Any, Result]:
        return self._result().__await__()

    def send(self, value: Any) -> Any:
        """As of every coroutine."""
        if self._whole is None:
            self._whole = self._result()
        return self._whole.send(value)

    def throw(self, *error: Any) -> Any:
        """As of every coroutine."""
        if self._whole is None:
            self._whole = self._result()
        return self._whole.throw(*error)

    def close(self) -> None:
        """As of every coroutine."""
        if self._whole is not None:
            self._whole.close()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if self._events is None:
            self._use()
            self._events = _stream(self._owner, self._verb, self._arguments, self._cancel)
        return await self._events.__anext__()

    async def aclose(self) -> None:
        """Ends the computation, as for contextlib.aclosing."""
        if self._events is not None:
            await self._events.aclose()

    def _use(self) -> None:
        if self._used:
            raise InvalidRequest("an answer can be waited for once: call the verb again")
        if "stream" in self._arguments:
            raise InvalidRequest("stream: `await` gives the Result, `async for` the events")
        self._used = True

    async def _result(self) -> Result:
        self._use()
        found = await call(self._owner, lambda flag: self._verb(**self._arguments, cancel=flag), self._cancel)
        assert isinstance(found, Result)
        return found


async def _stream(
    owner: Owner, verb: Callable[..., Any], arguments: dict[str, Any], cancel: Any
) -> AsyncGenerator[Event, None]:
    """The events of verb(..., stream=True). Not a method: a dropped answer must not be in a cycle with it."""
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()
    flag = Flag(cancel)

    def put(item: Event | BaseException | None) -> None:
        try:
            loop.call_soon_threadsafe(events.put_nowait, item)
        except RuntimeError:  # the loop is closed
            flag.set()

    def work() -> None:
        try:
            with closing(verb(**arguments, stream=True, cancel=flag)) as stream:
                for event in stream:
                    put(event)
            put(None)
        except BaseException as error:  # passed to the waiting task
            put(error)

    future = owner.awaiting.submit(work)
    item: Event | BaseException | None = None
    try:
        while (item := await events.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        flag.set()
        future.cancel()
        del item  # breaks the reference cycle between the error and this frame


async def iterate(begin: Callable[[Flag], Iterator[T]], cancel: Any = None) -> AsyncGenerator[T, None]:
    """The items of the generator begin(flag), which is resumed on another thread for each; not in a lane.

    So a slow consumer slows it down, and may await other calls of the model meanwhile.
    """
    flag, lock = Flag(cancel), threading.Lock()
    found: list[Any] = []  # the generator

    def step() -> tuple[T, ...]:
        with lock:
            if not found:
                found.append(begin(flag))
            for item in found[0]:
                return (item,)
            return ()

    def close() -> None:
        with lock:  # the last step ends by the flag
            for generator in found:
                generator.close()

    try:
        while item := await asyncio.to_thread(step):
            yield item[0]
    finally:
        flag.set()
        with suppress(RuntimeError):  # no executor any more: the loop is being closed
            await asyncio.shield(asyncio.to_thread(close))


__all__ = ["AsyncAnswer", "Lane"]
