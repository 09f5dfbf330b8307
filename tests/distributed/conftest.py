"""Workers share weights in the cache by default: here in one of the test run."""

import pytest


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache folder of the test."""
    monkeypatch.setenv("KOSMOS_EDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
