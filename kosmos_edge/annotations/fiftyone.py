"""FiftyOne: its type FiftyOneImageDetectionDataset, which is data/ and labels.json."""

from __future__ import annotations

from typing import Any

from kosmos_edge.annotations.labels import Labels
from kosmos_edge.annotations.pictures import Picture


def fiftyone(picture: Picture, labels: Labels) -> list[dict[str, Any]]:
    """The detections: label, bounding_box [x, y, width, height] in fractions of the picture, confidence if known."""
    out = []
    for region in picture.regions:
        label = labels.name(region.phrase)
        if label is not None:
            row: dict[str, Any] = {"label": label, "bounding_box": list(picture.fractions(region))}
            out.append(row if region.score is None else row | {"confidence": region.score})
    return out


def fiftyone_labels(rows: dict[str, list[dict[str, Any]]], labels: Labels) -> dict[str, Any]:
    """labels.json. rows: the detections by the picture's name in data/ without its suffix."""
    return {"classes": list(labels.names), "labels": rows}
