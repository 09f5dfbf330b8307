"""nano-read, the reader in the package: what a newcomer's first command prints, and what it says about no text."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from kosmos_edge import _core, hub, load

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LARGEST = 12_000_000  # bytes of the file
LINES = ["Coffee 3.20", "Tea 2.50", "Total 5.70"]
FIRST = (25, 32, 231, 61)  # where the ink of the first line is, in pixels


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No other model is here."""
    for name in [name for name in os.environ if name.startswith("KOSMOS_EDGE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KOSMOS_EDGE_CACHE", str(tmp_path))
    return tmp_path


def read(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "kosmos_edge", "read", *map(str, arguments), "--offline"]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_first_command_of_a_newcomer(alone: Path) -> None:
    assert hub.default_reader()[0] == "nano-read" == hub.NANO_READ
    done = read(EXAMPLES / "pages" / "opening.png")
    assert (done.returncode, done.stdout) == (0, "Open Monday to Friday\n"), done.stderr
    assert "nano-read" in done.stderr


def test_lines_with_boxes(alone: Path) -> None:
    record = json.loads(read(EXAMPLES / "pages" / "prices.png", "--format", "json").stdout)
    lines = record["lines"]
    assert [line["text"] for line in lines] == LINES and all(0.5 < line["score"] <= 1 for line in lines)
    assert [line["box"][1] for line in lines] == sorted(line["box"][1] for line in lines)
    assert all(abs(got - true) <= 4 for got, true in zip(lines[0]["box"], FIRST, strict=True))


def test_no_text_is_told(alone: Path) -> None:
    path = alone / "empty.png"
    Image.new("RGB", (320, 200), (250, 250, 245)).save(path)
    done = read(path)
    assert done.returncode == 0 and not done.stdout.strip()
    assert "no text that the model can read" in done.stderr


def test_markdown_is_said_to_be_untrained(alone: Path) -> None:
    done = read(EXAMPLES / "pages" / "opening.png", "--format", "markdown")
    assert (done.returncode, done.stdout) == (0, "Open Monday to Friday\n")
    assert "nano-read was not trained for pages as Markdown" in done.stderr and "box" not in done.stderr
    assert "not trained" not in read(EXAMPLES / "pages" / "opening.png").stderr


def test_the_file_says_what_its_recipe_says() -> None:
    recipe = Path(__file__).resolve().parents[2] / "tools" / "nano" / "read" / "kosmos_edge.json"
    about = json.loads(recipe.read_text())
    metadata = _core.GgufFile(str(hub.packaged_path(hub.NANO_READ))).metadata()
    assert metadata["kosmos2_5.notice"] == about["notice"]
    assert metadata["kosmos2_5.trained_tasks"].split(", ") == about["trained_tasks"] == ["read"]


def test_the_file() -> None:
    assert hub.packaged_path(hub.NANO_READ).stat().st_size <= LARGEST
    with load("nano-read", threads=1) as model:
        assert model.model_info["architecture"] == "kosmos2_5" and "read" in model.model_info["tasks"]
        assert not model.read(Image.new("RGB", (64, 64), (9, 9, 9))).lines
