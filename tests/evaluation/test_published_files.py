"""Data sets' files as they really come: other line breaks, byte order marks, missing and doubled records, values that
are none. What cannot be used is refused with the file and the record, before a model is asked."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.eval_scripted import Scripted, draw_picture, evaluate, values, write_json, write_lines

from kosmos_edge import cli
from kosmos_edge.errors import ContextTooLong, InvalidRequest
from kosmos_edge.evaluation.log import Log
from kosmos_edge.evaluation.metrics import java
from kosmos_edge.evaluation.registry import find_task
from kosmos_edge.evaluation.run import Settings, choose, run
from kosmos_edge.evaluation.task import Item, Variant
from kosmos_edge.results import Result

Make = Callable[[Path], Any]
VQA = "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"
QUESTION = {"question_id": 1, "image_id": 42, "question": "What is it?"}
ANSWERS = {"question_id": 1, "answer_type": "other", "question_type": "what", "multiple_choice_answer": "dog"}
ANSWERS["answers"] = [{"answer": word} for word in ["dog"] * 6 + ["cat"] * 4]  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "why_not", lambda metric: "not in this test")


def karpathy(**changes: Any) -> Make:
    image = {"filename": "1.png", "filepath": "val2014", "split": "test", "cocoid": 1, "sentences": [{"raw": "A dog."}]}
    return lambda folder: write_json(folder / "dataset_coco.json", {"images": [image, image | {"cocoid": 2} | changes]})


def vqa(question: dict[str, Any], annotations: list[Any]) -> Make:
    def make(folder: Path) -> None:
        write_json(folder / VQA[0], {"questions": [question]})
        write_json(folder / VQA[1], {"annotations": annotations})

    return make


def lines(name: str, **record: Any) -> Make:
    return lambda folder: write_lines(folder / name, [record])


def seed_bench(**changes: Any) -> Make:
    asked = {"question": "?", "answer": "A", "data_id": "0.png", "data_type": "image", "question_id": 1}
    asked |= {f"choice_{letter}": letter for letter in "abcd"} | {"question_type_id": 1} | changes
    return lambda folder: write_json(folder / "SEED-Bench.json", {"question_type": {"S": 1}, "questions": [asked]})


def web(rows: str, split: str = "domain,number,split\nauto,1,dev\n") -> Make:
    def make(folder: Path) -> None:
        place = folder / "auto" / "01"
        draw_picture(place / "processed_data" / "0100001.png")
        (place / "processed_data" / "0100001.html").write_text("<p>Price: 5")
        text = f"question,id,element_id,answer_start,answer\r\n{rows}"
        (place / "dataset.csv").write_bytes(text.encode("utf-8-sig"))
        (folder / "dataset_split.csv").write_text(split)

    return make


def refs(box: list[Any], sentences: list[Any]) -> Make:
    def make(folder: Path) -> None:
        record = {"ref_id": 3, "ann_id": 5, "image_id": 42, "split": "val", "sentences": sentences}
        (folder / "refs(umd).p").write_bytes(pickle.dumps([record], protocol=0))
        images = [{"id": 42, "width": 64, "height": 48}]
        write_json(folder / "instances.json", {"images": images, "annotations": [{"id": 5, "bbox": box}]})

    return make


def birds(**changes: Any) -> Make:
    group = {"category": "bird", "names": ["red owl", "tit"], "descriptions": ["red.", "small."]}
    group |= {"images": {"red owl": ["0.png"], "tit": ["1.png"]}} | changes
    return lambda folder: write_json(folder / "groups.json", [group])


def matrix(folder: Path) -> None:
    record = {"id": 1, "images": list("abc"), "candidates": list("abcdef"), "answer": True}
    write_json(folder / "items.json", [record])


def latin_names(folder: Path) -> None:
    draw_picture(folder / "val" / "n1" / "a.png")
    (folder / "classnames.txt").write_bytes(b"caf\xe9\n")


def twice(folder: Path) -> None:
    draw_picture(folder / "cases" / "1.png")
    record = {"image": "1.jpg", "question_id": 7, "question": "?", "category": "single_turn"}
    write_lines(folder / "questions.jsonl", [record] * 2)


SCHEMA = {"text": "A cat bit Bo as it fell.", "pronoun": "it", "pronoun_loc": 16, "options": ["A cat", "Bo"]}
STORY = "InputSentence1,InputSentence2,InputSentence3,InputSentence4,RandomFifthSentenceQuiz1,RandomFifthSentenceQuiz2"
MEME = {"id": 1, "img": "1.png"}
SWAG = {"activity_label": "Roof", "ctx_a": "A man.", "ctx_b": "he", "endings": ["sits.", "eats."]}
NAN = float("nan")
REFUSED: list[tuple[str, Make, str]] = [
    (
        "coco-caption",
        karpathy(sentences=[]),
        r"dataset_coco\.json: record 2 is .*: sentences: expected a list of texts",
    ),
    ("coco-caption", karpathy(sentences=[{"raw": None}]), r"record 2 .*: sentences\[0\]: expected some text, got None"),
    ("vqav2", vqa(QUESTION, []), r"questions\.json: record 1 .*: question 1 has no annotation"),
    ("vqav2", vqa(QUESTION, [ANSWERS | {"answers": []}]), r"annotations\.json: record 1 .*: question 1 has no answers"),
    ("vqav2", vqa(QUESTION | {"question": None}, [ANSWERS]), "question: expected some text, got None"),
    ("hatefulmemes", lines("dev.jsonl", **MEME, label=-1), r"dev\.jsonl: record 1 .*: label: expected 0\.\.1, got -1"),
    ("seed-bench", seed_bench(answer="a"), "answer: expected A, B, C or D, got 'a'"),
    ("seed-bench", seed_bench(choice_c=" "), r"record 1 .*: choices\[2\]: expected some text, got ''"),
    ("hellaswag", lines("hellaswag_val.jsonl", **SWAG, label=2), r"label: expected 0\.\.1, got 2"),
    (
        "hellaswag",
        lines("hellaswag_val.jsonl", **SWAG | {"endings": ["[x]", "a"]}, label=0),
        r"ending\[0\]: expected some",
    ),
    (
        "winograd",
        lines("wsc273.jsonl", **SCHEMA | {"pronoun_loc": 3}, label=0),
        "pronoun_loc: expected where 'it' is, got 3",
    ),
    ("winograd", lines("wsc273.jsonl", **SCHEMA, label=2), r"label: expected 0\.\.1, got 2"),
    (
        "winogrande",
        lines("dev.jsonl", sentence="No gap.", option1="a", option2="b", answer="1"),
        "expected _ for the option",
    ),
    (
        "winogrande",
        lines("dev.jsonl", sentence="The _ is.", option1="a", option2="b", answer="0"),
        r"answer: expected 1\.\.2",
    ),
    ("boolq", lines("val.jsonl", passage="P.", question="q", label=5), r"label: expected 0\.\.1, got 5"),
    (
        "copa",
        lines("val.jsonl", premise="A.", question="cause", choice1="", choice2="B.", label=0),
        r"ending\[0\]: expected",
    ),
    (
        "storycloze",
        lambda f: (f / "storycloze_test.csv").write_text(f"{STORY}\na,b,c,d,e,f\n"),
        "no column AnswerRightEnding",
    ),
    (
        "storycloze",
        lambda f: (f / "storycloze_test.csv").write_text(f"{STORY},AnswerRightEnding\na,b,c,d,e,f,1\na,b\n"),
        r"storycloze_test\.csv: record 2 .*: it has no InputSentence3: the row is too short",
    ),
    ("websrc", web("Who?,au010000100001\r\n"), r"dataset\.csv: record 1 .*: it has no answer"),
    (
        "websrc",
        web("Who?,au010000100001,1,0,x\r\n", "domain,number,split\nauto,01,train\n"),
        "no row has the split dev",
    ),
    ("websrc", web("Who?,au010000100001,1,0,x\r\n", "domain,number,split\nauto,02,dev\n"), "of the dev split"),
    (
        "websrc",
        web("Who?,au010000100001,1,0,x\r\n", "website,split\nauto,dev\n"),
        "no column domain, expected domain, num",
    ),
    ("refcocog", refs([NAN, 1, 2, 3], [{"sent": "dog"}]), r"instances\.json: record 1 .*: bbox: expected numbers"),
    (
        "refcocog",
        refs([1, 1, 2, 3], [{"sent": "dog"}, {"sent": " "}]),
        r"expressions\[1\]: expected some text, got ' '",
    ),
    ("refcocog-reg", refs([1, 1, 2, 3], []), r"expressions: expected a list of texts, got \[\]"),
    ("refcocog-reg", refs([99, 1, 2, 3], [{"sent": "dog"}]), "of object 3 has no part in its image"),
    ("iq50", matrix, r"answer: expected 0\.\.5, got True"),
    ("bird-names", birds(names=["...", "tit"], images={"...": [], "tit": []}), "expected two different names"),
    ("bird-names", birds(images={"red owl": [], "tits": []}), "images: expected those of red owl and tit"),
    ("imagenet", latin_names, "UTF-8"),
    ("piqa", lines("valid.jsonl", goal="g", sol1="a", sol2="b"), r"has none of valid-labels\.lst"),
    (
        "pope",
        lines("coco_pope_random.json", question_id=1, image="a.jpg", text=None, label="no"),
        "text: expected some text",
    ),
    ("memory-color", lines("memory-color.jsonl", object=" ", color="blue"), "object: expected some text"),
    ("owleval", twice, "record 2 .*: question 7 is there twice"),
]


@pytest.mark.parametrize(("task", "make", "message"), REFUSED, ids=[f"{c[0]}-{n}" for n, c in enumerate(REFUSED)])
def test_a_record_that_cannot_be_used_is_named(task: str, make: Make, message: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(InvalidRequest, match=message):
        find_task(task).load(tmp_path, Variant())  # type: ignore[call-arg]


def test_an_id_that_two_items_have_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(tmp_path / "dev.jsonl", [MEME | {"label": 0}, MEME | {"label": 1}])
    assert cli.run(["eval", "hatefulmemes", "--data", str(tmp_path), "-m", "nano"]) == 2
    assert "two items have the id 1" in capsys.readouterr().err
    assert len(choose([Item("1", "a", 0), Item("2", "a", 0)], None, 0)) == 2


def test_other_line_breaks_inside_texts_are_part_of_them(tmp_path: Path) -> None:
    """U+2028 and U+0085 in JSON's strings; line feeds in quoted fields of CSV."""
    record = {**SWAG, "ctx_a": "A\u2028man\x85.", "label": "1"}
    text = json.dumps(record, ensure_ascii=False)
    (tmp_path / "hellaswag_val.jsonl").write_bytes(f"\ufeff{text}\r\n\r\n{text}\r\n".encode())
    model = Scripted()
    evaluate("hellaswag", tmp_path, model)
    assert model.prompts == ["Roof: A\u2028man\x85. He "] * 2
    web('"What ""is""\r\nit, really?",au010000100001,3,0,"a, ""b"""\r\n')(tmp_path)
    model = Scripted(lambda prompt, images: 'A, "b".')
    made, items, _ = evaluate("websrc", tmp_path, model)
    assert model.prompts[0].endswith(' Context: Price: 5 Q: What "is"\nit, really? A:') and items[0].truth == 'a, "b"'
    assert values(made) == {"em": 1, "f1": 1}


def test_names_of_classes_may_begin_with_a_mark(tmp_path: Path) -> None:
    for wnid in ("n1", "n2"):
        draw_picture(tmp_path / "val" / wnid / "a.JPEG")
    (tmp_path / "classnames.txt").write_bytes("\ufefftench\r\ngoldfish\r\n".encode())
    model = Scripted(lambda prompt, images: "tench")
    made, _, _ = evaluate("imagenet", tmp_path, model)
    assert model.options[0]["choices"] == ["tench", "goldfish"] and values(made) == {"accuracy": 0.5}


def test_answers_of_ok_vqa_have_no_chosen_one(tmp_path: Path) -> None:
    """The most frequent answer is that of an example."""
    for split, image in (("val", 42), ("train", 43)):
        questions = {"questions": [QUESTION | {"image_id": image}]}
        write_json(tmp_path / f"OpenEnded_mscoco_{split}2014_questions.json", questions)
        plain = {name: value for name, value in ANSWERS.items() if name != "multiple_choice_answer"}
        write_json(tmp_path / f"mscoco_{split}2014_annotations.json", {"annotations": [plain]})
        draw_picture(tmp_path / f"{split}2014" / f"COCO_{split}2014_{image:012d}.jpg")
    model = Scripted(lambda prompt, images: "dog")
    made, _, _ = evaluate("vqav2", tmp_path, model, shots=1)
    assert model.prompts == ["<image>Question: What is it? Answer: dog<image>Question: What is it? Answer:"]
    assert values(made) == {"vqa_accuracy": 1}


def test_examples_for_cocos_own_files_are_of_its_training_file(tmp_path: Path) -> None:
    for split, ids in (("val", (5,)), ("train", (6, 7))):
        images = [{"id": i, "file_name": f"COCO_{split}2014_{i:012d}.jpg"} for i in ids]
        annotations = [{"image_id": i, "caption": f"A cat {i}."} for i in ids]
        path = tmp_path / "annotations" / f"captions_{split}2014.json"
        write_json(path, {"images": images, "annotations": annotations})
        for image in images:
            draw_picture(tmp_path / f"{split}2014" / str(image["file_name"]))
    model = Scripted(lambda prompt, images: "a cat 5.")
    made, _, _ = evaluate("coco-caption", tmp_path, model, shots=2)
    (prompt,) = model.prompts
    assert sorted(prompt.split("<image>")) == ["", "An image of", "An image of a cat 6.", "An image of a cat 7."]
    assert made["n"] == 1 and values(made)["bleu1"] == pytest.approx(1)


def test_rendered_words_in_the_folder_of_their_archive(tmp_path: Path) -> None:
    for truth in ("positive", "negative"):
        draw_picture(tmp_path / "rendered-sst2" / "test" / truth / "0.png")
    assert len(find_task("rendered-sst2").load(tmp_path, Variant())) == 2  # type: ignore[call-arg]


# ---- what the engine refuses, and logs of other data


class Refusing(Scripted):
    """A model that refuses one question's prompt, as the engine does: at its turn."""

    def batch_calls(self, calls: Any, *, batch_size: int = 1) -> Any:
        for call in calls:
            if "bad" in call[1]["segments"][-1]:
                raise InvalidRequest("segments[1]: expected something else")
            yield from super().batch_calls([call])


def test_what_the_engine_refuses_is_said_with_its_item(tmp_path: Path) -> None:
    names = ["good", "bad", "good"]
    answers = [ANSWERS | {"question_id": i} for i in range(3)]
    asked = [QUESTION | {"question_id": i, "question": name} for i, name in enumerate(names)]
    write_json(tmp_path / VQA[0], {"questions": asked})
    write_json(tmp_path / VQA[1], {"annotations": answers})
    draw_picture(tmp_path / "val2014" / "COCO_val2014_000000000042.jpg")
    with pytest.raises(InvalidRequest, match=r"^item 1: segments\[1\]: expected something else"):
        evaluate("vqav2", tmp_path, Refusing())
    write_lines(tmp_path / "memory-color.jsonl", [{"object": "the sky", "color": "blue"}])

    def rated(prompt: str, text: str, images: list[str]) -> float:
        raise InvalidRequest("texts[0]: expected something else")

    with pytest.raises(InvalidRequest, match=r"^item 1: texts\[0\]: expected something else"):
        evaluate("memory-color", tmp_path, Scripted(rated=rated))


def test_a_log_of_other_data_is_not_gone_on_with(tmp_path: Path) -> None:
    """The same ids, another question."""
    path = tmp_path / "items.jsonl"
    web("Who?,au010000100001,3,0,x\r\n")(tmp_path)

    class Short(Scripted):
        """Has no room for the page's text but for its last word but one."""

        def batch_calls(self, calls: Any, *, batch_size: int = 1) -> Any:
            for call in calls:
                if "Price: 5" in call[1]["segments"][-1]:
                    yield Result("", error=ContextTooLong("too long"), finish_reason="error")
                else:
                    yield from super().batch_calls([call])

    def go(task: str, resume: bool) -> int:
        found = find_task(task)
        items = found.load(tmp_path, Variant())  # type: ignore[call-arg]
        with Log(path, resume) as log:
            return run(found, items, Short(), "f16", log, Settings(str(tmp_path)), lambda *_: None).computed

    write_lines(tmp_path / "memory-color.jsonl", [{"object": "the sky", "color": "blue"}])
    assert go("memory-color", False) == 1 and go("memory-color", True) == 0
    write_lines(tmp_path / "memory-color.jsonl", [{"object": "the sky", "color": "black"}])  # a corrected truth
    assert go("memory-color", True) == 0
    write_lines(tmp_path / "memory-color.jsonl", [{"object": "the sea", "color": "blue"}])
    with pytest.raises(InvalidRequest, match="cannot be resumed: item 1 was asked 'The color of the sky is\\?"):
        go("memory-color", True)
    path.unlink()
    assert go("websrc", False) == 1 and go("websrc", True) == 0  # a prompt that was cut is the same question
    path.write_text(path.read_text().replace('"prediction"', '"said"'))
    with pytest.raises(InvalidRequest, match="line 2: not a line of such a log"):
        go("websrc", True)
