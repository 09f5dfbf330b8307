"""The models of this process: opened at first use, and once for all who ask for the same."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from kosmos_edge.loading import load
from kosmos_edge.model import Model

_lock = threading.Lock()
_models: dict[tuple[Any, ...], Model] = {}


def _after_fork() -> None:
    """A child has none: an engine's threads stay in the parent, and its lock may have been held."""
    global _lock
    _lock = threading.Lock()
    _models.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def open_model(model: str | None, threads: int | None, options: Mapping[str, Any]) -> Model:
    """As load(), with weights that a machine's workers share unless the options say otherwise; the second caller gets
    the first one's model. threads: None: those of worker_threads()."""
    options = {"shared_weights": True, **options}
    count = threads or worker_threads()
    key = model, count, tuple(sorted(options.items()))
    with _lock:
        found = _models.get(key)
        if found is None or found.closed:
            found = _models[key] = load(model, threads=count, **options)
        return found


def worker_threads() -> int:
    """What Ray and Spark gave this worker (they set OMP_NUM_THREADS), else 1: never the whole machine."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdigit() and int(first) > 0 else 1
