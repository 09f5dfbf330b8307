"""Live parity with transformers: needs the reference extra (torch, transformers); see checkpoints.py for what runs.

Without torch these tests are skipped with a reason; with KOSMOS_EDGE_REQUIRE_REFERENCE=1, as CI sets it, they fail.
"""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

REQUIRED = os.environ.get("KOSMOS_EDGE_REQUIRE_REFERENCE") == "1"
MISSING = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
HERE = Path(__file__).resolve().parent


def pytest_configure(config: pytest.Config) -> None:
    """The mark is pytest-xdist's, which need not be here."""
    config.addinivalue_line("markers", "xdist_group(name): tests that share what they make run in one process")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Warnings of torch and transformers are not ours: here they are no errors."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def transformers_here() -> None:
    """Skip, or fail where the reference is required, when it is not installed."""
    if MISSING and REQUIRED:
        pytest.fail(f"KOSMOS_EDGE_REQUIRE_REFERENCE=1, but not installed: {', '.join(MISSING)}")
    if MISSING:
        pytest.skip(f"the reference extra is not installed: {', '.join(MISSING)}")
    import torch

    torch.set_num_threads(1)  # for models this small more threads do nothing but wait for each other, busily


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run per checkpoint that can be made here."""
    if "checkpoint" in metafunc.fixturenames:
        from checkpoints import available

        names = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in available()]
        metafunc.parametrize("checkpoint", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def checkpoint(request, transformers_here, tmp_path_factory) -> Iterator[object]:
    """A checkpoint with its transformers model and its converted files; the files go when its tests are done."""
    from checkpoints import Checkpoint

    made = Checkpoint(request.param, tmp_path_factory.mktemp("checkpoint"))
    yield made
    made.close()
