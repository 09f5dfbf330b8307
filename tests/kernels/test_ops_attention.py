"""Attention over many keys, on every instruction set: tile by tile with a running maximum beyond 1,024 keys, in one
pass up to there."""

import subprocess
import sys

import numpy as np
import pytest
from helpers.ops_reference import U, f32, floats
from test_ops_rows import attend, round_rows

from kosmos_edge import _core

ISAS = _core.available_isas()
ONE_PASS = 1024  # kOnePassKeys
TILE = 256  # kKeyTile


@pytest.fixture(scope="module", params=ISAS)
def ops(request):
    return _core.testing.Ops(request.param, 2)


def attend_long(q, k, v, scale):
    """attend(), and a bound that has the products and sums of rescaling, six for each tile, too."""
    exact, bound = attend(q, k, v, scale)
    p, _ = attend(q, k, np.abs(v), scale)
    return exact, bound + 6 * (len(k) / TILE) * U * p


@pytest.mark.parametrize(
    "m,n,heads,d", [(13, 1025, 2, 64), (7, 1300, 1, 96), (6, 1536, 2, 104), (1, 2100, 1, 24), (5, 1281, 1, 256)]
)
def test_many_keys(ops, m, n, heads, d):
    rng = np.random.default_rng(n)
    q, kv = f32(rng.standard_normal((m, heads * d)) * 2), f32(rng.standard_normal((n, 2 * heads * d)))
    scale = d**-0.5
    out = floats(ops.attention(q, kv, m, n, heads, d, scale), m, heads * d)
    for h in range(heads):
        at, wide = slice(h * d, h * d + d), heads * d
        exact, bound = attend_long(
            *(a.astype(np.float64) for a in (q[:, at], kv[:, :wide][:, at], kv[:, wide:][:, at])), scale
        )
        assert (np.abs(out[:, at] - exact) <= bound).all()


@pytest.mark.parametrize("m,n,heads,d", [(13, 1025, 2, 64), (7, 1300, 3, 80), (5, 1537, 1, 16), (9, 1111, 1, 256)])
def test_many_rounded_keys(ops, m, n, heads, d):
    """Values are codes of 8 bits, too, where the instruction set is faster with them: one is off by at most 1/508 of
    its dimension's range in the tile, so what the weights make of many is a small share of that."""
    rng = np.random.default_rng(n)
    q, kv = f32(rng.standard_normal((m, heads * d)) * 2), f32(rng.standard_normal((n, 2 * heads * d)))
    kv += f32(rng.standard_normal(2 * heads * d) * 5)  # a bias of all keys and all values
    scale = d**-0.5
    out = floats(ops.attention(q, kv, m, n, heads, d, scale, int8_scores=True), m, heads * d)
    for h in range(heads):
        at, wide = slice(h * d, h * d + d), heads * d
        queries, keys, values = (a.astype(np.float64) for a in (q[:, at], kv[:, :wide][:, at], kv[:, wide:][:, at]))
        exact, _ = attend(round_rows(queries), round_rows(keys - keys.mean(axis=0)), values, scale)
        spread = values - values.mean(axis=0)
        assert np.abs(out[:, at] - exact).max() <= 0.02 * np.abs(spread).max()
        assert np.sqrt(((out[:, at] - exact) ** 2).mean()) <= 2e-3 * np.sqrt((spread**2).mean())


@pytest.mark.parametrize("int8_scores", [False, True])
def test_one_key_far_above_the_others_leaves_them_their_weights(ops, int8_scores):
    """4,096 keys of weight e^-8 beside one of weight 1: together they weigh more than it does."""
    n, d = 4096, 16
    q, k = np.zeros((1, d), np.float32), np.zeros((n, d), np.float32)
    q[0, 0], k[:, 0] = 8, 0
    k[1000, 0] = 1
    v = np.ones((n, d), np.float32)
    v[1000] = -1
    out = floats(ops.attention(q, np.concatenate([k, v], axis=1), 1, n, 1, d, 1.0, int8_scores), 1, d)
    rest = (n - 1) * np.exp(-8)
    np.testing.assert_allclose(out, (rest - 1) / (rest + 1), atol=0.02 if int8_scores else 1e-5)


@pytest.mark.parametrize("int8_scores", [False, True])
@pytest.mark.parametrize("sign", [-1, 1])
def test_maxima_that_grow_or_fall_from_tile_to_tile(ops, int8_scores, sign):
    """Scores hundreds apart, in order: the largest one takes all, nothing overflows."""
    n, d = 1500, 16
    k = np.zeros((n, d), np.float32)
    k[:, 0] = sign * np.linspace(-50, 50, n)
    q, v = np.full((1, d), 2000, np.float32), f32(np.random.default_rng(0).standard_normal((n, d)))
    out = floats(ops.attention(q, np.concatenate([k, v], axis=1), 1, n, 1, d, 1.0, int8_scores), 1, d)
    top = n - 1 if sign > 0 else 0
    np.testing.assert_allclose(out[0], v[top], atol=0.03 if int8_scores else 1e-6)


@pytest.mark.parametrize("int8_scores", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("n,d", [(1200, 16), (300, 64)])
def test_what_is_not_finite_stays_in_its_row_or_dimension(ops, int8_scores, bad, n, d):
    rng = np.random.default_rng(1)
    q, kv = f32(rng.standard_normal((9, 2 * d))), f32(rng.standard_normal((n, 4 * d)))
    q[2, 3] = bad
    out = floats(ops.attention(q, kv, 9, n, 2, d, 16 / d, int8_scores), 9, 2 * d)
    assert np.isnan(out[2, :d]).all() and np.isfinite(np.delete(out, 2, axis=0)).all() and np.isfinite(out[2, d:]).all()
    q[2, 3], kv[n // 2, 2 * d + 5] = 1, bad
    out = floats(ops.attention(q, kv, 9, n, 2, d, 16 / d, int8_scores), 9, 2 * d)
    assert (~np.isfinite(out[:, 5])).all() and np.isfinite(np.delete(out, 5, axis=1)).all()


@pytest.mark.parametrize("int8_scores", [False, True])
@pytest.mark.parametrize("n,d", [(1100, 16), (257, 64)])
def test_equal_keys_give_the_mean(ops, int8_scores, n, d):
    rng = np.random.default_rng(6)
    v = f32(rng.standard_normal((n, d)))
    kv = np.concatenate([np.full((n, d), 3, np.float32), v], axis=1)
    out = floats(ops.attention(f32(rng.standard_normal((5, d))), kv, 5, n, 1, d, 1.0, int8_scores), 5, d)
    np.testing.assert_allclose(
        out, np.repeat(v.mean(axis=0, keepdims=True), 5, axis=0), atol=1e-3 if int8_scores else 1e-5
    )


@pytest.mark.parametrize("int8_scores", [False, True])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n,d", [(1200, 48), (257, 64)])
def test_rows_do_not_depend_on_batch_or_threads(isa, int8_scores, n, d):
    rng = np.random.default_rng(3)
    heads, m = 2, 40
    q, kv = f32(rng.standard_normal((m, heads * d))), f32(rng.standard_normal((n, 2 * heads * d)))

    def rows(threads, first, count):
        data = _core.testing.Ops(isa, threads).attention(
            q[first : first + count], kv, count, n, heads, d, d**-0.5, int8_scores
        )
        return floats(data, count, heads * d)

    whole = rows(1, 0, m)
    for threads, first, count in [(2, 0, m), (3, 0, m), (1, 7, 1), (2, 10, 4), (5, 3, 29)]:
        np.testing.assert_array_equal(rows(threads, first, count), whole[first : first + count])


def test_heads_that_share_many_keys_have_the_bits_of_keys_repeated(ops):
    rng = np.random.default_rng(8)
    m, n, heads, kv_heads, d = 7, 1100, 6, 2, 88
    q, kv = f32(rng.standard_normal((m, heads * d))), f32(rng.standard_normal((n, 2, kv_heads, d)))
    repeated = f32(np.repeat(kv, heads // kv_heads, axis=2))
    got = ops.attention(q, kv, m, n, heads, d, d**-0.5, False, kv_heads)
    assert got == ops.attention(q, repeated, m, n, heads, d, d**-0.5)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("heads,d,n", [(2, 96, 1290), (1, 64, 1100), (1, 80, 1042), (1, 128, 1030), (1, 40, 1281)])
def test_cached_rows_on_both_sides_of_the_border(ops, half, heads, d, n):
    rng = np.random.default_rng(n)
    width, scale = heads * d, d**-0.5
    k, v = f32(rng.standard_normal((2, n, width))), f32(rng.standard_normal((2, n, width)))
    rows = [(0, p) for p in range(ONE_PASS - 10, min(n, ONE_PASS + 50))]
    rows += [(1, n - 1), (0, n - 1), (1, 0), (1, ONE_PASS), (0, TILE)]
    q = f32(rng.standard_normal((len(rows), width)))
    out = floats(ops.kv_attention(q, k, v, rows, 2, n, heads, d, scale, half, 300, 2, True), len(rows), width)
    ks, vs = (a.astype(np.float16).astype(np.float64) if half else a.astype(np.float64) for a in (k, v))
    for r, (cache, pos) in enumerate(rows):
        for h in range(heads):
            at = slice(h * d, h * d + d)
            exact, bound = attend_long(
                q[r : r + 1, at].astype(np.float64), ks[cache, : pos + 1, at], vs[cache, : pos + 1, at], scale
            )
            assert (np.abs(out[r, at] - exact[0]) <= bound[0]).all()


@pytest.mark.parametrize("n", [TILE - 1, TILE, TILE + 1, 700, ONE_PASS, ONE_PASS + 1, 1500])
def test_a_cached_row_has_the_bits_of_attention_over_matrices(ops, n):
    """Whatever way a row takes, the cache's tiles change nothing: one pass up to 1,024 keys, tiles beyond."""
    rng = np.random.default_rng(n)
    heads, d = 2, 72
    k, v = f32(rng.standard_normal((1, n, heads * d))), f32(rng.standard_normal((1, n, heads * d)))
    q = f32(rng.standard_normal((1, heads * d)))
    cached = ops.kv_attention(q, k, v, [(0, n - 1)], 1, n, heads, d, 0.1, False, 100, 1, False)
    assert cached == ops.attention(q, np.concatenate([k[0], v[0]], axis=1), 1, n, heads, d, 0.1)


@pytest.mark.parametrize("isa", ISAS)
def test_cached_rows_do_not_depend_on_batch_threads_or_growth(isa):
    """Across tiles of the cache and across the border between the two ways."""
    rng = np.random.default_rng(0)
    heads, d, n = 2, 32, 1160
    width = heads * d
    k, v = f32(rng.standard_normal((1, n, width))), f32(rng.standard_normal((1, n, width)))
    rows = [(0, p) for p in range(ONE_PASS - 64, n)]
    q = f32(rng.standard_normal((len(rows), width)))

    def cached(threads, first, count, batch, copied):
        data = _core.testing.Ops(isa, threads).kv_attention(
            q[first : first + count], k, v, rows[first : first + count], 1, n, heads, d, 0.2, True, batch, 1, copied
        )
        return floats(data, count, width)

    whole = cached(1, 0, len(rows), n, False)
    for threads, first, count, batch, copied in [
        (1, 195, 1, 1000, False),
        (2, 60, 8, 250, True),
        (3, 0, 196, 77, True),
    ]:
        np.testing.assert_array_equal(cached(threads, first, count, batch, copied), whole[first : first + count])


def test_scores_never_exist_all_at_once():
    """20,000 queries and as many keys: the matrix of scores would have 1.6 GB."""
    code = """
import resource, numpy as np
from kosmos_edge import _core
ops, n = _core.testing.Ops("", 2), 20000
q, kv = np.ones((n, 16), np.float32), np.ones((n, 32), np.float32)
small = np.ones((4, 32), np.float32)
ops.attention(q[:4], small, 4, 4, 1, 16, 1.0, True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ops.attention(q, kv, n, n, 1, 16, 1.0, True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    grown = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert grown <= 64 << 10  # KiB


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
@pytest.mark.parametrize("type,bytes_per_head", [("F16", 4 * 64), ("Q8_0", 2 * (64 + 2 * 2))])
def test_a_large_cache_takes_memory_as_it_fills(type, bytes_per_head):
    """A cache for 100,000 positions, of which 300 are written: two tiles of 256 of it are touched, not all."""
    code = """
import resource, sys
from kosmos_edge import _core
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
ops = _core.testing.Ops("", 1)
ops.hold_kv(4, 8, 64, 16, 16, sys.argv[1])
before = resident()
print(ops.hold_kv(4, 8, 64, 100000, 300, sys.argv[1]), resident() - before)
"""
    out = subprocess.run([sys.executable, "-c", code, type], capture_output=True, text=True, check=True).stdout
    reserved, grown = (int(x) for x in out.split())
    position = 4 * 8 * bytes_per_head
    assert reserved == position * 100000
    assert position * 300 <= grown <= position * 2 * TILE + (8 << 20)
