"""kosmos-edge batch: one task on many images, with a line of JSON for each."""

from __future__ import annotations

from typing import Any, get_args

import click

from kosmos_edge.cli.common import (
    EXPORT_FORMATS,
    Corners,
    batch_size_option,
    check_unit,
    generation_options,
    model_options,
    option,
    options,
    output_options_with,
    picture_options,
    settle_choices,
    take_generation,
)
from kosmos_edge.cli.engines import answer_on_ray, engine_options, take_engine
from kosmos_edge.cli.folder_options import folder_options, take_settings
from kosmos_edge.cli.folders import answer_folders
from kosmos_edge.cli.tasks import answer_all, draw_option, pictures
from kosmos_edge.cli.twins import from_environment, set_aside
from kosmos_edge.machine import keep_one_heap
from kosmos_edge.options import Normalize

# task -> its required options, its other options
TASK_OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "caption": ((), ("length", "ground", "lead_in")),
    "ground": ((), ("prompt", "lead_in")),
    "locate": (("phrase",), ()),
    "describe": (("box",), ("normalized", "ground", "lead_in")),
    "ask": (("question",), ("ground", "choices", "lead_in")),
    "read": ((), ("markdown",)),
    "score": (("texts",), ("template", "normalize")),
    "classify": (("label",), ("question", "prompt", "normalize")),
    "reason": (("question",), ("rationale_prompt", "rationale_tokens", "choices", "normalize")),
}
RANKINGS = ("score", "classify")  # nothing is generated, and there are no boxes to draw
# Tasks of more than an image for each answer.
ELSEWHERE = {
    "iq": "needs all the images of one matrix: use kosmos-edge iq, once for each matrix",
    "webqa": "needs the text of each page beside its screenshot: use kosmos-edge webqa, once for each page",
}
SPELLED = {"ground": "--boxes", "choices": "--choice", "texts": "--text", "lead_in": "--lead-in"}


class Tasks(click.Choice[str]):
    """The tasks; those that take several files for one answer are refused with their reason."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The task."""
        if value in ELSEWHERE:
            raise click.BadParameter(f"{value} {ELSEWHERE[value]}", ctx, param)
        return str(super().convert(value, param, ctx))


task_options = options(
    option("--task", type=Tasks(list(TASK_OPTIONS)), default="caption", show_default=True, help="Task to run."),
    option("--length", type=click.Choice(["short", "long"]), help="caption: length of the caption. Default: short."),
    option(
        "--boxes/--no-boxes",
        "ground",
        default=None,
        help="caption, describe, ask: request boxes. Default: if the model has boxes; ask: no.",
    ),
    option("-p", "--prompt", metavar="TEXT", help="ground: words to continue; classify: words before the label."),
    option("--phrase", metavar="TEXT", help="locate: the phrase to find."),
    option("--box", type=Corners(), metavar="X1,Y1,X2,Y2", help="describe: box in pixels of the upright image."),
    option("--normalized", is_flag=True, default=None, help="describe: give the box in fractions of the image, 0..1."),
    option("--question", metavar="TEXT", help="ask, reason, classify: the question."),
    option(
        "--choice", "choices", multiple=True, metavar="TEXT", help="ask, reason: allowed answer; use it at least twice."
    ),
    option("--markdown", is_flag=True, default=None, help="read: the page as Markdown instead of lines."),
    option("--text", "texts", multiple=True, metavar="TEXT", help="score: a text to rank. Can be repeated."),
    option("--template", metavar="TEXT", help="score: words around {text}. Default: the model's caption prompt."),
    option("--normalize", type=click.Choice(get_args(Normalize)), help="As for score. Default: sum."),
    option("--label", multiple=True, metavar="TEXT", help="classify: a label. Can be repeated."),
    option("--rationale-prompt", metavar="TEXT", help="reason: words that ask for the rationale."),
    option("--rationale-tokens", type=int, metavar="N", help="reason: maximum length of the rationale."),
    option("--lead-in", is_flag=True, default=None, help="Begin the text with the prompt's words."),
)


@click.command()
@pictures
@task_options
@folder_options
@engine_options
@batch_size_option
@draw_option
@options(generation_options, picture_options, output_options_with("jsonl", EXPORT_FORMATS), model_options)
def batch(pictures: tuple[str, ...], task: str, **rest: Any) -> int:
    """Run one task on each IMAGE: files, folders, globs, @list.txt, or - for stdin.

    \b
    kosmos-edge batch photos/ > captions.jsonl
    kosmos-edge batch photos/ --task ask --question "How many people?" --format csv
    kosmos-edge batch photos/ -r --sidecar txt --resume
    kosmos-edge batch photos/ -r --engine ray -o captions/ --resume
    """
    keep_one_heap()
    engine = take_engine(rest)
    settings = take_settings(pictures, rest)
    arguments = take_arguments(task, rest)
    if task in RANKINGS:
        unused = take_generation(rest)
        if rest["draw"] is not None:
            unused["draw"] = rest.pop("draw")
        for name in unused:
            refuse(name, task)
    if engine is not None:
        return answer_on_ray(task, pictures, arguments, rest, settings, engine)
    if settings is not None:
        return answer_folders(task, pictures, arguments, rest, settings)
    return answer_all(task, pictures, arguments, rest)


def take_arguments(task: str, rest: dict[str, Any]) -> dict[str, Any]:
    """Moves the options of all tasks out of `rest` and returns those of this task.

    UsageError if one is missing or belongs to another task; one of another task in the environment is ignored.
    """
    if task == "reason":
        _, rest["choices"] = settle_choices(None, rest["choices"], ("", "choices"))
    if task == "ask":
        rest["ground"], rest["choices"] = settle_choices(rest["ground"], rest["choices"], ("ground", "choices"))
    needed, possible = TASK_OPTIONS[task]
    names = {name for both in TASK_OPTIONS.values() for part in both for name in part}
    given = {name: value for name in sorted(names) if (value := rest.pop(name)) not in (None, ())}
    for name in [name for name in given if name not in needed + possible]:
        refuse(name, task)
        del given[name]
    for name in needed:
        if name not in given:
            raise click.UsageError(f"the task {task} needs {_spelled(name)}")
    if task == "classify":
        given["labels"] = list(given.pop("label"))
    if task == "describe":
        check_unit(given["box"], given.get("normalized"))
    if task in ("caption", "describe"):
        given.setdefault("ground", None)  # as in the commands of that name: boxes if the model has location tokens
    return given


def refuse(name: str, task: str) -> None:
    """UsageError about an option of another task; one from the environment is ignored."""
    if not from_environment(name):
        raise click.UsageError(f"{_spelled(name)}: not an option of the task {task}")
    set_aside(name)


def _spelled(name: str) -> str:
    return SPELLED.get(name, f"--{name.replace('_', '-')}")
