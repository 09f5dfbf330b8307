"""Shared fixtures: where optional inputs lie; which share of the tests runs."""

import collections
import importlib
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

# Programs that tests start find the installed package, wherever they are started: not the sources' folder of its name.
os.environ["PYTHONSAFEPATH"] = "1"

# NumPy's products are small here: threads would wait for each other, busily, and hold up the run's other workers.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A shell starts background jobs with SIGINT ignored, and children inherit that: the Ctrl-C tests need it heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """Ends with one line, instead of as many errors as there are test files, where the package cannot run. The folder
    KOSMOS_EDGE_TEST_RUN is for what all processes of a run share (helpers.shared)."""
    try:
        importlib.import_module("kosmos_edge._native")
    except ImportError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ["KOSMOS_EDGE_TEST_RUN"] = tempfile.mkdtemp(prefix="kosmos-edge-run-")


def pytest_unconfigure() -> None:
    """Removes that folder, in the process that made it."""
    if "PYTEST_XDIST_WORKER" not in os.environ and (folder := os.environ.pop("KOSMOS_EDGE_TEST_RUN", None)):
        shutil.rmtree(folder, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """KOSMOS_EDGE_CASES=N keeps of each test function the first of its cases and every N-th after it: for runs that are
    many times slower, as under sanitizers, beside a run of all cases."""
    step = int(os.environ.get("KOSMOS_EDGE_CASES", "1"))
    seen: collections.Counter[str] = collections.Counter()
    kept, left = [], []
    for item in items:
        function = item.nodeid.split("[")[0]
        (left if seen[function] % step else kept).append(item)
        seen[function] += 1
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of tests/engine/test_weights.py."""
    parser.addoption(
        "--weights", metavar="DIR_OR_GGUF", help="the published KOSMOS-2 checkpoint, or a file made from it"
    )
    parser.addoption("--picture", metavar="PNG", help="the snowman.png of the model's authors, for --weights")


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The root of the checkout that holds these tests."""
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Optional test inputs (tokenizer files and pictures of the model's authors) beside the checkout."""
    path = ROOT.parent / "shared"
    if not (path / "data" / "kosmos-2" / "sentencepiece.bpe.model").exists():
        pytest.skip("optional inputs ../shared are not here")
    return path
