"""examples/agent.ipynb, in a real kernel, against the dialogue that it replays."""

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("openai", reason="the extra `agent` is not installed")

from kosmos_edge import load

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
if not (EXAMPLES / "agent.ipynb").is_file():
    pytest.skip("examples/ is not beside the tests", allow_module_level=True)


def calls() -> list[tuple[str, dict[str, object]]]:
    """All tool calls of the dialogue."""
    replies = json.loads((EXAMPLES / "agent" / "dialogue.json").read_text())
    made = [call for reply in replies for call in reply["choices"][0]["message"].get("tool_calls", [])]
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in made]


def test_the_dialogue_measures_what_nano_finds() -> None:
    found = load("nano", threads=1).ground(EXAMPLES / "scene-00000.png")
    [measured] = [arguments["boxes"] for name, arguments in calls() if name == "measure"]
    assert measured == [list(box.pixels or ()) for box in found.boxes]


def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    book = nbformat.read(EXAMPLES / "agent.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells)  # it is kept without outputs
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": os.fspath(EXAMPLES)}}).execute()
    _, asked, shown, payload, spent = [cell.outputs for cell in book.cells if cell.cell_type == "code"]
    assert asked[-1]["text"] == "Left of the truck stands a Christmas tree; 50 pixels are between them.\n"
    html = shown[0]["data"]["text/html"]
    assert "<script" not in html and html.count("data:image/jpeg") >= 4 and "A closer look" in html
    assert "'untrusted'" in payload[0]["data"]["text/plain"]
    assert spent[0]["text"] == "stop 6791 tokens\n" and "crop_2" in spent[1]["data"]["text/plain"]
