"""Boxes that a detector found: which of them are kept, for a whole picture at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.results import Corners


@dataclass(frozen=True, slots=True)
class Scored:
    """A box of a phrase."""

    box: Corners  # x1, y1, x2, y2 in fractions of the upright picture
    score: float  # 0..1, the detector's: whether the phrase is there
    place: float = 1.0  # 0..1: how sure the corners are, where the detector says that apart; orders equal scores


@dataclass(frozen=True, slots=True)
class Rules:
    """Which boxes are kept. threshold, place: 0..1, the least of Scored's. overlap: 0..1, the largest IoU with a better
    box of the same picture, of any phrase."""

    threshold: float = 0.5
    place: float = 0.0
    overlap: float = 0.7

    def __post_init__(self) -> None:
        for name in ("threshold", "place", "overlap"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise InvalidRequest(f"{name}: expected a number from 0 to 1, got {value!r}")


@dataclass(slots=True)
class Kept:
    """The boxes of a picture that are kept, for each phrase, and how many are not, by reason."""

    boxes: list[list[Scored]]
    clipped: int = 0  # reached beyond the picture; kept, cut off at its border
    lost: dict[str, int] = field(default_factory=lambda: {"degenerate": 0, "uncertain": 0, "suppressed": 0})


def iou(a: Corners, b: Corners) -> float:
    """Intersection over union, 0..1; 0 where both are empty."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(0.0, width) * max(0.0, height)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / union if union > 0 else 0.0


def choose(found: Sequence[Sequence[Scored]], rules: Rules) -> Kept:
    """The boxes that are kept, in the order of `found`: one list for each phrase.

    Boxes are cut off at the picture's border; those without an area are degenerate. Then the threshold, then
    non-maximum suppression over all boxes of the picture: the best first; of equal ones the first phrase's.
    """
    kept = Kept([[] for _ in found])
    waiting: list[tuple[float, float, int, int, Scored]] = []
    for phrase, boxes in enumerate(found):
        for number, one in enumerate(boxes):
            inside = _clip(one.box)
            if not (inside[0] < inside[2] and inside[1] < inside[3]):
                kept.lost["degenerate"] += 1
            elif one.score < rules.threshold or one.place < rules.place:
                kept.lost["uncertain"] += 1
            else:
                kept.clipped += inside != one.box
                waiting.append((-one.score, -one.place, phrase, number, replace(one, box=inside)))
    waiting.sort(key=lambda item: item[:4])
    winners: list[tuple[int, int, Scored]] = []
    for _, _, phrase, number, one in waiting:
        if any(iou(one.box, other.box) > rules.overlap for _, _, other in winners):
            kept.lost["suppressed"] += 1
        else:
            winners.append((phrase, number, one))
    for phrase, _, one in sorted(winners, key=lambda item: item[:2]):
        kept.boxes[phrase].append(one)
    return kept


def _clip(box: Corners) -> Corners:
    x1, y1, x2, y2 = (min(1.0, max(0.0, value)) for value in box)
    return x1, y1, x2, y2


def check_scored(where: str, box: object, score: object, place: object = 1.0) -> Scored:
    """A box that somebody else made. InvalidRequest unless there are four finite numbers and scores within 0..1."""
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(_is_finite(value) for value in box):
        raise InvalidRequest(f"{where}: expected a box of four finite numbers, got {str(box)[:100]}")
    for name, value in (("score", score), ("place", place)):
        if not _is_finite(value) or not 0 <= value <= 1:  # type: ignore[operator]
            raise InvalidRequest(f"{where}: expected a {name} from 0 to 1, got {repr(value)[:100]}")
    x1, y1, x2, y2 = (float(value) for value in box)
    return Scored((x1, y1, x2, y2), float(score), float(place))  # type: ignore[arg-type]


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False
