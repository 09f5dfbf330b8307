"""What a few paired ratios say: their median, an interval for it, and whether the two programs differ at all.

The interval is the order-statistic (sign-test) interval of a median: of n independent ratios in order, the k-th
smallest and the k-th largest enclose the median of their distribution with probability 1 - 2 P(B < k), B binomial of n
and 1/2. It assumes no form of the distribution. H. A. David and H. N. Nagaraja, Order Statistics, 3rd edition (2003),
section 7.1.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
ENOUGH = 6  # ratios, the fewest whose range is a 95 % interval


@dataclass(frozen=True)
class Interval:
    """low <= median <= high with probability `coverage`."""

    low: float
    high: float
    coverage: float

    @property
    def holds_one(self) -> bool:
        """Whether the programs may be equally fast."""
        return self.low <= 1 <= self.high


def coverage(count: int, rank: int) -> float:
    """Probability that the rank-th smallest and the rank-th largest of `count` values enclose the median; rank >= 1."""
    return 1 - 2 * sum(math.comb(count, i) for i in range(rank)) / 2**count


def interval(values: Sequence[float]) -> Interval | None:
    """The narrowest order-statistic interval with at least 95 %; of fewer than six values their range, with what that
    covers; None of fewer than two."""
    if len(values) < 2:
        return None
    ordered, count = sorted(values), len(values)
    rank = max((k for k in range(1, count // 2 + 1) if coverage(count, k) >= CONFIDENCE), default=1)
    return Interval(ordered[rank - 1], ordered[-rank], coverage(count, rank))


def compared(ratios: Sequence[float]) -> dict:
    """The entry of a report: {"ratio", "low", "high", "coverage", "pairs", "verdict"}. verdict: "equal" where the
    interval holds 1, else "faster" or "slower"; None of one pair, which says nothing about noise."""
    middle, found = statistics.median(ratios), interval(ratios)
    entry: dict = {"ratio": middle, "pairs": len(ratios), "low": None, "high": None, "coverage": None, "verdict": None}
    if found:
        entry |= {"low": found.low, "high": found.high, "coverage": found.coverage}
        entry["verdict"] = "equal" if found.holds_one else "faster" if found.low > 1 else "slower"
    return entry


def words(entry: dict) -> str:
    """For a table's cell: "1.18 (1.12 to 1.25)", "equal: 1.01 (0.97 to 1.05)", of one pair "1.18"."""
    if entry["verdict"] is None:
        return f"{entry['ratio']:.2f}"
    text = f"{entry['ratio']:.2f} ({entry['low']:.2f} to {entry['high']:.2f})"
    return f"equal: {text}" if entry["verdict"] == "equal" else text
