"""Data made by rule in the data sets' own files: the rules hold, and nano's figures on them are those that the answers
of the log give by the definitions of tests/helpers/eval_definitions.py."""

import importlib.util
import json
import os
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers import eval_definitions as definitions
from helpers.eval_scripted import Scripted, evaluate, values
from PIL import Image

from kosmos_edge import cli

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "eval_data.py"
if not SCRIPT.is_file():
    pytest.skip("tools/ is not beside the tests", allow_module_level=True)


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("eval_data", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKE = script()


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KOSMOS_EDGE_")]:
        monkeypatch.delenv(name)


def on_nano(
    capsys: pytest.CaptureFixture[str], task: str, data: Path, *words: object
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(figures, predictions by item)."""
    items = data.with_name(f"{task}.jsonl")
    given = ["--data", data, "-m", "nano", "-t", "1", "-f", "json", "--items", items, *words]
    assert cli.run(["eval", task, *map(str, given)]) == 0
    made = json.loads(capsys.readouterr().out)
    lines = [json.loads(line) for line in items.read_text(encoding="utf-8").splitlines()][1:]
    return values(made), {line["id"]: line["prediction"] for line in lines}


# ---- Raven's matrices


def solve(levels: Sequence[Any], cells: Sequence[Any], rows: int, columns: int) -> Any:
    """The value that goes on with an attribute's cells, of which the last is missing."""
    grid = [list(cells[r * columns : (r + 1) * columns]) for r in range(rows)]
    last = grid[-1]
    if rows == 1:
        if len(set(last)) < 3:
            return last[0]  # the same, or in turns
        return levels[2 * levels.index(last[-1]) - levels.index(last[-2])]
    if all(len(set(row)) == 1 for row in grid):
        return last[0]  # by rows, or the same everywhere
    if all(row[:-1] == last for row in grid[:-1]):
        return grid[0][-1]  # by columns
    (missing,) = set(grid[0]) - set(last)
    return missing


def test_matrices_have_one_answer_and_a_scorer_that_knows_the_rule_finds_it(tmp_path: Path) -> None:
    MAKE.raven(tmp_path, 24, 3)
    attributes = json.loads((tmp_path / "attributes.json").read_text())
    items = json.loads((tmp_path / "items.json").read_text())
    by_name = {Path(name).name: cell for name, cell in attributes.items()}
    wanted = {}
    for item in items:
        assert len({(tmp_path / name).read_bytes() for name in item["candidates"]}) == 6
        rows, columns = MAKE.GRIDS[len(item["images"])]
        cells = [attributes[name] for name in item["images"]]
        wanted[Path(item["images"][0]).name[:3]] = {
            name: solve(levels, [cell[name] for cell in cells], rows, columns) for name, levels in MAKE.LEVELS.items()
        }

    def knows(prompt: str, text: str, images: list[str]) -> float:
        return float((by_name[images[-1]] == wanted[images[-1][:3]]) == (text == "Yes"))

    assert values(evaluate("iq50", tmp_path, Scripted(rated=knows))[0]) == {"accuracy": 1, "margin": 1}
    constant = values(evaluate("iq50", tmp_path, Scripted())[0])
    assert constant["accuracy"] == pytest.approx(1 / 6) and Counter(item["answer"] for item in items) == dict.fromkeys(
        range(6), 4
    )
    again = tmp_path / "again"
    MAKE.raven(again, 24, 3)
    assert {p.name: p.read_bytes() for p in (again / "images").iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "images").iterdir()
    }


def test_matrices_on_nano(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    MAKE.raven(data, 3, 0)
    figures, said = on_nano(capsys, "iq50", data)
    items = json.loads((data / "items.json").read_text())
    right = [max(range(6), key=said[str(i["id"])]["yes"].__getitem__) == i["answer"] for i in items]
    assert figures["accuracy"] == pytest.approx(sum(right) / 3)


# ---- opinions


def test_opinions_on_nano(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    MAKE.words(data, 4, 0)
    texts = json.loads((data / "texts.json").read_text())
    for name, text in texts.items():
        with Image.open(data / name) as picture:
            assert picture.size == (448, 448) and picture.convert("L").getextrema() == (0, 255)
        truth, other = ("positive", "negative") if "positive" in name else ("negative", "positive")
        assert sum(word in text for word in MAKE.WORDS[truth]) >= 2 > sum(word in text for word in MAKE.WORDS[other])
    for task in ("rendered-sst2", "rendered-sst2-cot"):
        figures, said = on_nano(capsys, task, data, "-n", 6)
        right = [max(one["scores"], key=one["scores"].get) == name.split("/")[0] for name, one in said.items()]
        assert len(right) == 4 and figures["accuracy"] == pytest.approx(sum(right) / 4)


# ---- web pages


class Shown(HTMLParser):
    """The text of a page's body, scripts left out."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.text = False, ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.inside = (self.inside or tag == "body") and tag != "script"

    def handle_data(self, data: str) -> None:
        self.text += f" {data}" if self.inside else ""


def check_pages(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    """Prompts have the pages' words, figures are the definitions'."""
    model = Scripted(lambda prompt, images: "12 euro")
    evaluate("websrc", data, model)
    assert len(model.prompts) == 8
    for number in (0, 1):
        reader = Shown()
        reader.feed((data / f"made/01/processed_data/01{number:05}.html").read_text())
        assert f" Context: {' '.join(reader.text.split())} Q: " in model.prompts[4 * number]
    figures, said = on_nano(capsys, "websrc", data, "--limit", 2, "-n", 8)
    truth = {}
    for line in (data / "made/01/dataset.csv").read_text().splitlines()[1:]:
        _, id, _, _, answer = line.split(",")
        truth[id] = answer
    both = [
        definitions.squad(one["text"].strip().split("\n")[0].strip().removesuffix("."), [truth[id]])
        for id, one in said.items()
    ]
    assert len(both) == 2 and (figures["em"], figures["f1"]) == tuple(
        pytest.approx(sum(x) / 2) for x in zip(*both, strict=True)
    )


def test_pages_on_nano(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a browser: a blank picture stands for the screenshot."""
    MAKE.pages(tmp_path / "data", 2, 0, lambda page, target: Image.new("RGB", (64, 48)).save(target))
    check_pages(capsys, tmp_path / "data")


def test_pages_as_chromium_shows_them(tmp_path: Path) -> None:
    browser = MAKE.find_browser()
    if browser is None:
        pytest.skip("Chromium is not installed")
    MAKE.pages(tmp_path, 1, 0)
    with Image.open(next(tmp_path.rglob("*.png"))) as picture:
        assert picture.size == (640, 480)
        dark = sum(picture.convert("L").histogram()[:100])
        assert 1000 < dark < 60_000  # words on white


# ---- scenes


def test_scenes_on_nano(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    MAKE.scenes(data, 4, 1)
    record = json.loads((data / "instances.json").read_text())
    true = {str(one["id"]): one["bbox"] for one in record["annotations"]}
    figures, said = on_nano(capsys, "refcoco", data)
    assert len(said) == len(true) > 4
    hits = []
    for name, one in said.items():
        x, y, w, h = true[name.partition("#")[0]]
        boxes = one["boxes"] or [[0, 0, 0, 0]]
        hits.append(area_iou([x, y, x + w, y + h], boxes[0]) >= 0.5)
    assert figures["accuracy"] == pytest.approx(sum(hits) / len(hits)) and any(hits)
    figures, said = on_nano(capsys, "vqav2", data, "-n", 8)
    answers = json.loads((data / "v2_mscoco_val2014_annotations.json").read_text())["annotations"]
    found = []
    for one in answers:
        text = said[str(one["question_id"])]["text"].strip().split("\n")[0].strip().removesuffix(".")
        found.append(definitions.vqa(text, [each["answer"] for each in one["answers"]], {}))
    assert figures["vqa_accuracy"] == pytest.approx(sum(found) / len(found)) and sum(found) > 0


def area_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """By its formula."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union else 0.0
