"""Messages of a chat as the turns of a prompt: shared by OpenAI's and Ollama's routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kosmos_edge.inference import tasks
from kosmos_edge.inference.prompts import PictureSegment
from kosmos_edge.inference.tasks import Plan
from kosmos_edge.model import Model
from kosmos_edge.server.errors import ApiError
from kosmos_edge.server.pictures import Source
from kosmos_edge.server.scheduler import Shown
from kosmos_edge.server.service import Asked


@dataclass(slots=True)
class Message:
    """One message. images: numbers of images of the request."""

    role: str
    text: str
    images: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Turn:
    texts: list[str] = field(default_factory=list)
    images: list[int] = field(default_factory=list)


def build(
    messages: Sequence[Message],
    sources: Sequence[Source],
    options: Mapping[str, Any],
    *,
    ground: bool = False,
    choices: Sequence[str] | None = None,
) -> Callable[[Model], Asked]:
    """The answer to the last message, behind those before it. An image without words is captioned, and so is one with
    the words of the model's own caption prompt, such as "Describe this image in detail:".

    Models here have no place for a system text of the caller: it stands before the first question, as in the formats
    of other models without one. Several messages of the user in a row are one question.
    """
    turns, last = _turns(messages)
    question = "\n".join(last.texts)

    def plan(model: Model) -> Plan:
        info = model.model_info
        image = _group(last.images, sources)
        length = _caption_length(info, question)
        if length is not None and not turns and image is not None and choices is None:
            return tasks.plan_caption(info, image, length, ground, False, ())
        before = [(_group(turn.images, sources), "\n".join(turn.texts), answer) for turn, answer in turns]
        return tasks.plan_turn(info, before, image, question, ground, choices)

    return lambda model: Asked(_spread(plan(model)), options)


def _caption_length(info: Mapping[str, Any], question: str) -> str | None:
    """Which caption the words ask for; None: they are a question."""
    words = question.strip()
    prompts = {"short": info["prompts"]["caption"], "long": info["prompts"]["caption_detailed"]}
    if not words:
        return "short"
    return next((length for length, prompt in prompts.items() if words == prompt.strip()), None)


def _turns(messages: Sequence[Message]) -> tuple[list[tuple[_Turn, str]], _Turn]:
    turns: list[tuple[_Turn, str]] = []
    system: list[str] = []
    current = _Turn()
    begun = False  # the current turn has a message of the user
    for number, message in enumerate(messages):
        name = f"messages[{number}]"
        if message.role == "user":
            current.texts += [*system, *([message.text] if message.text.strip() else [])]
            current.images += message.images
            system, begun = [], True
        elif message.role == "system":
            if turns or begun:
                raise ApiError(400, f"{name}: a system message is taken only before all others", param=name)
            system.append(message.text)
        elif not begun:
            raise ApiError(400, f"{name}: an answer of the assistant without a question before it", param=name)
        else:
            turns.append((current, message.text))
            current, begun = _Turn(), False
    if not begun:
        raise ApiError(400, "messages: the last one must be the user's", param="messages")
    return turns, current


def _group(numbers: Sequence[int], sources: Sequence[Source]) -> Any:
    """What stands for a turn's images in the plan; None: it has none."""
    return tuple(sources[number].shown for number in numbers) or None


def _spread(plan: Plan) -> Plan:
    """Puts the images of a turn one behind the other where the plan has one place for them."""
    segments: list[Any] = []
    for segment in plan.segments:
        if isinstance(segment, PictureSegment) and isinstance(segment.source, tuple):
            segments += [PictureSegment(shown) for shown in segment.source if isinstance(shown, Shown)]
        else:
            segments.append(segment)
    plan.segments = segments
    return plan
