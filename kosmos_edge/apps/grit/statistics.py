"""Counts of a run, as KOSMOS-2's paper counts GRIT: pictures, text spans, boxes, words of an expression."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kosmos_edge.apps.grit.boxes import Kept
from kosmos_edge.apps.grit.expressions import Nouns

PUBLISHED = {"pictures": 90_614_680, "text_spans": 114_978_233, "boxes": 137_349_210, "mean_words": 4.7}  # of GRIT


@dataclass(slots=True)
class Statistics:
    """Counts; nothing in it depends on time, or on what an earlier run had done."""

    pairs: int = 0  # pictures with captions that were looked at
    failed: int = 0
    records: int = 0
    spans: int = 0  # expressions with boxes
    boxes: int = 0  # of expressions
    words: int = 0  # of expressions
    chunks: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def drop(self, reason: str) -> None:
        """A pair gives no record."""
        self.dropped[reason] += 1

    def add_nouns(self, nouns: Nouns) -> None:
        """The chunks of a caption."""
        self.chunks["kept"] += len(nouns.kept)
        self.chunks["abstract"] += nouns.abstract
        self.chunks["pronouns"] += nouns.pronouns
        self.chunks["markup"] += nouns.markup
        self.chunks["expanded"] += sum(noun.expression != noun.chunk for noun in nouns.kept)

    def add_boxes(self, kept: Kept, without_context: int) -> None:
        """The boxes of a picture."""
        self.found["kept"] += sum(len(boxes) for boxes in kept.boxes)
        self.found["clipped"] += kept.clipped
        self.found.update(kept.lost)
        self.chunks["with_boxes"] += sum(bool(boxes) for boxes in kept.boxes)
        self.chunks["asked_without_context"] += without_context

    def add_record(self, record: Mapping[str, Any]) -> None:
        """A record."""
        self.records += 1
        spans = {(row[0], row[1]) for row in record["ref_exps"]}
        self.spans += len(spans)
        self.boxes += len(record["ref_exps"])
        self.words += sum(len(record["caption"][int(start) : int(end)].split()) for start, end in spans)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        names = ("kept", "abstract", "pronouns", "markup", "expanded", "with_boxes", "asked_without_context")
        kinds = ("kept", "degenerate", "uncertain", "suppressed", "clipped")
        return {
            "pairs": self.pairs,
            "pictures": self.records,
            "text_spans": self.spans,
            "boxes": self.boxes,
            "mean_words": round(self.words / self.spans, 3) if self.spans else None,
            "failed": self.failed,
            "dropped": dict(sorted(self.dropped.items())),
            "noun_chunks": {name: self.chunks[name] for name in names},
            "detected_boxes": {name: self.found[name] for name in kinds},
            "published": dict(PUBLISHED),
        }
