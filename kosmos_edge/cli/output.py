"""Writes results to stdout or a file as text, JSON, JSON lines or CSV; nothing else is written there."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from kosmos_edge.cli.streams import check_stdout
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.json_text import to_json as to_json
from kosmos_edge.results import Box, Entity, Ranking, Result
from kosmos_edge.targets import Part, Target, find_target, open_in_place, part_path, refuse_inputs, write_all, writing

CSV_COLUMNS = ("path", "text", "entities", "width", "height", "finish_reason", "device", "model", "error")
CSV_SCORE_COLUMNS = ("path", "text", "score", "share", "width", "height", "device", "model", "error")
SUFFIX_FORMATS = {".txt": "text", ".json": "json", ".jsonl": "jsonl", ".csv": "csv"}
PART_SUFFIX = ".part"  # for an unfinished file, whose finished answers are kept
Answer = Result | Ranking


def entity_line(entity: Entity, box: Box) -> str:
    """phrase, corners in pixels (fractions without an image), scores of the place and the words; tab-separated."""
    if box.pixels is None:
        corners = " ".join(f"{value:.4f}" for value in box.normalized)
    else:
        corners = " ".join(str(round(value)) for value in box.pixels)
    scores = ["-" if score is None else f"{score:.3f}" for score in (box.score, entity.sureness)]
    return "\t".join([entity.phrase, corners, *scores] + ([] if box.valid else ["invalid"]))


def text_lines(answer: Answer, *, text: bool = True, boxes: bool = True) -> list[str]:
    """The text form of an answer."""
    if isinstance(answer, Ranking):
        return [f"{row.score:.4f}\t{row.share:.3f}\t{row.text}" for row in answer.ranking]
    lines = [answer.text] if text else []
    if boxes:
        lines += [entity_line(entity, box) for entity in answer.entities for box in entity.boxes]
    return lines


class Output:
    """Where the answers go: stdout, or as a subclass defines. Every answer is written in one piece."""

    def __init__(self) -> None:
        self.answers = 0  # written so far
        self.noun = "answer"  # what they are, for messages
        self.complete = True  # the command sets False if it stops before the last image

    def write(self, text: str) -> None:
        """Writes one answer and flushes it."""
        self._put(text)
        self.answers += 1

    def end(self, text: str) -> None:
        """Writes what follows the last answer."""
        self._put(text)

    def write_bytes(self, data: bytes, answers: int) -> None:
        """Writes so many answers at once, in a form that is not text."""
        self._put_bytes(data)
        self.answers += answers

    def isatty(self) -> bool:
        """Whether the output is a terminal."""
        return sys.stdout.isatty()

    def _put(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def _put_bytes(self, data: bytes) -> None:
        sys.stdout.flush()
        with writing("stdout"):
            sys.stdout.buffer.write(data)
        sys.stdout.flush()


class _InPlace(Output):
    """A device, a pipe, a socket, or an open descriptor such as /dev/stdout."""

    def __init__(self, target: Target, descriptor: int) -> None:
        super().__init__()
        self._target, self._descriptor = target, descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def _put(self, text: str) -> None:
        self._put_bytes(_encoded(text))

    def _put_bytes(self, data: bytes) -> None:
        with writing(self._target.name):
            write_all(self._descriptor, data)


class _PartOutput(Output):
    """FILE.part, which is renamed to FILE after the last image, and stays if the run ends before that."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self._part = part
        self._size: int | None = None  # of the complete answers; None: an earlier run's lines are still there

    def isatty(self) -> bool:
        return False

    def begin(self) -> None:
        """Drops the lines of an earlier run. Called at the first answer: a run that ends before it keeps them."""
        if self._size is None:
            self._part.truncate(0)
            self._size = 0

    def _put(self, text: str) -> None:
        self._put_bytes(_encoded(text))

    def _put_bytes(self, data: bytes) -> None:
        with writing(self._part.target.name):
            self.begin()
            assert self._size is not None
            try:
                write_all(self._part.descriptor, data)
            except BaseException:  # a full disk, a signal: remove the incomplete answer
                self._part.truncate(self._size)
                raise
            self._size += len(data)

    def left(self) -> str | None:
        """The message about a run that ended early; removes an empty file."""
        if self.answers:
            noun = f"1 finished {self.noun} is" if self.answers == 1 else f"{self.answers} finished {self.noun}s are"
            return f"{noun} in {self._part.path}"
        if self._size is not None or self._part.size == 0:
            self._part.remove()
        return None


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def record_of(answer: Answer, name: str) -> dict[str, Any]:
    """The answer as JSON has it, under the name that was given."""
    return {**answer.to_dict(), "path": name}


class Writer:
    """Writes answers one after another, each in one piece, so that none is left incomplete."""

    def __init__(
        self,
        form: str,
        several: bool,
        out: Output,
        lines: Callable[[Answer], list[str]],
        record: Callable[[Answer, str], dict[str, Any]] = record_of,
    ) -> None:
        """lines: the text form of an answer. record: (answer, name) -> what the other forms are made of."""
        self._form, self._several, self._out, self._lines, self._record = form, several, out, lines, record
        self._count = 0

    def write(self, name: str, answer: Answer) -> None:
        """Writes one answer; the text form leaves out one with an error (it is on stderr)."""
        record = self._record(answer, name)
        if self._form == "text":
            lines = [] if answer.error is not None else self._lines(answer)
            text = "".join(f"{name}: {line}\n" if self._several else f"{line}\n" for line in lines)
        elif self._form == "jsonl":
            text = to_json(record) + "\n"
        elif self._form == "json" and self._several:
            text = ("[\n" if self._count == 0 else ",\n") + to_json(record, 2)
        elif self._form == "json":
            text = to_json(record, 2) + "\n"
        else:
            text = self._csv(record, isinstance(answer, Ranking))
        if text:
            self._out.write(text)
        self._count += 1

    def close(self) -> None:
        """Ends the document. Not called if a run ends early: an array without its end is visibly incomplete."""
        if self._form == "json" and self._several:
            self._out.end("\n]\n" if self._count else "[]\n")

    def _csv(self, record: dict[str, Any], ranking: bool) -> str:
        columns = CSV_SCORE_COLUMNS if ranking else CSV_COLUMNS
        buffer = io.StringIO()
        table = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
        if self._count == 0:
            table.writeheader()
        if ranking:
            for row in record["ranking"] or [{}]:
                table.writerow({**record, "text": None, **row})
        else:
            table.writerow({**record, "entities": to_json(record["entities"])})
        return buffer.getvalue()


def choose_format(form: str, output: str | None, suffixes: Mapping[str, str] = SUFFIX_FORMATS) -> str:
    """The format given on the command line or in the environment, else that of the output's suffix."""
    source = click.get_current_context().get_parameter_source("form")
    if output is None or source not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP):
        return form
    return suffixes.get(os.path.splitext(output)[1].lower(), form)


def refuse_part(target: Target) -> None:
    """InvalidRequest if an earlier run's answers are where open_output is going to write: before all of many."""
    path = part_path(target, PART_SUFFIX)
    with contextlib.suppress(OSError):
        if path.lstat().st_size and path.is_file():
            raise _in_the_way(path)


def _in_the_way(part: Path) -> InvalidRequest:
    return InvalidRequest(f"{part} has the answers of a run that ended early: move it away, or --overwrite replaces it")


@contextlib.contextmanager
def open_output(
    path: str | None,
    overwrite: bool,
    *,
    inputs: Iterable[str] = (),
    say: Callable[[str], None] | None = None,
    resume: bool = False,
) -> Iterator[Output]:
    """stdout, or the output of that name; whatever prevents writing is found now.

    A file is written as FILE.part and renamed at the end. A run that ends early leaves its complete answers there, and
    a note on the exception that ends it says so. inputs: files that must not be replaced. say: receives a message about
    an earlier run's answers. resume: they are written again, from a journal.
    """
    if path is None:
        check_stdout()
        yield Output()
        return
    target = find_target(path, overwrite=overwrite)
    written = [target]
    if not target.in_place:
        part_file = part_path(target, PART_SUFFIX)
        with contextlib.suppress(OSError):
            written.append(Target(str(part_file), part_file, part_file.stat(), False))
    refuse_inputs("-o", written, inputs)
    if target.in_place:
        descriptor = open_in_place(target)
        try:
            yield _InPlace(target, descriptor)
        finally:
            os.close(descriptor)
        return
    with Part(target, PART_SUFFIX, wait=False) as part:
        if part.size and not overwrite and not resume:
            raise _in_the_way(part.path)
        if part.size and say is not None and not resume:
            say(f"{part.path}, the answers of a run that ended early, is replaced")
        out = _PartOutput(part)
        try:
            yield out
            if out.complete:
                out.begin()
                part.become_target(overwrite=overwrite)
        except BaseException as error:
            left = out.left()
            if left is not None:
                error.add_note(left)
            raise
        if not out.complete:
            left = out.left()
            click.echo(f"kosmos-edge: {left}", err=True) if left is not None else None
