"""kosmos-edge batch on folders: sidecars, runs that resume, shards, data sets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from kosmos_edge._native import _core
from kosmos_edge.cli.common import Messages, take_generation, take_messages, take_model, take_opening
from kosmos_edge.cli.folder_options import Settings, is_container
from kosmos_edge.cli.folder_results import FolderOutput, open_results, results_for
from kosmos_edge.cli.progress import Progress
from kosmos_edge.cli.streams import plain_error
from kosmos_edge.cli.tasks import Drawings, report, shows_progress
from kosmos_edge.errors import ImageDecodeError

if TYPE_CHECKING:
    from kosmos_edge.cli.inputs import Input
    from kosmos_edge.folders import Entry, FolderRun, Journal, Outcome
    from kosmos_edge.model import Model


def answer_folders(
    task: str, given: Iterable[str], arguments: dict[str, Any], rest: dict[str, Any], settings: Settings
) -> int:
    """As answer_all, for the options of this module."""
    from kosmos_edge.cli.inputs import expand_inputs
    from kosmos_edge.folders import video
    from kosmos_edge.folders.exports import FOLDERS, check_labels
    from kosmos_edge.folders.running import in_shard
    from kosmos_edge.folders.sidecars import needs_text

    messages = take_messages(rest)
    given = list(given)
    videos = frozenset() if settings.every is None else video.SUFFIXES
    inputs, several = expand_inputs(given, rest.pop("recursive"), videos)
    containers = [item.name for item in inputs if is_container(item.name, settings.every)]
    several = several or bool(containers)
    inputs = [item for item in inputs if item.name in containers or in_shard(item.name, settings.shard)]
    if "max_tokens" in rest:
        arguments |= take_generation(rest)
    output, overwrite, form = rest.pop("output"), rest.pop("overwrite"), rest.pop("form")
    for name, used in (("--sidecar", settings.sidecars is not None), ("--draw", rest.get("draw") is not None)):
        if used and containers:
            raise click.UsageError(f"{name}: the images in {containers[0]} have no files of their own")
    draw_format = rest.pop("draw_format", "png")
    drawings = Drawings(rest.pop("draw", None), inputs, several, overwrite, draw_format)
    if form not in FOLDERS:  # a data set in a folder refuses one that has files
        drawings.keep_apart(output)
    paths = [item.path for item in inputs if item.path is not None]
    sidecars = settings.sidecars
    if sidecars is not None:
        needs_text(sidecars.kind, task)
        if any(item.path is None for item in inputs):
            raise click.UsageError("--sidecar: there is no place beside stdin (-)")
    lists = [name[1:] for name in given if name.startswith("@") and os.path.isfile(name[1:])]
    read = [*paths, *lists, *filter(None, [rest["model"]])]
    with open_journal(settings) as journal:
        if sidecars is not None:
            sidecars.check(paths, journal if settings.resume else None)
        with open_results(form, output, overwrite, settings, read, messages.say) as out:
            opening, fail_fast = take_opening(rest), rest.pop("fail_fast")
            total = None if containers else len(inputs)
            size = max(1, min(rest.pop("batch_size", 1), total or _core.limits.MAX_BATCH))
            mmproj = rest["mmproj"]
            model = take_model(rest, messages, reads=task == "read")
            assert not rest, rest
            if "ground" in arguments and arguments["ground"] is None:
                arguments["ground"] = model.model_info["grounding"] is not None
            run = folder_run(settings, journal, model, mmproj, task, arguments)
            run.batch_size, run.opening = size, opening
            results = results_for(form, several, out, task, arguments, settings)
            count = Count(messages, total)
            told: list[str] = []
            entries = _entries(inputs, settings, told.append)
            with closing(results), closing(run.outcomes(entries)) as outcomes:
                for outcome in outcomes:
                    count.begin()
                    if outcome.answer is not None:
                        results.write(outcome.entry, outcome.answer)
                        _draw(drawings, outcome, run)
                    if count.end(outcome) and fail_fast:
                        out.complete = count.done == total
                        break
                count.progress.clear()
                if out.complete or not isinstance(out, FolderOutput):
                    results.finish(output)
    left_out = check_labels(settings.labels)
    for text in [*told, *filter(None, [left_out])]:
        messages.say(text)
    return count.summary()


def folder_run(
    settings: Settings, journal: Journal, model: Model, mmproj: str | None, task: str, arguments: dict[str, Any]
) -> FolderRun:
    """The run with these settings."""
    from kosmos_edge import __version__
    from kosmos_edge.folders import FolderRun

    return FolderRun(
        model,
        task,
        arguments,
        journal,
        model_files(str(model.path), mmproj),
        __version__,
        resume=settings.resume,
        sidecars=settings.sidecars,
        shard=settings.shard,
        dedupe=settings.dedupe,
    )


def model_files(path: str, mmproj: str | None) -> tuple[str, ...]:
    """The files that are the model: one, or a pair, whose second file may have been found beside the first."""
    if mmproj is not None:
        return path, mmproj
    folder = os.path.dirname(path) or os.curdir
    beside = [name for name in os.listdir(folder) if name.startswith("mmproj") and name.endswith(".gguf")]
    return (path, *(os.path.join(folder, name) for name in sorted(beside)))


def open_journal(settings: Settings) -> Journal:
    """The journal that the options name, that in the cache folder, or a temporary one."""
    from kosmos_edge import hub
    from kosmos_edge.folders import Journal

    if not settings.keeps:
        return Journal(None)
    return Journal(settings.journal or hub.cache_dir() / "journal.sqlite3")


def _inside(item: Input, settings: Settings, say: Callable[[str], object]) -> Iterator[Entry]:
    """The images of a container; one that is damaged is a failed image after those before the damage."""
    from kosmos_edge.folders import Entry, tables, tars, video
    from kosmos_edge.images import Unusable

    name = item.name
    try:
        if name.lower().endswith(tars.SUFFIXES):
            yield from tars.tar_entries(name, say)
        elif name.lower().endswith(tables.SUFFIXES):
            yield from tables.table_entries(name, settings.column)
        else:
            assert settings.every is not None
            yield from video.video_entries(name, settings.every)
    except ImageDecodeError as error:
        bad = Unusable(error)
        yield Entry(name, None, partial(_fail, bad), partial(_fail, bad))


def _entries(inputs: Iterable[Input], settings: Settings, say: Callable[[str], object]) -> Iterator[Entry]:
    """The images as they are asked for; a pipe is read when its turn comes. say: takes what is to be told."""
    from kosmos_edge.folders import Entry, file_entry
    from kosmos_edge.folders.running import bytes_entry
    from kosmos_edge.images import Unusable

    for item in inputs:
        if item.error is None and is_container(item.name, settings.every):
            yield from _inside(item, settings, say)
            continue
        source = item.source(read=True)
        if isinstance(source, Unusable):
            yield Entry(item.name, item.path, partial(_fail, source), partial(_fail, source), item)
        elif isinstance(source, bytes):
            yield bytes_entry(item.name, source, item)
        else:
            yield file_entry(source, item.name, item)


def _fail(what: Any, journal: Journal | None = None) -> Any:
    raise what.error


def _draw(drawings: Drawings, outcome: Outcome, run: FolderRun) -> None:
    """Draws the answer; its error becomes that of the answer."""
    answer, item = outcome.answer, outcome.entry.about
    if not drawings.targets or answer is None or answer.error is not None:
        return
    source = outcome.entry.reload()
    answer.error = drawings.draw(run.opening, source, answer, item)


class Count:
    """What became of the images, for progress, messages and the exit status."""

    def __init__(self, messages: Messages, total: int | None) -> None:
        self._messages, self._total = messages, total
        self.done = self.failed = self.left_out = self.known = 0
        self.progress = Progress(total, shown=total != 1 and shows_progress(messages))

    def begin(self) -> None:
        """Before anything about an image is written."""
        self.progress.clear()

    def end(self, outcome: Outcome) -> bool:
        """Reports an image; whether it failed."""
        self.done += 1
        name, answer = outcome.entry.name, outcome.answer
        failed = answer is not None and answer.error is not None
        if answer is None:
            self.left_out += 1
            self._messages.detail(f"{name}: left out, {outcome.why}")
        elif answer.error is not None:
            self.failed += 1
            self._messages.error(name, plain_error(answer.error))
        elif outcome.known:
            self.known += 1
            self._messages.detail(f"{name}: answered before")
        else:
            report(self._messages, name, answer, self.done, self._total or "?")
        self.progress.advance(worked=answer is not None and not outcome.known)
        return failed

    def summary(self) -> int:
        """Says what a run did not do; -> the exit status."""
        counts = (("failed", self.failed), ("left out", self.left_out), ("answered before", self.known))
        parts = [f"{number} {what}" for what, number in counts if number]
        if parts and self._total != 1:
            self._messages.say(f"of {self.done} images {', '.join(parts)}")
        return 1 if self.failed else 0
