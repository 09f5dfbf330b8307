"""What the tasks with boxes share: how a phrase is asked for, and which boxes count as the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kosmos_edge.evaluation.task import Generate
from kosmos_edge.results import Corners, Result

NOTHING: Corners = (0.0, 0.0, 0.0, 0.0)  # a miss
_EXACT = {"grammar": False, "max_tokens": 500}


def asked_phrase(image: Path, phrase: str, before: str, exact: bool) -> Generate:
    """The phrase behind the caption's words before it; its boxes follow. exact: goes on to the end of the text."""
    start = before.strip()
    if exact or "{" in start or "}" in start:  # braces are places of a template
        prompt = f"<grounding>{start}<phrase> {phrase}</phrase>"
        return Generate("generate", {"segments": [image, prompt], "raw": True, **_EXACT})
    # locate puts <grounding> before its template
    return Generate("locate", {"image": image, "phrase": phrase, "template": f"{start}<phrase> {{phrase}}</phrase>"})


def found_boxes(step: Generate, result: Result, phrase: str) -> dict[str, Any]:
    """All boxes in pixels that the phrase has, in order; one that is none or has no size is [0, 0, 0, 0].

    What locate finds is the phrase's; a text that goes on may name others, and the phrase again.
    """
    wanted = " ".join(phrase.split())
    boxes = [
        list(box.pixels) if box.valid and box.pixels is not None else list(NOTHING)
        for entity in result.entities
        if step.verb == "locate" or " ".join(entity.phrase.split()) == wanted
        for box in entity.boxes
    ]
    return {"boxes": boxes, "finish_reason": result.finish_reason}


def corners(prediction: Any) -> list[Corners]:
    """The boxes of a prediction; a miss if there is none."""
    boxes = [(float(b[0]), float(b[1]), float(b[2]), float(b[3])) for b in prediction.get("boxes", ())]
    return boxes or [NOTHING]
