"""Prompt formats of a model -> segments of a prompt. What a caller types is data: it never becomes a tag.

The formats come from the model file: model_info has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from kosmos_edge._native import _core
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.options import check_text
from kosmos_edge.results import Box, Corners, check_corners

NO_GROUNDING = "this model has no location tokens"  # why what needs boxes is refused


@dataclass(frozen=True, slots=True)
class PictureSegment:
    """A picture at this place of the prompt: what the caller gave, decoded and encoded when the prompt is run."""

    source: Any


@dataclass(frozen=True, slots=True)
class BoxSegment:
    """Boxes at this place of the prompt; pixel boxes refer to the picture before them."""

    boxes: tuple[Box | Corners, ...]
    normalized: bool


TextSegment: TypeAlias = tuple[str, str]  # ("text", plain characters) or ("tags", text whose tag strings are tags)
PlanSegment: TypeAlias = TextSegment | PictureSegment | BoxSegment


def prompt_format(info: Mapping[str, Any], name: str) -> str:
    """The model's own format of a prompt, from its model_info."""
    return str(info["prompts"][name])


def check_grounding(info: Mapping[str, Any], what: str) -> None:
    """InvalidRequest where the model cannot write boxes."""
    if info["grounding"] is None:
        raise InvalidRequest(f"{what}: {NO_GROUNDING}")


def expand(template: str, **values: str | BoxSegment) -> list[PlanSegment]:
    """Segments of a format: its tags are tags, its words and the values are plain text, joined where they touch.

    Joining matters: the tokenizer starts every segment with a fresh word mark.
    """
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    out: list[PlanSegment] = []
    for kind, text in _core.expand_format(template, **texts):
        boxes = values.get("boxes")
        out.append(boxes if kind == "boxes" and isinstance(boxes, BoxSegment) else (kind, text))
    return out


def caption_format(info: Mapping[str, Any], length: object) -> str:
    """The caption prompt of this length, or InvalidRequest."""
    if length == "short":
        return prompt_format(info, "caption")
    if length == "long":
        return prompt_format(info, "caption_detailed")
    raise InvalidRequest(f"length: expected 'short' or 'long', got {length!r}")


WHOLE: Corners = (0.0, 0.0, 1.0, 1.0)  # as pixels it is right for a picture of one pixel, whose size is known later


def is_ambiguous(corners: Corners) -> bool:
    """Whether pixels are nearly surely fractions of the picture: they would all lie within its upper left pixel."""
    return min(corners) >= 0 and max(corners) <= 1


def which_unit(name: str, corners: Corners) -> str:
    """What to say of such a box."""
    return (
        f"{name}: which unit is meant? As fractions of the picture, {corners} needs normalized=True "
        "(--normalized); as pixels it would lie within the upper left one, which Box.from_pixels can say"
    )


def check_box(box: object, normalized: object, name: str = "box") -> Box | Corners:
    """A Box, or four numbers (checked against the picture later, when its size is known)."""
    if not isinstance(normalized, bool):
        raise InvalidRequest(f"normalized: expected True or False, got {normalized!r}")
    if isinstance(box, Box):
        if not box.valid:
            raise InvalidRequest(f"{name}: expected x1 < x2 and y1 < y2, got {box.normalized}")
        return box
    corners = check_corners(name, box)
    if normalized:
        Box.from_normalized(*corners)
    elif corners != WHOLE and is_ambiguous(corners):
        raise InvalidRequest(which_unit(name, corners))
    return corners


def split_template(template: object) -> tuple[str, str]:
    """What stands before and after {text}, or InvalidRequest."""
    return _core.split_template(check_text("template", template))
