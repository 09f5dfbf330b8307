"""Attention whose scores take a bias by head and distance, on every instruction set: over matrices and over caches, in
one pass and tile by tile."""

import numpy as np
import pytest
from helpers.ops_reference import U, f32, floats

from kosmos_edge import _core

ISAS = _core.available_isas()


@pytest.fixture(scope="module", params=ISAS)
def ops(request):
    return _core.testing.Ops(request.param, 2)


def table(rng, heads: int, queries: int, keys: int) -> tuple[np.ndarray, int, int]:
    """A bias for each distance that queries 0 .. queries - 1 and keys 0 .. keys - 1 can have."""
    columns = queries + keys - 1
    return f32(rng.standard_normal((heads, columns)) * 3), columns, queries - 1


def biased(q, k, v, scale: float, added: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """softmax(q k^T scale + added) v in float64 for one head, and a bound of the float32 error (see test_ops_rows)."""
    s = q @ k.T * scale + added
    e = np.exp(s - s.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    error = (q.shape[1] + 4) * U * (np.abs(q) @ np.abs(k).T * scale + np.abs(added) + 1)
    relative = 2 * error.max(axis=1, keepdims=True) + (min(len(k), 128) + len(k) / 128 + 12 + len(k) / 40) * U
    return p @ v, 1.1 * relative * (p @ np.abs(v)) + 1e-30


def bias_of(given: tuple[np.ndarray, int, int], head: int, query: int, keys: int) -> np.ndarray:
    values, _, zero = given
    return values[head, zero - query : zero - query + keys].astype(np.float64)


@pytest.mark.parametrize(
    "m,n,heads,d",
    [(1, 1, 1, 8), (37, 37, 4, 64), (5, 33, 2, 24), (70, 1024, 1, 16), (40, 1025, 2, 64), (9, 1300, 1, 104)],
)
def test_over_matrices(ops, m, n, heads, d):
    rng = np.random.default_rng(m + n)
    q, kv = f32(rng.standard_normal((m, heads * d))), f32(rng.standard_normal((n, 2 * heads * d)))
    bias = table(rng, heads, m, n)
    out = floats(ops.attention(q, kv, m, n, heads, d, 0.2, bias=bias), m, heads * d)
    plain = floats(ops.attention(q, kv, m, n, heads, d, 0.2), m, heads * d)
    for h in range(heads):
        at, wide = slice(h * d, h * d + d), heads * d
        added = np.stack([bias_of(bias, h, r, n) for r in range(m)])
        exact, bound = biased(
            *(a.astype(np.float64) for a in (q[:, at], kv[:, :wide][:, at], kv[:, wide:][:, at])), 0.2, added
        )
        assert (np.abs(out[:, at] - exact) <= bound).all()
    assert n == 1 or np.abs(out - plain).max() > 0.1


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("heads,d,n", [(2, 64, 40), (1, 24, 300), (2, 32, 1060)])
def test_over_caches(ops, half, heads, d, n):
    """Rows of two caches, on both sides of the border between one pass and tiles."""
    rng = np.random.default_rng(n)
    width = heads * d
    k, v = f32(rng.standard_normal((2, n, width))), f32(rng.standard_normal((2, n, width)))
    rows = [(0, p) for p in range(max(0, n - 50), n)] + [(1, n - 1), (0, n - 1), (1, 0), (1, n // 2)]
    q = f32(rng.standard_normal((len(rows), width)))
    values, columns, zero = table(rng, heads, n, 1)
    out = floats(
        ops.kv_attention(q, k, v, rows, 2, n, heads, d, 0.2, half, 300, 2, True, bias=(values, columns, zero)),
        len(rows), width,
    )  # fmt: skip
    ks, vs = (a.astype(np.float16).astype(np.float64) if half else a.astype(np.float64) for a in (k, v))
    for r, (cache, pos) in enumerate(rows):
        for h in range(heads):
            at = slice(h * d, h * d + d)
            added = bias_of((values, columns, zero), h, pos, pos + 1)[None]
            exact, bound = biased(
                q[r : r + 1, at].astype(np.float64), ks[cache, : pos + 1, at], vs[cache, : pos + 1, at], 0.2, added
            )
            assert (np.abs(out[r, at] - exact[0]) <= bound[0]).all()


@pytest.mark.parametrize("n", [30, 1000, 1100])
def test_zeros_change_no_bit(ops, n):
    rng = np.random.default_rng(n)
    heads, d, m = 2, 40, 7
    q, kv = f32(rng.standard_normal((m, heads * d))), f32(rng.standard_normal((n, 2 * heads * d)))
    zeros = (np.zeros((heads, m + n - 1), np.float32), m + n - 1, m - 1)
    assert ops.attention(q, kv, m, n, heads, d, 0.1, bias=zeros) == ops.attention(q, kv, m, n, heads, d, 0.1)


@pytest.mark.parametrize("n", [30, 700, 1100])
def test_a_cached_row_has_the_bits_of_attention_over_matrices(ops, n):
    """The last row of a matrix sees all keys, as the last position of a cache does; in any batch."""
    rng = np.random.default_rng(n)
    heads, d = 2, 32
    k, v = f32(rng.standard_normal((1, n, heads * d))), f32(rng.standard_normal((1, n, heads * d)))
    q = f32(rng.standard_normal((n, heads * d)))
    bias = table(rng, heads, n, n)
    whole = floats(ops.attention(q, np.concatenate([k[0], v[0]], axis=1), n, n, heads, d, 0.1, bias=bias), n, heads * d)
    for first in (n - 1, n - 6):
        rows = [(0, p) for p in range(first, n)]
        cached = ops.kv_attention(q[first:], k, v, rows, 1, n, heads, d, 0.1, False, 100, 1, False, bias=bias)
        np.testing.assert_array_equal(floats(cached, n - first, heads * d)[-1], whole[-1])
