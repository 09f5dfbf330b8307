"""A base model for autodistill: labels a folder of images for the training of a small detector.

from autodistill.detection import CaptionOntology
from kosmos_edge.integrations.autodistill import KosmosEdge

base = KosmosEdge(CaptionOntology({"a shopping cart": "cart", "a light bulb": "bulb"}), "kosmos-2")
base.label("images", extension=".jpg")
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import supervision
from autodistill.detection import CaptionOntology, DetectionBaseModel

from kosmos_edge.integrations.finding import MIN_SCORE, Finder, How
from kosmos_edge.model import Model


class KosmosEdge(DetectionBaseModel):  # type: ignore[misc,unused-ignore]
    """Boxes of an ontology's prompts; see Finder for the other arguments."""

    def __init__(
        self,
        ontology: CaptionOntology,
        model: Model | str | None = None,
        *,
        how: How = "locate",
        min_score: float = MIN_SCORE,
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.ontology = ontology
        prompts = {prompt: ontology.promptToClass(prompt) for prompt in ontology.prompts()}
        self._finder = Finder(prompts, model, how=how, min_score=min_score, device=device, threads=threads)

    def predict(self, input: Any, confidence: float | None = None) -> supervision.Detections:
        """The boxes in one image: a path, a PIL image, or an array of blue, green and red, as OpenCV and autodistill
        have it. confidence: instead of min_score."""
        image = np.ascontiguousarray(input[:, :, ::-1]) if isinstance(input, np.ndarray) else input
        if isinstance(image, os.PathLike):
            image = os.fspath(image)
        found = self._finder.find(image, confidence)
        classes = list(self.ontology.classes())
        if not found:
            return supervision.Detections.empty()
        return supervision.Detections(
            xyxy=np.array([one.pixels for one in found], np.float32),
            confidence=np.array([1.0 if one.score is None else one.score for one in found], np.float32),
            class_id=np.array([classes.index(one.label) for one in found], int),
            data={"class_name": np.array([one.label for one in found])},
        )
