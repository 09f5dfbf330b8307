"""Label Studio: tasks with predictions, and the configuration that shows them."""

from __future__ import annotations

import uuid
from typing import Any
from xml.sax.saxutils import quoteattr

from kosmos_edge.annotations.labels import Labels
from kosmos_edge.annotations.pictures import Picture

LABEL, CAPTION, IMAGE = "label", "caption", "image"  # names of the tags in label_studio_config


def label_studio(picture: Picture, labels: Labels, *, prefix: str = "") -> dict[str, Any]:
    """One task: {"data": {"image"}, "predictions": [...]}; boxes in percent of the picture, 0..100.

    prefix: before the picture's name, for its address, such as "/data/local-files/?d=photos/".
    """
    size = {"original_width": picture.width, "original_height": picture.height, "image_rotation": 0}
    results: list[dict[str, Any]] = []
    for number, region in enumerate(picture.regions):
        label = labels.name(region.phrase)
        if label is None:
            continue
        x, y, width, height = (100 * value for value in picture.fractions(region))
        row = {
            # The same in every run: an import that is repeated does not double it.
            "id": uuid.uuid5(uuid.NAMESPACE_URL, f"{picture.name}#{number}").hex[:10],
            "type": "rectanglelabels",
            "from_name": LABEL,
            "to_name": IMAGE,
            "value": {
                "x": x,
                "y": y,
                "width": width,
                "height": height,
                "rotation": 0,
                "rectanglelabels": [label],
            },
        }
        results.append(row | size | ({} if region.score is None else {"score": region.score}))
    if picture.caption:
        results.append(
            {
                "id": uuid.uuid5(uuid.NAMESPACE_URL, f"{picture.name}#caption").hex[:10],
                "type": "textarea",
                "from_name": CAPTION,
                "to_name": IMAGE,
                "value": {"text": [picture.caption]},
            }
        )
    scores = [region.score for region in picture.regions if region.score is not None]
    prediction: dict[str, Any] = {"model_version": picture.model, "result": results}
    if scores:
        prediction["score"] = sum(scores) / len(scores)
    return {"data": {"image": prefix + picture.name}, "predictions": [prediction]}


def label_studio_config(labels: Labels) -> str:
    """The labelling interface: rectangles with these labels, and the caption as a text area."""
    rows = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in labels.names)
    return (
        "<View>\n"
        f'  <Image name="{IMAGE}" value="${IMAGE}"/>\n'
        f'  <RectangleLabels name="{LABEL}" toName="{IMAGE}">\n{rows}  </RectangleLabels>\n'
        f'  <TextArea name="{CAPTION}" toName="{IMAGE}" editable="true"/>\n'
        "</View>\n"
    )
