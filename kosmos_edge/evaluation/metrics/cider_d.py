"""CIDEr-D (Vedantam et al. 2015) as in the COCO caption evaluation. How rare a run of words is, is counted in the
references of the evaluated pictures themselves: figures of a subset are not comparable with those of the whole."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from kosmos_edge.evaluation.metrics.ngrams import ORDERS, Ngram, counts

_SIGMA = 6.0
_Vector = tuple[list[dict[Ngram, float]], list[float], int]  # weights by order, norms by order, length


def scores(said: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> list[float]:
    """Of each picture, 0..10; the corpus' score is the mean, and papers print 100 times that. One caption a picture."""
    if len(said) != len(references):
        raise ValueError(f"expected one caption for each picture, got {len(said)} and {len(references)}")
    true = [[counts(words) for words in group] for group in references]
    pictures = Counter(run for group in true for run in {run for one in group for order in one for run in order})
    of = math.log(len(said)) if said else 0.0

    def vector(grams: list[Counter[Ngram]]) -> _Vector:
        weights = [{run: n * (of - math.log(max(1, pictures[run]))) for run, n in order.items()} for order in grams]
        norms = [math.sqrt(math.fsum(w * w for w in order.values())) for order in weights]
        return weights, norms, grams[1].total()  # the length is that of the list of pairs, as in the original

    out = []
    for words, group in zip(said, true, strict=True):
        ours = vector(counts(words))
        each = [_similarity(ours, vector(grams)) for grams in group]
        out.append(10 * math.fsum(each) / len(each))
    return out


def _similarity(ours: _Vector, theirs: _Vector) -> float:
    penalty = math.exp(-((ours[2] - theirs[2]) ** 2) / (2 * _SIGMA**2))
    total = 0.0
    for n in range(ORDERS):
        other = theirs[0][n]
        value = math.fsum(min(w, other[run]) * other[run] for run, w in ours[0][n].items() if run in other)
        if ours[1][n] and theirs[1][n]:
            value /= ours[1][n] * theirs[1][n]
        total += value * penalty
    return total / ORDERS
