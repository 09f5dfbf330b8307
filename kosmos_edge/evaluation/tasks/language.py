"""The eight language tasks of KOSMOS-1 from their published files. No image is shown.

The papers do not print their prompts; these have lm-evaluation-harness's form, which runs them as well.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_edge.evaluation.pages import read_text
from kosmos_edge.evaluation.statistics import Metric, Part
from kosmos_edge.evaluation.task import Item, Rank, Steps, Variant
from kosmos_edge.evaluation.tasks.common import Prompted, draw, find, read_lines, reading

_WAYS: tuple[tuple[str, Callable[[Any], float]], ...] = (
    ("acc", lambda row: row.logprob_sum),
    ("acc_norm", lambda row: row.logprob_sum / len(row.text)),
    ("acc_token", lambda row: row.logprob_mean),
)


@dataclass(frozen=True, slots=True)
class Question:
    """Endings to choose from behind a context; where the contexts differ, one ending behind each of them."""

    contexts: tuple[str, ...]
    endings: tuple[str, ...]
    answer: int

    def whole(self) -> str:
        """As an example: with its right ending."""
        context = self.contexts[self.answer if len(self.contexts) > 1 else 0]
        return f"{context} {self.endings[self.answer if len(self.endings) > 1 else 0]}"


class Language(Prompted):
    """A task of one file."""

    SHOTS = 8
    METRICS = (
        Metric("acc", "right by the sum of ln p of an ending's tokens"),
        Metric("acc_norm", "right by the sum divided by the ending's characters"),
        Metric("acc_token", "right by the mean of ln p"),
    )

    def __init__(
        self,
        name: str,
        title: str,
        prompt: str,
        tests: tuple[str, ...],
        trains: tuple[str, ...],
        read: Callable[[Path], Iterator[Question]],
    ) -> None:
        self.NAME, self.PROMPT, self._tests, self._trains, self._read = name, prompt, tests, trains, read
        self.SUMMARY = f"{title}, text alone: accuracy."
        self.FILES = f"{' or '.join(tests)}, and for --shots {' or '.join(trains)}"

    def load(self, folder: Path, variant: Variant) -> list[Item]:
        """The questions in order; examples are drawn from the training file."""
        path = find(folder, *self._tests)
        with reading(path):
            questions = list(self._read(path))
        pool = questions
        if variant.shots and (training := find(folder, *self._trains)) != path:
            with reading(training):
                pool = list(self._read(training))
        items = []
        for number, one in enumerate(questions, 1):
            shots = draw(pool, variant.shots, variant, str(number), lambda other, own=one: other == own)
            before = "".join(shot.whole() + "\n\n" for shot in shots)
            items.append(Item(str(number), "", one.answer, asked=(before, one)))
        return items

    def steps(self, item: Item) -> Steps:
        """The endings behind the one context, or the one ending behind each context."""
        before, one = item.asked
        if len(one.contexts) == 1:
            ranking = yield Rank([f"{before}{one.contexts[0]} "], list(dict.fromkeys(one.endings)))
            by_text = {row.text: row for row in ranking.ranking}
            rows = [by_text[text] for text in one.endings]
        else:
            rows = []
            for context in one.contexts:
                rows.append((yield Rank([f"{before}{context} "], list(one.endings))).best)
        scores = {name: [way(row) for row in rows] for name, way in _WAYS}
        return {name: each.index(max(each)) for name, each in scores.items()} | {"scores": scores["acc"]}

    def score(self, item: Item, prediction: Mapping[str, Any]) -> dict[str, Part]:
        """See METRICS."""
        return {name: (float(prediction.get(name) == item.truth), 1.0) for name, _ in _WAYS}


# ---- the files


def _storycloze(path: Path) -> Iterator[Question]:
    for row in csv.DictReader(read_text(path).splitlines()):
        context = " ".join(row[f"InputSentence{n}"] for n in (1, 2, 3, 4))
        endings = row["RandomFifthSentenceQuiz1"], row["RandomFifthSentenceQuiz2"]
        yield Question((context,), endings, int(row["AnswerRightEnding"]) - 1)


def _hellaswag(path: Path) -> Iterator[Question]:
    for one in read_lines(path):
        context = f"{one['activity_label']}: {one['ctx_a']} {one['ctx_b'].capitalize()}"
        yield Question((_plain(context),), tuple(_plain(text) for text in one["endings"]), int(one["label"]))


def _plain(text: str) -> str:
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


_POSSESSIVE = {"my", "his", "her", "our", "their"}
_LOWERED = {"A", "An", "The", "She", "He", "It", "They", "My", "His", "Her", "Their"}


def _winograd(path: Path) -> Iterator[Question]:
    for one in read_lines(path):
        text, pronoun, place = one["text"], one["pronoun"], int(one["pronoun_loc"])
        begins = place < 2 or text[place - 2] == "."
        contexts = []
        for option in one["options"]:
            if pronoun.lower() in _POSSESSIVE:
                option += "'s"
            first = option.split()[0]
            if first in _LOWERED and not begins:
                option = option.replace(first, first.lower(), 1)
            contexts.append(text[:place] + option)
        yield Question(tuple(contexts), (text[place + len(pronoun) :].strip(),), int(one["label"]))


def _winogrande(path: Path) -> Iterator[Question]:
    for one in read_lines(path):
        before, _, after = one["sentence"].partition("_")
        contexts = tuple(before + one[f"option{n}"] for n in (1, 2))
        yield Question(contexts, (after.strip(),), int(one["answer"]) - 1)


def _piqa(path: Path) -> Iterator[Question]:
    labels = read_text(path.with_name(f"{path.stem}-labels.lst")).split()
    for one, label in zip(read_lines(path), labels, strict=True):
        yield Question((f"Question: {one['goal']}\nAnswer:",), (one["sol1"], one["sol2"]), int(label))


def _boolq(path: Path) -> Iterator[Question]:
    for one in read_lines(path):
        truth = one["label"] if "label" in one else one["answer"]
        context = f"{one['passage']}\nQuestion: {one['question'].removesuffix('?')}?\nAnswer:"
        yield Question((context,), ("no", "yes"), int(truth))


_CB = ("entailment", "contradiction", "neutral")


def _cb(path: Path) -> Iterator[Question]:
    for one in read_lines(path):
        context = f"{one['premise']}\nQuestion: {one['hypothesis']}. True, False, or Neither?\nAnswer:"
        yield Question((context,), ("True", "False", "Neither"), _CB.index(one["label"]))


_COPA = {"cause": "because", "effect": "therefore"}


def _copa(path: Path) -> Iterator[Question]:
    for one in read_lines(path):
        context = f"{one['premise'].strip().removesuffix('.')} {_COPA[one['question']]}"
        endings = tuple(one[name][:1].lower() + one[name][1:] for name in ("choice1", "choice2"))
        yield Question((context,), endings, int(one["label"]))


_STORIES = (
    "cloze_test_test__spring2016 - cloze_test_ALL_test.csv",
    "cloze_test_val__spring2016 - cloze_test_ALL_val.csv",
)
STORYCLOZE = Language(
    "storycloze",
    "StoryCloze 2016",
    "{four sentences} {ending}",
    ("storycloze_test.csv", _STORIES[0]),
    ("storycloze_val.csv", _STORIES[1]),
    _storycloze,
)
HELLASWAG = Language(
    "hellaswag",
    "HellaSwag",
    "{activity}: {context} {ending}",
    ("hellaswag_val.jsonl",),
    ("hellaswag_train.jsonl",),
    _hellaswag,
)
WINOGRAD = Language(
    "winograd",
    "Winograd schemas (wsc273)",
    "{text with an option for the pronoun} {its end}",
    ("wsc273.jsonl",),
    ("wsc273.jsonl",),
    _winograd,
)
WINOGRANDE = Language(
    "winogrande",
    "Winogrande",
    "{sentence with an option} {its end}",
    ("dev.jsonl",),
    ("train_xl.jsonl", "train.jsonl"),
    _winogrande,
)
PIQA = Language("piqa", "PIQA", "Question: {goal}\nAnswer: {solution}", ("valid.jsonl",), ("train.jsonl",), _piqa)
BOOLQ = Language(
    "boolq",
    "BoolQ",
    "{passage}\nQuestion: {question}?\nAnswer: {no|yes}",
    ("val.jsonl", "dev.jsonl"),
    ("train.jsonl",),
    _boolq,
)
CB = Language(
    "cb",
    "CommitmentBank",
    "{premise}\nQuestion: {hypothesis}. True, False, or Neither?\nAnswer: {True|False|Neither}",
    ("val.jsonl",),
    ("train.jsonl",),
    _cb,
)
COPA = Language(
    "copa", "COPA", "{premise} {because|therefore} {choice}", ("val.jsonl",), ("train.jsonl",), _copa
)  # fmt: skip
