"""Instruction sets that this machine may lack, under qemu's user-mode emulation: the right kernels are chosen, and they
agree with the definition. Not emulated by qemu 7.2, so only tested where the processor has it: AVX-512, AVX-VNNI.

For ARM: tests/native/cross.sh FOLDER, then KOSMOS_EDGE_AARCH64=FOLDER pytest tests/kernels/test_isa_emulated.py.
For x86 the emulated processor runs this very Python; KOSMOS_EDGE_EMULATE=1 asks for it (half a minute)."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from kosmos_edge import _core

FOLDER = os.environ.get("KOSMOS_EDGE_AARCH64", "")
X86 = bool(os.environ.get("KOSMOS_EDGE_EMULATE"))
needs_arm_programs = pytest.mark.skipif(
    not FOLDER, reason="KOSMOS_EDGE_AARCH64 does not name a folder that tests/native/cross.sh has built"
)
needs_x86 = pytest.mark.skipif(
    not X86 or platform.machine() != "x86_64", reason="KOSMOS_EDGE_EMULATE is not set, or the machine is no x86-64"
)


def emulate(arch: str, cpu: str, *command: str) -> str:
    qemu = shutil.which(f"qemu-{arch}") or shutil.which(f"qemu-{arch}-static")
    assert qemu, f"qemu-{arch} is not installed (Debian: qemu-user)"
    out = subprocess.run([qemu, "-cpu", cpu, *command], capture_output=True, text=True)
    assert out.returncode == 0, f"exit code {out.returncode}\n{out.stdout}\n{out.stderr}"
    return out.stdout


@needs_arm_programs
@pytest.mark.parametrize(
    "cpu,available,brief",
    [
        ("max", "neoni8mm,neondot,scalar", []),
        ("neoverse-n1", "neondot,scalar", ["brief"]),  # the same kernels: none needs more than this processor has
        ("cortex-a72", "scalar", ["brief"]),  # without the dot-product extension
    ],
)
def test_arm_kernels_agree_with_the_definition(cpu, available, brief):
    out = emulate("aarch64", cpu, str(Path(FOLDER) / "selftest"), available, *brief)
    assert f"available: {available}; chosen: {available.split(',')[0]}\n" in out
    assert out.endswith("all right\n")


@needs_arm_programs
@pytest.mark.parametrize("cpu,isa", [("max", "neoni8mm"), ("neoverse-n1", "neondot")])
def test_nano_captions_a_picture_alike_on_arm(cpu, isa, tmp_path, repo_root):
    model = str(repo_root / "kosmos_edge/data/nano-q4_k_m.gguf")
    picture = Image.open(repo_root / "examples/scene-00001.png").convert("RGB")
    (tmp_path / "rgb").write_bytes(picture.tobytes())
    size = [str(n) for n in picture.size]
    out = emulate("aarch64", cpu, str(Path(FOLDER) / "caption"), model, str(tmp_path / "rgb"), *size, isa)
    engine = _core.Engine(model, device="cpu", threads=1)
    image = engine.encode_image(picture.tobytes(), *picture.size)
    params = _core.GenerateParams()
    params.max_tokens = 48
    here = engine.generate([("image", image), ("tags", "<grounding> An image of")], params, None, None)
    assert len(here.token_ids) > 8
    assert [int(i) for i in out.split()] == here.token_ids


# Without numpy, whose own builds ask for more of a processor.
PRODUCTS = """
import hashlib
import random
from array import array
from kosmos_edge import _core
draw = random.Random(7)
w, x = (array("f", [draw.gauss(0, 1) for _ in range(rows * 512)]) for rows in (40, 13))
for isa in _core.available_isas():
    for dtype in ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"):
        parts = [(dtype, _core.quantize(dtype, w, row_length=512), 40)]
        y = _core.testing.Ops(isa, 1).linear(parts, 512, x, 13, None, "none", None, None, 0)
        print(isa, dtype, hashlib.sha256(y).hexdigest())
"""


def products(run) -> dict[tuple[str, str], str]:
    return {tuple(line.split()[:2]): line.split()[2] for line in run.splitlines()}


@needs_x86
@pytest.mark.parametrize("cpu,isas", [("Nehalem", ["scalar"]), ("Haswell", ["avx2", "scalar"])])
def test_older_x86_processors_get_kernels_they_can_run(cpu, isas):
    emulated = products(emulate("x86_64", cpu, sys.executable, "-c", PRODUCTS))
    assert list(dict.fromkeys(isa for isa, _ in emulated)) == isas
    here = subprocess.run([sys.executable, "-c", PRODUCTS], capture_output=True, text=True, check=True).stdout
    native = products(here)
    assert set(native) >= {k for k in emulated if k[0] in _core.available_isas()}
    assert emulated == {k: native["scalar", k[1]] for k in emulated}
