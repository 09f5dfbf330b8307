"""kosmos-edge eval: published benchmarks on a model, with confidence intervals, beside the published figures."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from kosmos_edge.cli.common import (
    Messages,
    batch_size_option,
    kv_type_option,
    message_options,
    option,
    options,
    take_messages,
)
from kosmos_edge.cli.eval_files import convert_refs, grades, print_tables, sheet
from kosmos_edge.cli.eval_outputs import check_required, find_outs, missing_required, table_format_option, write_out
from kosmos_edge.cli.streams import check_stdout
from kosmos_edge.cli.twins import from_environment
from kosmos_edge.evaluation.registry import TASKS, find_task

if TYPE_CHECKING:
    from kosmos_edge.evaluation.task import Item, PromptTask, Task, Variant
    from kosmos_edge.quality.models import Source

_SAYS_EVERY = 30.0  # seconds between lines of progress, where stderr is no terminal

task_options = options(
    option("--data", required=True, metavar="DIR", help="Folder with the data; `eval list` says what it must hold."),
    option(
        "-m",
        "--model",
        metavar="TAG|FILE|FOLDER",
        help="Model: a tag, a GGUF file, user/repo:TAG, or a checkpoint folder.",
    ),
    option("--mmproj", metavar="FILE", help="Vision encoder, if the model is a llama.cpp pair of files."),
    option("--types", metavar="T,T,...", help="Storage types to compare with the first. Default: the model as it is."),
    option("--limit", type=click.IntRange(1), metavar="N", help="Use N items, chosen by --seed."),
    option(
        "--seed",
        type=click.IntRange(0, 2**64 - 1),
        default=0,
        show_default=True,
        help="Random seed of --limit and of the intervals.",
    ),
    option("--items", metavar="FILE", help="Write a line of JSON for each item to FILE, as items are finished."),
    option("--resume", is_flag=True, help="Go on with the FILE of --items: take the answers that are there."),
    option("--split", metavar="NAME", help="Part of the data; `eval list` says which. Default: the published one."),
    option(
        "--shots",
        type=click.IntRange(0),
        prefix="EVAL_",
        default=0,
        metavar="K",
        help="Examples before each item (few-shot).",
    ),
    option(
        "--seeds",
        type=click.IntRange(1, 100),
        default=1,
        show_default=True,
        metavar="N",
        help="Draw the examples N times, by --seed and the numbers behind it; report the mean and the spread.",
    ),
    option(
        "--exact",
        is_flag=True,
        help="Generate to the end of the text, as the authors' script; without it, to the boxes.",
    ),
    option("--score", is_flag=True, help="imagenet: rank all names by their likelihood instead of decoding one."),
    option(
        "--out",
        metavar="FILE",
        help="Write the answers to FILE, in the form that the data's own evaluation takes. {type} and {seed} in its "
        "name stand for the storage type and the seed of the examples.",
    ),
    option(
        "--require",
        multiple=True,
        metavar="METRIC",
        help="Fail unless this metric has a value, such as spice. Can be repeated.",
    ),
    option("-n", "--max-tokens", type=int, metavar="N", help="Maximum length of the answer. Default: the model's."),
    batch_size_option,
    option("--device", default="auto", show_default=True, help="Device: auto, cpu, cuda, cuda:1, ..."),
    option("-t", "--threads", type=int, metavar="N", help="Threads. Default: all that this process may use."),
    kv_type_option,
    option("--work", metavar="FOLDER", help="Folder for temporary files. Default: the system's."),
    option("--offline", is_flag=True, help="Do not use the network."),
    table_format_option,
    message_options,
)


class Tasks(click.Group):
    """The tasks of the registry, as commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """`list` and what works on files, then the tasks in the order of the registry."""
        return [*self.commands, *TASKS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """A command made of the task."""
        if name not in TASKS:
            return super().get_command(ctx, name)
        task = find_task(name)

        def run(**values: Any) -> int:
            return run_task(task, **values)

        text = f"{task.SUMMARY}\n\nThe folder of --data holds {task.FILES}."
        return click.command(name, help=text, short_help=task.SUMMARY)(task_options(run))


@click.group(cls=Tasks, invoke_without_command=True)
@option(
    "--report",
    multiple=True,
    metavar="FILE|FOLDER",
    help="Without a task: the published tables with the results of these files (from `eval TASK --format json`).",
)
@option("--into", metavar="FILE", help="With --report: write the table into FILE, between its marks for it.")
@click.pass_context
def eval(ctx: click.Context, report: tuple[str, ...], into: str | None) -> int:
    """Run a published benchmark on a model, beside the published figures.

    \b
    kosmos-edge eval list
    kosmos-edge eval ocr --data pages/ -m kosmos-2.5 --types f16,q4_k_m --items ocr.jsonl
    kosmos-edge eval --report results/
    """
    if ctx.invoked_subcommand is not None:
        for name in ("report", "into"):
            if ctx.params[name] and not from_environment(name):
                raise click.UsageError(f"--{name}: expected without a task, got {ctx.invoked_subcommand}")
        return 0
    if not report and into is None:
        click.echo(ctx.get_help(), err=True)
        return 2
    if not report:
        raise click.UsageError("--into: expected with --report")
    return print_tables(report, into)


for command in (sheet, grades, convert_refs):
    eval.add_command(command)


@eval.command("list")
@message_options
def list_command(**rest: Any) -> int:
    """List the tasks: name, metrics, data, published figures."""
    from kosmos_edge.evaluation.report import published

    take_messages(rest)
    for name in TASKS:
        task = find_task(name)
        click.echo(f"{name}\t{task.SUMMARY}")
        click.echo(f"\tdata: {task.FILES}")
        if isinstance(splits := getattr(task, "SPLITS", ()), tuple) and splits:
            click.echo(f"\tsplits: {', '.join(splits)}")
        if shots := getattr(task, "SHOTS", 0):
            click.echo(f"\tshots: 0..{shots}")
        click.echo(f"\tmetrics: {', '.join(metric.name for metric in task.METRICS)}")
        known = published(task)
        if known:
            click.echo(f"\tpublished: {known['source']}")
    return 0


def run_task(task: Task | PromptTask, **values: Any) -> int:
    """Evaluates and prints the report; 1 if images failed."""
    from kosmos_edge import hub
    from kosmos_edge.cli.output import to_json
    from kosmos_edge.evaluation.log import Log
    from kosmos_edge.evaluation.report import report
    from kosmos_edge.evaluation.run import Settings, choose, is_prompt_task, run
    from kosmos_edge.evaluation.table import markdown
    from kosmos_edge.evaluation.task import Variant
    from kosmos_edge.loading import load
    from kosmos_edge.quality.models import parse_types

    messages = take_messages(values)
    check_stdout()
    if values["resume"] and values["items"] is None:
        raise click.UsageError("--resume needs the --items of the run that is to go on")
    types = None if values["types"] is None else parse_types(values["types"])
    first = Variant(values["split"], values["shots"], values["seed"], values["exact"], values["score"])
    seeds = range(first.seed, first.seed + _draws(values["seeds"], first.shots))
    check_required(task, values["require"])
    if not os.path.isdir(values["data"]):
        raise click.UsageError(f"--data: {values['data']} is not a folder")
    known = _load(task, Path(values["data"]), first, values["out"])
    default = hub.default_model if is_prompt_task(task) else hub.default_reader
    source, vision = _find_source(values, default)
    if source.is_checkpoint and types is None:
        raise click.UsageError(f"{source.path} is a checkpoint: --types says how to store it, such as q4_k_m")
    kinds = types or [source.label]
    outs = find_outs(values["out"], kinds, seeds)
    draws: dict[int, list[Item]] = {}  # the same items, with the examples of each seed
    for seed in seeds:
        drawn = known if seed == first.seed else _load(task, Path(values["data"]), replace(first, seed=seed), None)
        draws[seed] = choose(drawn, values["limit"], values["seed"])
    arguments = {} if values["max_tokens"] is None else {"max_tokens": values["max_tokens"]}
    settings = Settings(values["data"], values["seed"], values["limit"], values["batch_size"], arguments, first)
    runs = []
    stored: dict[str, str] = {}  # the type that each run's name stands for
    with Log(values["items"], values["resume"]) as log, _saying_how_to_go_on(values["items"]):
        for kind in kinds:
            name = kind if values["kv_type"] == "f16" else f"{kind}, kv {values['kv_type']}"
            stored[name] = kind
            file = nullcontext(source.path) if types is None else source.file(kind, values["work"])
            with (
                file as path,
                load(
                    path,
                    device=values["device"],
                    threads=values["threads"],
                    kv_type=values["kv_type"],
                    mmproj=vision,
                ) as model,
            ):
                for seed, items in draws.items():
                    drawn_settings = replace(settings, variant=replace(first, seed=seed))
                    with progress_bar(drawn_settings.label(name), messages) as progress:
                        runs.append(run(task, items, model, name, log, drawn_settings, progress))
                    for item, why in runs[-1].failed:
                        messages.error(item, why)
    if is_prompt_task(task):
        for done in runs:
            if outs:
                write_out(task, draws[done.seed], done, outs[stored[done.type], done.seed])
    made = report(task, runs, settings, len(known))
    click.echo(to_json(made, 2) if values["form"] == "json" else markdown(task, made))
    lacking = missing_required(made, values["require"])
    for name, why in lacking:
        messages.error(f"--require {name}", f"it has no value: {why}")
    return 1 if lacking or any(done.failed for done in runs) else 0


def _find_source(values: dict[str, Any], default: Callable[[], tuple[str, str]]) -> tuple[Source, Path | None]:
    """What the types are made of; and the vision encoder of a llama.cpp pair, which is taken as it is."""
    from kosmos_edge.loading import find_files
    from kosmos_edge.pairs import pair_in
    from kosmos_edge.quality.models import Source

    name, mmproj, offline = values["model"], values["mmproj"], values["offline"]
    if mmproj is None and (name is None or not os.path.isdir(name) or pair_in(Path(name)) is None):
        return Source(default()[0] if name is None else name, offline), None
    if values["types"] is not None:
        raise click.UsageError("--types: a pair of files from llama.cpp is evaluated as it is stored")
    text, vision = find_files(name, mmproj, offline)
    return Source(str(text), offline), vision


def _draws(seeds: int, shots: int) -> int:
    """--seeds; UsageError where there are no examples to draw."""
    if seeds > 1 and not shots:
        raise click.UsageError(f"--seeds {seeds}: there are no examples to draw without --shots")
    return seeds


def _load(task: Task | PromptTask, folder: Path, variant: Variant, out: str | None) -> list[Item]:
    """The items; UsageError for options that the task does not have."""
    from kosmos_edge.evaluation.run import is_prompt_task
    from kosmos_edge.evaluation.text_metrics import edits

    if not is_prompt_task(task):
        given = {"--split": variant.split, "--shots": variant.shots, "--exact": variant.exact, "--out": out}
        given["--score"] = variant.score
        if wrong := [name for name, value in given.items() if value]:
            raise click.UsageError(f"{task.NAME} has no {', '.join(wrong)}")
        edits("", "")  # says now that the package is missing, not after the first page
        return cast("Task", task).load(folder)
    if variant.split is not None and variant.split not in task.SPLITS:
        known = f"one of {', '.join(task.SPLITS)}" if task.SPLITS else "none"
        raise click.UsageError(f"--split: {task.NAME} has {known}, got {variant.split!r}")
    if variant.shots > task.SHOTS:
        raise click.UsageError(f"--shots: {task.NAME} takes 0..{task.SHOTS}, got {variant.shots}")
    if variant.exact and not task.EXACT:
        raise click.UsageError(f"--exact: {task.NAME} has one way only")
    if variant.score and not task.SCORE:
        raise click.UsageError(f"--score: {task.NAME} has no names to rank, or ranks them anyway")
    if out is not None and task.results([], []) is None:
        raise click.UsageError(f"--out: the data of {task.NAME} have no evaluation of their own")
    items = task.load(folder, variant)
    if not items:
        where = f" in split {variant.split or task.SPLITS[0]}" if task.SPLITS else ""
        raise click.UsageError(f"--data: {folder} has no items of {task.NAME}{where}")
    return items


@contextmanager
def _saying_how_to_go_on(items: str | None) -> Iterator[None]:
    """Adds to the message of an interrupted run where its answers are."""
    try:
        yield
    except KeyboardInterrupt as error:
        if items is not None:
            error.add_note(f"finished items are in {items}; --resume goes on with them")
        raise


@contextmanager
def progress_bar(label: str, messages: Messages) -> Iterator[Callable[[int, int, str], None]]:
    """A callback (done, total, item): a bar with the time that is left, or with --verbose a line now and then."""
    if not messages.quiet and sys.stderr.isatty():
        with click.progressbar(
            length=1, label=label, file=sys.stderr, show_pos=True, item_show_func=lambda name: name
        ) as bar:

            def show(done: int, total: int, name: str) -> None:
                bar.length = total
                bar.update(done - bar.pos, name[-40:])

            yield show
        return
    start = said = time.monotonic()
    first: list[int] = []

    def say(done: int, total: int, name: str) -> None:
        nonlocal said
        first.append(done - 1)  # what an earlier run had done
        now = time.monotonic()
        if now - said >= _SAYS_EVERY or done == total:
            said = now
            left = (now - start) / (done - first[0]) * (total - done)
            messages.detail(f"{label}: {done} of {total}, about {left:.0f} s left")

    yield say
