"""The verbs as plans: the segments of the prompt, in order, and how to read the answer. Nothing is computed here."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from kosmos_edge._native import _core
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import names_picture
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.inference.prompts import BoxSegment, PictureSegment, PlanSegment, RowsSegment, check_box
from kosmos_edge.options import check_bool, check_normalize, check_text, check_texts
from kosmos_edge.results import Box


@dataclass(slots=True)
class Plan:
    """One request."""

    task: str
    segments: list[PlanSegment]
    grammar: bool = True  # the default of this verb
    keep_prompt: bool = False  # Result.text begins with the prompt's words
    one_object: bool = False  # the answer ends when the first list of boxes closes, or if none begins
    markdown: bool = False  # read: Markdown was asked for
    choices: Sequence[str] | None = None
    notes: list[str] = field(default_factory=list)  # for Result.notes


@dataclass(frozen=True, slots=True)
class ScorePlan:
    """Texts to rank."""

    texts: tuple[str, ...]
    before: str  # the template's words before each text; given
    after: str  # the words after each text; scored with it
    normalize: str  # a name of options.Normalize
    behind: Plan | None = None  # what the texts stand behind, instead of an image and the template


def plan_score(info: Mapping[str, Any], texts: object, template: object, normalize: object) -> ScorePlan:
    """score: the caller's template or the caption prompt around each text."""
    checked = check_texts("texts", texts, _core.limits.MAX_TEXTS)
    if template is None:
        before, after = _core.default_template(info)
    else:
        before, after = _core.split_template(check_text("template", template))
    return ScorePlan(checked, before, after, check_normalize(normalize))


def plan_score_segments(
    info: Mapping[str, Any], segments: object, texts: object, raw: object, normalized: object, normalize: object
) -> ScorePlan:
    """score_segments: segments as plan_generate takes them."""
    checked = check_texts("texts", texts, _core.limits.MAX_TEXTS)
    behind = plan_generate(info, segments, raw, False, normalized)
    return ScorePlan(checked, "", "", check_normalize(normalize), behind)


def check_examples(name: str, examples: object, length: int, what: str) -> Iterable[tuple[Any, ...]]:
    """Few-shot examples as tuples of `length`; InvalidRequest for anything else, and for more than MAX_EXAMPLES."""
    if isinstance(examples, str | bytes) or not isinstance(examples, Sequence):
        raise InvalidRequest(f"{name}: expected a list of {what}, got {type(examples).__name__}")
    if len(examples) > _core.limits.MAX_EXAMPLES:
        raise InvalidRequest(f"{name}: expected at most {_core.limits.MAX_EXAMPLES}, got {len(examples)}")
    for number, example in enumerate(examples):
        if not isinstance(example, tuple | list) or len(example) != length:
            raise InvalidRequest(f"{name}[{number}]: expected {what}, got {example!r}")
        yield tuple(example)


@dataclass(slots=True)
class _Call:
    """The arguments of a verb: texts for the native plan, and the images and boxes at its places."""

    pictures: list[Any] = field(default_factory=list)  # the examples', then the request's own
    boxes: list[BoxSegment] = field(default_factory=list)
    examples: list[tuple[str, str]] = field(default_factory=list)  # (question, answer)
    turns: list[tuple[str, str, bool]] = field(default_factory=list)  # (question, answer, whether it has an image)

    def plan(
        self,
        info: Mapping[str, Any],
        verb: str,
        *,
        text: str | None = None,
        ground: object = False,
        detailed: bool = False,
        markdown: object = False,
        choices: Sequence[str] | None = None,
        template: object = None,
        lead_in: object = False,
        image: bool = True,
    ) -> Plan:
        """The native plan with images and boxes at their places."""
        form = None if template is None else check_text("template", template)
        grounds, chosen = check_bool("ground", ground), choices is not None
        pages = check_bool("markdown", markdown)
        found = _core.plan_verb(
            info, verb, text, self.examples, grounds, detailed, pages, chosen, form, self.turns, image
        )
        segments, one_object, pages, grammar, notes = found
        return Plan(
            verb,
            _placed(segments, self.pictures, self.boxes),
            grammar=grammar,
            keep_prompt=check_bool("lead_in", lead_in),
            one_object=one_object,
            markdown=pages,
            choices=choices,
            notes=notes,
        )


def _placed(segments: Iterable[tuple[str, Any]], pictures: list[Any], boxes: list[BoxSegment]) -> list[PlanSegment]:
    out: list[PlanSegment] = []
    for kind, value in segments:
        if kind == "image":
            out.append(PictureSegment(pictures[value]))
        else:
            out.append(boxes[value] if kind == "boxes" else (kind, value))
    return out


def plan_caption(
    info: Mapping[str, Any],
    image: Any,
    length: object,
    ground: object,
    lead_in: object,
    examples: object,
    template: object = None,
) -> Plan:
    """caption: the model's caption prompt after the image, after any (image, caption) examples."""
    if length not in ("short", "long"):
        raise InvalidRequest(f"length: expected 'short' or 'long', got {length!r}")
    call = _Call()
    for number, (shot, text) in enumerate(check_examples("examples", examples, 2, "(image, caption)")):
        call.pictures.append(shot)
        call.examples.append(("", check_text(f"examples[{number}]", text)))
    call.pictures.append(image)
    return call.plan(info, "caption", ground=ground, detailed=length == "long", template=template, lead_in=lead_in)


def plan_ground(info: Mapping[str, Any], image: Any, prompt: object, lead_in: object, template: object = None) -> Plan:
    """ground: the caller's words or the caption prompt, with boxes."""
    words = None if prompt is None else check_text("prompt", prompt)
    return _Call([image]).plan(info, "ground", text=words, template=template, lead_in=lead_in)


def plan_locate(info: Mapping[str, Any], image: Any, phrase: object, template: object = None) -> Plan:
    """locate: the phrase as if the model had written it, so that its boxes follow."""
    return _Call([image]).plan(info, "locate", text=check_text("phrase", phrase), template=template)


def plan_describe(
    info: Mapping[str, Any],
    image: Any,
    box: object,
    normalized: object,
    ground: object,
    lead_in: object,
    examples: object,
    template: object = None,
) -> Plan:
    """describe: "It" with the caller's box, which the model continues."""
    call = _Call()
    for number, (shot, where, text) in enumerate(check_examples("examples", examples, 3, "(image, box, text)")):
        name = f"examples[{number}]"
        call.pictures.append(shot)
        call.boxes.append(BoxSegment((check_box(where, normalized, name),), bool(normalized)))
        call.examples.append(("", check_text(name, text)))
    call.pictures.append(image)
    call.boxes.append(BoxSegment((check_box(box, normalized, "box"),), bool(normalized)))
    return call.plan(info, "describe", ground=ground, template=template, lead_in=lead_in)


def plan_ask(
    info: Mapping[str, Any],
    image: Any,
    question: object,
    ground: object,
    choices: Sequence[str] | None,
    lead_in: object,
    examples: object,
    template: object = None,
) -> Plan:
    """ask: the model's question-and-answer format; examples are (image, question, answer)."""
    call = _Call()
    for number, (shot, asked, answer) in enumerate(
        check_examples("examples", examples, 3, "(image, question, answer)")
    ):
        name = f"examples[{number}]"
        call.pictures.append(shot)
        call.examples.append((check_text(name, asked), check_text(name, answer)))
    call.pictures.append(image)
    words = check_text("question", question)
    return call.plan(info, "ask", text=words, ground=ground, choices=choices, template=template, lead_in=lead_in)


def plan_turn(
    info: Mapping[str, Any],
    turns: Iterable[tuple[Any, str, str]],
    image: Any,
    question: object,
    ground: object,
    choices: Sequence[str] | None,
    template: object = None,
) -> Plan:
    """A question of a conversation, behind turns of (image or None, question, answer). image: None: no new one."""
    call = _Call()
    for shown, asked, answer in turns:
        call.pictures.append(shown)
        call.turns.append((asked, answer, shown is not None))
    call.pictures.append(image)
    words = check_text("question", question)
    return call.plan(
        info, "ask", text=words, ground=ground, choices=choices, template=template, image=image is not None
    )


def plan_read(info: Mapping[str, Any], image: Any, markdown: object, template: object = None) -> Plan:
    """read: the model's prompt for a page's lines, or for the page as Markdown."""
    return _Call([image]).plan(info, "read", markdown=markdown, template=template)


def plan_generate(
    info: Mapping[str, Any],
    segments: object,
    raw: object,
    lead_in: object,
    normalized: object,
    choices: Sequence[str] | None = None,
) -> Plan:
    """generate: segments in any order. A string is always text; pass an image's path as a pathlib.Path.

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
            rows = _rows(name, segment, info)
            out.append(PictureSegment(segment) if rows is None else rows)
    _, _, _, grammar, notes = _core.plan_sequence(info, [_bare(segment) for segment in out])
    return Plan(
        "generate", out, grammar=grammar, keep_prompt=check_bool("lead_in", lead_in), choices=choices, notes=notes
    )


def _bare(segment: PlanSegment) -> tuple[str, Any]:
    """The segment for the native plan, which needs no image or box itself, only its kind."""
    if isinstance(segment, tuple):
        return segment
    kinds = {PictureSegment: "image", RowsSegment: "rows", BoxSegment: "boxes"}
    return (kinds[type(segment)], 0)


def _rows(name: str, segment: object, info: Mapping[str, Any]) -> RowsSegment | None:
    """A matrix of floats as rows; None for what is none."""
    try:
        view = memoryview(segment)  # type: ignore[arg-type]
    except TypeError:
        return None
    if view.shape is None or view.ndim != 2 or view.format not in ("f", "d", "e"):
        return None
    count, width = view.shape
    if width != info["width"]:
        raise InvalidRequest(f"{name}: expected rows of {info['width']} values each, got {count} x {width}")
    if view.format == "f" and view.c_contiguous:
        return RowsSegment(view.tobytes(), count)
    listed: Any = view.tolist()
    return RowsSegment(array("f", (value for row in listed for value in row)).tobytes(), count)


def _check_words(name: str, text: str) -> str:
    """InvalidRequest if a text is the name of an image: the answer would be about the name."""
    if names_picture(text):
        shown = repr(text if len(text) <= 200 else text[:200] + "...")
        raise InvalidRequest(
            f"{name}: a string is text, and {shown} is the name of a picture; to show it, pass pathlib.Path(...) or "
            "open_image(...) of it (URLs are not fetched)"
        )
    return text


def _boxes(boxes: Sequence[Any], normalized: bool, name: str, before: Sequence[PlanSegment]) -> BoxSegment:
    """Boxes at this place of generate; pixels need an image before them."""
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
    "read": plan_read,
}  # by verb; the parameters behind info (the model's model_info) are those of the verb


def kept_image(plan: Plan) -> Any:
    """The last image for Result.image: one that can be opened again, and is not known by Result.source already."""
    sources = [segment.source for segment in plan.segments if isinstance(segment, PictureSegment)]
    if not sources or isinstance(sources[-1], str | os.PathLike | EncodedImage):
        return None
    return sources[-1] if not hasattr(sources[-1], "read") else None


def source_name(source: object) -> str | None:
    """The path of an image source, if it is a path."""
    return os.fsdecode(source) if isinstance(source, str | os.PathLike) else None
