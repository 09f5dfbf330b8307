"""METEOR 1.5 and SPICE, which are Java programs: those of pycocoevalcap are run where it and Java are."""

from __future__ import annotations

import contextlib
import io
import math
import shutil
import subprocess
from collections.abc import MutableMapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from kosmos_edge.evaluation.metrics import meteor, ptb
from kosmos_edge.evaluation.statistics import Part

MISSING = {
    "meteor": "METEOR needs Java and the package pycocoevalcap",
    "spice": "SPICE needs Java, the package pycocoevalcap and, in its folder spice/lib, Stanford CoreNLP 3.6",
}

_CORENLP = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")


def why_not(metric: str) -> str:
    """Why the metric cannot be computed here; "" if it can."""
    if shutil.which("java") is None:
        return MISSING[metric] + ": java is not on the path"
    try:
        module = import_module(f"pycocoevalcap.{metric}.{metric}")
    except ImportError as error:
        return f"{MISSING[metric]}: {error}"
    folder = Path(str(module.__file__)).parent / "lib"
    if metric == "spice" and (missing := [name for name in _CORENLP if not (folder / name).exists()]):
        return f"{MISSING[metric]}: {missing[0]} is not in {folder}"
    return ""


def parts_of(metric: str, said: Sequence[str], references: Sequence[Sequence[str]]) -> list[Part]:
    """Of each caption: METEOR's counts (see meteor.py), or SPICE's F1 and 1. ValueError if the program ends early."""
    module: Any = import_module(f"pycocoevalcap.{metric}.{metric}")
    true = [[" ".join(ptb.words(text)) for text in group] for group in references]
    ours = [" ".join(ptb.words(text)) for text in said]
    if metric == "meteor":
        return _meteor(Path(str(module.__file__)).parent, ours, true)
    with contextlib.redirect_stdout(io.StringIO()):
        _, each = module.Spice().compute_score(dict(enumerate(true)), {i: [text] for i, text in enumerate(ours)})
    found = [float(one["All"]["f"]) for one in each]
    if len(found) != len(said) or not all(map(math.isfinite, found)):
        raise ValueError(f"got {sum(map(math.isfinite, found))} of {len(said)} figures")
    return [(value, 1.0) for value in found]


def _meteor(folder: Path, said: Sequence[str], true: Sequence[Sequence[str]]) -> list[Part]:
    command = ["java", "-jar", "-Xmx2G", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm"]
    lines = [f"SCORE ||| {' ||| '.join(group)} ||| {text}\n" for text, group in zip(said, true, strict=True)]
    done = subprocess.run(command, cwd=folder, input="".join(lines).encode(), capture_output=True, check=False)
    found = [tuple(float(number) for number in line.split()) for line in done.stdout.decode().splitlines()]
    if len(found) != len(said) or any(len(part) != meteor.COUNTS for part in found):
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise ValueError(f"got {len(found)} of {len(said)} captions: {' '.join(last)}")
    return found


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
            found = parts_of(metric, said, references)
        except (ValueError, OSError, AssertionError, subprocess.SubprocessError) as error:  # the program ended early
            reasons[metric] = f"{metric.upper()} failed: {error}"
            continue
        for part, value in zip(parts, found, strict=True):
            part[metric] = value
    return reasons
