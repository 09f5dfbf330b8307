"""Caches of 8-bit keys and values (Q8_0) on every instruction set: what a cache holds is the definition below, to the
bit, and attention over it is attention over those numbers."""

import numpy as np
import pytest
from helpers.ops_reference import f32, floats
from test_ops_attention import ONE_PASS, TILE, attend_long

from kosmos_edge import _core

ISAS = _core.available_isas()
BLOCK = 32  # values of a head that share a scale; a head's last block may be shorter


@pytest.fixture(scope="module", params=ISAS)
def ops(request):
    return _core.testing.Ops(request.param, 2)


def rounded(x: np.ndarray, heads: int) -> np.ndarray:
    """The definition, x (..., heads * d): per block scale = float16(amax / 127), code = nearest(x * (127 / amax)), ties
    to even; a value is code * scale."""
    x = f32(x)
    out = np.empty_like(x)
    d = x.shape[-1] // heads
    for head in range(heads):
        for begin in range(head * d, head * d + d, BLOCK):
            block = x[..., begin : min(begin + BLOCK, head * d + d)]
            amax = np.abs(block).max(axis=-1, keepdims=True)
            live = amax >= np.float32(2.0**-100)
            safe = np.where(live, amax, np.float32(1))
            codes = np.rint(block * np.where(live, np.float32(127) / safe, np.float32(0)))
            scale = np.where(live, safe / np.float32(127), np.float32(0)).astype(np.float16).astype(np.float32)
            out[..., begin : begin + block.shape[-1]] = codes * scale
    return out


def drawn(rng, *shape) -> np.ndarray:
    """Numbers of many sizes: blocks of zeros, of tiny ones, one that float16 could not hold."""
    x = f32(rng.standard_normal(shape) * np.exp2(rng.integers(-6, 6, shape)))
    x[..., 0, :8] = 0
    x[..., 1, :] *= np.float32(1e-6)
    x[..., 2, :] *= np.float32(1e-33)
    x[..., 3, 5] = 1e5
    return x


@pytest.mark.parametrize("heads,d", [(2, 64), (1, 96), (3, 8), (2, 40), (1, 256), (2, 24), (1, 80)])
def test_a_value_is_kept_as_defined(ops, heads, d):
    """Of one position attention returns the value itself."""
    rng = np.random.default_rng(d)
    v = drawn(rng, 5, 7, heads * d).reshape(-1, 1, heads * d)
    q, rows = np.ones((len(v), heads * d), np.float32), [(cache, 0) for cache in range(len(v))]
    out = ops.kv_attention(q, v, v, rows, len(v), 1, heads, d, 1e-30, False, 1, 2, False, quantized=True)
    np.testing.assert_array_equal(floats(out, len(v), heads * d), rounded(v, heads)[:, 0])


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("heads,kv_heads,d,n", [(2, 2, 96, 1290), (1, 1, 40, 1100), (4, 2, 8, 1030), (1, 1, 256, 1281)])
def test_attention_is_that_over_the_numbers_kept(ops, heads, kv_heads, d, n, copied):
    """Where a float32 cache is read by tiles, too: the same bits. Keys, values and scales are therefore the defined
    ones at every place of a tile, also after caches have grown and been copied piece by piece."""
    rng = np.random.default_rng(n)
    k, v = drawn(rng, 2, n, kv_heads * d), drawn(rng, 2, n, kv_heads * d)
    rows = [(0, n - 1), (1, ONE_PASS), (1, n - 1), (0, n - 3)]
    q = f32(rng.standard_normal((len(rows), heads * d)))
    kept = [rounded(x, kv_heads) for x in (k, v)]
    how = (rows, 2, n, heads, d, d**-0.5, False, 77, 2, copied, kv_heads)
    assert ops.kv_attention(q, k, v, *how, quantized=True) == ops.kv_attention(q, *kept, *how)
    assert ops.kv_attention(q, k, v, *how, quantized=True) != ops.kv_attention(q, k, v, *how)


@pytest.mark.parametrize("heads,d,n", [(2, 64, 300), (3, 8, 40), (1, 88, 17), (1, 128, 600)])
def test_short_rows(ops, heads, d, n):
    """Rows that see few positions go by tiles here, in a float cache in one pass: within bounds of rounding."""
    rng = np.random.default_rng(n)
    width, scale = heads * d, d**-0.5
    k, v = f32(rng.standard_normal((2, n, width))), f32(rng.standard_normal((2, n, width)))
    rows = [(0, p) for p in range(min(n, 40))] + [(1, n - 1), (0, n - 1), (1, 0), (1, n // 2), (0, min(n - 1, TILE))]
    q = f32(rng.standard_normal((len(rows), width)))
    out = ops.kv_attention(q, k, v, rows, 2, n, heads, d, scale, False, 50, 2, True, quantized=True)
    out = floats(out, len(rows), width)
    ks, vs = (rounded(x, heads).astype(np.float64) for x in (k, v))
    for r, (cache, pos) in enumerate(rows):
        for h in range(heads):
            at = slice(h * d, h * d + d)
            exact, bound = attend_long(
                q[r : r + 1, at].astype(np.float64), ks[cache, : pos + 1, at], vs[cache, : pos + 1, at], scale
            )
            assert (np.abs(out[r, at] - exact[0]) <= bound[0]).all()


def test_a_bias_by_distance(ops):
    rng = np.random.default_rng(3)
    heads, d, n = 2, 32, 1100
    k, v = f32(rng.standard_normal((1, n, heads * d))), f32(rng.standard_normal((1, n, heads * d)))
    q, rows = f32(rng.standard_normal((3, heads * d))), [(0, n - 1), (0, ONE_PASS), (0, 1090)]
    bias = (f32(rng.standard_normal((heads, n)) * 3), n, n - 1)
    how = (rows, 1, n, heads, d, 0.2, False, 100, 1, False, 0)
    kept = [rounded(x, heads) for x in (k, v)]
    got = ops.kv_attention(q, k, v, *how, bias=bias, quantized=True)
    assert got == ops.kv_attention(q, *kept, *how, bias=bias)
    assert got != ops.kv_attention(q, k, v, *how, quantized=True)


@pytest.mark.parametrize("isa", ISAS)
def test_rows_do_not_depend_on_batch_threads_or_growth(isa):
    rng = np.random.default_rng(0)
    heads, d, n = 2, 32, 560
    width = heads * d
    k, v = f32(rng.standard_normal((1, n, width))), f32(rng.standard_normal((1, n, width)))
    rows = [(0, p) for p in range(200, n)]
    q = f32(rng.standard_normal((len(rows), width)))

    def cached(threads, first, count, batch, copied):
        data = _core.testing.Ops(isa, threads).kv_attention(
            q[first : first + count], k, v, rows[first : first + count], 1, n, heads, d, 0.2, False, batch, 1, copied,
            quantized=True,
        )  # fmt: skip
        return floats(data, count, width)

    whole = cached(1, 0, len(rows), n, False)
    for threads, first, count, batch, copied in [
        (1, 195, 1, 1000, False),
        (2, 60, 8, 250, True),
        (3, 0, 196, 77, True),
    ]:
        np.testing.assert_array_equal(cached(threads, first, count, batch, copied), whole[first : first + count])


def test_every_instruction_set_keeps_the_same():
    """And attends alike, within rounding."""
    rng = np.random.default_rng(8)
    k, v = drawn(rng, 1, 300, 96), f32(rng.standard_normal((1, 300, 96)))
    q = f32(rng.standard_normal((2, 96)))
    outs = [
        floats(
            _core.testing.Ops(isa, 1).kv_attention(
                q, k / 100, v, [(0, 299), (0, 255)], 1, 300, 1, 96, 0.1, False, 300, 1, False, quantized=True
            ), 2, 96,
        )
        for isa in ISAS
    ]  # fmt: skip
    for out in outs[1:]:
        np.testing.assert_allclose(out, outs[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("of", ["keys", "values"])
def test_what_is_not_finite_is_not_hidden(ops, of, bad):
    """A block whose scale float16 cannot hold gives nothing finite, in its own head and to rows that see it alone."""
    rng = np.random.default_rng(1)
    heads, d, n = 2, 64, 40
    k, v = f32(rng.standard_normal((1, n, heads * d))), f32(rng.standard_normal((1, n, heads * d)))
    q = f32(rng.standard_normal((1, heads * d)))
    (k if of == "keys" else v)[0, 30, 5] = bad
    before, behind = (
        floats(ops.kv_attention(q, k, v, [(0, at)], 1, n, heads, d, 0.1, False, n, 1, False, quantized=True), heads * d)
        for at in (20, 39)
    )
    assert np.isfinite(before).all() and np.isfinite(behind[d:]).all()
    spoilt = behind[:d] if of == "keys" else behind[:BLOCK]
    assert not np.isfinite(spoilt).any()
    assert of == "keys" or np.isfinite(behind[BLOCK:d]).all()


@pytest.mark.parametrize("layers,heads,d", [(24, 16, 96), (3, 2, 64), (1, 1, 40)])
def test_memory_of_a_position(layers, heads, d):
    ops = _core.testing.Ops("", 1)
    values = layers * heads * (d + (d + 15) // 16 * 16)  # values are filled up to whole vectors
    scales = layers * heads * 2 * ((d + BLOCK - 1) // BLOCK) * 2
    for positions in (16, 256, 800):
        assert ops.hold_kv(layers, heads, d, positions, 1, "F16") == 2 * values * positions
        assert ops.hold_kv(layers, heads, d, positions, 1, "Q8_0") == (values + scales) * positions
