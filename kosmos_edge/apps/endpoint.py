"""A language model behind an OpenAI-compatible endpoint: one completion at a time, with time limits and retries.

Nothing is followed to another host. The key comes from the environment and is cut out of all that comes back.
"""

from __future__ import annotations

import json
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from kosmos_edge.apps.errors import EndpointError, TimeOver
from kosmos_edge.errors import Cancelled, InvalidRequest

KEY_VARIABLE = "OPENAI_API_KEY"
MOST_BYTES = 20 * 1024 * 1024  # of a reply
TRIES = 4
FIRST_PAUSE = 0.5  # seconds; twice as long each further time
_AGAIN = (408, 409, 429, 500, 502, 503, 504)  # worth another try
_EXCERPT = 300  # characters of an error that is shown
_POLL_SECONDS = 0.1
Kind: TypeAlias = Literal["chat", "text"]  # which of the two completions
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class RawCall:
    """A tool call as the language model wrote it."""

    id: str  # may be empty
    name: str
    arguments: Any  # the JSON text; some endpoints send the object itself


@dataclass(frozen=True, slots=True)
class Completion:
    """A text completion."""

    text: str
    tokens: list[tuple[str, float]] | None  # each generated token and its ln p; None: the endpoint tells none
    usage: dict[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A chat completion."""

    text: str
    calls: list[RawCall] = field(default_factory=list)
    finish: str | None = None  # the endpoint's word: stop, length, tool_calls, content_filter
    usage: dict[str, int] | None = None
    size: int = 0  # bytes


def check_url(url: str) -> str:
    """The address without a slash at its end; InvalidRequest says what is wrong with it."""
    try:
        parts = urlsplit(clean(url))
        port = parts.port
    except ValueError as error:
        raise InvalidRequest(f"the endpoint's address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise InvalidRequest(f"the endpoint's address: expected http://HOST:PORT/v1 or https://..., got {url[:200]!r}")
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest(f"the endpoint's address holds a password: set {KEY_VARIABLE} in the environment instead")
    if parts.query or parts.fragment:
        raise InvalidRequest("the endpoint's address: expected no ? or # in it")
    if parts.path.rstrip("/").endswith("/chat/completions"):
        raise InvalidRequest("the endpoint's address: expected the base, such as .../v1, without /chat/completions")
    return url.rstrip("/")


class Endpoint:
    """One model at one address."""

    def __init__(self, url: str, model: str, *, key_variable: str = KEY_VARIABLE) -> None:
        """url: up to /v1. key_variable: the variable of the environment that has the key; unset or empty: no key.

        InvalidRequest: a wrong address or name, a key that no header can hold, or the package openai is not installed.
        """
        if not isinstance(model, str) or not model.strip() or clean(model) != model:
            raise InvalidRequest(f"the language model: expected its name, got {model!r}")
        self.url, self.model = check_url(url), model
        self._key = os.environ.get(key_variable, "").strip()
        if not self._key.isascii() or not self._key.isprintable():
            raise InvalidRequest(f"{key_variable}: expected a key of printable ASCII characters")
        self._openai = _package()
        self._client: Any = None

    @property
    def sends_key_in_clear(self) -> bool:
        """Whether the key goes to another machine without encryption."""
        parts = urlsplit(self.url)
        return bool(self._key) and parts.scheme == "http" and parts.hostname not in _LOOPBACK

    def close(self) -> None:
        """Ends the connections; the next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def chat(self, body: Mapping[str, Any], seconds: float, deadline: float, stopped: Callable[[], bool]) -> Reply:
        """The reply to a body without its model. seconds: for one try; deadline: of time.monotonic() for all.

        A refusal for the moment (429, 5xx) and a lost connection are tried again, up to 4 times in all. Raises
        EndpointError, TimeOver (the deadline), Cancelled (stopped).
        """
        return parse(self._answer("chat", body, seconds, deadline, stopped), self.url)

    def complete(
        self, body: Mapping[str, Any], seconds: float, deadline: float, stopped: Callable[[], bool]
    ) -> Completion:
        """The completion of a body with a prompt and without its model; all else as chat()."""
        return parse_completion(self._answer("text", body, seconds, deadline, stopped), self.url)

    def _answer(
        self, kind: Kind, body: Mapping[str, Any], seconds: float, deadline: float, stopped: Callable[[], bool]
    ) -> bytes:
        wait = FIRST_PAUSE
        for number in range(1, TRIES + 1):
            try:
                return self._once(kind, body, seconds, deadline, stopped)
            except _Later as error:
                pause = wait if error.pause is None else error.pause
                wait *= 2
                if number == TRIES:
                    raise EndpointError(f"{error} ({TRIES} tries)") from None
                if time.monotonic() + pause >= deadline:
                    raise EndpointError(
                        f"{error}; it asks for a pause of {pause:g} s, which is more than the run's time"
                    ) from None
                _sleep(pause, stopped)
        raise AssertionError("the last try returns or raises")

    def _once(
        self, kind: Kind, body: Mapping[str, Any], seconds: float, deadline: float, stopped: Callable[[], bool]
    ) -> bytes:
        """The body of one response. In a thread, so that the time holds for every part of the exchange."""
        if self._client is None:
            self._client = self._connect()
        client, done = self._client, queue.SimpleQueue[Any]()

        def work() -> None:
            try:
                done.put(self._exchange(client, kind, body, seconds))
            except BaseException as error:
                done.put(error)

        begun = time.monotonic()
        threading.Thread(target=work, daemon=True, name="kosmos-edge endpoint").start()
        try:
            while True:
                try:
                    outcome = done.get(timeout=_POLL_SECONDS)
                    break
                except queue.Empty:
                    now = time.monotonic()
                    if stopped():
                        raise Cancelled("cancelled by the caller") from None
                    if now >= deadline:
                        raise TimeOver from None
                    if now - begun >= seconds:
                        raise EndpointError(f"{self.url}: no reply within {seconds:g} s") from None
        except BaseException:
            self.close()
            raise
        if isinstance(outcome, BaseException):
            raise self._told(outcome, seconds)
        assert isinstance(outcome, bytes)
        return outcome

    def _connect(self) -> Any:
        return self._openai.OpenAI(
            base_url=self.url,
            api_key=self._key or "none",
            max_retries=0,
            http_client=self._openai.DefaultHttpxClient(follow_redirects=False),
        )

    def _exchange(self, client: Any, kind: Kind, body: Mapping[str, Any], seconds: float) -> bytes:
        data = bytearray()
        without = {} if self._key else {"Authorization": self._openai.Omit()}
        resource = client.chat.completions if kind == "chat" else client.completions
        with resource.with_streaming_response.create(
            model=self.model, timeout=seconds, extra_headers=without, **body
        ) as response:
            for part in response.iter_bytes():
                data += part
                if len(data) > MOST_BYTES:
                    raise EndpointError(f"{self.url}: the reply has more than {MOST_BYTES} bytes")
        return self._without_key(bytes(data))

    def _without_key(self, data: bytes) -> bytes:
        return data.replace(self._key.encode(), b"[key]") if self._key else data

    def _told(self, error: BaseException, seconds: float) -> BaseException:
        """The error as a user reads it; _Later if another try may help."""
        openai = self._openai
        if isinstance(error, EndpointError):
            return error
        if isinstance(error, openai.APIStatusError):
            said = self._without_key(_said(error).encode("utf-8", "replace")).decode("utf-8", "replace")
            text = f"{self.url}: status {error.status_code}" + (f": {said}" if said else "")
            if error.status_code in _AGAIN:
                return _Later(text, _pause(error.response.headers.get("retry-after")))
            return EndpointError(text + _hint(error.status_code, said))
        if isinstance(error, openai.APITimeoutError) or "Timeout" in type(error).__name__:
            return EndpointError(f"{self.url}: no reply within {seconds:g} s")
        if isinstance(error, openai.APIConnectionError) or type(error).__module__.startswith("httpx"):
            cause = error.__cause__ or error
            return _Later(f"{self.url}: no connection ({_one_line(str(cause)) or type(cause).__name__})", None)
        return error


class _Later(Exception):
    """Another try may help."""

    def __init__(self, text: str, pause: float | None) -> None:
        """pause: the seconds that the endpoint asks for."""
        super().__init__(text)
        self.pause = pause


def _package() -> Any:
    try:
        import openai
    except ImportError as error:
        raise InvalidRequest("openai is not installed: pip install 'kosmos-edge[agent]'") from error
    return openai


def _sleep(seconds: float, stopped: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if stopped():
            raise Cancelled("cancelled by the caller")
        time.sleep(min(left, _POLL_SECONDS))


def _pause(header: str | None) -> float | None:
    """The seconds of a Retry-After header; None without one, or if it is a date."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _said(error: Any) -> str:
    """The message of an error's body."""
    body = error.body
    if isinstance(body, dict):
        inner = body.get("error", body)
        body = inner.get("message", inner) if isinstance(inner, dict) else inner
    return _one_line(body if isinstance(body, str) else json.dumps(body) if body else "")


def _one_line(text: str) -> str:
    plain = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(plain.split())[:_EXCERPT]


def _hint(status: int, said: str) -> str:
    if status in (401, 403):
        return f" (the key is taken from {KEY_VARIABLE} in the environment)"
    if status == 404:
        return " (the address mostly ends with /v1, and the model's name must be one that the endpoint has)"
    if status in (400, 422, 501) and "tool" in said.lower():
        return " (a model without function calling needs the text protocol: --react)"
    if status in (400, 422) and "temperature" in said.lower():
        return " (--llm-temperature none sends none)"
    return ""


# ---- replies


def parse(data: bytes, url: str) -> Reply:
    """The reply of a response's body; EndpointError says what it is instead."""
    wrong = _complaint(data, url, "chat completion")
    body, choice = _choice(data, wrong, "message")
    message = choice.get("message")
    if not isinstance(message, dict):
        raise wrong("no choices[0].message")
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise wrong("tool_calls is no list")
    finish = choice.get("finish_reason")
    return Reply(
        _text(message, wrong),
        [_call(call) for call in calls],
        finish if isinstance(finish, str) else None,
        _usage(body.get("usage")),
        len(data),
    )


def parse_completion(data: bytes, url: str) -> Completion:
    """The text completion of a response's body; EndpointError says what it is instead."""
    wrong = _complaint(data, url, "completion")
    body, choice = _choice(data, wrong, "text")
    text = choice.get("text")
    if not isinstance(text, str):
        raise wrong("no choices[0].text")
    return Completion(clean(text), _tokens(choice.get("logprobs")), _usage(body.get("usage")))


def _tokens(found: Any) -> list[tuple[str, float]] | None:
    """Tokens and ln p, in either form: lists side by side, or a list of objects (llama.cpp)."""
    if not isinstance(found, dict):
        return None
    rows: list[tuple[Any, Any]]
    if isinstance(found.get("content"), list):
        rows = [(one.get("token"), one.get("logprob")) for one in found["content"] if isinstance(one, dict)]
        whole = len(rows) == len(found["content"])
    else:
        tokens, values = found.get("tokens"), found.get("token_logprobs")
        if not isinstance(tokens, list) or not isinstance(values, list):
            return None
        rows, whole = list(zip(tokens, values, strict=False)), len(tokens) == len(values)
    if not whole or not all(isinstance(t, str) and type(p) in (int, float) and math.isfinite(p) for t, p in rows):
        return None
    return [(clean(token), float(value)) for token, value in rows]


def _complaint(data: bytes, url: str, expected: str) -> Callable[[str], EndpointError]:
    def wrong(what: str) -> EndpointError:
        shown = _one_line(data[: 4 * _EXCERPT].decode("utf-8", "replace"))
        return EndpointError(f"{url}: the reply is no {expected} ({what}): {shown or 'it is empty'}")

    return wrong


def _choice(data: bytes, wrong: Callable[[str], EndpointError], part: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the whole reply, its first choice or {})"""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise wrong("no JSON") from None
    if not isinstance(body, dict):
        raise wrong("no object")
    if body.get("error"):
        raise wrong("it holds an error")
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return body, choice if isinstance(choice, dict) else {}


def _text(message: Mapping[str, Any], wrong: Callable[[str], EndpointError]) -> str:
    content = message.get("content")
    if content is None:
        content = message.get("refusal") or ""
    if isinstance(content, list):  # parts
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(text for text in texts if isinstance(text, str))
    if not isinstance(content, str):
        raise wrong("content is no text")
    return clean(content)


def _call(call: Any) -> RawCall:
    """What is missing or of another type becomes empty: the tool's error tells it to the language model."""
    function = call.get("function") if isinstance(call, dict) else None
    inner = function if isinstance(function, dict) else {}
    found = call.get("id") if isinstance(call, dict) else None
    id, name = (clean(text) if isinstance(text, str) else "" for text in (found, inner.get("name")))
    return RawCall(id, name, inner.get("arguments", ""))


def clean(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which no request could hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _usage(usage: Any) -> dict[str, int] | None:
    found: dict[str, int] = {}
    for name in ("prompt_tokens", "completion_tokens"):
        value = usage.get(name) if isinstance(usage, dict) else None
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            return None
        found[name] = value
    return found if found["prompt_tokens"] else None  # some endpoints report nothing as zeros


__all__ = [
    "KEY_VARIABLE",
    "Completion",
    "Endpoint",
    "RawCall",
    "Reply",
    "check_url",
    "clean",
    "parse",
    "parse_completion",
]
