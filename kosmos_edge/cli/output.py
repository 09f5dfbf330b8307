"""Results -> stdout (or a file) as text, JSON, JSON lines or CSV; nothing else is ever written there."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click
from click.core import ParameterSource

from kosmos_edge.cli.streams import check_stdout
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.results import Box, Entity, Ranking, Result
from kosmos_edge.targets import Part, Target, find_target, open_in_place, part_path, refuse_inputs, write_all, writing

CSV_COLUMNS = ("path", "text", "entities", "width", "height", "finish_reason", "device", "model", "error")
CSV_SCORE_COLUMNS = ("path", "text", "score", "share", "width", "height", "device", "model", "error")
SUFFIX_FORMATS = {".txt": "text", ".json": "json", ".jsonl": "jsonl", ".csv": "csv"}
PART_SUFFIX = ".part"  # of a file whose finished answers are worth keeping
Answer = Result | Ranking
# A list of plain values that indentation spread over lines; a line break never stands inside a JSON string.
_NUMBERS = re.compile(r"\[\n\s+([^][{}\"]*?)\n\s*\]")


def entity_line(entity: Entity, box: Box) -> str:
    """phrase, corners in pixels (fractions without a picture), scores of the place and the words; tab-separated."""
    if box.pixels is None:
        corners = " ".join(f"{value:.4f}" for value in box.normalized)
    else:
        corners = " ".join(str(round(value)) for value in box.pixels)
    scores = ["-" if score is None else f"{score:.3f}" for score in (box.score, entity.sureness)]
    return "\t".join([entity.phrase, corners, *scores] + ([] if box.valid else ["invalid"]))


def text_lines(answer: Answer, *, text: bool = True, boxes: bool = True) -> list[str]:
    """What a person reads."""
    if isinstance(answer, Ranking):
        return [f"{row.score:.4f}\t{row.share:.3f}\t{row.text}" for row in answer.ranking]
    lines = [answer.text] if text else []
    if boxes:
        lines += [entity_line(entity, box) for entity in answer.entities for box in entity.boxes]
    return lines


def to_json(record: Any, indent: int | None = None) -> str:
    """JSON with Unicode left readable; a file name that is no Unicode is written with escapes."""
    text = json.dumps(record, ensure_ascii=False, indent=indent, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(record, ensure_ascii=True, indent=indent, allow_nan=False)
    return _NUMBERS.sub(lambda match: "[" + " ".join(match[1].split()) + "]", text) if indent else text


class Output:
    """Where the answers go: stdout, or what a subclass says. Every answer comes as a whole."""

    def __init__(self) -> None:
        self.answers = 0  # that are written
        self.complete = True  # the command says False where it ends before the last picture's turn

    def write(self, text: str) -> None:
        """Takes one answer; a reader sees it at once."""
        self._put(text)
        self.answers += 1

    def end(self, text: str) -> None:
        """Takes what stands behind the last answer."""
        self._put(text)

    def isatty(self) -> bool:
        """Whether a person watches."""
        return sys.stdout.isatty()

    def _put(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


class _InPlace(Output):
    """A device, a pipe, a socket, or an open descriptor such as /dev/stdout."""

    def __init__(self, target: Target, descriptor: int) -> None:
        super().__init__()
        self._target, self._descriptor = target, descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def _put(self, text: str) -> None:
        with writing(self._target.name):
            write_all(self._descriptor, _encoded(text))


class _PartOutput(Output):
    """FILE.part, which becomes FILE when the last picture has had its turn, and stays where a run ends before that."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self._part = part
        self._size: int | None = None  # of what is whole; None: an earlier run's lines are still there

    def isatty(self) -> bool:
        return False

    def begin(self) -> None:
        """Only now are the lines of an earlier run forgotten: a run that ends before its first answer keeps them."""
        if self._size is None:
            self._part.truncate(0)
            self._size = 0

    def _put(self, text: str) -> None:
        data = _encoded(text)
        with writing(self._part.target.name):
            self.begin()
            assert self._size is not None
            try:
                write_all(self._part.descriptor, data)
            except BaseException:  # a full disk, a signal: half an answer is none
                self._part.truncate(self._size)
                raise
            self._size += len(data)

    def left(self) -> str | None:
        """What is said of a run that ended early; what is worth nothing is removed."""
        if self.answers:
            noun = "1 finished answer is" if self.answers == 1 else f"{self.answers} finished answers are"
            return f"{noun} in {self._part.path}"
        if self._size is not None or self._part.size == 0:
            self._part.remove()
        return None


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class Writer:
    """Writes one answer after the other, each in one piece, so that no half of one is ever left behind."""

    def __init__(self, form: str, several: bool, out: Output, lines: Callable[[Answer], list[str]]) -> None:
        self._form, self._several, self._out, self._lines = form, several, out, lines
        self._count = 0

    def write(self, name: str, answer: Answer) -> None:
        """One answer; one with an error is left out of the text form (stderr has it)."""
        record = {**answer.to_dict(), "path": name}
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
        """Ends the document. Not called where a run breaks off: an array without its end is seen not to be whole."""
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


def choose_format(form: str, output: str | None) -> str:
    """The format: as given (on the command line or in the environment), else as the output's suffix says."""
    source = click.get_current_context().get_parameter_source("form")
    if output is None or source not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP):
        return form
    return SUFFIX_FORMATS.get(os.path.splitext(output)[1].lower(), form)


@contextlib.contextmanager
def open_output(
    path: str | None, overwrite: bool, *, inputs: Iterable[str] = (), say: Callable[[str], None] | None = None
) -> Iterator[Output]:
    """stdout, or what the name stands for; everything that forbids to write there is found now.

    A file is written as FILE.part and gets its name at the end. A run that ends early leaves its whole answers there
    and says so, in a note on the exception that ends it. inputs: files that must not be replaced. say: told what
    becomes of an earlier run's answers.
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
        if part.size and not overwrite:
            raise InvalidRequest(
                f"{part.path} has the answers of a run that ended early: move it away, or --overwrite replaces it"
            )
        if part.size and say is not None:
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
