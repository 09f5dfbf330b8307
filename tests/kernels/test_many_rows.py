"""Products with many rows: instruction sets that have tiles of their own for them give the scalar definition's bits."""

import gguf
import numpy as np
import pytest

from kosmos_edge import _core

COLS, OUTPUTS = 512, 80  # two blocks; a whole group of panels and a part of one
# float16 values of a block
SCALES = {"Q2_K": 2, "Q3_K": 1, "Q4_K": 2, "Q5_K": 2, "Q6_K": 1, "Q8_0": 1, "IQ4_NL": 1, "IQ4_XS": 1}


def random_blocks(dtype, rng):
    """Blocks of random bytes: every code, and every integer scale up to the ends of its range."""
    values, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[dtype]]
    blocks = rng.integers(0, 256, (OUTPUTS * COLS // values, size), np.uint8)
    floats = rng.uniform(-0.01, 0.01, (len(blocks), SCALES[dtype])).astype(np.float16).view(np.uint8)
    if dtype in ("Q2_K", "Q3_K"):
        blocks[:, -floats.shape[1] :] = floats
    elif dtype == "Q6_K":
        blocks[:, -2:] = floats
        blocks[::3, -18:-2] = 128  # the lowest scale: -128
        blocks[1::3, -18:-2] = 127
    else:
        blocks[:, : floats.shape[1]] = floats
    return blocks.tobytes()


def product(isa, dtype, data, x, large, threads=2):
    ops = _core.testing.Ops(isa, threads)
    y = ops.linear([(dtype, data, OUTPUTS)], COLS, x, len(x), None, "none", None, None, 0, large)
    return np.frombuffer(y, np.float32)


@pytest.mark.parametrize("isa", _core.available_isas()[:-1])
@pytest.mark.parametrize("large", [False, True], ids=["any", "large"])
@pytest.mark.parametrize("dtype", SCALES)
def test_many_rows_have_the_bits_of_the_scalar_definition(dtype, large, isa):
    """Numbers of rows around those of tiles (16, 32), of pairs of tiles, and of what is summed at once (264, 272)."""
    rng = np.random.default_rng(5)
    data = random_blocks(dtype, rng)
    for rows in (1, 15, 16, 17, 23, 24, 31, 32, 33, 48, 49, 74, 263, 265, 272, 273):
        x = rng.standard_normal((rows, COLS)).astype(np.float32)
        x[rows // 2] = np.sign(x[rows // 2])  # codes of 127 and -127 alone
        if large and dtype in ("Q6_K", "Q8_0"):  # re-encoded by some sets, so that the scalar set has other weights
            if isa != "avx512amx":
                continue
            expected = product("avx512vnni", dtype, data, x, large, 1)
        else:
            expected = product("scalar", dtype, data, x, large)
        assert product(isa, dtype, data, x, large).tobytes() == expected.tobytes(), rows


def test_rows_do_not_change_each_other():
    """A row's bits are the same alone and among many."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal((300, COLS)).astype(np.float32)
    for dtype in SCALES:
        data = random_blocks(dtype, rng)
        whole = product("", dtype, data, x, False).reshape(300, OUTPUTS)
        for row in (0, 15, 16, 271, 299):
            assert product("", dtype, data, x[row : row + 1], False).tobytes() == whole[row].tobytes()


CODES = {
    "Q2_K": slice(16, 80),
    "Q3_K": slice(0, 96),
    "Q4_K": slice(16, 144),
    "Q5_K": slice(16, 176),
    "Q6_K": slice(0, 192),
    "Q8_0": slice(2, 34),
    "IQ4_NL": slice(2, 18),
    "IQ4_XS": slice(8, 136),
}


@pytest.mark.parametrize("isa", _core.available_isas()[:-1])
@pytest.mark.parametrize("dtype", SCALES)
def test_the_largest_sums_are_exact(dtype, isa):
    """Codes that are all the lowest or all the highest meet activations of one sign: 16 bits hold no larger sums."""
    rng = np.random.default_rng(7)
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[dtype]][1]
    blocks = np.frombuffer(random_blocks(dtype, rng), np.uint8).reshape(-1, size).copy()
    low, high = (128, 127) if dtype == "Q8_0" else (0, 255)
    blocks[0::3, CODES[dtype]] = low
    blocks[1::3, CODES[dtype]] = high
    x = np.ones((7, COLS), np.float32)
    x[1] = -1
    x[2, 1::2] = -1
    x[3, 2::4] = x[3, 3::4] = -1  # what one 16-bit sum adds has one sign, what the next one adds has the other
    x[4, COLS // 2 :] = -1
    x[5:] = rng.choice([-1, 1], (2, COLS))
    x = np.tile(x, (5, 1))
    for rows in (1, 2, 7, 35):
        expected = product("scalar", dtype, blocks.tobytes(), x[:rows], False)
        assert product(isa, dtype, blocks.tobytes(), x[:rows], False).tobytes() == expected.tobytes(), rows


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_many_rows_of_float_weights_have_the_bits_of_one(dtype):
    """16-bit weights are widened for many rows: the bits of each row alone, on every set that fuses products."""
    rng = np.random.default_rng(8)
    cols = 300  # two chunks and a part of one
    data = _core.quantize(dtype, rng.standard_normal((OUTPUTS, cols)).astype(np.float32).reshape(-1), row_length=cols)
    x = rng.standard_normal((271, cols)).astype(np.float32)
    whole = []
    for isa in _core.available_isas():
        ops = _core.testing.Ops(isa, 1)

        def linear(rows, ops=ops):
            y = ops.linear([(dtype, data, OUTPUTS)], cols, rows, len(rows), None, "none", None, None, 0, False)
            return np.frombuffer(y, np.float32).reshape(len(rows), OUTPUTS)

        many = linear(x)
        for row in (0, 13, 263, 264, 270):
            assert linear(x[row : row + 1]).tobytes() == many[row].tobytes(), (isa, row)
        assert linear(x[:19]).tobytes() == many[:19].tobytes(), isa
        if isa != "scalar":
            whole.append(many.tobytes())
    assert len(set(whole)) <= 1
