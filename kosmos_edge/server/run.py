"""Runs the server: uvicorn with a limit on slow headers, and signals for stop and reload."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from kosmos_edge.server.settings import Settings

HEADER_BYTES = 16 << 10
IDLE_SECONDS = 30  # a kept connection without a request


def protocol(header_seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol, which closes a connection whose request's headers take longer than that to come."""

    class Protocol(H11Protocol):  # type: ignore[misc]  # uvicorn's types are not looked at
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._stop()

        def _watch(self) -> None:
            """Starts the clock while a request's headers are incomplete; the idle time between two is uvicorn's."""
            begun = self.cycle is None or bool(self.conn.trailing_data[0])
            if self.conn.their_state is not h11.IDLE or not begun or self.transport.is_closing():
                self._stop()
            elif self._timer is None:
                self._timer = self.loop.call_later(header_seconds, self._close)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _close(self) -> None:
            self._timer = None
            self.transport.close()

    return Protocol


class Server(uvicorn.Server):  # type: ignore[misc]
    """A server that ends with the first SIGTERM or Ctrl-C after its answers, with the second at once, and reloads its
    model on SIGHUP."""

    reload: Callable[[], Awaitable[None]] | None = None
    should_exit: bool
    on_ready: Callable[[str], None] = staticmethod(lambda url: None)

    async def startup(self, sockets: Any = None) -> None:
        """Says where it listens."""
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        self.on_ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """uvicorn forces the end only with a second Ctrl-C; here any second signal does."""
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The handlers while the server runs. Unlike uvicorn's, the signals are not raised again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        reloads: set[asyncio.Task[None]] = set()

        async def once() -> None:
            if self.reload is not None:
                await self.reload()

        def reload() -> None:
            task = loop.create_task(once())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        if hasattr(signal, "SIGHUP"):
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(reload))
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def make_server(
    app: ASGIApp,
    settings: Settings,
    on_ready: Callable[[str], None],
    *,
    log: bool = False,
    reload: Callable[[], Awaitable[None]] | None = None,
) -> Server:
    """The server, ready to run(). on_ready: called with its URL once it listens. log: one line per request.
    reload: called on SIGHUP."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=protocol(settings.header_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="info" if log else "warning",
        access_log=log,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.connections,
        backlog=settings.connections,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=settings.drain_seconds,
        h11_max_incomplete_event_size=HEADER_BYTES,
    )
    server = Server(config)
    server.reload = reload
    server.on_ready = on_ready
    return server
