"""Moondream's routes: /v1/caption, /v1/query, /v1/detect and /v1/point, as its client has them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from kosmos_edge.results import Box, Result, TextDelta
from kosmos_edge.server.conversation import Message, build
from kosmos_edge.server.errors import refuse
from kosmos_edge.server.fields import Field, Fields, take
from kosmos_edge.server.pictures import Source
from kosmos_edge.server.routes.openai import check_image_url, event, failed_event, without_sampling
from kosmos_edge.server.routes.ours import verb
from kosmos_edge.server.service import Call, Context, Streamed

IMAGE = Field("string", "data:image/...;base64,...; http(s): and file: where the server allows them.", True)
MODEL = Field("string", "The model's name. Default: the one that is served.")
STREAM = Field("boolean", "Send the text in parts, as server-sent events.")
SETTINGS: Fields = {
    "temperature": Field("number"),
    "top_p": Field("number"),
    "max_tokens": Field("integer"),
    "max_objects": Field("integer"),
    "variant": Field("string", "there is one variant of the model", values=("",), neutral=True),
}
SETTINGS_FIELD = Field("object", "temperature, top_p, max_tokens; max_objects of detect and point.")
REFS = Field("array", "references to places are not taken; /v1/describe has boxes", values=([],), neutral=True)
CAPTION: Fields = {
    "image_url": IMAGE,
    "length": Field("string", "normal is the same as short.", values=("short", "normal", "long")),
    "stream": STREAM,
    "settings": SETTINGS_FIELD,
    "model": MODEL,
}
QUERY: Fields = {
    "image_url": Field("string", IMAGE.about),
    "question": Field("string", "The question.", True),
    "stream": STREAM,
    "settings": SETTINGS_FIELD,
    "model": MODEL,
    "reasoning": Field("boolean", "the model does not reason", values=(False,), neutral=True),
    "spatial_refs": REFS,
}
FIND: Fields = {
    "image_url": IMAGE,
    "object": Field("string", "What to find.", True),
    "settings": SETTINGS_FIELD,
    "model": MODEL,
    "stream": Field("boolean", "places do not come in parts", values=(False,), neutral=True),
    "spatial_refs": REFS,
}


def _settings(body: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
    """(options, max_objects)."""
    given = take(body.get("settings", {}), SETTINGS, "settings")
    most = given.pop("max_objects", None)
    if most is not None and most < 1:
        raise refuse("settings.max_objects", f"expected at least 1, got {most}")
    given.pop("variant", None)
    return without_sampling(given), most


def _sources(context: Context, body: Mapping[str, Any]) -> list[Source]:
    if "image_url" not in body:
        return []
    return context.sources([check_image_url(body["image_url"], "image_url")], ["image_url"])


async def caption(context: Context) -> Response:
    """POST /v1/caption."""
    body = take(await context.json(), CAPTION)
    context.check_model(body.get("model"))
    options, _ = _settings(body)
    sources = _sources(context, body)
    length = "long" if body.get("length") == "long" else "short"
    arguments = {"length": length, "ground": False, "lead_in": False, "examples": ()}
    plan = verb("caption", sources[0], arguments, options)
    call = await context.start(plan, sources, stream=body.get("stream", False))
    return await _text(context, call, "caption", body.get("stream", False))


async def query(context: Context) -> Response:
    """POST /v1/query; without an image the question stands alone."""
    body = take(await context.json(), QUERY)
    context.check_model(body.get("model"))
    options, _ = _settings(body)
    sources = _sources(context, body)
    if not body["question"].strip():
        raise refuse("question", "expected some text")
    plan = build([Message("user", body["question"], list(range(len(sources))))], sources, options)
    call = await context.start(plan, sources, stream=body.get("stream", False))
    return await _text(context, call, "answer", body.get("stream", False))


async def _text(context: Context, call: Call, name: str, stream: bool) -> Response:
    if stream:
        await call.first()
        return Streamed(_chunks(call), failed_event, "text/event-stream")
    result = await call.result()
    reason = "length" if result.finish_reason == "length" else "stop"
    return JSONResponse({"request_id": context.id, name: result.text, "finish_reason": reason})


async def _chunks(call: Call) -> AsyncIterator[bytes]:
    async for item in call.events():
        if isinstance(item, TextDelta):
            yield event({"chunk": item.text, "completed": False})
    yield event({"chunk": "", "completed": True})


async def _find(context: Context) -> list[Box]:
    body = take(await context.json(), FIND)
    context.check_model(body.get("model"))
    options, most = _settings(body)
    sources = _sources(context, body)
    arguments = {"phrase": body["object"], "template": None}
    call = await context.start(verb("locate", sources[0], arguments, options), sources)
    result: Result = await call.result()
    return [box for box in result.boxes if box.valid][:most]


async def detect(context: Context) -> Response:
    """POST /v1/detect: boxes in fractions of the image, with a score, which Moondream's own do not have."""
    found = [
        {**dict(zip(("x_min", "y_min", "x_max", "y_max"), box.normalized, strict=True)), "score": box.score}
        for box in await _find(context)
    ]
    return JSONResponse({"request_id": context.id, "objects": found})


async def point(context: Context) -> Response:
    """POST /v1/point: the centres of the boxes."""
    found = []
    for box in await _find(context):
        x1, y1, x2, y2 = box.normalized
        found.append({"x": (x1 + x2) / 2, "y": (y1 + y2) / 2})
    return JSONResponse({"request_id": context.id, "points": found, "count": len(found)})
