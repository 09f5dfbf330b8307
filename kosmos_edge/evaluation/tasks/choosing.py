"""Images with two or four answers to choose from: HatefulMemes, Rendered SST-2 (KOSMOS-1), SEED-Bench
(KOSMOS-2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.metrics import auc
from kosmos_edge.evaluation.pages import pictures_in, read_text
from kosmos_edge.evaluation.statistics import Metric, Part
from kosmos_edge.evaluation.task import Generate, Item, Rank, Steps, Variant
from kosmos_edge.evaluation.tasks.common import ACCURACY, Prompted, best, first_line, sums
from kosmos_edge.evaluation.tasks.records import (
    beside,
    find,
    number_of,
    read_json,
    read_lines,
    reading,
    text_of,
    texts_of,
)

_SENTIMENT = "Question: what is the sentiment of the opinion? Answer:"
_RATIONALE = "Introduce this picture in detail:"
_RATIONALE_TOKENS = 128


class HatefulMemes(Prompted):
    """Whether a meme is hateful; its text is not shown to the model."""

    NAME = "hatefulmemes"
    SUMMARY = "Hateful memes, validation: ROC AUC."
    FILES = "dev.jsonl or dev_seen.jsonl, and the images that it names (img/...)"
    PROMPT = "Question: does this picture contain real hate speech? Answer:"
    METRICS = (
        Metric("auc", "area under the ROC curve of ln p(yes) - ln p(no)", value=auc.of_parts, missing=auc.UNDEFINED),
        ACCURACY,
    )

    def load(self, folder: Path, variant: Variant) -> list[Item]:
        """The lines in order."""
        path = find(folder, "dev.jsonl", "dev_seen.jsonl")
        with reading(path) as records:
            return [
                Item(str(one["id"]), str(folder / one["img"]), ("no", "yes")[number_of(one["label"], "label", 2)])
                for one in records.each(read_lines(path))
            ]

    def steps(self, item: Item) -> Steps:
        """Both answers, ranked."""
        return {"scores": sums((yield Rank([Path(item.image), f"{self.PROMPT} "], ["yes", "no"])))}

    def score(self, item: Item, prediction: Mapping[str, Any]) -> dict[str, Part]:
        """An image that failed has the score 0: neither."""
        scores = prediction.get("scores", {"yes": 0.0, "no": 0.0})
        right = bool(prediction) and best(scores) == item.truth
        return {"auc": (scores["yes"] - scores["no"], float(item.truth == "yes")), "accuracy": (float(right), 1.0)}


class RenderedSst2(Prompted):
    """Whether a rendered sentence is positive or negative."""

    NAME = "rendered-sst2"
    SUMMARY = "Sentences as images, Rendered SST-2: accuracy."
    FILES = "test/positive/*.png and test/negative/*.png (also in rendered-sst2/)"
    SPLITS = ("test", "valid", "train")
    PROMPT = _SENTIMENT

    def load(self, folder: Path, variant: Variant) -> list[Item]:
        """The images of both folders."""
        items = []
        for truth in ("positive", "negative"):
            inside = f"{self.split(variant)}/{truth}"
            place = find(folder, inside, f"rendered-sst2/{inside}")
            items += [Item(f"{truth}/{name}", str(path), truth) for name, path in pictures_in(place)]
        return items

    def steps(self, item: Item) -> Steps:
        """Both answers, ranked."""
        scores = sums((yield Rank([Path(item.image), f"{_SENTIMENT} "], ["positive", "negative"])))
        return {"choice": best(scores), "scores": scores}


class RenderedSst2Cot(RenderedSst2):
    """The same behind what the model has first said about the image."""

    NAME = "rendered-sst2-cot"
    SUMMARY = "Rendered SST-2 with multimodal chain of thought: accuracy."
    PROMPT = f"{_RATIONALE} | {{rationale}} {_SENTIMENT}"

    def steps(self, item: Item) -> Steps:
        """A rationale, then both answers behind it."""
        image = Path(item.image)
        first = yield Generate("generate", {"segments": [image, _RATIONALE], "max_tokens": _RATIONALE_TOKENS})
        rationale = first.text.strip()
        scores = sums((yield Rank([image, f"{rationale} {_SENTIMENT} ".lstrip()], ["positive", "negative"])))
        return {"choice": best(scores), "scores": scores, "rationale": rationale}


class SeedBench(Prompted):
    """Questions with four answers about images."""

    NAME = "seed-bench"
    SUMMARY = "SEED-Bench, the questions about images: accuracy."
    FILES = "SEED-Bench.json, and the images in SEED-Bench-image/ (or beside the file)"
    PROMPT = "Question: {question} Answer: {choice}"

    def load(self, folder: Path, variant: Variant) -> list[Item]:
        """The questions about images, in order; the types of questions are groups."""
        path = find(folder, "SEED-Bench.json")
        with reading(path) as records:
            record = read_json(path)
            types = {number: name for name, number in record["question_type"].items()}
            items = []
            for one in records.each(record["questions"]):
                if one["data_type"] == "image":
                    question = " ".join(text_of(one["question"], "question").split("\n"))
                    choices = texts_of([str(one[f"choice_{letter}"]).strip() for letter in "abcd"], "choices")
                    if one["answer"] not in ("A", "B", "C", "D"):
                        raise ValueError(f"answer: expected A, B, C or D, got {one['answer']!r}")
                    image = beside(folder, f"SEED-Bench-image/{one['data_id']}", one["data_id"])
                    group = str(types[one["question_type_id"]])
                    asked = (question, choices)
                    items.append(Item(str(one["question_id"]), str(image), one["answer"], group, asked))
        return items

    def steps(self, item: Item) -> Steps:
        """The four answers by mean ln p of their tokens, the first of equals."""
        question, choices = item.asked
        ranking = yield Rank([Path(item.image), f"Question: {question} Answer: "], _distinct(choices), "mean")
        scores = {row.text: row.logprob_mean for row in ranking.ranking}
        each = [scores[text] for text in choices]
        return {"choice": "ABCD"[each.index(max(each))], "scores": each}


def _distinct(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(texts))


class ImageNet(Prompted):
    """The class of a photo, decoded freely or as one of the 1000 names."""

    FILES = (
        "val/{wnid}/*.JPEG, and classnames.txt (1000 lines in the order of the sorted wnids) or LOC_synset_mapping.txt "
        "(wnid and names, of which the first counts)"
    )
    PROMPT = "The photo of the"
    _BEAMS = 2

    def __init__(self, name: str, constrained: bool) -> None:
        self.NAME, self._constrained = name, constrained
        self.SCORE = constrained
        how = "one of the class names" if constrained else "free text"
        self.SUMMARY = f"ImageNet validation, the answer is {how}: accuracy."

    def load(self, folder: Path, variant: Variant) -> list[Item]:
        """The photos of all classes."""
        classes = sorted(path.name for path in find(folder, "val").iterdir() if path.is_dir())
        names = self._names(folder, classes)
        listed = [names[wnid] for wnid in classes]
        return [
            Item(f"{wnid}/{name}", str(path), names[wnid], asked=(listed, variant.score))
            for wnid in classes
            for name, path in pictures_in(folder / "val" / wnid)
        ]

    def _names(self, folder: Path, classes: list[str]) -> dict[str, str]:
        path = find(folder, "classnames.txt", "LOC_synset_mapping.txt")
        lines = [line.strip() for line in read_text(path).split("\n") if line.strip()]
        if path.name == "classnames.txt":
            if len(lines) != len(classes):
                raise InvalidRequest(f"{path}: expected {len(classes)} lines, one for each class, got {len(lines)}")
            return dict(zip(classes, lines, strict=True))
        pairs = (line.partition(" ") for line in lines)
        known = {wnid: names.partition(",")[0].strip() for wnid, _, names in pairs}
        if missing := [wnid for wnid in classes if not known.get(wnid)]:
            raise InvalidRequest(f"{path}: no name for {missing[0]}")
        return known

    def steps(self, item: Item) -> Steps:
        """By two beams; or the likeliest of all names."""
        names, scored = item.asked
        if scored:
            scores = sums((yield Rank([Path(item.image), f"{self.PROMPT} "], _distinct(names))))
            return {"text": best({name: scores[name] for name in names})}
        arguments: dict[str, Any] = {"segments": [Path(item.image), self.PROMPT], "num_beams": self._BEAMS}
        if self._constrained:
            arguments["choices"] = _distinct(names)
        else:
            arguments["max_tokens"] = 32
        result = yield Generate("generate", arguments)
        return {"text": result.text, "finish_reason": result.finish_reason}

    def score(self, item: Item, prediction: Mapping[str, Any]) -> dict[str, Part]:
        """Exact, but for case, blanks around and one final full stop."""
        said = first_line(prediction.get("text", "")).lower().removesuffix(".")
        return {"accuracy": (float(said == item.truth.lower()), 1.0)}


HATEFUL_MEMES = HatefulMemes()
RENDERED_SST2 = RenderedSst2()
RENDERED_SST2_COT = RenderedSst2Cot()
SEED_BENCH = SeedBench()
IMAGENET = ImageNet("imagenet", True)
IMAGENET_FREE = ImageNet("imagenet-free", False)
