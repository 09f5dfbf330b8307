"""Results -> stdout (or a file) as text, JSON, JSON lines or CSV; nothing else is ever written there."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import click

from kosmos_edge.errors import KosmosIOError
from kosmos_edge.results import Box, Entity, Ranking, Result

CSV_COLUMNS = ("path", "text", "entities", "width", "height", "finish_reason", "device", "model", "error")
CSV_SCORE_COLUMNS = ("path", "text", "score", "share", "width", "height", "device", "model", "error")
Answer = Result | Ranking
# A list of plain values that indentation spread over lines; a line break never stands inside a JSON string.
_NUMBERS = re.compile(r"\[\n\s+([^][{}\"]*?)\n\s*\]")


def entity_line(entity: Entity, box: Box) -> str:
    """phrase, corners in pixels (fractions where there is no picture), score; tab-separated."""
    if box.pixels is None:
        corners = " ".join(f"{value:.4f}" for value in box.normalized)
    else:
        corners = " ".join(str(round(value)) for value in box.pixels)
    score = "-" if box.score is None else f"{box.score:.3f}"
    return "\t".join([entity.phrase, corners, score] + ([] if box.valid else ["invalid"]))


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


class Writer:
    """Writes one answer after the other; each is flushed, so that a reader sees it at once."""

    def __init__(self, form: str, several: bool, out: TextIO, lines: Callable[[Answer], list[str]]) -> None:
        self._form, self._several, self._out, self._lines = form, several, out, lines
        self._count = 0

    def write(self, name: str, answer: Answer) -> None:
        """One answer; one with an error is left out of the text form (stderr has it)."""
        record = {**answer.to_dict(), "path": name}
        if self._form == "text":
            for line in [] if answer.error is not None else self._lines(answer):
                self._print(f"{name}: {line}" if self._several else line)
        elif self._form == "jsonl":
            self._print(to_json(record))
        elif self._form == "json" and self._several:
            self._print(("[\n" if self._count == 0 else ",\n") + to_json(record, 2), end="")
        elif self._form == "json":
            self._print(to_json(record, 2))
        else:
            self._csv(record, isinstance(answer, Ranking))
        self._count += 1
        self._out.flush()

    def close(self) -> None:
        """Ends the document."""
        if self._form == "json" and self._several:
            self._print("\n]" if self._count else "[]")
        self._out.flush()

    def _print(self, text: str, end: str = "\n") -> None:
        self._out.write(text + end)

    def _csv(self, record: dict[str, Any], ranking: bool) -> None:
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
        self._print(buffer.getvalue(), end="")


@contextlib.contextmanager
def open_output(path: str | None, overwrite: bool) -> Iterator[TextIO]:
    """stdout, or a file that appears under its name only when everything is written."""
    if path is None:
        yield sys.stdout
        return
    target = Path(path)
    check_free(target, overwrite)
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".kosmos-edge-")
    except OSError as error:
        raise KosmosIOError(error.errno or errno.EIO, error.strerror or str(error), path) from error
    try:
        with open(handle, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            yield file
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def check_free(path: Path, overwrite: bool) -> None:
    """UsageError where the file exists and may not be replaced."""
    if path.exists() and not overwrite:
        raise click.UsageError(f"{path} exists; --overwrite replaces it")
