"""The sizing page and the job files say what the code does."""

import re
import subprocess
from pathlib import Path

import pytest
import sizing

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "distributed.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not beside the tests")


def test_the_table_is_the_arithmetic() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for pictures in (1e8, 5e9):
        assert sizing.line(sizing.size(pictures)) in text
    assert f"{sizing.size(1e8, spot=100).retries:,.0f}" in text
    speed = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert f"| folder, 8 at a time | {sizing.RATE} images/s" in speed


def test_the_arithmetic_by_hand() -> None:
    found = sizing.size(1e8)
    worker_seconds = 1e8 / 1.58 / 0.9
    assert found.core_hours == pytest.approx(worker_seconds * 2 / 3600)
    assert found.machines == 2 and found.hours <= 30 * 24
    total = found.machines * found.hours * 16 * 3600
    assert total == pytest.approx(worker_seconds * 1.05, rel=1e-3) and total > worker_seconds * 1.05
    assert sizing.size(1e8, days=1).machines > 20 and sizing.size(1e8, spot=100).hours > found.hours


def test_job_files() -> None:
    folder = ROOT / "examples" / "cluster"
    for script in folder.glob("*.sh"):
        subprocess.run(["bash", "-n", script], check=True)
    for path in folder.iterdir():
        text = path.read_text(encoding="utf-8")
        assert "--resume" in text and re.search(r"--shard \S+/", text), path
