"""A decoded token allocates nothing on the heap, however it is chosen: tests/native/allocations.cpp counts.

cmake -S . -B FOLDER -DKOSMOS_EDGE_SELFTEST=ON -DKOSMOS_EDGE_PYTHON=OFF && cmake --build FOLDER, then
KOSMOS_EDGE_NATIVE=FOLDER pytest tests/engine/test_allocations.py; or with the programs of tests/native/cross.sh,
emulated: KOSMOS_EDGE_AARCH64=FOLDER.
"""

import os
import subprocess
from pathlib import Path

import pytest

BUILDS = {"KOSMOS_EDGE_NATIVE": [], "KOSMOS_EDGE_AARCH64": ["qemu-aarch64"]}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("variable", BUILDS)
def test_decoding_allocates_nothing(variable: str, threads: int, repo_root: Path) -> None:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} does not name a folder with the built programs of tests/native")
    program, model = Path(folder) / "allocations", repo_root / "kosmos_edge/data/nano-q4_k_m.gguf"
    command = [*BUILDS[variable], str(program), str(model), str(threads)]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stdout + out.stderr
    assert [line.split()[-1] for line in out.stdout.splitlines()] == ["0"] * 5
