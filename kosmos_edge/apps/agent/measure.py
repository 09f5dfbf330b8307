"""Distances, areas and relations of boxes in a picture, in pixels and in fractions of it. x runs right, y down."""

from __future__ import annotations

import math
from typing import Any

from kosmos_edge.results import Corners


def measure(boxes: list[Corners], width: int, height: int) -> dict[str, Any]:
    """The facts about each box and about each pair of them; boxes: in pixels, inside the picture, with an area."""
    return {
        "boxes": [_box(number, box, width, height) for number, box in enumerate(boxes, 1)],
        "pairs": [
            _pair((first, boxes[first]), (second, boxes[second]), width, height)
            for first in range(len(boxes))
            for second in range(first + 1, len(boxes))
        ],
    }


def _box(number: int, box: Corners, width: int, height: int) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    return {
        "number": number,
        "box": _rounded(box),
        "width": _round(x2 - x1),
        "height": _round(y2 - y1),
        "centre": _rounded(_centre(box)),
        "area": _round(_area(box)),
        "share_of_width": round((x2 - x1) / width, 4),
        "share_of_height": round((y2 - y1) / height, 4),
        "share_of_area": round(_area(box) / (width * height), 4),
    }


def _pair(first: tuple[int, Corners], second: tuple[int, Corners], width: int, height: int) -> dict[str, Any]:
    """What is so of the first box, seen from the second."""
    a, b = first[1], second[1]
    across = (b[0] - a[2], a[0] - b[2])  # the gap if a is left of b, and if it is right of it
    down = (b[1] - a[3], a[1] - b[3])
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    (ax, ay), (bx, by) = _centre(a), _centre(b)
    distance = math.hypot(bx - ax, by - ay)
    return {
        "first": first[0] + 1,
        "second": second[0] + 1,
        "horizontal": _side(across, "left of", "right of", "overlaps horizontally"),
        "vertical": _side(down, "above", "below", "overlaps vertically"),
        "first_contains_second": _contains(a, b),
        "second_contains_first": _contains(b, a),
        "centre_offset": [_round(bx - ax), _round(by - ay)],
        "centre_distance": _round(distance),
        "centre_distance_share_of_diagonal": round(distance / math.hypot(width, height), 4),
        "gap": _round(math.hypot(max(0.0, *across), max(0.0, *down))),
        "intersection": _round(shared),
        "iou": round(shared / (_area(a) + _area(b) - shared), 4),
        "area_ratio": round(_area(a) / _area(b), 4),
    }


def _side(gaps: tuple[float, float], before: str, behind: str, neither: str) -> str:
    """Boxes that only touch are beside each other."""
    if gaps[0] >= 0:
        return before
    return behind if gaps[1] >= 0 else neither


def _contains(a: Corners, b: Corners) -> bool:
    return a[0] <= b[0] and a[1] <= b[1] and a[2] >= b[2] and a[3] >= b[3]


def _centre(box: Corners) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _area(box: Corners) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _round(value: float) -> float:
    """One decimal; whole numbers without one."""
    rounded = round(value, 1)
    return int(rounded) if rounded == int(rounded) else rounded


def _rounded(values: tuple[float, ...]) -> list[float]:
    return [_round(value) for value in values]


__all__ = ["measure"]
