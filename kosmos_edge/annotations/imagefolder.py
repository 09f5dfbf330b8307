"""The ImageFolder of Hugging Face's datasets: metadata.jsonl beside the pictures."""

from __future__ import annotations

from typing import Any

from kosmos_edge.annotations.labels import Labels
from kosmos_edge.annotations.pictures import Picture


def imagefolder(picture: Picture, labels: Labels) -> dict[str, Any]:
    """A line of metadata.jsonl: file_name, text, objects {bbox [x, y, width, height] in pixels, categories}."""
    found = [(region, labels.name(region.phrase)) for region in picture.regions]
    kept = [(region, label) for region, label in found if label is not None]
    return {
        "file_name": picture.name,
        "text": picture.caption,
        "objects": {"bbox": [list(region.xywh) for region, _ in kept], "categories": [label for _, label in kept]},
    }
