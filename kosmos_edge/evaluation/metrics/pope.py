"""POPE (Li et al. 2023): answers to "Is there ...?" as counts; "yes" is the positive class."""

from __future__ import annotations

from collections.abc import Sequence

from kosmos_edge.evaluation.statistics import Part

_NO = ("No", "no", "not")


def says_yes(answer: str) -> bool:
    """As the authors' program reads an answer: No, no or not is a word, between blanks, of its first sentence, or it is
    yes, whatever it says: "NO", "no!" and "isn't" are."""
    words = answer.strip().partition(".")[0].replace(",", "").split(" ")
    return not any(word in words for word in _NO)


def part(said: bool, true: bool) -> Part:
    """(true positives, false positives, false negatives, true negatives)."""
    return (float(said and true), float(said and not true), float(true and not said), float(not said and not true))


def _sums(parts: Sequence[Part]) -> list[float]:
    return [sum(column) for column in zip(*parts, strict=True)]


def _share(above: float, below: float) -> float | None:
    return above / below if below else None


def accuracy(parts: Sequence[Part]) -> float | None:
    """Right answers / all."""
    tp, fp, fn, tn = _sums(parts)
    return _share(tp + tn, tp + fp + fn + tn)


def precision(parts: Sequence[Part]) -> float | None:
    """Right yes / all yes; None without a yes."""
    tp, fp, _, _ = _sums(parts)
    return _share(tp, tp + fp)


def recall(parts: Sequence[Part]) -> float | None:
    """Right yes / objects that are there."""
    tp, _, fn, _ = _sums(parts)
    return _share(tp, tp + fn)


def f1(parts: Sequence[Part]) -> float | None:
    """Harmonic mean of the two."""
    tp, fp, fn, _ = _sums(parts)
    return _share(2 * tp, 2 * tp + fp + fn)


def yes_share(parts: Sequence[Part]) -> float | None:
    """How often the answer is yes."""
    tp, fp, fn, tn = _sums(parts)
    return _share(tp + fp, tp + fp + fn + tn)
