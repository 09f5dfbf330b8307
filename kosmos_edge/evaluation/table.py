"""A report as Markdown: our figures beside the published ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kosmos_edge.evaluation.statistics import DRAWS
from kosmos_edge.evaluation.task import PromptTask, Task

_EVIDENT = 0.05  # p below which a difference is marked


def markdown(task: Task | PromptTask, report: Mapping[str, Any]) -> str:
    """The tables and notes, ready to paste; figures in percent."""
    each: Sequence[Mapping[str, Any]] = report.get("types") or [report]
    first = each[0]
    subset = f" (subset of {first['subset_of']})" if first["subset_of"] is not None else ""
    lines = [f"# {task.NAME}: {first['n']} items{subset}, {first['model']}", ""]
    lines += _figures(task, each)
    for one in each:
        if one["groups"]:
            lines += ["", f"By group, {one['type']}; in brackets the published figure of that name:", ""]
            lines += _groups(task, one)
    if report.get("differences"):
        lines += ["", f"Differences to {each[0]['type']}, on the same items (points; * p < {_EVIDENT}):", ""]
        lines += _differences(task, report["differences"])
    lines += ["", *_notes(task, each)]
    return "\n".join(lines)


def _figures(task: Task | PromptTask, each: Sequence[Mapping[str, Any]]) -> list[str]:
    known: Mapping[str, Any] = each[0]["published"]
    rows: Mapping[str, Mapping[str, float]] = known.get("rows", {})
    doubtful = known.get("unsure_rows", ())
    cells = [["metric", *(one["type"] for one in each), *(f"published: {name}" for name in rows)]]
    for metric in task.METRICS:
        row = [metric.name]
        row += [_with_interval(one["metrics"][metric.name]) for one in each]
        unsure = known.get("notes", {}).get(metric.name, "").startswith("unsure")
        row += [
            _percent(figures.get(metric.name)) + " ?" * ((unsure or name in doubtful) and metric.name in figures)
            for name, figures in rows.items()
        ]
        cells.append(row)
    return _table(cells)


def _groups(task: Task | PromptTask, one: Mapping[str, Any]) -> list[str]:
    rows = {name.casefold(): figures for name, figures in one["published"].get("rows", {}).items()}
    cells = [["", "n", *(metric.name for metric in task.METRICS)]]
    for name, group in one["groups"].items():
        known = rows.get(name.casefold(), {})
        row = [name or "(none)", str(group["n"])]
        for metric in task.METRICS:
            text = _percent(group["metrics"][metric.name]["value"])
            row.append(text + (f" ({_percent(known[metric.name])})" if metric.name in known else ""))
        cells.append(row)
    return _table(cells)


def _differences(task: Task | PromptTask, differences: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = [["metric", *(difference["type"] for difference in differences)]]
    for metric in task.METRICS:
        found = [difference["metrics"].get(metric.name) for difference in differences]
        if any(found):
            cells.append([metric.name, *(_difference(one) for one in found)])
    return _table(cells)


def _notes(task: Task | PromptTask, each: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = [
        f"- {metric.name}: {metric.meaning}; {'higher' if metric.higher_is_better else 'lower'} is better"
        for metric in task.METRICS
    ]
    reasons = {(name, found["reason"]) for name, found in each[0]["metrics"].items() if "reason" in found}
    notes += [f"- {name} has no value: {why}" for name, why in sorted(reasons)]
    notes.append(
        f"- in brackets: 95 % interval, bootstrap over items ({DRAWS} draws, seed {each[0]['settings']['seed']})"
    )
    if seeds := each[0]["settings"].get("shots_seeds"):
        notes.append(
            f"- means over {len(seeds)} draws of examples, seeds {seeds[0]} to {seeds[-1]}; behind ±: their standard "
            "deviation"
        )
    known = each[0]["published"]
    if known:
        notes.append(
            f"- published: {known['model']}, {known['source']}; {'sure' if known['sure'] else 'unsure'} of the figures"
        )
        notes += [f"- {name}, published: {text}" for name, text in known["notes"].items()]
    for one in each:
        rate = f", {one['images_per_second']:.3g} images/s" if one["images_per_second"] else ""
        notes.append(
            f"- {one['type']}: prompt {one['prompt']!r}; {one['computed']} items computed in {one['seconds']:.1f} s"
            + rate
        )
        if one["cut"]:
            notes.append(f"- {one['type']}: {one['cut']} answers end at the limit of tokens")
        if one["failed"]:
            names = ", ".join(failure["id"] for failure in one["failed"][:5])
            notes.append(f"- {one['type']}: {len(one['failed'])} images failed and count as empty answers: {names}")
    return notes


def _table(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    rows = [
        "| "
        + " | ".join(c.ljust(w) if not i else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (w + 2) if not i else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return [rows[0], rule, *rows[1:]]


def _with_interval(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "-"
    interval = figure["ci95"]
    text = _percent(figure["value"]) + (
        "" if interval is None else f" [{_percent(interval[0])}, {_percent(interval[1])}]"
    )
    return text + (f" ± {_percent(figure['sd'])}" if "sd" in figure else "")


def _difference(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "-"
    text = f"{100 * one['value']:+.2f}"
    if one["ci95"] is not None:
        text += f" [{100 * one['ci95'][0]:+.2f}, {100 * one['ci95'][1]:+.2f}]"
    return text + (" *" if one["p"] is not None and one["p"] < _EVIDENT else "")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
