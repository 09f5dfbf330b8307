"""kosmos-edge watch: a sidecar for each image that comes into a folder."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Any

import click

from kosmos_edge.cli.batch import RANKINGS, refuse, take_arguments, task_options
from kosmos_edge.cli.common import (
    batch_size_option,
    generation_options,
    model_options,
    opening_options,
    option,
    options,
    take_generation,
    take_messages,
    take_model,
    take_opening,
)
from kosmos_edge.cli.folder_options import run_options, sidecar_options, take_settings, wording_options
from kosmos_edge.cli.folder_results import results_for
from kosmos_edge.cli.folders import Count, folder_run, open_journal
from kosmos_edge.machine import keep_one_heap


@click.command()
@click.argument("folder")
@task_options
@options(sidecar_options, wording_options, run_options)
@option("--overwrite", is_flag=True, help="Replace existing sidecars.")
@option("-r", "--recursive", is_flag=True, help="Watch subfolders, too.")
@option(
    "--settle",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Take a file when it has not changed for so long.",
)
@option("--poll", is_flag=True, help="Look at the folder again and again, for drives that report no changes.")
@option("--once", is_flag=True, help="End after the images that are there.")
@batch_size_option
@options(generation_options, opening_options, model_options)
def watch(folder: str, task: str, settle: float, poll: bool, once: bool, **rest: Any) -> int:
    """Write a sidecar beside each image in FOLDER and each that comes, until Ctrl-C. Needs the extra watch.

    \b
    kosmos-edge watch inbox/ --sidecar txt
    kosmos-edge watch photos/ -r --sidecar xmp --keywords

    Images that have their sidecar are left out, unless --overwrite or --append is given. The results are JSON lines.
    """
    from kosmos_edge.cli.output import Output
    from kosmos_edge.folders import file_entry
    from kosmos_edge.folders.running import in_shard
    from kosmos_edge.folders.sidecars import needs_text
    from kosmos_edge.folders.watch import check_folder, incoming

    arguments = take_arguments(task, rest)
    if rest["sidecar"] is None:
        raise click.UsageError("watch: needs --sidecar")
    rest |= {"output": None, "form": "jsonl"}
    settings = take_settings((), rest)
    assert settings is not None and settings.sidecars is not None
    del rest["output"], rest["form"], rest["overwrite"]
    sidecars = settings.sidecars
    if sidecars.policy == "refuse" and sidecars.kind != "xmp":
        sidecars.policy = "skip"
    needs_text(sidecars.kind, task)
    messages = take_messages(rest)
    generation = take_generation(rest)
    if task in RANKINGS:
        for name in generation:
            refuse(name, task)
    else:
        arguments |= generation
    check_folder(folder)  # before the model is loaded
    recursive, opening, size = rest.pop("recursive"), take_opening(rest), rest.pop("batch_size")
    keep_one_heap()
    mmproj = rest["mmproj"]
    with open_journal(settings) as journal:
        model = take_model(rest, messages, reads=task == "read")
        assert not rest, rest
        if "ground" in arguments and arguments["ground"] is None:
            arguments["ground"] = model.model_info["grounding"] is not None
        run = folder_run(settings, journal, model, mmproj, task, arguments)
        run.batch_size, run.opening = size, opening
        results = results_for("jsonl", True, Output(), task, arguments, settings)
        count = Count(messages, None)
        messages.say(f"watching {folder}; Ctrl-C ends it")
        with closing(incoming(folder, recursive=recursive, settle=settle, poll=poll)) as rounds:
            for paths in rounds:
                mine = [path for path in paths if in_shard(path, settings.shard) and os.path.isfile(path)]
                # A round of its own: its answers do not wait for the next image.
                with closing(run.outcomes(file_entry(path) for path in mine)) as outcomes:
                    for outcome in outcomes:
                        count.begin()
                        if outcome.answer is not None:
                            results.write(outcome.entry, outcome.answer)
                        count.end(outcome)
                count.progress.clear()
                if once:
                    break
    return count.summary()
