"""What the verbs return: text with entities and boxes, rankings, stream events, and how they are written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from numbers import Real
from typing import Any, TypeAlias

from kosmos_edge.errors import InvalidRequest, KosmosError
from kosmos_edge.result_forms import ResultForms

Corners: TypeAlias = tuple[float, float, float, float]  # x1, y1, x2, y2
HfEntity: TypeAlias = tuple[str, tuple[int, int], list[Corners]]


def check_corners(name: str, values: object) -> Corners:
    """Four finite numbers, or InvalidRequest."""
    if not isinstance(values, tuple | list) or len(values) != 4:
        raise InvalidRequest(f"{name}: expected four numbers (x1, y1, x2, y2), got {values!r}")
    corners = []
    for value in values:
        try:
            number = float("nan") if isinstance(value, bool | str | bytes) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = float("nan")
        if not math.isfinite(number):
            raise InvalidRequest(f"{name}: expected four finite numbers, got {value!r} among {values!r}")
        corners.append(number)
    return corners[0], corners[1], corners[2], corners[3]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of an image, in fractions and in pixels; x1, y1 is the upper left corner.

    Grounding models name a box by two cells of a 32 x 32 grid, so a corner is exact to about 1/32 of a side. The box of
    a line that was read has no cells.
    """

    normalized: Corners  # fractions of the upright image's width and height, 0..1
    pixels: Corners | None = None  # of the upright original image; None if no image's size is known
    cells: tuple[int, int] | None = (
        None  # the two location tokens: cell of the upper left and of the lower right corner
    )
    score: float | None = None  # exp(mean ln p) of the two location tokens, 0..1, uncalibrated

    @property
    def valid(self) -> bool:
        """Whether x2 > x1 and y2 > y1. The grammar (default for grounded verbs) excludes inverted boxes."""
        x1, y1, x2, y2 = self.normalized
        return x2 > x1 and y2 > y1

    @classmethod
    def from_normalized(cls, x1: float, y1: float, x2: float, y2: float) -> Box:
        """A box in fractions of the image; InvalidRequest unless 0 <= x1 < x2 <= 1 and likewise for y."""
        corners = check_corners("box", (x1, y1, x2, y2))
        _check_inside(corners, 1, 1, "fractions of the image")
        return cls(corners)

    @classmethod
    def from_pixels(cls, x1: float, y1: float, x2: float, y2: float, *, width: int, height: int) -> Box:
        """A box in pixels of an upright image of width x height; InvalidRequest unless it is inside."""
        corners = check_corners("box", (x1, y1, x2, y2))
        _check_inside(corners, width, height, f"pixels of an image of {width} x {height}")
        return cls((corners[0] / width, corners[1] / height, corners[2] / width, corners[3] / height), corners)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: pixels, normalized, cells, score, valid."""
        return {
            "pixels": None if self.pixels is None else list(self.pixels),
            "normalized": list(self.normalized),
            "cells": None if self.cells is None else list(self.cells),
            "score": self.score,
            "valid": self.valid,
        }


def _check_inside(corners: Corners, width: float, height: float, unit: str) -> None:
    x1, y1, x2, y2 = corners
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise InvalidRequest(
            f"box: expected 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height} ({unit}), got {corners}"
        )


@dataclass(frozen=True, slots=True)
class Entity:
    """A phrase of the text and its boxes in the image."""

    phrase: str  # empty if the model wrote a box without a phrase
    span: tuple[int, int]  # code points in Result.text: text[span[0]:span[1]] == phrase
    boxes: tuple[Box, ...]
    # exp(mean ln p) of the location tokens, 0..1. Not calibrated: the model tends to find whatever it is asked for.
    score: float | None = None
    # exp(sum ln p) of the phrase's tokens, the probability of these words, 0..1; None if the caller gave them.
    # A wrong name shows in this score rather than in that of the place.
    phrase_score: float | None = None
    # locate, whose phrase the caller gave: the probability that boxes follow it at all, 0..1; otherwise None.
    found_score: float | None = None
    # exp(mean ln p) of the phrase's tokens, 0..1: how sure its words are, or a line's text; None as phrase_score.
    phrase_mean: float | None = None

    @property
    def sureness(self) -> float | None:
        """The score for min_score: phrase_score, or found_score if the caller gave the words. None: unknown."""
        return self.found_score if self.phrase_score is None else self.phrase_score

    def reaches(self, min_score: float) -> bool:
        """Whether min_score keeps the entity; it does if the sureness is unknown."""
        return self.sureness is None or self.sureness >= min_score

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: phrase, span, score, phrase_score, phrase_mean, found_score, boxes."""
        return {
            "phrase": self.phrase,
            "span": list(self.span),
            "score": self.score,
            "phrase_score": self.phrase_score,
            "phrase_mean": self.phrase_mean,
            "found_score": self.found_score,
            "boxes": [box.to_dict() for box in self.boxes],
        }


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text that was read in the image."""

    text: str
    box: Box
    score: float | None = None  # exp(mean ln p) of the line's tokens, 0..1, uncalibrated; None: unknown
    cut: bool = False  # the answer ended inside the line, at a stop text or max_tokens; only the last one can be

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: text, box (pixels of the upright original; None without an image's size), score, and of a cut
        line cut."""
        pixels = self.box.pixels
        out = {"text": self.text, "box": None if pixels is None else list(pixels), "score": self.score}
        return {**out, "cut": True} if self.cut else out


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds of each part, and tokens. total_ms is wall time of the whole call."""

    decode_image_ms: float = 0.0
    encode_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    total_ms: float = 0.0
    prompt_tokens: int = 0
    tokens: int = 0  # of the answer
    reused_tokens: int = 0  # of the prompt: computed by an earlier call and kept (docs/reuse.md)
    passes: int = 0  # of the model that gave a token or several (docs/batching.md); 0: not counted, as with beams
    drafted_tokens: int = 0  # tried ahead of their turn
    accepted_tokens: int = 0  # those of them that came: each saved a pass

    def to_dict(self) -> dict[str, float | int]:
        """JSON-ready; milliseconds with three decimals."""
        milliseconds = ("decode_image_ms", "encode_ms", "prefill_ms", "decode_ms", "total_ms")
        out: dict[str, float | int] = {name: round(getattr(self, name), 3) for name in milliseconds}
        counts = ("prompt_tokens", "tokens", "reused_tokens", "passes", "drafted_tokens", "accepted_tokens")
        return out | {name: getattr(self, name) for name in counts}


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One of the likeliest tokens at a place of an answer."""

    token_id: int
    text: str  # what it adds to the text; U+FFFD for a part of a character
    logprob: float  # ln p, before any rule

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"token_id": self.token_id, "text": self.text, "logprob": self.logprob}


@dataclass(slots=True)
class Result(ResultForms):
    """The answer to one request."""

    text: str  # the answer without tags, and without the prompt's words unless lead_in is set
    entities: list[Entity] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)  # of the answer, with </s> if it ended the answer
    logprobs: list[float] | None = None  # ln p of each token, before any rule; only with logprobs=True
    finish_reason: str = "stop"  # "stop", "stop_string", "length", "choice"; "error" in a batch
    device: str = ""
    model: str = ""
    width: int | None = None  # of the upright image that the boxes refer to
    height: int | None = None
    timings: Timings = field(default_factory=Timings)
    notes: list[str] = field(default_factory=list)  # what was decided about the image or the request
    source: str | None = None  # the image's path, if it has one
    box: Box | None = None  # describe: the box as the model sees it, snapped to its grid
    lines: list[Line] | None = None  # read: the lines in reading order; None for other tasks and for Markdown
    error: KosmosError | None = None  # batch: why this image has no answer
    hf: tuple[str, list[HfEntity]] = field(default=("", []), repr=False)  # the result of to_hf()
    # For each of token_ids the likeliest tokens, first the most likely; only with top_logprobs=n. A rule (the grammar,
    # no_repeat_ngram_size, choices) or sampling may have chosen another one.
    top_logprobs: list[list[TokenLogprob]] | None = field(default=None, repr=False)
    # What the call got as its last image unless it was a path, a file object or an EncodedImage; None in a batch. Kept
    # for to_html and notebooks; set it to None to free it.
    image: Any = field(default=None, init=False, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """False if this entry of a batch failed; error says why."""
        return self.error is None

    @property
    def boxes(self) -> list[Box]:
        """The boxes of all entities, in the order of the text; empty if the model gave none."""
        return [box for entity in self.entities for box in entity.boxes]

    def to_hf(self) -> tuple[str, list[HfEntity]]:
        """(caption, [(phrase, (start, end), [(x1, y1, x2, y2)])]) exactly as transformers' post_process_generation.

        The caption begins with the prompt's words; boxes are fractions of the image, inverted ones unchanged; a box
        without a phrase is a separate entity, named by its two tokens.
        """
        text, entities = self.hf
        return text, [(phrase, span, list(boxes)) for phrase, span, boxes in entities]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        out: dict[str, Any] = {
            "path": self.source,
            "text": self.text,
            "entities": [entity.to_dict() for entity in self.entities],
            "width": self.width,
            "height": self.height,
            "finish_reason": self.finish_reason,
            "device": self.device,
            "model": self.model,
            "token_ids": list(self.token_ids),
            "logprobs": None if self.logprobs is None else list(self.logprobs),
            "timings": self.timings.to_dict(),
            "notes": list(self.notes),
        }
        if self.box is not None:
            out["box"] = self.box.to_dict()
        if self.lines is not None:
            out["lines"] = [line.to_dict() for line in self.lines]
        if self.top_logprobs is not None:
            out["top_logprobs"] = [[token.to_dict() for token in place] for place in self.top_logprobs]
        return out | error_fields(self.error)

    def to_json(self, indent: int | None = None) -> str:
        """to_dict() as JSON text, with readable Unicode."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=indent, allow_nan=False)

    def above(self, min_score: float = 0.0, *, place: float = 0.0) -> Result:
        """A copy without the entities (and lines) that min_score as an option would have left out.

        min_score: 0..1, for Entity.sureness: the phrase's probability, or that of locate's boxes. place: 0..1, for the
        score of each box; an entity without boxes is left out then. Unknown scores stay. The text stays.
        """
        for name, value in (("min_score", min_score), ("place", place)):
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:
                raise InvalidRequest(f"{name}: expected a number from 0 to 1, got {value!r}")
        kept, lines = [], []
        for number, entity in enumerate(self.entities):
            boxes = tuple(box for box in entity.boxes if box.score is None or box.score >= place)
            if entity.reaches(min_score) and (boxes or not place):
                kept.append(entity if len(boxes) == len(entity.boxes) else replace(entity, boxes=boxes))
                lines += [] if self.lines is None else [self.lines[number]]
        out = replace(self, entities=kept, lines=None if self.lines is None else lines)
        out.image = self.image
        return out

    def to_coco(
        self,
        *,
        image_id: int = 1,
        first_annotation_id: int = 1,
        categories: dict[str, int] | None = None,
        file_name: str | None = None,
    ) -> dict[str, list[dict[str, Any]]]:
        """A COCO detection data set of this image: {"images", "annotations", "categories"}, 1-based ids.

        The categories are the phrases. New phrases are added to `categories` (phrase -> id), so that one dictionary
        serves many images. bbox is [x, y, width, height] in pixels. Boxes with valid False cannot be expressed in COCO
        and are left out.
        """
        if self.width is None or self.height is None:
            raise InvalidRequest("to_coco: the request had no image, so there are no pixels")
        ids = {} if categories is None else categories
        annotations: list[dict[str, Any]] = []
        for entity in self.entities:
            category = ids.setdefault(entity.phrase, max(ids.values(), default=0) + 1)
            for box in entity.boxes:
                if not box.valid or box.pixels is None:
                    continue
                x1, y1, x2, y2 = box.pixels
                annotations.append(
                    {
                        "id": first_annotation_id + len(annotations),
                        "image_id": image_id,
                        "category_id": category,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": 0,
                        "score": box.score,
                    }
                )
        name = file_name if file_name is not None else (self.source or "")
        return {
            "images": [{"id": image_id, "file_name": name, "width": self.width, "height": self.height}],
            "annotations": annotations,
            "categories": [{"id": number, "name": phrase} for phrase, number in ids.items()],
        }

    def to_markdown(self, target: str = "") -> str:
        """The text with its phrases as links to their boxes: [a dog](photo.jpg#xywh=pixel:10,20,30,40).

        The fragment is the W3C's for a part of an image; further boxes of the same phrase follow as [2](...) and so on.
        `target` comes before the fragment. Entities without a phrase are not linked.
        """
        base = "".join(c if c not in " ()<>" else f"%{ord(c):02X}" for c in target)
        out, end = [], 0
        for entity in sorted(self.entities, key=lambda e: e.span):
            links = [f"({base}#{_fragment(box)})" for box in entity.boxes if box.valid]
            if not links or not entity.phrase or entity.span[0] < end:
                continue
            out.append(_escape(self.text[end : entity.span[0]]) + f"[{_escape(entity.phrase)}]" + links[0])
            out.extend(f"[{number}]{link}" for number, link in enumerate(links[1:], 2))
            end = entity.span[1]
        return "".join(out) + _escape(self.text[end:])


def error_fields(error: KosmosError | None) -> dict[str, str | None]:
    """{"error": message, "error_type": class name}, both None without an error."""
    return {
        "error": None if error is None else str(error),
        "error_type": None if error is None else type(error).__name__,
    }


def _fragment(box: Box) -> str:
    unit, corners, scale = ("percent", box.normalized, 100) if box.pixels is None else ("pixel", box.pixels, 1)
    x1, y1, x2, y2 = (Decimal(repr(float(value))) * scale for value in corners)  # exact: no 0.30000000000000004
    return f"xywh={unit}:" + ",".join(_decimal(value) for value in (x1, y1, x2 - x1, y2 - y1))


def _decimal(value: Decimal) -> str:
    """All digits, without an exponent, which the fragment's grammar does not allow."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _escape(text: str) -> str:
    return "".join("\\" + c if c in "\\`*_[]<>#" else c for c in text)


@dataclass(frozen=True, slots=True)
class Score:
    """How likely one text is."""

    text: str
    score: float  # by which texts are ranked; see Model.score, normalize
    share: float  # softmax of the scores of all given texts; they sum to 1
    logprob_sum: float  # ln p of the whole text given the image and the prompt
    logprob_mean: float  # per token
    token_ids: list[int]
    logprobs: list[float]  # per token
    greedy: bool  # every token was the likeliest at its place: greedy decoding would say this text

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        names = ("text", "score", "share", "logprob_sum", "logprob_mean", "token_ids", "logprobs", "greedy")
        return {name: getattr(self, name) for name in names}


@dataclass(slots=True)
class Ranking:
    """Texts ordered by falling likelihood given one image."""

    ranking: list[Score] = field(default_factory=list)
    normalize: str = "sum"
    device: str = ""
    model: str = ""
    width: int | None = None
    height: int | None = None
    timings: Timings = field(default_factory=Timings)
    notes: list[str] = field(default_factory=list)
    source: str | None = None
    error: KosmosError | None = None  # batch: why there is no answer about this picture

    @property
    def ok(self) -> bool:
        """False if this entry of a batch failed."""
        return self.error is None

    @property
    def best(self) -> Score:
        """The most likely text."""
        return self.ranking[0]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        out: dict[str, Any] = {
            "path": self.source,
            "ranking": [score.to_dict() for score in self.ranking],
            "normalize": self.normalize,
            "width": self.width,
            "height": self.height,
            "device": self.device,
            "model": self.model,
            "timings": self.timings.to_dict(),
            "notes": list(self.notes),
        }
        return out | error_fields(self.error)

    def to_json(self, indent: int | None = None) -> str:
        """to_dict() as JSON text, with readable Unicode."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=indent, allow_nan=False)


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next part of the text; all parts joined are Result.text. tokens: of the answer so far, with its tags."""

    text: str
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class EntityEvent:
    """A phrase with its boxes; TextDelta events have given the text up to its end. tokens: as in TextDelta."""

    entity: Entity
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """The last event, with the Result that the call returns without stream=True."""

    result: Result


Event: TypeAlias = TextDelta | EntityEvent | Done
OnEvent: TypeAlias = Callable[[Event], None]
