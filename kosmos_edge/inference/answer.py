"""Entities, boxes and transformers' form of a native answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kosmos_edge._native import _core
from kosmos_edge.results import Box, Corners, Entity, HfEntity


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads answers of one model about one image."""

    engine: _core.Engine
    size: tuple[int, int] | None  # width and height in pixels of the image that boxes refer to

    def box(self, normalized: Corners, cells: tuple[int, int] | None, score: float | None = None) -> Box:
        """A box in fractions and in pixels."""
        if self.size is None:
            return Box(normalized, None, cells, score)
        x1, y1, x2, y2 = normalized
        width, height = self.size
        return Box(normalized, (x1 * width, y1 * height, x2 * width, y2 * height), cells, score)

    def snap(self, normalized: Corners) -> Box:
        """This box as the model sees it, snapped to its grid (InvalidRequest if it is outside 0..1)."""
        return self.from_cells(_core.box_to_cells(*normalized, self.engine.location_bins))

    def from_cells(self, cells: tuple[int, int]) -> Box:
        """The box of these two location tokens."""
        return self.box(_core.cells_to_box(*cells, self.engine.location_bins), cells)

    def entity(self, found: tuple[Any, ...]) -> Entity:
        """The Entity of a native one."""
        phrase, start, end, score, phrase_score, phrase_mean, found_score, boxes, cells, scores = found
        out = tuple(self.box(*values) for values in zip(boxes, cells, scores, strict=True))
        return Entity(phrase, (start, end), out, score, phrase_score, found_score, phrase_mean)

    def read_hf(self, ids: Sequence[int]) -> tuple[str, list[HfEntity]]:
        """transformers' tuple for a whole sequence: blanks cleaned up, the caption after the last image."""
        caption = _core.kept_ids(self.engine, ids, keep_prompt=True)
        return read_hf_text(self.engine.tokenizer.decode(caption), self.engine.location_bins)


def read_hf_text(text: str, bins: int) -> tuple[str, list[HfEntity]]:
    """transformers' tuple for a caption with its tags. bins: location cells per axis; 0: tags are text."""
    cleaned = _core.clean_up_tokenization(text)
    if bins == 0:
        return cleaned.strip(), []
    text, found = _core.parse_grounded_text(cleaned, bins)
    return text, [(phrase, (start, end), list(boxes)) for phrase, start, end, boxes, _, _ in found]
