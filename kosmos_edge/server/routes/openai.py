"""OpenAI's routes: /v1/chat/completions and /v1/models."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from kosmos_edge._native import _core
from kosmos_edge.results import Done, EntityEvent, Result, TextDelta
from kosmos_edge.server.conversation import Message, build
from kosmos_edge.server.errors import ApiError, refuse
from kosmos_edge.server.fields import Field, take
from kosmos_edge.server.service import Call, Context, Streamed

LACKS = "is not there with this model"
CHAT: dict[str, Field] = {
    "model": Field("string", "The model's name, as /v1/models has it. Default: the one that is served."),
    "messages": Field(
        "array", "Messages of system, user and assistant; content is a text or parts of type text and image_url.", True
    ),
    "max_completion_tokens": Field("integer", "The longest answer, in tokens."),
    "max_tokens": Field("integer", "The same, by its older name."),
    "temperature": Field("number", "0 (the default): always the likeliest token."),
    "top_p": Field("number", "Samples from the likeliest tokens that have this probability together."),
    "top_k": Field("integer", "Samples from that many tokens."),
    "seed": Field("integer", "Of the sampling. Default: 0."),
    "stop": Field("string|array", "A text, or several, that ends the answer."),
    "stream": Field("boolean", "Sends the answer in parts, as server-sent events."),
    "stream_options": Field("object", '{"include_usage": true} sends the usage before [DONE].'),
    "logprobs": Field("boolean", "ln p of every token; in a stream with its last part."),
    "no_repeat_ngram_size": Field("integer", "No stretch of that many tokens comes twice. 0: off."),
    "ground": Field("boolean", "Answer with boxes, in message.grounding."),
    "min_score": Field("number", "Leave out boxes with a lower score, 0..1."),
    "choices": Field("array", "Texts; the answer is exactly one of them."),
    "n": Field("integer", f"more than one answer {LACKS}", values=(1,), neutral=True),
    "top_logprobs": Field("integer", "How many of the likeliest tokens at each place are given, too; needs logprobs."),
    "tools": Field("array", f"the use of tools {LACKS}", values=([],), neutral=True),
    "tool_choice": Field("string|object", f"the use of tools {LACKS}", values=("none", "auto"), neutral=True),
    "parallel_tool_calls": Field("boolean", "Without tools, has no effect."),
    "functions": Field("array", f"the use of functions {LACKS}", values=([],), neutral=True),
    "function_call": Field("string|object", f"the use of functions {LACKS}", values=("none",), neutral=True),
    "response_format": Field(
        "object", "an answer in a given format is not made", values=({"type": "text"},), neutral=True
    ),
    "frequency_penalty": Field("number", "this penalty is not there", values=(0,), neutral=True),
    "presence_penalty": Field("number", "this penalty is not there", values=(0,), neutral=True),
    "logit_bias": Field("object", "a bias of tokens is not there", values=({},), neutral=True),
    "modalities": Field("array", "only text is made", values=(["text"],), neutral=True),
    "store": Field("boolean", "nothing is stored", values=(False,), neutral=True),
    "user": Field("string", "Has no effect."),
    "metadata": Field("object", "Has no effect."),
}
MESSAGE = {
    "role": Field("string", required=True, values=("system", "developer", "user", "assistant")),
    "content": Field("string|array"),
    "name": Field("string"),
    "refusal": Field("string"),
    "tool_calls": Field("array", f"the use of tools {LACKS}", values=([],), neutral=True),
    "grounding": Field("array"),  # as our own answers have it
}
PART = {
    "type": Field("string", required=True, values=("text", "image_url")),
    "text": Field("string"),
    "image_url": Field("object|string"),
}
IMAGE = {
    "url": Field("string", required=True),
    "detail": Field("string", values=("auto", "low", "high")),  # of a model with one size all are the same
}
REASONS = {"length": "length"}  # Result.finish_reason -> OpenAI's; all others are "stop"


async def chat(context: Context) -> Response:
    """POST /v1/chat/completions."""
    body = take(await context.json(), CHAT)
    context.check_model(body.get("model"))
    urls: list[str] = []
    params: list[str] = []
    messages = [_message(item, number, urls, params) for number, item in enumerate(body["messages"])]
    if not messages:
        raise refuse("messages", "expected at least one")
    options = generation(body)
    usage_wanted = take(body.get("stream_options", {}), {"include_usage": Field("boolean")}, "stream_options")
    sources = context.sources(urls, params)
    stream = body.get("stream", False)
    plan = build(messages, sources, options, ground=body.get("ground", False), choices=body.get("choices"))
    call = await context.start(plan, sources, stream=stream)
    if not stream:
        return JSONResponse(_whole(context, await call.result()))
    await call.first()
    chunks = _chunks(context, call, usage_wanted.get("include_usage", False))
    return Streamed(chunks, failed_event, "text/event-stream")


def generation(body: Mapping[str, Any]) -> dict[str, Any]:
    """Our options for OpenAI's."""
    if "max_tokens" in body and "max_completion_tokens" in body:
        raise refuse("max_tokens", "contradicts max_completion_tokens; give one of them")
    names = ("temperature", "top_p", "top_k", "seed", "stop", "no_repeat_ngram_size", "min_score")
    options = {name: body[name] for name in names if name in body} | logprob_options(body)
    if "max_tokens" in body or "max_completion_tokens" in body:
        options["max_tokens"] = body.get("max_tokens", body.get("max_completion_tokens"))
    return without_sampling(options)


def logprob_options(body: Mapping[str, Any]) -> dict[str, Any]:
    """Our options for logprobs and top_logprobs."""
    if body.get("top_logprobs") and not body.get("logprobs"):
        raise refuse("top_logprobs", "needs logprobs: true")
    return {name: body[name] for name in ("logprobs", "top_logprobs") if name in body}


def without_sampling(options: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what has no effect at temperature 0, where these clients send it nevertheless."""
    if not options.get("temperature"):
        options.pop("top_k", None)
        if 0 < options.get("top_p", 1) <= 1:
            options.pop("top_p", None)
    return options


def _message(item: Any, number: int, urls: list[str], params: list[str]) -> Message:
    name = f"messages[{number}]"
    message = take(item, MESSAGE, name)
    role, content = message["role"], message.get("content", "")
    role = "system" if role == "developer" else role
    if isinstance(content, str):
        return Message(role, content)
    texts: list[str] = []
    images: list[int] = []
    for place, given in enumerate(content):
        where = f"{name}.content[{place}]"
        part = take(given, PART, where)
        if part["type"] == "text":
            if "text" not in part:
                raise refuse(f"{where}.text", "is missing")
            texts.append(part["text"])
            continue
        if role != "user":
            raise refuse(where, "only the user's messages may have images")
        image = part.get("image_url")
        url = image if isinstance(image, str) else take(image, IMAGE, f"{where}.image_url")["url"]
        images.append(len(urls))
        urls.append(check_image_url(url, f"{where}.image_url.url"))
        params.append(f"{where}.image_url.url")
    return Message(role, "\n".join(texts), images)


def check_image_url(url: str, param: str) -> str:
    """A URL, not bare base64, which has no scheme."""
    if not url[:6].lower().startswith(("data:", "http:/", "https:", "file:")):
        raise refuse(param, "expected data:image/...;base64,...", code="invalid_image")
    return url


def usage(result: Result) -> dict[str, Any]:
    """Counts of tokens."""
    timings = result.timings
    return {
        "prompt_tokens": timings.prompt_tokens,
        "completion_tokens": timings.tokens,
        "total_tokens": timings.prompt_tokens + timings.tokens,
        "prompt_tokens_details": {"cached_tokens": timings.reused_tokens},
    }


def token_logprobs(tokenizer: _core.Tokenizer, result: Result) -> list[dict[str, Any]]:
    """ln p per token, with the likeliest ones if they were asked for; without tokens that have no characters, such as
    the end of the text."""

    def entry(token: int, value: float) -> dict[str, Any]:
        raw = tokenizer.bytes(token)
        return {"token": raw.decode("utf-8", "replace"), "logprob": value, "bytes": list(raw)}

    places = result.top_logprobs or [[]] * len(result.token_ids)
    return [
        {**entry(token, value), "top_logprobs": [entry(other.token_id, other.logprob) for other in others]}
        for token, value, others in zip(result.token_ids, result.logprobs or [], places, strict=True)
        if tokenizer.bytes(token)
    ]


def _logprobs(context: Context, result: Result) -> Any:
    if result.logprobs is None:
        return None
    return {"content": token_logprobs(context.tokenizer, result), "refusal": None}


def _head(context: Context, kind: str) -> dict[str, Any]:
    about = context.service.keeper.about
    return {"id": f"chatcmpl-{context.id}", "object": kind, "created": context.created, "model": about.id}


def _whole(context: Context, result: Result) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": result.text, "refusal": None}
    if result.entities:
        message["grounding"] = [entity.to_dict() for entity in result.entities]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": _logprobs(context, result),
        "finish_reason": REASONS.get(result.finish_reason, "stop"),
    }
    return {**_head(context, "chat.completion"), "choices": [choice], "usage": usage(result), **noted(result)}


def noted(result: Result) -> dict[str, Any]:
    """What was decided about the image or the request, where there is something to say."""
    return {"notes": result.notes} if result.notes else {}


async def _chunks(context: Context, call: Call, with_usage: bool) -> AsyncIterator[bytes]:
    head = _head(context, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], reason: str | None = None, logprobs: Any = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return event({**head, "choices": [choice]})

    yield chunk({"role": "assistant", "content": ""})
    async for item in call.events():
        if isinstance(item, TextDelta):
            yield chunk({"content": item.text})
        elif isinstance(item, EntityEvent):
            yield chunk({"grounding": [item.entity.to_dict()]})
        elif isinstance(item, Done):
            result = item.result
            head |= noted(result)
            yield chunk({}, REASONS.get(result.finish_reason, "stop"), _logprobs(context, result))
            if with_usage:
                yield event({**head, "choices": [], "usage": usage(result)})
    yield b"data: [DONE]\n\n"


def event(value: Any, name: str | None = None) -> bytes:
    """A server-sent event."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def failed_event(error: ApiError) -> bytes:
    """The event of an error in the middle of a stream."""
    return event(error.to_dict())


def _model_object(context: Context) -> dict[str, Any]:
    about = context.service.keeper.about
    return {"id": about.id, "object": "model", "created": int(about.modified), "owned_by": "kosmos-edge"}


async def models(context: Context) -> Response:
    """GET /v1/models."""
    return JSONResponse({"object": "list", "data": [_model_object(context)]})


async def model(context: Context) -> Response:
    """GET /v1/models/{id}."""
    context.check_model(context.request.path_params["id"])
    return JSONResponse(_model_object(context))
