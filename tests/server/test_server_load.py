"""Many clients at once, limits, slow and vanishing clients, the model's life: the server's promises under load."""

import contextlib
import json
import shutil
import socket
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `server` is not installed")

from helpers.api_model import long_file, tiny_file
from helpers.http_server import EXAMPLES, chat_body, data_uri, serving

from kosmos_edge import load

CHAT = "/v1/chat/completions"
# An answer of the long model that takes many seconds.
SLOW = {"choices": [("a dog " * 7000).strip()], "model": "long", "logprobs": True}


def slow_body(**fields):
    return {"messages": [{"role": "user", "content": "which?"}], **SLOW, **fields}


def long_model():
    return load(long_file(), threads=1)


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def start_slow(server, **fields):
    """A connection whose answer is being computed."""
    before = len(server.service.scheduler._open)
    connection = server.connection()
    connection.request("POST", CHAT, json.dumps(slow_body(**fields)), {"Content-Type": "application/json"})
    until(lambda: len(server.service.scheduler._open) > before)
    return connection


def test_64_clients_get_the_bits_that_one_gets_alone():
    model = load("nano", threads=1)
    kinds = [
        lambda image: (chat_body(image, logprobs=True), lambda: model.caption(image, logprobs=True)),
        lambda image: (
            chat_body(image, "What is this?", logprobs=True),
            lambda: model.ask(image, "What is this?", logprobs=True),
        ),
        lambda image: (
            chat_body(image, logprobs=True, ground=True),
            lambda: model.caption(image, ground=True, logprobs=True),
        ),
        lambda image: (
            chat_body(image, "Where is it?", logprobs=True, temperature=1.3, seed=3, max_tokens=20),
            lambda: model.ask(image, "Where is it?", logprobs=True, temperature=1.3, seed=3, max_tokens=20),
        ),
    ]
    asked = [kinds[number // 8 % 4](EXAMPLES[number % 8]) for number in range(64)]
    alone = [compute() for _, compute in asked[:32]] * 2
    gate = threading.Barrier(64)
    with serving() as server, ThreadPoolExecutor(64) as pool:

        def client(number):
            gate.wait()
            return server.post(CHAT, asked[number][0])

        answers = list(pool.map(client, range(64)))
    assert [answer.status for answer in answers] == [200] * 64
    for answer, own in zip(answers, alone, strict=True):
        choice = answer.json()["choices"][0]
        assert choice["message"]["content"] == own.text
        found = [token["logprob"] for token in choice["logprobs"]["content"]]
        assert found and found == own.logprobs[: len(found)] and len(own.logprobs) - len(found) in (0, 1)


def test_a_full_queue_refuses_with_retry_after_and_loses_nobody():
    with serving(queue=4, batch_size=2) as server, ThreadPoolExecutor(32) as pool:
        gate = threading.Barrier(32)

        def client(number):
            gate.wait()
            return server.post(CHAT, chat_body(EXAMPLES[number % 8]))

        answers = list(pool.map(client, range(32)))
        assert {answer.status for answer in answers} == {200, 429}
        model = load("nano", threads=1)
        for number, answer in enumerate(answers):
            if answer.status == 200:
                content = answer.json()["choices"][0]["message"]["content"]
                assert content == model.caption(EXAMPLES[number % 8]).text
            else:
                assert answer.headers["retry-after"] == "1" and answer.json()["error"]["code"] == "queue_full"
        server.settle()
        assert server.post(CHAT, chat_body(EXAMPLES[0])).status == 200


def test_a_client_that_goes_frees_its_place():
    with serving(long_model, id="long") as server:
        scheduler = server.service.scheduler
        for stream in (False, True):
            connection = start_slow(server, stream=stream)
            connection.close()
            begun = time.monotonic()
            until(lambda: scheduler.running == 0 and server.service.places == 0, 2)
            assert time.monotonic() - begun < 1
        # One that waits in the queue, behind as many as are computed at once.
        busy = [start_slow(server) for _ in range(server.service.settings.batch_size)]
        waiting = server.connection()
        waiting.request("POST", CHAT, json.dumps(slow_body()), {"Content-Type": "application/json"})
        until(lambda: scheduler.waiting == 1)
        waiting.close()
        until(lambda: scheduler.waiting == 0, 1)
        assert scheduler.running == len(busy)
        for connection in busy:
            connection.close()
        until(lambda: scheduler.running == 0, 2)
        short = {"messages": [{"role": "user", "content": "which?"}], "choices": ["a dog", "a cat"]}
        assert server.post(CHAT, short).status == 200


def test_an_answer_that_takes_too_long_is_a_504_and_ends():
    with serving(long_model, id="long", request_seconds=0.5) as server:
        answer = server.post(CHAT, slow_body())
        assert answer.status == 504 and answer.json()["error"]["code"] == "timeout"
        streamed = server.post(CHAT, slow_body(stream=True))
        until(lambda: server.service.scheduler.running == 0, 2)
        if streamed.status == 200:  # it began in time
            assert b'"code": "timeout"' in streamed.body and b"[DONE]" not in streamed.body
        else:
            assert streamed.status == 504


def test_bodies_that_are_refused():
    with serving(max_body=100_000, body_seconds=0.5) as server:
        large = json.dumps(chat_body("x" * 200_000)).encode()
        answer = server.post(CHAT, large)
        assert answer.status == 413 and answer.json()["error"]["code"] == "body_too_large"
        with contextlib.closing(server.connection()) as connection:  # of unknown length
            parts = (large[start : start + 1000] for start in range(0, len(large), 1000))
            connection.request("POST", CHAT, parts, {"Content-Type": "application/json"}, encode_chunked=True)
            assert connection.getresponse().status == 413
        with contextlib.closing(server.connection()) as connection:  # all of it is sent before the answer is read
            connection.putrequest("POST", CHAT)
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", "8000000")
            connection.endheaders()
            for _ in range(800):
                connection.send(b"x" * 10_000)
            assert connection.getresponse().status == 413
        with contextlib.closing(server.connection()) as connection:  # waits to be told to send: is not
            connection.putrequest("POST", CHAT)
            for name, value in (("Content-Type", "application/json"), ("Expect", "100-continue")):
                connection.putheader(name, value)
            connection.putheader("Content-Length", "8000000")
            connection.endheaders()
            begun = time.monotonic()
            assert connection.getresponse().status == 413 and time.monotonic() - begun < 2
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            assert server.post(CHAT, b"{}", {"Content-Type": kind}).status == 415
        packed = {"Content-Encoding": "gzip"}
        assert server.post(CHAT, b"{}", packed).status == 415
        deep = b"[" * 40_000
        for body in (b"", b"{", b"[1]", b'{"messages": NaN}', b"\xff", b'"\\ud800"', deep, deep + b"]" * 40_000):
            answer = server.post(CHAT, body)
            assert answer.status == 400 and answer.json()["error"]["type"] == "invalid_request_error", body[:20]
        assert server.post(CHAT, b'{"a":' + b"[" * 40 + b"]" * 40 + b"}").status == 400
        for twice in (b'{"messages": [], "messages": [1]}', b'{"messages": [{"role": "user", "role": "user"}]}'):
            answer = server.post(CHAT, twice)
            assert answer.status == 400 and "comes twice" in answer.json()["error"]["message"]
        with contextlib.closing(server.connection()) as connection:  # too slow
            connection.putrequest("POST", CHAT)
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", "1000")
            connection.endheaders(b"{")
            assert connection.getresponse().status == 408
        assert server.service.bodies == 0
        many = chat_body(*[EXAMPLES[0]] * 17)
        with serving() as usual:
            assert usual.post(CHAT, many).status == 400


def test_too_many_pixels():
    from kosmos_edge.images import Opening

    with serving(opening=Opening(max_pixels=100 * 100)) as server:
        answer = server.post(CHAT, chat_body(EXAMPLES[0]))
        assert answer.status == 422 and "max_pixels" in answer.json()["error"]["message"]


def test_slow_headers_end_the_connection_and_good_clients_go_on():
    with serving(header_seconds=0.3) as server:
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(50)]
            for number, connection in enumerate(slow):
                connection.sendall(b"" if number % 2 else b"POST /v1/chat/completions HTTP/1.1\r\nHost: loc")
            assert server.post(CHAT, chat_body(EXAMPLES[0])).status == 200
            for connection in slow:
                connection.settimeout(5)
                assert connection.recv(100) == b""
        until(lambda: not server.server.server_state.connections, 2)
        with contextlib.closing(server.connection()) as kept:  # one that is kept for a second request may wait
            for _ in range(2):
                kept.request("GET", "/health")
                assert kept.getresponse().read()
                time.sleep(0.5)


def test_garbage_is_answered_and_forgotten():
    with serving() as server:
        for data in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"A" * 20_000, b"GET / HTTP/9.9\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.settimeout(15)
                connection.sendall(data + b"\r\n\r\n")
                with contextlib.suppress(ConnectionResetError):
                    assert connection.recv(1000).startswith((b"HTTP/1.1 400", b""))
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # it is still being sent
            assert server.get("/health", {"X-Long": "a" * 200_000}).status == 400
        assert server.get("/health").status == 200


def test_the_model_is_unloaded_when_idle_and_comes_back():
    with serving(keep_alive=0.3) as server:
        session = weakref.ref(server.service.keeper._model._session)
        first = server.post(CHAT, chat_body(EXAMPLES[0])).json()
        assert server.post(CHAT, chat_body(EXAMPLES[0], max_tokens=0)).status == 400
        assert server.post("/v1/ground", {"image": data_uri(EXAMPLES[0]), "stream": True}).status == 200
        until(lambda: not server.get("/health").json()["loaded"], 5)
        until(lambda: session() is None, 5)  # its memory is free, too
        again = server.post(CHAT, chat_body(EXAMPLES[0])).json()
        assert again["choices"] == first["choices"] and server.service.keeper.loads == 2


def test_another_file_is_taken_up_and_open_answers_end_with_the_old_one(tmp_path):
    path = tmp_path / "model.gguf"
    shutil.copy(long_file(), path)
    with serving(lambda: load(path, threads=1), id="model", watch=True) as server:
        slow = start_slow(server, model="model")
        new = tmp_path / "new.gguf"
        shutil.copy(tiny_file(), new)
        new.replace(path)
        until(lambda: server.service.keeper.loads == 2)
        assert server.service.keeper.about.context_length < 16384
        waits = ThreadPoolExecutor(1).submit(server.post, CHAT, {"messages": [{"role": "user", "content": "x"}]})
        time.sleep(0.1)
        assert server.service.scheduler.running == 1 and not waits.done()  # the old model still answers
        slow.close()
        assert waits.result(20).status == 200
        new.write_bytes(b"no model")
        new.replace(path)
        answer = server.call("POST", "/v1/reload")
        assert answer.status == 503 and "the old model stays" in answer.json()["error"]["message"]
        assert server.post(CHAT, {"messages": [{"role": "user", "content": "x"}]}).status == 200


def test_metrics_and_health():
    with serving() as server:
        server.post(CHAT, chat_body(EXAMPLES[0]))
        server.post(CHAT, {"messages": 1})
        answer = server.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        text = answer.body.decode()
        assert f'kosmos_edge_requests_total{{route="{CHAT}",status="200"}} 1.0' in text
        assert f'kosmos_edge_requests_total{{route="{CHAT}",status="400"}} 1.0' in text
        assert "kosmos_edge_images_total 1.0" in text and "kosmos_edge_model_loaded 1.0" in text
        own = load("nano", threads=1).caption(EXAMPLES[0])
        assert f"kosmos_edge_tokens_total {float(own.timings.tokens)}" in text
        health = server.get("/health").json()
        assert health == {"status": "ok", "model": "nano", "loaded": True, "running": 0, "waiting": 0}


def test_an_image_that_comes_again_is_encoded_once():
    with serving() as server:
        first = server.post(CHAT, chat_body(EXAMPLES[5], "What is this?")).json()
        again = server.post(CHAT, chat_body(EXAMPLES[5], "What is this?")).json()
        other = server.post(CHAT, chat_body(EXAMPLES[6], "What is this?")).json()
        reused = [found["usage"]["prompt_tokens_details"]["cached_tokens"] for found in (first, again, other)]
        assert first["choices"] == again["choices"] and max(reused[0], reused[2]) < 5 < 60 < reused[1]
        assert data_uri(EXAMPLES[5]) != data_uri(EXAMPLES[6])
