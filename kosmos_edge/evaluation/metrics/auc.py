"""Area under the ROC curve: the share of pairs of a positive and a negative that are in order, ties half (the rank
formula of Mann and Whitney)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.statistics import Part

UNDEFINED = "the AUC is undefined: one of the two classes is absent"


def roc_auc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """0..1. InvalidRequest if one of the two classes is absent: there is no pair, and 0.5 would be made up."""
    positives = sum(labels)
    negatives = len(labels) - positives
    if not positives or not negatives:
        raise InvalidRequest(f"AUC: expected both classes, got {positives} positives and {negatives} negatives")
    below, wins = 0, 0.0
    order = sorted(zip(scores, labels, strict=True), key=lambda pair: pair[0])
    for _, group in itertools.groupby(order, key=lambda pair: pair[0]):
        tied = [label for _, label in group]
        right = sum(tied)
        wins += right * (below + (len(tied) - right) / 2)
        below += len(tied) - right
    return wins / (positives * negatives)


def of_parts(parts: Sequence[Part]) -> float | None:
    """Of parts (score, 1 or 0); None if one of the two classes is absent, as in some draws of a bootstrap."""
    labels = [part[1] == 1 for part in parts]
    return roc_auc([part[0] for part in parts], labels) if 0 < sum(labels) < len(labels) else None
