"""One model through the C interface and through the Python package, for tests that both give the same answers."""

import math
from ctypes import byref
from pathlib import Path

import pytest
from PIL import Image

from helpers import capi
from helpers.capi import make
from kosmos_edge import Model, load

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "kosmos_edge" / "data" / "nano-q4_k_m.gguf"


class Pair:
    """One model and one picture on both sides."""

    def __init__(self, path: Path, array) -> None:
        self.array = array
        self.height, self.width = array.shape[:2]
        self.python: Model = load(path, threads=1)
        self.model = capi.load(path, threads=1)
        self.image = capi.encode(self.model, array)

    def c(self, verb: str, *arguments, **options) -> dict:
        return capi.read(make(verb, self.model, self.image, *arguments, byref(capi.Options(**options))))


def from_nano() -> Pair:
    import numpy as np

    photo = sorted((ROOT / "examples").glob("*.png"))[0]
    with Image.open(photo) as opened:
        return Pair(NANO, np.asarray(opened.convert("RGB")).copy())


def same(c: dict, result) -> None:
    """Everything that both sides say about an answer."""
    assert c["ids"] == result.token_ids
    assert c["text"] == result.text
    assert c["finish"] == result.finish_reason
    assert c["size"] == (result.width or 0, result.height or 0)
    assert c["prompt_tokens"] == result.timings.prompt_tokens
    assert (c["device"], c["model"], c["notes"]) == (result.device, result.model, result.notes)
    assert c["box"] == (None if result.box is None else result.box.cells)
    assert len(c["entities"]) == len(result.entities)
    for (phrase, span, scores, boxes), entity in zip(c["entities"], result.entities, strict=True):
        assert phrase == entity.phrase and len(boxes) == len(entity.boxes)
        if 0 <= entity.span[0] <= entity.span[1] <= len(result.text):
            assert span == entity.span
        expected = [
            math.nan if v is None else v
            for v in (entity.score, entity.phrase_score, entity.found_score, entity.phrase_mean)
        ]
        assert list(scores) == pytest.approx(expected, nan_ok=True)
        for (fractions, pixels, cells, score, valid), box in zip(boxes, entity.boxes, strict=True):
            assert (fractions, cells, valid) == (box.normalized, box.cells or (-1, -1), box.valid)
            assert pixels == pytest.approx(box.pixels or (0,) * 4)
            assert score == pytest.approx(math.nan if box.score is None else box.score, nan_ok=True)
    total, parts = c["ms"][2], c["ms"][:2]
    assert total >= sum(parts) > 0
