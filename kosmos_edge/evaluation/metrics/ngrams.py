"""Runs of words, which BLEU and CIDEr-D count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

Ngram = tuple[str, ...]
ORDERS = 4


def counts(words: Sequence[str]) -> list[Counter[Ngram]]:
    """How often each run of 1, 2, 3, 4 words occurs."""
    return [Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for n in range(1, ORDERS + 1)]
