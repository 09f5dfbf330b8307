"""COCO: detections, captions, and the list of results that pycocotools evaluates. All ids begin with 1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from kosmos_edge.annotations.labels import Labels
from kosmos_edge.annotations.pictures import Picture


def coco(pictures: Iterable[Picture], labels: Labels | None = None) -> dict[str, list[dict[str, Any]]]:
    """A data set {"images", "annotations", "categories"}; bbox is [x, y, width, height] in pixels.

    Every image has its caption, every annotation a score (None: unknown). Category ids are the labels' numbers + 1.
    """
    labels = Labels() if labels is None else labels
    out: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": []}
    for image, rows in coco_parts(pictures, labels):
        out["images"].append(image)
        out["annotations"] += rows
    out["categories"] = coco_categories(labels)
    return out


def coco_parts(pictures: Iterable[Picture], labels: Labels) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each picture's row and its annotations, one after another, for data sets that do not fit into memory."""
    number = 1
    for image_id, picture in enumerate(pictures, 1):
        image = {"id": image_id, "file_name": picture.name, "width": picture.width, "height": picture.height}
        rows: list[dict[str, Any]] = []
        for region in picture.regions:
            label = labels.number(region.phrase)
            if label is None:
                continue
            x, y, width, height = region.xywh
            rows.append(
                {
                    "id": number,
                    "image_id": image_id,
                    "category_id": label + 1,
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "segmentation": [],
                    "score": region.score,
                }
            )
            number += 1
        yield image | {"caption": picture.caption}, rows


def coco_categories(labels: Labels) -> list[dict[str, Any]]:
    """The rows of the categories so far."""
    return [{"id": number, "name": name} for number, name in enumerate(labels.names, 1)]


def coco_results(pictures: Iterable[Picture], labels: Labels) -> list[dict[str, Any]]:
    """For COCO.loadRes: {"image_id", "category_id", "bbox", "score"}; a box without a score counts as 1."""
    return [
        {
            "image_id": row["image_id"],
            "category_id": row["category_id"],
            "bbox": row["bbox"],
            "score": 1.0 if row["score"] is None else row["score"],
        }
        for _, rows in coco_parts(pictures, labels)
        for row in rows
    ]


def coco_captions(pictures: Iterable[Picture]) -> dict[str, list[dict[str, Any]]]:
    """A data set of captions: {"images", "annotations": [{"id", "image_id", "caption"}]}."""
    images, rows = [], []
    for number, picture in enumerate(pictures, 1):
        images.append({"id": number, "file_name": picture.name, "width": picture.width, "height": picture.height})
        rows.append({"id": number, "image_id": number, "caption": picture.caption})
    return {"images": images, "annotations": rows}
