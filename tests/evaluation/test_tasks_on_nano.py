"""The command on the small model of the package: its answers are those of single calls, and a run can be resumed."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
from helpers.eval_scripted import draw_picture, write_json, write_lines
from PIL import Image

from kosmos_edge import CancelToken, Model, cli, load
from kosmos_edge.evaluation.metrics import java
from kosmos_edge.evaluation.tasks.boxes import asked_phrase
from kosmos_edge.inference.tasks import Plan, plan_generate, plan_locate

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.png"))[:3]


@pytest.fixture(scope="module")
def nano() -> Model:
    return load("nano", threads=1)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "why_not", lambda metric: "not in this test")
    for name in (
        "FORMAT",
        "MODEL",
        "MAX_TOKENS",
        "LIMIT",
        "TYPES",
        "ITEMS",
        "RESUME",
        "SPLIT",
        "SHOTS",
        "EXACT",
        "OUT",
    ):
        monkeypatch.delenv(f"KOSMOS_EDGE_{name}", raising=False)


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())


def evaluate(capsys: pytest.CaptureFixture[str], task: str, data: Path, *words: object) -> dict[str, Any]:
    code = cli.run(["eval", task, "--data", str(data), "-m", "nano", "-t", "1", "-f", "json", *map(str, words)])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    made = json.loads(captured.out)
    assert isinstance(made, dict)
    return made


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()][1:]


def test_captions(nano: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = []
    for number, example in enumerate(EXAMPLES):
        copy(example, tmp_path / "val2014" / f"{number}.png")
        said = nano.generate([example, "An image of"], num_beams=5, max_tokens=8).text
        sentences = [{"raw": said if number else "something else"}]
        images.append({"filename": f"{number}.png", "filepath": "val2014", "split": "test", "cocoid": number})
        images[-1]["sentences"] = sentences
    write_json(tmp_path / "dataset_coco.json", {"images": images})
    items, out = tmp_path / "items.jsonl", tmp_path / "out.json"
    made = evaluate(capsys, "coco-caption", tmp_path, "-n", 8, "--items", items, "--out", out)
    lines = lines_of(items)
    wanted = [nano.generate([example, "An image of"], num_beams=5, max_tokens=8).text for example in EXAMPLES]
    assert [line["prediction"]["text"] for line in lines] == wanted
    assert [line["prompts"] for line in lines] == [["<image>An image of"]] * 3
    assert made["metrics"]["bleu1"]["value"] > 0.5 and made["metrics"]["rouge_l"]["value"] == pytest.approx(2 / 3)
    assert json.loads(out.read_text()) == [{"image_id": i, "caption": text.strip()} for i, text in enumerate(wanted)]
    assert made["images_per_second"] > 0
    short = items.read_text().splitlines(keepends=True)[:2]
    items.write_text("".join(short))
    out.unlink()
    again = evaluate(capsys, "coco-caption", tmp_path, "-n", 8, "--items", items, "--resume", "--out", out)
    assert again["computed"] == 2 and again["metrics"] == made["metrics"]


def test_boxes_are_those_of_locate(nano: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    phrases = ["a red circle", "a blue square"]
    images, annotations, wanted = [], [], []
    for number, (example, phrase) in enumerate(zip(EXAMPLES, phrases, strict=False)):
        copy(example, tmp_path / "train2014" / f"COCO_train2014_{number:012d}.jpg")
        with Image.open(example) as opened:
            width, height = opened.size
        boxes = [box.pixels for box in nano.locate(example, phrase).boxes]
        wanted.append([list(box) for box in boxes if box is not None])
        x1, y1, x2, y2 = boxes[0] if boxes and boxes[0] else (0, 0, 1, 1)
        images.append({"id": number, "caption": phrase, "original_id": number, "width": width, "height": height})
        annotations.append({"image_id": number, "bbox": [x1, y1, x2 - x1, y2 - y1]})
    write_json(tmp_path / "finetune_refcoco_val.json", {"images": images, "annotations": annotations})
    items = tmp_path / "items.jsonl"
    made = evaluate(capsys, "refcoco", tmp_path, "--items", items)
    assert [line["prediction"]["boxes"] for line in lines_of(items)] == wanted and any(wanted)
    assert made["metrics"]["accuracy"]["value"] == sum(bool(boxes) for boxes in wanted) / 2
    exact = evaluate(capsys, "refcoco", tmp_path, "--exact", "-n", 30)
    assert exact["settings"]["exact"] is True and exact["metrics"]["accuracy"]["items"] == 2


def test_a_phrase_is_asked_for_with_one_tag(nano: Model) -> None:
    """With no words before it: as locate asks. Behind words: as the published prompt, raw, has it."""

    def ids(plan: Plan) -> list[int]:
        session = cast(Any, nano._open)
        return list(session.engine.prompt_ids(session._prompt(plan.segments, CancelToken()).segments))

    for before in ("", "Two men in "):
        step = asked_phrase(EXAMPLES[0], "a red circle", before, False)
        exact = asked_phrase(EXAMPLES[0], "a red circle", before, True)
        assert (step.verb, exact.verb) == ("locate", "generate")
        found = ids(plan_locate(nano._info, **step.arguments))
        assert found == ids(plan_generate(nano._info, exact.arguments["segments"], True, False, False))
        if not before:
            assert found == ids(plan_locate(nano._info, EXAMPLES[0], "a red circle"))


def test_rankings_are_those_of_score_segments(nano: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, example in enumerate(EXAMPLES):
        copy(example, tmp_path / "img" / f"{number}.png")
    write_lines(tmp_path / "dev.jsonl", [{"id": i, "img": f"img/{i}.png", "label": i % 2} for i in range(3)])
    items = tmp_path / "items.jsonl"
    made = evaluate(capsys, "hatefulmemes", tmp_path, "--items", items)
    prompt = "Question: does this picture contain real hate speech? Answer: "
    for example, line in zip(EXAMPLES, lines_of(items), strict=True):
        ranking = nano.score_segments([example, prompt], ["yes", "no"])
        assert line["prediction"]["scores"] == pytest.approx({row.text: row.logprob_sum for row in ranking.ranking})
    assert 0 <= made["metrics"]["auc"]["value"] <= 1


def test_choices_by_beams_and_words_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, wnid in enumerate(("n01", "n02")):
        copy(EXAMPLES[number], tmp_path / "val" / wnid / "a.png")
    (tmp_path / "classnames.txt").write_text("red circle\nblue square\n")
    items = tmp_path / "items.jsonl"
    made = evaluate(capsys, "imagenet", tmp_path, "--items", items)
    assert {line["prediction"]["text"].strip() for line in lines_of(items)} <= {"red circle", "blue square"}
    assert made["prompt"] == "The photo of the"
    write_lines(tmp_path / "memory-color.jsonl", [{"object": "the sky", "color": "blue"}] * 3)
    made = evaluate(capsys, "memory-color", tmp_path)
    assert made["metrics"]["accuracy"]["value"] in (0, 1) and made["n"] == 3


def test_matrices_with_many_images(nano: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{number}.png" for number in range(6)]
    for number, name in enumerate(names):
        draw_picture(tmp_path / name, number)
    record = {"id": 1, "images": names[:3], "candidates": names, "answer": 0}
    write_json(tmp_path / "items.json", [record])
    items = tmp_path / "items.jsonl"
    evaluate(capsys, "iq50", tmp_path, "--items", items)
    (line,) = lines_of(items)
    given = ["Here are three images:", *(tmp_path / name for name in names[:3]), " The following image is:"]
    for number in (0, 5):
        ranking = nano.score_segments([*given, tmp_path / names[number], " Is it correct? "], ["Yes", "No"])
        wanted = {row.text: row.logprob_sum for row in ranking.ranking}
        assert line["prediction"]["yes"][number] == pytest.approx(wanted["Yes"], abs=1e-5)
        assert line["prediction"]["no"][number] == pytest.approx(wanted["No"], abs=1e-5)


def test_options_that_a_task_does_not_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(tmp_path / "memory-color.jsonl", [{"object": "the sky", "color": "blue"}])
    for words, message in (
        (["memory-color", "--split", "x"], "--split: memory-color has none, got 'x'"),
        (["refcoco", "--split", "test"], "--split: refcoco has one of val, testA, testB, got 'test'"),
        (["memory-color", "--shots", "2"], "--shots: memory-color takes 0..0, got 2"),
        (["vqav2", "--shots", "9"], "--shots: vqav2 takes 0..8, got 9"),
        (["vqav2", "--exact"], "--exact: vqav2 has one way only"),
        (["memory-color", "--out", "x"], "--out: the data of memory-color have no evaluation of their own"),
        (["ocr", "--split", "x", "--exact"], "ocr has no --split, --exact"),
    ):
        assert cli.run(["eval", *words, "--data", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err


def test_every_task_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["eval", "list"]) == 0
    text = capsys.readouterr().out
    assert "\nrefcoco+\tReferring expressions of RefCOCO+ as boxes: accuracy.\n" in text
    assert "\tsplits: val, testA, testB\n" in text and "\tshots: 0..8\n" in text
    assert "\nowleval\t" in text and "\tpublished: KOSMOS-2 paper" in text
