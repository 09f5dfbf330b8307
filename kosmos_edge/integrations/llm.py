"""A plugin for Simon Willison's llm, which finds it by the entry point group llm:

    llm -m kosmos-edge/nano -a photo.png
    llm -m kosmos-edge/kosmos-2 -a photo.jpg "How many people are there?"

The models on this machine are there under kosmos-edge/TAG; kosmos-edge is the default one. An image without words is
captioned, or read by models that read. Words are a question, behind the questions and answers before it; a system text
stands before the first question.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import llm
from llm.parts import AttachmentPart, TextPart
from pydantic import Field

from kosmos_edge import hub
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.inference.async_calls import AsyncAnswer
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.loading import load
from kosmos_edge.model import Model
from kosmos_edge.options import GenerationOptions, limits
from kosmos_edge.results import Done, Result, TextDelta

NAME = "kosmos-edge"
# Those that llm tells apart by content and that are decoded without an extra, and HEIC.
TYPES = {f"image/{kind}" for kind in ("avif", "bmp", "gif", "heic", "heif", "jp2", "jpeg", "png", "tiff", "webp")}
_BOXES = re.compile(r"(?:\n[^\t\n]*\t[0-9. ]+\t(?:-|[0-9.]+))+$")  # the lines of _finish
_loaded: dict[str | None, Model] = {}


class Options(llm.Options):  # type: ignore[misc,unused-ignore]
    """Of one prompt; what is not set is the model's own."""

    max_tokens: int | None = Field(None, description="Maximum length of the answer", ge=1)
    temperature: float | None = Field(None, description="0: greedy", ge=0, le=limits.MAX_TEMPERATURE)
    top_k: int | None = Field(None, description="Sample among the K most likely tokens", ge=1)
    top_p: float | None = Field(None, description="Sample within this probability mass", gt=0, le=1)
    seed: int | None = Field(None, description="Of sampling", ge=0)
    num_beams: int | None = Field(None, description="Beam search", ge=1, le=limits.MAX_BEAMS)
    no_repeat_ngram_size: int | None = Field(None, description="Never repeat N tokens; 0: off", ge=0)
    length: Literal["short", "long"] | None = Field(None, description="Of a caption")
    ground: bool | None = Field(None, description="With boxes, a line each: phrase, corners in pixels, score")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A verb of a model and its arguments."""

    call: Callable[..., Any]
    arguments: dict[str, Any]


class _Shared:
    """What the model and its twin for asyncio have in common."""

    can_stream = True
    attachment_types = TYPES
    Options = Options

    def __init__(self, tag: str | None) -> None:
        self.tag = tag
        self.model_id = NAME if tag is None else f"{NAME}/{tag}"

    def _asked(self, prompt: Any) -> tuple[Model, _Asked]:
        if self.tag not in _loaded:
            _loaded[self.tag] = load(self.tag)
        return _loaded[self.tag], _request(_loaded[self.tag], prompt)


class KosmosEdge(_Shared, llm.Model):  # type: ignore[misc,unused-ignore]
    """A model for llm.get_model()."""

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[str]:
        """The parts of the answer."""
        _, asked = self._asked(prompt)
        for event in asked.call(**asked.arguments, stream=True):
            if isinstance(event, TextDelta):
                yield event.text
            elif isinstance(event, Done):
                yield from _finish(response, event.result)


class AsyncKosmosEdge(_Shared, llm.AsyncModel):  # type: ignore[misc,unused-ignore]
    """A model for llm.get_async_model()."""

    async def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> AsyncIterator[str]:
        """The parts of the answer."""
        model, asked = self._asked(prompt)
        async for event in AsyncAnswer(model, asked.call, asked.arguments):
            if isinstance(event, TextDelta):
                yield event.text
            elif isinstance(event, Done):
                for text in _finish(response, event.result):
                    yield text


@llm.hookimpl  # type: ignore[untyped-decorator,unused-ignore]
def register_models(register: Callable[..., None]) -> None:
    """The models on this machine."""
    for tag in (None, *(found.tag for found in hub.list_models())):
        register(KosmosEdge(tag), AsyncKosmosEdge(tag))


# ---- inside


def _request(model: Model, prompt: Any) -> _Asked:
    """What a prompt asks for: a caption, a page's text, or the answer to a question."""
    options = {name: value for name, value in prompt.options.model_dump().items() if value is not None}
    length, ground = options.pop("length", None), options.pop("ground", False)
    turns, image, question = _turns(model, prompt.messages)
    if question.strip():
        if length is not None:
            raise InvalidRequest("length: goes with a caption, not with a question")

        def answer(stream: bool, **more: Any) -> Any:
            given = cast(GenerationOptions, more)
            return model.answer_turn(turns, image, question, ground, None, stream, given)

        return _Asked(answer, options)
    if image is None:
        raise InvalidRequest("expected a question, or an image as an attachment (-a)")
    if turns:
        raise InvalidRequest("expected a question: only the first prompt of a conversation may be an image alone")
    if not model.model_info["prompts"]["caption"]:
        return _Asked(model.read, {"image": image, **options})
    return _Asked(model.caption, {"image": image, "length": length or "short", "ground": ground, **options})


def _turns(model: Model, messages: Any) -> tuple[list[tuple[EncodedImage | None, str, str]], EncodedImage | None, str]:
    """(image, question, answer) of what was said before, and the image and the question of now."""
    turns: list[tuple[EncodedImage | None, str, str]] = []
    image: EncodedImage | None = None
    texts: list[str] = []
    for message in messages:
        said = "\n".join(part.text for part in message.parts if isinstance(part, TextPart))
        if message.role == "assistant":
            turns.append((image, "\n".join(texts) or _words(model), _BOXES.sub("", said)))
            image, texts = None, []
            continue
        texts += [said] if said.strip() else []
        for part in message.parts:
            if isinstance(part, AttachmentPart):
                if image is not None:
                    raise InvalidRequest("expected one image for each question")
                image = model.encode(part.attachment.path or part.attachment.content_bytes())
    return turns, image, "\n".join(texts)


def _words(model: Model) -> str:
    """The question that stands for an image without words, which was captioned."""
    return str(model.model_info["prompts"]["caption"]).replace("{image}", "").strip()


def _finish(response: Any, result: Result) -> Iterator[str]:
    """Tells llm what was computed; the lines of boxes follow the text."""
    response.set_usage(input=result.timings.prompt_tokens, output=result.timings.tokens)
    response.response_json = {name: value for name, value in result.to_dict().items() if name != "token_ids"}
    if result.lines is None:
        for entity in result.entities:
            for box in entity.boxes:
                corners = box.normalized if box.pixels is None else tuple(round(value) for value in box.pixels)
                score = "-" if entity.sureness is None else f"{entity.sureness:.3f}"
                yield "\n" + "\t".join([entity.phrase, " ".join(map(str, corners)), score])
