"""Answers as JSON, and back: an answer that is read again is equal to the one that was written."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.inference.ability_results import Reasoned
from kosmos_edge.results import Box, Entity, Line, Ranking, Result, Score, Timings, TokenLogprob

Answer = Result | Ranking


def pack(answer: Answer) -> str:
    """One line of JSON. An answer with an error is refused: it shall be computed again."""
    if answer.error is not None:
        raise InvalidRequest(f"expected an answer without an error, got {answer.error}")
    values = dataclasses.asdict(dataclasses.replace(answer))  # a new one has no image
    del values["error"]
    values.pop("image", None)
    kind = "ranking" if isinstance(answer, Ranking) else "reasoned" if isinstance(answer, Reasoned) else "result"
    return json.dumps([kind, values], ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def unpack(text: str) -> Answer:
    """The answer that pack wrote."""
    kind, values = json.loads(text)
    values["timings"] = Timings(**values["timings"])
    if kind == "ranking":
        values["ranking"] = [Score(**score) for score in values["ranking"]]
        return Ranking(**values)
    values["entities"] = [_entity(entity) for entity in values["entities"]]
    values["box"] = None if values["box"] is None else _box(values["box"])
    if values["lines"] is not None:
        values["lines"] = [Line(**{**line, "box": _box(line["box"])}) for line in values["lines"]]
    if values["top_logprobs"] is not None:
        values["top_logprobs"] = [[TokenLogprob(**token) for token in place] for place in values["top_logprobs"]]
    caption, entities = values["hf"]
    values["hf"] = caption, [(phrase, tuple(span), [tuple(box) for box in boxes]) for phrase, span, boxes in entities]
    if kind == "reasoned":
        if values["scores"] is not None:
            values["scores"] = [Score(**score) for score in values["scores"]]
        return Reasoned(**values)
    return Result(**values)


def _box(values: dict[str, Any]) -> Box:
    tuples = {name: None if values[name] is None else tuple(values[name]) for name in ("normalized", "pixels", "cells")}
    return Box(**{**values, **tuples})


def _entity(values: dict[str, Any]) -> Entity:
    boxes = tuple(_box(box) for box in values["boxes"])
    return Entity(**{**values, "span": tuple(values["span"]), "boxes": boxes})
