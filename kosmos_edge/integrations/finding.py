"""Boxes of given labels in an image: what annotation tools ask a detector for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from kosmos_edge.annotations import Labels
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import ImageInput
from kosmos_edge.loading import load
from kosmos_edge.model import EncodedImage, Model
from kosmos_edge.options import check_float
from kosmos_edge.results import Corners, Entity

How = Literal["locate", "ground"]
MIN_SCORE = 0.5


@dataclass(frozen=True, slots=True)
class Found:
    """A box of a label."""

    label: str
    pixels: Corners  # x1, y1, x2, y2 of the upright image
    # 0..1, uncalibrated: the probability that boxes follow the prompt (locate), or of the phrase's words (ground)
    score: float | None


class Finder:
    """Finds labels in images.

    prompts: the labels; or prompt -> label, where the model is asked in other words. how: "locate" asks for every
    prompt, and takes as long; "ground" looks for them among the phrases of one caption, where a phrase belongs to the
    prompt that is equal to it without article and case. min_score: 0..1; boxes with a lower score are left out.
    model: a Model, or a tag or file as for load. InvalidRequest: no prompts, or the model has no boxes.
    """

    def __init__(
        self,
        prompts: Iterable[str] | Mapping[str, str],
        model: Model | str | None = None,
        *,
        how: How = "locate",
        min_score: float = MIN_SCORE,
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.prompts = dict(prompts) if isinstance(prompts, Mapping) else {prompt: prompt for prompt in prompts}
        if not self.prompts:
            raise InvalidRequest("labels: expected at least one")
        if how not in get_args(How):
            raise InvalidRequest(f"how: expected 'locate' or 'ground', got {how!r}")
        self.how, self.min_score = how, check_float("min_score", min_score, 0, 1)
        self._names = Labels(self.prompts) if how == "ground" else None
        self.model = use_model(model, device=device, threads=threads)
        if self.model.model_info["grounding"] is None:
            raise InvalidRequest(f"{self.model.name} has no boxes: choose a model that has")

    def find(self, image: ImageInput | EncodedImage, min_score: float | None = None) -> list[Found]:
        """The boxes, by prompt, or in the order of the caption. min_score: instead of the finder's."""
        least = self.min_score if min_score is None else check_float("min_score", min_score, 0, 1)
        if self._names is not None:
            result = self.model.caption(image, ground=True, min_score=least)
            named = [(self._names.name(entity.phrase), entity) for entity in result.entities]
            return [one for name, entity in named if name is not None for one in self._of(name, entity)]
        encoded = image if isinstance(image, EncodedImage) else self.model.encode(image)
        calls = [("locate", {"image": encoded, "phrase": prompt, "min_score": least}) for prompt in self.prompts]
        found = []
        for prompt, answer in zip(self.prompts, self.model.batch_calls(calls), strict=True):
            if answer.error is not None:
                raise answer.error
            found += [one for entity in getattr(answer, "entities", ()) for one in self._of(prompt, entity)]
        return found

    def _of(self, prompt: str, entity: Entity) -> list[Found]:
        """The entity's boxes; inverted ones cannot be expressed."""
        score, label = entity.sureness, self.prompts[prompt]
        return [Found(label, box.pixels, score) for box in entity.boxes if box.valid and box.pixels is not None]


def use_model(model: Model | str | None, *, device: str = "auto", threads: int | None = None) -> Model:
    """The model itself, or the loaded one of this tag or file."""
    return model if isinstance(model, Model) else load(model, device=device, threads=threads)
