"""METEOR 1.5 of many captions (Denkowski and Lavie 2014) from the counts that its program gives for each of them.

The program aligns words (java.py runs it); this is what it then computes, with its weights for English. As the COCO
caption evaluation does, the counts of all captions are summed first: the mean of their scores is another figure.
"""

from __future__ import annotations

from collections.abc import Sequence

from kosmos_edge.evaluation.statistics import Part

COUNTS = 23  # of a caption: lengths, function words, matches of four stages, chunks, matched words
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_STAGES = (1.0, 0.6, 0.8, 0.6)  # exact, stem, synonym, paraphrase


def score(parts: Sequence[Part]) -> float | None:
    """0..1; None without parts. A part is a caption's COUNTS numbers."""
    if not parts:
        return None
    said, true, said_function, true_function, *rest = (sum(column) for column in zip(*parts, strict=True))
    stages, (chunks, said_matched, true_matched) = rest[:-3], rest[-3:]
    matched = [0.0, 0.0]
    for place, weight in enumerate(_STAGES):
        content, function = stages[4 * place : 4 * place + 2], stages[4 * place + 2 : 4 * place + 4]
        for side in (0, 1):
            matched[side] += weight * (_DELTA * content[side] + (1 - _DELTA) * function[side])
    lengths = [
        _DELTA * (words - function) + (1 - _DELTA) * function
        for words, function in ((said, said_function), (true, true_function))
    ]
    if not all(matched) or not all(lengths):
        return 0.0
    precision, recall = matched[0] / lengths[0], matched[1] / lengths[1]
    mean = 1 / ((1 - _ALPHA) / precision + _ALPHA / recall)
    whole = chunks == 1 and said_matched == said and true_matched == true
    fragments = 0.0 if whole else chunks / ((said_matched + true_matched) / 2)
    return float(mean * (1 - _GAMMA * fragments**_BETA))
