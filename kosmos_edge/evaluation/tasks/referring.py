"""Referring expressions, understood and made: RefCOCO, RefCOCO+ and RefCOCOg (KOSMOS-2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.metrics import boxes, java
from kosmos_edge.evaluation.statistics import Metric, Part
from kosmos_edge.evaluation.task import Finish, Generate, Item, Steps, Variant
from kosmos_edge.evaluation.tasks.boxes import asked_phrase, corners, found_boxes
from kosmos_edge.evaluation.tasks.captions import METEOR, caption_parts
from kosmos_edge.evaluation.tasks.common import Prompted, answer, draw, first_line
from kosmos_edge.evaluation.tasks.refs import read_references

_FILES = (
    "finetune_{name}_{{split}}.json (MDETR), or refs({kind}).p and instances.json (also in {name}/), or {name}.json "
    "(`eval convert-refs`), and the images in train2014/"
)


class Comprehension(Prompted):
    """The box of an expression; one item per expression."""

    EXACT = True
    PROMPT = "<grounding><phrase> {expression}</phrase>"
    METRICS = (
        Metric("accuracy", "expressions whose first box has an IoU >= 0.5"),
        Metric("mean", "the same of the mean of all boxes"),
        Metric("upper", "the same of the best of all boxes"),
    )

    def __init__(self, name: str, title: str, splits: tuple[str, ...]) -> None:
        self.NAME, self.SPLITS = name, splits
        self.SUMMARY = f"Referring expressions of {title} as boxes: accuracy."
        self.FILES = _FILES.format(name=name, kind="umd" if name == "refcocog" else "unc")

    def load(self, folder: Path, variant: Variant) -> list[Item]:
        """Expressions in the order of the objects."""
        return [
            Item(f"{one.id}#{number}", str(one.image), one.box, asked=(text, variant.exact))
            for one in read_references(folder, self.NAME, self.split(variant))
            for number, text in enumerate(one.expressions)
        ]

    def steps(self, item: Item) -> Steps:
        """The expression as a phrase."""
        text, exact = item.asked
        step = asked_phrase(Path(item.image), text, "", exact)
        return found_boxes(step, (yield step), text)

    def score(self, item: Item, prediction: Mapping[str, Any]) -> dict[str, Part]:
        """See METRICS."""
        said, true = corners(prediction), [item.truth]
        return {
            "accuracy": (float(boxes.hit(said, true, 1)), 1.0),
            "mean": (float(boxes.hit([boxes.mean(said)], true)), 1.0),
            "upper": (float(boxes.hit(said, true)), 1.0),
        }


class Generation(Prompted):
    """An expression for a box; one item per object."""

    NAME = "refcocog-reg"
    SUMMARY = "Expressions for boxes of RefCOCOg: METEOR, CIDEr."
    FILES = _FILES.format(name="refcocog", kind="umd")
    SPLITS = ("val", "test", "train")
    SHOTS = 4
    PROMPT = "<phrase> It</phrase>{box} is"
    METRICS = (
        METEOR,
        Metric("cider", "CIDEr-D, mean over objects; of a subset not comparable with the whole"),
    )

    def load(self, folder: Path, variant: Variant) -> list[Item]:
        """Objects; examples are drawn from the training split."""
        train = read_references(folder, "refcocog", "train") if variant.shots else []
        items = []
        for one in read_references(folder, "refcocog", self.split(variant)):
            x1, y1, x2, y2 = one.inside
            if x1 >= x2 or y1 >= y2:
                raise InvalidRequest(f"--data: the box {list(one.box)} of object {one.id} has no part in its image")
            shots = draw(train, variant.shots, variant, one.id, lambda other, own=one: other.image == own.image)
            items.append(Item(one.id, str(one.image), one.expressions, asked=(one.inside, shots)))
        return items

    def steps(self, item: Item) -> Steps:
        """The frame behind the examples, greedily."""
        box, shots = item.asked
        segments: list[Any] = []
        for shot in shots:
            segments += [shot.image, "<phrase> It</phrase>", shot.inside, f" is {shot.expressions[0]}."]
        segments += [Path(item.image), "<phrase> It</phrase>", box, " is"]
        return answer((yield Generate("generate", {"segments": segments, "raw": True})))

    def score(self, item: Item, prediction: Mapping[str, Any]) -> dict[str, Part]:
        """Every figure needs all items, or is made with them."""
        return {}

    def finish(self, items: Sequence[Item], predictions: Sequence[Mapping[str, Any]]) -> Finish:
        """All figures."""
        said = [first_line(prediction.get("text", "")).partition(".")[0].strip() for prediction in predictions]
        references = [item.truth for item in items]
        parts: list[dict[str, Part]] = [{"cider": one["cider"]} for one in caption_parts(said, references)]
        return Finish(parts, java.add(parts, said, references, ("meteor",)))


REFCOCO = Comprehension("refcoco", "RefCOCO", ("val", "testA", "testB"))
REFCOCO_PLUS = Comprehension("refcoco+", "RefCOCO+", ("val", "testA", "testB"))
REFCOCOG = Comprehension("refcocog", "RefCOCOg", ("val", "test"))
REFCOCOG_REG = Generation()
