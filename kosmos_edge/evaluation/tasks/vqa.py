"""Questions about images with ten people's answers: VQAv2 and VizWiz (KOSMOS-1 and KOSMOS-2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_edge.evaluation.metrics.vqa import accuracy
from kosmos_edge.evaluation.statistics import Metric, Part
from kosmos_edge.evaluation.task import Generate, Item, Steps, Variant
from kosmos_edge.evaluation.tasks.common import Prompted, answer, draw, short
from kosmos_edge.evaluation.tasks.records import beside, find, read_json, reading, text_of

_METRICS = (Metric("vqa_accuracy", "mean over people of min(1, others who said so / 3)"),)
PROMPT = "Question: {question} Answer:"


@dataclass(frozen=True, slots=True)
class Question:
    """A question about an image; answers is None where they are secret."""

    id: str
    image: Path
    question: str
    answers: tuple[str, ...] | None
    example: str  # the answer it has as an example
    kinds: tuple[str, ...] = ()  # of the answer and of the question, where the data say them


class _Questions(Prompted):
    METRICS = _METRICS
    SHOTS = 8
    PROMPT = PROMPT

    def read(self, folder: Path, split: str) -> list[Question]:
        """The questions of a split."""
        raise NotImplementedError

    def load(self, folder: Path, variant: Variant) -> list[Item]:
        """One item per question; examples are drawn from the training split."""
        train = self.read(folder, self.SPLITS[-1]) if variant.shots else []
        items = []
        for one in self.read(folder, self.split(variant)):
            shots = draw(train, variant.shots, variant, one.id, lambda other, own=one: other.image == own.image)
            items.append(Item(one.id, str(one.image), one.answers, one.kinds, (one.question, shots)))
        return items

    def steps(self, item: Item) -> Steps:
        """The question behind the examples, greedily."""
        question, shots = item.asked
        segments: list[Any] = []
        for shot in shots:
            segments += [shot.image, f"{PROMPT.format(question=shot.question)} {shot.example}"]
        segments += [Path(item.image), PROMPT.format(question=question)]
        return answer((yield Generate("generate", {"segments": segments})))

    def score(self, item: Item, prediction: Mapping[str, Any]) -> dict[str, Part]:
        """Nothing where the answers are secret."""
        if item.truth is None:
            return {}
        return {"vqa_accuracy": (accuracy(short(prediction.get("text", "")), item.truth), 1.0)}


class VqaV2(_Questions):
    """VQAv2, or OK-VQA in the same form."""

    NAME = "vqav2"
    SUMMARY = "Questions of VQAv2: VQA accuracy."
    FILES = (
        "v2_OpenEnded_mscoco_{split}_questions.json, v2_mscoco_{split}_annotations.json (not for test splits, which a "
        "server scores: --out), and the images in {split}/COCO_{split}_000000000042.jpg"
    )
    SPLITS = ("val2014", "test-dev2015", "test2015", "train2014")

    def read(self, folder: Path, split: str) -> list[Question]:
        """Questions with their annotations."""
        path = find(folder, f"v2_OpenEnded_mscoco_{split}_questions.json", f"OpenEnded_mscoco_{split}_questions.json")
        known: dict[Any, Any] = {}
        if not split.startswith("test"):
            truth = find(folder, f"v2_mscoco_{split}_annotations.json", f"mscoco_{split}_annotations.json")
            with reading(truth) as records:
                known = {one["question_id"]: self._truth(one) for one in records.each(read_json(truth)["annotations"])}
        pictures = "test2015" if split.startswith("test") else split
        out = []
        with reading(path) as records:
            for one in records.each(read_json(path)["questions"]):
                id, question = one["question_id"], text_of(one["question"], "question")
                if not split.startswith("test") and id not in known:
                    raise ValueError(f"question {id} has no annotation in {truth}")
                image = beside(folder, f"{pictures}/COCO_{pictures}_{int(one['image_id']):012d}.jpg")
                out.append(Question(str(id), image, question, *known.get(id, (None, "", ()))))
        return out

    @staticmethod
    def _truth(one: Mapping[str, Any]) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
        """(answers, the one it has as an example, kinds). OK-VQA has no multiple_choice_answer."""
        answers = tuple(str(each["answer"]) for each in one["answers"])
        example = one["multiple_choice_answer"] if "multiple_choice_answer" in one else _most_frequent(answers)
        if not answers:
            raise ValueError(f"question {one['question_id']} has no answers")
        return answers, str(example), (str(one["answer_type"]), str(one["question_type"]))

    def results(self, items: Sequence[Item], predictions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """[{"question_id", "answer"}], as the server takes it."""
        return [
            {"question_id": int(item.id), "answer": short(prediction.get("text", ""))}
            for item, prediction in zip(items, predictions, strict=True)
        ]


class VizWiz(_Questions):
    """VizWiz."""

    NAME = "vizwiz"
    SUMMARY = "Questions of blind people, VizWiz: VQA accuracy."
    FILES = "val.json (or Annotations/val.json; test.json for the server: --out), and the images in val/"
    SPLITS = ("val", "test", "train")

    def read(self, folder: Path, split: str) -> list[Question]:
        """Questions with their answers."""
        path = find(folder, f"{split}.json", f"Annotations/{split}.json")
        out = []
        with reading(path) as records:
            for one in records.each(read_json(path)):
                given = one["answers"] if split != "test" else None
                answers = None if given is None else tuple(str(each["answer"]) for each in given)
                example = "" if answers is None else _most_frequent(answers)
                image = beside(folder, f"{split}/{one['image']}", one["image"], f"Images/{split}/{one['image']}")
                kinds = (str(one["answer_type"]),) if "answer_type" in one else ()
                question = text_of(one["question"], "question", empty=True)  # some people only took a picture
                out.append(Question(one["image"], image, question, answers, example, kinds))
        return out

    def results(self, items: Sequence[Item], predictions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """[{"image", "answer"}], as the server takes it."""
        return [
            {"image": item.id, "answer": short(prediction.get("text", ""))}
            for item, prediction in zip(items, predictions, strict=True)
        ]


def _most_frequent(answers: Sequence[str]) -> str:
    """The first of equally frequent ones."""
    if not answers:
        raise ValueError("answers: expected people's answers, got none")
    return Counter(answers).most_common(1)[0][0]


VQAV2 = VqaV2()
VIZWIZ = VizWiz()
