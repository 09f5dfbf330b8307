"""Memory that the system refuses, at every request from open to close: tests/native/refusals.cpp.

All requests of the tiny model, with one thread and with two (minutes):
KOSMOS_EDGE_EVERY_REQUEST=1 pytest tests/engine/test_memory_refusal.py
"""

import os
import shutil
import sys
from pathlib import Path

import pytest
from helpers import capi
from helpers.api_model import grounded_file

SOURCE = Path(__file__).parents[1] / "native" / "refusals.cpp"

pytestmark = [
    pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here"),
    pytest.mark.skipif(sys.platform != "linux", reason="interposes Linux's functions"),
]
WIDER = 3 if os.environ.get("KOSMOS_EDGE_SANITIZE") else 1  # everything takes ten times as long there
EVERY = bool(os.environ.get("KOSMOS_EDGE_EVERY_REQUEST"))


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    return capi.compile_program(
        SOURCE, tmp_path_factory.mktemp("refusals") / "refusals", "-Wno-missing-field-initializers"
    )


@pytest.mark.parametrize(("threads", "stride", "first"), [(1, 53, 7), (2, 97, 11)])
def test_a_refused_request_is_an_error_and_everything_goes_on(program, threads, stride, first):
    out = capi.run_program(program, grounded_file(), 1 if EVERY else stride * WIDER, threads, 1 if EVERY else first)
    print(out)
    found = dict(part.rsplit(" ", 1) for part in out.strip().split(", "))
    assert int(found["requests"]) > 1000 and int(found["refusals"]) >= int(found["runs"]) > 30
    assert int(found["errors"]) > int(found["runs"]) / 2
