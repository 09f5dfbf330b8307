"""Metrics over items, their confidence intervals, and what two types of one model differ in.

An item takes part in a metric with a few numbers (its Part); the metric makes one value of many parts. Confidence: the
percentile bootstrap over items. Nothing here is drawn from another source than `seed`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

Part: TypeAlias = tuple[float, ...]
Interval: TypeAlias = tuple[float, float]
T = TypeVar("T")
DRAWS = 1000
CONFIDENCE = 0.95


def ratio(parts: Sequence[Part]) -> float | None:
    """Sum of the first numbers over sum of the second: a pooled rate, and with seconds of 1 a mean. None over zero."""
    below = math.fsum([part[1] for part in parts])
    return math.fsum([part[0] for part in parts]) / below if below else None


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of a report."""

    name: str
    meaning: str  # for people, short
    higher_is_better: bool = True
    value: Callable[[Sequence[Part]], float | None] = ratio
    missing: str = ""  # why no item may have it


def bootstrap(value: Callable[[Sequence[T]], float | None], parts: Sequence[T], seed: int) -> Interval | None:
    """The 95 % interval of value(parts), from DRAWS samples of as many parts with replacement.

    None for fewer than two parts, or if no sample has a value.
    """
    if len(parts) < 2:
        return None
    drawn = [value([parts[i] for i in sample]) for sample in _samples(len(parts), seed)]
    return _interval([figure for figure in drawn if figure is not None])


@dataclass(frozen=True, slots=True)
class Difference:
    """How much a metric's value changes from one type to another on the same items."""

    value: float
    ci95: Interval | None
    p: float | None  # two-sided, from the same samples; at least 2 / DRAWS


def paired_difference(
    value: Callable[[Sequence[T]], float | None], one: Sequence[T], other: Sequence[T], seed: int
) -> Difference | None:
    """value(other) - value(one); the parts belong to the same items in the same order, which are drawn together."""
    if len(one) != len(other):
        raise ValueError(f"expected parts of the same items, got {len(one)} and {len(other)}")
    first, second = value(one), value(other)
    if first is None or second is None:
        return None
    if len(one) < 2:
        return Difference(second - first, None, None)
    drawn = []
    for sample in _samples(len(one), seed):
        a, b = value([one[i] for i in sample]), value([other[i] for i in sample])
        if a is not None and b is not None:
            drawn.append(b - a)
    if not drawn:
        return Difference(second - first, None, None)
    tail = min(sum(d <= 0 for d in drawn), sum(d >= 0 for d in drawn))
    return Difference(second - first, _interval(drawn), min(1.0, 2 * max(1, tail) / len(drawn)))


def _samples(count: int, seed: int) -> Iterator[list[int]]:
    source = random.Random(seed)
    numbers = range(count)
    for _ in range(DRAWS):
        yield source.choices(numbers, k=count)


def _interval(drawn: list[float]) -> Interval | None:
    if not drawn:
        return None
    drawn.sort()
    tail = (1 - CONFIDENCE) / 2
    return drawn[math.floor(tail * len(drawn))], drawn[math.ceil((1 - tail) * len(drawn)) - 1]
