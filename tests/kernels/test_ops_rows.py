"""Row operations and attention of every instruction set against float64."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.ops_reference import U, f32, floats, heavy

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest, OutOfMemory

ISAS = _core.available_isas()
WIDTHS = [1, 5, 16, 33, 63, 64, 200, 1024, 8192]


@pytest.fixture(scope="module", params=ISAS)
def ops(request):
    return _core.testing.Ops(request.param, 2)


@pytest.mark.parametrize("cols", WIDTHS)
def test_layer_norm(ops, cols):
    """Sums have n / 64 + 16 steps; the mean's error enters relative to the largest magnitude, times gamma / sigma."""
    rng = np.random.default_rng(cols)
    rows, eps = 9, 1e-5
    x = heavy(rng, rows, cols) + f32(rng.standard_normal((rows, 1)) * 4)
    gamma, beta = f32(rng.standard_normal(cols)), f32(rng.standard_normal(cols))
    y = floats(ops.norm(x, rows, cols, (gamma, beta, eps)), rows, cols)
    d = x.astype(np.float64)
    mean, var = d.mean(axis=1, keepdims=True), d.var(axis=1, keepdims=True)
    sigma = np.sqrt(var + eps)
    exact = (d - mean) / sigma * gamma + beta
    steps = cols / 64 + 24
    mean_error = steps * U * np.abs(d).mean(axis=1, keepdims=True) + U * np.abs(d)
    bound = np.abs(gamma) * (mean_error / sigma + steps * U * np.abs(d - mean) / sigma) + 4 * U * np.abs(exact - beta)
    assert (np.abs(y - exact) <= bound + 4 * U * (np.abs(exact) + np.abs(beta))).all()


def test_layer_norm_of_a_constant_row_is_beta(ops):
    x, beta = np.full((2, 48), 3.0, np.float32), f32(np.arange(48))
    y = floats(ops.norm(x, 2, 48, (np.ones(48, np.float32), beta, 1e-5)), 2, 48)
    np.testing.assert_array_equal(y, np.stack([beta, beta]))


@pytest.mark.parametrize("cols", WIDTHS)
def test_l2_normalize(ops, cols):
    rng = np.random.default_rng(cols)
    x = heavy(rng, 5, cols)
    x[2] = 0
    y = floats(ops.l2_normalize(x, 5, cols, 1e-12), 5, cols)
    norm = np.maximum(np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True), 1e-12)
    assert (np.abs(y - x / norm) <= (cols / 64 + 24) * U * np.abs(x / norm)).all()


@pytest.mark.parametrize("cols", WIDTHS)
def test_add_and_copy(ops, cols):
    rng = np.random.default_rng(cols)
    x, y = heavy(rng, 7, cols), heavy(rng, 7, cols)
    np.testing.assert_array_equal(floats(ops.add(x, y, 7, cols), 7, cols), x + y)
    np.testing.assert_array_equal(floats(ops.copy(x, 7, cols), 7, cols), x)


def attend(q, k, v, scale):
    """softmax(q k^T scale) v in float64 for one head, and a bound of the float32 error.

    Scores are off by (d + 2) u sum |q k| scale, exponentials by that and 4 u, the weighted mean by n u on top.
    """
    s = q @ k.T * scale
    e = np.exp(s - s.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    score_error = (q.shape[1] + 3) * U * (np.abs(q) @ np.abs(k).T * scale + 1)
    relative = 2 * score_error.max(axis=1, keepdims=True) + (min(len(k), 128) + len(k) / 128 + 12) * U
    return p @ v, 1.1 * relative * (p @ np.abs(v)) + 1e-30


@pytest.mark.parametrize(
    "m,n,heads,d", [(1, 1, 1, 8), (257, 257, 2, 64), (64, 321, 3, 64), (7, 33, 2, 24), (13, 150, 1, 256)]
)
def test_attention(ops, m, n, heads, d):
    rng = np.random.default_rng(m + n)
    q, kv = f32(rng.standard_normal((m, heads * d)) * 2), f32(rng.standard_normal((n, 2 * heads * d)))
    scale = d**-0.5
    out = floats(ops.attention(q, kv, m, n, heads, d, scale), m, heads * d)
    for h in range(heads):
        at, wide = slice(h * d, h * d + d), heads * d
        exact, bound = attend(
            *(a.astype(np.float64) for a in (q[:, at], kv[:, :wide][:, at], kv[:, wide:][:, at])), scale
        )
        assert (np.abs(out[:, at] - exact) <= bound).all()


def round_rows(x):
    """Every row as codes of 8 bits: scale = amax / 127."""
    step = np.abs(x).max(axis=-1, keepdims=True) / 127
    return np.rint(x / np.where(step > 0, step, 1)) * step


@pytest.mark.parametrize(
    "m,n,heads,d",
    [(13, 257, 2, 64), (1, 1, 1, 16), (7, 33, 3, 80), (64, 321, 2, 128), (5, 40, 1, 256), (3, 1024, 1, 64)],
)
def test_rounded_attention_is_that_of_rounded_queries_and_keys(ops, m, n, heads, d):
    """Keys are rounded less their mean, which no softmax sees: a bias of all keys costs no bits."""
    rng = np.random.default_rng(m + n)
    q, kv = f32(rng.standard_normal((m, heads * d)) * 2), f32(rng.standard_normal((n, 2 * heads * d)))
    kv[:, : heads * d] += f32(rng.standard_normal(heads * d) * 20)
    scale = d**-0.5
    out = floats(ops.attention(q, kv, m, n, heads, d, scale, int8_scores=True), m, heads * d)
    plain = floats(ops.attention(q, kv, m, n, heads, d, scale), m, heads * d)
    for h in range(heads):
        at, wide = slice(h * d, h * d + d), heads * d
        queries, keys, values = (a.astype(np.float64) for a in (q[:, at], kv[:, :wide][:, at], kv[:, wide:][:, at]))
        exact, _ = attend(round_rows(queries), round_rows(keys - keys.mean(axis=0)), values, scale)
        # The float32 mean may move a key across the border between two codes: one code of 127, in few keys.
        assert np.abs(out[:, at] - exact).max() <= 0.02 * np.abs(values).max()
        assert np.sqrt(((out[:, at] - exact) ** 2).mean()) <= 1e-3 * np.sqrt((values**2).mean())
        assert np.sqrt(((out[:, at] - plain[:, at]) ** 2).mean()) <= 0.05 * np.sqrt((values**2).mean())


@pytest.mark.parametrize("heads,d,n", [(3, 64, 257), (1, 128, 1000), (2, 64, 146)])
def test_rounded_attention_does_not_depend_on_tiles_threads_or_instruction_set(heads, d, n):
    """But for tile registers, where values are codes of 15 bits: off by a share of their dimension's range."""
    rng = np.random.default_rng(4)
    scale = d**-0.5
    q, kv = f32(rng.standard_normal((n, heads * d))), f32(rng.standard_normal((n, 2 * heads * d)))
    kv[n // 2, heads * d :] *= 9  # the values of one position are large, as encoders have them
    spread = np.ptp(kv[:, heads * d :], axis=0)
    results = [
        floats(_core.testing.Ops(isa, 1).attention(q, kv, n, n, heads, d, scale, int8_scores=True), n, heads * d)
        for isa in ISAS
    ]
    for isa, whole in zip(ISAS, results, strict=True):
        bound = 2e-4 * spread if isa == "avx512amx" else 4e-6
        assert (np.abs(whole - results[ISAS.index("scalar")]) <= bound).all()
        for threads, first, count in [(1, 7, 1), (2, 10, 4), (5, 100, 45)]:
            rows = q[first : first + count]
            part = _core.testing.Ops(isa, threads).attention(rows, kv, count, n, heads, d, scale, int8_scores=True)
            np.testing.assert_array_equal(floats(part, count, heads * d), whole[first : first + count])


def test_rounded_attention_of_equal_keys_and_of_nan(ops):
    rng = np.random.default_rng(6)
    q, v = f32(rng.standard_normal((5, 16))), f32(rng.standard_normal((20, 16)))
    kv = np.concatenate([np.full((20, 16), 3, np.float32), v], axis=1)
    out = floats(ops.attention(q, kv, 5, 20, 1, 16, 1.0, int8_scores=True), 5, 16)
    np.testing.assert_allclose(out, np.repeat(v.mean(axis=0, keepdims=True), 5, axis=0), atol=1e-6)
    q[2, 3] = np.nan
    out = floats(ops.attention(q, kv, 5, 20, 1, 16, 1.0, int8_scores=True), 5, 16)
    assert np.isnan(out[2]).all() and np.isfinite(out[[0, 1, 3, 4]]).all()


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("heads,d,n,batch", [(2, 64, 130, 130), (3, 8, 40, 7), (1, 256, 17, 1), (2, 40, 16, 16)])
def test_kv_attention(ops, half, heads, d, n, batch):
    rng = np.random.default_rng(n)
    width, scale = heads * d, d**-0.5
    k, v = f32(rng.standard_normal((2, n, width))), f32(rng.standard_normal((2, n, width)))
    rows = [(0, p) for p in range(n)] + [(1, n - 1), (0, n - 1), (1, 0), (1, n // 2), (1, n // 2 + 1)]
    q = f32(rng.standard_normal((len(rows), width)))
    out = floats(ops.kv_attention(q, k, v, rows, 2, n, heads, d, scale, half, batch, 2, True), len(rows), width)
    ks, vs = (a.astype(np.float16).astype(np.float64) if half else a.astype(np.float64) for a in (k, v))
    for r, (cache, pos) in enumerate(rows):
        for h in range(heads):
            at = slice(h * d, h * d + d)
            exact, bound = attend(
                q[r : r + 1, at].astype(np.float64), ks[cache, : pos + 1, at], vs[cache, : pos + 1, at], scale
            )
            assert (np.abs(out[r, at] - exact[0]) <= bound[0]).all()


@pytest.mark.parametrize("isa", ISAS)
def test_attention_rows_do_not_depend_on_batch_threads_or_growth(isa):
    rng = np.random.default_rng(0)
    heads, d, n = 3, 64, 145
    width, scale = heads * d, 0.125
    k, v = f32(rng.standard_normal((1, n, width))), f32(rng.standard_normal((1, n, width)))
    q = f32(rng.standard_normal((n, width)))
    rows = [(0, p) for p in range(n)]

    def cached(threads, first, count, batch, copied):
        ops = _core.testing.Ops(isa, threads)
        part = rows[first : first + count]
        data = ops.kv_attention(q[first : first + count], k, v, part, 1, n, heads, d, scale, True, batch, 1, copied)
        return floats(data, count, width)

    whole = cached(1, 0, n, n, False)
    for threads, first, count, batch, copied in [(1, 144, 1, 1, False), (2, 3, 5, 50, True), (8, 60, 33, 7, True)]:
        np.testing.assert_array_equal(cached(threads, first, count, batch, copied), whole[first : first + count])

    kv = np.concatenate([k[0], v[0]], axis=1)
    plain = floats(_core.testing.Ops(isa, 1).attention(q, kv, n, n, heads, d, scale), n, width)
    for threads, first, count in [(1, 7, 1), (2, 10, 4), (5, 100, 45)]:
        part = _core.testing.Ops(isa, threads).attention(q[first : first + count], kv, count, n, heads, d, scale)
        np.testing.assert_array_equal(floats(part, count, width), plain[first : first + count])


def test_attention_with_far_scores(ops):
    """Scores hundreds apart: the largest one takes all, nothing overflows."""
    q, k = np.full((1, 8), 30, np.float32), np.zeros((40, 8), np.float32)
    k[:, 0] = np.linspace(-50, 50, 40)
    v = f32(np.arange(320).reshape(40, 8))
    out = floats(ops.attention(q, np.concatenate([k, v], axis=1), 1, 40, 1, 8, 1.0), 1, 8)
    np.testing.assert_allclose(out, v[39:], rtol=1e-6)


def test_nan_in_a_query_stays_in_its_row(ops):
    rng = np.random.default_rng(1)
    q, kv = f32(rng.standard_normal((5, 16))), f32(rng.standard_normal((20, 32)))
    q[2, 3] = np.nan
    out = floats(ops.attention(q, kv, 5, 20, 2, 8, 1.0), 5, 16)
    assert np.isnan(out[2, :8]).all() and np.isfinite(out[2, 8:]).all() and np.isfinite(out[[0, 1, 3, 4]]).all()


def test_head_width_is_checked(ops):
    with pytest.raises(InvalidRequest, match="head width 12"):
        ops.attention(np.zeros((1, 12), np.float32), np.zeros((1, 24), np.float32), 1, 1, 1, 12, 1.0)


@pytest.mark.parametrize("count", [2**45, 2**62, -1])
def test_memory_that_the_system_refuses_is_a_typed_error(ops, count):
    with pytest.raises(OutOfMemory, match="not enough memory"):
        ops.alloc(count)


def test_kv_caches_check_their_arguments(ops):
    with pytest.raises(InvalidRequest, match="holds F32, F16 or Q8_0 values, not Q4_0"):
        ops.alloc_kv(1, 1, 64, 16, "Q4_0")
    with pytest.raises(InvalidRequest, match="heads of 300"):
        ops.alloc_kv(1, 1, 300, 16, "F16")
    with pytest.raises(OutOfMemory):
        ops.alloc_kv(1000, 1000, 256, 2**30, "F32")


def test_one_backend_serves_several_threads(ops):
    rng = np.random.default_rng(6)
    w, x = f32(rng.standard_normal((200, 512))), heavy(rng, 20, 512)
    parts = [("Q4_K", _core.quantize("Q4_K", w, row_length=512), 200), ("F32", w.tobytes(), 200)]
    q, kv = f32(rng.standard_normal((30, 128))), f32(rng.standard_normal((50, 256)))

    def linear(_):
        return ops.linear(parts, 512, x, 20, None, "gelu_erf", None, None, 0)

    def attention(_):
        return ops.attention(q, kv, 30, 50, 2, 64, 0.125)

    with ThreadPoolExecutor(4) as pool:
        linears, attentions = pool.map(linear, range(24)), pool.map(attention, range(24))
        assert set(linears) == {linear(0)} and set(attentions) == {attention(0)}
