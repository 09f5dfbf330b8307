"""Annotation formats: the numbers by hand, and what the real readers of each format make of them."""

import contextlib
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kosmos_edge import InvalidRequest
from kosmos_edge.annotations import (
    Labels,
    Picture,
    Region,
    coco,
    coco_captions,
    coco_results,
    fiftyone,
    fiftyone_labels,
    imagefolder,
    label_studio,
    label_studio_config,
    picture_of,
    supervision,
    voc,
    yolo,
    yolo_data,
)
from kosmos_edge.results import Box, Entity, Result

DOG = Region("a dog", (10.0, 20.0, 110.0, 70.0), 0.75)
CAT = Region("the cat", (0.0, 0.5, 200.0, 100.0), None)
PHOTO = Picture("photos/one.png", 200, 100, "a dog & the cat", (DOG, CAT), "nano")
EMPTY = Picture("two.png", 50, 40, "nothing")


def result(*boxes: Box, **more: Any) -> Result:
    return Result("a dog", [Entity("a dog", (0, 5), boxes)], width=200, height=100, model="m", source="p.png", **more)


def test_a_result_becomes_a_picture() -> None:
    good = Box((0.05, 0.2, 0.55, 0.7), (10, 20, 110, 70), score=0.5)
    inverted = Box((0.5, 0.2, 0.1, 0.7), (100, 20, 20, 70))
    made = picture_of(result(good, inverted))
    assert made == Picture("p.png", 200, 100, "a dog", (Region("a dog", (10, 20, 110, 70), 0.5),), "m")
    assert picture_of(result(), name="x.png", caption="A dog.") == Picture("x.png", 200, 100, "A dog.", (), "m")
    with pytest.raises(InvalidRequest, match="with an image"):
        picture_of(Result("text"))
    with pytest.raises(InvalidRequest, match=r"with an answer.*broken"):
        picture_of(result(error=InvalidRequest("broken")))
    with pytest.raises(InvalidRequest, match="0 x 3"):
        Picture("x", 0, 3)


def test_labels_grow_or_are_fixed() -> None:
    growing = Labels()
    assert [growing.number(phrase) for phrase in ("a dog", "the dog", "a dog")] == [0, 1, 0]
    assert growing.names == ["a dog", "the dog"]
    plain = Labels(plain=True)
    assert [plain.number(phrase) for phrase in ("a dog", "The  Dog", "theatre")] == [0, 0, 1]
    assert plain.names == ["dog", "theatre"]
    fixed = Labels(["cat", "A Dog"])
    assert [fixed.number(phrase) for phrase in ("a dog", "cats", "Cat", "cats")] == [1, None, 0, None]
    assert fixed.name("dog") == "A Dog" and fixed.unknown == {"cats": 2}
    for names in ([], ["a dog", "Dog"], [" "]):
        with pytest.raises(InvalidRequest, match="labels"):
            Labels(names)


def test_numbers_by_hand() -> None:
    labels = Labels(["dog"])
    assert yolo(PHOTO, labels) == "0 0.300000 0.450000 0.500000 0.500000\n"
    assert labels.unknown == {"the cat": 1}
    assert fiftyone(PHOTO, Labels())[0] == {"label": "a dog", "bounding_box": [0.05, 0.2, 0.5, 0.5], "confidence": 0.75}
    assert "confidence" not in fiftyone(PHOTO, Labels())[1]
    assert imagefolder(PHOTO, labels) == {
        "file_name": "photos/one.png",
        "text": "a dog & the cat",
        "objects": {"bbox": [[10, 20, 100, 50]], "categories": ["dog"]},
    }
    corners = [[int(e.text or "") for e in box] for box in ET.fromstring(voc(PHOTO)).iter("bndbox")]
    assert corners == [[11, 21, 110, 70], [1, 1, 200, 100]]
    assert supervision(PHOTO, Labels()) == {
        "xyxy": [list(DOG.pixels), list(CAT.pixels)],
        "confidence": None,
        "class_id": [0, 1],
        "class_name": ["a dog", "the cat"],
    }
    row = coco([EMPTY, PHOTO])["annotations"][0]
    assert (row["image_id"], row["bbox"], row["area"], row["category_id"]) == (2, [10, 20, 100, 50], 5000, 1)


def test_names_that_xml_and_yaml_would_read_otherwise(tmp_path: Path) -> None:
    odd = Picture("a<b>&\x01.png", 10, 10, "", (Region('say "hi" \\ <&>', (1, 1, 5, 5)),))
    root = ET.fromstring(voc(odd))
    assert root.findtext("object/name") == 'say "hi" \\ <&>' and root.findtext("filename") == "a<b>&\ufffd.png"
    labels = Labels()
    label_studio(odd, labels)
    assert [e.get("value") for e in ET.fromstring(label_studio_config(labels)).iter("Label")] == labels.names
    assert '0: "say \\"hi\\" \\\\ <&>"' in yolo_data(labels)


def test_pycocotools_reads_and_evaluates() -> None:
    tools = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    from pycocotools.cocoeval import COCOeval

    labels = Labels()
    truth = tools.COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = json.loads(json.dumps(coco([EMPTY, PHOTO], labels)))
        truth.createIndex()
        found = truth.loadRes(coco_results([EMPTY, PHOTO], labels))
        run = COCOeval(truth, found, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
        captions = tools.COCO()
        captions.dataset = coco_captions([EMPTY, PHOTO])
        captions.createIndex()
    assert truth.getAnnIds(imgIds=[1]) == [] and len(truth.getAnnIds(imgIds=[2], catIds=[1])) == 1
    assert run.stats[0] == pytest.approx(1)
    assert captions.imgToAnns[2][0]["caption"] == "a dog & the cat"


def test_supervision_reads_coco_yolo_and_voc(tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision", reason="supervision is not installed")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (200, 100)).save(tmp_path / "images" / "one.png")
    picture = Picture("one.png", 200, 100, "", PHOTO.regions)
    labels = Labels()
    (tmp_path / "coco.json").write_text(json.dumps(coco([picture], labels)))
    for name in ("labels", "voc"):
        (tmp_path / name).mkdir()
    (tmp_path / "labels" / "one.txt").write_text(yolo(picture, labels))
    (tmp_path / "data.yaml").write_text(yolo_data(labels))
    (tmp_path / "voc" / "one.xml").write_text(voc(picture, labels))
    images = str(tmp_path / "images")
    sets = [
        sv.DetectionDataset.from_coco(images, str(tmp_path / "coco.json")),
        sv.DetectionDataset.from_yolo(images, str(tmp_path / "labels"), str(tmp_path / "data.yaml")),
        sv.DetectionDataset.from_pascal_voc(images, str(tmp_path / "voc")),
    ]
    for data in sets:
        _, _, found = data[0]
        names = {data.classes[number] for number in found.class_id}
        assert names == {"a dog", "the cat"}
        for box, region in zip(sorted(found.xyxy.tolist(), reverse=True), (DOG, CAT), strict=True):
            assert box == pytest.approx(region.pixels, abs=1.001)


def test_label_studio_reads_the_tasks() -> None:
    sdk = pytest.importorskip("label_studio_sdk._extensions.label_studio_tools.core.label_config", reason="no SDK")
    from label_studio_sdk.label_interface import LabelInterface

    labels = Labels()
    task = label_studio(PHOTO, labels, prefix="/data/local-files/?d=")
    assert task["data"] == {"image": "/data/local-files/?d=photos/one.png"}
    config = label_studio_config(labels)
    assert set(sdk.parse_config(config)) == {"label", "caption"}
    interface = LabelInterface(config)
    interface.validate()
    assert interface.validate_task({"data": task["data"]})
    (prediction,) = task["predictions"]
    assert interface.validate_prediction(prediction)
    assert prediction["result"][0]["value"]["width"] == 50 and prediction["score"] == 0.75
    wrong = json.loads(json.dumps(prediction).replace("a dog", "a wolf"))
    assert not interface.validate_prediction(wrong)


def test_datasets_reads_the_image_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    pictures = [Picture("one.png", 200, 100, PHOTO.caption, PHOTO.regions), EMPTY]
    labels = Labels()
    for picture in pictures:
        Image.new("RGB", (picture.width, picture.height)).save(tmp_path / picture.name)
    lines = [json.dumps(imagefolder(picture, labels)) + "\n" for picture in pictures]
    (tmp_path / "metadata.jsonl").write_text("".join(lines))
    data = datasets.load_dataset("imagefolder", data_dir=str(tmp_path), cache_dir=str(tmp_path / "c"), split="train")
    rows = {row["text"]: row for row in data}
    assert rows[PHOTO.caption]["objects"] == {
        "bbox": [[10, 20, 100, 50], [0, 0.5, 200, 99.5]],
        "categories": ["a dog", "the cat"],
    }
    assert rows["nothing"]["image"].size == (50, 40)


def test_fiftyone_labels() -> None:
    labels = Labels()
    made = fiftyone_labels({"one": fiftyone(PHOTO, labels), "two": fiftyone(EMPTY, labels)}, labels)
    assert made["classes"] == ["a dog", "the cat"] and made["labels"]["two"] == []
