"""Reading pages: text and lines against the truth, as in OCREval of the KOSMOS-2.5 paper (arXiv 2309.11419v2, A.2)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kosmos_edge.evaluation import pages
from kosmos_edge.evaluation.statistics import Metric, Part
from kosmos_edge.evaluation.task import Item
from kosmos_edge.evaluation.text_metrics import (
    character_errors,
    matched_lines,
    matched_words,
    overlap,
    plain,
    precision_recall_f1,
    similarity,
    word_errors,
)
from kosmos_edge.results import Result

NAME = "ocr"
SUMMARY = "Text and lines of pages: CER, WER, NED, F1 of words and of lines."
FILES = pages.FILES
_NO_BOXES = "the truth has no boxes of lines"
METRICS = (
    Metric("cer", "character errors / characters, pooled", False),
    Metric("wer", "word errors / words, pooled", False),
    Metric("ned", "1 - edits / length of the longer text, mean over pages"),
    Metric("word_precision", "words that are in the truth / words read"),
    Metric("word_recall", "words of the truth that were read / words"),
    Metric("word_f1", "F1 of words, pooled"),
    Metric("line_precision", "boxes with IoU >= 0.5 / lines read", missing=_NO_BOXES),
    Metric("line_recall", "boxes with IoU >= 0.5 / lines of the truth", missing=_NO_BOXES),
    Metric("line_f1", "F1 of lines at IoU >= 0.5, pooled", missing=_NO_BOXES),
    Metric("line_iou", "best IoU of a line of the truth, mean over lines", missing=_NO_BOXES),
)


def load(folder: Path) -> list[Item]:
    """Images and their transcripts."""
    return pages.load_pages(folder)


def request(item: Item) -> tuple[str, dict[str, Any]]:
    """Every page is read alike."""
    return "read", {}


def prompt(info: Mapping[str, Any]) -> str:
    """The model's tag of the task."""
    return str(info["prompts"].get("read", ""))


def predict(result: Result) -> dict[str, Any]:
    """Text, lines with boxes in pixels, and whether the answer was cut."""
    return {
        "text": result.text,
        "lines": [
            {"text": line.text, "box": None if line.box.pixels is None else list(line.box.pixels)}
            for line in result.lines or ()
        ],
        "finish_reason": result.finish_reason,
    }


def score(item: Item, prediction: Mapping[str, Any]) -> dict[str, Part]:
    """See METRICS. Lines that were read without a box count as lines with a wrong one."""
    page: pages.Page = item.truth
    said, true = plain(prediction["text"]), plain(page.text)
    words = matched_words(said, true)
    parts = {
        "cer": character_errors(said, true),
        "wer": word_errors(said, true),
        "ned": similarity(said, true),
        **dict(zip(("word_precision", "word_recall", "word_f1"), precision_recall_f1(*words), strict=True)),
    }
    if page.boxes is None:
        return parts
    lines = prediction["lines"]
    boxes = [(b[0], b[1], b[2], b[3]) for line in lines if (b := line["box"]) is not None]
    found = precision_recall_f1(matched_lines(boxes, page.boxes), len(lines), len(page.boxes))
    return parts | {
        **dict(zip(("line_precision", "line_recall", "line_f1"), found, strict=True)),
        "line_iou": overlap(boxes, page.boxes),
    }
