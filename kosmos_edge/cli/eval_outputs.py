"""The report's format, what `eval` writes beside it, and the metrics that must have a value."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from kosmos_edge.cli.common import option

if TYPE_CHECKING:
    from kosmos_edge.evaluation.run import Run
    from kosmos_edge.evaluation.task import Item, PromptTask, Task
    from kosmos_edge.targets import Target


table_format_option = option(
    "-f",
    "--format",
    "form",
    type=click.Choice(["md", "json"]),
    prefix="EVAL_",
    default="md",
    show_default=True,
    help="Format of the report.",
)


def find_outs(given: str | None, kinds: Sequence[str], seeds: Sequence[int]) -> dict[tuple[str, int], Target]:
    """(type, seed) -> the file of --out; {} without one. UsageError if two runs would have the same file."""
    from kosmos_edge.targets import find_target

    if given is None:
        return {}
    for values, place, many in ((kinds, "{type}", "--types"), (seeds, "{seed}", "--seeds")):
        if len(values) > 1 and place not in given:
            raise click.UsageError(f"--out: with several {many} expected {place} in the name, as answers-{place}.json")
    return {
        (kind, seed): find_target(given.replace("{type}", kind).replace("{seed}", str(seed)), overwrite=False)
        for kind in kinds
        for seed in seeds
    }


def write_out(task: PromptTask, items: Sequence[Item], done: Run, target: Target) -> None:
    """The answers of a run in the form that the data's own evaluation takes."""
    from kosmos_edge.evaluation.answers import write_lines
    from kosmos_edge.targets import write_whole

    found = task.results(items, done.predictions)
    assert found is not None  # checked before anything was computed
    if task.LINES:
        data = write_lines(found, f"{done.model}:{done.type}")
    else:
        data = json.dumps(found, ensure_ascii=False).encode() + b"\n"
    write_whole(target, data, overwrite=False)


def check_required(task: Task | PromptTask, names: Sequence[str]) -> None:
    """UsageError for metrics that the task does not have, or that cannot be computed here."""
    from kosmos_edge.evaluation.metrics import java

    known = {metric.name for metric in task.METRICS}
    for name in names:
        if name not in known:
            raise click.UsageError(
                f"--require: {task.NAME} has {', '.join(sorted(known)) or 'no metrics'}, got {name!r}"
            )
        if name in java.MISSING and (why := java.why_not(name)):
            raise click.UsageError(f"--require {name}: {why}")


def missing_required(made: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, str]]:
    """(metric, why) of the required ones without a value in a report."""

    def found() -> Iterator[tuple[str, str]]:
        for one in made.get("types", [made]):
            for name in names:
                if one["metrics"][name]["value"] is None:
                    yield name, one["metrics"][name]["reason"]

    return list(dict.fromkeys(found()))
