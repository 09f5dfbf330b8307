"""An auto-annotation function for CVAT's command line and SDK:

    cvat-cli task auto-annotate 137 --function-module kosmos_edge.integrations.cvat \\
        -p labels=str:"a red hat,a dog" -p model=str:kosmos-2

Parameters, each as NAME=TYPE:VALUE: labels (separated by commas, named as in the task; required), model (a tag or a
file), how (locate or ground), min_score (0..1), device, threads. --conf-threshold stands instead of min_score.
"""

from __future__ import annotations

from typing import Any, cast

import cvat_sdk.auto_annotation as cvataa
from PIL import Image

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.integrations.finding import MIN_SCORE, Finder, How


class KosmosEdge:
    """A detection function: boxes of the labels."""

    def __init__(self, finder: Finder) -> None:
        self._finder = finder
        names = list(dict.fromkeys(finder.prompts.values()))
        self._numbers = {name: number for number, name in enumerate(names)}
        labels = [cvataa.label_spec(name, number, type="rectangle") for name, number in self._numbers.items()]
        self._spec = cvataa.DetectionFunctionSpec(labels=labels)

    @property
    def spec(self) -> Any:
        """The labels."""
        return self._spec

    def detect(self, context: Any, image: Image.Image) -> list[Any]:
        """Rectangles in pixels of the image."""
        found = self._finder.find(image, context.conf_threshold)
        return [cvataa.rectangle(self._numbers[one.label], list(one.pixels)) for one in found]


def create(
    labels: str = "",
    model: str | None = None,
    how: str = "locate",
    min_score: float = MIN_SCORE,
    device: str = "auto",
    threads: int | None = None,
) -> KosmosEdge:
    """What cvat-cli calls, with the values of -p."""
    names = [name.strip() for name in labels.split(",") if name.strip()]
    if not names:
        raise InvalidRequest('labels: expected some, as in -p labels=str:"a red hat,a dog"')
    return KosmosEdge(Finder(names, model, how=cast(How, how), min_score=min_score, device=device, threads=threads))
