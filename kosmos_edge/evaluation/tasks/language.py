"""The eight language tasks of KOSMOS-1 from their published files. No image is shown.

The papers do not print their prompts; these have lm-evaluation-harness's form, which runs them as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_edge.evaluation.pages import read_text
from kosmos_edge.evaluation.statistics import Metric, Part
from kosmos_edge.evaluation.task import Item, Rank, Steps, Variant
from kosmos_edge.evaluation.tasks.common import Prompted, draw
from kosmos_edge.evaluation.tasks.records import find, number_of, read_lines, read_rows, reading, text_of, texts_of

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

    def __post_init__(self) -> None:
        """ValueError for a question without choices, an empty text, or an answer that is none of the choices."""
        texts_of(self.contexts, "context")
        texts_of(self.endings, "ending")
        number_of(self.answer, "answer", max(len(self.contexts), len(self.endings)))

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
        read: Callable[[Any], Question],
        records: Callable[[Path], Iterable[Any]] = read_lines,
    ) -> None:
        self.NAME, self.PROMPT, self._tests, self._trains = name, prompt, tests, trains
        self._read, self._records = read, records
        self.SUMMARY = f"{title}, text alone: accuracy."
        self.FILES = f"{' or '.join(tests)}, and for --shots {' or '.join(trains)}"

    def load(self, folder: Path, variant: Variant) -> list[Item]:
        """The questions in order; examples are drawn from the training file."""
        path = find(folder, *self._tests)
        questions = self._questions(path)
        pool = questions
        if variant.shots and (training := find(folder, *self._trains)) != path:
            pool = self._questions(training)
        items = []
        for number, one in enumerate(questions, 1):
            shots = draw(pool, variant.shots, variant, str(number), lambda other, own=one: other == own)
            before = "".join(shot.whole() + "\n\n" for shot in shots)
            items.append(Item(str(number), "", one.answer, asked=(before, one)))
        return items

    def _questions(self, path: Path) -> list[Question]:
        with reading(path) as records:
            return [self._read(one) for one in records.each(self._records(path))]

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


_SENTENCES = tuple(f"InputSentence{n}" for n in (1, 2, 3, 4))
_ENDINGS = "RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2"


def _storycloze_rows(path: Path) -> Iterable[Any]:
    return read_rows(path, (*_SENTENCES, *_ENDINGS, "AnswerRightEnding"))


def _storycloze(row: Mapping[str, str]) -> Question:
    context = " ".join(row[name] for name in _SENTENCES)
    answer = number_of(row["AnswerRightEnding"], "AnswerRightEnding", 2, 1)
    return Question((context,), tuple(row[name] for name in _ENDINGS), answer)


def _hellaswag(one: Mapping[str, Any]) -> Question:
    context = f"{one['activity_label']}: {one['ctx_a']} {one['ctx_b'].capitalize()}"
    endings = tuple(_plain(text) for text in one["endings"])
    return Question((_plain(context),), endings, number_of(one["label"], "label", len(endings)))


def _plain(text: str) -> str:
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


_POSSESSIVE = {"my", "his", "her", "our", "their"}
_LOWERED = {"A", "An", "The", "She", "He", "It", "They", "My", "His", "Her", "Their"}


def _winograd(one: Mapping[str, Any]) -> Question:
    text, pronoun, place = one["text"], one["pronoun"], int(one["pronoun_loc"])
    if text[place : place + len(pronoun)].lower() != pronoun.lower():
        raise ValueError(f"pronoun_loc: expected where {pronoun!r} is, got {place}: {text[place : place + 20]!r}")
    begins = place < 2 or text[place - 2] == "."
    contexts = []
    for option in texts_of(one["options"], "options"):
        if pronoun.lower() in _POSSESSIVE:
            option += "'s"
        first = option.split()[0]
        if first in _LOWERED and not begins:
            option = option.replace(first, first.lower(), 1)
        contexts.append(text[:place] + option)
    answer = number_of(one["label"], "label", len(contexts))
    return Question(tuple(contexts), (text[place + len(pronoun) :].strip(),), answer)


def _winogrande(one: Mapping[str, Any]) -> Question:
    before, gap, after = one["sentence"].partition("_")
    if not gap:
        raise ValueError(f"sentence: expected _ for the option, got {one['sentence']!r}")
    contexts = tuple(before + text_of(one[f"option{n}"], f"option{n}") for n in (1, 2))
    return Question(contexts, (after.strip(),), number_of(one["answer"], "answer", 2, 1))


def _piqa_records(path: Path) -> Iterable[Any]:
    file = find(path.parent, f"{path.stem}-labels.lst")
    records, labels = read_lines(path), read_text(file).split()
    if len(records) != len(labels):
        raise ValueError(f"expected a label for each of {len(records)} questions, got {len(labels)} in {file}")
    return zip(records, labels, strict=True)


def _piqa(labelled: tuple[Mapping[str, Any], str]) -> Question:
    one, label = labelled
    context = f"Question: {text_of(one['goal'], 'goal')}\nAnswer:"
    return Question((context,), (one["sol1"], one["sol2"]), number_of(label, "label", 2))


def _boolq(one: Mapping[str, Any]) -> Question:
    truth = one["label"] if "label" in one else one["answer"]
    context = f"{text_of(one['passage'], 'passage')}\nQuestion: {one['question'].removesuffix('?')}?\nAnswer:"
    return Question((context,), ("no", "yes"), int(truth) if isinstance(truth, bool) else number_of(truth, "label", 2))


_CB = ("entailment", "contradiction", "neutral")


def _cb(one: Mapping[str, Any]) -> Question:
    premise, hypothesis = (text_of(one[name], name) for name in ("premise", "hypothesis"))
    context = f"{premise}\nQuestion: {hypothesis}. True, False, or Neither?\nAnswer:"
    return Question((context,), ("True", "False", "Neither"), _CB.index(one["label"]))


_COPA = {"cause": "because", "effect": "therefore"}


def _copa(one: Mapping[str, Any]) -> Question:
    context = f"{one['premise'].strip().removesuffix('.')} {_COPA[one['question']]}"
    endings = tuple(one[name][:1].lower() + one[name][1:] for name in ("choice1", "choice2"))
    return Question((context,), endings, number_of(one["label"], "label", 2))


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
    _storycloze_rows,
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
PIQA = Language(
    "piqa",
    "PIQA",
    "Question: {goal}\nAnswer: {solution}",
    ("valid.jsonl",),
    ("train.jsonl",),
    _piqa,
    _piqa_records,
)
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
