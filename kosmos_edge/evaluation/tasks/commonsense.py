"""What words alone tell of sizes and colours (KOSMOS-1). No image is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kosmos_edge.evaluation.task import Item, Rank, Steps, Variant
from kosmos_edge.evaluation.tasks.common import Prompted, best, sums
from kosmos_edge.evaluation.tasks.records import find, read_lines, reading, text_of

COLORS = ("black", "white", "red", "green", "yellow", "blue", "brown", "orange", "pink", "purple", "grey")


class _Words(Prompted):
    _TEXTS: tuple[str, ...] = ()

    def item(self, record: dict[str, Any], number: int) -> Item:
        """The item of a line."""
        raise NotImplementedError

    def load(self, folder: Path, variant: Variant) -> list[Item]:
        """The lines in order."""
        path = find(folder, f"{self.NAME}.jsonl")
        with reading(path) as records:
            return [self.item(one, number) for number, one in enumerate(records.each(read_lines(path)), 1)]

    def steps(self, item: Item) -> Steps:
        """The answers by the sum of ln p of their tokens."""
        scores = sums((yield Rank([f"{item.asked} "], self._TEXTS)))
        return {"choice": best({text: scores[text] for text in self._TEXTS}), "scores": scores}


class RelativeSize(_Words):
    """Which of two things is larger."""

    NAME = "relative-size"
    SUMMARY = "Which of two things is larger, from words alone: accuracy."
    FILES = 'relative-size.jsonl: lines {"a", "b", "answer": true or false}; things have their article'
    PROMPT = "Is {a} larger than {b}?"
    _TEXTS = ("Yes", "No")

    def item(self, record: dict[str, Any], number: int) -> Item:
        """A pair."""
        if not isinstance(record["answer"], bool):
            raise ValueError(f"answer: expected true or false, got {record['answer']!r}")
        truth = "Yes" if record["answer"] else "No"
        a, b = (text_of(record[name], name) for name in "ab")
        return Item(str(number), "", truth, asked=self.PROMPT.format(a=a, b=b))


class Color(_Words):
    """The colour of a thing."""

    PROMPT = "The color of {object} is?"
    _TEXTS = COLORS

    def __init__(self, name: str, title: str) -> None:
        self.NAME = name
        self.SUMMARY = f"Colours of things, {title}, from words alone: accuracy."
        self.FILES = (
            f'{name}.jsonl: lines {{"object", "color"}} with one of {", ".join(COLORS)}; objects have their article'
        )

    def item(self, record: dict[str, Any], number: int) -> Item:
        """A thing."""
        if record["color"] not in COLORS:
            raise ValueError(f"color: expected one of {', '.join(COLORS)}, got {record['color']!r}")
        thing = text_of(record["object"], "object")
        return Item(str(number), "", record["color"], asked=self.PROMPT.format(object=thing))


RELATIVE_SIZE = RelativeSize()
MEMORY_COLOR = Color("memory-color", "MemoryColor")
COLOR_TERMS = Color("color-terms", "ColorTerms")
