"""The endpoint over real HTTP: refusals, retries, lost connections, replies that are none, and the key."""

import json
import time
from typing import Any

import pytest

pytest.importorskip("openai", reason="the extra `agent` is not installed")

from helpers.agent_endpoint import Scripted, ScriptedEndpoint, say, scripted

from kosmos_edge import InvalidRequest
from kosmos_edge.apps.agent import EndpointError
from kosmos_edge.apps.endpoint import Endpoint, Reply, check_url, parse
from kosmos_edge.apps.errors import TimeOver

KEY = "sk-a-very-secret-key"
BODY = {"messages": [{"role": "user", "content": "a"}]}


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("kosmos_edge.apps.endpoint.FIRST_PAUSE", 0.05)


def chat(endpoint: ScriptedEndpoint, *, seconds: float = 20, whole: float = 30, model: str = "m") -> Reply:
    asked = Endpoint(endpoint.url, model)
    try:
        return asked.chat(BODY, seconds, time.monotonic() + whole, lambda: False)
    finally:
        asked.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "expected http://HOST:PORT/v1"),
        ("localhost:8080", "expected http://HOST:PORT/v1"),
        ("file:///etc/passwd", "expected http://HOST:PORT/v1"),
        ("http://", "expected http://HOST:PORT/v1"),
        ("http://h:99999/v1", "[Pp]ort"),
        ("http://u:p@h/v1", "holds a password: set OPENAI_API_KEY"),
        ("http://h/v1?key=a", "no \\? or #"),
        ("http://h/v1/chat/completions/", "without /chat/completions"),
    ],
)
def test_addresses(url: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        check_url(url)


def test_wrong_names_and_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest, match="name"):
        Endpoint("http://127.0.0.1:9/v1", " ")
    for key in ("a\nb", "schlüssel"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(InvalidRequest, match="printable ASCII") as error:
            Endpoint("http://127.0.0.1:9/v1", "m")
        assert key not in str(error.value)


def test_the_key_is_a_header_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    replies = [say(f"your key is {KEY}"), Scripted({"error": {"message": f"wrong key {KEY}"}}, 401)]
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with scripted(replies) as endpoint:
        assert chat(endpoint).text == "your key is [key]"
        with pytest.raises(EndpointError) as error:
            chat(endpoint)
    assert KEY not in str(error.value) and "wrong key [key]" in str(error.value)
    assert "OPENAI_API_KEY" in str(error.value)
    assert endpoint.got[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in json.dumps(endpoint.got[0].body)
    monkeypatch.setenv("OPENAI_API_KEY", "")
    with scripted([say("a")]) as endpoint:
        chat(endpoint)
    assert "authorization" not in endpoint.got[0].headers
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for url, clear in (("http://10.0.0.1/v1", True), ("https://a.example/v1", False), ("http://[::1]:8/v1", False)):
        assert Endpoint(url, "m").sends_key_in_clear is clear


def test_refusals_for_the_moment_are_tried_again() -> None:
    again = [
        Scripted({"error": {"message": "slow down"}}, 429, {"Retry-After": "0.2"}),
        Scripted(b"<html>oops", 500, {"Retry-After": "0"}),
        Scripted(b"", hang_up=True),
        say("a"),
    ]
    begun = time.monotonic()
    with scripted(again) as endpoint:
        assert chat(endpoint).text == "a"
    assert time.monotonic() - begun >= 0.2 and len(endpoint.got) == 4
    assert endpoint.got[0].body == endpoint.got[3].body
    with (
        scripted([Scripted({"error": "busy"}, 503, {"Retry-After": "0"})], again=True) as endpoint,
        pytest.raises(EndpointError, match=r"status 503: busy \(4 tries\)"),
    ):
        chat(endpoint)
    assert len(endpoint.got) == 4


def test_a_pause_longer_than_the_run_is_not_waited_for() -> None:
    with (
        scripted([Scripted({"error": {"message": "quota"}}, 429, {"Retry-After": "3600"})]) as endpoint,
        pytest.raises(EndpointError, match="429: quota; it asks for a pause of 3600 s"),
    ):
        chat(endpoint)
    assert len(endpoint.got) == 1


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (400, {"error": {"message": "this model does not support tools"}}, "support tools .*--react"),
        (400, {"error": {"message": "Unsupported value: temperature"}}, "--llm-temperature none"),
        (404, {"detail": "Not Found"}, r"status 404: .*Not Found.*/v1"),
        (401, b"", r"status 401 \(the key is taken from OPENAI_API_KEY"),
        (307, b"", "status 307"),
        (400, b"\x1b[31m\x00bad\n" * 999, "status 400: "),
    ],
)
def test_refusals(status: int, body: Any, says: str) -> None:
    with (
        scripted([say("elsewhere")]) as other,
        scripted([Scripted(body, status, {"Location": f"{other.url}/chat/completions"})]) as endpoint,
        pytest.raises(EndpointError, match=says) as error,
    ):
        chat(endpoint)
    assert len(endpoint.got) == 1 and not other.got  # no other host is asked
    assert str(error.value).isprintable() and len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no JSON.*it is empty"),
        (b"<html>Welcome to nginx!</html>", "no JSON.*Welcome to nginx"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "no object"),
        (b'{"choices": []}', r"no choices\[0\].message"),
        (b'{"choices": [1]}', r"no choices\[0\].message"),
        (b'{"choices": [{"message": "a"}]}', r"no choices\[0\].message"),
        (b'{"error": {"message": "overloaded"}}', "it holds an error.*overloaded"),
        (b'{"choices": [{"message": {"content": 3}}]}', "content is no text"),
        (b'{"choices": [{"message": {"content": "a", "tool_calls": {"id": 1}}}]}', "tool_calls is no list"),
        (b'\xff\xfe{"a"', "no JSON"),
    ],
)
def test_replies_that_are_none(body: bytes, says: str) -> None:
    with scripted([Scripted(body)]) as endpoint, pytest.raises(EndpointError, match=says) as error:
        chat(endpoint)
    assert "the reply is no chat completion" in str(error.value) and len(str(error.value)) < 600


def test_odd_parts_of_a_reply() -> None:
    body = {
        "choices": [{"message": {"content": None, "tool_calls": [1, {}, {"id": 3, "function": {"name": 4}}]}}],
        "usage": {"prompt_tokens": "7", "completion_tokens": 3},
    }
    reply = parse(json.dumps(body).encode(), "u")
    assert [(call.id, call.name, call.arguments) for call in reply.calls] == [("", "", "")] * 3
    assert reply.usage is None and reply.text == "" and reply.finish is None


def test_a_reply_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kosmos_edge.apps.endpoint.MOST_BYTES", 1000)
    with scripted([say("a" * 2000)]) as endpoint, pytest.raises(EndpointError, match="more than 1000 bytes"):
        chat(endpoint)


def test_times() -> None:
    for slow in (say("a", delay=20), say("a" * 400, drip=0.02)):
        begun = time.monotonic()
        with scripted([slow]) as endpoint, pytest.raises(EndpointError, match=r"no reply within 0\.5 s"):
            chat(endpoint, seconds=0.5)
        assert len(endpoint.got) == 1 and time.monotonic() - begun < 10
    with scripted([say("a", delay=20)]) as endpoint, pytest.raises(TimeOver):
        chat(endpoint, whole=0.5)


def test_nobody_listens() -> None:
    with scripted([]) as endpoint:
        pass
    begun = time.monotonic()
    with pytest.raises(EndpointError, match=r"no connection \(.*refused.*\) \(4 tries\)"):
        chat(endpoint)
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize(
    ("logprobs", "tokens"),
    [
        ({"tokens": [" red", "\n"], "token_logprobs": [-0.5, -1]}, [(" red", -0.5), ("\n", -1.0)]),
        ({"content": [{"token": " red", "logprob": -0.5}]}, [(" red", -0.5)]),
        ({"tokens": [" red"], "token_logprobs": [None]}, None),
        ({"tokens": [" red"], "token_logprobs": []}, None),
        (None, None),
    ],
)
def test_a_text_completion(logprobs: object, tokens: object) -> None:
    body = {"choices": [{"text": " red", "logprobs": logprobs}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    with scripted([Scripted("busy", 503), Scripted(body)]) as endpoint:
        client = Endpoint(endpoint.url, "m")
        done = client.complete({"prompt": "Q:", "logprobs": 1}, 5, time.monotonic() + 10, lambda: False)
    assert (done.text, done.tokens, done.usage) == (" red", tokens, {"prompt_tokens": 3, "completion_tokens": 1})
    assert [got.path for got in endpoint.got] == ["/v1/completions"] * 2
    assert endpoint.got[1].body == {"model": "m", "prompt": "Q:", "logprobs": 1}


def test_a_reply_that_is_no_text_completion() -> None:
    with (
        scripted([say("a chat")]) as endpoint,
        pytest.raises(EndpointError, match=r"no completion \(no choices"),
    ):
        Endpoint(endpoint.url, "m").complete({"prompt": "Q:"}, 5, time.monotonic() + 10, lambda: False)
