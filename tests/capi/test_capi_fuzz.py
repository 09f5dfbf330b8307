"""Random call sequences against the C interface (tests/native/capi_fuzz.c); long runs: capi_fuzz.sh there."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from helpers import capi
from helpers.api_model import grounded_file

SEQUENCES = 600 if os.environ.get("KOSMOS_EDGE_SANITIZE") else 1000  # everything takes ten times as long there
SOURCE = Path(__file__).parents[1] / "native" / "capi_fuzz.c"

pytestmark = [
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here"),
    pytest.mark.skipif(sys.platform != "linux", reason="links with Linux's linker flags"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    return capi.compile_program(SOURCE, tmp_path_factory.mktemp("fuzz") / "capi_fuzz")


def fuzz(program: Path, seed: int, sequences: int, threads: int) -> str:
    # fixed: a timed pass would decide how many rows a pass has, and so how often a callback may cancel
    return capi.run_program(
        program, grounded_file(), seed, sequences, threads, environment={"KOSMOS_EDGE_DRAFTS": "fixed"}
    )


def test_random_call_sequences(program):
    out = fuzz(program, seed=1, sequences=SEQUENCES, threads=1)
    counts = dict(line.split(": ") for line in out.splitlines() if line.startswith("KOSMOS"))
    for status in ("OK", "ERROR_INVALID_REQUEST", "ERROR_MODEL_NOT_FOUND", "ERROR_CANCELLED"):
        assert int(counts[f"KOSMOS_{status}"]) > 0, out
    lines = [line for line in out.splitlines() if line.startswith("call ")]
    # every function did its work
    assert len(lines) == 20 and all(int(line.split()[-1]) > SEQUENCES // 200 for line in lines), out


def test_random_call_sequences_in_four_threads(program):
    fuzz(program, seed=2, sequences=SEQUENCES // 2, threads=4)


def test_the_same_seed_repeats_a_run(program):
    assert fuzz(program, 3, 100, 1) == fuzz(program, 3, 100, 1) != fuzz(program, 4, 100, 1)
