"""What reason and iq return."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from kosmos_edge.results import Result, Score, Timings

_MILLISECONDS = ("decode_image_ms", "encode_ms", "prefill_ms", "decode_ms", "total_ms")
_COUNTS = ("prompt_tokens", "tokens", "reused_tokens", "passes", "drafted_tokens", "accepted_tokens")


def total(parts: list[Timings]) -> Timings:
    """The sums of several requests' timings and counts."""
    return Timings(**{name: sum(getattr(part, name) for part in parts) for name in _MILLISECONDS + _COUNTS})


@dataclass(slots=True)
class Reasoned(Result):
    """The answer to a question after a rationale; timings are those of both stages together."""

    rationale: str = ""  # what the model said about the image before the question
    scores: list[Score] | None = None  # with choices: each, the most likely first

    @classmethod
    def of(cls, result: Result, rationale: Result) -> Reasoned:
        """The second stage's result with the first one's text, notes and timings."""
        out = cls(
            **{each.name: getattr(result, each.name) for each in fields(result) if each.init}, rationale=rationale.text
        )
        out.image = result.image
        out.timings = total([rationale.timings, result.timings])
        out.notes = list(dict.fromkeys([*rationale.notes, *result.notes]))
        return out

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: that of Result, with rationale and, with choices, scores."""
        out = Result.to_dict(self) | {"rationale": self.rationale}
        return out if self.scores is None else out | {"scores": [score.to_dict() for score in self.scores]}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the images that may complete a matrix."""

    name: str | None  # the image's path, if it has one
    yes: float  # P("Yes") behind "Is it correct?", 0..1
    no: float  # P("No")

    @property
    def margin(self) -> float:
        """P("Yes") as a share of P("Yes") and P("No"), 0..1; 0 if both are 0."""
        return self.yes / (self.yes + self.no) if self.yes + self.no > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: name, yes, no, margin."""
        return {"name": self.name, "yes": self.yes, "no": self.no, "margin": self.margin}


@dataclass(slots=True)
class IqAnswer:
    """How much the model takes each candidate for the image that completes the matrix."""

    candidates: list[Candidate]  # in the order given
    device: str = ""
    model: str = ""
    timings: Timings = field(default_factory=Timings)  # of all requests together
    notes: list[str] = field(default_factory=list)

    @property
    def best(self) -> int:
        """The index of the candidate with the highest P("Yes"); the first of several that are equal."""
        return max(range(len(self.candidates)), key=lambda index: self.candidates[index].yes)

    @property
    def best_by_margin(self) -> int:
        """The index of the candidate with the highest margin; the first of several that are equal."""
        return max(range(len(self.candidates)), key=lambda index: self.candidates[index].margin)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "best": self.best,
            "best_by_margin": self.best_by_margin,
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "device": self.device,
            "model": self.model,
            "timings": self.timings.to_dict(),
            "notes": list(self.notes),
        }
