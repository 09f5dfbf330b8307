"""Objects that are said to be there and are not: POPE and CHAIR on COCO. The KOSMOS papers have no figures of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kosmos_edge.evaluation.metrics import chair, pope
from kosmos_edge.evaluation.pages import read_text
from kosmos_edge.evaluation.statistics import Metric, Part
from kosmos_edge.evaluation.task import Generate, Item, Steps, Variant
from kosmos_edge.evaluation.tasks.common import Prompted, answer
from kosmos_edge.evaluation.tasks.records import beside, find, read_json, read_lines, reading, text_of

_TOKENS = 128


class Pope(Prompted):
    """Whether an object is in the image."""

    NAME = "pope"
    SUMMARY = "Is there ...? POPE on COCO: accuracy, precision, recall, F1, share of yes."
    FILES = "coco_pope_random.json, coco_pope_popular.json, coco_pope_adversarial.json (any of them), and val2014/"
    PROMPT = "Question: {text} Answer:"
    METRICS = (
        Metric("accuracy", "right answers / all", value=pope.accuracy),
        Metric("precision", "right yes / all yes", value=pope.precision, missing="no answer is yes"),
        Metric("recall", "right yes / objects that are there", value=pope.recall),
        Metric("f1", "harmonic mean of the two", value=pope.f1),
        Metric("yes_share", "how often the answer is yes; half of the objects are there", value=pope.yes_share),
    )

    def load(self, folder: Path, variant: Variant) -> list[Item]:
        """The questions of the files that are there, which are groups."""
        kinds = ("random", "popular", "adversarial")
        found = [(kind, path) for kind in kinds if (path := folder / f"coco_pope_{kind}.json").is_file()]
        if not found:
            find(folder, *(f"coco_pope_{kind}.json" for kind in kinds))
        items = []
        for kind, path in found:
            with reading(path) as records:
                for one in records.each(read_lines(path)):
                    if one["label"] not in ("yes", "no"):
                        raise ValueError(f"question {one['question_id']}: expected yes or no, got {one['label']!r}")
                    image = beside(folder, f"val2014/{one['image']}", one["image"])
                    name = f"{kind}/{one['question_id']}"
                    items.append(Item(name, str(image), one["label"] == "yes", kind, text_of(one["text"], "text")))
        return items

    def steps(self, item: Item) -> Steps:
        """Greedily."""
        prompt = self.PROMPT.replace("{text}", item.asked)
        result = yield Generate("generate", {"segments": [Path(item.image), prompt], "max_tokens": 16})
        return answer(result)

    def score(self, item: Item, prediction: Mapping[str, Any]) -> dict[str, Part]:
        """An image that failed counts as the wrong answer."""
        said = pope.says_yes(prediction["text"]) if prediction else not item.truth
        return {metric.name: pope.part(said, item.truth) for metric in self.METRICS}


class Chair(Prompted):
    """Descriptions in detail: objects that are not there."""

    NAME = "chair"
    SUMMARY = "Objects in descriptions that the image does not have, CHAIR on COCO."
    FILES = (
        "instances_val2014.json (also in annotations/), synonyms.txt (a line for each of COCO's 80 objects: name, "
        "synonym, ...), val2014/, and if there captions_val2014.json, whose objects count as there, too"
    )
    PROMPT = "Describe this image in detail:"
    METRICS = (
        Metric("chair_i", "names of absent objects / names of objects", False),
        Metric("chair_s", "descriptions that name an absent object / all", False),
    )

    def load(self, folder: Path, variant: Variant) -> list[Item]:
        """The images of the file in order."""
        path = find(folder, "instances_val2014.json", "annotations/instances_val2014.json")
        names = chair.read_names(read_text(find(folder, "synonyms.txt")))
        there: dict[int, set[str]] = {}
        with reading(path) as records:
            record = read_json(path)
            kinds = {one["id"]: chair.object_of(one["name"], names) for one in record["categories"]}
            for one in records.each(record["annotations"]):
                there.setdefault(one["image_id"], set()).add(kinds[one["category_id"]])
            captions = beside(folder, "captions_val2014.json", "annotations/captions_val2014.json")
            if captions.is_file():
                for one in read_json(captions)["annotations"]:
                    there.setdefault(one["image_id"], set()).update(chair.mentions(one["caption"], names))
            return [
                Item(
                    str(one["id"]),
                    str(beside(folder, f"val2014/{one['file_name']}", one["file_name"])),
                    (frozenset(there.get(one["id"], ())), names),
                )
                for one in record["images"]
            ]

    def steps(self, item: Item) -> Steps:
        """Greedily."""
        segments = [Path(item.image), self.PROMPT]
        return answer((yield Generate("generate", {"segments": segments, "max_tokens": _TOKENS})))

    def score(self, item: Item, prediction: Mapping[str, Any]) -> dict[str, Part]:
        """An image that failed has no part: it names nothing."""
        if not prediction:
            return {}
        there, names = item.truth
        objects, captions = chair.parts(chair.mentions(prediction["text"], names), there)
        return {"chair_i": objects, "chair_s": captions}


POPE = Pope()
CHAIR = Chair()
