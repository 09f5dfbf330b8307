"""Grounding and referring expressions in their published files: prompts, figures by hand, planted errors."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from helpers.eval_scripted import Scripted, draw_picture, evaluate, values, write_json

from kosmos_edge import cli
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.metrics import boxes, cider_d, java, ptb
from kosmos_edge.evaluation.tasks.flickr_entities import read_phrases
from kosmos_edge.evaluation.tasks.refs import read_pickle, read_references


@pytest.fixture(autouse=True)
def without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "why_not", lambda metric: "not in this test")


# ---- Flickr30k Entities

SENTENCES = """[/EN#1/people Two men] in [/EN#2/clothing/other red hats] see [/EN#0/notvisual it] at [/EN#3/scene sea] .
[/EN#4/animals A dog {x}] and [/EN#4/animals a dog {x}] .
"""
# pixels are counted from 1 there
XML = """<annotation><filename>7.jpg</filename><size><width>100</width><height>80</height></size>
<object><name>1</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>11</xmax><ymax>11</ymax></bndbox></object>
<object><name>1</name><bndbox><xmin>91</xmin><ymin>1</ymin><xmax>101</xmax><ymax>11</ymax></bndbox></object>
<object><name>2</name><name>4</name>
<bndbox><xmin>21</xmin><ymin>21</ymin><xmax>41</xmax><ymax>41</ymax></bndbox></object>
<object><name>3</name><scene>1</scene><nobndbox>0</nobndbox></object></annotation>
"""
MEN, FAR, HATS = (0.0, 0.0, 10.0, 10.0), (90.0, 0.0, 100.0, 10.0), (20.0, 20.0, 40.0, 40.0)
OFF = (1000.0, 1000.0, 1001.0, 1001.0)


def entities(folder: Path) -> Path:
    for place, text in (("Sentences/7.txt", SENTENCES), ("Annotations/7.xml", XML), ("test.txt", "7\n")):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text)
    draw_picture(folder / "flickr30k-images" / "7.jpg", size=(100, 80))
    return folder


def mdetr_entities(folder: Path) -> Path:
    captions = ["Two men in red hats see it at sea .", "A dog {x} and a dog {x} ."]
    spans = [[(0, 7), (11, 19)], [(0, 9), (14, 23)]]
    images, annotations = [], []
    for number, caption in enumerate(captions):
        images.append(
            {
                "id": number, "caption": caption, "original_img_id": 7, "sentence_id": number,
                "width": 100, "height": 80, "tokens_positive_eval": [[list(span)] for span in spans[number]],
            }
        )  # fmt: skip
    for image, span, box in ((0, 0, MEN), (0, 0, FAR), (0, 1, HATS), (1, 0, HATS), (1, 1, HATS)):
        x1, y1, x2, y2 = box
        where = [list(spans[image][span])]
        annotations.append({"image_id": image, "bbox": [x1, y1, x2 - x1, y2 - y1], "tokens_positive": where})
    write_json(folder / "final_flickr_separateGT_test.json", {"images": images, "annotations": annotations})
    draw_picture(folder / "flickr30k-images" / "7.jpg", size=(100, 80))
    return folder


def find(prompt: str, images: list[str]) -> list[Any]:
    phrase = prompt.rpartition("<phrase> ")[2].removesuffix("</phrase>")
    return {"Two men": [OFF, FAR], "red hats": [HATS], "A dog {x}": [], "a dog {x}": [OFF] * 5 + [HATS]}[phrase]


def test_phrases_of_flickr30k_entities(tmp_path: Path) -> None:
    model = Scripted(find)
    made, items, _ = evaluate("flickr30k-entities", entities(tmp_path), model)
    assert model.prompts == [
        "<image><grounding><phrase> Two men</phrase>",
        "<image><grounding>Two men in<phrase> red hats</phrase>",
        "<image><grounding><phrase> A dog {x}</phrase>",
        "<image><grounding>A dog {x} and<phrase> a dog {x}</phrase>",
    ]
    assert [item.id for item in items] == ["7#0#0", "7#0#1", "7#1#0", "7#1#1"]
    found = values(made)
    assert (found["r1"], found["r5"], found["r10"], found["r_all"]) == (0.25, 0.5, 0.75, 0.75)
    assert (found["r1_merged"], found["r5_merged"], found["r10_merged"]) == (0.25, 0.25, 0.5)
    assert (found["r1_people"], found["r1_clothing"], found["r1_other"], found["r1_animals"]) == (0, 1, 1, 0)
    assert found["r1_scene"] is None and made["published"]["rows"]["KOSMOS-2, test"]["r1"] == 0.787


def test_both_forms_of_flickr30k_entities_have_the_same_phrases(tmp_path: Path) -> None:
    ours = read_phrases(entities(tmp_path / "a"), "test")
    theirs = read_phrases(mdetr_entities(tmp_path / "b"), "test")
    assert [(p.sentence, p.text, p.before, p.boxes) for p in ours] == [
        (p.sentence, p.text, p.before, p.boxes) for p in theirs
    ]
    one, _, _ = evaluate("flickr30k-entities", tmp_path / "a", Scripted(find))
    other, _, _ = evaluate("flickr30k-entities", tmp_path / "b", Scripted(find))
    names = ("r1", "r5", "r10", "r_all", "r1_merged")
    assert [values(one)[name] for name in names] == [values(other)[name] for name in names]


def test_the_exact_way_goes_on_to_the_end(tmp_path: Path) -> None:
    folder = entities(tmp_path)
    text = (folder / "Sentences/7.txt").read_text().replace("a dog {x}", "A dog {x}")
    (folder / "Sentences/7.txt").write_text(text)
    model = Scripted(lambda prompt, images: [HATS])
    made, _, _ = evaluate("flickr30k-entities", folder, model, exact=True)
    assert model.options[0] == {"raw": True, "grammar": False, "max_tokens": 500}
    assert (
        model.prompts[2] == model.prompts[3] == "<image><grounding><phrase> A dog {x}</phrase>"
    )  # the first of equals
    assert made["settings"]["exact"] is True


# ---- referring expressions

BOX = (8.0, 8.0, 40.0, 40.0)


def refs(folder: Path, name: str, kind: str) -> Path:
    records, annotations, images = [], [], []
    for number, (split, texts) in enumerate(
        [("val", ["red ball", "the ball"]), ("val", ["left thing"]), ("train", ["a cube here"]), ("testA", ["man"])]
    ):
        image = 30 + number
        sentences = [{"sent": text, "raw": text.upper(), "tokens": text.split(), "sent_id": 1} for text in texts]
        records.append(
            {
                "ref_id": number, "ann_id": 500 + number, "category_id": 1, "image_id": image, "split": split,
                "file_name": f"COCO_train2014_{image:012d}_{number}.jpg", "sentences": sentences, "sent_ids": [1],
            }
        )  # fmt: skip
        annotations.append({"id": 500 + number, "image_id": image, "bbox": [8, 8, 32, 32]})
        images.append({"id": image, "width": 64, "height": 48})
        draw_picture(folder / "train2014" / f"COCO_train2014_{image:012d}.jpg", image)
    place = folder / name
    place.mkdir(parents=True)
    (place / f"refs({kind}).p").write_bytes(pickle.dumps(records, 2))
    write_json(place / "instances.json", {"annotations": annotations, "images": images})
    return folder


def point(prompt: str, images: list[str]) -> list[Any]:
    wrong = (8.0, 8.0, 40.0, 23.9)  # IoU just below 0.5
    return {"red ball": [BOX], "the ball": [wrong, BOX], "left thing": [], "man": [BOX]}[
        prompt.rpartition("<phrase> ")[2].removesuffix("</phrase>")
    ]


@pytest.mark.parametrize(("name", "kind"), [("refcoco", "unc"), ("refcoco+", "unc"), ("refcocog", "umd")])
def test_referring_expressions(name: str, kind: str, tmp_path: Path) -> None:
    model = Scripted(point)
    made, _, _ = evaluate(name, refs(tmp_path, name, kind), model)
    assert model.prompts == [
        f"<image><grounding><phrase> {text}</phrase>" for text in ("red ball", "the ball", "left thing")
    ]
    found = values(made)
    assert (found["accuracy"], found["upper"], found["mean"]) == (
        pytest.approx(1 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3),
    )  # fmt: skip
    # A picture that two expressions show is encoded once.
    assert [path.name for path in model.encoded] == ["COCO_train2014_000000000030.jpg"]
    if name != "refcocog":
        other, _, _ = evaluate(name, tmp_path, Scripted(point), split="testA")
        assert values(other)["accuracy"] == 1 and other["n"] == 1


def test_a_box_with_one_more_in_its_sides_is_another_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: widths and heights counted as x2 - x1 + 1, as for whole pixels."""
    real = boxes.iou
    monkeypatch.setattr(
        boxes, "iou", lambda a, b: real((a[0], a[1], a[2] + 1, a[3] + 1), (b[0], b[1], b[2] + 1, b[3] + 1))
    )
    made, _, _ = evaluate("refcoco", refs(tmp_path, "refcoco", "unc"), Scripted(point))
    assert values(made)["accuracy"] == pytest.approx(2 / 3)


def test_mdetrs_files_have_the_same_objects(tmp_path: Path) -> None:
    images = [
        {"id": i, "caption": text, "original_id": original, "width": 64, "height": 48, "dataset_name": "refcoco"}
        for i, (text, original) in enumerate([("red ball", 30), ("the ball", 30), ("left thing", 31)])
    ]
    annotations = [{"image_id": i, "bbox": [8, 8, 32, 32], "id": i} for i in range(3)]
    write_json(tmp_path / "m" / "finetune_refcoco_val.json", {"images": images, "annotations": annotations})
    ours = read_references(refs(tmp_path / "a", "refcoco", "unc"), "refcoco", "val")
    theirs = read_references(tmp_path / "m", "refcoco", "val")
    assert [(r.box, r.expressions, r.image.name, r.size) for r in ours] == [
        (r.box, r.expressions, r.image.name, r.size) for r in theirs
    ]


def test_converted_references_are_the_same_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = refs(tmp_path, "refcoco+", "unc")
    before = {split: read_references(folder, "refcoco+", split) for split in ("val", "testA", "train")}
    source, output = folder / "refcoco+" / "refs(unc).p", folder / "refcoco+.json"
    assert cli.run(["eval", "convert-refs", str(source), str(output)]) == 0
    assert "4 objects, 5 expressions" in capsys.readouterr().err
    source.unlink()
    assert {split: read_references(folder, "refcoco+", split) for split in before} == before
    assert len(before["val"]) == 2 and before["val"][0].box == BOX
    assert cli.run(["eval", "convert-refs", str(source), str(output)]) == 2  # it is there already
    output.write_text('[{"split": "val"}]')
    with pytest.raises(InvalidRequest, match=r"refcoco\+\.json: record 1 is not as expected: there is no 'id'"):
        read_references(folder, "refcoco+", "val")
    output.write_text("{}")
    with pytest.raises(InvalidRequest, match="as `eval convert-refs` writes it"):
        read_references(folder, "refcoco+", "val")


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "touched",))

    path = tmp_path / "refs(unc).p"
    for value in (Evil(), [{"a": Evil()}]):
        path.write_bytes(pickle.dumps(value))
        with pytest.raises(InvalidRequest, match=r"refs\(unc\)\.p: it names .*, which plain data does not"):
            read_pickle(path)
    assert not (tmp_path / "touched").exists()
    path.write_bytes(b"\x80\x02no pickle")
    with pytest.raises(InvalidRequest, match="not a pickle of plain data"):
        read_pickle(path)


def test_expressions_are_made_for_boxes(tmp_path: Path) -> None:
    folder = refs(tmp_path, "refcocog", "umd")
    said = {"000030": " a red ball. It lies", "000031": "thing left\nx"}
    model = Scripted(lambda prompt, images: said[Path(images[-1]).stem[-6:]])
    made, _, _ = evaluate("refcocog-reg", folder, model)
    box = "<box [8.0, 8.0, 40.0, 40.0]>"
    assert model.prompts == [f"<image><phrase> It</phrase>{box} is"] * 2 and model.options == [{"raw": True}] * 2
    words = [ptb.words(text) for text in ("a red ball", "thing left")]
    true = [[["red", "ball"], ["the", "ball"]], [["left", "thing"]]]
    expected = sum(cider_d.scores(words, true)) / 2
    assert expected > 0 and values(made)["cider"] == pytest.approx(expected)
    assert made["metrics"]["meteor"]["reason"] == "not in this test"
    shots = Scripted(lambda prompt, images: "a ball")
    evaluate("refcocog-reg", folder, shots, shots=1)
    frame = f"<image><phrase> It</phrase>{box} is"
    assert shots.prompts == [f"{frame} a cube here.{frame}"] * 2
