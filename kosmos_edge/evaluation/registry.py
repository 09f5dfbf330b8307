"""The tasks: a row each."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.task import Task

# name -> module of this package
TASKS = {
    "ocr": "ocr",
    "markdown": "markdown",
}


def find_task(name: str) -> Task:
    """The task of that name; InvalidRequest names the known ones."""
    if name not in TASKS:
        raise InvalidRequest(f"task: expected one of {', '.join(TASKS)}, got {name!r}")
    return cast(Task, import_module(f"kosmos_edge.evaluation.{TASKS[name]}"))
