"""Phrase grounding on Flickr30k Entities (KOSMOS-2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kosmos_edge.evaluation.metrics.boxes import hit, merged
from kosmos_edge.evaluation.statistics import Metric, Part
from kosmos_edge.evaluation.task import Item, Steps, Variant
from kosmos_edge.evaluation.tasks.boxes import asked_phrase, corners, found_boxes
from kosmos_edge.evaluation.tasks.common import Prompted
from kosmos_edge.evaluation.tasks.flickr_entities import Phrase, read_phrases
from kosmos_edge.evaluation.tasks.records import beside

TYPES = ("people", "clothing", "bodyparts", "animals", "vehicles", "instruments", "scene", "other")
_RANKS: tuple[tuple[str, int | None], ...] = (("r1", 1), ("r5", 5), ("r10", 10), ("r_all", None))


class Flickr30kEntities(Prompted):
    """One item per phrase whose chain has a box."""

    NAME = "flickr30k-entities"
    SUMMARY = "Phrases of Flickr30k Entities as boxes: R@1, R@5, R@10."
    FILES = (
        "Sentences/, Annotations/ (annotations.zip unpacked) and test.txt, or MDETR's "
        "final_flickr_separateGT_test.json, and the images in flickr30k-images/"
    )
    SPLITS = ("test", "val")
    EXACT = True
    PROMPT = "<grounding>{words before}<phrase> {phrase}</phrase>"
    METRICS = (
        *(
            Metric(name, f"phrases with a box of IoU >= 0.5 among {f'the first {k}' if k else 'all'}, any of its boxes")
            for name, k in _RANKS
        ),
        *(Metric(f"{name}_merged", "as " + name + ", of the box around all boxes of the phrase") for name, _ in _RANKS),
        *(Metric(f"r1_{name}", f"r1 of phrases of the type {name}", missing="no phrase is of it") for name in TYPES),
    )

    def load(self, folder: Path, variant: Variant) -> list[Item]:
        """Phrases in the order of the sentences."""
        phrases = read_phrases(folder, self.split(variant))
        if variant.exact:
            phrases = _first_of_equals(phrases)
        items = []
        for one in phrases:
            name = f"{one.picture}#{one.sentence}#{one.place}"
            image = beside(folder, f"flickr30k-images/{one.picture}.jpg", f"images/{one.picture}.jpg")
            items.append(Item(name, str(image), (one.boxes, one.types), asked=(one.text, one.before, variant.exact)))
        return items

    def steps(self, item: Item) -> Steps:
        """The phrase behind the words before it."""
        text, before, exact = item.asked
        step = asked_phrase(Path(item.image), text, before, exact)
        return found_boxes(step, (yield step), text)

    def score(self, item: Item, prediction: Mapping[str, Any]) -> dict[str, Part]:
        """See METRICS."""
        said = corners(prediction)
        true, types = item.truth
        around = [merged(true)]
        parts: dict[str, Part] = {}
        for name, k in _RANKS:
            parts[name] = (float(hit(said, true, k)), 1.0)
            parts[f"{name}_merged"] = (float(hit(said, around, k)), 1.0)
        return parts | {f"r1_{kind}": parts["r1"] for kind in types if kind in TYPES}


def _first_of_equals(phrases: Sequence[Phrase]) -> list[Phrase]:
    """As in the authors' script: a phrase that is twice in a sentence has the words before its first place."""
    first: dict[tuple[str, int, str], str] = {}
    return [replace(one, before=first.setdefault((one.picture, one.sentence, one.text), one.before)) for one in phrases]


ENTITIES = Flickr30kEntities()
