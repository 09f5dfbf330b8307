"""What answers are worth: overlap of boxes, names, exact answers; and what could be had without looking."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from kosmos_edge.results import Corners

HIT = 0.5  # IoU from which on a box counts as found
_ARTICLE = re.compile(r"^(?:a|an|the)\s+")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def iou(a: Corners, b: Corners) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2); 0 for boxes without area. Corners may be swapped."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = _ordered(a), _ordered(b)
    width, height = min(ax2, bx2) - max(ax1, bx1), min(ay2, by2) - max(ay1, by1)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared)


def _ordered(box: Corners) -> Corners:
    x1, y1, x2, y2 = box
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def match(
    entities: Sequence[tuple[str, Sequence[Corners]]], boxes: Sequence[Corners]
) -> list[tuple[str, float, Corners | None]]:
    """For each true box the (phrase, IoU, box) that was said for it, one to one, best overlap first.

    entities: (phrase, its boxes). ("", 0.0, None) if none of them overlaps.
    """
    said = [(phrase, box) for phrase, group in entities for box in group]
    pairs = [(iou(box, true), s, t) for s, (_, box) in enumerate(said) for t, true in enumerate(boxes)]
    out: list[tuple[str, float, Corners | None]] = [("", 0.0, None)] * len(boxes)
    used: set[int] = set()
    for overlap, s, t in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
        if overlap > 0 and s not in used and out[t][2] is None:
            used.add(s)
            out[t] = (said[s][0], overlap, said[s][1])
    return out


def plain(text: str) -> str:
    """An answer or a name without case, article, end marks and extra blanks; number words as digits."""
    words = " ".join(re.sub(r"[^\w\s'-]", " ", text.lower()).split())
    words = _ARTICLE.sub("", words)
    return " ".join(str(_NUMBERS.index(word)) if word in _NUMBERS else word for word in words.split())


def names(phrase: str, name: str) -> bool:
    """Whether a phrase contains a name: its words, in order and adjacent ("a small red hat": "hat")."""
    wanted = plain(name)
    return bool(wanted) and f" {wanted} " in f" {plain(phrase)} "


def answers(said: str, accepted: Iterable[str]) -> bool:
    """Exact match with one of the accepted answers, after `plain`."""
    return plain(said) in {plain(answer) for answer in accepted}


def share(values: Iterable[bool | float | None]) -> float | None:
    """The mean of the values that are not None; None if there are none."""
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


# ---- without looking


def constant_box(boxes: Sequence[Corners]) -> Corners:
    """The centred square with the best mean IoU over `boxes`: the best guess of one who never looks."""
    squares = [(0.5 - s / 200, 0.5 - s / 200, 0.5 + s / 200, 0.5 + s / 200) for s in range(4, 101, 2)]
    return max(squares, key=lambda square: sum(iou(square, box) for box in boxes))


def commonest_share(values: Iterable[str]) -> float | None:
    """How often the commonest value is right."""
    counts = Counter(values)
    return max(counts.values()) / counts.total() if counts else None
