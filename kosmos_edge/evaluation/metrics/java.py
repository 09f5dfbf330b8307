"""METEOR 1.5 and SPICE, which are Java programs: run by pycocoevalcap where it and Java are, not written anew."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import MutableMapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from kosmos_edge.evaluation.metrics import ptb
from kosmos_edge.evaluation.statistics import Part

MISSING = {
    "meteor": "METEOR needs Java and the package pycocoevalcap",
    "spice": "SPICE needs Java, the package pycocoevalcap and, in its folder spice/lib, Stanford CoreNLP 3.6",
}


def why_not(metric: str) -> str:
    """Why the metric cannot be computed here; "" if it can."""
    if shutil.which("java") is None:
        return MISSING[metric] + ": java is not on the path"
    try:
        module = import_module(f"pycocoevalcap.{metric}.{metric}")
    except ImportError as error:
        return f"{MISSING[metric]}: {error}"
    folder = Path(str(module.__file__)).parent / "lib"
    if metric == "spice" and not (folder / "stanford-corenlp-3.6.0.jar").exists():
        return f"{MISSING[metric]}: it is not in {folder}"
    return ""


def scores(metric: str, said: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Of each caption, 0..1."""
    module: Any = import_module(f"pycocoevalcap.{metric}.{metric}")
    true = {i: [" ".join(ptb.words(text)) for text in group] for i, group in enumerate(references)}
    ours = {i: [" ".join(ptb.words(text))] for i, text in enumerate(said)}
    with contextlib.redirect_stdout(io.StringIO()):
        _, each = getattr(module, metric.capitalize())().compute_score(true, ours)
    return [float(one["All"]["f"]) if isinstance(one, dict) else float(one) for one in each]


def add(
    parts: Sequence[MutableMapping[str, Part]],
    said: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: Sequence[str],
) -> dict[str, str]:
    """Adds the metrics that can be computed here; -> why the others cannot."""
    reasons = {}
    for metric in metrics:
        why = why_not(metric)
        if why or not said:
            reasons[metric] = why
            continue
        try:
            found = scores(metric, said, references)
        except (ValueError, OSError, AssertionError) as error:  # the program ended early
            reasons[metric] = f"{metric.upper()} failed: {error}"
            continue
        for part, value in zip(parts, found, strict=True):
            part[metric] = (value, 1.0)
    return reasons
