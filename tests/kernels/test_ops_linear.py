"""Matrix products of every instruction set, storage type and shape against float64 and against their definition."""

import numpy as np
import pytest
from helpers.ops_reference import (
    BLOCK32_TYPES,
    FLOAT_TYPES,
    I8,
    K_TYPES,
    U,
    dot_bound,
    f32,
    floats,
    heavy,
    quantize_activations,
    quantized_linear,
    split_blocks,
)

from kosmos_edge import _core

ISAS = _core.available_isas()
SHAPES = [
    (1, 16, 32),
    (1, 65, 256),
    (2, 33, 588),
    (3, 7, 256),
    (5, 128, 96),
    (7, 70, 1024),
    (13, 100, 544),
    (97, 48, 256),
    (71, 130, 512),
    (257, 20, 256),
]


def stored(dtype):
    """The file's type."""
    return "Q6_K" if dtype == I8 else dtype


def computed(ops, dtype):
    """The type whose definition holds: AVX2 alone computes Q6_K as stored, however many rows there are."""
    return stored(dtype) if "(avx2," in ops.description else dtype


def encode(dtype, w):
    return _core.quantize(stored(dtype), f32(w), row_length=w.shape[1])


def decode(dtype, data, rows, cols):
    if dtype == I8:
        w = split_blocks(dtype, data, rows, cols)
        return w["q"] * np.repeat(w["d"].astype(np.float64), 256, axis=1)
    return floats(_core.dequantize(dtype, data, rows * cols), rows, cols).astype(np.float64)


def run(ops, parts, x, bias=None, act="none", residual=None, norm=None, pad=0):
    m, cols = x.shape
    large_batch = parts[0][0] == I8
    parts = [(stored(dtype), data, rows) for dtype, data, rows in parts]
    out = ops.linear(parts, cols, x, m, bias, act, residual, norm, pad, large_batch)
    return floats(out, m, sum(p[2] for p in parts))


@pytest.fixture(scope="module", params=ISAS)
def ops(request):
    return _core.testing.Ops(request.param, 2)


@pytest.mark.parametrize("dtype", FLOAT_TYPES)
@pytest.mark.parametrize("m,rows,cols", [*SHAPES, (4, 17, 5), (6, 1, 1)])
def test_float_weights_are_exact_to_rounding(ops, dtype, m, rows, cols):
    rng = np.random.default_rng(m * rows + cols)
    w, x, bias = rng.standard_normal((rows, cols)), heavy(rng, m, cols), f32(rng.standard_normal(rows))
    data = encode(dtype, w)
    w = decode(dtype, data, rows, cols)
    y = run(ops, [(dtype, data, rows)], x, bias, pad=3)
    exact = x.astype(np.float64) @ w.T + bias
    bound = dot_bound(cols + 1, np.abs(x).astype(np.float64) @ np.abs(w).T + np.abs(bias))
    assert (np.abs(y - exact) <= bound).all()


@pytest.mark.parametrize(
    "dtype,m,rows,cols",
    [(t, *s) for t in BLOCK32_TYPES for s in SHAPES if s[2] % 32 == 0]
    + [(t, *s) for t in [*K_TYPES, I8] for s in SHAPES if s[2] % 256 == 0],
)
def test_quantized_weights_follow_the_definition_bit_for_bit(ops, dtype, m, rows, cols):
    rng = np.random.default_rng(m * rows + cols)
    data = encode(dtype, rng.standard_normal((rows, cols)))
    x = heavy(rng, m, cols)
    want = quantized_linear(computed(ops, dtype), data, rows, x)
    np.testing.assert_array_equal(run(ops, [(dtype, data, rows)], x, pad=1), want)


@pytest.mark.parametrize("dtype", [*BLOCK32_TYPES, *K_TYPES, I8])
def test_quantized_weights_approximate_the_product(ops, dtype):
    """Off by no more than half a code per activation (plus float32 rounding of a few steps per block)."""
    m, rows, cols = 9, 40, 512
    rng = np.random.default_rng(5)
    data, x = encode(dtype, rng.standard_normal((rows, cols))), heavy(rng, m, cols)
    w = decode(computed(ops, dtype), data, rows, cols)
    y = run(ops, [(dtype, data, rows)], x)
    _, dx = quantize_activations(x)
    half_code = np.repeat(dx.astype(np.float64), 256, axis=1) * (0.5 + 1e-4)
    sizes = np.abs(w).max() * 2 * np.abs(x).sum(axis=1, keepdims=True).astype(np.float64)
    assert (np.abs(y - x.astype(np.float64) @ w.T) <= half_code @ np.abs(w).T + 40 * U * sizes).all()


def extreme_blocks(dtype, rows, cols):
    """Every code at its largest: what int16 and int32 sums must hold."""
    dtype = stored(dtype)
    _, elems, size = _core.dtypes()[dtype]
    block = np.full(size, 0xFF, np.uint8)
    one = np.frombuffer(np.float16(1.0).tobytes(), np.uint8)
    if dtype == "Q8_0":
        block[2:] = 0x80  # -128, which no encoder writes but a file may hold
    if dtype == "Q6_K":
        block[192:208] = 0x80  # scales of -128
    if dtype.startswith("IQ4"):
        block[2:] = 0  # the table's -127, scales of -32
    starts = {"Q2_K": [80, 82], "Q3_K": [108], "Q6_K": [208]}.get(
        dtype, [0, 2] if dtype.endswith(("_1", "Q4_K", "Q5_K")) else [0]
    )
    for s in starts:
        block[s : s + 2] = one
    return np.tile(block, rows * cols // elems).tobytes()


@pytest.mark.parametrize("dtype", [*BLOCK32_TYPES, *K_TYPES, I8])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("m", [7, 31])  # unpacked in registers, and once for all tiles
def test_nothing_saturates(ops, dtype, sign, m):
    rows, cols = 80, 8192
    data = extreme_blocks(dtype, rows, cols)
    x = np.full((m, cols), 127.0 * sign, np.float32)
    x[0, 1::2] *= -1
    y = run(ops, [(dtype, data, rows)], x)
    np.testing.assert_array_equal(y, quantized_linear(computed(ops, dtype), data, rows, x))
    assert np.abs(y[1:]).min() > 1e6 or dtype.startswith("Q5_0") or dtype.startswith("Q4_0")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [*FLOAT_TYPES, *BLOCK32_TYPES, *K_TYPES, I8])
def test_a_row_gives_the_same_bits_in_any_batch_and_with_any_threads(isa, dtype):
    rows, cols, most = 150, 768, 257
    rng = np.random.default_rng(1)
    parts = [(dtype, encode(dtype, rng.standard_normal((rows, cols))), rows)]
    x, bias = heavy(rng, most, cols), f32(rng.standard_normal(rows))
    norm = (f32(rng.standard_normal(cols)), f32(rng.standard_normal(cols)), 1e-5)
    one = _core.testing.Ops(isa, 1)
    whole = run(one, parts, x, bias, "gelu_erf", None, norm)
    for m in (*range(1, 18), 23, 31, 32, 33, 64, 71):
        first = (m * 7) % (most - m + 1)
        part = run(one, parts, x[first : first + m], bias, "gelu_erf", None, norm, pad=m % 3)
        np.testing.assert_array_equal(part, whole[first : first + m])
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(
            run(_core.testing.Ops(isa, threads), parts, x, bias, "gelu_erf", None, norm), whole
        )


@pytest.mark.parametrize("dtype", [*BLOCK32_TYPES, *K_TYPES, I8])
def test_instruction_sets_agree_bit_for_bit_on_quantized_weights(dtype):
    rng = np.random.default_rng(3)
    m, rows, cols = 11, 80, 1280
    data, x = encode(dtype, rng.standard_normal((rows, cols))), heavy(rng, m, cols)
    isas = [isa for isa in ISAS if dtype != I8 or isa != "avx2"]
    results = [run(_core.testing.Ops(isa, 2), [(dtype, data, rows)], x) for isa in isas]
    for r in results[1:]:
        np.testing.assert_array_equal(r, results[0])


def test_parts_of_several_types_are_stacked(ops):
    rng = np.random.default_rng(8)
    m, cols = 5, 512
    kinds = [("Q4_K", 70), ("F16", 33), ("Q6_K", 16), ("Q8_0", 5), ("F32", 64)]
    parts = [(t, encode(t, rng.standard_normal((n, cols))), n) for t, n in kinds]
    x, bias = heavy(rng, m, cols), f32(rng.standard_normal(sum(n for _, n in kinds)))
    y = run(ops, parts, x, bias)
    at = 0
    for part in parts:
        np.testing.assert_array_equal(y[:, at : at + part[2]], run(ops, [part], x, bias[at : at + part[2]]))
        at += part[2]


def erf(x):
    from math import erf as scalar_erf

    return np.vectorize(scalar_erf)(x)


def test_activations(ops):
    """Through an identity matrix: GELU within 2e-7 (|x| + 1), quick GELU within 4e-7 relative to |x|."""
    n = 64
    x = f32(np.concatenate([np.linspace(-10, 10, 64 * 63), [0, -0.0, 1e-30, -1e-30, 40, -40, 1e4, -1e4], np.zeros(56)]))
    x = x.reshape(-1, n)
    eye = [("F32", f32(np.eye(n)).tobytes(), n)]
    d = x.astype(np.float64)
    gelu = 0.5 * d * (1 + erf(d / np.sqrt(2)))
    assert (
        np.abs(run(ops, eye, x, act="gelu_erf") - gelu) <= 2e-7 * (np.abs(d) * (np.abs(d) < 7) + 1) + U * np.abs(d)
    ).all()
    with np.errstate(over="ignore"):
        quick = d / (1 + np.exp(-1.702 * d))
    assert (np.abs(run(ops, eye, x, act="quick_gelu") - quick) <= 4e-7 * np.abs(d)).all()


def test_erf_within_2e_7(ops):
    """gelu(x) = x / 2 (1 + erf(x / sqrt 2)), so 2 gelu(x) / x - 1 shows erf."""
    x = f32(np.linspace(0.01, 7, 64 * 64)).reshape(-1, 64)
    y = run(ops, [("F32", f32(np.eye(64)).tobytes(), 64)], x, act="gelu_erf").astype(np.float64)
    d = x.astype(np.float64)
    assert np.abs(2 * y / d - 1 - erf(d / np.sqrt(2))).max() <= 2e-7


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("dtype", ["F32", "Q4_K"])
def test_residual_bias_and_norm_compose(ops, dtype, kind):
    rng = np.random.default_rng(2)
    m, rows, cols = 10, 90, 256
    data, x = encode(dtype, rng.standard_normal((rows, cols))), heavy(rng, m, cols)
    bias, residual = f32(rng.standard_normal(rows)), heavy(rng, m, rows)
    gamma, beta = f32(rng.standard_normal(cols)), f32(rng.standard_normal(cols))
    norm = (gamma, beta if kind == "layer" else None, 1e-5, kind)
    normed = floats(ops.norm(x, m, cols, norm), m, cols)
    plain = run(ops, [(dtype, data, rows)], normed, bias, "quick_gelu")
    np.testing.assert_array_equal(
        run(ops, [(dtype, data, rows)], x, bias, "quick_gelu", residual, norm, pad=5), plain + residual
    )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cols", [256, 1024, 96])
def test_quantize_activations(isa, cols):
    rng = np.random.default_rng(cols)
    x = heavy(rng, 14, cols)
    x[3] = 0
    x[4] = 1e-38
    x[5, ::2] = 0.5  # ties: multiples of half a code
    x[5, 0] = 127
    x[6] *= np.float32(1e30)
    codes, scale = _core.testing.quantize_activations(isa, x, *x.shape)
    want_codes, want_scale = quantize_activations(x)
    np.testing.assert_array_equal(np.frombuffer(codes, np.int8).reshape(x.shape), want_codes)
    np.testing.assert_array_equal(floats(scale, *want_scale.shape), want_scale)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", ["F32", "Q4_K", "Q8_0"])
def test_nan_and_infinity_are_not_hidden(ops, bad, dtype):
    rng = np.random.default_rng(4)
    x = heavy(rng, 3, 256)
    x[1, 17] = bad
    y = run(ops, [(dtype, encode(dtype, rng.standard_normal((16, 256))), 16)], x)
    assert not np.isfinite(y[1]).any()
    assert np.isfinite(y[[0, 2]]).all()


def test_panels_take_no_more_room_than_the_file(ops):
    """Bits per weight in memory: at most the stored ones plus 0.13 (8-bit instead of packed 6-bit scales)."""
    for dtype, (_, elems, size) in _core.dtypes().items():
        cols = 2048
        assert _core.testing.panel_bytes(dtype, cols) * 8 / (16 * cols) <= size * 8 / elems + 0.1251


def test_uploads_check_their_tensors(ops):
    from kosmos_edge.errors import InvalidRequest

    x = np.zeros((1, 48), np.float32)
    with pytest.raises(InvalidRequest, match="no multiple of Q8_0's block"):
        run(ops, [("Q8_0", b"", 4)], x)
    with pytest.raises(InvalidRequest, match="expected 768 bytes, got 5"):
        run(ops, [("F32", b"12345", 4)], x)


@pytest.mark.parametrize("dtype", [*FLOAT_TYPES, *BLOCK32_TYPES, *K_TYPES])
def test_chosen_rows_have_the_bits_of_all(ops, dtype):
    """Two parts, rows of one group, of neighbouring groups and of the last, partly used one."""
    rng = np.random.default_rng(5)
    cols, rows = 256, (150, 70)
    parts = [(dtype, encode(dtype, rng.standard_normal((r, cols))), r) for r in rows]
    gamma, beta = f32(rng.standard_normal(cols)), f32(rng.standard_normal(cols))
    for m, outputs in [(1, [0]), (1, [3, 4, 149, 150, 219]), (3, [63, 64, 65, 127, 128, 151]), (9, list(range(220)))]:
        x = f32(rng.standard_normal((m, cols)))
        want = run(ops, parts, x, norm=(gamma, beta, 1e-5))[:, outputs]
        for composed in (False, True):
            data = ops.norm_linear_rows(parts, cols, x, m, (gamma, beta, 1e-5), outputs, composed)
            got = floats(data, m, len(outputs))
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("scale", [1.0, -3e-4, 2e-7])
def test_i8_codes_are_within_half_a_step(scale):
    """Seen through an identity of activations: every weight off by at most 1/254 of its block's largest."""
    rng = np.random.default_rng(11)
    rows, cols = 48, 512
    data = bytearray(encode("Q6_K", rng.standard_normal((rows, cols)) * scale))
    data[:210] = bytes(210)  # a block of zeros
    exact = decode("Q6_K", bytes(data), rows, cols)
    blocks = exact.reshape(rows, -1, 256)
    bound = np.abs(blocks).max(axis=2, keepdims=True) / 254 * (1 + 1e-5)
    requantized = decode(I8, bytes(data), rows, cols).reshape(blocks.shape)
    assert (np.abs(requantized - blocks) <= bound).all() and not requantized[0, 0].any()
    one = _core.testing.Ops("scalar", 1)
    eye = f32(np.eye(cols) * 127)  # its codes are 127 and 0, exactly
    y = run(one, [(I8, bytes(data), rows)], eye)
    np.testing.assert_allclose(y.T / 127, requantized.reshape(rows, cols), rtol=1e-6, atol=0)


def large_batch(ops, dtype, data, x, rows, norm=None):
    m, cols = x.shape
    return floats(ops.linear([(dtype, data, rows)], cols, x, m, None, "none", None, norm, 0, True), m, rows)


@pytest.mark.parametrize("dtype", BLOCK32_TYPES)
@pytest.mark.parametrize("m,cols", [(1, 992), (13, 1408), (50, 1248)])
def test_long_rows_in_blocks_of_32_are_padded_for_large_batches(ops, dtype, m, cols):
    """Activations then are rounded in blocks of 256; and where I8 is fast the weights are, too, by at most 1/254 of the
    largest in 256."""
    rng = np.random.default_rng(cols)
    rows, padded = 40, (cols + 255) // 256 * 256
    w, x = rng.standard_normal((rows, cols)), heavy(rng, m, cols)
    data = encode(dtype, w)
    got = large_batch(ops, dtype, data, x, rows)
    wide = [np.zeros((a.shape[0], padded)) for a in (x, w)]
    wide[0][:, :cols], wide[1][:, :cols] = x, decode(dtype, data, rows, cols)
    exact = wide[0] @ wide[1].T
    steps = [np.repeat(np.abs(a.reshape(len(a), -1, 256)).max(axis=2) / 254, 256, axis=1) for a in wide]
    bound = steps[0] @ np.abs(wide[1]).T + np.abs(wide[0]) @ steps[1].T + steps[0] @ steps[1].T
    assert (np.abs(got - exact) <= 1.01 * bound).all()
    assert np.sqrt(((got - exact) ** 2).mean()) <= 0.05 * np.sqrt((exact**2).mean())
    if "(avx2," in ops.description:  # the type stays: these are the bits of a matrix that is stored with the zeros
        stored_wide = _core.quantize(dtype, f32(np.pad(w, ((0, 0), (0, padded - cols)))), row_length=padded)
        np.testing.assert_array_equal(got, run(ops, [(dtype, stored_wide, rows)], f32(wide[0])))


@pytest.mark.parametrize("dtype", BLOCK32_TYPES)
def test_short_rows_and_single_products_are_not_padded(ops, dtype):
    """Zeros for more than an eighth of a row would cost what they save."""
    rng = np.random.default_rng(5)
    w, x = encode(dtype, rng.standard_normal((20, 352))), heavy(rng, 9, 352)
    np.testing.assert_array_equal(large_batch(ops, dtype, w, x, 20), run(ops, [(dtype, w, 20)], x))


def test_padded_rows_do_not_depend_on_batch_or_threads_and_take_norms():
    rng = np.random.default_rng(6)
    w, x = encode("Q8_0", rng.standard_normal((33, 992))), heavy(rng, 60, 992)
    norm = (f32(rng.standard_normal(992)), None, 1e-6, "rms")
    for isa in ISAS:
        one = _core.testing.Ops(isa, 1)
        whole = large_batch(one, "Q8_0", w, x, 33, norm)
        normed = floats(one.norm(x, 60, 992, norm), 60, 992)
        np.testing.assert_array_equal(whole, large_batch(one, "Q8_0", w, normed, 33))
        for threads, first, count in [(2, 0, 60), (3, 7, 30), (1, 59, 1)]:
            part = x[first : first + count]
            got = large_batch(_core.testing.Ops(isa, threads), "Q8_0", w, part, 33, norm)
            np.testing.assert_array_equal(got, whole[first : first + count])


@pytest.mark.parametrize("bad", [0x7C00, 0x7E00])
def test_a_padded_matrix_keeps_what_is_not_finite(ops, bad):
    """An infinite or NaN scale of a block gives NaN, not zeros."""
    rng = np.random.default_rng(7)
    data = bytearray(encode("Q8_0", rng.standard_normal((3, 992))))
    data[992 // 32 * 34 : 992 // 32 * 34 + 2] = bad.to_bytes(2, "little")
    y = large_batch(ops, "Q8_0", bytes(data), f32(rng.standard_normal((2, 992))), 3)
    assert (~np.isfinite(y[:, 1])).all() and np.isfinite(y[:, [0, 2]]).all()
