"""Token ids of an answer -> text, entities and stream events. The reading itself is the native read_answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kosmos_edge._native import _core
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.inference.prompts import NO_GROUNDING
from kosmos_edge.results import Box, Corners, Entity, EntityEvent, Event, HfEntity, TextDelta


@dataclass(frozen=True, slots=True)
class Reader:
    """What is needed to read answers of one model about one picture."""

    engine: _core.Engine
    size: tuple[int, int] | None  # width and height in pixels of the picture that boxes refer to
    given: bool = False  # the prompt ends in the caller's phrase: the answer's first token says whether boxes follow

    @property
    def _bins(self) -> int:
        """Location cells per axis; InvalidRequest where the model has none."""
        bins = self.engine.location_bins
        if bins == 0:
            raise InvalidRequest(f"box: {NO_GROUNDING}")
        return bins

    def box(self, normalized: Corners, cells: tuple[int, int], score: float | None = None) -> Box:
        """A box in both frames."""
        if self.size is None:
            return Box(normalized, None, cells, score)
        x1, y1, x2, y2 = normalized
        width, height = self.size
        return Box(normalized, (x1 * width, y1 * height, x2 * width, y2 * height), cells, score)

    def snap(self, normalized: Corners) -> Box:
        """The box that the model sees when it is given this one (InvalidRequest where it lies outside 0..1)."""
        return self.from_cells(_core.box_to_cells(*normalized, self._bins))

    def from_cells(self, cells: tuple[int, int]) -> Box:
        """The box that these two location tokens mean."""
        return self.box(_core.cells_to_box(*cells, self._bins), cells)

    def read(
        self, kept: Sequence[int], answer: Sequence[int], logprobs: Sequence[float], stop: Sequence[str] = ()
    ) -> tuple[str, list[Entity]]:
        """Text and entities of the answer's ids behind those prompt ids that the text is to begin with.

        logprobs: ln p of the answer's tokens, NaN where unknown. stop: the text ends before the first of these.
        """
        text, found = _core.read_answer(self.engine, kept, answer, logprobs, stop)
        first = logprobs[0] if len(logprobs) else math.nan
        return text, [self.entity(values, first if number == 0 else math.nan) for number, values in enumerate(found)]

    def entity(self, found: tuple[Any, ...], first: float = math.nan) -> Entity:
        """An entity in the native module's form. first: ln p of the answer's first token, for its first entity."""
        phrase, start, end, score, phrase_score, boxes, cells, scores = found
        out = tuple(self.box(*values) for values in zip(boxes, cells, scores, strict=True))
        found_score = math.exp(first) if self.given and not math.isnan(first) else None
        return Entity(phrase, (start, end), out, score, phrase_score, found_score)

    def read_hf(self, ids: Sequence[int]) -> tuple[str, list[HfEntity]]:
        """transformers' tuple for a whole sequence: blanks cleaned up, the caption behind the last picture."""
        caption = _core.kept_ids(self.engine, ids, keep_prompt=True)
        return read_hf_text(self.engine.tokenizer.decode(caption), self.engine.location_bins)


def read_hf_text(text: str, bins: int) -> tuple[str, list[HfEntity]]:
    """transformers' tuple for a caption with its tags. bins: location cells per axis; 0: tags are text."""
    cleaned = _core.clean_up_tokenization(text)
    if bins == 0:
        return cleaned.strip(), []
    text, found = _core.parse_grounded_text(cleaned, bins)
    return text, [(phrase, (start, end), list(boxes)) for phrase, start, end, boxes, _, _ in found]


class StreamReader:
    """Turns a growing answer into events whose text deltas add up to the final text; the native AnswerStream does it.

    Three things hold text back: the last word (a later token may close up the blank before it, or lengthen it), what
    a stop text might still cut off (entities too), and what the model's parser does not call settled.
    """

    def __init__(self, reader: Reader, kept: Sequence[int], stop: Sequence[str], min_score: float) -> None:
        """kept: those prompt ids that the text is to begin with. min_score: entities below it give no event."""
        self._reader, self._kept, self._stop, self._min_score = reader, kept, stop, min_score
        self._native = _core.AnswerStream(reader.engine, kept, stop)
        self._first = math.nan  # ln p of the answer's first token
        self._started = False
        self._entities = 0

    def push(self, token_id: int, logprob: float) -> bool:
        """Reads the newest token; whether the answer's text contains a stop text now."""
        if not self._started:
            self._first, self._started = logprob, True
        return self._native.push(token_id, logprob)

    def events(self) -> list[Event]:
        """What came about since the last call."""
        return self._events(self._native.events())

    def finish(self, answer: Sequence[int], logprobs: Sequence[float]) -> list[Event]:
        """The rest, now that these ids are the whole answer."""
        return self._events(self._native.finish(self._reader.engine, self._kept, answer, logprobs, self._stop))

    def _events(self, found: list[Any]) -> list[Event]:
        events: list[Event] = []
        for value in found:
            if isinstance(value, str):
                events.append(TextDelta(value))
                continue
            entity = self._reader.entity(value, self._first if self._entities == 0 else math.nan)
            self._entities += 1
            if entity.reaches(self._min_score):
                events.append(EntityEvent(entity))
        return events
