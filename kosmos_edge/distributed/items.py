"""The images of a run as small descriptions that a worker elsewhere opens: files, tar members, rows of tables."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from kosmos_edge.errors import ImageDecodeError, KosmosError
from kosmos_edge.folders.running import Entry
from kosmos_edge.folders.tables import SUFFIXES as TABLES
from kosmos_edge.folders.tables import cell_entry, check_column, import_pyarrow, plain
from kosmos_edge.folders.tars import LINK, Sample, tar_entries, tar_places
from kosmos_edge.folders.tars import SUFFIXES as TARS
from kosmos_edge.images import Unusable

_READ_ROWS = 16  # of a table at a time


@dataclass(frozen=True, slots=True)
class Item:
    """An image. Its place is a file, a part of one, a row of a table, or `data`; or it has a problem."""

    name: str  # as one process calls it: PATH, PATH/MEMBER or PATH#ROW
    key: str | None  # of the sample in its tar file, else the path; None: in a column of the table
    path: str = ""  # absolute
    offset: int = -1  # in the tar file
    size: int = -1
    row: int = -1  # of the table
    data: bytes | None = None
    problem: str = ""
    copy: int = 0  # 1: the second of this name, ...

    @property
    def identity(self) -> tuple[str, int]:
        """By which a run that resumes knows it."""
        return plain(self.name), self.copy


@dataclass(frozen=True, slots=True)
class Columns:
    """Of tables: of the images, and of the keys (None: the number of the row is the key)."""

    image: str = "image"
    key: str | None = None


def items_of(names: Iterable[tuple[str, str | None, str]], columns: Columns) -> Iterator[Item]:
    """The images of files, tar files and tables, in order: (name, path, or None and why not).

    Uncompressed tar files and tables are not read, but their directories. One that is damaged is an item with a
    problem. InvalidRequest for a missing column.
    """
    copies: Counter[str] = Counter()
    for name, path, problem in names:
        for item in _inside(name, path, problem, columns):
            copy = copies[plain(item.name)]
            copies[plain(item.name)] += 1
            yield replace(item, copy=copy) if copy else item


def _inside(name: str, path: str | None, problem: str, columns: Columns) -> Iterator[Item]:
    lower = name.lower()
    if path is None or problem:
        yield Item(name, name, problem=problem or "no such file")
        return
    try:
        if lower.endswith(TABLES):
            yield from _table(name, path, columns)
        elif lower.endswith(TARS):
            yield from _tar(name, path)
        else:
            yield Item(name, name, os.path.abspath(path))
    except ImageDecodeError as error:
        yield Item(name, name, problem=str(error))


def _table(name: str, path: str, columns: Columns) -> Iterator[Item]:
    arrow = import_pyarrow()
    try:
        with arrow.parquet.ParquetFile(path) as table:
            names, count = table.schema_arrow.names, table.metadata.num_rows
    except (arrow.ArrowException, OSError) as error:
        raise ImageDecodeError(f"{name}: damaged Parquet file ({error})") from error
    for option, column in (("--image-column", columns.image), ("--key-column", columns.key)):
        if column is not None:
            check_column(name, names, column, option)
    whole = os.path.abspath(path)
    for row in range(count):
        yield Item(f"{name}#{row}", str(row) if columns.key is None else None, whole, row=row)


def _tar(name: str, path: str) -> Iterator[Item]:
    whole = os.path.abspath(path)
    if name.lower().endswith(".tar"):
        for found, key, offset, size in tar_places(path):
            called = name + found[len(path) :]
            yield Item(called, key, whole, offset, size, problem=f"{called}: {LINK}" if offset < 0 else "")
        return
    for entry in tar_entries(path):  # compressed: has no offsets, so the bytes travel
        assert isinstance(entry.about, Sample)
        called, problem = name + entry.name[len(path) :], entry.about.problem
        yield Item(called, entry.about.key, data=entry.about.picture, problem=problem and f"{called}: {problem}")


# ---- in the worker


def open_items(items: Iterable[Item], columns: Columns) -> Iterator[tuple[str | None, Any]]:
    """(key, image for a batch) of each item, in order; an Unusable for one that cannot be read."""
    for (path, is_row), group in groupby(items, key=lambda item: (item.path, item.row >= 0)):
        if is_row:
            yield from _open_rows(path, list(group), columns)
            continue
        for item in group:
            yield item.key, _open(item)


def _open(item: Item) -> Any:
    if item.problem:
        return Unusable(ImageDecodeError(item.problem))
    if item.data is not None:
        return item.data
    if item.offset < 0:
        return item.path
    try:
        with open(item.path, "rb") as file:
            file.seek(item.offset)
            data = file.read(item.size)
    except OSError as error:
        return Unusable(ImageDecodeError(f"{item.name}: cannot be read ({error})"))
    if len(data) < item.size:
        return Unusable(ImageDecodeError(f"{item.name}: the tar file has become shorter"))
    return data


def _open_rows(path: str, items: list[Item], columns: Columns) -> Iterator[tuple[str | None, Any]]:
    """Items of one table whose rows may have gaps; those of row groups without any are not read."""
    arrow = import_pyarrow()
    wanted = {item.row for item in items}
    found: dict[int, tuple[str | None, Any]] = {}
    why = "the table has become shorter"
    names = [columns.image] + ([] if columns.key in (None, columns.image) else [str(columns.key)])
    try:
        with arrow.parquet.ParquetFile(path) as table:
            begin = 0
            for group in range(table.num_row_groups):
                end = begin + table.metadata.row_group(group).num_rows
                if wanted.isdisjoint(range(begin, end)):
                    begin = end
                    continue
                for batch in table.iter_batches(_READ_ROWS, row_groups=[group], columns=names):
                    rows = range(begin, begin + batch.num_rows)
                    begin = rows.stop
                    for row in wanted.intersection(rows):
                        found[row] = _cells(batch, row, row - rows.start, columns)
                    if len(found) == len(wanted):
                        break
                begin = end
    except (arrow.ArrowException, OSError, KeyError) as error:
        why = f"cannot be read ({error})"
    for item in items:
        if item.row in found:
            key, cell = found[item.row]
            if isinstance(cell, UnicodeDecodeError):
                yield key, Unusable(ImageDecodeError(f"{item.name}: a text that is not UTF-8 ({cell})"))
            else:
                yield key, _image(cell_entry(path, item.row, cell, item.name))
        else:
            yield item.key, Unusable(ImageDecodeError(f"{item.name}: {why}"))


def _cells(batch: Any, row: int, at: int, columns: Columns) -> tuple[str | None, Any]:
    """(key, image) of a row; the error for a text that is none."""
    try:
        key = row if columns.key is None else batch.column(columns.key)[at].as_py()
        return None if key is None else str(key), batch.column(columns.image)[at].as_py()
    except UnicodeDecodeError as error:
        return None, error


def _image(entry: Entry) -> Any:
    try:
        return entry.load()
    except KosmosError as error:
        return Unusable(error)
