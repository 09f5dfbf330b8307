"""The verbs as plans: which segments in which order, and how the answer is to be read. Nothing is computed here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from kosmos_edge._native import _core
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import names_picture
from kosmos_edge.inference.prompts import (
    BoxSegment,
    PictureSegment,
    PlanSegment,
    caption_format,
    check_box,
    check_grounding,
    expand,
    prompt_format,
)
from kosmos_edge.inference.trained import kind_of_words, untrained
from kosmos_edge.options import check_bool, check_text
from kosmos_edge.results import Box


@dataclass(slots=True)
class Plan:
    """One request."""

    task: str
    segments: list[PlanSegment]
    grammar: bool = True  # the default of this verb
    keep_prompt: bool = False  # Result.text begins with the prompt's words
    one_object: bool = False  # the answer is over when the first box list closes, or when none begins
    choices: Sequence[str] | None = None
    notes: list[str] = field(default_factory=list)  # for Result.notes


def _shots(name: str, examples: object, length: int, what: str) -> Iterable[tuple[Any, ...]]:
    if isinstance(examples, str | bytes) or not isinstance(examples, Sequence):
        raise InvalidRequest(f"{name}: expected a list of {what}, got {type(examples).__name__}")
    if len(examples) > _core.limits.MAX_EXAMPLES:
        raise InvalidRequest(f"{name}: expected at most {_core.limits.MAX_EXAMPLES}, got {len(examples)}")
    for number, example in enumerate(examples):
        if not isinstance(example, tuple | list) or len(example) != length:
            raise InvalidRequest(f"{name}[{number}]: expected {what}, got {example!r}")
        yield tuple(example)


def _grounding(info: Mapping[str, Any], ground: object) -> list[PlanSegment]:
    if not check_bool("ground", ground):
        return []
    check_grounding(info, "ground")
    return expand(prompt_format(info, "grounding"))


def untrained_segments(info: Mapping[str, Any], segments: Sequence[PlanSegment]) -> list[str]:
    """Notes about a free sequence: a picture with another verb's words, or a question alone, is that verb's request."""
    picture = len(segments) == 2 and isinstance(segments[0], PictureSegment)
    last = segments[-1]
    kind = kind_of_words(info, last[1], picture=picture) if isinstance(last, tuple) else ""
    return untrained(info, (kind if picture or len(segments) == 1 else "") or "generate")


def plan_caption(
    info: Mapping[str, Any], image: Any, length: object, ground: object, lead_in: object, examples: object
) -> Plan:
    """caption: the model's caption prompt after the picture, after any (picture, caption) examples."""
    words = caption_format(info, length)
    grounding = _grounding(info, ground)
    segments: list[PlanSegment] = []
    for number, (shot, text) in enumerate(_shots("examples", examples, 2, "(image, caption)")):
        caption = check_text(f"examples[{number}]", text)
        segments += [PictureSegment(shot), *grounding, ("text", f"{words} {caption}")]
    notes = untrained(info, "caption" if length == "short" else "caption_long", "examples" if segments else "")
    segments += [PictureSegment(image), *grounding, ("text", words)]
    return Plan("caption", segments, keep_prompt=check_bool("lead_in", lead_in), notes=notes)


def plan_ground(info: Mapping[str, Any], image: Any, prompt: object, lead_in: object) -> Plan:
    """ground: boxes are asked for, then the caller's words or the caption prompt."""
    words = prompt_format(info, "caption") if prompt is None else check_text("prompt", prompt)
    segments = [PictureSegment(image), *_grounding(info, True), ("text", words)]
    notes = untrained(info, kind_of_words(info, words) or "prompt")
    return Plan("ground", segments, keep_prompt=check_bool("lead_in", lead_in), notes=notes)


def plan_locate(info: Mapping[str, Any], image: Any, phrase: object) -> Plan:
    """locate: the phrase as if the model had said it; its boxes are to follow."""
    check_grounding(info, "locate")
    words = check_text("phrase", phrase)
    prompt = expand(prompt_format(info, "locate"), phrase=words)
    segments = [PictureSegment(image), *_grounding(info, True), *prompt]
    return Plan("locate", segments, one_object=True, notes=untrained(info, "locate"))


def plan_describe(
    info: Mapping[str, Any],
    image: Any,
    box: object,
    normalized: object,
    ground: object,
    lead_in: object,
    examples: object,
) -> Plan:
    """describe: "It" with the caller's box, for the model to say what it is."""
    check_grounding(info, "describe")
    template = prompt_format(info, "describe")
    grounding = _grounding(info, ground)

    def prompt(name: str, value: object, ending: str = "") -> list[PlanSegment]:
        checked = check_box(value, normalized, name)
        return [*grounding, *expand(template + ending, boxes=BoxSegment((checked,), bool(normalized)))]

    segments: list[PlanSegment] = []
    for number, (shot, where, text) in enumerate(_shots("examples", examples, 3, "(image, box, text)")):
        name = f"examples[{number}]"
        segments += [PictureSegment(shot), *prompt(name, where), ("text", check_text(name, text))]
    notes = untrained(info, "describe" if grounding else "describe_plain", "examples" if segments else "")
    segments += [PictureSegment(image), *prompt("box", box)]
    return Plan("describe", segments, keep_prompt=check_bool("lead_in", lead_in), notes=notes)


def plan_ask(
    info: Mapping[str, Any],
    image: Any,
    question: object,
    ground: object,
    choices: Sequence[str] | None,
    lead_in: object,
    examples: object,
) -> Plan:
    """ask: the model's question-and-answer format; examples are (image, question, answer)."""
    template = prompt_format(info, "question")
    grounding = _grounding(info, ground)
    if grounding and choices is not None:
        raise InvalidRequest("choices and ground=True contradict each other: an answer from a list has no boxes")
    segments: list[PlanSegment] = []
    for number, (shot, asked, answer) in enumerate(_shots("examples", examples, 3, "(image, question, answer)")):
        name = f"examples[{number}]"
        prompt = expand(template, question=check_text(name, asked))
        segments += [PictureSegment(shot), *grounding, *prompt, ("text", check_text(name, answer))]
    notes = untrained(info, "ask_boxes" if grounding else "ask", "examples" if segments else "")
    segments += [PictureSegment(image), *grounding, *expand(template, question=check_text("question", question))]
    return Plan("ask", segments, choices=choices, keep_prompt=check_bool("lead_in", lead_in), notes=notes)


def plan_generate(segments: object, raw: object, lead_in: object, normalized: object) -> Plan:
    """generate: any interleaving. A string is always text; a picture's path is given as a pathlib.Path.

    A box is a Box, or four numbers as for describe; several of them in a list stand for one phrase.
    """
    tags, fractions = check_bool("raw", raw), check_bool("normalized", normalized)
    if isinstance(segments, str):
        segments = [segments]
    if isinstance(segments, bytes) or not isinstance(segments, Sequence):
        raise InvalidRequest(f"segments: expected a list of pictures, texts and boxes, got {type(segments).__name__}")
    out: list[PlanSegment] = []
    for number, segment in enumerate(segments):
        name = f"segments[{number}]"
        if isinstance(segment, str):
            out.append(("tags" if tags else "text", _check_words(name, check_text(name, segment))))
        elif isinstance(segment, Box):
            out.append(BoxSegment((check_box(segment, True, name),), True))
        elif isinstance(segment, list | tuple) and segment and all(isinstance(v, Real) for v in segment):
            out.append(_boxes([segment], fractions, name, out))
        elif isinstance(segment, list | tuple) and segment and all(isinstance(v, Box | list | tuple) for v in segment):
            out.append(_boxes(segment, fractions, name, out))
        elif isinstance(segment, list | tuple | dict | int | float | None):
            raise InvalidRequest(f"{name}: expected a picture, a text, a box or a list of boxes, got {segment!r}")
        else:
            out.append(PictureSegment(segment))
    if not out:
        raise InvalidRequest("segments: expected at least one picture or text")
    return Plan("generate", out, grammar=False, keep_prompt=check_bool("lead_in", lead_in))


def _check_words(name: str, text: str) -> str:
    """InvalidRequest where a text is the name of a picture: the answer would be about the name."""
    if names_picture(text):
        shown = repr(text if len(text) <= 200 else text[:200] + "...")
        raise InvalidRequest(
            f"{name}: a string is text, and {shown} is the name of a picture; to show it, pass pathlib.Path(...) or "
            "open_image(...) of it (URLs are not fetched)"
        )
    return text


def _boxes(boxes: Sequence[Any], normalized: bool, name: str, before: Sequence[PlanSegment]) -> BoxSegment:
    """Boxes at this place of generate; pixels need a picture before them."""
    pixels = not normalized and not all(isinstance(box, Box) for box in boxes)
    if pixels and not any(isinstance(segment, PictureSegment) for segment in before):
        raise InvalidRequest(f"{name}: pixels of what? there is no picture before the box")
    return BoxSegment(tuple(check_box(box, normalized, name) for box in boxes), not pixels)


PLANS: dict[str, Callable[..., Plan]] = {
    "caption": plan_caption,
    "ground": plan_ground,
    "locate": plan_locate,
    "describe": plan_describe,
    "ask": plan_ask,
}  # by verb; the parameters behind info (the model's model_info) are those of the verb


def source_name(source: object) -> str | None:
    """The path of a picture source, when it is one."""
    return os.fsdecode(source) if isinstance(source, str | os.PathLike) else None
