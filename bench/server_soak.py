"""A long run of the server: good, bad and vanishing clients at once. Is anything lost or wrong, is memory flat?

    python bench/server_soak.py [--count 20000] [--clients 16] [--warm-up 1000] [--model nano] [--threads 1]

Starts `kosmos-edge serve` and sends `count` requests from `clients` threads: captions, questions and boxes by
OpenAI's, Ollama's, Moondream's and our own routes, every fourth of OpenAI's as a stream; every tenth is wrong
(garbage, broken images, unknown fields), every tenth goes away in the middle of its answer. Meanwhile 32 connections
send their headers a byte at a time, 32 say nothing, and 8 send garbage. Each answer is compared with the one that a
client got alone. Memory is RssAnon + VmSwap of the server, which has one heap of malloc here (see soak.py), growth
the median of the last tenth against that of the first tenth after the warm-up. Exit status 1: an answer is lost or
wrong, memory grew by 1 % or more, or descriptors or threads are left over, beyond those of the pool that fetches and
decodes images.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.png"))
POOL = 16


@dataclass
class Kind:
    """A request whose answer is known."""

    path: str
    body: dict[str, Any]
    answer: str = ""


@dataclass
class Seen:
    """What the clients saw."""

    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: list[tuple[int, float]] = field(default_factory=list)  # (number, seconds) of good requests
    memory: list[tuple[int, int]] = field(default_factory=list)  # (number, bytes)
    lock: threading.Lock = field(default_factory=threading.Lock)


def kinds() -> list[Kind]:
    """All good requests."""
    found = []
    for path in EXAMPLES:
        text = base64.b64encode(path.read_bytes()).decode()
        uri = f"data:image/png;base64,{text}"
        image = {"type": "image_url", "image_url": {"url": uri}}
        question = {"type": "text", "text": "What is this?"}
        found += [
            Kind("/v1/chat/completions", {"messages": [{"role": "user", "content": [image]}], "ground": True}),
            Kind("/v1/chat/completions", {"messages": [{"role": "user", "content": [image, question]}]}),
            Kind("/v1/ground", {"image": uri}),
            Kind("/v1/caption", {"image_url": uri}),
            Kind("/v1/detect", {"image_url": uri, "object": "a truck"}),
            Kind("/api/generate", {"model": "MODEL", "images": [text], "stream": False}),
        ]
    return found


WRONG: list[tuple[str, bytes, int]] = [
    ("/v1/chat/completions", b"{", 400),
    ("/v1/chat/completions", b"[" * 5000, 400),
    ("/v1/chat/completions", b'{"messages": [], "colour": 1}', 400),
    ("/v1/ground", json.dumps({"image": base64.b64encode(EXAMPLES[0].read_bytes()[:500]).decode()}).encode(), 422),
    ("/v1/caption", b'{"image_url": "http://127.0.0.1/a.png"}', 400),
    ("/nothing", b"{}", 404),
]


def part_of_interest(path: str, answer: Any) -> str:
    """What must be the same each time."""
    if path == "/v1/chat/completions":
        return json.dumps(answer["choices"])
    return json.dumps({k: answer[k] for k in ("text", "token_ids", "caption", "objects", "response") if k in answer})


def text_of_stream(data: bytes) -> str:
    """The text of a stream of OpenAI's."""
    lines = [line[6:] for line in data.decode().splitlines() if line.startswith("data: ") and line != "data: [DONE]"]
    return "".join(json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines)


def request(port: int, path: str, body: bytes, *, leave_after: float | None = None) -> tuple[int, bytes]:
    """(status, body); leave_after: seconds after which the client goes, for which the status is 0."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    with contextlib.closing(connection):
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        if leave_after is not None:
            time.sleep(leave_after)
            return 0, b""
        answer = connection.getresponse()
        return answer.status, answer.read()


def held_bytes(process: int) -> int:
    """RssAnon + VmSwap."""
    text = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return sum(int(found) * 1024 for found in re.findall(r"^(?:RssAnon|VmSwap):\s+(\d+)", text, re.M))


def left_over(process: int) -> tuple[int, int]:
    """(descriptors, threads)."""
    folder = Path(f"/proc/{process}")
    return len(list((folder / "fd").iterdir())), len(list((folder / "task").iterdir()))


def client(port: int, process: int, good: list[Kind], numbers: Any, seen: Seen, first: int) -> None:
    """Sends requests until the numbers are used up."""
    dice = random.Random(first)
    for number in numbers:
        kind = good[number % len(good)]
        body, path, wanted = dict(kind.body), kind.path, 200
        stream = path == "/v1/chat/completions" and number % 4 == 0
        if stream:
            body["stream"] = True
        data = json.dumps(body).encode()
        leave: float | None = None
        if number % 10 == 3:
            path, data, wanted = WRONG[number // 10 % len(WRONG)]
        elif number % 10 == 7:
            leave = dice.random() * 0.1
        begun = time.perf_counter()
        try:
            status, answer = request(port, path, data, leave_after=leave)
            while status in (429, 503):  # the queue is full: as a client should
                with seen.lock:
                    seen.statuses[str(status)] += 1
                time.sleep(0.2)
                status, answer = request(port, path, data)
        except (OSError, http.client.HTTPException) as error:
            with seen.lock:
                seen.wrong.append(f"request {number}: {error!r}")
            continue
        spent = time.perf_counter() - begun
        with seen.lock:
            seen.statuses[str(status or "left")] += 1
            if leave is not None:
                continue
            if status != wanted:
                seen.wrong.append(f"request {number}: {path} gave {status}, expected {wanted}")
            elif wanted == 200 and stream:
                if text_of_stream(answer) != json.loads(kind.answer)[0]["message"]["content"]:
                    seen.wrong.append(f"request {number}: another text in a stream")
            elif wanted == 200 and part_of_interest(path, json.loads(answer)) != kind.answer:
                seen.wrong.append(f"request {number}: another answer")
            seen.seconds.append((number, spent))
            if number % 20 == 0:
                seen.memory.append((number, held_bytes(process)))


def nuisance(port: int, end: threading.Event) -> None:
    """Slow headers, silence, garbage; reconnects when it is cut off."""
    open_ones: list[tuple[socket.socket, str]] = []
    wanted = ["slow"] * 32 + ["silent"] * 32 + ["garbage"] * 8
    head = b"POST /v1/ground HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 100
    sent: dict[int, int] = {}
    while not end.wait(0.25):
        here = Counter(kind for _, kind in open_ones)
        for kind, count in Counter(wanted).items():
            for _ in range(count - here[kind]):
                with contextlib.suppress(OSError):
                    open_ones.append((socket.create_connection(("127.0.0.1", port), 5), kind))
        left = []
        for connection, kind in open_ones:
            try:
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    if not connection.recv(4096):
                        raise ConnectionResetError
                if kind == "slow":
                    at = sent.get(id(connection), 0)
                    connection.send(head[at : at + 1])
                    sent[id(connection)] = (at + 1) % len(head)
                elif kind == "garbage":
                    connection.send(random.randbytes(500))
                left.append((connection, kind))
            except OSError:
                sent.pop(id(connection), None)
                connection.close()
        open_ones = left
    for connection, _ in open_ones:
        connection.close()


def start(model: str, threads: int) -> tuple[subprocess.Popen[str], int]:
    """The server and its port."""
    words = [sys.executable, "-m", "kosmos_edge", "serve", "-m", model, "-t", str(threads), "--port", "0"]
    env = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=env)
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(r"is served at http://127\.0\.0\.1:(\d+)", line)
        if found:
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, int(found.group(1))
    raise SystemExit(f"the server did not start: {process.wait()}")


def report(seen: Seen, warm_up: int, count: int, spent: float, before: Any, after: Any) -> bool:
    """Prints the figures; whether all is well."""
    print(f"requests: {count} in {spent:.0f} s; by status: {dict(sorted(seen.statuses.items()))}")
    print(f"lost or wrong: {len(seen.wrong)}")
    for line in seen.wrong[:10]:
        print(f"  {line}")
    memory = [size for number, size in sorted(seen.memory) if number >= warm_up]
    tenth = max(1, len(memory) // 10)
    first, last = statistics.median(memory[:tenth]), statistics.median(memory[-tenth:])
    growth = (last / first - 1) * 100
    print(f"memory: {first / 1e6:.1f} MB after the warm-up, {last / 1e6:.1f} MB at the end: {growth:+.2f} %")
    tenths = [statistics.median(memory[start : start + tenth]) / 1e6 for start in range(0, len(memory), tenth)]
    print(f"memory by tenth, MB: {' '.join(f'{size:.1f}' for size in tenths)}")
    times = [seconds for number, seconds in sorted(seen.seconds) if number >= warm_up]
    part = max(1, len(times) // 10)
    for name, values in (("first tenth", times[:part]), ("last tenth", times[-part:])):
        ordered = sorted(values)
        p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
        print(f"seconds per request, {name}: median {statistics.median(values):.3f}, p99 {p99:.3f}")
    print(f"descriptors and threads: {before} before, {after} after")
    return not seen.wrong and growth < 1 and after[0] <= before[0] and after[1] <= before[1] + POOL


def main() -> int:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--warm-up", type=int, default=1000)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    process, port = start(given.model, given.threads)
    try:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            connection.request("GET", "/v1/models")
            name = json.load(connection.getresponse())["data"][0]["id"]
        good = kinds()
        for kind in good:  # alone
            kind.body = {k: name if v == "MODEL" else v for k, v in kind.body.items()}
            status, answer = request(port, kind.path, json.dumps(kind.body).encode())
            assert status == 200, answer
            kind.answer = part_of_interest(kind.path, json.loads(answer))
        seen, end, numbers = Seen(), threading.Event(), iter(range(given.count))
        lock = threading.Lock()

        def take() -> Any:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                yield number

        with contextlib.ExitStack():
            # The pool of threads that decode pictures grows to its size before what is left over is counted.
            others = threading.Thread(target=nuisance, args=(port, end))
            begun = time.monotonic()
            warm = [threading.Thread(target=request, args=(port, k.path, json.dumps(k.body).encode())) for k in good]
            for thread in warm:
                thread.start()
            for thread in warm:
                thread.join()
            time.sleep(1)
            before = left_over(process.pid)
            others.start()
            threads = [
                threading.Thread(target=client, args=(port, process.pid, good, take(), seen, number))
                for number in range(given.clients)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            spent = time.monotonic() - begun
            end.set()
            others.join()
        time.sleep(1)
        after = left_over(process.pid)
        well = report(seen, given.warm_up, given.count, spent, before, after)
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
        print(f"exit status after SIGTERM: {code}")
        return 0 if well and code == 0 else 1
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
