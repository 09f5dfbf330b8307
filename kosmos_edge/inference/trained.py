"""What a model was trained for, in its own words, and what a request wants beyond that (csrc/tasks/trained.h).

A model file may list kinds of requests (<architecture>.trained_tasks, joined by ", "); most say nothing, and then
nothing is said here. Whatever is asked is answered all the same: a note tells that the model never saw the like.
"""

from __future__ import annotations

from kosmos_edge._native import _core

KINDS = dict(_core.request_kinds())  # kind of request -> how a note calls it
UNTRAINED = "was not trained for"
