"""Pooled rates, bootstrap intervals and paired differences."""

import math
import random

import numpy as np
import pytest

from kosmos_edge.evaluation.statistics import DRAWS, Part, bootstrap, paired_difference, ratio


def test_ratio_pools() -> None:
    assert ratio([(1, 2), (3, 10)]) == 4 / 12
    assert ratio([(0.5, 1), (1, 1)]) == 0.75
    assert ratio([]) is None and ratio([(0, 0)]) is None


def test_the_interval_is_the_percentiles_of_the_same_draws() -> None:
    """NumPy draws nothing here: the samples are random.Random's, as anyone can repeat them."""
    parts: list[Part] = [(float(i % 7), float(5 + i % 3)) for i in range(40)]
    source = random.Random(11)
    samples = np.array([source.choices(range(40), k=40) for _ in range(DRAWS)])
    table = np.array(parts)
    drawn = np.sort(table[samples, 0].sum(1) / table[samples, 1].sum(1))
    low, high = bootstrap(ratio, parts, seed=11) or (0, 0)
    assert low == pytest.approx(drawn[25]) and high == pytest.approx(drawn[974])
    assert bootstrap(ratio, parts, 11) == (low, high) and bootstrap(ratio, parts, 12) != (low, high)


def test_the_interval_has_about_the_width_that_theory_gives() -> None:
    """A share of 30 % among 400: 1.96 standard errors are 4.5 points."""
    low, high = bootstrap(ratio, [(float(i % 10 < 3), 1.0) for i in range(400)], 0) or (0, 0)
    assert low == pytest.approx(0.3 - 0.045, abs=0.008) and high == pytest.approx(0.3 + 0.045, abs=0.008)


def test_it_covers_the_truth_about_95_times_of_100() -> None:
    source = random.Random(1)
    covered = 0
    for trial in range(100):
        parts: list[Part] = [(float(source.random() < 0.4), 1.0) for _ in range(60)]
        low, high = bootstrap(ratio, parts, trial) or (0, 0)
        covered += low <= 0.4 <= high
    assert 88 <= covered <= 99


def test_too_little_for_an_interval() -> None:
    assert bootstrap(ratio, [(1, 2)], 0) is None
    assert bootstrap(ratio, [], 0) is None
    assert bootstrap(ratio, [(0, 0), (0, 0)], 0) is None


def test_a_small_steady_difference_is_seen_through_the_noise_between_items() -> None:
    source = random.Random(2)
    one: list[Part] = [(source.random() * 50, 100.0) for _ in range(50)]
    other: list[Part] = [(errors + 1, length) for errors, length in one]
    made = paired_difference(ratio, one, other, 0)
    assert made is not None and made.ci95 is not None
    assert made.value == pytest.approx(0.01) and made.ci95 == pytest.approx((0.01, 0.01))
    assert made.p == 2 / DRAWS  # the smallest that so many draws can show
    low, high = bootstrap(ratio, one, 0) or (0, 0)
    assert high - low > 0.05  # without pairs it would drown


def test_no_difference() -> None:
    one: list[Part] = [(float(i % 5), 10.0) for i in range(30)]
    same = paired_difference(ratio, one, one, 0)
    assert same is not None and (same.value, same.ci95, same.p) == (0, (0, 0), 1)
    source = random.Random(4)
    shuffled = [(a + source.choice((-1, 1)), b) for a, b in one]
    noise = paired_difference(ratio, one, shuffled, 0)
    assert noise is not None and noise.p is not None and noise.p > 0.05
    assert paired_difference(ratio, [(0, 0)], [(0, 0)], 0) is None
    alone = paired_difference(ratio, [(1, 2)], [(2, 2)], 0)
    assert alone is not None and (alone.value, alone.ci95, alone.p) == (0.5, None, None)
    with pytest.raises(ValueError, match="same items, got 30 and 1"):
        paired_difference(ratio, one, one[:1], 0)


def test_another_value_than_a_rate() -> None:
    """A metric may be any function of its parts, such as a median."""

    def median(parts: object) -> float:
        assert isinstance(parts, list)
        return float(np.median([part[0] for part in parts]))

    low, high = bootstrap(median, [(float(i),) for i in range(101)], 0) or (0, 0)
    assert low < 50 < high and math.isfinite(low)
