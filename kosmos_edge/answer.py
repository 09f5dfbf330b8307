"""Token ids of an answer -> text, entities and stream events. The reading itself is the native read_answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kosmos_edge._native import _core
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.prompts import NO_GROUNDING
from kosmos_edge.results import Box, Corners, Entity, EntityEvent, Event, HfEntity, TextDelta


@dataclass(frozen=True, slots=True)
class Reader:
    """What is needed to read answers of one model about one picture."""

    engine: _core.Engine
    size: tuple[int, int] | None  # width and height in pixels of the picture that boxes refer to

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
        entities = []
        for phrase, start, end, score, phrase_score, boxes, cells, scores in found:
            out = tuple(self.box(*values) for values in zip(boxes, cells, scores, strict=True))
            entities.append(Entity(phrase, (start, end), out, score, phrase_score))
        return text, entities

    def has_stop(self, kept: Sequence[int], answer: Sequence[int], stop: Sequence[str]) -> bool:
        """Whether the answer's text contains one of these."""
        return _core.answer_has_stop(self.engine, kept, answer, stop)

    def settled(self, text: str) -> int:
        """Characters of an answer's text that no later token can change, its last word apart."""
        return len(_core.settled_text(self.engine, text))

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
    """Turns a growing answer into events whose text deltas add up to the final text.

    Three things hold text back: the last word (a later token may close up the blank before it, or lengthen it), what
    a stop text might still cut off (entities too), and what the model's parser does not call settled.
    """

    def __init__(self, reader: Reader, stop: Sequence[str]) -> None:
        self._reader = reader
        self._hold = max((len(text) for text in stop), default=1) - 1
        self._given = ""
        self._entities = 0

    def feed(self, kept: Sequence[int], answer: Sequence[int], logprobs: Sequence[float]) -> list[Event]:
        """The events that the newest token brings about."""
        text, entities = self._reader.read(kept, answer, logprobs)
        safe = len(text) - self._hold
        events: list[Event] = []
        for entity in entities[self._entities :]:
            if entity.span[1] > safe:
                break
            events += self._entity(text, entity)
        return events + self._advance(text, min(max(text.rfind(" "), 0), safe))

    def finish(self, text: str, entities: Sequence[Entity]) -> list[Event]:
        """The rest, now that the answer is whole."""
        events: list[Event] = []
        for entity in entities[self._entities :]:
            events += self._entity(text, entity)
        if text.startswith(self._given) and len(text) > len(self._given):
            events.append(TextDelta(text[len(self._given) :]))
        return events

    def _entity(self, text: str, entity: Entity) -> list[Event]:
        self._entities += 1
        return [*self._advance(text, max(entity.span[1], 0)), EntityEvent(entity)]

    def _advance(self, text: str, limit: int) -> list[Event]:
        limit = min(limit, self._reader.settled(text))
        if limit <= len(self._given) or not text.startswith(self._given):
            return []
        delta = text[len(self._given) : limit]
        self._given = text[:limit]
        return [TextDelta(delta)]
