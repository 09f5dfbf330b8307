"""Recall of boxes, as in phrase grounding on Flickr30k Entities (the any-box and the merged-box protocol of MDETR) and
in referring expression comprehension. An IoU of exactly 0.5 is a hit."""

from __future__ import annotations

from collections.abc import Sequence

from kosmos_edge.quality.metrics import HIT, iou
from kosmos_edge.results import Corners


def merged(boxes: Sequence[Corners]) -> Corners:
    """The smallest box around all."""
    return (min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes))


def hit(said: Sequence[Corners], true: Sequence[Corners], k: int | None = None) -> bool:
    """Whether one of the first k boxes (None: of all) hits one of the true ones."""
    return any(iou(box, wanted) >= HIT for box in said[:k] for wanted in true)


def mean(boxes: Sequence[Corners]) -> Corners:
    """The box of the mean corners."""
    n = len(boxes)
    return (
        sum(b[0] for b in boxes) / n, sum(b[1] for b in boxes) / n,
        sum(b[2] for b in boxes) / n, sum(b[3] for b in boxes) / n,
    )  # fmt: skip
