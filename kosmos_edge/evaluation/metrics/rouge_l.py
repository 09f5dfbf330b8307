"""ROUGE-L (Lin 2004) as in the COCO caption evaluation: F with beta 1.2 of the best precision and the best recall over
the references, which may be of two references."""

from __future__ import annotations

from collections.abc import Sequence

_BETA = 1.2


def longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], before + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def score(said: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Of one picture, 0..1."""
    common = [(longest_common(said, words), len(words)) for words in references]
    precision = max((shared / len(said) for shared, _ in common), default=0.0) if said else 0.0
    recall = max((shared / length for shared, length in common if length), default=0.0)
    if not precision or not recall:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)
