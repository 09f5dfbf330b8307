"""Examples drawn several times: the report's means and spreads; several types; what `eval` writes for each."""

import json
import os
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.eval_scripted import Scripted, draw_picture, write_json, write_lines

from kosmos_edge import cli, hub, loading
from kosmos_edge.evaluation.metrics import java
from kosmos_edge.evaluation.statistics import bootstrap, ratio


class Loaded(Scripted):
    """A model that the command loads; its answers depend on the example and on its type."""

    def __init__(self, wrong: str) -> None:
        super().__init__(lambda prompt, images: "no" if wrong and wrong in prompt else "yes")

    def __enter__(self) -> "Loaded":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight questions, all answered yes by all; ten to draw examples from."""
    folder = tmp_path / "data"
    for split, numbers in (("val", range(8)), ("train", range(10, 20))):
        records = []
        for n in numbers:
            draw_picture(folder / split / f"{n}.jpg", n)
            people = [{"answer": "yes", "answer_confidence": "yes"}] * 10
            records.append({"image": f"{n}.jpg", "question": f"Is it {n}?", "answers": people, "answer_type": "yes/no"})
        write_json(folder / f"{split}.json", records)
    return folder


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> list[Loaded]:
    for name in [name for name in os.environ if name.startswith("KOSMOS_EDGE_")]:
        monkeypatch.delenv(name)
    made: list[Loaded] = []

    def load(path: Any, **_: Any) -> Loaded:
        made.append(Loaded("Is it 1" if len(made) % 2 else "Is it 12?"))
        return made[-1]

    monkeypatch.setattr(loading, "load", load)
    monkeypatch.setattr(hub, "default_model", lambda: ("nano", "a file that is here"))
    monkeypatch.setattr(java, "why_not", lambda metric: f"no java for {metric}")
    return made


def run(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> dict[str, Any]:
    assert cli.run(["eval", *map(str, words), "-f", "json"]) == code
    found = capsys.readouterr()
    return json.loads(found.out) if code == 0 else {"err": found.err}


def test_figures_are_means_over_the_draws(data: Path, capsys: pytest.CaptureFixture[str], models: list[Loaded]) -> None:
    words = ("vizwiz", "--data", data, "--shots", 2)
    alone = [run(capsys, *words, "--seed", seed)["metrics"]["vqa_accuracy"]["value"] for seed in (5, 6, 7)]
    models.clear()  # the next one answers as the first
    assert len(set(alone)) > 1
    made = run(capsys, *words, "--seed", 5, "--seeds", 3)
    figure = made["metrics"]["vqa_accuracy"]
    first = {0: alone[0], 2: alone[2]}  # the second of the single runs had the other model
    assert {draw: figure["by_seed"][draw] for draw in first} == first
    assert figure["value"] == pytest.approx(sum(figure["by_seed"]) / 3)
    assert figure["sd"] == pytest.approx(statistics.stdev(figure["by_seed"])) and figure["items"] == 8
    assert made["settings"]["shots_seeds"] == [5, 6, 7] and made["computed"] == 24
    prompts = models[0].prompts
    assert len(prompts) == 24 and prompts[:8] != prompts[8:16]
    # the interval: items are drawn with all their draws
    right = [[float("Is it 12?" not in p) for p in prompts[8 * draw : 8 * draw + 8]] for draw in range(3)]
    means = [(sum(item) / 3, 1.0) for item in zip(*right, strict=True)]
    assert figure["ci95"] == pytest.approx(list(bootstrap(ratio, means, 5) or ()))
    assert cli.run(["eval", *map(str, words), "--seeds", "3"]) == 0
    text = capsys.readouterr().out
    assert " ± " in text and "means over 3 draws of examples, seeds 0 to 2" in text


def test_a_run_of_several_draws_goes_on(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = tmp_path / "items.jsonl"
    words = ("vizwiz", "--data", data, "--shots", 2, "--items", items)
    run(capsys, *words)
    more = run(capsys, *words, "--seeds", 2, "--resume")  # the first draw is there
    assert more["computed"] == 8
    heads = [line for line in map(json.loads, items.read_text().splitlines()) if "id" not in line]
    assert [(head["type"], head["shots_seed"]) for head in heads] == [("q4_k_m", 0), ("q4_k_m seed 1", 1)]
    again = run(capsys, *words, "--seeds", 2, "--resume")
    assert again["computed"] == 0 and again["metrics"] == more["metrics"]


def test_types_and_draws_are_compared_on_the_same_items(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("vizwiz", "--data", data, "--shots", 2, "--types", "q4_k_m,q8_0", "--work", tmp_path)
    made = run(capsys, *words, "--seeds", 2, "--out", tmp_path / "a-{type}-{seed}.json")
    one, other = made["types"]
    (difference,) = made["differences"]
    values = [each["metrics"]["vqa_accuracy"]["value"] for each in (one, other)]
    found = difference["metrics"]["vqa_accuracy"]
    assert found["value"] == pytest.approx(values[1] - values[0]) and found["value"] < -0.2 and found["p"] < 0.05
    for kind in ("q4_k_m", "q8_0"):
        for seed in (0, 1):
            answers = json.loads((tmp_path / f"a-{kind}-{seed}.json").read_text())
            assert len(answers) == 8 and set(answers[0]) == {"image", "answer"}


def test_owleval_writes_lines_with_the_models_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_picture(tmp_path / "cases" / "1.png")
    asked = {"image": "1.png", "question_id": 1, "question": "What?", "ability": "a", "category": "single_turn"}
    write_lines(tmp_path / "questions.jsonl", [asked])
    run(capsys, "owleval", "--data", tmp_path, "--out", tmp_path / "a.jsonl")
    (line,) = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert line == {
        "image": "1.png", "question_id": 1, "question": "What?", "answer": "yes", "model_id": "scripted:q4_k_m",
    }  # fmt: skip


def captions(folder: Path) -> Path:
    images: list[Mapping[str, Any]] = []
    for n in range(2):
        draw_picture(folder / "val2014" / f"{n}.png", n)
        known: Iterable[dict[str, str]] = [{"raw": "yes"}]
        images.append({"filename": f"{n}.png", "filepath": "val2014", "split": "test", "cocoid": n, "sentences": known})
    write_json(folder / "dataset_coco.json", {"images": images})
    return folder


def test_a_metric_that_is_required(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], models: list[Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("coco-caption", "--data", captions(tmp_path))
    assert "--require spice: no java for spice" in run(capsys, *words, "--require", "spice", code=2)["err"]
    assert "got 'x'" in run(capsys, *words, "--require", "x", code=2)["err"] and models == []
    assert run(capsys, *words, "--require", "cider")["metrics"]["spice"]["reason"] == "no java for spice"
    monkeypatch.setattr(java, "why_not", lambda metric: "")
    monkeypatch.setattr(java, "parts_of", lambda *_: [][1])
    monkeypatch.setattr(java, "add", lambda *_: {"spice": "SPICE failed: x"})
    assert "it has no value: SPICE failed: x" in run(capsys, *words, "--require", "spice", code=1)["err"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "2"], "--seeds 2: there are no examples to draw without --shots"),
        (["--seeds", "2", "--shots", "1", "--out", "x"], "with several --seeds expected {seed} in the name"),
        (["--types", "q4_k_m,q8_0", "--out", "x-{seed}"], "with several --types expected {type} in the name"),
        (["--score"], "--score: vizwiz has no names to rank"),
    ],
)
def test_options_that_do_not_go_together(
    data: Path, capsys: pytest.CaptureFixture[str], models: list[Loaded], words: list[str], message: str
) -> None:
    assert message in " ".join(run(capsys, "vizwiz", "--data", data, *words, code=2)["err"].split())
    assert models == []
