"""Records in the schema that GRIT was published in, and the files with them.

`noun_chunks` and `ref_exps` are lists of [start, end, x1, y1, x2, y2, score]: code points of the caption, fractions of
the upright picture, the detector's score. A phrase with several boxes is there several times.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from kosmos_edge.apps.grit.boxes import Scored
from kosmos_edge.apps.grit.expressions import Noun, Span, outermost
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.folders.tables import import_pyarrow
from kosmos_edge.folders.tars import Sink
from kosmos_edge.targets import PART, Part, find_target, write_all, writing

FIELDS = ("key", "id", "url", "caption", "clip_similarity_vitb32", "clip_similarity_vitl14", "width", "height")
_ROWS, _BUFFER = 1000, 1 << 20  # rows of a table, and bytes of a file, that are written at a time


def make_record(
    facts: Mapping[str, Any], nouns: Sequence[Noun], boxes: Sequence[Sequence[Scored]], *, contained: bool
) -> dict[str, Any] | None:
    """The record of a picture; None without a box.

    facts: FIELDS; what is not there is null. boxes: of each noun chunk. contained: keep expressions that lie in others,
    as the published files do (the authors' training code drops them).
    """
    boxed = [(noun, found) for noun, found in zip(nouns, boxes, strict=True) if found]
    if not boxed:
        return None
    spans = [noun.expression for noun, _ in boxed]
    outer = [contained or longest for longest in outermost(spans)]
    record: dict[str, Any] = {name: facts.get(name) for name in FIELDS}
    record["noun_chunks"] = [row for noun, found in boxed for row in _rows(noun.chunk, found)]
    record["ref_exps"] = [
        row for (noun, found), keep in zip(boxed, outer, strict=True) if keep for row in _rows(noun.expression, found)
    ]
    return record


def _rows(span: Span, boxes: Sequence[Scored]) -> list[list[float]]:
    return [[span.start, span.end, *one.box, one.score] for one in boxes]


class Writer(Protocol):
    """A file of records, which has its name only when it is complete."""

    def add(self, record: Mapping[str, Any]) -> None:
        """The next record."""

    def finish(self) -> None:
        """The file is complete."""

    def close(self) -> None:
        """Removes what is not complete."""


class WholeFile:
    """A file that appears complete or not at all. KosmosIOError while another process writes it."""

    def __init__(self, path: str) -> None:
        self._part = Part(find_target(path, overwrite=True), PART, wait=False)
        self._part.truncate(0)
        self._waiting = bytearray()

    def write(self, data: bytes) -> None:
        """The next bytes."""
        self._waiting += data
        if len(self._waiting) >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        with writing(self._part.target.name):
            write_all(self._part.descriptor, bytes(self._waiting))
        self._waiting.clear()

    def finish(self) -> None:
        """The file gets its name."""
        self._flush()
        self._part.become_target(overwrite=True)
        self._part.__exit__(None, None, None)

    def close(self) -> None:
        """Removes a file that is not finished."""
        self._part.remove()
        self._part.__exit__(None, None, None)


class LineWriter:
    """JSON, a record on each line."""

    def __init__(self, path: str) -> None:
        self._file = WholeFile(path)

    def add(self, record: Mapping[str, Any]) -> None:
        """A line."""
        self._file.write((json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode())

    def finish(self) -> None:
        """The file gets its name."""
        self._file.finish()

    def close(self) -> None:
        """Removes the file, unless it is finished."""
        self._file.close()


class TableWriter:
    """A Parquet file; needs pyarrow. made_by: kept in the file's metadata, as JSON under "kosmos-edge"."""

    def __init__(self, path: str, made_by: Mapping[str, Any]) -> None:
        arrow = self._arrow = import_pyarrow()
        rows = arrow.list_(arrow.list_(arrow.float64()))
        text, number, real = arrow.string(), arrow.int64(), arrow.float64()
        kinds = (text, number, text, text, real, real, number, number)
        fields = [*zip(FIELDS, kinds, strict=True), ("noun_chunks", rows), ("ref_exps", rows)]
        self._schema = arrow.schema(fields, metadata={"kosmos-edge": json.dumps(made_by, sort_keys=True)})
        self._file = WholeFile(path)
        self._sink = Sink(self._file.write)
        self._writer = arrow.parquet.ParquetWriter(arrow.PythonFile(self._sink, mode="w"), self._schema)
        self._waiting: list[Mapping[str, Any]] = []

    def add(self, record: Mapping[str, Any]) -> None:
        """A row."""
        self._waiting.append(record)
        if len(self._waiting) >= _ROWS:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_batch(self._arrow.RecordBatch.from_pylist(self._waiting, schema=self._schema))
        self._waiting.clear()

    def finish(self) -> None:
        """The file gets its name."""
        if self._waiting:
            self._flush()
        self._writer.close()
        self._file.finish()

    def close(self) -> None:
        """Removes the file, unless it is finished."""
        self._sink.end()
        self._writer.close()
        self._file.close()


def read_records(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a file of JSON lines. InvalidRequest names the line that is none."""
    records = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise InvalidRequest(f"{os.fspath(path)}, line {number}: no JSON: {error}") from None
            if not isinstance(record, dict) or not {"caption", "noun_chunks", "ref_exps"} <= record.keys():
                raise InvalidRequest(f"{os.fspath(path)}, line {number}: no record with caption, noun_chunks, ref_exps")
            records.append(record)
    return records
