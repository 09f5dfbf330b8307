"""What a model was trained for, in its own words, and what a request wants beyond that (csrc/tasks/trained.h).

A model file may list kinds of requests (<architecture>.trained_tasks, joined by ", "); most say nothing, and then
nothing is said here. Whatever is asked is answered all the same: a note tells that the model never saw the like.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kosmos_edge._native import _core

KINDS = dict(_core.request_kinds())  # kind of request -> how a note calls it
UNTRAINED = "was not trained for"


def untrained(info: Mapping[str, Any], *wanted: str) -> list[str]:
    """A note, or none: which of these kinds the model's list lacks. info: its model_info. "" stands for nothing."""
    note = _core.untrained_note(info["name"], info["trained_tasks"], [kind for kind in wanted if kind])
    return [note] if note else []


def kind_of_words(info: Mapping[str, Any], words: str, *, picture: bool = True) -> str:
    """Which kind of request these words are, behind a picture or alone; "" for words of the caller's own."""
    f = info["prompts"]
    formats = f["caption"], f["caption_detailed"], f["question"], f["grounding"]
    return _core.kind_of_words(*formats, words, picture)
