"""Raven's matrices, web pages and birds with descriptions (KOSMOS-1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kosmos_edge.errors import ContextTooLong, InvalidRequest
from kosmos_edge.evaluation.metrics.answers import exact_match, f1
from kosmos_edge.evaluation.pages import read_text
from kosmos_edge.evaluation.statistics import Metric, Part
from kosmos_edge.evaluation.task import Generate, Item, Rank, Steps, Variant
from kosmos_edge.evaluation.tasks.common import Prompted, answer, best, first_line, short, sums
from kosmos_edge.evaluation.tasks.records import find, number_of, read_json, read_rows, reading, texts_of
from kosmos_edge.inference.web_text import visible_text

_COUNTS = {3: "three", 4: "four", 8: "eight"}


class Iq50(Prompted):
    """Which of six images goes on with the others."""

    NAME = "iq50"
    SUMMARY = "Raven's matrices, the most likely of six images: accuracy."
    FILES = 'items.json: [{"id", "images": [3, 4 or 8 paths], "candidates": [6 paths], "answer": 0..5}]'
    PROMPT = "Here are {three|four|eight} images:{images} The following image is:{candidate} Is it correct?"
    METRICS = (
        Metric("accuracy", "items whose right candidate has the highest p(Yes)"),
        Metric("margin", "the same by p(Yes) / (p(Yes) + p(No)); not the paper's"),
    )

    def load(self, folder: Path, variant: Variant) -> list[Item]:
        """The items in order."""
        path = find(folder, "items.json")
        items = []
        with reading(path) as records:
            for one in records.each(read_json(path)):
                images, candidates = ([folder / name for name in one[key]] for key in ("images", "candidates"))
                if len(images) not in _COUNTS or len(candidates) != 6:
                    raise ValueError(f"item {one['id']}: expected 3, 4 or 8 images, 6 candidates, an answer 0..5")
                answer = number_of(one["answer"], "answer", 6)
                items.append(Item(str(one["id"]), str(images[0]), answer, asked=(images, candidates)))
        return items

    def steps(self, item: Item) -> Steps:
        """p(Yes) behind each candidate; what comes before it is computed once."""
        images, candidates = item.asked
        yes, no = [], []
        for candidate in candidates:
            segments = [f"Here are {_COUNTS[len(images)]} images:", *images, " The following image is:", candidate]
            scores = sums((yield Rank([*segments, " Is it correct? "], ["Yes", "No"])))
            yes.append(scores["Yes"])
            no.append(scores["No"])
        margins = [a - b for a, b in zip(yes, no, strict=True)]
        choices = {"choice": yes.index(max(yes)), "margin": margins.index(max(margins))}
        return choices | {"yes": yes, "no": no}

    def score(self, item: Item, prediction: Mapping[str, Any]) -> dict[str, Part]:
        """See METRICS."""
        return {
            "accuracy": (float(prediction.get("choice") == item.truth), 1.0),
            "margin": (float(prediction.get("margin") == item.truth), 1.0),
        }


class WebSrc(Prompted):
    """Questions about a web page, with its screenshot, and with its text or without."""

    METRICS = (Metric("em", "exact match, as SQuAD's"), Metric("f1", "F1 of words, as SQuAD's"))
    FILES = (
        "{domain}/{number}/dataset.csv and processed_data/{page}.html and .png, dataset_split.csv (its dev split; "
        "without the file all questions)"
    )
    _FRAME = (
        "Given the context below from web page, extract the answer from the given text like this: Qusestion: Who is "
        "the publisher of this book? Answer: Penguin Books Ltd."
    )
    _TOKENS = 64

    def __init__(self, name: str, text: bool) -> None:
        self.NAME, self._text = name, text
        with_text = "with" if text else "without"
        self.SUMMARY = f"Questions about web pages, WebSRC, {with_text} their text: EM, F1."
        self.PROMPT = self._FRAME + (" Context: {WebText}" if text else "") + " Q: {question} A:"

    def load(self, folder: Path, variant: Variant) -> list[Item]:
        """The questions of all sets of pages of the dev split."""
        dev = _dev_sets(folder)
        items = []
        for path in sorted(folder.glob("*/*/dataset.csv")):
            if dev is not None and (path.parent.parent.name, _number(path.parent.name)) not in dev:
                continue
            with reading(path) as records:
                for row in records.each(read_rows(path, ("question", "id", "answer"))):
                    page = _page(path.parent / "processed_data", row["id"])
                    truth, image = row["answer"], page.with_suffix(".png")
                    items.append(Item(row["id"], str(image), truth, path.parent.parent.name, (row["question"], page)))
        if not items:
            which = "{domain}/{number}/dataset.csv" + (" of the dev split of dataset_split.csv" if dev else "")
            raise InvalidRequest(f"--data: {folder} has no {which}, or these have no questions")
        return items

    def steps(self, item: Item) -> Steps:
        """Greedily. A page's text that does not fit into the context is cut at its end."""
        question, page = item.asked
        words = visible_text(read_text(page)).split(" ") if self._text else []
        kept = len(words)
        while True:
            places = {"{question}": question, "{WebText}": " ".join(words[:kept])}
            prompt = re.sub(r"\{\w+\}", lambda found, places=places: places[found[0]], self.PROMPT)  # type: ignore[misc]
            segments = [Path(item.image), prompt]
            try:
                result = yield Generate("generate", {"segments": segments, "max_tokens": self._TOKENS})
            except ContextTooLong:
                if kept <= 1:
                    raise
                kept -= max(kept // 8, 1)
            else:
                return answer(result) | ({"words": [kept, len(words)]} if kept < len(words) else {})

    def score(self, item: Item, prediction: Mapping[str, Any]) -> dict[str, Part]:
        """See METRICS."""
        said = short(prediction.get("text", ""))
        return {"em": (exact_match(said, [item.truth]), 1.0), "f1": (f1(said, [item.truth]), 1.0)}


def _dev_sets(folder: Path) -> set[tuple[str, str]] | None:
    """(domain, number) of the dev split's sets of pages; None without the file that says so."""
    path = folder / "dataset_split.csv"
    if not path.is_file():
        return None
    rows = read_rows(path, ("domain", "number", "split"))
    found = {(row["domain"], _number(row["number"])) for row in rows if row["split"] == "dev"}
    if not found:
        raise InvalidRequest(f"{path}: no row has the split dev")
    return found


def _number(text: str) -> str:
    """01 and 1 are one number."""
    return text.lstrip("0") or text


def _page(folder: Path, id: str) -> Path:
    """The page of a question: its number is in the id."""
    named = folder / f"{id[2:9]}.html"
    if named.is_file():
        return named
    found = sorted(path for path in folder.glob("*.html") if path.stem in id)
    if not found:
        raise InvalidRequest(f"{folder}: no page for the question {id}")
    return found[-1]


class Birds(Prompted):
    """Two kinds of a bird, told apart by their descriptions or by their names alone."""

    FILES = (
        'groups.json: [{"category", "names": [a, b], "descriptions": [of a, of b], "images": {a: [paths], b: [paths]}}]'
    )
    METRICS = (
        Metric("accuracy", "answers that name the right kind and not the other"),
        Metric("likelihood", "items whose right name is the likelier one; not the paper's"),
    )

    def __init__(self, name: str, described: bool) -> None:
        self.NAME, self._described = name, described
        what = "their descriptions" if described else "their names alone"
        self.SUMMARY = f"Two kinds of birds, told apart by {what}: accuracy."
        before = (
            "Description of {a}: {text of a} Description of {b}: {text of b}"
            if described
            else "The {category} is either {a} or {b}."
        )
        self.PROMPT = before + "{image}Question: what is the name of the {category} in the picture? Answer:"

    def load(self, folder: Path, variant: Variant) -> list[Item]:
        """The images of all groups."""
        path = find(folder, "groups.json")
        items = []
        with reading(path) as records:
            for group in records.each(read_json(path)):
                names, texts = (texts_of(group[key], key) for key in ("names", "descriptions"))
                if len(set(names)) != 2 or len(names) != 2 or len(texts) != 2 or not all(map(_words, names)):
                    raise ValueError(f"group {list(names)}: expected two different names and two descriptions")
                if sorted(group["images"]) != sorted(names):
                    raise ValueError(f"images: expected those of {' and '.join(names)}, got {list(group['images'])}")
                for place, name in enumerate(names):
                    asked = (group["category"], names, texts)
                    for image in group["images"][name]:
                        items.append(Item(image, str(folder / image), place, group["category"], asked))
        return items

    def steps(self, item: Item) -> Steps:
        """An answer in free words, then the two names ranked."""
        category, names, texts = item.asked
        if self._described:
            before = " ".join(f"Description of {n}: {text}" for n, text in zip(names, texts, strict=True))
        else:
            before = f"The {category} is either {names[0]} or {names[1]}."
        question = f"Question: what is the name of the {category} in the picture? Answer:"
        image = Path(item.image)
        said = yield Generate("generate", {"segments": [before, image, question], "max_tokens": 32})
        scores = sums((yield Rank([before, image, f"{question} "], names)))
        return {"text": said.text, "likelier": names.index(best(scores)), "finish_reason": said.finish_reason}

    def score(self, item: Item, prediction: Mapping[str, Any]) -> dict[str, Part]:
        """See METRICS."""
        _, names, _ = item.asked
        said = [_names(prediction.get("text", ""), name, names[1 - place]) for place, name in enumerate(names)]
        right = said[item.truth] and not said[1 - item.truth]
        likelier = prediction.get("likelier") == item.truth
        return {"accuracy": (float(right), 1.0), "likelihood": (float(likelier), 1.0)}


def _names(text: str, name: str, other: str) -> bool:
    """Whether a text has the name, or its first word if the other name does not have that."""
    said, words, others = map(_words, (first_line(text), name, other))
    whole = any(said[i : i + len(words)] == words for i in range(len(said)))
    return whole or (words[0] in said and words[0] not in others)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


IQ50 = Iq50()
WEBSRC = WebSrc("websrc", True)
WEBSRC_PICTURE = WebSrc("websrc-picture", False)
BIRDS = Birds("bird-descriptions", True)
BIRDS_NAMES = Birds("bird-names", False)
