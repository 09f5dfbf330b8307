"""The papers' tables with the results of `kosmos-edge eval TASK --format json` beside the published figures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.pages import read_text
from kosmos_edge.evaluation.registry import TASKS, find_task
from kosmos_edge.evaluation.report import published
from kosmos_edge.evaluation.run import is_prompt_task
from kosmos_edge.evaluation.tasks.records import read_json, reading

BEGIN, END = "<!-- eval --report -->", "<!-- end of eval --report -->"
_OTHERS = re.compile(r"chance|GIT|language model.*")  # rows that are not of a KOSMOS model
_SHOTS = re.compile(r" k=(\d+)$")


@dataclass(frozen=True, slots=True)
class Place:
    """A row of the tables before its metrics: a task as it is run."""

    task: str
    split: str  # "" for tasks without splits
    shots: int

    @property
    def command(self) -> str:
        """As it is typed, without the data and the model."""
        task = find_task(self.task)
        usual = self.split in ("", task.SPLITS[0] if is_prompt_task(task) and task.SPLITS else "")
        split, shots = "" if usual else f" --split {self.split}", f" --shots {self.shots}" if self.shots else ""
        return f"eval {self.task}{split}{shots}"


def places() -> Iterator[tuple[Place, list[str], dict[str, Mapping[str, float]]]]:
    """(place, its metrics, the published rows for it) in the registry's order."""
    for name in TASKS:
        task = find_task(name)
        if not is_prompt_task(task):
            continue  # ocr and markdown have groups instead, and a table of their own
        known = published(task)
        rows: dict[Place, dict[str, Mapping[str, float]]] = {}
        for label, figures in known.get("rows", {}).items():
            if not _OTHERS.fullmatch(label):
                rows.setdefault(_place(name, task.SPLITS, label), {})[label] = figures
        for place in sorted(rows, key=lambda place: place.shots):
            metrics = [m.name for m in task.METRICS if any(m.name in figures for figures in rows[place].values())]
            yield place, metrics, rows[place]


def _place(task: str, splits: Sequence[str], label: str) -> Place:
    shots = _SHOTS.search(label)
    split = label.partition(", ")[2]
    return Place(task, split if split in splits else splits[0] if splits else "", int(shots[1]) if shots else 0)


def read_results(paths: Sequence[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """(file, figures of one type) of all results; folders are searched for *.json. InvalidRequest for other files."""
    files = []
    for path in paths:
        inside = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        if not inside:
            raise InvalidRequest(f"--report: {path} has no .json files")
        files += inside
    out = []
    for file in files:
        record = read_json(file)
        with reading(file):
            for one in record.get("types", [record]):
                if one["task"] not in TASKS:
                    raise ValueError(f"the task {one['task']} is not known")
                out.append((file, {name: one[name] for name in _NEEDED}))
    return out


_NEEDED = ("task", "n", "metrics", "model", "type", "subset_of", "settings")


def make_tables(results: Sequence[tuple[Path, Mapping[str, Any]]]) -> str:
    """One table, a row for each published figure, a column for each model and type; "-" where there is no result.

    InvalidRequest if two results are of one place. Results by --score are left out: no figure was published so.
    """
    columns = list(dict.fromkeys(f"{one['model']} {one['type']}" for _, one in results)) or ["yours"]
    found: dict[tuple[Place, str], tuple[Path, Mapping[str, Any]]] = {}
    for file, one in results:
        settings = one["settings"]
        task = find_task(one["task"])
        if settings.get("score") or not is_prompt_task(task):
            continue
        split = settings.get("split", task.SPLITS[0] if task.SPLITS else "")
        key = Place(one["task"], split, settings.get("shots", 0)), f"{one['model']} {one['type']}"
        if key in found:
            raise InvalidRequest(f"{found[key][0]} and {file} are both of {key[0].command}, {key[1]}")
        found[key] = file, one
    lines = ["| command | metric | published | " + " | ".join(columns) + " |", "| --- " * (3 + len(columns)) + "|"]
    for place, metrics, rows in places():
        known = published(find_task(place.task))
        for metric in metrics:
            ours = [found.get((place, column)) for column in columns]
            cells = [place.command, metric, _published(known, rows, metric)]
            cells += [_ours(None if one is None else one[1], metric) for one in ours]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _published(known: Mapping[str, Any], rows: Mapping[str, Mapping[str, float]], metric: str) -> str:
    unsure = known["notes"].get(metric, "").startswith("unsure")
    cells = []
    for label, figures in rows.items():
        if metric in figures:
            name = _SHOTS.sub("", label).partition(", ")[0].removeprefix("microsoft/")
            mark = " ?" if unsure or label in known.get("unsure_rows", ()) else ""
            cells.append(f"{100 * figures[metric]:.1f}{mark} ({name})")
    return ", ".join(cells)


def _ours(one: Mapping[str, Any] | None, metric: str) -> str:
    if one is None:
        return "-"
    figure = one["metrics"][metric]
    if figure["value"] is None:
        return f"none: {figure['reason']}".replace("|", "\\|")
    text, interval = f"{100 * figure['value']:.1f}", figure["ci95"]
    if interval is not None:
        text += f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
    if "sd" in figure:
        text += f" ± {100 * figure['sd']:.1f}"
    return text if one["subset_of"] is None else f"{text}, {one['n']} of {one['subset_of']} items"


def fill(path: Path, tables: str) -> str:
    """The file's text with the tables between its marks; InvalidRequest without them."""
    text = read_text(path)
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InvalidRequest(f"--into: {path} has no place for the tables, between {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{tables}\n{END}{after}"
