"""A server in this process, on a free port of loopback, and a plain client for it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kosmos_edge import Model, load
from kosmos_edge.server.app import make_app
from kosmos_edge.server.run import Server, make_server
from kosmos_edge.server.service import Service
from kosmos_edge.server.settings import Settings

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.png"))


@dataclass
class Answer:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body's value."""
        return json.loads(self.body)


@dataclass
class Running:
    """A running server."""

    server: Server
    service: Service
    port: int
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def settle(self) -> None:
        """Waits until no request has a place any more: it gives it back just behind its answer."""
        end = time.monotonic() + 10
        while self.service.places or self.service.bodies:
            assert time.monotonic() < end, (self.service.places, self.service.bodies)
            time.sleep(0.005)

    def connection(self) -> http.client.HTTPConnection:
        """A connection to it."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request; a body that is not bytes goes as JSON."""
        given = dict(self.headers)
        if body is not None:
            given["Content-Type"] = "application/json"
        given |= headers or {}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with contextlib.closing(self.connection()) as connection:
            connection.request(method, path, data, given)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
        """POST."""
        return self.call("POST", path, body, headers)

    def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        """GET."""
        return self.call("GET", path, None, headers)


@contextlib.contextmanager
def serving(load_model: Callable[[], Model] | None = None, id: str = "nano", **settings: Any) -> Iterator[Running]:
    """A server with these Settings, ended at the end of the block."""
    given = Settings(port=0, **settings)
    ready = threading.Event()
    app = make_app(given, load_model or (lambda: load("nano", threads=1)), id)
    server = make_server(app, given, lambda url: ready.set())
    thread = threading.Thread(target=server.run, name="test server")
    thread.start()
    try:
        assert ready.wait(60)
        yield Running(server, app.state.service, server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def data_uri(data: bytes | Path, kind: str = "image/png") -> str:
    """An image as a request has it."""
    raw = data.read_bytes() if isinstance(data, Path) else data
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


def chat_body(*parts: str | Path, **fields: Any) -> dict[str, Any]:
    """A body for /v1/chat/completions: one message of texts and images."""
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_uri(part)}}
        for part in parts
    ]
    return {"messages": [{"role": "user", "content": content}], **fields}
