"""What the emulation of device code finds: each mistake of tests/emulate/cuda/faults.cpp, and nothing else.

With KOSMOS_EDGE_EMULATE_SANITIZERS=1 those that only sanitizers see, too.
"""

import os
import subprocess
from pathlib import Path

import pytest
from helpers.cuda_emulated import EMULATE, RUNTIME, SCHEDULER, build_objects

SOURCES = [EMULATE / "cuda" / "faults.cpp", RUNTIME, *SCHEDULER]
SANITIZERS = pytest.mark.skipif(
    not os.environ.get("KOSMOS_EDGE_EMULATE_SANITIZERS"), reason="builds the program once more for each sanitizer"
)


def build(folder: Path, flags: list[str]) -> Path:
    """The program; -g0: what a sanitizer reports names functions without it."""
    program = folder / "faults"
    objects = build_objects(folder, SOURCES, flags)
    subprocess.run([os.environ.get("CXX", "g++"), *flags, *objects, "-o", str(program)], check=True)
    return program


def run(program: Path, name: str) -> tuple[int, str]:
    """Exit status and all that was said. Addresses as TSan wants them."""
    command, options = ["setarch", "-R", str(program), name], {"TSAN_OPTIONS": "exitcode=66"}
    made = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **options})
    return made.returncode, made.stdout + made.stderr


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without sanitizers."""
    return build(tmp_path_factory.mktemp("faults"), [])


@pytest.fixture(scope="session")
def asan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With ASan and UBSan."""
    return build(tmp_path_factory.mktemp("faults-asan"), ["-fsanitize=address,undefined"])


@pytest.fixture(scope="session")
def tsan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With TSan."""
    return build(tmp_path_factory.mktemp("faults-tsan"), ["-fsanitize=thread"])


@pytest.mark.parametrize(
    "name,words",
    [
        ("barrier_of_some", "divergent threads in group 0: 32 of 64 wait at the group's barrier"),
        ("early_return", "63 of 64 wait at the group's barrier, 0 in a subgroup operation, 1 have ended"),
        ("shuffle_of_some", "32 in a subgroup operation, 32 have ended"),
        ("shuffle_outside_mask", "a shuffle reads a lane outside its mask"),
    ],
)
def test_the_scheduler_refuses(plain: Path, name: str, words: str) -> None:
    """Threads that do not meet, and lanes that are not there."""
    status, said = run(plain, name)
    assert status == 0
    assert said.startswith("fault: ")
    assert words in said


def test_a_right_program_runs(plain: Path) -> None:
    """Nothing is found where nothing is wrong."""
    assert run(plain, "none") == (0, "ran\n")


@SANITIZERS
@pytest.mark.parametrize("name", ["beyond_shared", "beyond_global"])
def test_asan_sees_accesses_outside(asan: Path, name: str) -> None:
    """Shared objects and device memory end where they end."""
    status, said = run(asan, name)
    assert status != 0
    assert "heap-buffer-overflow" in said
    assert run(asan, "none") == (0, "ran\n")


@SANITIZERS
@pytest.mark.parametrize(
    "name",
    [
        "missing_barrier", "missing_second_barrier", "missing_second_warp_barrier",
        "blocks_share_a_place", "blocks_share_behind_a_barrier",
    ],
)  # fmt: skip
def test_tsan_sees_races(tsan: Path, name: str) -> None:
    """Accesses that no barrier orders, whatever the schedule was: within a block and between blocks."""
    status, said = run(tsan, name)
    assert status == 66
    assert "data race" in said
    assert run(tsan, "none") == (0, "ran\n")
