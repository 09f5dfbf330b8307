"""Operations that KOSMOS-2 does without, on every instruction set: RMS norms, gated products, scaled sums, rotary
positions, rows of the embedding matrix, keys and values that heads share."""

import numpy as np
import pytest
from helpers.ops_reference import U, activation, f32, floats, heavy, rotate
from test_ops_rows import attend

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest

ISAS = _core.available_isas()
WIDTHS = [1, 5, 16, 33, 63, 64, 200, 1024, 8192]


@pytest.fixture(scope="module", params=ISAS)
def ops(request):
    return _core.testing.Ops(request.param, 2)


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("cols", WIDTHS)
@pytest.mark.parametrize("with_beta", [False, True])
def test_rms_norm(ops, rows, cols, with_beta):
    """The sum of squares has n / 64 + 24 steps, all of one sign; its root halves their error."""
    rng = np.random.default_rng(cols)
    eps = 1e-6
    x = heavy(rng, rows, cols) + f32(rng.standard_normal((rows, 1)) * 4)
    gamma, beta = f32(rng.standard_normal(cols)), f32(rng.standard_normal(cols)) if with_beta else None
    y = floats(ops.norm(x, rows, cols, (gamma, beta, eps, "rms")), rows, cols)
    d = x.astype(np.float64)
    scaled = d / np.sqrt((d**2).mean(axis=1, keepdims=True) + eps) * gamma
    exact = scaled + (0 if beta is None else beta)
    assert (np.abs(y - exact) <= (cols / 128 + 20) * U * np.abs(scaled) + U * np.abs(exact)).all()


@pytest.mark.parametrize("cols", WIDTHS)
def test_a_layer_norm_without_beta_has_the_bits_of_one_with_zeros(ops, cols):
    rng = np.random.default_rng(cols)
    x, gamma = heavy(rng, 3, cols), f32(rng.standard_normal(cols))
    zeros = np.zeros(cols, np.float32)
    assert ops.norm(x, 3, cols, (gamma, None, 1e-5)) == ops.norm(x, 3, cols, (gamma, zeros, 1e-5))


@pytest.mark.parametrize("name", ["relu", "gelu_tanh", "silu"])
def test_activations_of_a_product(ops, name):
    """Through an identity matrix: within 5e-7 of |x|; where e^-x overflows the result is 0 to float32."""
    n = 64
    x = f32(np.concatenate([np.linspace(-12, 12, 64 * 63), [0, -0.0, 1e-30, 40, -40, 1e4, -1e4, 2e9], np.zeros(56)]))
    x = x.reshape(-1, n)
    y = floats(ops.linear([("F32", f32(np.eye(n)), n)], n, x, len(x), None, name, None, None, 3), *x.shape)
    assert (np.abs(y - activation(name, x)) <= (0 if name == "relu" else 5e-7) * np.abs(x.astype(np.float64))).all()


@pytest.mark.parametrize("name", ["none", "gelu_erf", "quick_gelu", "relu", "gelu_tanh", "silu"])
def test_nan_passes_every_activation(ops, name):
    x = np.full((1, 16), np.nan, np.float32)
    assert np.isnan(floats(ops.gate(np.concatenate([x, np.ones_like(x)], axis=1), name, 1, 16), 1, 16)).all()


@pytest.mark.parametrize("name", ["none", "gelu_erf", "quick_gelu", "relu", "gelu_tanh", "silu"])
@pytest.mark.parametrize("rows,cols", [(1, 1), (1, 200), (7, 33), (40, 1024)])
def test_gate(ops, name, rows, cols):
    rng = np.random.default_rng(cols)
    halves = heavy(rng, rows, 2 * cols)
    y = floats(ops.gate(halves, name, rows, cols), rows, cols)
    gate, up = halves[:, :cols].astype(np.float64), halves[:, cols:].astype(np.float64)
    assert (np.abs(y - activation(name, gate) * up) <= (5e-7 * np.abs(gate) + 2e-7) * np.abs(up)).all()


@pytest.mark.parametrize("cols", WIDTHS)
def test_add_scaled_and_scale(ops, cols):
    rng = np.random.default_rng(cols)
    x, y, factor = heavy(rng, 7, cols), heavy(rng, 7, cols), np.float32(-0.37)
    added, scaled = (floats(b, 7, cols) for b in ops.add_scaled(x, factor, y, 7, cols))
    np.testing.assert_array_equal(added, y + factor * x)
    np.testing.assert_array_equal(scaled, factor * x)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("heads,d,dims", [(1, 2, 2), (3, 64, 64), (2, 80, 32), (4, 88, 88), (1, 24, 6), (5, 128, 0)])
def test_rope_has_the_bits_of_its_definition(ops, heads, d, dims, interleaved):
    """Whole heads, parts of them, none; one row and many, in any order of positions."""
    rng = np.random.default_rng(heads * d)
    table = f32(rng.standard_normal((50, dims)))
    for positions in ([7], [0, 1, 2, 49, 49, 3], list(range(50))):
        x = f32(rng.standard_normal((len(positions), heads * d)))
        got = floats(ops.rope(x, heads, d, table, 50, dims, interleaved, positions), *x.shape)
        np.testing.assert_array_equal(got, rotate(x, table, positions, heads, interleaved))


@pytest.mark.parametrize("composed", [False, True])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q6_K"])
def test_embed_rows(ops, dtype, composed):
    """Decoded values times the factor, rounded once; rows of negative ids keep what they have."""
    rng = np.random.default_rng(3)
    cols, factor = 256, np.float32(16.0 / 3)
    data = _core.quantize(dtype, f32(rng.standard_normal((30, cols))), row_length=cols)
    values = floats(_core.dequantize(dtype, data, 30 * cols), 30, cols)
    for ids in ([29], [-1], [0, 3, -1, -5, 29, 3, -1], [-1, 4, *[9] * 70]):
        y = f32(rng.standard_normal((len(ids), cols)))
        got = floats(ops.embed_rows((dtype, data, 30), cols, ids, factor, y, composed), *y.shape)
        want = np.stack([values[i] * factor if i >= 0 else row for i, row in zip(ids, y, strict=True)])
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "m,n,heads,kv_heads,d", [(1, 1, 4, 1, 8), (30, 57, 6, 2, 88), (64, 65, 4, 4, 80), (7, 33, 8, 2, 96)]
)
@pytest.mark.parametrize("int8_scores", [False, True])
def test_heads_that_share_keys_have_the_bits_of_keys_repeated(ops, m, n, heads, kv_heads, d, int8_scores):
    rng = np.random.default_rng(n)
    q, kv = f32(rng.standard_normal((m, heads * d))), f32(rng.standard_normal((n, 2, kv_heads, d)))
    repeated = f32(np.repeat(kv, heads // kv_heads, axis=2))
    got = ops.attention(q, kv, m, n, heads, d, d**-0.5, int8_scores, kv_heads)
    assert got == ops.attention(q, repeated, m, n, heads, d, d**-0.5, int8_scores)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("heads,kv_heads,d,n", [(8, 2, 64, 40), (4, 1, 88, 33), (6, 3, 96, 17), (4, 4, 80, 20)])
def test_cached_keys_shared_by_heads(ops, half, heads, kv_heads, d, n):
    rng = np.random.default_rng(n)
    k, v = (f32(rng.standard_normal((2, n, kv_heads * d))) for _ in range(2))
    rows = [(0, p) for p in range(n)] + [(1, n - 1), (0, 0), (1, 3)]
    q, scale, group = f32(rng.standard_normal((len(rows), heads * d))), d**-0.5, heads // kv_heads
    out = ops.kv_attention(q, k, v, rows, 2, n, heads, d, scale, half, 7, 2, True, kv_heads)
    out = floats(out, len(rows), heads * d)
    ks, vs = (a.astype(np.float16).astype(np.float64) if half else a.astype(np.float64) for a in (k, v))
    for r, (cache, pos) in enumerate(rows):
        for h in range(heads):
            at, kv = slice(h * d, h * d + d), slice(h // group * d, h // group * d + d)
            exact, bound = attend(
                q[r : r + 1, at].astype(np.float64), ks[cache, : pos + 1, kv], vs[cache, : pos + 1, kv], scale
            )
            assert (np.abs(out[r, at] - exact[0]) <= bound[0]).all()


def test_heads_must_divide(ops):
    with pytest.raises(InvalidRequest, match="3 heads cannot share keys and values of 2"):
        ops.attention(np.zeros((1, 24), np.float32), np.zeros((1, 32), np.float32), 1, 1, 3, 8, 1.0, False, 2)
    k = np.zeros((1, 1, 16), np.float32)
    with pytest.raises(InvalidRequest, match="3 heads cannot share keys and values of 2"):
        ops.kv_attention(np.zeros((1, 24), np.float32), k, k, [(0, 0)], 1, 1, 3, 8, 1.0, True, 1, 1, False, 2)


@pytest.mark.parametrize("isa", ISAS)
def test_rows_do_not_depend_on_batch_or_threads(isa):
    rng = np.random.default_rng(0)
    rows, heads, d = 257, 4, 64
    cols = heads * d
    x, y, gamma = heavy(rng, rows, cols), heavy(rng, rows, cols), f32(rng.standard_normal(cols))
    table, positions = f32(rng.standard_normal((rows, d))), [int(p) for p in rng.permutation(rows)]

    def results(threads, at):
        ops, n = _core.testing.Ops(isa, threads), at.stop - at.start
        halves = np.concatenate([x[at], y[at]], axis=1)
        return [
            floats(data, n, cols)
            for data in (
                ops.norm(x[at], n, cols, (gamma, None, 1e-5, "rms")),
                ops.gate(halves, "silu", n, cols),
                ops.gate(halves, "gelu_tanh", n, cols),
                ops.rope(x[at], heads, d, table, rows, d, False, positions[at]),
                *ops.add_scaled(x[at], 0.3, y[at], n, cols),
            )
        ]

    whole = results(1, slice(0, rows))
    for threads, first, last in [(2, 0, rows), (8, 0, rows), (1, 5, 6), (3, 100, 171)]:
        for got, want in zip(results(threads, slice(first, last)), whole, strict=True):
            np.testing.assert_array_equal(got, want[first:last])
