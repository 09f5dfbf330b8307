"""What a search in an index gives, and texts ranked by their likelihood given each candidate picture."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kosmos_edge.apps.index.store import Row, Store
from kosmos_edge.apps.words import Words
from kosmos_edge.errors import ImageDecodeError, InvalidRequest, KosmosError, KosmosIOError
from kosmos_edge.images import Opening
from kosmos_edge.model import Model

UNKNOWN = "the model has no token for some characters of the text, such as of another script: they do not count"


@dataclass(frozen=True, slots=True)
class Hit:
    """A picture that was found."""

    path: str
    score: float  # by which the hits are ordered, falling: what it is, Hits.by says
    caption: str | None = None  # of the index

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"path": self.path, "score": self.score, "caption": self.caption}


@dataclass(slots=True)
class Hits:
    """The answer to a search."""

    query: str  # the text, or the image's name
    by: str  # "cosine" (-1..1), or "likelihood": ln p of the text given the picture
    hits: list[Hit] = field(default_factory=list)
    pictures: int = 0  # in the index
    compared: int = 0  # of them, by this score
    model: str = ""
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        names = ("query", "by", "pictures", "compared", "model", "notes")
        return {name: getattr(self, name) for name in names} | {"hits": [hit.to_dict() for hit in self.hits]}


def candidates_for(store: Store, text: str, limit: int) -> tuple[list[Row], list[str]]:
    """The pictures whose captions are nearest to the text by TF-IDF, all if there are at most `limit`; and notes.

    InvalidRequest where there are more and none has a caption.
    """
    rows = list(store.rows())
    if len(rows) <= limit:
        return rows, []
    told = [(row, row.caption) for row in rows if row.caption is not None]
    if not told:
        raise InvalidRequest(
            f"the index has {len(rows)} pictures and no captions to choose {limit} candidates by: build it with "
            f"--with-captions (captions=True), or let --candidates {len(rows)} (candidates=) rank all, which takes long"
        )
    likeness = Words([caption for _, caption in told]).likeness(text)
    order = sorted(range(len(told)), key=lambda number: (-likeness[number], number))[:limit]
    notes = [f"the {len(order)} of {len(rows)} pictures whose captions are nearest to the text were ranked"]
    if len(told) < len(rows):
        notes.append(f"{len(rows) - len(told)} pictures have no caption in the index and were left out")
    return [told[number][0] for number in order], notes


def rank_by_likelihood(
    model: Model,
    rows: Sequence[Row],
    text: str,
    template: str | None,
    opening: Opening,
    on_picture: Callable[[str, KosmosError | None], None] | None,
) -> tuple[list[Hit], list[str]]:
    """The pictures by falling ln p of the text, and notes about those that could not be ranked.

    Each different content is encoded and scored once. InvalidRequest for a text or template that the model refuses.
    """
    alone = model.score(None, [text], template).best  # what is wrong with the text is no picture's fault
    scores: dict[bytes, float | None] = {}
    hits, notes = [], []
    if model.metadata.get("tokenizer.ggml.unknown_token_id") in alone.token_ids:
        notes.append(UNKNOWN)
    for row in rows:
        error = None
        if row.digest not in scores:
            try:
                scores[row.digest] = model.score(opening.open(_unchanged(row)), [text], template).best.logprob_sum
            except (ImageDecodeError, KosmosIOError) as caught:
                error, scores[row.digest] = caught, None
                notes.append(f"{caught}; not ranked")
        score = scores[row.digest]
        if score is not None:
            hits.append(Hit(row.path, score, row.caption))
        if on_picture is not None:
            on_picture(row.path, error)
    return sorted(hits, key=lambda hit: (-hit.score, os.fsencode(hit.path))), notes


def _unchanged(row: Row) -> bytes:
    """The picture's bytes; ImageDecodeError if they are not those that the index is about."""
    try:
        with open(row.path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise KosmosIOError(error.errno or 0, error.strerror or str(error), row.path) from error
    if hashlib.sha256(data).digest() != row.digest:
        raise ImageDecodeError(f"{row.path}: changed since the index was built")
    return data
