"""kosmos-edge batch --engine ray: workers on one machine or many, and a folder of Parquet files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from kosmos_edge._native import _core
from kosmos_edge.cli.common import Messages, option, options, take_generation, take_messages, take_opening
from kosmos_edge.cli.folder_options import Settings
from kosmos_edge.cli.progress import Progress
from kosmos_edge.cli.tasks import shows_progress
from kosmos_edge.cli.twins import from_environment, set_aside, take_set_aside

if TYPE_CHECKING:
    from kosmos_edge.cli.inputs import Input
    from kosmos_edge.distributed.dispatch import Counts
    from kosmos_edge.distributed.items import Item

THREADS = 2  # of a worker

engine_options = options(
    option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="ray: workers of Ray, on one machine or many; -o is a folder of Parquet files.",
    ),
    option("--workers", type=click.IntRange(1), metavar="N", help="ray: workers. Default: as many as there is room."),
    option("--ray-address", metavar="ADDRESS", help="ray: the cluster. Default: RAY_ADDRESS, else this machine alone."),
    option("--part-rows", type=click.IntRange(1), metavar="N", help="ray: images in a Parquet file. Default: 1000."),
    option(
        "--private-weights",
        is_flag=True,
        help="ray: each worker keeps the weights in memory of its own (docs/sharing.md).",
    ),
    option("--key-column", metavar="NAME", help="ray: the column of the keys in Parquet files. Default: row numbers."),
)
_OWN = ("workers", "ray_address", "part_rows", "key_column", "private_weights")
_NOT_WITH = ("draw", "fail_fast", "mmproj")  # with --engine ray


def take_engine(rest: dict[str, Any]) -> dict[str, Any] | None:
    """Moves the options of this module out of `rest`; None for the engine local."""
    engine, own = rest.pop("engine"), {name: rest.pop(name) for name in _OWN}
    if engine == "ray":
        return own
    for name in [name for name, value in own.items() if value not in (None, False)]:
        _refuse(name, f"--{name.replace('_', '-')}: goes with --engine ray")
    return None


def _refuse(name: str, text: str) -> None:
    """UsageError; an option from the environment is ignored."""
    if not from_environment(name):
        raise click.UsageError(text)
    set_aside(name)


def answer_on_ray(
    task: str,
    given: Iterable[str],
    arguments: dict[str, Any],
    rest: dict[str, Any],
    settings: Settings | None,
    own: dict[str, Any],
) -> int:
    """Runs one task on all images and returns the exit status."""
    from kosmos_edge import __version__
    from kosmos_edge.cli.inputs import expand_inputs
    from kosmos_edge.distributed.captioner import Captioner
    from kosmos_edge.distributed.dispatch import Run
    from kosmos_edge.distributed.items import Columns
    from kosmos_edge.distributed.parts import Parts
    from kosmos_edge.distributed.ray_workers import RayWorkers, connected, load_ray, worker_count
    from kosmos_edge.distributed.rows import RowMaker
    from kosmos_edge.folders.wording import Wording

    messages = take_messages(rest)
    _check(rest, settings)
    output, overwrite = rest.pop("output"), rest.pop("overwrite")
    if output is None:
        raise click.UsageError("--engine ray: needs -o FOLDER")
    resume = settings is not None and settings.resume
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other with --engine ray")
    inputs, _ = expand_inputs(list(given), rest.pop("recursive"))
    if any(item.path is None for item in inputs):
        raise click.UsageError("--engine ray: stdin (-) cannot be read by workers")
    if task != "score":
        arguments |= take_generation(rest)
    load_ray()  # before anything is written
    threads = rest.pop("threads") or min(THREADS, _core.default_threads())
    opening = take_opening(rest)
    wording = Wording() if settings is None else settings.wording
    shard = None if settings is None else settings.shard
    columns = Columns("image" if settings is None else settings.column, own["key_column"])
    model = _model(rest.pop("model"), task)
    copy, load = rest.pop("copy"), {name: rest.pop(name) for name in ("device", "offline", "kv_type")}
    load |= {"mode": "copy"} if copy else {}
    load["shared_weights"] = not own["private_weights"]
    size, rows = rest.pop("batch_size"), own["part_rows"] or 1000
    for name in ("form", "isolation", "draw_format", *_NOT_WITH):
        rest.pop(name, None)
    assert not rest, rest
    for ignored in take_set_aside():
        messages.detail(f"ignored {ignored}")
    captioner = Captioner(
        model, task, batch_size=size, threads=threads, opening=_without_pipes(opening), load=load, **arguments
    )
    maker = RowMaker(captioner, columns, wording)
    request = _request(captioner, columns, wording) | {"version": __version__}
    shown = _Shown(messages, inputs)
    with (
        Parts(output, task, request, shard=shard, resume=resume, overwrite=overwrite) as parts,
        connected(own["ray_address"]) as ray,
    ):
        room = worker_count(ray.nodes(), threads)
        count = own["workers"] or max(1, room)
        messages.detail(f"workers: {count}, threads of each: {threads}; the cluster has room for {room}")
        if count > room:
            what = f"{count} workers (--workers) with {threads} CPUs each (--threads) do not fit"
            messages.say(f"{what}: there is room for {room} until the cluster grows")
        # Small tasks: some batches of the engine.
        with RayWorkers(ray, maker, count=count, threads=threads, device=load["device"], say=shown.say) as workers:
            run = Run(workers, parts, shown.row, min(rows, size * 4), rows)
            try:
                run.run(_items(inputs, columns, shard))
            finally:
                shown.progress.clear()
    return shown.summary(run.counts)


def _check(rest: dict[str, Any], settings: Settings | None) -> None:
    """UsageError for options that need one process."""
    ctx = click.get_current_context()
    if rest["form"] != "parquet" and ctx.get_parameter_source("form") is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"--format {rest['form']}: --engine ray writes parquet")
    if rest["isolation"] != "none":
        _refuse("isolation", "--isolation: not with --engine ray, whose workers are processes")
    for name in [name for name in _NOT_WITH if rest.get(name)]:
        _refuse(name, f"--{name.replace('_', '-')}: not with --engine ray")
    if settings is None:
        return
    for name, value in (
        ("sidecar", settings.sidecars),
        ("journal", settings.journal),
        ("dedupe", settings.dedupe),
        ("every", settings.every),
    ):
        if value:
            _refuse(name, f"--{name}: not with --engine ray")


def _model(spec: str | None, task: str) -> str:
    """The model of all workers: what this machine would take, also where another machine has another default."""
    from kosmos_edge import hub

    if spec is not None:
        return spec
    return (hub.default_reader() if task == "read" else hub.default_model())[0]


def _without_pipes(opening: Any) -> Any:
    from dataclasses import replace

    return replace(opening, pipes=False)


def _request(captioner: Any, columns: Any, wording: Any) -> dict[str, Any]:
    """What answers depend on. A model file may lie elsewhere on another machine: its name counts."""
    load = {name: captioner.load_options[name] for name in ("kv_type",)}
    model = os.path.basename(captioner.model) if os.path.isabs(captioner.model) else captioner.model
    parts = {"task": captioner.task, "arguments": captioner.arguments, "model": model, "columns": columns}
    return parts | {"wording": wording, "opening": captioner.opening} | load


def _items(inputs: list[Input], columns: Any, shard: tuple[int, int] | None) -> Iterator[Item]:
    from kosmos_edge.distributed.items import items_of
    from kosmos_edge.folders.running import in_shard

    def names() -> Iterator[tuple[str, str | None, str]]:
        for item in inputs:
            yield item.name, item.path, "" if item.error is None else str(item.error)

    return (item for item in items_of(names(), columns) if in_shard(item.name, shard))


class _Shown:
    """Messages and progress; knows nothing of how the answers come."""

    def __init__(self, messages: Messages, inputs: list[Input]) -> None:
        from kosmos_edge.cli.folder_options import is_container

        several = any(is_container(item.name, None) for item in inputs)
        self._messages = messages
        self.progress = Progress(None if several else len(inputs), shown=shows_progress(messages))

    def say(self, text: str) -> None:
        """A message of the workers."""
        self.progress.clear()
        self._messages.say(text)

    def row(self, row: dict[str, Any]) -> None:
        """An answer, or the error of one."""
        if row["error"] is not None:
            self.progress.clear()
            self._messages.error(row["path"], row["error"])
        self.progress.advance()

    def summary(self, counts: Counts) -> int:
        """Says what was not done now; -> the exit status."""
        said = (("failed", counts.failed), ("answered before", counts.known), ("workers died", counts.deaths))
        parts = [f"{number} {what}" for what, number in said if number]
        if parts:
            self._messages.say(f"of {counts.done + counts.known} images {', '.join(parts)}")
        return 1 if counts.failed else 0
