"""The codec: decoding equals the gguf package bit for bit; encoding checks its input and keeps what it can."""

import threading
import time

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as GgmlType

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest

DTYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
          "IQ4_NL", "IQ4_XS"]  # fmt: skip
BLOCK_TYPES = DTYPES[3:]
# Where the float16 scales lie in a block, in bytes.
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0]}  # fmt: skip


def decode(dtype: str, blocks) -> np.ndarray:
    block_elems, block_bytes = _core.dtypes()[dtype][1:]
    data = np.ascontiguousarray(blocks).tobytes()
    return np.frombuffer(_core.dequantize(dtype, data, len(data) // block_bytes * block_elems), np.float32)


def package_decode(dtype: str, blocks: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(blocks, GgmlType[dtype]).ravel()


def assert_same_bits(ours: np.ndarray, theirs: np.ndarray) -> None:
    same = ours.view(np.uint32) == theirs.view(np.uint32)
    same |= np.isnan(ours) & np.isnan(theirs)  # which NaN comes out is the processor's business
    assert same.all(), f"{(~same).sum()} of {same.size} differ, first at {np.flatnonzero(~same)[0]}"


def random_blocks(dtype: str, count: int, seed: int) -> np.ndarray:
    block_bytes = _core.dtypes()[dtype][2]
    return np.random.RandomState(seed).randint(0, 256, (count, block_bytes)).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------- decoding


def test_table_is_that_of_the_gguf_package():
    table = _core.dtypes()
    assert list(table) == DTYPES
    for name, row in table.items():
        assert row == (int(GgmlType[name]), *gguf.GGML_QUANT_SIZES[GgmlType[name]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(3))
def test_decoding_random_bytes(dtype, seed):
    blocks = random_blocks(dtype, 3000, seed)  # all scales occur: subnormal, infinite, NaN, negative
    assert_same_bits(decode(dtype, blocks), package_decode(dtype, blocks))


@pytest.mark.parametrize("dtype", BLOCK_TYPES)
def test_decoding_special_scales(dtype):
    special = [
        0x0000,
        0x8000,
        0x0001,
        0x8001,
        0x03FF,
        0x0400,
        0x3C00,
        0x7BFF,
        0xFBFF,
        0x7C00,
        0xFC00,
        0x7C01,
        0x7E00,
        0xFFFF,
    ]
    for first in special:
        blocks = random_blocks(dtype, 100, first)
        for second in special:
            for at, bits in zip(SCALES[dtype], (first, second), strict=False):
                blocks[:, at : at + 2] = np.array([bits], "<u2").view(np.uint8)
            ours = decode(dtype, blocks)
            assert_same_bits(ours, package_decode(dtype, blocks))
            if first in (0x0000, 0x8000) and len(SCALES[dtype]) == 1:
                assert (ours == 0).all()


def test_decoding_every_float16_and_bfloat16():
    every = np.arange(65536, dtype=np.uint16)
    assert_same_bits(decode("F16", every), every.view(np.float16).astype(np.float32))
    assert_same_bits(decode("BF16", every), (every.astype(np.uint32) << 16).view(np.float32))


def test_decoding_any_alignment_and_no_values():
    data = np.random.RandomState(1).standard_normal(64).astype(np.float32)
    shifted = memoryview(b"x" + data.tobytes())[1:]
    assert _core.dequantize("F32", shifted, 64) == data.tobytes()
    for dtype in DTYPES:
        assert _core.dequantize(dtype, b"", 0) == b""


# ------------------------------------------------------------------------------------------------- float encoding


def test_encoding_float16_rounds_to_even():
    bits = np.random.RandomState(2).randint(0, 2**32, 300_000, np.uint64).astype(np.uint32)
    every = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    middles = ((every[:-1] + every[1:]) / 2).astype(np.float32)  # exact: ties
    values = np.concatenate([bits.view(np.float32), middles, np.nextafter(middles, 0), np.nextafter(middles, 1e9)])
    values = np.concatenate([values, -middles])
    values = values[np.abs(values) < 65520]  # beyond, float16 is infinite; NaN drops out too
    expected = values.astype(np.float16).tobytes()
    assert _core.quantize("F16", values) == expected
    assert _core.quantize("f16", values) == expected  # names in any case


def test_encoding_bfloat16_rounds_to_even():
    bits = np.random.RandomState(3).randint(0, 2**32, 300_000, np.uint64).astype(np.uint32)
    bits[:1000] = (bits[:1000] & 0xFFFF0000) | 0x8000  # ties
    values = bits.view(np.float32)
    values = values[np.abs(values) < 3.38e38]
    assert _core.quantize("BF16", values) == gguf.quants.quantize(values[None], GgmlType.BF16).tobytes()


def test_float32_is_copied():
    values = np.random.RandomState(4).standard_normal(1000).astype(np.float32)
    assert _core.quantize("F32", values) == values.tobytes()


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", *BLOCK_TYPES])
@pytest.mark.parametrize("source", ["F16", "BF16"])
def test_sources_of_16_bits(dtype, source):
    stored = _core.quantize(source, np.random.RandomState(5).standard_normal(2560).astype(np.float32))
    as_float32 = _core.dequantize(source, stored, 2560)
    assert _core.quantize(dtype, stored, source) == _core.quantize(dtype, as_float32, "F32")


# ------------------------------------------------------------------------------------------------- block encoding


@pytest.mark.parametrize("dtype", BLOCK_TYPES)
def test_encoding_is_deterministic_and_local(dtype):
    """A block's bytes depend on its own values alone: however the data are cut, the file is the same."""
    rows = np.random.RandomState(6).standard_t(4, (7, 2560)).astype(np.float32)
    whole = _core.quantize(dtype, rows)
    assert whole == _core.quantize(dtype, rows, row_length=2560)
    assert whole == b"".join(_core.quantize(dtype, row) for row in rows)
    elems, size = _core.dtypes()[dtype][1:]
    alone = _core.quantize(dtype, rows.ravel()[elems * 3 : elems * 4])
    assert alone == whole[size * 3 : size * 4]


@pytest.mark.parametrize("dtype", BLOCK_TYPES)
def test_zeros_stay_zero(dtype):
    assert (decode(dtype, np.frombuffer(_core.quantize(dtype, np.zeros(512, np.float32)), np.uint8)) == 0).all()


# Blocks that careless searches get wrong, as functions of the position i in 256 values.
SHAPES = {
    "constant": lambda i: np.full(256, 0.37),
    "negative constant": lambda i: np.full(256, -2.5),
    "one value": lambda i: np.where(i == 77, 3.0, 0.0),
    "one negative value": lambda i: np.where(i == 200, -3.0, 0.0),
    "one other value": lambda i: np.where(i == 9, 1.0, 0.999),
    "two levels": lambda i: np.where(i % 2 == 0, 1.0, -1.0),
    "ramp": lambda i: i / 255 - 0.5,
    "positive ramp": lambda i: 1 + i / 255,
    "outlier": lambda i: np.where(i == 31, 1000.0, np.sin(i * 1.7)),
    "tiny": lambda i: np.sin(i * 1.7) * 1e-5,
    "tiny and zero": lambda i: np.where(i < 128, 0.0, np.sin(i * 1.7) * 1e-4),
    "large": lambda i: np.sin(i * 1.7) * 3e4,
    "spread": lambda i: np.sin(i * 1.7) * 10.0 ** (i // 32 - 5.0),
    "subnormal": lambda i: np.sin(i * 1.7) * 1e-40,
}


def naive_error(dtype: str, x: np.ndarray) -> float:
    """Largest error of rounding with one step per 32 values (16 for Q2_K, Q3_K, Q6_K) between smallest and largest."""
    if dtype.startswith("IQ4"):  # the table's widest step, 24 of 113
        return np.abs(x).max() * 12 / 113
    bits = int(dtype[1])
    rows = x.reshape(-1, 16 if dtype in ("Q2_K", "Q3_K", "Q6_K") else 32)
    if dtype.endswith("_0") or dtype in ("Q3_K", "Q6_K"):
        steps = np.abs(rows).max(-1) / (2 ** (bits - 1) - 1)
    else:
        steps = (np.maximum(rows.max(-1), 0) - np.minimum(rows.min(-1), 0)) / (2**bits - 1)
    return steps.max() / 2


@pytest.mark.parametrize("dtype", BLOCK_TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_difficult_blocks(dtype, shape):
    x = SHAPES[shape](np.arange(256)).astype(np.float32)
    y = decode(dtype, np.frombuffer(_core.quantize(dtype, x), np.uint8))
    assert np.isfinite(y).all()
    # Clipping a value to serve the others may cost up to a few steps; scales are rounded too (and in K-quants share
    # 6 or 8 bits with the block's largest; float16 ends at 6e-8).
    top = np.abs(x).max()
    assert np.abs(y - x).max() <= 3 * naive_error(dtype, x) + top / 60 + 6e-8


@pytest.mark.parametrize("dtype", BLOCK_TYPES)
def test_values_on_a_grid_are_kept(dtype):
    """What has been decoded once is encoded again with next to no loss (Q2_K: 2 %: four codes rarely fill a grid)."""
    first = decode(
        dtype,
        np.frombuffer(_core.quantize(dtype, np.random.RandomState(7).laplace(size=25600).astype(np.float32)), np.uint8),
    )
    again = decode(dtype, np.frombuffer(_core.quantize(dtype, first), np.uint8))
    allowed = 0.03 if dtype == "Q2_K" else 0.01
    assert np.sqrt(((again - first) ** 2).mean()) < allowed * np.sqrt((first**2).mean())


@pytest.mark.parametrize("dtype", BLOCK_TYPES)
def test_importance_moves_the_error_to_where_it_does_not_matter(dtype):
    rows = np.random.RandomState(8).standard_normal((16, 512)).astype(np.float32)
    importance = np.random.RandomState(9).gamma(0.3, size=512).astype(np.float32)

    def error(data: bytes) -> float:
        y = decode(dtype, np.frombuffer(data, np.uint8)).reshape(rows.shape)
        return float((importance * (y - rows) ** 2).sum())

    weighted = _core.quantize(dtype, rows, row_length=512, importance=importance)
    assert error(weighted) < 0.93 * error(_core.quantize(dtype, rows))
    scaled = _core.quantize(dtype, rows, row_length=512, importance=importance * np.float32(2.0**90))
    assert scaled == weighted  # only ratios matter
    assert b"".join(_core.quantize(dtype, r, importance=importance) for r in rows) == weighted
    only_one = np.zeros(512, np.float32)
    only_one[3] = 1
    y = decode(dtype, np.frombuffer(_core.quantize(dtype, rows, row_length=512, importance=only_one), np.uint8))
    assert np.isfinite(y).all()


# ------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(dtype, bad):
    values = np.zeros(512 * 100, np.float32)
    values[12345] = bad
    values[20000] = bad
    text = str(bad)
    with pytest.raises(InvalidRequest, match=rf"value 12345 is -?{text.lstrip('-')}; {dtype} needs finite values"):
        _core.quantize(dtype, values, row_length=512)


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_values_beyond_the_type_are_refused_and_those_below_stay_finite(dtype):
    largest = {"F16": 65519.9, "BF16": 3.396e38, "Q8_0": 4.19e6, "Q4_0": 262e3, "Q4_1": 32.7e3, "Q5_0": 524e3,
               "Q5_1": 32.7e3, "Q2_K": 262e3, "IQ4_NL": 2.096e6, "IQ4_XS": 2.096e6}.get(dtype, 1.048e6)  # fmt: skip
    values = np.random.RandomState(10).uniform(-1, 1, 2560).astype(np.float32)
    values[::7] = 1
    values[::11] = -1
    below = decode(dtype, np.frombuffer(_core.quantize(dtype, values * np.float32(largest)), np.uint8))
    assert np.isfinite(below).all()
    allowed = {"Q2_K": 0.4, "Q3_K": 0.3, "IQ4_NL": 0.2, "IQ4_XS": 0.2}.get(dtype, 0.1)
    assert np.abs(below / np.float32(largest) - values).max() < allowed
    values[5] = 1.01
    with np.errstate(over="ignore"):
        values *= np.float32(largest)
    with pytest.raises(InvalidRequest, match=rf"value 5 is .*; {dtype} needs finite values of magnitude <= "):
        _core.quantize(dtype, values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "Q9_9"}, 'unknown dtype "Q9_9"; known are F32, F16, .*Q6_K'),
        ({"source": "Q8_0"}, "source is Q8_0; expected F32, F16 or BF16"),
        ({"source": "X"}, 'unknown dtype "X"'),
        ({"data": bytes(1025)}, "data has 1025 bytes; expected a multiple of 4"),
        ({"data": bytes(1020)}, "rows have 255 values; Q4_K needs a multiple of 256"),
        ({"row_length": -1}, "row_length is -1; expected 0"),
        ({"row_length": 32}, "rows have 32 values; Q4_K needs a multiple of 256"),
        ({"row_length": 512}, "data has 256 values; expected a multiple of row_length, 512"),
        ({"importance": bytes(1000)}, "importance has 1000 bytes; expected float32 for each of the 256 values"),
        ({"importance": np.full(256, -1, np.float32)}, r"importance 0 is -1; expected 0\.\.1e30"),
        ({"importance": np.full(256, np.nan, np.float32)}, "importance 0 is -?nan"),
        ({"importance": np.zeros(256, np.float32)}, "largest importance is 0; expected at least 1e-30"),
    ],
)
def test_arguments_of_quantize(arguments, message):
    with pytest.raises(InvalidRequest, match=message):
        _core.quantize(**({"dtype": "Q4_K", "data": bytes(1024)} | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Q4_K", bytes(144), 255), "count is 255; Q4_K needs a multiple of 256"),
        (("Q4_K", bytes(144), -256), "count is -256"),
        (("Q4_K", bytes(144), 512), "data has 144 bytes; expected 144 bytes for every 256 of 512 values"),
        (("Q4_K", bytes(145), 256), "data has 145 bytes"),
        (("Q4_K", b"", 2**62), "data has 0 bytes"),
        (("?", b"", 0), "unknown dtype"),
    ],
)
def test_arguments_of_dequantize(arguments, message):
    with pytest.raises(InvalidRequest, match=message):
        _core.dequantize(*arguments)


def test_buffers():
    values = np.random.RandomState(11).standard_normal((4, 32)).astype(np.float32)
    expected = _core.quantize("Q8_0", values.tobytes())
    values.flags.writeable = False
    for same in (values, bytearray(values.tobytes()), memoryview(values), memoryview(values).cast("B")):
        assert _core.quantize("Q8_0", same) == expected
    with pytest.raises(TypeError, match="contiguous"):
        _core.quantize("Q8_0", values.T)
    with pytest.raises(TypeError, match="buffer protocol"):
        _core.quantize("Q8_0", [1.0, 2.0])
    assert _core.quantize("Q8_0", b"") == b""


def test_other_threads_run_meanwhile():
    values = np.random.RandomState(12).standard_normal(8_000_000).astype(np.float32)  # a few tenths of a second
    worker = threading.Thread(target=_core.quantize, args=("Q4_K", values))
    worker.start()
    steps = 0
    while worker.is_alive():
        steps += 1
        time.sleep(0.001)
    assert steps > 10
