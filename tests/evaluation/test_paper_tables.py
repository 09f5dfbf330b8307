"""The papers' tables filled with results, and the page that has them."""

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.eval_scripted import write_json

from kosmos_edge import cli
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.paper_tables import BEGIN, END, fill, make_tables, places, read_results
from kosmos_edge.evaluation.registry import TASKS, find_task
from kosmos_edge.evaluation.report import published

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"


def result(task: str, metrics: dict[str, Any], **more: Any) -> dict[str, Any]:
    found = {m.name: {"value": None, "ci95": None, "items": 0, "reason": "no x"} for m in find_task(task).METRICS}
    found |= {
        name: {"value": value, "ci95": [value - 0.01, value + 0.01], "items": 9} for name, value in metrics.items()
    }
    settings = more.pop("settings", {})
    return {
        "task": task, "n": 9, "metrics": found, "model": "kosmos-2", "type": "q4_k_m", "subset_of": None,
        "settings": settings, **more,
    }  # fmt: skip


def cells(table: str, command: str, metric: str) -> list[str]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    (found,) = (row for row in rows if row[:2] == [command, metric])
    return found[2:]


def test_every_published_figure_of_a_kosmos_model_has_a_row() -> None:
    table = make_tables([])
    shown = sorted(re.findall(r"(\d+\.\d)(?: \?)? \(", table))
    known = []
    for name in TASKS:
        for label, row in published(find_task(name)).get("rows", {}).items():
            if name not in ("ocr", "markdown") and not label.startswith(("GIT", "chance", "language model")):
                known += [f"{100 * value:.1f}" for value in row.values()]
    assert shown == sorted(known) and len(shown) > 80
    assert cells(table, "eval vqav2 --shots 4", "vqa_accuracy")[1] == "-"
    assert cells(table, "eval refcoco --split testB", "accuracy")[0].startswith("47.3 (KOSMOS-2")
    assert "14.5 ? (KOSMOS-1)" in cells(table, "eval flickr30k-caption", "spice")[0]
    for place, metrics, _ in places():  # the commands are those that exist
        task = find_task(place.task)
        assert metrics and place.shots <= getattr(task, "SHOTS", 0)
        assert place.split == "" or place.split in getattr(task, "SPLITS", ())


def test_results_stand_in_their_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = result("vqav2", {"vqa_accuracy": 0.5}, settings={"shots": 4}, subset_of=100)
    both = [result("refcoco", {"accuracy": 0.51}, settings={"split": "testA"}, type=kind) for kind in ("f16", "q4_k_m")]
    drawn = result("coco-caption", {"cider": 0.9}, settings={"shots": 2})
    drawn["metrics"]["cider"] |= {"sd": 0.02, "by_seed": [0.88, 0.92]}
    scored = result("imagenet", {"accuracy": 0.4}, settings={"score": True})
    for name, record in (("a/one", one), ("two", {"types": both}), ("drawn", drawn), ("scored", scored)):
        write_json(tmp_path / f"{name}.json", record)
    table = make_tables(read_results([tmp_path]))
    head = table.splitlines()[0]
    assert head.endswith("| kosmos-2 q4_k_m | kosmos-2 f16 |")
    assert cells(table, "eval vqav2 --shots 4", "vqa_accuracy")[1:] == ["50.0 [49.0, 51.0], 9 of 100 items", "-"]
    assert cells(table, "eval vqav2", "vqa_accuracy")[1:] == ["-", "-"]
    assert cells(table, "eval refcoco --split testA", "accuracy")[1:] == ["51.0 [50.0, 52.0]"] * 2
    assert cells(table, "eval coco-caption --shots 2", "cider")[1] == "90.0 [89.0, 91.0] ± 2.0"
    assert cells(table, "eval imagenet", "accuracy")[1] == "-"  # by likelihood: not the published figure
    assert cli.run(["eval", "--report", str(tmp_path)]) == 0 and capsys.readouterr().out == table + "\n"
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert cli.run(["eval", "--report", str(tmp_path), "--into", str(page)]) == 0
    assert page.read_text() == f"before\n{BEGIN}\n{table}\n{END}\nafter\n"


def test_a_metric_without_a_value_says_why() -> None:
    table = make_tables([(Path("x"), result("flickr30k-caption", {"cider": 0.8}))])
    assert cells(table, "eval flickr30k-caption", "spice")[1] == "none: no x"


def test_wrong_results_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = result("vqav2", {"vqa_accuracy": 0.5})
    paths = [write_json(tmp_path / name, one) for name in ("a.json", "b.json")]
    with pytest.raises(InvalidRequest, match=r"a\.json and .*b\.json are both of eval vqav2, kosmos-2 q4_k_m"):
        make_tables(read_results(paths))
    for record in ({"task": "vqa"}, {"n": 1}, [1]):
        with pytest.raises(InvalidRequest, match=r"c\.json: a record is not as expected"):
            read_results([write_json(tmp_path / "c.json", record)])
    with pytest.raises(InvalidRequest, match="has no place for the tables"):
        fill(paths[0], "x")
    (tmp_path / "empty").mkdir()
    for words, message in (
        (["--report", str(tmp_path / "empty")], "has no .json files"),
        (["--into", "x"], "--into: expected with --report"),
        ([], "Run a published benchmark on a model"),
        (["--report", "x", "ocr", "--data", "x"], "--report: expected without a task, got ocr"),
    ):
        assert cli.run(["eval", *words]) == 2 and message in capsys.readouterr().err


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not beside the tests")
def test_the_page_has_the_tables_and_every_command() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert fill(PAGE, make_tables([])) == text, "kosmos-edge eval --report ... --into docs/evaluation.md makes it"
    for name in TASKS:
        assert f"`{name}`" in text or f"eval {name}" in text or f"## {name}\n" in text, name
