"""An endpoint of OpenAI's API on loopback, whose replies are given beforehand: real HTTP, scripted dialogues."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.png"))


@dataclass
class Scripted:
    """A response."""

    body: Any  # bytes as they are, else JSON
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0  # seconds before it
    drip: float = 0.0  # seconds before each byte of the body
    hang_up: bool = False  # close the connection instead


@dataclass
class Got:
    """A request."""

    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class ScriptedEndpoint:
    """A running endpoint."""

    url: str
    got: list[Got] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # requests behind the last reply

    def messages(self, number: int = -1) -> list[dict[str, Any]]:
        """The messages of a request."""
        return list(self.got[number].body["messages"])

    def results(self, number: int = -1) -> list[dict[str, Any]]:
        """What the tools gave, as the request has it."""
        return [json.loads(m["content"]) for m in self.messages(number) if m["role"] == "tool"]


def say(text: str | None, *calls: tuple[str, Any], usage: tuple[int, int] | None = (100, 10), **more: Any) -> Scripted:
    """A chat completion: text and calls (tool, arguments); arguments that are no text are written as JSON."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {
                "id": f"call_{name}_{number}",
                "type": "function",
                "function": {
                    "name": name,
                    "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
                },
            }
            for number, (name, arguments) in enumerate(calls)
        ]
    body: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}],
    }
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return Scripted(body, **more)


@contextlib.contextmanager
def scripted(replies: Sequence[Scripted], *, again: bool = False) -> Iterator[ScriptedEndpoint]:
    """An endpoint with these replies, one after another; again: the last one for all further requests."""
    left = list(replies)
    lock, ended = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with lock:
                found.got.append(Got(self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(data)))
                if not left:
                    found.errors.append(self.path)
                reply = left[0] if left and again and len(left) == 1 else left.pop(0) if left else Scripted("?", 400)
            ended.wait(reply.delay)
            if reply.hang_up:
                self.close_connection = True
                return
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            with contextlib.suppress(OSError):
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                for start in range(0, len(body), 1 if reply.drip else max(1, len(body))):
                    if ended.is_set():
                        return
                    time.sleep(reply.drip)
                    self.wfile.write(body[start : start + (1 if reply.drip else len(body))])
                    self.wfile.flush()

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    found = ScriptedEndpoint(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
