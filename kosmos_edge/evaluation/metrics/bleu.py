"""BLEU-1 to BLEU-4 of a corpus (Papineni et al. 2002), with the constants of the COCO caption evaluation: the length of
the reference is the closest one, the shorter of two equally close."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kosmos_edge.evaluation.metrics.ngrams import ORDERS, counts
from kosmos_edge.evaluation.statistics import Part

_TINY, _SMALL = 1e-15, 1e-9


def part(said: Sequence[str], references: Sequence[Sequence[str]]) -> Part:
    """(runs that are in a reference, by length 1..4; runs said, by length; words said; words of the reference)."""
    true = [counts(words) for words in references]
    right, guessed = [], []
    for n, ours in enumerate(counts(said)):
        right.append(sum(min(count, max(one[n][run] for one in true)) for run, count in ours.items()))
        guessed.append(ours.total())
    length = min((abs(len(words) - len(said)), len(words)) for words in references)[1]
    return (*map(float, right), *map(float, guessed), float(len(said)), float(length))


def score(parts: Sequence[Part], order: int) -> float:
    """BLEU of the order 1..4 over all parts, 0..1."""
    sums = [math.fsum(column) for column in zip(*parts, strict=True)]
    product = 1.0
    for n in range(order):
        product *= (sums[n] + _TINY) / (sums[ORDERS + n] + _SMALL)
    ratio = (sums[2 * ORDERS] + _TINY) / (sums[2 * ORDERS + 1] + _SMALL)
    return float(product ** (1 / order)) * (math.exp(1 - 1 / ratio) if ratio < 1 else 1.0)
