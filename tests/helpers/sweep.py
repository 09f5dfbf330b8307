"""What takes too long for every run: a test tries a share of it, all of it with KOSMOS_EDGE_SWEEP=1 (`.ci/sweep`)."""

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
WHOLE = bool(os.environ.get("KOSMOS_EDGE_SWEEP"))


def some(items: Sequence[T], step: int, first: int = 0) -> list[T]:
    """Every step-th of them from `first` on, and the last; in a sweep all."""
    if WHOLE:
        return list(items)
    chosen = list(items[first % step :: step])
    return chosen if (len(items) - 1 - first % step) % step == 0 else [*chosen, items[-1]]


def many(share: int, whole: int) -> int:
    """How many random cases: `share`, in a sweep `whole`."""
    return whole if WHOLE else share
