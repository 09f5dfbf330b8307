"""The tasks that a model was trained for, and whether a request goes beyond them (csrc/tasks/trained.h).

A model file may list kinds of requests (<architecture>.trained_tasks, joined by ", "); most say nothing, and then
nothing is said here. Whatever is asked is answered all the same: a note tells that the model never saw the like.
"""

from __future__ import annotations

from kosmos_edge._native import _core

KINDS = dict(_core.request_kinds())  # kind of request -> its name in a note
UNTRAINED = "was not trained for"
