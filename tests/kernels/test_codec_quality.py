"""Encoding loses no more than llama.cpp's reference encoders do, on Gaussian and heavy-tailed rows.

The reference for Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 is the `gguf` package, whose encoders are bit-exact with llama.cpp's
`quantize_row_*_ref`; it runs here. It has no encoders of the other types. For those, REFERENCE holds what
`quantize_row_{q2_K,q3_K,q4_K,q5_K,q6_K,iq4_nl,iq4_xs}_ref` of ggml-quants.c gave on the same rows (llama.cpp as
vendored in the source package of llama-cpp-python 0.3.36; compiled by gcc 12.2 -O2, called through ctypes, blocks
decoded by the `gguf` package).

Figures are relative errors: sqrt(sum w (x' - x)^2 / sum w x^2), for w = 1 ("plain") and for the weights that the
reference minimises ("own": rms + |x| over 32 values for Q4_K and Q5_K, x^2 for Q6_K; the simple types minimise
nothing, rms + |x| is used, and for Q3_K, IQ4_NL and IQ4_XS, too, whose references minimise x^2 alone, and for Q2_K,
whose minimises |x| |x' - x|).
docs/quantization.md shows them beside ours.
"""

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as GgmlType
from helpers.ops_reference import I8, split_blocks

from kosmos_edge import _core

SIMPLE = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]
RECORDED = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"]
# RandomState's streams are frozen (NEP 19): the rows are the same everywhere.
ROWS = {
    "gaussian": lambda r, shape: r.standard_normal(shape),
    "laplace": lambda r, shape: r.laplace(size=shape),
    "student t, 5": lambda r, shape: r.standard_t(5, shape),
    "student t, 3": lambda r, shape: r.standard_t(3, shape),
    "1 % outliers": lambda r, shape: r.standard_normal(shape) * np.where(r.random_sample(shape) < 0.01, 10, 1),
}


def rows(distribution: str) -> np.ndarray:
    """(128, 2048) values of the size of trained weights."""
    return (ROWS[distribution](np.random.RandomState(1234), (128, 2048)) * 0.02).astype(np.float32)


def losses(dtype: str, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(plain, own) relative errors."""
    x64 = x.astype(np.float64).reshape(-1, 32)
    squares = (y.astype(np.float64).reshape(-1, 32) - x64) ** 2
    own = x64**2 if dtype == "Q6_K" else np.sqrt((x64**2).mean(-1, keepdims=True)) + np.abs(x64)
    return tuple(float(np.sqrt((w * squares).sum() / (w * x64**2).sum())) for w in (np.ones_like(x64), own))


def our_losses(dtype: str, x: np.ndarray) -> tuple[float, float]:
    data = _core.quantize(dtype, x, row_length=x.shape[-1])
    return losses(dtype, x, np.frombuffer(_core.dequantize(dtype, data, x.size), np.float32))


REFERENCE = {
    ("Q2_K", "gaussian"): (0.295555, 0.237889),
    ("Q2_K", "laplace"): (0.344522, 0.246047),
    ("Q2_K", "student t, 5"): (0.334293, 0.239972),
    ("Q2_K", "student t, 3"): (0.350759, 0.184437),
    ("Q2_K", "1 % outliers"): (0.325125, 0.163146),
    ("Q3_K", "gaussian"): (0.151090, 0.124762),
    ("Q3_K", "laplace"): (0.176387, 0.131408),
    ("Q3_K", "student t, 5"): (0.177218, 0.132552),
    ("Q3_K", "student t, 3"): (0.191079, 0.108128),
    ("Q3_K", "1 % outliers"): (0.190382, 0.106681),
    ("Q4_K", "gaussian"): (0.071203, 0.058480),
    ("Q4_K", "laplace"): (0.084784, 0.062094),
    ("Q4_K", "student t, 5"): (0.083359, 0.061495),
    ("Q4_K", "student t, 3"): (0.092598, 0.053100),
    ("Q4_K", "1 % outliers"): (0.093071, 0.050972),
    ("Q5_K", "gaussian"): (0.036103, 0.029849),
    ("Q5_K", "laplace"): (0.042912, 0.031746),
    ("Q5_K", "student t, 5"): (0.042185, 0.031387),
    ("Q5_K", "student t, 3"): (0.047095, 0.027425),
    ("Q5_K", "1 % outliers"): (0.046534, 0.025474),
    ("Q6_K", "gaussian"): (0.017722, 0.008802),
    ("Q6_K", "laplace"): (0.021773, 0.007179),
    ("Q6_K", "student t, 5"): (0.021600, 0.006332),
    ("Q6_K", "student t, 3"): (0.025949, 0.002489),
    ("Q6_K", "1 % outliers"): (0.027391, 0.002702),
    ("IQ4_NL", "gaussian"): (0.078680, 0.068893),
    ("IQ4_NL", "laplace"): (0.089497, 0.070001),
    ("IQ4_NL", "student t, 5"): (0.090124, 0.070314),
    ("IQ4_NL", "student t, 3"): (0.102941, 0.063338),
    ("IQ4_NL", "1 % outliers"): (0.112685, 0.065237),
    ("IQ4_XS", "gaussian"): (0.076681, 0.066947),
    ("IQ4_XS", "laplace"): (0.088702, 0.069312),
    ("IQ4_XS", "student t, 5"): (0.089511, 0.069905),
    ("IQ4_XS", "student t, 3"): (0.103563, 0.063824),
    ("IQ4_XS", "1 % outliers"): (0.113873, 0.065783),
}


@pytest.mark.parametrize("distribution", ROWS)
@pytest.mark.parametrize("dtype", SIMPLE)
def test_simple_types_against_the_gguf_package(dtype, distribution):
    x = rows(distribution)
    theirs = losses(dtype, x, gguf.quants.dequantize(gguf.quants.quantize(x, GgmlType[dtype]), GgmlType[dtype]))
    for ours, reference in zip(our_losses(dtype, x), theirs, strict=True):
        assert ours <= reference


@pytest.mark.parametrize(("dtype", "distribution"), REFERENCE)
def test_other_types_against_recorded_figures(dtype, distribution):
    for ours, reference in zip(our_losses(dtype, rows(distribution)), REFERENCE[dtype, distribution], strict=True):
        assert ours <= reference


def test_all_of_them_are_compared():
    assert set(REFERENCE) == {(dtype, distribution) for dtype in RECORDED for distribution in ROWS}


# Plain errors in percent of Q6_K, and of the 8-bit codes that the CPU makes of it for pictures (cpu/repack_i8.cpp).
I8_ERRORS = {
    "gaussian": (1.654, 1.793),
    "laplace": (2.043, 2.268),
    "student t, 5": (2.026, 2.305),
    "student t, 3": (2.474, 2.981),
    "1 % outliers": (2.638, 3.373),
}


@pytest.mark.parametrize("distribution", ROWS)
def test_what_codes_for_pictures_add_to_q6_k(distribution):
    x = rows(distribution)
    data = _core.quantize("Q6_K", x, row_length=x.shape[1])
    w = split_blocks(I8, data, *x.shape)
    requantized = w["q"] * np.repeat(w["d"], 256, axis=1)
    stored = np.frombuffer(_core.dequantize("Q6_K", data, x.size), np.float32)
    errors = [100 * losses("Q6_K", x, y)[0] for y in (stored, requantized)]
    assert errors == pytest.approx(I8_ERRORS[distribution], rel=2e-3)
