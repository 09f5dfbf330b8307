"""Pages as Markdown, as in MarkdownEval of the KOSMOS-2.5 paper (arXiv 2309.11419v2, A.3)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kosmos_edge.evaluation import pages
from kosmos_edge.evaluation.statistics import Metric, Part
from kosmos_edge.evaluation.task import Item
from kosmos_edge.evaluation.text_metrics import plain_markdown, similarity
from kosmos_edge.results import Result

NAME = "markdown"
SUMMARY = "Pages as Markdown: NED."
FILES = "images (sub-folders are searched), and beside each its Markdown: page.png and page.md"
METRICS = (
    Metric("ned", "1 - edits / length of the longer text, mean over pages"),
    Metric(
        "nted",
        "1 - tree edits / nodes of the larger tree, mean over pages",
        missing="not computed: the packages for the distance of trees (zss, apted) have not been kept since 2018",
    ),
)


def load(folder: Path) -> list[Item]:
    """Images and their Markdown."""
    return [
        Item(name, str(picture), pages.read_text(pages.beside(picture, (".md",), FILES)), pages.group_of(name))
        for name, picture in pages.pictures_in(folder)
    ]


def request(item: Item) -> tuple[str, dict[str, Any]]:
    """The Markdown task of the model."""
    return "read", {"markdown": True}


def prompt(info: Mapping[str, Any]) -> str:
    """The model's tag of the task."""
    return str(info["prompts"].get("markdown", ""))


def predict(result: Result) -> dict[str, Any]:
    """The text, and whether it was cut."""
    return {"text": result.text, "finish_reason": result.finish_reason}


def score(item: Item, prediction: Mapping[str, Any]) -> dict[str, Part]:
    """See METRICS."""
    return {"ned": similarity(plain_markdown(prediction["text"]), plain_markdown(item.truth))}
