"""Short answers: exact match and F1 of words as in SQuAD 1.1 (Rajpurkar et al. 2016), ANLS of DocVQA (Biten et al.
2019). Each is the best over the accepted answers."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from kosmos_edge.evaluation.text_metrics import edits

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_FAR = 0.5  # share of edits from which on an answer counts as wrong


def plain(text: str) -> str:
    """Lower case, without ASCII punctuation and articles, single blanks."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(said: str, accepted: Sequence[str]) -> float:
    """1 or 0."""
    return float(plain(said) in {plain(answer) for answer in accepted})


def f1(said: str, accepted: Sequence[str]) -> float:
    """Of the bags of words, 0..1; 1 if both are empty, 0 if one is."""
    return max((_f1(plain(said).split(), plain(answer).split()) for answer in accepted), default=0.0)


def _f1(said: list[str], true: list[str]) -> float:
    if not said or not true:
        return float(said == true)
    shared = (Counter(said) & Counter(true)).total()
    return 2 * shared / (len(said) + len(true))


def anls(said: str, accepted: Sequence[str]) -> float:
    """1 - edits / length of the longer text, or 0 from half of it on; case and blanks do not count."""
    return max((_anls(said, answer) for answer in accepted), default=0.0)


def _anls(said: str, true: str) -> float:
    ours, theirs = (" ".join(text.lower().split()) for text in (said, true))
    longest = max(len(ours), len(theirs))
    far = edits(ours, theirs) / longest if longest else 0.0
    return 1 - far if far < _FAR else 0.0
