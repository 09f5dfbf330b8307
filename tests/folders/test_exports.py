"""batch --format coco, yolo, ...: whole data sets, as their readers take them."""

import contextlib
import io
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from click import UsageError
from helpers.api_model import grounded_file, png
from test_sidecars import Done

from kosmos_edge import InvalidRequest
from kosmos_edge.annotations import Labels, Picture, Region
from kosmos_edge.folders.exports import FolderExport

MODEL = ["--model", str(grounded_file()), "--threads", "1", "--max-tokens", "20"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for name, seed in (("a.png", 1), ("b.png", 2), ("more/A.png", 3)):
        (folder / name).write_bytes(png(seed, 60 + seed, 50))
    (folder / "c.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOSMOS_EDGE_CACHE", str(tmp_path / "cache"))


def export(photos: Path, form: str, target: Path, *more: object) -> Done:
    return Done("batch", photos, "-r", "--format", form, "-o", target, *more, model=MODEL)


@pytest.fixture(scope="module")
def rows(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The answers by name, without those that failed."""
    done = Done("batch", photos, "-r", model=MODEL)
    named = {str(Path(row["path"]).relative_to(photos)): row for row in done.rows if row["error"] is None}
    assert sorted(named) == ["a.png", "b.png", "more/A.png"] and sum(len(row["entities"]) for row in named.values()) > 1
    return named


def boxes_of(row: dict[str, Any]) -> list[list[float]]:
    return [box["pixels"] for entity in row["entities"] for box in entity["boxes"] if box["valid"]]


def test_coco(photos: Path, rows: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    done = export(photos, "coco", tmp_path / "set.json", "--prefix", "photo: ")
    assert done.code == 1 and "c.png" in done.stderr
    data = json.loads((tmp_path / "set.json").read_text())
    assert [image["file_name"] for image in data["images"]] == [str(photos / name) for name in rows]
    assert [image["caption"] for image in data["images"]] == [f"photo: {row['text']}" for row in rows.values()]
    assert [row["id"] for row in data["annotations"]] == list(range(1, len(data["annotations"]) + 1))
    for image, row in zip(data["images"], rows.values(), strict=True):
        mine = [one["bbox"] for one in data["annotations"] if one["image_id"] == image["id"]]
        assert mine == [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in boxes_of(row)]
    tools = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    with contextlib.redirect_stdout(io.StringIO()):
        read = tools.COCO(str(tmp_path / "set.json"))
    assert len(read.getAnnIds()) == len(data["annotations"]) and len(read.getImgIds()) == 3


def test_nothing_is_a_data_set_too(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    for form in ("coco", "label-studio"):
        done = Done("batch", tmp_path / "bad.png", "--format", form, model=MODEL)
        data = json.loads(done.stdout)
        assert data == ({"images": [], "annotations": [], "categories": []} if form == "coco" else [])


def test_label_studio(photos: Path, rows: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    target = tmp_path / "tasks.json"
    export(photos, "label-studio", target, "--image-prefix", "/data/local-files/?d=")
    tasks = json.loads(target.read_text())
    assert [task["data"]["image"] for task in tasks] == [f"/data/local-files/?d={photos / name}" for name in rows]
    labels = {e.get("value") for e in ET.parse(tmp_path / "tasks.config.xml").iter("Label")}
    assert labels == {entity["phrase"] for row in rows.values() for entity in row["entities"] if entity["boxes"]}
    with pytest.raises(InvalidRequest, match=r"tasks\.config\.xml exists"):
        target.unlink()
        export(photos, "label-studio", target)
    interface = pytest.importorskip("label_studio_sdk.label_interface", reason="label-studio-sdk is not installed")
    config = interface.LabelInterface((tmp_path / "tasks.config.xml").read_text())
    assert all(config.validate_prediction(task["predictions"][0]) for task in tasks)


@pytest.mark.parametrize(("form", "inside"), [("yolo", "images"), ("voc", "JPEGImages"), ("fiftyone", "data")])
def test_folders_with_pictures(
    photos: Path, rows: dict[str, dict[str, Any]], tmp_path: Path, form: str, inside: str
) -> None:
    target = tmp_path / "set"
    assert export(photos, form, target).code == 1
    names = {"a.png": "a.png", "b.png": "b.png", "more/A.png": "A-2.png"}
    pictures = {path.name: path.read_bytes() for path in (target / inside).iterdir()}
    assert pictures == {names[name]: (photos / name).read_bytes() for name in rows}
    counts = {names[name]: len(boxes_of(row)) for name, row in rows.items()}
    for name, count in counts.items():
        stem = Path(name).stem
        if form == "yolo":
            found = len((target / "labels" / f"{stem}.txt").read_text().splitlines())
        elif form == "voc":
            found = len(ET.parse(target / "Annotations" / f"{stem}.xml").findall("object"))
        else:
            found = len(json.loads((target / "labels.json").read_text())["labels"][stem])
        assert found == count
    assert not (target / ".kosmos-edge.export").exists()
    with pytest.raises(InvalidRequest, match="is not empty"):
        export(photos, form, target)
    export(photos, form, target, "--overwrite", "--export-pictures", "none")


def test_supervision_reads_what_was_written(photos: Path, rows: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision", reason="supervision is not installed")
    export(photos, "yolo", tmp_path / "yolo", "--plain-labels")
    export(photos, "voc", tmp_path / "voc", "--plain-labels")
    read = [
        sv.DetectionDataset.from_yolo(
            str(tmp_path / "yolo/images"), str(tmp_path / "yolo/labels"), str(tmp_path / "yolo/data.yaml")
        ),
        sv.DetectionDataset.from_pascal_voc(str(tmp_path / "voc/JPEGImages"), str(tmp_path / "voc/Annotations")),
    ]
    for data in read:
        found = {Path(path).name: sorted(detections.xyxy.tolist()) for path, _, detections in data}
        for name, row in rows.items():
            want = sorted(boxes_of(row))
            got = found["A-2.png" if name == "more/A.png" else name]
            assert len(got) == len(want)
            assert all(a == pytest.approx(b, abs=1.01) for a, b in zip(got, want, strict=True))


def test_image_folder(photos: Path, rows: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: Any) -> None:
    target = tmp_path / "set"
    export(photos, "imagefolder", target, "--capital", "--trigger", "sks")
    lines = [json.loads(line) for line in (target / "metadata.jsonl").read_text().splitlines()]
    assert [line["file_name"] for line in lines] == ["a.png", "b.png", "A-2.png"]
    assert all(line["text"].startswith("sks, ") for line in lines)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    data = datasets.load_dataset("imagefolder", data_dir=str(target), cache_dir=str(tmp_path / "c"), split="train")
    read = {row["text"]: row["image"].size for row in data}
    assert read == {line["text"]: (row["width"], row["height"]) for line, row in zip(lines, rows.values(), strict=True)}


def test_labels_that_are_given(photos: Path, rows: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    phrases = [entity["phrase"] for row in rows.values() for entity in row["entities"] if entity["boxes"]]
    kept = phrases[0]
    (tmp_path / "labels.txt").write_text(f"unicorn\n{kept}\n")
    done = export(photos, "coco", tmp_path / "set.json", "--labels", f"@{tmp_path / 'labels.txt'}")
    data = json.loads((tmp_path / "set.json").read_text())
    assert [row["name"] for row in data["categories"]] == ["unicorn", kept]
    assert {row["category_id"] for row in data["annotations"]} == {2}
    assert ("belong to none of the labels" in done.stderr) == (len(set(phrases)) > 1)


def test_a_data_set_is_continued(photos: Path, tmp_path: Path) -> None:
    target, journal = tmp_path / "set", tmp_path / "journal"
    export(photos, "yolo", target, "--fail-fast", "--journal", journal)
    assert (target / ".kosmos-edge.export").exists() and not (target / "data.yaml").exists()
    with pytest.raises(InvalidRequest, match="is not empty"):
        export(photos, "yolo", target, "--journal", journal)
    done = export(photos, "yolo", target, "--resume", "--journal", journal)
    assert "2 answered before" in done.stderr and (target / "data.yaml").exists()
    assert len(list((target / "labels").iterdir())) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_links_instead_of_copies(photos: Path, tmp_path: Path) -> None:
    export(photos, "yolo", tmp_path / "set", "--export-pictures", "symlink")
    assert (tmp_path / "set/images/a.png").readlink() == photos / "a.png"


def test_names_that_a_file_system_would_refuse(tmp_path: Path) -> None:
    picture = Picture("clip.mp4#t=00:01.png", 10, 10, "", (Region("a", (1, 1, 5, 5)),))
    with FolderExport("yolo", str(tmp_path / "set"), Labels()) as made:
        made.add(picture, b"one")
        made.add(picture, b"two")
        made.finish()
    assert sorted(path.name for path in (tmp_path / "set/images").iterdir()) == [
        "clip.mp4#t=00_01-2.png",
        "clip.mp4#t=00_01.png",
    ]


def test_what_makes_no_sense_is_refused(photos: Path, tmp_path: Path) -> None:
    for words, what in [
        (("--format", "yolo"), "needs -o FOLDER"),
        (("--labels", "dog"), "--labels: goes with --format coco"),
        (("--format", "yolo", "-o", photos), "is in the folder"),
        (("--format", "coco", "--labels", f"@{tmp_path / 'none'}"), "--labels: .*No such file"),
    ]:
        with pytest.raises(UsageError, match=what):
            Done("batch", photos, *words, model=MODEL)
