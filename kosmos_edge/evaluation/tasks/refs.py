"""Referring expressions: MDETR's files, and the authors' refs(...).p with instances.json."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.tasks.common import beside, find, read_json, reading
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
        """The part of the box that is in the picture: some reach over its edge by a fraction of a pixel."""
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
    kinds = ("umd", "google") if name == "refcocog" else ("unc",)
    places = [f"{name}/refs({kind}).p" for kind in kinds] + [f"refs({kind}).p" for kind in kinds]
    path = find(folder, mdetr.name, *places)
    return _authors(folder, path, split)


def _corners(box: Any) -> Corners:
    x, y, width, height = (float(value) for value in box)
    return x, y, x + width, y + height


def _size(image: Any) -> tuple[float, float]:
    return float(image["width"]), float(image["height"])


def _picture(folder: Path, image: int) -> Path:
    return beside(folder, f"train2014/COCO_train2014_{image:012d}.jpg")


def _mdetr(folder: Path, path: Path) -> list[Reference]:
    """An entry for each expression; those of one object, which have its picture and box, are put together."""
    found: dict[tuple[int, Corners, tuple[float, float]], list[str]] = {}
    with reading(path):
        record = read_json(path)
        boxes = {one["image_id"]: _corners(one["bbox"]) for one in record["annotations"]}
        for image in record["images"]:
            key = int(image["original_id"]), boxes[image["id"]], _size(image)
            found.setdefault(key, []).append(str(image["caption"]))
    return [
        Reference(f"{image}/{number}", _picture(folder, image), box, tuple(expressions), size)
        for number, ((image, box, size), expressions) in enumerate(found.items())
    ]


def _authors(folder: Path, path: Path, split: str) -> list[Reference]:
    instances = find(path.parent, "instances.json")
    with reading(instances):
        record = read_json(instances)
        boxes = {one["id"]: _corners(one["bbox"]) for one in record["annotations"]}
        sizes = {one["id"]: _size(one) for one in record["images"]}
    out = []
    with reading(path):
        for one in read_pickle(path):
            if one["split"] == split:
                texts = tuple(str(sentence["sent"]) for sentence in one["sentences"])
                picture = _picture(folder, int(one["image_id"]))  # file_name has the object's number, too
                out.append(Reference(str(one["ref_id"]), picture, boxes[one["ann_id"]], texts, sizes[one["image_id"]]))
    return out
