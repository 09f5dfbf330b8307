"""Our own routes, one per verb: ground, locate, describe, read and score. Answers are Result.to_dict()."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, get_args

from starlette.responses import JSONResponse, Response

from kosmos_edge.inference import tasks
from kosmos_edge.model import Model
from kosmos_edge.options import Normalize
from kosmos_edge.results import EntityEvent, Ranking, Result, TextDelta
from kosmos_edge.server.errors import ApiError, refuse
from kosmos_edge.server.fields import Field, Fields, take
from kosmos_edge.server.pictures import Source
from kosmos_edge.server.routes.openai import event
from kosmos_edge.server.service import Asked, Call, Context, Streamed

IMAGE = Field("string", "A data: URI or base64; http(s): and file: where the server allows them.", True)
BOX = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
OPTIONS: dict[str, Field] = {
    "max_tokens": Field("integer", "The longest answer, in tokens."),
    "temperature": Field("number", "0 (the default): always the likeliest token."),
    "top_k": Field("integer", "Samples from that many tokens; needs a temperature."),
    "degeneration_penalty": Field("number", "0 (off) .. 1: contrastive search among top_k tokens."),
    "image_weight": Field("number", "0 (off) .. 100: prefers tokens that fit the image."),
    "guide": Field("string", '"self", the default: what image_weight goes by.'),
    "top_p": Field("number", "Samples from the likeliest tokens of this probability; needs a temperature."),
    "seed": Field("integer", "Of the sampling. Default: 0."),
    "num_beams": Field("integer", "Beams of a beam search; 1 (the default): none."),
    "length_penalty": Field("number", "Of the beams."),
    "no_repeat_ngram_size": Field("integer", "No stretch of that many tokens comes twice. 0: off."),
    "repetition_penalty": Field("number", "Above 1: repeats become less likely. Default: the model's; 1: off."),
    "stop": Field("string|array", "A text, or several, that ends the answer."),
    "logprobs": Field("boolean", "Give ln p of every token."),
    "top_logprobs": Field("integer", "Give the likeliest tokens at each place, too, so many of them; 0..20."),
    "min_score": Field("number", "Leave out boxes with a lower score, 0..1."),
    "grammar": Field("boolean", "Keep location tokens well formed. Default: true."),
}
COMMON: dict[str, Field] = {
    "model": Field("string", "The model's name. Default: the one that is served."),
    "image": IMAGE,
    "stream": Field("boolean", "Send events text, entity and done."),
    **OPTIONS,
}
TEMPLATE = Field("string", "Words instead of the model's own prompt, with the verb's place in braces.")
LEAD_IN = Field("boolean", "Begin the text with the prompt's words.")
GROUND: Fields = {
    **COMMON,
    "prompt": Field("string", "Words to continue. Default: those of a short caption."),
    "length": Field("string", "A caption of this length, instead of a prompt.", values=("short", "long")),
    "lead_in": LEAD_IN,
}
LOCATE: Fields = {**COMMON, "phrase": Field("string", "What to find.", True), "template": TEMPLATE}
DESCRIBE: Fields = {
    **COMMON,
    "box": Field("array", "x1, y1, x2, y2 in pixels of the upright image.", True, schema=BOX),
    "normalized": Field("boolean", "The box is in fractions of the image, 0..1."),
    "ground": Field("boolean", "The text may have boxes. Default: true."),
    "lead_in": LEAD_IN,
    "template": TEMPLATE,
}
READ: Fields = {**COMMON, "markdown": Field("boolean", "The page as Markdown, without boxes."), "template": TEMPLATE}
SEGMENT: Fields = {
    "text": Field("string", "Words."),
    "image": Field("string", IMAGE.about),
    "box": Field("array", "x1, y1, x2, y2 in pixels of the image before it.", schema=BOX),
}
SCORE: Fields = {
    "model": COMMON["model"],
    "image": Field("string", IMAGE.about),
    "segments": Field(
        "array",
        "Instead of image and template: what the texts stand behind, each a text, an image or a box.",
        schema={
            "type": "array",
            "items": {"type": "object", "properties": {name: field.to_schema() for name, field in SEGMENT.items()}},
        },
    ),
    "texts": Field("array", "Texts to rank by their likelihood.", True),
    "template": Field("string", "Words around {text}. Default: the model's caption prompt."),
    "normalize": Field("string", "What to rank by; default: sum.", values=get_args(Normalize)),
}
DEFAULTS: dict[str, dict[str, Any]] = {  # the verb's arguments besides the image
    "ground": {"prompt": None, "lead_in": False},
    "locate": {"phrase": None, "template": None},
    "describe": {
        "box": None,
        "normalized": False,
        "ground": True,
        "lead_in": False,
        "examples": (),
        "template": None,
    },
    "read": {"markdown": False, "template": None},
}


def verb(
    task: str, source: Source, arguments: Mapping[str, Any], options: Mapping[str, Any]
) -> Callable[[Model], Asked]:
    """What a verb about one image asks for."""
    return lambda model: Asked(tasks.PLANS[task](model.model_info, source.shown, **arguments), options)


def route(task: str, fields: Fields) -> Callable[[Context], Awaitable[Response]]:
    """The handler of a generating verb."""

    async def handle(context: Context) -> Response:
        body = take(await context.json(), fields)
        context.check_model(body.get("model"))
        [source] = context.sources([body["image"]], ["image"])
        asked = task
        arguments = {name: body.get(name, default) for name, default in DEFAULTS[task].items()}
        if "length" in body:
            if "prompt" in body:
                raise refuse("length", "contradicts prompt; give one of them")
            asked = "caption"
            arguments = {"length": body["length"], "ground": True, "lead_in": arguments["lead_in"], "examples": ()}
        options = {name: body[name] for name in OPTIONS if name in body}
        stream = body.get("stream", False)
        call = await context.start(verb(asked, source, arguments, options), [source], stream=stream)
        if not stream:
            return JSONResponse(_answer(await call.result()))
        await call.first()
        return Streamed(_events(call), _failed, "text/event-stream")

    return handle


async def _events(call: Call) -> AsyncIterator[bytes]:
    async for item in call.events():
        if isinstance(item, TextDelta):
            yield event({"text": item.text, "tokens": item.tokens}, "text")
        elif isinstance(item, EntityEvent):
            yield event({"entity": item.entity.to_dict(), "tokens": item.tokens}, "entity")
        else:
            yield event(_answer(item.result), "done")


def _failed(error: ApiError) -> bytes:
    return event(error.to_dict(), "error")


def _answer(result: Result | Ranking) -> dict[str, Any]:
    """The result as JSON, without what is about files and failed entries of a batch."""
    return {name: value for name, value in result.to_dict().items() if name not in ("path", "error", "error_type")}


async def score(context: Context) -> Response:
    """POST /v1/score."""
    body = take(await context.json(), SCORE)
    context.check_model(body.get("model"))
    if "segments" in body:
        for name in ("image", "template"):
            if name in body:
                raise refuse(name, "contradicts segments; give one of them")
        return await _score_segments(context, body)
    sources = context.sources([body["image"]], ["image"]) if "image" in body else []
    shown = sources[0].shown if sources else None

    def build(model: Model) -> Asked:
        normalize = body.get("normalize", "sum")
        plan = tasks.plan_score(model.model_info, body["texts"], body.get("template"), normalize)
        return Asked(plan, image=shown)

    call = await context.start(build, sources)
    return JSONResponse(_answer(await call.ranking()))


async def _score_segments(context: Context, body: Mapping[str, Any]) -> Response:
    """Texts behind images, texts and boxes in any order (Model.score_segments)."""
    found: list[tuple[str, str, Any]] = []  # place, kind, value
    for number, given in enumerate(body["segments"]):
        name = f"segments[{number}]"
        segment = take(given, SEGMENT, name)
        if len(segment) != 1:
            raise refuse(name, f"expected one of text, image and box, got {', '.join(segment) or 'none'}")
        [(kind, value)] = segment.items()
        found.append((f"{name}.{kind}", kind, value))
    pictures = [(place, value) for place, kind, value in found if kind == "image"]
    sources = context.sources([value for _, value in pictures], [place for place, _ in pictures])
    shown = iter(sources)
    segments = [next(shown).shown if kind == "image" else value for _, kind, value in found]

    def build(model: Model) -> Asked:
        normalize = body.get("normalize", "sum")
        plan = tasks.plan_score_segments(model.model_info, segments, body["texts"], False, False, normalize)
        return Asked(plan)

    call = await context.start(build, sources)
    return JSONResponse(_answer(await call.ranking()))


ground, locate = route("ground", GROUND), route("locate", LOCATE)
describe, read = route("describe", DESCRIBE), route("read", READ)
