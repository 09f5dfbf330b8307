"""Temporary memory of the operations: kept from call to call, but not beside the keys and values of an answer."""

import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_an_encoder_s_scratch_is_given_back_when_an_answer_begins() -> None:
    code = """
import resource
import numpy as np
from kosmos_edge import _core
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
ops, rows, cols = _core.testing.Ops("", 1), 12000, 1024  # packed: 49 MB
w, x = np.ones((16, cols), np.float32).tobytes(), np.ones((rows, cols), np.float32)
def product(n):
    ops.linear([("F32", w, 16)], cols, x[:n], n, None, "none", None, None, 0)
product(16)
before = resident()
product(rows)
kept = resident()
ops.hold_kv(1, 1, 64, 16, 1)
print(kept - before, resident() - before)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    kept, left = (int(x) for x in out.split())
    assert kept >= 45 << 20 and left <= 12 << 20
