"""Shared fixtures: where optional inputs lie."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


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
