"""What a model was trained for, in its own words, and what a request wants beyond that.

A model file may list kinds of requests (<architecture>.trained_tasks, joined by ", "); most say nothing, and then
nothing is said here. Whatever is asked is answered all the same: a note tells that the model never saw the like.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# kind of request -> how a note calls it
KINDS = {
    "caption": "short captions",
    "caption_long": "long captions",
    "prompt": "words of the caller's to go on from",
    "locate": "finding a phrase",
    "describe": "saying what is in a box",
    "describe_plain": "saying what is in a box without giving boxes",
    "ask": "questions",
    "ask_boxes": "questions answered with boxes",
    "examples": "examples that go before the request (few-shot)",
    "generate": "free sequences of pictures, texts and boxes",
}
UNTRAINED = "was not trained for"


def untrained(info: Mapping[str, Any], *wanted: str) -> list[str]:
    """A note, or none: which of these kinds the model's list lacks. info: its model_info. "" stands for nothing."""
    trained = str(info["trained_tasks"]).split(", ")
    missing = [KINDS[kind] for kind in wanted if kind and kind not in trained] if any(trained) else []
    name = info["name"] or "the model"
    return [f"{name} {UNTRAINED} {' or '.join(missing)}: the answer may be worthless"] if missing else []
