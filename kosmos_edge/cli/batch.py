"""kosmos-edge batch: one task over many pictures, with a line of JSON for each."""

from __future__ import annotations

from typing import Any

import click

from kosmos_edge.cli.common import (
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
from kosmos_edge.cli.tasks import answer_all, draw_option, pictures
from kosmos_edge.cli.twins import from_environment, set_aside

# task -> its options that must be given, and those that may be
TASK_OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "caption": ((), ("length", "ground", "lead_in")),
    "ground": ((), ("prompt", "lead_in")),
    "locate": (("phrase",), ()),
    "describe": (("box",), ("normalized", "ground", "lead_in")),
    "ask": (("question",), ("ground", "choices", "lead_in")),
    "score": (("texts",), ("template", "normalize")),
}
SPELLED = {"ground": "--boxes", "choices": "--choice", "texts": "--text", "lead_in": "--lead-in"}


@click.command()
@pictures
@option("--task", type=click.Choice(list(TASK_OPTIONS)), default="caption", show_default=True, help="What to do.")
@option("--length", type=click.Choice(["short", "long"]), help="caption: of the caption; short.")
@option("--boxes/--no-boxes", "ground", default=None, help="caption, describe, ask: ask for boxes; not for ask.")
@option("-p", "--prompt", metavar="TEXT", help="ground: words to go on from.")
@option("--phrase", metavar="TEXT", help="locate: what to find.")
@option("--box", type=Corners(), metavar="X1,Y1,X2,Y2", help="describe: where, in pixels of the upright picture.")
@option("--normalized", is_flag=True, default=None, help="describe: the box is in fractions of the picture, 0..1.")
@option("--question", metavar="TEXT", help="ask: the question.")
@option("--choice", "choices", multiple=True, metavar="TEXT", help="ask: the answer is one of these.")
@option("--text", "texts", multiple=True, metavar="TEXT", help="score: a text to rank; may be given again.")
@option("--template", metavar="TEXT", help='score: words around {text}; "An image of {text}".')
@option("--normalize", type=click.Choice(["sum", "mean"]), help="score: sum of ln p, the default, or mean.")
@option("--lead-in", is_flag=True, default=None, help="Begin with the prompt's words.")
@batch_size_option
@draw_option
@options(generation_options, picture_options, output_options_with("jsonl"), model_options)
def batch(pictures: tuple[str, ...], task: str, **rest: Any) -> int:
    """Put one task to each PICTURE: files, folders, globs, @list.txt, or - for stdin.

    \b
    kosmos-edge batch photos/ > captions.jsonl
    kosmos-edge batch photos/ --task ask --question "How many people?" --format csv
    """
    arguments = take_arguments(task, rest)
    if task == "score":
        unused = take_generation(rest)
        if rest["draw"] is not None:
            unused["draw"] = rest.pop("draw")
        for name in unused:
            _refuse(name, task)
    return answer_all(task, pictures, arguments, rest)


def take_arguments(task: str, rest: dict[str, Any]) -> dict[str, Any]:
    """Moves the options of all tasks out of `rest`: those of this one. UsageError where one is missing or foreign.

    A foreign one from the environment is left out.
    """
    if task == "ask":
        rest["ground"], rest["choices"] = settle_choices(rest["ground"], rest["choices"], ("ground", "choices"))
    needed, possible = TASK_OPTIONS[task]
    names = {name for both in TASK_OPTIONS.values() for part in both for name in part}
    given = {name: value for name in sorted(names) if (value := rest.pop(name)) not in (None, ())}
    for name in [name for name in given if name not in needed + possible]:
        _refuse(name, task)
        del given[name]
    for name in needed:
        if name not in given:
            raise click.UsageError(f"the task {task} needs {_spelled(name)}")
    if task == "describe":
        check_unit(given["box"], given.get("normalized"))
    if task in ("caption", "describe"):
        given.setdefault("ground", None)  # as the commands of that name: where the model has location tokens
    return given


def _refuse(name: str, task: str) -> None:
    """UsageError about an option that the task has no use for; a default in the environment is set aside."""
    if not from_environment(name):
        raise click.UsageError(f"{_spelled(name)}: not an option of the task {task}")
    set_aside(name)


def _spelled(name: str) -> str:
    return SPELLED.get(name, f"--{name.replace('_', '-')}")
