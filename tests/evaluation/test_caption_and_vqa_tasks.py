"""Captions and questions in their published files: prompts word for word, figures by hand, examples, planted errors."""

from pathlib import Path
from typing import Any

import pytest
from helpers.eval_scripted import Scripted, draw_picture, evaluate, values, write_json

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.metrics import cider_d, java, meteor, ptb
from kosmos_edge.evaluation.registry import find_task
from kosmos_edge.evaluation.task import Variant
from kosmos_edge.evaluation.tasks import records
from kosmos_edge.evaluation.tasks.captions import example_text

CAPTIONS = {
    1: ["A man riding a wave on top of a surfboard.", "A surfer rides a large wave."],
    2: ["Two dogs are playing in the grass.", "A couple of dogs run on a lawn!", "Two brown dogs, running."],
    3: ["The woman's red hat isn't on the table; it's on a chair.", "A red hat (old) lies on a chair."],
    4: ["a plate of food with 3.5 oz. of meat - and rice", "food on a white plate"],
}
SAID = {
    1: " a man surfing on a large wave\nand more",
    2: "two dogs running in the grass",
    3: "A red hat on a chair.",
    4: "a plate of food with meat & rice",
}


@pytest.fixture(autouse=True)
def without_java(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Java takes seconds to start."""
    if "meteor" not in request.node.name:
        monkeypatch.setattr(java, "why_not", lambda metric: "not in this test")


def caption_data(folder: Path, name: str) -> Path:
    """Four test pictures, two to train with, one of another split, in the Karpathy form."""
    images = []
    for number in range(1, 8):
        split = "test" if number < 5 else ("train", "restval", "val")[number - 5]
        captions = CAPTIONS.get(number, [f"A thing number {number}.", f"TV {number}"])
        place = "flickr30k-images" if name == "flickr30k" else "train2014" if split == "train" else "val2014"
        file = f"{number}.png"
        draw_picture(folder / place / file, number)
        record: dict[str, Any] = {"filename": file, "split": split, "imgid": number}
        record["sentences"] = [{"raw": text, "tokens": [], "sentid": 0} for text in captions]
        if name == "coco":
            record |= {"filepath": place, "cocoid": number}
        images.append(record)
    write_json(folder / f"dataset_{name}.json", {"images": images, "dataset": name})
    return folder


def caption(prompt: str, images: list[str]) -> str:
    return SAID[int(Path(images[-1]).stem)]


@pytest.mark.parametrize(("task", "name"), [("coco-caption", "coco"), ("flickr30k-caption", "flickr30k")])
def test_captions(task: str, name: str, tmp_path: Path) -> None:
    model = Scripted(caption)
    made, items, done = evaluate(task, caption_data(tmp_path, name), model)
    assert model.prompts == ["<image>An image of"] * 4 and [item.id for item in items] == ["1", "2", "3", "4"]
    assert model.options == [{"num_beams": 5, "max_tokens": 64}] * 4
    found = values(made)
    assert found["cider"] == pytest.approx(2.181034156478017)
    assert found["bleu4"] == pytest.approx(0.3999177956864991) and found["bleu1"] == pytest.approx(0.8922596705832458)
    assert found["rouge_l"] == pytest.approx(0.7100455536527646)
    assert done.prompt == "An image of"
    written = find_task(task).results(items, done.predictions)
    first = {"image_id": 1, "caption": "a man surfing on a large wave"}
    assert written is not None and written[0] == first and len(written) == 4


def test_captions_need_the_references_cut_into_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: words cut at blanks only."""
    monkeypatch.setattr(ptb, "words", lambda text: text.split())
    made, _, _ = evaluate("coco-caption", caption_data(tmp_path, "coco"), Scripted(caption))
    assert values(made)["cider"] != pytest.approx(2.181034156478017, abs=1e-3)


def test_captions_in_cocos_own_form(tmp_path: Path) -> None:
    annotations = [{"image_id": i, "id": 9, "caption": text} for i, texts in CAPTIONS.items() for text in texts]
    images = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in CAPTIONS]
    write_json(tmp_path / "annotations" / "captions_val2014.json", {"images": images, "annotations": annotations})
    for number in CAPTIONS:
        draw_picture(tmp_path / "val2014" / f"{number}.png", number)
    made, _, _ = evaluate("coco-caption", tmp_path, Scripted(caption))
    assert values(made)["cider"] == pytest.approx(2.181034156478017)


def test_captions_behind_examples(tmp_path: Path) -> None:
    folder = caption_data(tmp_path, "coco")
    model = Scripted(caption)
    evaluate("coco-caption", folder, model, shots=2)
    shots = {f"<image>An image of {text}" for text in ("a thing number 5.", "TV 5", "a thing number 6.", "TV 6")}
    for prompt in model.prompts:
        assert prompt.endswith("<image>An image of")
        before = prompt.removesuffix("<image>An image of")
        one, two = (f"<image>{part}" for part in before.split("<image>")[1:])
        assert {one, two} <= shots and one[-2:] != two[-2:]
    again, other = Scripted(caption), Scripted(caption)
    evaluate("coco-caption", folder, again, shots=2)
    evaluate("coco-caption", folder, other, shots=2, seed=1)
    assert again.prompts == model.prompts != other.prompts
    with pytest.raises(InvalidRequest, match="--shots 3: the training split has only 2 examples for item 1"):
        evaluate("coco-caption", folder, model, shots=3)
    assert (example_text("A dog."), example_text("TV on"), example_text("a b")) == (
        "An image of a dog.", "An image of TV on", "An image of a b",
    )  # fmt: skip


def test_a_missing_picture_is_an_empty_caption(tmp_path: Path) -> None:
    folder = caption_data(tmp_path, "coco")
    (folder / "val2014" / "2.png").unlink()
    made, _, done = evaluate("coco-caption", folder, Scripted(caption))
    assert [name for name, _ in done.failed] == ["2"] and done.predictions[1] == {}
    said = [ptb.words(SAID[n].partition("\n")[0] if n != 2 else "") for n in CAPTIONS]
    expected = cider_d.scores(said, [[ptb.words(text) for text in group] for group in CAPTIONS.values()])
    assert expected[1] == 0 and values(made)["cider"] == pytest.approx(sum(expected) / 4)


def test_java_metrics_have_a_value_or_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "why_not", lambda metric: "" if metric == "meteor" else "it needs X")
    monkeypatch.setattr(java, "parts_of", lambda metric, said, references: METEOR_COUNTS)
    made, _, _ = evaluate("coco-caption", caption_data(tmp_path, "coco"), Scripted(caption))
    found = made["metrics"]["meteor"]  # of all captions together: the mean of the four is 0.365
    assert found["value"] == pytest.approx(0.355958891568374, abs=1e-12) and found["items"] == 4
    assert made["metrics"]["spice"]["value"] is None and made["metrics"]["spice"]["reason"] == "it needs X"


def test_a_program_that_fails_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> list[float]:
        raise ValueError("got 0 of 1 captions: no memory")

    monkeypatch.setattr(java, "why_not", lambda metric: "")
    monkeypatch.setattr(java, "parts_of", fail)
    assert java.add([{}], ["a"], [["a"]], ["meteor"]) == {"meteor": "METEOR failed: got 0 of 1 captions: no memory"}


# what METEOR 1.5 counts for SAID, and what it makes of these counts
METEOR_COUNTS = [
    tuple(map(float, line.split()))
    for line in (
        "7 6 3 2 2 2 2 2 0 0 0 0 1 1 0 0 0 0 0 0 3 5 5",
        "6 7 3 4 2 2 3 3 0 0 0 0 1 1 0 0 0 0 0 0 2 6 6",
        "6 10 3 5 3 3 3 3 0 0 0 0 0 0 0 0 0 0 0 0 2 6 6",
        "8 11 3 5 4 4 3 3 0 0 0 0 0 0 0 0 0 0 0 0 3 7 7",
    )
]
METEOR_SCORES = [0.3368216242380219, 0.4598636356077838, 0.33086493379395415, 0.332715149725978]


def test_meteor_of_its_programs_counts() -> None:
    assert [meteor.score([part]) for part in METEOR_COUNTS] == pytest.approx(METEOR_SCORES, abs=1e-12)
    assert meteor.score(METEOR_COUNTS) == pytest.approx(0.355958891568374, abs=1e-12)
    same = (2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, *[0.0] * 12, 1.0, 2.0, 2.0)
    nothing = (0.0, 1.0, *[0.0] * 21)
    assert meteor.score([same]) == 1 and meteor.score([nothing]) == 0 and meteor.score([]) is None


def test_meteor_is_that_of_the_reference_program() -> None:
    if why := java.why_not("meteor"):
        pytest.skip(why)
    said = [SAID[n].partition("\n")[0] for n in CAPTIONS]
    assert java.parts_of("meteor", said, list(CAPTIONS.values())) == METEOR_COUNTS


# ---- questions


def vqa_data(folder: Path) -> Path:
    people = {10: ["red"] * 3 + ["blue"] * 7, 11: ["2"] * 10, 12: ["a dog"] * 4 + ["cat"] * 6, 13: ["yes"] * 10}
    asked = {10: "What color?", 11: "How many?", 12: "What is {it}?", 13: "Is it?"}
    for split, numbers in (("val2014", (10, 11, 12)), ("train2014", (13,))):
        questions = [{"image_id": n, "question": asked[n], "question_id": n * 1000} for n in numbers]
        annotations: list[dict[str, Any]] = [
            {
                "question_id": n * 1000, "image_id": n, "question_type": "how many" if n == 11 else "what",
                "answer_type": "yes/no" if n > 12 else "other",
                "multiple_choice_answer": people[n][-1],
                "answers": [{"answer": text, "answer_id": i} for i, text in enumerate(people[n], 1)],
            }
            for n in numbers
        ]  # fmt: skip
        write_json(folder / f"v2_OpenEnded_mscoco_{split}_questions.json", {"questions": questions})
        write_json(folder / f"v2_mscoco_{split}_annotations.json", {"annotations": annotations})
        for n in numbers:
            draw_picture(folder / split / f"COCO_{split}_{n:012d}.jpg", n)
    return folder


def reply(prompt: str, images: list[str]) -> str:
    question = prompt.rpartition("Question: ")[2]
    return {"What color? Answer:": "Red.\nmore", "How many? Answer:": " two", "What is {it}? Answer:": "The dog."}[
        question
    ]


def test_vqav2(tmp_path: Path) -> None:
    model = Scripted(reply)
    made, items, done = evaluate("vqav2", vqa_data(tmp_path), model)
    assert model.prompts == [
        "<image>Question: What color? Answer:", "<image>Question: How many? Answer:",
        "<image>Question: What is {it}? Answer:",
    ]  # fmt: skip
    # 3 of 10 say red; all say "2", so that "two" is not normalised; 4 of 10 say "a dog"
    assert [scores["vqa_accuracy"][0] for scores in done.scores] == pytest.approx([0.9, 0, 1])
    assert values(made)["vqa_accuracy"] == pytest.approx(1.9 / 3)
    groups = {name: (one["n"], one["metrics"]["vqa_accuracy"]["value"]) for name, one in made["groups"].items()}
    assert groups == {"other": (3, pytest.approx(1.9 / 3)), "what": (2, pytest.approx(0.95)), "how many": (1, 0)}
    assert find_task("vqav2").results(items, done.predictions) == [
        {"question_id": 10000, "answer": "Red"}, {"question_id": 11000, "answer": "two"},
        {"question_id": 12000, "answer": "The dog"},
    ]  # fmt: skip


def test_vqa_without_its_normalisation_is_another_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kosmos_edge.evaluation.metrics.vqa.normalize", lambda text: text)
    made, _, _ = evaluate("vqav2", vqa_data(tmp_path), Scripted(reply))
    assert values(made)["vqa_accuracy"] == 0


def test_vqa_behind_examples(tmp_path: Path) -> None:
    model = Scripted(reply)
    evaluate("vqav2", vqa_data(tmp_path), model, shots=1)
    assert model.prompts[0] == "<image>Question: Is it? Answer: yes<image>Question: What color? Answer:"
    assert [path.name for path in model.encoded] == ["COCO_train2014_000000000013.jpg"]  # shown thrice, encoded once


def test_a_split_that_a_server_scores(tmp_path: Path) -> None:
    questions = [{"image_id": 7, "question": "What color?", "question_id": 70}]
    write_json(tmp_path / "v2_OpenEnded_mscoco_test-dev2015_questions.json", {"questions": questions})
    draw_picture(tmp_path / "test2015" / "COCO_test2015_000000000007.jpg")
    made, items, done = evaluate("vqav2", tmp_path, Scripted(reply), split="test-dev2015")
    assert made["metrics"]["vqa_accuracy"]["value"] is None and made["settings"]["split"] == "test-dev2015"
    assert find_task("vqav2").results(items, done.predictions) == [{"question_id": 70, "answer": "Red"}]


def test_vizwiz(tmp_path: Path) -> None:
    def people(*texts: str) -> list[dict[str, str]]:
        return [{"answer": text, "answer_confidence": "yes"} for text in texts]

    for split, name, answers in (
        ("val", "v.jpg", people(*["red"] * 2, *["unanswerable"] * 8)),
        ("train", "t.jpg", people("b", "a", "a", "b", "c", "d", "e", "f", "g", "h")),
    ):
        record = {"image": name, "question": "What color?", "answers": answers, "answer_type": "other", "answerable": 1}
        write_json(tmp_path / "Annotations" / f"{split}.json", [record])
        draw_picture(tmp_path / split / name)
    model = Scripted(reply)
    made, items, done = evaluate("vizwiz", tmp_path, model, shots=1)
    assert model.prompts == ["<image>Question: What color? Answer: b<image>Question: What color? Answer:"]
    assert values(made)["vqa_accuracy"] == pytest.approx(0.6)
    assert find_task("vizwiz").results(items, done.predictions) == [{"image": "v.jpg", "answer": "Red"}]


# ---- files that are not as expected


def test_wrong_files_are_named(tmp_path: Path) -> None:
    task = find_task("vqav2")
    with pytest.raises(InvalidRequest, match=r"has none of v2_OpenEnded_mscoco_val2014_questions\.json, OpenEnded"):
        task.load(tmp_path, Variant())
    write_json(tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": [{"question_id": 1}]})
    annotation = {"question_id": 1, "answers": [{"answer": "a"}], "answer_type": "other", "question_type": "what"}
    write_json(tmp_path / "v2_mscoco_val2014_annotations.json", {"annotations": [annotation]})
    with pytest.raises(InvalidRequest, match=r"questions\.json: record 1 is not as expected: there is no 'question'"):
        task.load(tmp_path, Variant())
    asked = {"questions": [{"question_id": 1, "question": "What?", "image_id": 1}]}
    write_json(tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json", asked)
    annotations = {"annotations": [annotation | {"question_id": 2}]}
    write_json(tmp_path / "v2_mscoco_val2014_annotations.json", annotations)
    with pytest.raises(InvalidRequest, match="question 1 has no annotation"):
        task.load(tmp_path, Variant())
    (tmp_path / "v2_mscoco_val2014_annotations.json").write_text("{")
    with pytest.raises(InvalidRequest, match=r"annotations\.json: not JSON"):
        task.load(tmp_path, Variant())
    path = tmp_path / "lines.jsonl"
    for text, message in (("{\n", "line 1: not JSON"), ("{}\n[]\n", "line 2: expected an object")):
        path.write_text(text)
        with pytest.raises(InvalidRequest, match=message):
            records.read_lines(path)
