"""A model for FiftyOne:

    from kosmos_edge.integrations.fiftyone import KosmosEdge

    dataset.apply_model(KosmosEdge(["a red hat", "a dog"], "kosmos-2"), label_field="kosmos")

FiftyOne opens the images, with OpenCV, which turns them upright.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import fiftyone
import numpy as np
from fiftyone.core.models import Model as FiftyOneModel

from kosmos_edge.annotations import Labels
from kosmos_edge.integrations.finding import MIN_SCORE, Finder, How, use_model
from kosmos_edge.model import Model


class KosmosEdge(FiftyOneModel):  # type: ignore[misc,unused-ignore]
    """Gives Detections: the boxes of labels, or without labels those of a caption's phrases; see Finder."""

    def __init__(
        self,
        labels: Iterable[str] | Mapping[str, str] | None = None,
        model: Model | str | None = None,
        *,
        how: How = "locate",
        min_score: float = MIN_SCORE,
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        self._model = use_model(model, device=device, threads=threads)
        self._min_score = min_score
        self._finder = None if labels is None else Finder(labels, self._model, how=how, min_score=min_score)

    @property
    def media_type(self) -> str:
        """Images."""
        return "image"

    @property
    def transforms(self) -> None:
        """None: images are taken as they are."""
        return None

    @property
    def preprocess(self) -> bool:
        """Nothing is to be done before."""
        return False

    @preprocess.setter
    def preprocess(self, value: bool) -> None:
        pass

    @property
    def ragged_batches(self) -> bool:
        """The images of a batch may have different sizes."""
        return True

    def predict(self, arg: Any) -> Any:
        """The detections in one image: an array [height, width, 3] of red, green and blue, 0..255."""
        image = np.ascontiguousarray(arg)
        if self._finder is None:
            return self._model.caption(image, ground=True, min_score=self._min_score).to_fiftyone(Labels(plain=True))
        height, width = image.shape[:2]
        found = []
        for one in self._finder.find(image):
            x1, y1, x2, y2 = one.pixels
            place = [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height]
            found.append(fiftyone.Detection(label=one.label, bounding_box=place, confidence=one.score))
        return fiftyone.Detections(detections=found)

    def predict_all(self, args: Iterable[Any]) -> list[Any]:
        """Those of several images."""
        return [self.predict(arg) for arg in args]
