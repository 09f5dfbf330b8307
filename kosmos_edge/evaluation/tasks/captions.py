"""Captions of COCO and Flickr30k on the Karpathy test splits (KOSMOS-1 and KOSMOS-2)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kosmos_edge.evaluation.metrics import bleu, cider_d, java, meteor, ptb, rouge_l
from kosmos_edge.evaluation.statistics import Metric, Part
from kosmos_edge.evaluation.task import Finish, Generate, Item, Steps, Variant
from kosmos_edge.evaluation.tasks.common import Prompted, answer, draw, first_line
from kosmos_edge.evaluation.tasks.records import beside, find, read_json, reading, texts_of

LEAD_IN = "An image of"
_BEAMS, _TOKENS = 5, 64


@dataclass(frozen=True, slots=True)
class Shown:
    """An image with its captions."""

    image: Path
    captions: tuple[str, ...]


def _bleu(parts: Sequence[Part], *, order: int) -> float | None:
    return bleu.score(parts, order)


def caption_parts(said: Sequence[str], references: Sequence[Sequence[str]]) -> list[dict[str, Part]]:
    """The parts of all items in CIDEr-D, BLEU and ROUGE-L."""
    words = [ptb.words(text) for text in said]
    true = [[ptb.words(text) for text in group] for group in references]
    ciders = cider_d.scores(words, true)
    out: list[dict[str, Part]] = []
    for ours, theirs, value in zip(words, true, ciders, strict=True):
        counts = bleu.part(ours, theirs)
        out.append(
            {
                "cider": (value, 1.0),
                **{f"bleu{n}": counts for n in (1, 2, 3, 4)},
                "rouge_l": (rouge_l.score(ours, theirs), 1.0),
            }
        )
    return out


METEOR = Metric(
    "meteor",
    "METEOR 1.5 of all captions together, by pycocoevalcap and Java",
    value=meteor.score,
    missing=java.MISSING["meteor"],
)
CAPTION_METRICS = (
    Metric("cider", "CIDEr-D, mean over images, as papers print it; of a subset not comparable with the whole"),
    Metric("spice", "F1 of scene graphs, by pycocoevalcap and Java", missing=java.MISSING["spice"]),
    METEOR,
    *(Metric(f"bleu{n}", f"BLEU-{n} of the corpus", value=partial(_bleu, order=n)) for n in (1, 2, 3, 4)),
    Metric("rouge_l", "ROUGE-L, mean over images"),
)


class Captions(Prompted):
    """A data set in the Karpathy form, or COCO's own."""

    METRICS = CAPTION_METRICS
    SPLITS = ("test", "val")
    SHOTS = 8
    PROMPT = LEAD_IN

    def __init__(self, name: str, summary: str, files: str, lists: tuple[str, ...], folders: tuple[str, ...]) -> None:
        self.NAME, self.SUMMARY, self.FILES = name, summary, files
        self._lists, self._folders = lists, folders

    def load(self, folder: Path, variant: Variant) -> list[Item]:
        """One item per image; examples are drawn from train and restval."""
        path = find(folder, *self._lists)
        record = read_json(path)
        if isinstance(record, dict) and "annotations" in record:
            pool = self._coco(folder, path, record, "all")
            if variant.shots:
                training = find(folder, *(name.replace("val2014", "train2014") for name in self._lists[1:]))
                pool += self._coco(folder, training, read_json(training), "train")
        else:
            pool = self._karpathy(folder, path, record)
        train = [shown for split, _, shown in pool if split in ("train", "restval")]
        items = []
        for split, name, shown in pool:
            if split in (self.split(variant), "all"):
                shots = draw(train, variant.shots, variant, name, lambda other, own=shown: other.image == own.image)
                source = random.Random(f"{variant.seed}:{name}:caption")
                asked = [(other.image, example_text(source.choice(other.captions))) for other in shots]
                items.append(Item(name, str(shown.image), shown.captions, asked=asked))
        return items

    def _karpathy(self, folder: Path, path: Path, record: Any) -> list[tuple[str, str, Shown]]:
        out = []
        with reading(path) as records:
            for image in records.each(record["images"]):
                name = image["filename"]
                places = [f"{image['filepath']}/{name}"] if image.get("filepath") else []
                picture = beside(folder, *places, *(f"{place}/{name}" for place in self._folders), name)
                captions = texts_of([sentence["raw"] for sentence in image["sentences"]], "sentences")
                out.append((image["split"], str(image.get("cocoid", Path(name).stem)), Shown(picture, captions)))
        return out

    def _coco(self, folder: Path, path: Path, record: Any, split: str) -> list[tuple[str, str, Shown]]:
        captions: dict[int, list[str]] = {}
        folders = ("train2014",) if split == "train" else self._folders
        out = []
        with reading(path) as records:
            for annotation in records.each(record["annotations"]):
                captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
            for image in records.each(record["images"]):
                name = image["file_name"]
                picture = beside(folder, *(f"{place}/{name}" for place in folders), name)
                known = texts_of(captions.get(image["id"]), f"captions of image {image['id']}")
                out.append((split, str(image["id"]), Shown(picture, known)))
        return out

    def steps(self, item: Item) -> Steps:
        """A caption by five beams behind the examples."""
        segments = [part for image, text in item.asked for part in (image, text)]
        segments += [Path(item.image), LEAD_IN]
        result = yield Generate("generate", {"segments": segments, "num_beams": _BEAMS, "max_tokens": _TOKENS})
        return answer(result)

    def score(self, item: Item, prediction: Mapping[str, Any]) -> dict[str, Part]:
        """Every figure needs all images, or is made with them."""
        return {}

    def finish(self, items: Sequence[Item], predictions: Sequence[Mapping[str, Any]]) -> Finish:
        """All figures."""
        said = [first_line(prediction.get("text", "")) for prediction in predictions]
        references = [item.truth for item in items]
        parts = caption_parts(said, references)
        reasons = java.add(parts, said, references, ("meteor", "spice"))
        return Finish(parts, reasons)

    def results(self, items: Sequence[Item], predictions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """[{"image_id", "caption"}], as COCO's evaluation takes it."""
        return [
            {
                "image_id": int(item.id) if item.id.isdigit() else item.id,
                "caption": first_line(prediction.get("text", "")),
            }
            for item, prediction in zip(items, predictions, strict=True)
        ]


def example_text(caption: str) -> str:
    """The caption behind the lead-in: lower-cased at the front, unless its first word is all capitals."""
    text = " ".join(caption.split())
    word = text.partition(" ")[0]
    if len(word) == 1 or word != word.upper():
        text = text[:1].lower() + text[1:]
    return f"{LEAD_IN} {text}"


COCO = Captions(
    "coco-caption",
    "Captions of COCO, Karpathy test: CIDEr, SPICE.",
    "dataset_coco.json (Karpathy) or captions_val2014.json (also in annotations/; all its images, not the published "
    "split), and the images in val2014/ (for --shots train2014/, and captions_train2014.json beside the other)",
    ("dataset_coco.json", "captions_val2014.json", "annotations/captions_val2014.json"),
    ("val2014",),
)
FLICKR30K = Captions(
    "flickr30k-caption",
    "Captions of Flickr30k, Karpathy test: CIDEr, SPICE.",
    "dataset_flickr30k.json (Karpathy), and the images in flickr30k-images/ or images/",
    ("dataset_flickr30k.json",),
    ("flickr30k-images", "images"),
)
