"""Referring expressions: MDETR's files, the authors' refs(...).p with instances.json, and what is made of these."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.tasks.records import beside, find, numbers_of, read_json, reading, text_of, texts_of
from kosmos_edge.results import Corners


@dataclass(frozen=True, slots=True)
class Reference:
    """An object with all expressions for it."""

    id: str
    image: Path
    box: Corners  # pixels
    expressions: tuple[str, ...]
    size: tuple[float, float]  # of the picture

    @property
    def inside(self) -> list[float]:
        """The part of the box that is in the image: some reach over its edge by a fraction of a pixel."""
        x1, y1, x2, y2 = self.box
        width, height = self.size
        return [max(0.0, x1), max(0.0, y1), min(width, x2), min(height, y2)]


class _Data(pickle.Unpickler):
    """Reads lists, dictionaries, strings and numbers; a pickle that names code is refused."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise InvalidRequest(f"it names {module}.{name}, which plain data does not")


def read_pickle(path: Path) -> Any:
    """Plain data from a pickle. InvalidRequest for anything that would run code."""
    try:
        return _Data(io.BytesIO(path.read_bytes()), encoding="latin-1").load()
    except InvalidRequest as error:
        raise InvalidRequest(f"{path}: {error}") from None
    except Exception as error:  # whatever a broken pickle makes of itself
        raise InvalidRequest(f"{path}: not a pickle of plain data: {error}") from None


def read_references(folder: Path, name: str, split: str) -> list[Reference]:
    """The objects of a data set's split, in the file's order."""
    mdetr = folder / f"finetune_{name}_{split}.json"
    if mdetr.is_file():
        return _mdetr(folder, mdetr)
    ours = folder / f"{name}.json"
    if ours.is_file():
        return _ours(folder, ours, split)
    kinds = ("umd", "google") if name == "refcocog" else ("unc",)
    places = [f"{name}/refs({kind}).p" for kind in kinds] + [f"refs({kind}).p" for kind in kinds]
    path = find(folder, mdetr.name, ours.name, *places)
    return _references(folder, path, convert(path, find(path.parent, "instances.json")), split)


def _corners(box: Any) -> Corners:
    x, y, width, height = numbers_of(box, "bbox")
    return x, y, x + width, y + height


def _size(image: Any) -> tuple[float, float]:
    width, height = numbers_of((image["width"], image["height"]), "size")
    return width, height


def _picture(folder: Path, image: int) -> Path:
    return beside(folder, f"train2014/COCO_train2014_{image:012d}.jpg")


def _mdetr(folder: Path, path: Path) -> list[Reference]:
    """An entry for each expression; those of one object, which have its image and box, are put together."""
    found: dict[tuple[int, Corners, tuple[float, float]], list[str]] = {}
    with reading(path) as records:
        record = read_json(path)
        boxes = {one["image_id"]: _corners(one["bbox"]) for one in records.each(record["annotations"])}
        for image in records.each(record["images"]):
            key = int(image["original_id"]), boxes[image["id"]], _size(image)
            found.setdefault(key, []).append(text_of(image["caption"], "caption"))
    return [
        Reference(f"{image}/{number}", _picture(folder, image), box, tuple(expressions), size)
        for number, ((image, box, size), expressions) in enumerate(found.items())
    ]


def convert(path: Path, instances: Path) -> list[dict[str, Any]]:
    """The objects of refs(...).p and their boxes, JSON-ready: {"id", "image_id", "split", "bbox": [x, y, width,
    height], "width", "height", "expressions"}. InvalidRequest for files that are not so."""
    with reading(instances) as records:
        record = read_json(instances)
        boxes = {one["id"]: numbers_of(one["bbox"], "bbox") for one in records.each(record["annotations"])}
        sizes = {one["id"]: _size(one) for one in records.each(record["images"])}
    out = []
    with reading(path) as records:
        for one in records.each(read_pickle(path)):
            width, height = sizes[one["image_id"]]
            out.append(
                {
                    "id": str(one["ref_id"]),
                    "image_id": int(one["image_id"]),  # file_name has the object's number, too
                    "split": str(one["split"]),
                    "bbox": boxes[one["ann_id"]],
                    "width": width,
                    "height": height,
                    "expressions": [sentence["sent"] for sentence in one["sentences"]],
                }
            )
    return out


def _ours(folder: Path, path: Path, split: str) -> list[Reference]:
    records = read_json(path)
    if not isinstance(records, list):
        raise InvalidRequest(f"{path}: expected a list of objects, as `eval convert-refs` writes it")
    return _references(folder, path, records, split)


def _references(folder: Path, path: Path, records: list[dict[str, Any]], split: str) -> list[Reference]:
    with reading(path) as objects:
        return [
            Reference(
                str(one["id"]),
                _picture(folder, int(one["image_id"])),
                _corners(one["bbox"]),
                texts_of(one["expressions"], "expressions"),
                _size(one),
            )
            for one in objects.each(records)
            if one["split"] == split
        ]
