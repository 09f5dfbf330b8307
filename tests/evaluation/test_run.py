"""Runs of a task: batches, the log and going on with it, failures, reports."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kosmos_edge.errors import ImageDecodeError, InvalidRequest, KosmosIOError
from kosmos_edge.evaluation import markdown, ocr
from kosmos_edge.evaluation.log import Log
from kosmos_edge.evaluation.pages import Page
from kosmos_edge.evaluation.registry import TASKS, find_task
from kosmos_edge.evaluation.report import published, report
from kosmos_edge.evaluation.run import Settings, choose, run
from kosmos_edge.evaluation.statistics import Metric
from kosmos_edge.evaluation.table import markdown as table
from kosmos_edge.evaluation.task import Item
from kosmos_edge.results import Box, Line, Ranking, Result, Timings

LINE = (0.0, 0.0, 50.0, 10.0)
ITEMS = [Item(f"{i}.png", f"/x/{i}.png", Page(f"page {i}", (LINE,))) for i in range(6)]


class Reader:
    """A model that reads what it is told to."""

    def __init__(self, said: dict[str, str], source: str = "a:0") -> None:
        self.said = said
        self.name = "reader"
        self.model_info = {"prompts": {"read": "<ocr>", "markdown": "<md>"}}
        self.metadata = {"general.architecture": "x", "x.source.sha256": [source]}
        self.calls: list[tuple[list[str], str, int, dict[str, Any]]] = []
        self.interrupt_at: str | None = None

    def batch(
        self, images: Iterable[Any], task: Any = "caption", *, batch_size: int = 1, **arguments: Any
    ) -> Iterator[Result | Ranking]:
        images = list(images)
        self.calls.append((images, task, batch_size, arguments))
        for image in images:
            if image == self.interrupt_at:
                raise KeyboardInterrupt
            name = Path(image).name
            if name not in self.said:
                yield Result("", error=ImageDecodeError(f"{image}: broken"), finish_reason="error")
                continue
            line = Line(self.said[name], Box((0, 0, 0.5, 0.1), LINE))
            yield Result(
                self.said[name],
                lines=None if arguments.get("markdown") else [line],
                timings=Timings(total_ms=5.0),
                finish_reason="length" if name == "3.png" else "stop",
            )


def all_right(**changes: str) -> dict[str, str]:
    return {item.id: item.truth.text for item in ITEMS} | {f"{k[1:]}.png": v for k, v in changes.items()}


def go(model: Reader, path: Path | None = None, resume: bool = False, type: str = "f16", **settings: Any) -> Any:
    seen: list[tuple[int, int, str]] = []
    with Log(path, resume) as log:
        made = run(ocr, ITEMS, model, type, log, Settings("x", **settings), lambda *step: seen.append(step))
    return made, seen


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_task_says_what_it_must() -> None:
    for name in TASKS:
        task = find_task(name)
        assert name == task.NAME and task.SUMMARY.endswith(".") and task.FILES
        assert task.METRICS or name == "owleval"  # which people grade
        known = published(task)
        if name in ("pope", "chair", "owleval"):  # not in the papers
            assert known == {}
            continue
        assert known["source"] and isinstance(known["sure"], bool)
        names = {metric.name for metric in task.METRICS}
        for row in known["rows"].values():
            assert set(row) <= names and all(0 < figure <= (1.1 if m == "cider" else 1) for m, figure in row.items())
        assert set(known["notes"]) <= names and set(known.get("unsure_rows", ())) <= set(known["rows"])
        mean = known["rows"].pop("mean", {})
        for metric, figure in mean.items():  # as the paper's last column, to its rounding
            values = [row[metric] for row in known["rows"].values()]
            assert abs(sum(values) / len(values) - figure) < 0.0006
    with pytest.raises(InvalidRequest, match=r"expected one of ocr, markdown, coco-caption, .*, got 'vqa'"):
        find_task("vqa")


def test_one_batch_with_the_arguments_of_the_task() -> None:
    model = Reader(all_right())
    made, seen = go(model, batch_size=4, arguments={"max_tokens": 9})
    assert model.calls == [([item.image for item in ITEMS], "read", 4, {"max_tokens": 9})]
    assert seen == [(i + 1, 6, f"{i}.png") for i in range(6)]
    assert (made.prompt, made.model, made.computed, made.cut, made.failed) == ("<ocr>", "reader", 6, 1, [])
    assert len(made.scores) == 6 and all(scores["cer"][0] == 0 for scores in made.scores)


def test_neighbours_with_other_arguments_are_another_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Reader(all_right())
    monkeypatch.setattr(ocr, "request", lambda item: ("read", {"markdown": item.id >= "4"}))
    go(model)
    assert [(len(images), arguments) for images, _, _, arguments in model.calls] == [
        (4, {"markdown": False}),
        (2, {"markdown": True}),
    ]


def test_markdown_asks_for_markdown() -> None:
    items = [Item("0.png", "/x/0.png", "page 0"), Item("1.png", "/x/1.png", "# other")]
    model = Reader(all_right())
    with Log(None, False) as log:
        made = run(markdown, items, model, "f16", log, Settings("x"), lambda *_: None)
    assert model.calls[0][1:] == ("read", 8, {"markdown": True}) and made.prompt == "<md>"
    figures = report(markdown, [made], Settings("x"), 2)["metrics"]
    assert figures["ned"]["items"] == 2 and figures["ned"]["value"] == 0.5
    assert figures["nted"]["value"] is None and "not computed" in figures["nted"]["reason"]


# ---- the log


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    said = all_right(_1="pag 1", _5="?")
    model = Reader(said)
    model.interrupt_at = "/x/4.png"
    with pytest.raises(KeyboardInterrupt):
        go(model, path)
    assert [record.get("id") for record in lines_of(path)] == [None, "0.png", "1.png", "2.png", "3.png"]

    again = Reader(said)
    made, seen = go(again, path, resume=True)
    assert again.calls[0][0] == ["/x/4.png", "/x/5.png"] and made.computed == 2
    assert seen == [(5, 6, "4.png"), (6, 6, "5.png")]
    whole, _ = go(Reader(said))
    assert made.scores == whole.scores and made.cut == whole.cut == 1
    assert len(lines_of(path)) == 7
    third = Reader(said)
    made, _ = go(third, path, resume=True)
    assert third.calls == [] and made.scores == whole.scores and made.computed == 0
    figures = report(ocr, [made], Settings("x"), 6)
    assert figures["images_per_second"] is None and "0 items computed" in table(ocr, figures)


def test_the_lines_of_the_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    go(Reader(all_right(_0="page x")), path, arguments={"max_tokens": 9})
    head, first = lines_of(path)[:2]
    assert head == {
        "task": "ocr", "type": "f16", "model": "reader", "source": ["a:0"], "prompt": "<ocr>",
        "arguments": {"max_tokens": 9},
    }  # fmt: skip
    assert first["prediction"] == {
        "text": "page x", "lines": [{"text": "page x", "box": list(LINE)}], "finish_reason": "stop",
    }  # fmt: skip
    assert first["scores"]["cer"] == [1, 6] and first["scores"]["line_f1"] == [2, 2]
    assert (first["type"], first["id"], first["error"], first["ms"]) == ("f16", "0.png", None, 5.0)


def test_scores_are_made_again_from_what_was_read(tmp_path: Path) -> None:
    """The truth may have been corrected since."""
    path = tmp_path / "log.jsonl"
    go(Reader(all_right(_0="page zero")), path)
    corrected = [Item("0.png", "/x/0.png", Page("page zero", (LINE,))), *ITEMS[1:]]
    with Log(path, True) as log:
        made = run(ocr, corrected, Reader({}), "f16", log, Settings("x"), lambda *_: None)
    assert made.scores[0]["cer"] == (0, 9)


def test_a_line_that_was_cut_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    go(Reader(all_right()), path)
    whole = path.read_bytes()
    for cut in (1, 5, len(whole.splitlines()[-1])):
        path.write_bytes(whole[:-cut])
        model = Reader(all_right())
        go(model, path, resume=True)
        assert model.calls[0][0] == ["/x/5.png"] and len(lines_of(path)) == 7


def test_a_log_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    go(Reader(all_right()), path)
    before = path.read_bytes()
    with pytest.raises(InvalidRequest, match=r"log\.jsonl exists; --resume goes on with it"):
        go(Reader(all_right()), path)
    with pytest.raises(InvalidRequest, match=r"cannot be resumed: source is \['a:0'\] there, \['b:1'\] now"):
        go(Reader(all_right(), source="b:1"), path, resume=True)
    with pytest.raises(InvalidRequest, match=r"arguments is \{\} there, \{'max_tokens': 5\} now"):
        go(Reader(all_right()), path, resume=True, arguments={"max_tokens": 5})
    assert path.read_bytes() == before
    for text in ("hello\n", "[1]\n", '{"a": 1}\n', '{"type": "f16", "id": 1\n'):
        path.write_text(text)
        with pytest.raises(InvalidRequest, match=r"log\.jsonl, line 1: not a line of such a log"):
            Log(path, True)
        assert path.read_text() == text
    with pytest.raises(KosmosIOError, match="cannot write"):
        Log(tmp_path / "missing" / "log.jsonl", False)


def test_two_runs_do_not_write_one_log(tmp_path: Path) -> None:
    with Log(tmp_path / "a", False), pytest.raises(KosmosIOError, match="another process is writing"):
        Log(tmp_path / "a", True)


def test_types_share_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with Log(path, False) as log:
        for kind in ("f16", "q8_0"):
            run(ocr, ITEMS[:2], Reader(all_right()), kind, log, Settings("x"), lambda *_: None)
    model = Reader(all_right())
    with Log(path, True) as log:
        run(ocr, ITEMS, model, "q8_0", log, Settings("x"), lambda *_: None)
    assert len(model.calls[0][0]) == 4
    assert [record["type"] for record in lines_of(path)] == ["f16"] * 3 + ["q8_0"] * 7


# ---- failures and subsets


def test_a_failed_image_counts_as_an_empty_answer_and_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    said = all_right()
    del said["2.png"]
    made, _ = go(Reader(said), path)
    assert made.failed == [("2.png", "/x/2.png: broken")]
    assert made.scores[2]["cer"] == (6, 6) and made.scores[2]["line_recall"] == (0, 1)
    figures = report(ocr, [made], Settings("x"), 6)
    assert figures["failed"] == [{"id": "2.png", "error": "/x/2.png: broken"}]
    assert figures["metrics"]["cer"]["value"] == pytest.approx(1 / 6)
    assert "1 images failed and count as empty answers: 2.png" in table(ocr, figures)
    later = Reader(all_right())
    made, _ = go(later, path, resume=True)
    assert later.calls[0][0] == ["/x/2.png"] and made.failed == [] and made.scores[2]["cer"] == (0, 6)


def test_a_subset_is_drawn_by_the_seed() -> None:
    assert choose(ITEMS, None, 0) == choose(ITEMS, 6, 0) == choose(ITEMS, 99, 0) == ITEMS
    subsets = {tuple(item.id for item in choose(ITEMS, 3, seed)) for seed in range(30)}
    assert len(subsets) > 10 and all(list(ids) == sorted(ids) and len(ids) == 3 for ids in subsets)
    assert choose(ITEMS, 3, 7) == choose(ITEMS, 3, 7)
    assert all(item in choose(ITEMS, 4, 7) for item in choose(ITEMS, 2, 7))  # a larger subset adds to a smaller one


# ---- reports


def test_the_report_of_one_type() -> None:
    made, _ = go(Reader(all_right(_1="pqge 1")), seed=3)
    figures = report(ocr, [made], Settings("data", 3), 10)
    assert set(figures) >= {"task", "n", "metrics", "published", "model", "type", "prompt", "seconds"}
    assert (figures["task"], figures["n"], figures["model"], figures["type"]) == ("ocr", 6, "reader", "f16")
    assert figures["subset_of"] == 10 and figures["cut"] == 1 and figures["settings"]["data"] == "data"
    cer = figures["metrics"]["cer"]
    assert cer["value"] == pytest.approx(1 / 36) and cer["items"] == 6
    assert cer["ci95"][0] == 0 and 1 / 36 < cer["ci95"][1] < 0.12
    assert figures["metrics"]["line_f1"] == {"value": 1.0, "ci95": [1.0, 1.0], "items": 6}
    assert figures["published"]["rows"]["Receipt"]["ned"] == 0.833
    json.dumps(figures, allow_nan=False)
    text = table(ocr, figures)
    row = next(line for line in text.splitlines() if line.startswith("| ned"))
    assert "97.2 [" in row and "| 83.3 |" in " ".join(row.split()) and text.count("published: ") >= 8
    words = next(" ".join(line.split()) for line in text.splitlines() if line.startswith("| word_f1"))
    assert "| 89.4 ? |" in words and "| 57.0 ? |" in words  # unsure whether it is the same metric
    assert "(subset of 10)" in text and "1 answers end at the limit of tokens" in text and "prompt '<ocr>'" in text


def test_a_truth_without_boxes_has_no_figures_of_lines() -> None:
    items = [Item(item.id, item.image, Page(item.truth.text, None)) for item in ITEMS]
    with Log(None, False) as log:
        made = run(ocr, items, Reader(all_right()), "f16", log, Settings("x"), lambda *_: None)
    figures = report(ocr, [made], Settings("x"), 6)
    assert figures["metrics"]["line_f1"] == {
        "value": None, "ci95": None, "items": 0, "reason": "the truth has no boxes of lines",
    }  # fmt: skip
    assert "line_f1 has no value: the truth has no boxes of lines" in table(ocr, figures)


def test_sub_folders_have_figures_of_their_own() -> None:
    groups = ("receipt", "receipt", "receipt", "x", "x", "")
    items = [Item(i.id, i.image, i.truth, group) for i, group in zip(ITEMS, groups, strict=True)]
    with Log(None, False) as log:
        made = run(ocr, items, Reader(all_right(_0="page x")), "f16", log, Settings("x"), lambda *_: None)
    figures = report(ocr, [made], Settings("x"), 6)
    assert {name: group["n"] for name, group in figures["groups"].items()} == {"receipt": 3, "x": 2, "": 1}
    cer = {name: group["metrics"]["cer"]["value"] for name, group in figures["groups"].items()}
    assert cer == {"receipt": pytest.approx(1 / 18), "x": 0, "": 0} and figures["metrics"]["cer"]["value"] < 1 / 18
    assert figures["groups"]["receipt"]["metrics"]["cer"]["ci95"][1] > 1 / 18
    lines = [" ".join(line.split()) for line in table(ocr, figures).splitlines()]
    assert next(line for line in lines if line.startswith("| receipt")).startswith(
        "| receipt | 3 | 5.6 | 16.7 | 94.4 (83.3)"
    )
    assert any(line.startswith("| (none) | 1 | 0.0") for line in lines)
    alone = run(ocr, items[:3], Reader(all_right()), "f16", Log(None, False), Settings("x"), lambda *_: None)
    assert report(ocr, [alone], Settings("x"), 3)["groups"] == {}


def test_types_are_compared_on_the_same_items() -> None:
    one, _ = go(Reader(all_right()))
    other, _ = go(Reader({name: text.replace("page", "pag") for name, text in all_right().items()}), type="q4_0")
    made = report(ocr, [one, other], Settings("x"), 6)
    assert [figures["type"] for figures in made["types"]] == ["f16", "q4_0"] and made["n"] == 6
    (difference,) = made["differences"]
    assert (difference["type"], difference["against"]) == ("q4_0", "f16")
    cer = difference["metrics"]["cer"]
    assert cer["value"] == pytest.approx(1 / 6) and cer["ci95"] == pytest.approx([1 / 6, 1 / 6]) and cer["p"] == 0.002
    assert difference["metrics"]["line_f1"]["p"] == 1
    text = table(ocr, made)
    assert "+16.67 [+16.67, +16.67] *" in text and " f16 |" in text and " q4_0 |" in text


def test_a_metric_without_parts_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = go(Reader(all_right()))
    monkeypatch.setattr(ocr, "METRICS", (*ocr.METRICS, Metric("other", "never scored")))
    assert report(ocr, [made], Settings("x"), 6)["metrics"]["other"]["reason"] == "no item has a part in it"
