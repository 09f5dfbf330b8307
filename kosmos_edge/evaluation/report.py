"""Reports of runs: figures with their intervals, several draws of examples put together, several types compared."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, TypeAlias

from kosmos_edge.evaluation.run import Run, Settings
from kosmos_edge.evaluation.statistics import Metric, Part, bootstrap, paired_difference
from kosmos_edge.evaluation.task import PromptTask, Task

_NO_PART = "no item has a part in it"
Joint: TypeAlias = tuple[Part, ...]  # an item's parts in all draws of examples


def published(task: Task | PromptTask) -> dict[str, Any]:
    """The published figures, as fractions, with their source and what is unsure of them."""
    known: dict[str, Any] = json.loads(files(__package__).joinpath("published.json").read_text(encoding="utf-8"))
    found = known.get(task.NAME, {})
    assert isinstance(found, dict)
    return found


def report(task: Task | PromptTask, runs: Sequence[Run], settings: Settings, of: int) -> dict[str, Any]:
    """JSON-ready. One type: its figures. Several: `types` with the figures of each, and `differences` to the first.

    Runs of one type are draws of examples by different seeds, on the same items; the figures are their means.
    of: number of items in the data; fewer were used with a limit.
    """
    types: dict[str, list[Run]] = {}
    for done in runs:
        types.setdefault(done.type, []).append(done)
    each = [_figures(task, draws, settings, of) for draws in types.values()]
    if len(each) == 1:
        return each[0]
    first, *others = types.values()
    differences = [
        {
            "type": other[0].type,
            "against": first[0].type,
            "metrics": _differences(task, first, other, settings.seed),
        }
        for other in others
    ]
    return {"task": task.NAME, "n": len(first[0].scores), "types": each, "differences": differences}


def _figures(task: Task | PromptTask, draws: Sequence[Run], settings: Settings, of: int) -> dict[str, Any]:
    done = draws[0]
    groups: dict[str, list[int]] = {}
    for number, group in enumerate(done.groups):
        for name in (group,) if isinstance(group, str) else group:
            groups.setdefault(name, []).append(number)
    seconds, computed = math.fsum(one.seconds for one in draws), sum(one.computed for one in draws)
    reasons = {name: why for one in draws for name, why in one.reasons.items()}
    scores = [one.scores for one in draws]
    shots_seeds = {"shots_seeds": [one.seed for one in draws]} if len(draws) > 1 else {}
    return {
        "task": task.NAME,
        "n": len(done.scores),
        "metrics": _metrics(task, scores, settings.seed, reasons),
        "groups": {
            name: {
                "n": len(members),
                "metrics": _metrics(task, [[one[i] for i in members] for one in scores], settings.seed, reasons),
            }
            for name, members in (groups.items() if len(groups) > 1 else ())
        },
        "published": {} if settings.variant.score else published(task),
        "model": done.model,
        "type": done.type,
        "prompt": done.prompt,
        "seconds": round(seconds, 3),
        "images_per_second": round(computed / seconds, 4) if seconds else None,
        "computed": computed,
        "subset_of": of if len(done.scores) < of else None,
        "failed": [{"id": name, "error": why} for one in draws for name, why in one.failed],
        "cut": sum(one.cut for one in draws),
        "settings": {
            "data": settings.data,
            "seed": settings.seed,
            "batch_size": settings.batch_size,
            "arguments": dict(settings.arguments),
            **settings.described,
            **shots_seeds,
        },
    }


def _metrics(
    task: Task | PromptTask, scores: Sequence[Sequence[Mapping[str, Part]]], seed: int, reasons: Mapping[str, str]
) -> dict[str, Any]:
    """scores: by draw of examples, then by item."""
    found: dict[str, Any] = {}
    for metric in task.METRICS:
        parts = [joint for joint in _joints(scores, metric.name) if joint is not None]
        measure = _mean(metric, len(scores))
        value = measure(parts) if parts else None
        interval = bootstrap(measure, parts, seed) if value is not None else None
        figure: dict[str, Any] = {
            "value": value,
            "ci95": None if interval is None else list(interval),
            "items": len(parts),
        }
        if value is None:
            figure["reason"] = reasons.get(metric.name) or metric.missing or _NO_PART
        elif len(scores) > 1:
            each = (metric.value([joint[draw] for joint in parts]) for draw in range(len(scores)))
            by_seed = [one for one in each if one is not None]  # all: their mean has a value
            figure |= {"sd": statistics.stdev(by_seed), "by_seed": by_seed}
        found[metric.name] = figure
    return found


def _joints(scores: Sequence[Sequence[Mapping[str, Part]]], metric: str) -> list[Joint | None]:
    """By item; None where a draw has no part in the metric."""
    items = zip(*scores, strict=True)
    return [tuple(one[metric] for one in item) if all(metric in one for one in item) else None for item in items]


def _mean(metric: Metric, draws: int) -> Callable[[Sequence[Joint]], float | None]:
    """The metric's mean over the draws; None if one of them has no value."""

    def value(joints: Sequence[Joint]) -> float | None:
        found = [metric.value([joint[draw] for joint in joints]) for draw in range(draws)]
        known = [figure for figure in found if figure is not None]
        return math.fsum(known) / draws if len(known) == draws else None

    return value


def _differences(task: Task | PromptTask, first: Sequence[Run], other: Sequence[Run], seed: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for metric in task.METRICS:
        ours, theirs = (_joints([one.scores for one in draws], metric.name) for draws in (first, other))
        pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
        if not pairs:
            continue
        measure = _mean(metric, len(first))
        made = paired_difference(measure, [a for a, _ in pairs], [b for _, b in pairs], seed)
        if made is not None:
            found[metric.name] = {
                "value": made.value,
                "ci95": None if made.ci95 is None else list(made.ci95),
                "p": made.p,
            }
    return found
