"""kosmos-edge batch on folders: sidecars, runs that resume, shards, wording."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from kosmos_edge.cli.common import Messages, option, options, take_generation, take_messages, take_model, take_opening
from kosmos_edge.cli.progress import Progress
from kosmos_edge.cli.streams import plain_error
from kosmos_edge.cli.tasks import Drawings, lines_of, report, shows_progress
from kosmos_edge.cli.twins import from_environment, set_aside

if TYPE_CHECKING:
    from kosmos_edge.cli.inputs import Input
    from kosmos_edge.cli.output import Answer
    from kosmos_edge.folders import Entry, FolderRun, Journal, Outcome, Sidecars, Wording
    from kosmos_edge.model import Model

SIDECARS = ("txt", "caption", "json", "xmp")

sidecar_options = options(
    option(
        "--sidecar", type=click.Choice(SIDECARS), help="Write the answer beside each image: photo.txt, photo.jpg.xmp."
    ),
    option(
        "--sidecar-names",
        type=click.Choice(["stem", "full"]),
        help="photo.txt or photo.jpg.txt. Default: stem; xmp: full.",
    ),
    option("--keywords", is_flag=True, help="xmp: the phrases with boxes as keywords, too."),
    option("--skip", is_flag=True, help="Leave out images whose sidecar exists."),
    option("--append", is_flag=True, help="txt, caption: add to an existing sidecar, after a comma."),
)
wording_options = options(
    option("--whole-sentences", is_flag=True, help="Drop the incomplete end of answers that reach the length limit."),
    option("--capital", is_flag=True, help="Begin captions with a capital letter."),
    option("--full-stop", is_flag=True, help="End captions with a full stop."),
    option("--prefix", default="", metavar="TEXT", help="Text before each caption."),
    option("--suffix", default="", metavar="TEXT", help="Text after each caption."),
    option("--trigger", default="", metavar="WORD", help='First word of each caption: "WORD, caption".'),
)
run_options = options(
    option("--resume", is_flag=True, help="Continue a run that ended early: known answers are not computed again."),
    option("--journal", metavar="FILE", help="The run's journal. Default: in the cache folder."),
    option("--shard", metavar="I/N", help="Only the I-th of N parts of the images, 1 <= I <= N."),
    option("--dedupe", is_flag=True, help="Leave out images with the same content as an earlier one."),
)
folder_options = options(sidecar_options, wording_options, run_options)

_FLAGS = ("keywords", "skip", "append", "whole_sentences", "capital", "full_stop", "resume", "dedupe")
_TEXTS = ("prefix", "suffix", "trigger")
_CHOICES = ("sidecar", "sidecar_names", "journal", "shard")
_OF_SIDECARS = ("sidecar_names", "keywords", "skip", "append")


@dataclass(slots=True)
class Settings:
    """The options of this module."""

    sidecars: Sidecars | None
    wording: Wording
    resume: bool
    journal: str | None  # None: that in the cache folder
    shard: tuple[int, int] | None
    dedupe: bool

    @property
    def keeps(self) -> bool:
        """Whether the journal is a file: a run that only words answers needs none."""
        return self.sidecars is not None or self.resume or self.journal is not None


def take_settings(rest: dict[str, Any]) -> Settings | None:
    """Moves the options of this module out of `rest`; None if none of them was used."""
    from kosmos_edge.folders import Sidecars, Wording
    from kosmos_edge.folders.running import parse_shard

    values = {name: rest.pop(name) for name in (*_FLAGS, *_TEXTS, *_CHOICES)}
    sidecar = values["sidecar"]
    if sidecar is None:
        for name in [name for name in _OF_SIDECARS if values[name]]:
            _ignore(name, values, f"--{name.replace('_', '-')}: needs --sidecar")
    if values["keywords"] and sidecar != "xmp":
        _ignore("keywords", values, "--keywords: goes with --sidecar xmp")
    if not any(values.values()):
        return None
    policies = [name for name, given in (("skip", values["skip"]), ("append", values["append"])) if given]
    if sidecar is not None and rest["overwrite"]:
        policies.append("overwrite")
    for name in [name for name in policies if len(policies) > 1 and from_environment(name)]:
        policies.remove(name)
        set_aside(name)
    if len(policies) > 1:
        raise click.UsageError("--skip, --overwrite and --append exclude each other")
    wording = Wording(*(values[name] for name in ("whole_sentences", "capital", "full_stop", *_TEXTS)))
    sidecars = None
    if sidecar is not None:
        policy = policies[0] if policies else "refuse"
        sidecars = Sidecars(sidecar, policy, values["sidecar_names"], bool(values["keywords"]), wording)
    shard = None if values["shard"] is None else parse_shard(values["shard"])
    return Settings(sidecars, wording, bool(values["resume"]), values["journal"], shard, bool(values["dedupe"]))


def _ignore(name: str, values: dict[str, Any], text: str) -> None:
    """UsageError, unless the option comes from the environment."""
    if not from_environment(name):
        raise click.UsageError(text)
    set_aside(name)
    values[name] = None


def answer_folders(
    task: str, given: Iterable[str], arguments: dict[str, Any], rest: dict[str, Any], settings: Settings
) -> int:
    """As answer_all, for the options of this module."""
    from kosmos_edge.cli.inputs import expand_inputs
    from kosmos_edge.cli.output import Writer, choose_format, open_output
    from kosmos_edge.folders.running import in_shard
    from kosmos_edge.folders.sidecars import needs_text, record_of

    messages = take_messages(rest)
    given = list(given)
    inputs, several = expand_inputs(given, rest.pop("recursive"))
    inputs = [item for item in inputs if in_shard(item.name, settings.shard)]
    if task != "score":
        arguments |= take_generation(rest)
    output, overwrite, form = rest.pop("output"), rest.pop("overwrite"), rest.pop("form")
    drawings = Drawings(rest.pop("draw", None), inputs, several, overwrite)
    drawings.keep_apart(output)
    paths = [item.path for item in inputs if item.path is not None]
    sidecars = settings.sidecars
    if sidecars is not None:
        needs_text(sidecars.kind, task)
        if any(item.path is None for item in inputs):
            raise click.UsageError("--sidecar: there is no place beside stdin (-)")
    lists = [name[1:] for name in given if name.startswith("@") and os.path.isfile(name[1:])]
    read = [*paths, *lists, *filter(None, [rest["model"]])]
    with _open_journal(settings) as journal:
        if sidecars is not None:
            sidecars.check(paths, journal if settings.resume else None)
        with open_output(output, overwrite, inputs=read, say=messages.say, resume=settings.resume) as out:
            form = choose_format(form, output)
            opening, fail_fast = take_opening(rest), rest.pop("fail_fast")
            size = max(1, min(rest.pop("batch_size", 1), len(inputs)))
            mmproj = rest["mmproj"]
            model = take_model(rest, messages, reads=task == "read")
            assert not rest, rest
            if "ground" in arguments and arguments["ground"] is None:
                arguments["ground"] = model.model_info["grounding"] is not None
            run = _run(settings, journal, model, mmproj, task, arguments)
            run.batch_size, run.opening = size, opening
            wording = settings.wording
            record: Callable[[Answer, str], dict[str, Any]] = lambda a, name: record_of(a, wording, name)  # noqa: E731
            writer = Writer(form, several, out, _worded_lines(task, arguments, wording), record)
            count = _Count(messages, len(inputs))
            with closing(run.outcomes(_entries(inputs))) as outcomes:
                for outcome in outcomes:
                    count.begin()
                    if outcome.answer is not None:
                        writer.write(outcome.entry.name, outcome.answer)
                        _draw(drawings, outcome, run)
                    if count.end(outcome) and fail_fast:
                        out.complete = count.done == len(inputs)
                        break
            count.progress.clear()
            writer.close()
    return count.summary()


def _run(
    settings: Settings, journal: Journal, model: Model, mmproj: str | None, task: str, arguments: dict[str, Any]
) -> FolderRun:
    from kosmos_edge import __version__
    from kosmos_edge.folders import FolderRun

    run = FolderRun(model, task, arguments, journal, _model_files(str(model.path), mmproj), __version__)
    run.resume, run.sidecars, run.shard, run.dedupe = (
        settings.resume,
        settings.sidecars,
        settings.shard,
        settings.dedupe,
    )
    return run


def _model_files(path: str, mmproj: str | None) -> tuple[str, ...]:
    """The files that are the model: one, or a pair, whose second file may have been found beside the first."""
    if mmproj is not None:
        return path, mmproj
    folder = os.path.dirname(path) or os.curdir
    beside = [name for name in os.listdir(folder) if name.startswith("mmproj") and name.endswith(".gguf")]
    return (path, *(os.path.join(folder, name) for name in sorted(beside)))


def _open_journal(settings: Settings) -> Journal:
    from kosmos_edge import hub
    from kosmos_edge.folders import Journal

    if not settings.keeps:
        return Journal(None)
    return Journal(settings.journal or hub.cache_dir() / "journal.sqlite3")


def _entries(inputs: Iterable[Input]) -> Iterator[Entry]:
    """The pictures as they are asked for; a pipe is read when its turn comes."""
    from kosmos_edge.folders import Entry, file_entry
    from kosmos_edge.folders.running import bytes_entry
    from kosmos_edge.images import Unusable

    for item in inputs:
        source = item.source(read=True)
        if isinstance(source, Unusable):
            yield Entry(item.name, item.path, partial(_fail, source), partial(_fail, source), item)
        elif isinstance(source, bytes):
            yield bytes_entry(item.name, source, item)
        else:
            yield file_entry(source, item.name, item)


def _fail(what: Any, journal: Journal | None = None) -> Any:
    raise what.error


def _worded_lines(task: str, arguments: dict[str, Any], wording: Wording) -> Callable[[Answer], list[str]]:
    from dataclasses import replace

    from kosmos_edge.folders.sidecars import caption_of
    from kosmos_edge.results import Ranking

    lines = lines_of(task, arguments)

    def worded(answer: Answer) -> list[str]:
        if isinstance(answer, Ranking) or not wording.changes:
            return lines(answer)
        return lines(replace(answer, text=caption_of(answer, wording)))

    return worded


def _draw(drawings: Drawings, outcome: Outcome, run: FolderRun) -> None:
    """Draws the answer; its error becomes that of the answer."""
    answer, item = outcome.answer, outcome.entry.about
    if answer is None or answer.error is not None or item is None or item.name not in drawings.targets:
        return
    source = outcome.entry.load()
    answer.error = drawings.draw(run.opening, source, answer, item)


class _Count:
    """What became of the pictures, for progress, messages and the exit status."""

    def __init__(self, messages: Messages, total: int | None) -> None:
        self._messages, self._total = messages, total
        self.done = self.failed = self.left_out = self.known = 0
        self.progress = Progress(total, shown=total != 1 and shows_progress(messages))

    def begin(self) -> None:
        """Before anything about a picture is written."""
        self.progress.clear()

    def end(self, outcome: Outcome) -> bool:
        """Reports a picture; whether it failed."""
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
