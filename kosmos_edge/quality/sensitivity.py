"""What rounding some of a model's tensors does to its answers, measured one group of tensors at a time.

The float model captions a few pictures (or reads them) and answers a question about each. For every group a file is
made whose tensors are floats but for the group's; its distributions of the next token are compared with the float
model's over those answers: the mean of sum p ln(p / q) in nats.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from kosmos_edge._native import _core
from kosmos_edge.loading import load
from kosmos_edge.quality.cases import Case, Question
from kosmos_edge.quality.measure import forced_of

MOST_GROUPS = 48
PICTURES = 12  # evenly spaced ones of those that are given
MAX_TOKENS = 64  # of an answer, whose logits are kept in memory

Progress = Callable[[int, int, str], None]


def groups_of(names: Sequence[str], most: int) -> list[list[str]]:
    """Tensors that are rounded together: those of one role in neighbouring layers, as many layers as it takes to have
    `most` groups. Queries and keys go together, so do gates and what they gate, and all of a projector."""
    roles: dict[str, dict[tuple[int, ...], list[str]]] = {}
    for name in names:
        role = re.sub(r"\d+", "*", name)
        role = re.sub(r"attn_[qk]\b", "attn_qk", re.sub(r"ffn_(gate|up)\b", "ffn_up", role))
        place = tuple(map(int, re.findall(r"\d+", name)))
        if name.startswith("mm."):
            role, place = "mm.*", ()
        roles.setdefault(role, {}).setdefault(place, []).append(name)
    pieces = 1
    longest = max((len(layers) for layers in roles.values()), default=1)
    while pieces < longest and sum(min(pieces + 1, len(layers)) for layers in roles.values()) <= most:
        pieces += 1
    found = []
    for layers in roles.values():
        ordered = [layers[place] for place in sorted(layers)]
        count = min(pieces, len(ordered))
        for i in range(count):
            part = ordered[i * len(ordered) // count : (i + 1) * len(ordered) // count]
            found.append([name for layer in part for name in layer])
    return found


def measure_groups(
    floats: str | os.PathLike[str],
    types: Mapping[str, str],
    pictures: Sequence[Path],
    questions: Sequence[str],
    folder: Path,
    *,
    calibration: Any,
    threads: int = 0,
    progress: Progress | None = None,
    cancel: Any = None,
) -> list[tuple[list[str], float]]:
    """-> (tensors, mean KL when these are rounded) of each group. floats: a GGUF file of floats. types: of the tensors
    that are rounded. pictures: that the model is made for; questions: asked in turn where it answers them. folder: for
    one file of the size of `floats` at a time. calibration: of convert.calibrated, without error feedback.
    """
    convert = import_module("kosmos_edge.convert")
    kept = convert.stored_type(floats) or "f32"
    some = [pictures[i * len(pictures) // PICTURES] for i in range(PICTURES)] if len(pictures) > PICTURES else pictures
    cases = [Case(path.name, str(path)) for path in some]
    with load(floats, device="cpu", threads=threads or None) as model:
        if "ask" in model.model_info["tasks"]:
            asked = [Question(questions[i % len(questions)], (), "") for i in range(len(cases))]
            cases = [replace(case, questions=(question,)) for case, question in zip(cases, asked, strict=True)]
        answers, logits = forced_of(model, cases, None, MAX_TOKENS)
    groups = groups_of(list(types), MOST_GROUPS)
    found = []
    for number, group in enumerate(groups):
        if progress is not None:
            progress(number, len(groups), f"probe: {group[0]}")
        path = folder / "probe.gguf"
        convert.requantize(
            floats,
            path,
            type=kept,
            types={name: types[name] for name in group},
            overwrite=True,
            calibration=calibration,
            cancel=cancel,
        )
        with load(path, device="cpu", threads=threads or None) as model:
            _, others = forced_of(model, cases, answers, MAX_TOKENS)
        divergences = [
            kl
            for (ours, vocab), (theirs, _) in zip(logits, others, strict=True)
            for kl, *_ in _core.compare_logits(ours, theirs, vocab)
        ]
        found.append((group, math.fsum(divergences) / max(1, len(divergences))))
        path.unlink()
    if progress is not None:
        progress(len(groups), len(groups), "")
    return found
