"""Parquet files, with pyarrow: pip install 'kosmos-edge[arrow]'."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kosmos_edge.errors import ImageDecodeError, InvalidRequest
from kosmos_edge.folders.running import Entry, bytes_entry, file_entry
from kosmos_edge.folders.tars import Sink

SUFFIXES = (".parquet",)
_READ_ROWS, _WRITE_ROWS = 64, 1000  # at a time


def import_pyarrow() -> Any:
    """pyarrow with pyarrow.parquet; InvalidRequest without it."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise InvalidRequest("Parquet needs pyarrow: pip install 'kosmos-edge[arrow]'") from None
    return pyarrow


def table_columns(path: str) -> list[str]:
    """The names of the columns. Raises as table_entries."""
    arrow = import_pyarrow()
    try:
        with open(path, "rb") as file:
            return list(arrow.parquet.read_schema(file).names)
    except (arrow.ArrowException, OSError) as error:
        raise ImageDecodeError(f"{path}: damaged Parquet file ({error})") from error


def table_entries(path: str, column: str = "image", others: Sequence[str] = ()) -> Iterator[Entry]:
    """The pictures of a Parquet file; names are PATH#ROW.

    The column holds bytes, paths, or structs {bytes, path} as the Image feature of Hugging Face's datasets. Relative
    paths are seen from the file's folder. others: further columns, whose values are in Entry.about. Raises
    ImageDecodeError for a damaged file, InvalidRequest for a missing column.
    """
    arrow = import_pyarrow()
    try:
        with open(path, "rb") as file, arrow.parquet.ParquetFile(file) as table:
            check_column(path, table.schema_arrow.names, column, "--image-column")
            for other in others:
                check_column(path, table.schema_arrow.names, other)
            row = 0
            for batch in table.iter_batches(_READ_ROWS, columns=[column, *others]):
                for values in batch.to_pylist():
                    about = {name: values[name] for name in others} if others else None
                    yield cell_entry(path, row, values[column], about=about)
                    row += 1
    except (arrow.ArrowException, OSError) as error:
        raise ImageDecodeError(f"{path}: damaged Parquet file ({error})") from error


def check_column(path: str, names: Sequence[str], column: str, option: str = "") -> None:
    """InvalidRequest unless the table has the column, and once."""
    if names.count(column) == 1:
        return
    what = f"{names.count(column)} columns" if column in names else "no column"
    raise InvalidRequest(f"{path}: {what} {column!r}; it has {', '.join(names)}" + (f" ({option})" if option else ""))


def cell_entry(path: str, row: int, value: Any, name: str | None = None, about: Any = None) -> Entry:
    """The entry of a cell with a picture; relative paths are seen from the folder of the table's file."""
    name = name or f"{path}#{row}"
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return bytes_entry(name, value, about)
    if isinstance(value, str):
        return file_entry(os.path.join(os.path.dirname(path), value), name, about)

    def fail(*_: Any) -> Any:
        raise ImageDecodeError(f"{name}: expected bytes or a path, got {type(value).__name__}")

    return Entry(name, None, fail, fail, about)


def answer_fields(arrow: Any) -> list[Any]:
    """The fields of an answer's row: path, caption, text, entities, width, height, model, error.

    entities: list of structs {phrase, start, end, score, boxes}; boxes are [x1, y1, x2, y2] in pixels.
    """
    box = arrow.list_(arrow.float32(), 4)
    entity = arrow.struct(
        [
            ("phrase", arrow.string()),
            ("start", arrow.int32()),
            ("end", arrow.int32()),
            ("score", arrow.float32()),
            ("boxes", arrow.list_(box)),
        ]
    )
    return [
        arrow.field("path", arrow.string()),
        arrow.field("caption", arrow.string()),
        arrow.field("text", arrow.string()),
        arrow.field("entities", arrow.list_(entity)),
        arrow.field("width", arrow.int32()),
        arrow.field("height", arrow.int32()),
        arrow.field("model", arrow.string()),
        arrow.field("error", arrow.string()),
    ]


def plain(text: str) -> str:
    """The text as UTF-8 can hold it: bytes of a file's name that are no characters as \\xNN, other halves of surrogate
    pairs (JSON may have them) as \\uNNNN."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()


def answer_row(answer: Any, name: str, caption: str) -> dict[str, Any]:
    """The values of answer_fields."""
    entities = [
        {
            "phrase": entity.phrase,
            "start": entity.span[0],
            "end": entity.span[1],
            "score": entity.score,
            "boxes": [list(box.pixels) for box in entity.boxes if box.pixels is not None and box.valid],
        }
        for entity in getattr(answer, "entities", ())
    ]
    return {
        "path": plain(name),
        "caption": caption,
        "text": getattr(answer, "text", caption),
        "entities": entities,
        "width": answer.width,
        "height": answer.height,
        "model": answer.model,
        "error": None if answer.error is None else plain(str(answer.error)),
    }


class TableExport:
    """A row for each answer, also for one with an error: see answer_fields."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        """put: takes the bytes of the file."""
        arrow = self._arrow = import_pyarrow()
        self._schema = arrow.schema(answer_fields(arrow))
        self._sink = Sink(put)
        self._writer = arrow.parquet.ParquetWriter(arrow.PythonFile(self._sink, mode="w"), self._schema)
        self._rows: list[dict[str, Any]] = []

    def add(self, answer: Any, name: str, caption: str) -> None:
        """The next answer."""
        self._rows.append(answer_row(answer, name, caption))
        if len(self._rows) >= _WRITE_ROWS:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_batch(self._arrow.RecordBatch.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()

    def finish(self) -> None:
        """Writes the rest."""
        if self._rows:
            self._flush()
        self._writer.close()

    def close(self) -> None:
        """Releases what is held; writes nothing more."""
        self._sink.end()
        self._writer.close()
