"""What happened in a run: the question, the language model's replies, each tool call with its result, the answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kosmos_edge.apps.agent.gallery import Gallery
from kosmos_edge.apps.agent.limits import Limits, Spent
from kosmos_edge.json_text import to_json
from kosmos_edge.overlay import PreviewSize, preview
from kosmos_edge.results import Result

IN_JSON = PreviewSize(768, 300_000)
# How a run ends, besides "stop", the language model's own end.
ENDS = {
    "length": "the answer was cut off by the language model's own limit",
    "filter": "the endpoint's content filter ended the answer",
    "steps": "the limit of steps was reached",
    "tokens": "the limit of tokens was reached",
    "cost": "the limit of cost was reached",
    "time": "the time was over",
    "repeats": "the language model made the same calls again and again",
    "empty": "the language model gave neither a tool call nor an answer",
    "cancelled": "it was cancelled",
    "error": "it failed",
}


@dataclass(slots=True)
class Call:
    """A tool call and its result."""

    id: str
    tool: str
    arguments: Any  # as the language model gave them; a text if they were no JSON
    payload: dict[str, Any] = field(default_factory=dict)  # what it got back
    error: str | None = None
    result: Result | None = field(default=None, repr=False)  # of a verb
    image: str | None = None  # the handle of the picture it is about
    made: str | None = None  # the handle of a new picture
    ms: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "id": self.id,
            "tool": self.tool,
            "arguments": self.arguments,
            "result": self.payload,
            "error": self.error,
            "made": self.made,
            "ms": round(self.ms, 3),
        }


@dataclass(slots=True)
class Step:
    """A reply of the language model."""

    text: str
    calls: list[Call] = field(default_factory=list)
    tokens: tuple[int, int] = (0, 0)  # of the prompt and of the reply
    ms: float = 0.0  # of the request

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "text": self.text,
            "calls": [call.to_dict() for call in self.calls],
            "prompt_tokens": self.tokens[0],
            "reply_tokens": self.tokens[1],
            "ms": round(self.ms, 3),
        }


@dataclass(slots=True)
class Transcript:
    """A run, finished or not. A notebook shows it as its HTML."""

    question: str
    url: str  # of the endpoint
    llm: str  # the language model's name
    models: list[str]  # the names of the models that look
    limits: Limits
    gallery: Gallery
    spent: Spent
    answer: str = ""
    finish_reason: str | None = None  # "stop" or one of ENDS; None while it runs
    error: str | None = None
    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    captions: list[Call] = field(default_factory=list)  # of the pictures, made before the first request

    @property
    def calls(self) -> list[Call]:
        """All tool calls of the language model."""
        return [call for step in self.steps for call in step.calls]

    @property
    def why(self) -> str | None:
        """Why the run ended, in words; None if the language model ended it by itself."""
        if self.finish_reason in (None, "stop"):
            return None
        words = ENDS[str(self.finish_reason)]
        return f"{words}: {self.error}" if self.error else words

    def to_dict(self, *, pictures: bool = True) -> dict[str, Any]:
        """JSON-ready. pictures: with each picture as a JPEG of at most 768 pixels, a data: URI."""
        shown = [
            {**item.to_dict(), **({"data": preview(item.picture, IN_JSON)[0]} if pictures else {})}
            for item in self.gallery
        ]
        return {
            "question": self.question,
            "answer": self.answer,
            "finish_reason": self.finish_reason,
            "error": self.error,
            "notes": list(self.notes),
            "llm": {"url": self.url, "model": self.llm},
            "models": list(self.models),
            "pictures": shown,
            "captions": [call.to_dict() for call in self.captions],
            "steps": [step.to_dict() for step in self.steps],
            "spent": {**self.spent.to_dict(), "seconds": round(self.seconds, 3)},
            "limits": self.limits.to_dict(),
        }

    def to_json(self, indent: int | None = None, *, pictures: bool = True) -> str:
        """to_dict() as JSON text."""
        return to_json(self.to_dict(pictures=pictures), indent)

    def to_html(self) -> str:
        """A whole HTML page: the pictures are in it, texts are escaped, and there are no scripts."""
        from kosmos_edge.apps.agent.page import page

        return page(self)

    def _repr_html_(self) -> str:
        """For notebooks."""
        from kosmos_edge.apps.agent.page import body

        return body(self)


__all__ = ["Call", "Step", "Transcript"]
