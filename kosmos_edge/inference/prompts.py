"""The images and boxes at the places of a plan, and the checks of boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.results import Box, Corners, check_corners


@dataclass(frozen=True, slots=True)
class PictureSegment:
    """An image at this place of the prompt, as the caller gave it; decoded and encoded when the prompt runs."""

    source: Any


@dataclass(frozen=True, slots=True)
class BoxSegment:
    """Boxes at this place of the prompt; pixel boxes refer to the image before them."""

    boxes: tuple[Box | Corners, ...]
    normalized: bool


@dataclass(frozen=True, slots=True)
class RowsSegment:
    """Vectors of the caller's own in the place of token embeddings: (count, width) float32, little-endian."""

    values: bytes
    count: int


TextSegment: TypeAlias = tuple[str, str]  # ("text", plain characters) or ("tags", text whose tag strings are tags)
PlanSegment: TypeAlias = TextSegment | PictureSegment | BoxSegment | RowsSegment


WHOLE: Corners = (0.0, 0.0, 1.0, 1.0)  # valid as pixels of an image of one pixel, whose size is known later


def is_ambiguous(corners: Corners) -> bool:
    """Whether pixels are probably fractions of the image: they would all be within its upper left pixel."""
    return min(corners) >= 0 and max(corners) <= 1


def which_unit(name: str, corners: Corners) -> str:
    """The message about such a box."""
    return (
        f"{name}: which unit is meant? As fractions of the picture, {corners} needs normalized=True "
        "(--normalized); as pixels it would lie within the upper left one, which Box.from_pixels can say"
    )


def check_box(box: object, normalized: object, name: str = "box") -> Box | Corners:
    """A Box, or four numbers (checked against the image later, when its size is known)."""
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
