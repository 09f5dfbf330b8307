"""Files of data sets and their records: found, read, and checked, with the file and the record in every error."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.pages import read_text

T = TypeVar("T")


def find(folder: Path, *names: str) -> Path:
    """The first of these files or folders that is there; InvalidRequest says what was looked for."""
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise InvalidRequest(f"--data: {folder} has none of {', '.join(names)}")


def beside(folder: Path, *places: str) -> Path:
    """The first of these paths that is there, else the first of all, whose absence is then said of its item."""
    return next((folder / place for place in places if (folder / place).exists()), folder / places[0])


def read_json(path: Path) -> Any:
    """A JSON file's value."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise _as_request(error, f"{path}: not JSON") from None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file. Lines end with a line feed: JSON's texts may have other line breaks inside."""
    out = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _as_request(error, f"{path}, line {number}: not JSON") from None
            if not isinstance(record, dict):
                raise InvalidRequest(f"{path}, line {number}: expected an object")
            out.append(record)
    return out


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file with a header, which must have these columns; quoted texts keep their line breaks."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        header = reader.fieldnames or ()
        if missing := [name for name in columns if name not in header]:
            wanted = ", ".join(columns)
            raise InvalidRequest(f"{path}: no column {missing[0]}, expected {wanted}, got {', '.join(header)}")
        rows = list(reader)
    except csv.Error as error:
        raise InvalidRequest(f"{path}, line {reader.line_num}: not CSV: {error}") from None
    with reading(path) as records:
        for row in records.each(rows):
            if missing := [name for name in columns if row[name] is None]:
                raise ValueError(f"it has no {missing[0]}: the row is too short")
    return rows


def _as_request(error: Exception, what: str) -> InvalidRequest:
    return error if isinstance(error, InvalidRequest) else InvalidRequest(f"{what}: {error}")


class reading:
    """Turns what is wrong in a file's records into InvalidRequest that names the file and the record."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = 0

    def each(self, records: Iterable[T]) -> Iterator[T]:
        """The records; an error in the loop's body is then of the one it was at."""
        for self._number, record in enumerate(records, 1):
            yield record
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, InvalidRequest):  # which has its place
            return
        if isinstance(error, KeyError | TypeError | IndexError | AttributeError | ValueError):
            which = f"record {self._number}" if self._number else "a record"
            what = f"there is no {error}" if isinstance(error, KeyError) else str(error)
            raise InvalidRequest(f"{self._path}: {which} is not as expected: {what}") from error


# ---- values; ValueError says what came


def text_of(value: Any, name: str, empty: bool = False) -> str:
    """A text, which has something besides blanks unless it may be empty."""
    if not isinstance(value, str) or not (empty or value.strip()):
        raise ValueError(f"{name}: expected {'a text' if empty else 'some text'}, got {value!r}")
    return value


def texts_of(values: Any, name: str) -> tuple[str, ...]:
    """One text or more, each with something in it."""
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"{name}: expected a list of texts, got {values!r}")
    return tuple(text_of(value, f"{name}[{place}]") for place, value in enumerate(values))


def number_of(value: Any, name: str, count: int, first: int = 0) -> int:
    """A whole number from `first` on, one of `count`, which may be written as text; less `first`."""
    text = value if isinstance(value, str) else "" if isinstance(value, bool | float) else str(value)
    if not text.strip().isdecimal() or not first <= int(text) < first + count:
        raise ValueError(f"{name}: expected {first}..{first + count - 1}, got {value!r}")
    return int(text) - first


def numbers_of(values: Iterable[Any], name: str) -> list[float]:
    """Numbers, none of them NaN or infinite."""
    found = [float(value) for value in values]
    if not all(map(math.isfinite, found)):
        raise ValueError(f"{name}: expected numbers, got {found}")
    return found
