"""Ollama's routes: /api/generate, /api/chat, /api/tags, /api/show, /api/ps and /api/version."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.responses import JSONResponse, Response

from kosmos_edge import __version__
from kosmos_edge.inference import tasks
from kosmos_edge.model import Model
from kosmos_edge.results import Done, Result, TextDelta
from kosmos_edge.server.conversation import Message, build
from kosmos_edge.server.errors import ApiError, refuse
from kosmos_edge.server.fields import Field, Fields, take
from kosmos_edge.server.pictures import Source
from kosmos_edge.server.routes.openai import logprob_options, token_logprobs, without_sampling
from kosmos_edge.server.service import Asked, Call, Context, Streamed

LINES = "application/x-ndjson"
NO_TOOLS = "the use of tools is not there with this model"
COMMON: dict[str, Field] = {
    "model": Field("string", "The model's name, as /api/tags has it.", True),
    "stream": Field("boolean", "One JSON line per part of the answer. Default: true."),
    "options": Field("object", "temperature, top_k, top_p, seed, num_predict, stop; others only without effect."),
    "keep_alive": Field("string|number", 'For how long the model stays loaded when idle: seconds, "5m", -1: for ever.'),
    "logprobs": Field("boolean", "ln p of every token, with the last part."),
    "top_logprobs": Field("integer", "How many of the likeliest tokens at each place are given, too; needs logprobs."),
    "format": Field("string|object", "an answer in a given format is not made", values=("",), neutral=True),
    "think": Field("boolean|string", "the model does not think", values=(False,), neutral=True),
}
IMAGES = Field("array", "Images in base64.", schema={"type": "array", "items": {"type": "string"}})
GENERATE: Fields = {
    **COMMON,
    "id": Field("string", "The sender's number of the request, which is not used: PhotoPrism sends one."),
    "prompt": Field("string", "The question. Empty with images: they are captioned; without any: loads the model."),
    "images": IMAGES,
    "system": Field("string", "Stands before the question."),
    "raw": Field("boolean", "The prompt as it is, with its tags, behind the images."),
    "suffix": Field("string", "filling in is not there with this model", values=("",), neutral=True),
    "template": Field("string", "templates are not taken", values=("",), neutral=True),
    "context": Field("array", "a context is not taken; /api/chat has messages", values=([],), neutral=True),
}
CHAT: Fields = {
    **COMMON,
    "messages": Field("array", "Messages of system, user and assistant.", True),
    "tools": Field("array", NO_TOOLS, values=([],), neutral=True),
}
MESSAGE: Fields = {
    "role": Field("string", required=True, values=("system", "user", "assistant")),
    "content": Field("string"),
    "images": IMAGES,
    "thinking": Field("string", "the model does not think", values=("",), neutral=True),
    "tool_calls": Field("array", NO_TOOLS, values=([],), neutral=True),
}
SHOW: Fields = {"model": Field("string"), "name": Field("string"), "verbose": Field("boolean")}
_ANY = "boolean|integer|number"
_LACKS = "this way of sampling is not there"
OPTIONS: Fields = {
    "temperature": Field("number"),
    "top_k": Field("integer"),
    "top_p": Field("number"),
    "seed": Field("integer"),
    "num_predict": Field("integer"),
    "stop": Field("string|array"),
    "num_ctx": Field("integer"),
    **{
        name: Field(_ANY)  # about memory and speed: these do not change an answer
        for name in (
            *("numa", "num_batch", "num_gpu", "main_gpu", "low_vram", "f16_kv", "use_mmap", "use_mlock", "num_thread"),
            *("num_keep", "penalize_newline", "repeat_last_n", "mirostat_tau", "mirostat_eta"),
        )
    },
    "repeat_penalty": Field("number", _LACKS, values=(1,), neutral=True),
    "presence_penalty": Field("number", _LACKS, values=(0,), neutral=True),
    "frequency_penalty": Field("number", _LACKS, values=(0,), neutral=True),
    "min_p": Field("number", _LACKS, values=(0,), neutral=True),
    "tfs_z": Field("number", _LACKS, values=(1,), neutral=True),
    "typical_p": Field("number", _LACKS, values=(1,), neutral=True),
    "mirostat": Field("integer", _LACKS, values=(0,), neutral=True),
}
LONGEST = 10**9  # seconds
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|s|m|h)")


def _options(context: Context, body: Mapping[str, Any]) -> dict[str, Any]:
    """Our options for Ollama's."""
    given = take(body.get("options", {}), OPTIONS, "options")
    positions = context.service.keeper.about.context_length
    if given.get("num_ctx", 0) > positions:
        raise refuse("options.num_ctx", f"the model has {positions} positions, got {given['num_ctx']}")
    found: dict[str, Any] = {name: given[name] for name in ("temperature", "top_p", "seed", "stop") if name in given}
    if given.get("top_k", 0) > 0:  # 0: off
        found["top_k"] = given["top_k"]
    if given.get("num_predict", -1) not in (-1, -2):  # the model's own length; as far as the context goes
        found["max_tokens"] = given["num_predict"]
    found |= logprob_options(body)
    if not found.get("stop", True):
        del found["stop"]
    return without_sampling(found)


def _keep_alive(context: Context, body: Mapping[str, Any]) -> None:
    """Takes over for how long the model stays; the last request's word counts, as it does for Ollama."""
    value = body.get("keep_alive")
    if value is None:
        return
    keeper = context.service.keeper
    seconds = value if isinstance(value, int | float) else _seconds(value)
    if not seconds <= LONGEST:
        raise refuse("keep_alive", f"expected at most {LONGEST} seconds (-1: for ever)")
    keeper.keep_alive = None if seconds < 0 else float(seconds)


def _seconds(text: str) -> float:
    plain = text.strip().removeprefix("-")
    if re.fullmatch(rf"(?:{_DURATION.pattern})+", plain):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(plain))
    else:
        try:
            seconds = float(plain)
        except ValueError:
            raise refuse("keep_alive", f'expected seconds or a time such as "5m", got {text[:40]!r}') from None
    return -seconds if text.strip().startswith("-") else seconds


async def generate(context: Context) -> Response:
    """POST /api/generate."""
    body = take(await context.json(), GENERATE)
    context.check_model(body["model"])
    options = _options(context, body)
    _keep_alive(context, body)
    images, prompt = _texts(body, "images"), body.get("prompt", "")
    if not images and not prompt.strip():
        return await _only_load(context)
    sources = context.sources(images, [f"images[{number}]" for number in range(len(images))])
    plan: Callable[[Model], Asked]
    if body.get("raw"):
        plan = _raw(prompt, sources, options)
    else:
        messages = [Message("user", prompt, list(range(len(images))))]
        if body.get("system", "").strip():
            messages.insert(0, Message("system", body["system"]))
        plan = build(messages, sources, options)
    return await _answer(context, plan, sources, body, lambda text: {"response": text})


def _raw(prompt: str, sources: Sequence[Source], options: Mapping[str, Any]) -> Callable[[Model], Asked]:
    segments: list[Any] = [source.shown for source in sources]
    if prompt.strip():
        segments.append(prompt)
    return lambda model: Asked(tasks.plan_generate(model.model_info, segments, True, False, False), options)


async def _only_load(context: Context) -> Response:
    """An empty request loads the model, or with keep_alive 0 unloads it."""
    keeper = context.service.keeper
    reason = "unload" if keeper.keep_alive == 0 else "load"
    if reason == "load":
        async with keeper.use():
            pass
    keeper.unload() if reason == "unload" else keeper.settle()
    return JSONResponse({**_head(context), "response": "", "done": True, "done_reason": reason})


async def chat(context: Context) -> Response:
    """POST /api/chat."""
    body = take(await context.json(), CHAT)
    context.check_model(body["model"])
    options = _options(context, body)
    _keep_alive(context, body)
    if not body["messages"]:
        return await _only_load(context)
    images: list[str] = []
    params: list[str] = []
    messages = []
    for number, item in enumerate(body["messages"]):
        name = f"messages[{number}]"
        message = take(item, MESSAGE, name)
        given = _texts(message, "images", f"{name}.")
        if given and message["role"] != "user":
            raise refuse(f"{name}.images", "only the user's messages may have images")
        numbers = list(range(len(images), len(images) + len(given)))
        images += given
        params += [f"{name}.images[{place}]" for place in range(len(given))]
        messages.append(Message(message["role"], message.get("content", ""), numbers))
    sources = context.sources(images, params)
    plan = build(messages, sources, options)
    return await _answer(context, plan, sources, body, lambda text: {"message": {"role": "assistant", "content": text}})


def _texts(body: Mapping[str, Any], name: str, prefix: str = "") -> list[str]:
    values = body.get(name, [])
    for number, value in enumerate(values):
        if not isinstance(value, str):
            raise refuse(f"{prefix}{name}[{number}]", "expected an image in base64")
    return list(values)


async def _answer(
    context: Context,
    plan: Callable[[Model], Asked],
    sources: Sequence[Source],
    body: Mapping[str, Any],
    put: Callable[[str], dict[str, Any]],
) -> Response:
    """put: where a part of the text goes in a line."""
    stream = body.get("stream", True)
    call = await context.start(plan, sources, stream=stream)
    if not stream:
        result = await call.result()
        return JSONResponse({**_head(context), **put(result.text), **_last(context, result)})
    await call.first()
    return Streamed(_lines(context, call, put), _failed, LINES)


async def _lines(context: Context, call: Call, put: Callable[[str], dict[str, Any]]) -> AsyncIterator[bytes]:
    async for item in call.events():
        if isinstance(item, TextDelta):
            yield _line({**_head(context), **put(item.text), "done": False})
        elif isinstance(item, Done):
            yield _line({**_head(context), **put(""), **_last(context, item.result)})


def _line(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _failed(error: ApiError) -> bytes:
    return _line({"error": error.message})


def _head(context: Context) -> dict[str, Any]:
    return {"model": context.service.keeper.about.id, "created_at": _time(datetime.now(UTC))}


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _last(context: Context, result: Result) -> dict[str, Any]:
    timings = result.timings
    found: dict[str, Any] = {
        "done": True,
        "done_reason": "length" if result.finish_reason == "length" else "stop",
        "total_duration": int(timings.total_ms * 1e6),
        "load_duration": 0,
        "prompt_eval_count": timings.prompt_tokens,
        "prompt_eval_duration": int(timings.prefill_ms * 1e6),
        "eval_count": timings.tokens,
        "eval_duration": int(timings.decode_ms * 1e6),
    }
    if result.logprobs is not None:
        found["logprobs"] = token_logprobs(context.tokenizer, result)
    return found


# ---- the model


def _name(context: Context) -> str:
    name = context.service.keeper.about.id
    return name if ":" in name else f"{name}:latest"


def _details(context: Context) -> dict[str, Any]:
    about = context.service.keeper.about
    family = str(about.info["architecture"])
    size = str(about.metadata.get("general.size_label", ""))
    return {"parent_model": "", "format": "gguf", "family": family, "families": [family], "parameter_size": size}


def _entry(context: Context) -> dict[str, Any]:
    name, size = _name(context), context.service.keeper.about.bytes
    return {"name": name, "model": name, "size": size, "details": _details(context)}


async def tags(context: Context) -> Response:
    """GET /api/tags."""
    modified = _time(datetime.fromtimestamp(context.service.keeper.about.modified, UTC))
    return JSONResponse({"models": [{**_entry(context), "modified_at": modified}]})


async def running(context: Context) -> Response:
    """GET /api/ps: the model, while it is loaded."""
    keeper = context.service.keeper
    if not keeper.loaded:
        return JSONResponse({"models": []})
    seconds = 100 * 365 * 86400 if keeper.keep_alive is None else keeper.keep_alive
    until = _time(datetime.now(UTC) + timedelta(seconds=seconds))
    return JSONResponse({"models": [{**_entry(context), "expires_at": until}]})


async def show(context: Context) -> Response:
    """POST /api/show."""
    body = take(await context.json(), SHOW)
    context.check_model(body.get("model", body.get("name")))
    about = context.service.keeper.about
    facts = {name: value for name, value in about.metadata.items() if isinstance(value, str | int | float | bool)}
    return JSONResponse(
        {
            "details": _details(context),
            "model_info": facts,
            "capabilities": ["completion", "vision"],
            "license": str(about.metadata.get("general.license", "")),
            "modified_at": _time(datetime.fromtimestamp(about.modified, UTC)),
        }
    )


async def version(context: Context) -> Response:
    """GET /api/version."""
    return JSONResponse({"version": __version__})
