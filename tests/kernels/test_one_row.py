"""Products with one row: the instruction set is chosen by measuring, and the bits do not depend on it."""

import numpy as np
import pytest

from kosmos_edge import _core

ISAS = _core.available_isas()
FIRST = next((isa for isa in ISAS if isa != "avx512amx"), "")  # AMX leaves products with one row to AVX-512
QUANTIZED = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"]
TRIALS = 16  # of every candidate, as OneRowChoice::kTrials
pytestmark = pytest.mark.skipif(len(ISAS) < 3, reason="this machine has no two instruction sets to choose from")


@pytest.fixture(autouse=True)
def no_forced_isa(monkeypatch):
    monkeypatch.delenv("KOSMOS_EDGE_ISA", raising=False)


def product(ops, dtype, data, rows, x):
    y = ops.linear([(dtype, data, rows)], x.size, x, 1, None, "gelu_erf", None, None, 0)
    return np.frombuffer(y, np.float32)


def matrix(dtype, rows, cols):
    w = np.random.default_rng(7).standard_normal((rows, cols), np.float32) * 0.05
    return _core.quantize(dtype, w, row_length=cols)


@pytest.mark.parametrize("dtype", QUANTIZED)
def test_every_candidate_gives_the_bits_of_a_forced_one(dtype):
    """3,207 rows: the last group of panels is partly used, and two bits make a megabyte."""
    rows, cols = 3207, 1024
    data, x = matrix(dtype, rows, cols), np.random.default_rng(3).standard_normal(cols, np.float32)
    ops = _core.testing.Ops("", 2)
    expected = product(_core.testing.Ops(ISAS[0], 1), dtype, data, rows, x)
    assert product(ops, dtype, data, rows, x).tobytes() == expected.tobytes()
    [choice] = ops.kernel_choices
    for _ in range(TRIALS * len(choice["bytes_per_s"]) - 1):
        assert choice["chosen"] is None
        assert product(ops, dtype, data, rows, x).tobytes() == expected.tobytes()
        [choice] = ops.kernel_choices
    assert choice["types"] == dtype.lower() and (choice["out"], choice["in"]) == (rows, cols)
    assert next(iter(choice["bytes_per_s"])) == FIRST and len(choice["bytes_per_s"]) > 1
    assert all(rate > 0 for rate in choice["bytes_per_s"].values())
    best = max(choice["bytes_per_s"], key=choice["bytes_per_s"].get)
    assert choice["chosen"] in {best, FIRST}  # a candidate that is hardly faster changes nothing
    assert product(ops, dtype, data, rows, x).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("dtype", "rows", "large", "why"),
    [("Q4_K", 512, False, "small"), ("F16", 2048, False, "floats"), ("Q6_K", 4096, True, "for large batches")],
)
def test_nothing_is_measured_where_there_is_no_choice(dtype, rows, large, why):
    cols = 1024
    w = np.ones((rows, cols), np.float16 if dtype == "F16" else np.float32)
    data = w.tobytes() if dtype == "F16" else _core.quantize(dtype, w, row_length=cols)
    ops = _core.testing.Ops("", 1)
    ops.linear([(dtype, data, rows)], cols, np.ones(cols, np.float32), 1, None, "none", None, None, 0, large)
    if why == "for large batches" and FIRST != "avx512vnni":
        pytest.skip("this instruction set keeps the file's type for large batches")
    assert ops.kernel_choices == []


def test_a_forced_instruction_set_does_everything(monkeypatch):
    data, x = matrix("Q4_K", 4096, 1024), np.ones(1024, np.float32)
    for isa in ISAS:
        ops = _core.testing.Ops(isa, 1)
        product(ops, "Q4_K", data, 4096, x)
        assert ops.kernel_choices == []
    monkeypatch.setenv("KOSMOS_EDGE_ISA", ISAS[0])
    ops = _core.testing.Ops("", 1)
    product(ops, "Q4_K", data, 4096, x)
    assert ops.kernel_choices == []
    assert _core.probe_one_row() == []


def test_several_rows_take_no_part():
    data, x = matrix("Q4_K", 4096, 1024), np.ones((3, 1024), np.float32)
    ops = _core.testing.Ops("", 1)
    ops.linear([("Q4_K", data, 4096)], 1024, x, 3, None, "none", None, None, 0)
    [choice] = ops.kernel_choices
    assert set(choice["bytes_per_s"].values()) == {0.0}


def test_the_probe_decides_every_type():
    choices = _core.probe_one_row(threads=1, bytes=4 << 20)
    assert [choice["types"] for choice in choices] == ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_xs", "q4_0", "q8_0"]
    assert all(choice["chosen"] in ISAS for choice in choices)
