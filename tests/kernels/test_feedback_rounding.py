"""Rounding by the inputs of a matrix: the factor against NumPy, what feedback gains, what a bias makes up for."""

from types import SimpleNamespace

import numpy as np
import pytest

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest

TYPES = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q4_0", "IQ4_NL", "IQ4_XS"]
COLS, ROWS = 512, 24


def record(x: np.ndarray, cols: int) -> _core.ActivationSums:
    recorder = _core.ActivationRecorder({"w"})
    recorder.add(["w"], np.ascontiguousarray(x, np.float32), cols)
    return recorder.find("w")


def inputs(seed: int, cols: int = COLS) -> np.ndarray:
    """Correlated, of unequal size, with a mean."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(2000, 24)) @ random.normal(size=(24, cols)) + random.normal(size=(2000, cols))
    return (mixed * 2.0 ** random.normal(0, 1, cols) + random.normal(size=cols)).astype(np.float32)


@pytest.fixture(scope="module")
def case() -> SimpleNamespace:
    x = inputs(0)
    w = np.random.default_rng(1).normal(size=(ROWS, COLS)).astype(np.float32)
    sums = record(x, COLS)
    return SimpleNamespace(
        x=x, w=w, sums=sums, importance=(x**2).mean(0), mean=x.mean(0),
        factor=_core.FeedbackFactor(sums, False, 0.01), centred=_core.FeedbackFactor(sums, True, 0.01),
    )  # fmt: skip


def stored(dtype: str, blocks: bytes) -> np.ndarray:
    return np.frombuffer(_core.dequantize(dtype, blocks, ROWS * COLS), np.float32).reshape(ROWS, COLS)


def test_sums_are_those_of_the_inputs(case):
    sums, x = case.sums, case.x.astype(np.float64)
    assert (sums.rows, sums.cols) == x.shape
    np.testing.assert_allclose(np.frombuffer(sums.sum), x.sum(0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(np.frombuffer(sums.squares), (x**2).sum(0), rtol=1e-12)
    products = np.frombuffer(sums.products, np.float32).reshape(COLS, COLS)
    np.testing.assert_allclose(products, np.tril(x.T @ x), rtol=1e-3, atol=1e-3 * (x**2).sum(0).max())
    assert not np.triu(products, 1).any()


@pytest.mark.parametrize("n", [1, 15, 64, 65, 200, 700])
@pytest.mark.parametrize("centred", [False, True])
def test_factor_is_the_root_of_the_inverse(n, centred):
    x = inputs(n, n)
    sums = record(x, n)
    factor = _core.FeedbackFactor(sums, centred, 0.01)
    upper = np.frombuffer(factor.values, np.float32).reshape(n, n).astype(np.float64)
    exact = x.astype(np.float64) - (x.mean(0, dtype=np.float64) if centred else 0)
    moments = exact.T @ exact / len(x)
    moments += 0.01 * np.trace(moments) / n * np.eye(n)
    np.testing.assert_allclose(upper.T @ upper @ moments, np.eye(n), atol=2e-3)
    assert not np.tril(upper, -1).any() and (np.diag(upper) > 0).all()


def test_threads_change_no_bit_of_the_factor(monkeypatch):
    sums, found = record(inputs(5, 700), 700), set()
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        found.add(_core.FeedbackFactor(sums, True, 0.01).values)
    assert len(found) == 1


@pytest.mark.parametrize("dtype", TYPES)
def test_feedback_lowers_the_error_of_products(case, dtype):
    def error(blocks: bytes) -> float:
        return float(np.square(case.x @ (case.w - stored(dtype, blocks)).T).mean())

    plain = _core.quantize(dtype, case.w, row_length=COLS)
    weighted = _core.quantize(dtype, case.w, row_length=COLS, importance=case.importance)
    fed, nothing = _core.quantize_calibrated(dtype, case.w, COLS, case.importance, case.factor)
    assert len(fed) == len(plain) and nothing == b""
    assert error(weighted) < error(plain)
    assert error(fed) < 0.5 * error(weighted)  # 0.1 to 0.3 are measured
    assert fed == _core.quantize_calibrated(dtype, case.w, COLS, case.importance, case.factor)[0]


@pytest.mark.parametrize("dtype", TYPES)
def test_no_single_code_of_a_block_could_be_better(dtype):
    """Rounding one value after the other leaves 6 to 16 % that could; going through them again mends that."""
    x = inputs(5, 256).astype(np.float64)
    w = np.random.default_rng(6).normal(size=(ROWS, 256)).astype(np.float32)
    moments = x.T @ x / len(x)
    moments += 0.01 * np.trace(moments) / 256 * np.eye(256)
    factor = _core.FeedbackFactor(record(x, 256), False, 0.01)
    blocks, _ = _core.quantize_calibrated(dtype, w, 256, np.diag(moments).astype(np.float32), factor)
    got = np.frombuffer(_core.dequantize(dtype, blocks, ROWS * 256), np.float32).reshape(ROWS, 256)
    size = 32 if dtype in ("Q8_0", "Q4_0", "IQ4_NL") else 256
    last = slice(256 - size, 256)  # of the last block no later value makes up for anything
    slope = ((got - w) @ moments)[:, last]
    curve = np.diag(moments)[last]
    width = 16 if dtype in ("Q2_K", "Q3_K", "Q6_K") else 32  # values with one scale
    change = np.zeros((ROWS, size))  # of the error, if a value goes to the next one that has been used, at best
    for row in range(ROWS):
        for at in range(0, size, width):
            part = slice(at, at + width)
            levels = np.unique(got[row, last][part])
            place = np.searchsorted(levels, got[row, last][part])
            for step in (-1, 1):
                to = levels[np.clip(place + step, 0, len(levels) - 1)] - levels[place]
                change[row, part] = np.minimum(change[row, part], 2 * slope[row, part] * to + curve[part] * to**2)
    improved = change < -0.02 * (curve * np.square(got - w)[:, last]).mean()
    assert np.mean(improved) < 0.01


@pytest.mark.parametrize("dtype", TYPES)
def test_without_a_factor_it_is_weighted_rounding(case, dtype):
    weighted = _core.quantize(dtype, case.w, row_length=COLS, importance=case.importance)
    assert _core.quantize_calibrated(dtype, case.w, COLS, case.importance)[0] == weighted
    assert _core.quantize_calibrated(dtype, case.w, COLS)[0] == _core.quantize(dtype, case.w, row_length=COLS)


@pytest.mark.parametrize("dtype", TYPES)
def test_the_correction_takes_the_mean_error_away(case, dtype):
    blocks, missing = _core.quantize_calibrated(dtype, case.w, COLS, case.importance, case.centred, case.mean)
    errors = case.x @ (case.w - stored(dtype, blocks)).T
    scale = np.abs(errors.mean(0)).max()
    np.testing.assert_allclose(np.frombuffer(missing, np.float32), errors.mean(0), atol=1e-3 * scale)
    assert np.square(errors - np.frombuffer(missing, np.float32)).mean() < np.square(errors).mean()


def test_unused_columns_do_no_harm():
    x = inputs(3)
    x[:, 256:] = 0  # a whole block of them
    w = np.random.default_rng(2).normal(size=(ROWS, COLS)).astype(np.float32)
    factor = _core.FeedbackFactor(record(x, COLS), False, 0.01)
    blocks, _ = _core.quantize_calibrated("Q4_K", w, COLS, (x**2).mean(0), factor)
    np.testing.assert_allclose(stored("Q4_K", blocks)[:, 256:], w[:, 256:], atol=0.3)


def test_other_types_are_rounded_without_feedback(case):
    for dtype in ("Q5_1", "F16"):
        fed = _core.quantize_calibrated(dtype, case.w, COLS, case.importance, case.factor)[0]
        assert fed == _core.quantize(dtype, case.w, row_length=COLS, importance=case.importance)


def test_errors(case):
    x = inputs(4)
    x[7, 3] = np.nan
    with pytest.raises(InvalidRequest, match="the product of inputs 3 and 0 is not finite"):
        _core.FeedbackFactor(record(x, COLS), False, 0.01)
    with pytest.raises(InvalidRequest, match="all inputs are the same"):
        _core.FeedbackFactor(record(np.zeros((5, 8)), 8), False, 0.01)
    with pytest.raises(InvalidRequest, match="damping is 2; expected"):
        _core.FeedbackFactor(case.sums, False, 2)
    with pytest.raises(InvalidRequest, match="rows have 256 values, but the inputs 512"):
        _core.quantize_calibrated("Q4_K", case.w, 256, None, case.factor)
    with pytest.raises(InvalidRequest, match="importance has 4 bytes"):
        _core.quantize_calibrated("Q4_K", case.w, COLS, np.ones(1, np.float32))
    with pytest.raises(InvalidRequest, match="an importance is nan; expected"):
        _core.quantize_calibrated("Q4_K", case.w, COLS, np.full(COLS, np.nan, np.float32))
    with pytest.raises(InvalidRequest, match="expected float32 rows of 7 values"):
        _core.quantize_calibrated("Q8_0", case.w[0, :5], 7)
    with pytest.raises(InvalidRequest, match="nothing was recorded for the tensor v"):
        _core.ActivationRecorder().find("v")
    plain = _core.ActivationRecorder()
    plain.add(["w"], np.ones((2, 4), np.float32), 4)
    with pytest.raises(InvalidRequest, match="products were not recorded"):
        _core.FeedbackFactor(plain.find("w"), False, 0.01)
