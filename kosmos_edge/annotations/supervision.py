"""supervision: the arrays of its Detections, as lists."""

from __future__ import annotations

from typing import Any

from kosmos_edge.annotations.labels import Labels
from kosmos_edge.annotations.pictures import Picture


def supervision(picture: Picture, labels: Labels) -> dict[str, Any]:
    """xyxy in pixels, confidence (None if a score is unknown), class_id, class_name; equally long lists.

    sv.Detections(xyxy=np.array(d["xyxy"], float).reshape(-1, 4), class_id=np.array(d["class_id"], int),
    confidence=..., data={"class_name": np.array(d["class_name"])})
    """
    numbered = [(region, labels.number(region.phrase)) for region in picture.regions]
    kept = [(region, number) for region, number in numbered if number is not None]
    scores = [region.score for region, _ in kept]
    return {
        "xyxy": [list(region.pixels) for region, _ in kept],
        "confidence": None if any(score is None for score in scores) else scores,
        "class_id": [number for _, number in kept],
        "class_name": [labels.names[number] for _, number in kept],
    }
