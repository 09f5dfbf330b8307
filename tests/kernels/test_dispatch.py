"""Which kernels run: the best this machine has, or the one asked for; and that none leak into other code."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kosmos_edge import _core
from kosmos_edge.errors import DeviceUnavailable, InvalidRequest

ISAS = _core.available_isas()
ARM = platform.machine().lower() in ("aarch64", "arm64")
KNOWN = ["neoni8mm", "neondot", "scalar"] if ARM else ["avx512amx", "avx512vnni", "avxvnni", "avx2", "scalar"]


def is_built(name: str) -> bool:
    """Whether this build has the kernels: a build folder's may be chosen (KOSMOS_EDGE_ISAS), any other has all."""
    cache = Path(_core.__file__).resolve().parent / "CMakeCache.txt"
    chosen = re.search(r"^KOSMOS_EDGE_ISAS:STRING=(.+)$", cache.read_text(), re.M) if cache.exists() else None
    return chosen is None or name in [*chosen[1].split(";"), "scalar"]


def python(code: str, **environment) -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if k != "KOSMOS_EDGE_ISA"} | environment
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


def test_available_isas_are_ordered_and_end_with_scalar():
    assert ISAS[-1] == "scalar"
    assert [name for name in KNOWN if name in ISAS] == ISAS


def test_the_best_isa_is_the_default():
    assert python("from kosmos_edge import _core; print(_core.isa())").stdout.strip() == ISAS[0]


# A float product that tells instruction sets apart: with a fused multiply-add the rounding error of the first product
# survives, (1 + e)(1 - e) - 1 = -e^2; without it, nothing does.
FINGERPRINT = """
import numpy as np
from kosmos_edge import _core
e = np.float32(2.0**-13)
w, x = np.array([[1, 1 + e]], np.float32), np.array([[-1, 1 - e]], np.float32)
ops = _core.testing.Ops({isa!r}, 1)
y = np.frombuffer(ops.linear([("F32", w.tobytes(), 1)], 2, x, 1, None, "none", None, None, 0), np.float32)
print(_core.isa(), ops.description, float(y[0]))
"""


@pytest.mark.parametrize("isa", ISAS)
def test_the_forced_isa_is_the_one_that_ran(isa):
    out = python(FINGERPRINT.format(isa=""), KOSMOS_EDGE_ISA=isa)
    assert out.returncode == 0, out.stderr
    fused = 0.0 if isa == "scalar" else -(2.0**-26)
    assert out.stdout.strip() == f"{isa} cpu ({isa}, 1 thread) {fused}"


def test_an_argument_wins_over_the_environment():
    out = python(FINGERPRINT.format(isa="scalar"), KOSMOS_EDGE_ISA=ISAS[0])
    assert "cpu (scalar, 1 thread) 0.0" in out.stdout


@pytest.mark.parametrize("name", ["avx", "AVX2", "neon ", "best"])
def test_an_unknown_isa_is_an_error_that_lists_the_available_ones(name):
    out = python("from kosmos_edge import _core; _core.isa()", KOSMOS_EDGE_ISA=name)
    assert f"DeviceUnavailable: unknown instruction set '{name}' (from KOSMOS_EDGE_ISA)" in out.stderr
    assert "available here: " + ", ".join(ISAS) in out.stderr
    with pytest.raises(DeviceUnavailable, match=re.escape(name)):
        _core.testing.Ops(name, 1)


def test_an_isa_this_machine_lacks_is_an_error():
    missing = [name for name in KNOWN if name not in ISAS and is_built(name)]
    for name in missing:
        with pytest.raises(DeviceUnavailable, match=f"cannot run instruction set '{name}'"):
            _core.testing.Ops(name, 1)


def test_devices():
    make = _core.testing.make_backend
    assert make("cpu", 2, "scalar") == "cpu (scalar, 2 threads)"
    assert make("auto", 1, "") == f"cpu ({ISAS[0]}, 1 thread)"
    for device in ("cuda", "cuda:1", "metal"):
        with pytest.raises(DeviceUnavailable, match=f"'{device}' is not available: .*devices here: cpu"):
            make(device, 1, "")
    for device in ("tpu", "", "CPU", "cpux"):
        with pytest.raises(InvalidRequest, match=f"unknown device '{device}'; devices here: cpu"):
            make(device, 1, "")
    with pytest.raises(InvalidRequest, match="no index"):
        make("cpu:0", 1, "")


def nm(path: Path) -> list[tuple[str, str]]:
    """(type letter, name) of the defined symbols."""
    out = subprocess.run(["nm", "--defined-only", "-C", str(path)], capture_output=True, text=True, check=True).stdout
    return [(line.split(maxsplit=2)[1], line.split(maxsplit=2)[2]) for line in out.splitlines() if line.strip()]


def isa_objects(root: Path) -> list[Path]:
    return sorted(p for p in root.glob("build/**/ke_isa_*.dir/**/units/*.o") if p.exists())


def test_isa_objects_share_no_inline_code(repo_root):
    """An inline function compiled for AVX-512 must never be the copy that the linker keeps for everybody."""
    objects = isa_objects(repo_root)
    if not shutil.which("nm") or not objects:
        pytest.skip("no nm, or no objects of a build in this checkout")
    for path in objects:
        isa = re.search(r"ke_isa_(\w+)\.dir", str(path))[1]
        symbols = nm(path)
        shared = [name for kind, name in symbols if kind in "WVuw"]
        assert shared == [], f"{path} defines shared symbols"
        exported = [name for kind, name in symbols if kind.isupper()]
        assert exported or path.name.startswith("linear_i8."), path
        assert [name for name in exported if not name.startswith(f"ke::cpu::{isa}::")] == [], path


def test_numpy_buffers_of_the_wrong_size_are_refused():
    with pytest.raises(InvalidRequest, match="expected 6 float32 values, got 20 bytes"):
        _core.testing.Ops("", 1).l2_normalize(np.zeros(5, np.float32), 2, 3, 1e-5)
