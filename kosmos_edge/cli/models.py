"""kosmos-edge models list|pull|rm|verify|path, and convert. The work is done in kosmos_edge.hub and .convert."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from kosmos_edge.cli.common import Messages, message_options, option, report_format_option, take_messages
from kosmos_edge.cli.streams import check_stdout, plain_error, stdout_is_closed
from kosmos_edge.cli.twins import from_environment

Progress = Callable[[int, int, str], None]


@contextmanager
def progress_bar(label: str, messages: Messages) -> Iterator[Progress]:
    """A callback (done, total, name) that updates a progress bar, if stderr is a terminal."""
    if messages.quiet or not sys.stderr.isatty():
        yield lambda done, total, name: None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr, item_show_func=lambda name: name) as bar:

        def show(done: int, total: int, name: str) -> None:
            bar.length = max(total, 1)
            bar.update(done - bar.pos, name[-40:])

        yield show


def _conversion() -> Any:
    """kosmos_edge.convert; in a checkout it is outside this package."""
    return import_module("kosmos_edge.convert")


@click.group()
def models() -> None:
    """List, pull, remove and verify models; print their paths."""


@models.command("list")
@option("--known", is_flag=True, help="List what can be pulled instead: tag, licence, bytes, repository, what it does.")
@report_format_option
@message_options
def list_command(known: bool, form: str, **rest: Any) -> int:
    """List the models on this machine: tag, bytes, path.

    With --known, bytes are those of the download and, estimated, of the converted file of the default type.
    """
    from kosmos_edge import hub
    from kosmos_edge.cli.output import to_json

    messages = take_messages(rest)
    found: list[dict[str, Any]]
    if known:
        found = [
            {
                "tag": row.name,
                "license": row.license,
                "download_bytes": row.source_bytes,
                "bytes": hub.converted_bytes(row, hub.TYPES[0]),
                "repo": row.repo,
                "about": row.about,
            }
            for row in hub.PUBLISHED.values()
        ]
    else:
        found = [{"tag": model.tag, "bytes": model.bytes, "path": str(model.path)} for model in hub.list_models()]
    if form == "json":
        click.echo(to_json(found, 2))
    else:
        for model in found:
            click.echo("\t".join(str(value) for value in model.values()))
        if known:
            messages.say(f"{hub.IN_PARTS} are published in parts: convert them by hand (docs/convert.md)")
    return 0


@models.command("path")
@click.argument("tag")
def path_command(tag: str) -> int:
    """Print only the path of TAG's file."""
    from kosmos_edge import hub

    click.echo(str(hub.path(tag)))
    return 0


@models.command("pull")
@click.argument("tag")
@option("--type", "type_", metavar="TYPE", help="Storage type of the weights, such as q4_k_m or q8_0.")
@option("--to", metavar="FOLDER", help="Write the model to FOLDER instead of the cache.")
@option("--offline", is_flag=True, help="Do not use the network: convert a checkpoint from the cache.")
@option("--keep-source", is_flag=True, help="Keep the downloaded checkpoint (6.7 GB for kosmos-2) for other types.")
@message_options
def pull_command(tag: str, type_: str | None, to: str | None, offline: bool, keep_source: bool, **rest: Any) -> int:
    """Download the published checkpoint of TAG (kosmos-2, kosmos-2.5:q8_0, user/repo:TYPE) and convert it.

    Prints the sizes before it downloads anything, and the path of the finished file at the end.
    """
    from kosmos_edge import hub

    messages = take_messages(rest)
    check_stdout()
    if to == "-":
        raise click.UsageError("--to: expected a folder, got - (./- is one)")
    if ":" in tag and from_environment("type_"):
        type_ = None  # TAG names the type
    for line in hub.describe_plan(hub.plan(tag, type=type_, offline=offline, to=to)):
        messages.say(line)
    with progress_bar("pull", messages) as progress:
        path = hub.pull(tag, type=type_, progress=progress, offline=offline, to=to, keep_source=keep_source)
    click.echo(str(path))
    return 0


@models.command("rm")
@click.argument("tags", nargs=-1, required=True, metavar="TAG...")
@message_options
def rm_command(tags: tuple[str, ...], **rest: Any) -> int:
    """Remove the files of TAGs from the cache."""
    from kosmos_edge import hub

    messages = take_messages(rest)
    for tag in tags:
        messages.say(f"removed {hub.remove(tag)}")
    return 0


@models.command("verify")
@click.argument("tags", nargs=-1, required=True, metavar="TAG|FILE...")
@message_options
def verify_command(tags: tuple[str, ...], **rest: Any) -> int:
    """Check every tensor of a model against the checksums in its file."""
    from kosmos_edge.errors import KosmosError
    from kosmos_edge.loading import find_model

    messages = take_messages(rest)
    failed = 0
    for tag in tags:
        try:
            path = find_model(tag, offline=True)
            with progress_bar(tag, messages) as progress:
                bad = _conversion().verify(path, progress)
        except KosmosError as error:
            messages.error(tag, plain_error(error))
            failed += 1
            continue
        if bad:
            messages.error(str(path), f"{len(bad)} damaged tensors: {', '.join(bad[:10])}{' ...' if bad[10:] else ''}")
            failed += 1
        else:
            click.echo(f"{path}: ok")
    return 1 if failed else 0


@click.command()
@click.argument("source")
@option(
    "-o",
    "--output",
    required=True,
    prefix="CONVERT_",
    metavar="FILE|FOLDER",
    help="GGUF file to write, or a folder for it.",
)
@option("--type", "type_", metavar="TYPE", help="Storage type of the weights.  [default: q4_k_m]")
@option(
    "--size",
    metavar="SIZE",
    help="Instead: a type for each tensor, so that the file has at most 900MB, or 1.2GB.",
)
@option("--tokenizer", metavar="FILE", help="tokenizer.json, sentencepiece model or .tiktoken, if elsewhere.")
@option("--base", metavar="FOLDER", help="LLaMA's checkpoint that SOURCE is the difference from: LLaVA's deltas.")
@option("--calibrate", metavar="FOLDER", help="Run the model on these images, and round by what its matrices met.")
@option("--texts", metavar="FILE", help="With --calibrate: questions to ask about the images, one a line.")
@option("--imatrix", metavar="FILE", help="Round by the statistics of an earlier run, or of llama.cpp's imatrix.")
@option("--save-imatrix", metavar="FILE", help="With --calibrate: also write the statistics, in llama.cpp's form.")
@option("--overwrite", is_flag=True, help="Replace the output if it exists.")
@message_options
def convert(
    source: str,
    output: str,
    type_: str | None,
    size: str | None,
    tokenizer: str | None,
    base: str | None,
    calibrate: str | None,
    texts: str | None,
    imatrix: str | None,
    save_imatrix: str | None,
    overwrite: bool,
    **rest: Any,
) -> int:
    """Convert a published checkpoint to one GGUF file.

    SOURCE is a folder in Hugging Face's layout, a folder with unilm's kosmos-2.pt or ckpt.pt, or a weights file of
    either; with --calibrate or --imatrix also a GGUF file of type f32, f16 or bf16. With --verbose,
    --size also prints which tensor got which type. Prints the path of the finished
    file. A conversion that fails or is interrupted leaves nothing.
    """
    messages = take_messages(rest)
    for name, value in (("--texts", texts), ("--save-imatrix", save_imatrix)):
        if value is not None and calibrate is None:
            raise click.UsageError(f"{name}: needs --calibrate")
    if calibrate is not None and imatrix is not None:
        raise click.UsageError("--calibrate and --imatrix: expected one of them")
    if type_ is not None and size is not None:
        if from_environment("type_") == from_environment("size"):
            raise click.UsageError("--type and --size: expected one of them")
        type_, size = (None, size) if from_environment("type_") else (type_, None)  # what this command was told
    if type_ is None and size is None:
        type_ = "q4_k_m"
    given: dict[str, Any] = {"type": type_, "size": size, "overwrite": overwrite, "tokenizer": tokenizer, "base": base}
    with progress_bar("convert", messages) as progress:
        if calibrate is None and imatrix is None:
            report = _conversion().convert(source, output, **given, progress=progress)
        else:
            from kosmos_edge.calibration import calibrated_convert, calibration_set

            things = None if calibrate is None else calibration_set(calibrate, texts)
            report = calibrated_convert(
                source, output, **given, things=things, imatrix=imatrix, save_imatrix=save_imatrix, progress=progress
            )
    for line in report.plan:
        messages.detail(line)
    for line in _conversion().describe(report):
        messages.say(line)
    if not stdout_is_closed():  # the file is the result, so a closed stdout is no error
        click.echo(str(Path(report.output)))
    return 0
