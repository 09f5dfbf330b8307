"""bench quality, the arithmetic: overlap, matching, names, answers, KL divergence against values worked out by hand."""

import math

import numpy as np
import pytest

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.quality.measure import Distance
from kosmos_edge.quality.metrics import answers, commonest_share, constant_box, iou, match, names, plain, share


def test_iou() -> None:
    assert iou((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert iou((0, 0, 1, 1), (0, 0, 1, 1)) == 1.0
    assert iou((0, 0, 1, 1), (1, 0, 2, 1)) == 0.0  # they touch
    assert iou((0, 0, 4, 1), (1, 0, 2, 1)) == pytest.approx(0.25)
    assert iou((2, 2, 0, 0), (1, 1, 3, 3)) == pytest.approx(1 / 7)  # corners in the other order
    assert iou((1, 1, 1, 1), (1, 1, 1, 1)) == 0.0


def test_match_takes_the_best_overlap_first_and_each_box_once() -> None:
    left, right = (0.0, 0.0, 0.4, 1.0), (0.5, 0.0, 1.0, 1.0)
    said = [("a wide one", [(0.0, 0.0, 0.5, 1.0)]), ("a narrow one", [left])]
    found = match(said, [left, right])
    assert [(phrase, overlap) for phrase, overlap, _ in found] == [("a narrow one", 1.0), ("", 0.0)]
    assert match([], [left]) == [("", 0.0, None)] and match(said, []) == []
    both = match([("two", [left, right])], [right, left])
    assert [phrase for phrase, _, _ in both] == ["two", "two"] and [o for _, o, _ in both] == [1.0, 1.0]


def test_names_and_answers() -> None:
    assert names("a red circle", "red circle") and names("A small Red Circle.", "a circle")
    assert not names("a red circles", "circle") and not names("a red big circle", "red circle") and not names("", "x")
    assert not names("anything", "")
    assert answers("Two.", ["2"]) and answers(" the left", ["left"]) and not answers("two dogs", ["2"])
    assert plain("The  RED hat!") == "red hat" and plain("another") == "another"


def test_shares() -> None:
    assert share([True, False, None, 0.5]) == 0.5 and share([]) is None and share([None]) is None
    assert commonest_share(["a", "b", "a"]) == pytest.approx(2 / 3) and commonest_share([]) is None
    assert constant_box([(0.4, 0.4, 0.6, 0.6)]) == pytest.approx((0.4, 0.4, 0.6, 0.6))


def logits(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_divergence_by_hand() -> None:
    even, uneven = logits([0.0, 0.0]), logits([math.log(9), 0.0])  # (.5, .5) and (.9, .1)
    ((kl, ours, theirs),) = _core.compare_logits(even, uneven, 2)
    assert kl == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1), rel=1e-6)
    assert (ours, theirs) == (0, 0)  # the first of equals
    ((kl, ours, theirs),) = _core.compare_logits(uneven, even, 2)
    assert kl == pytest.approx(0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5), rel=1e-6)


def test_divergence_ignores_a_shift_and_bears_large_logits() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(5, 300)).astype(np.float32) * 4, rng.normal(size=(5, 300)).astype(np.float32) * 4
    p, q = (np.exp(x.astype(float)) / np.exp(x.astype(float)).sum(1, keepdims=True) for x in (a, b))
    found = _core.compare_logits(a, b, 300)
    np.testing.assert_allclose([kl for kl, _, _ in found], (p * np.log(p / q)).sum(1), rtol=1e-9)
    assert [(x, y) for _, x, y in found] == list(zip(a.argmax(1).tolist(), b.argmax(1).tolist(), strict=True))
    assert all(kl == pytest.approx(0, abs=1e-12) for kl, _, _ in _core.compare_logits(a, a, 300))
    ((kl, _, _),) = _core.compare_logits(logits([1e30, 0.0]), logits([1e30, 0.0]), 2)
    assert kl == 0.0


@pytest.mark.parametrize(
    ("a", "b", "vocab"),
    [
        (logits([0, 1]), logits([0, 1, 2]), 2),
        (logits([0, 1, 2]), logits([0, 1, 2]), 2),
        (logits([0, 1]), logits([0, 1]), 0),
        (logits([0, math.nan]), logits([0, 1]), 2),
        (logits([0, 1]), logits([math.inf, 1]), 2),
        (b"12345", b"12345", 1),
    ],
)
def test_divergence_refuses_what_is_no_pair_of_logits(a: object, b: object, vocab: int) -> None:
    with pytest.raises(InvalidRequest):
        _core.compare_logits(a, b, vocab)


def test_distance_counts_tokens_and_locations() -> None:
    distance = Distance()
    distance.add([(0.5, 1, 1), (0.1, 2, 3), (0.0, 9, 9)], [1, 8, 9], lambda token: token >= 8)
    figures = distance.figures()
    assert figures["kl"] == pytest.approx(0.2) and figures["kl_p99"] == 0.5 and figures["tokens"] == 3
    assert figures["top1_agreement"] == pytest.approx(2 / 3) and figures["location_top1_agreement"] == 0.5
    assert Distance().figures()["kl"] is None
