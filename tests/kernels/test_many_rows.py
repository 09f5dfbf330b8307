"""Products with many rows: instruction sets that have tiles of their own for them give the scalar definition's bits."""

import gguf
import numpy as np
import pytest

from kosmos_edge import _core

COLS, OUTPUTS = 512, 80  # two blocks; a whole group of panels and a part of one
SCALES = {"Q4_K": 2, "Q5_K": 2, "Q6_K": 1, "Q8_0": 1}  # float16 values of a block


def random_blocks(dtype, rng):
    """Blocks of random bytes: every code, and every integer scale up to the ends of its range."""
    values, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[dtype]]
    blocks = rng.integers(0, 256, (OUTPUTS * COLS // values, size), np.uint8)
    floats = rng.uniform(-0.01, 0.01, (len(blocks), SCALES[dtype])).astype(np.float16).view(np.uint8)
    if dtype == "Q6_K":
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
