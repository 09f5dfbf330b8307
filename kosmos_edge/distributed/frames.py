"""Batches of rows as engines pass them: a dict of numpy arrays, a pyarrow.Table or RecordBatch, a pandas.DataFrame.

Columns that come in go out unchanged, and those of the answers are added, without nulls: an engine that infers types
block by block would find another type in a block that has nothing but nulls.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from kosmos_edge.errors import ImageDecodeError, InvalidRequest
from kosmos_edge.folders.tables import plain
from kosmos_edge.images import Unusable
from kosmos_edge.inference.batching import Settled
from kosmos_edge.json_text import to_json

DETAILS = {"read": "lines", "score": "ranking", "classify": "ranking"}  # task -> its column of JSON, else entities


def answer_columns(task: str) -> dict[str, str]:
    """Name -> "string" or "int32" of the columns that an answer has."""
    details = DETAILS.get(task, "entities")
    numbers = {"width": "int32", "height": "int32"}
    return (
        {"text": "string", details: "string"} | numbers | dict.fromkeys(("model", "finish_reason", "error"), "string")
    )


def answer_values(answer: Any, task: str) -> dict[str, Any]:
    """The values of answer_columns; width and height are 0, and text is empty, where error is not."""
    failed = answer.error is not None
    text = "" if failed else answer.text if hasattr(answer, "text") else answer.best.text
    return {
        "text": plain(text),
        DETAILS.get(task, "entities"): details_json(answer, task),
        "width": answer.width or 0,
        "height": answer.height or 0,
        "model": answer.model,
        "finish_reason": getattr(answer, "finish_reason", "error" if failed else "stop"),
        "error": plain(str(answer.error)) if failed else "",
    }


def details_json(answer: Any, task: str) -> str:
    """The entities, lines or ranking as a JSON list; of an answer with an error an empty one."""
    found = () if answer.error is not None else getattr(answer, DETAILS.get(task, "entities"), None) or ()
    return to_json([one.to_dict() for one in found])


def kind_of(batch: Any) -> str:
    """ "numpy", "arrow" or "pandas"; InvalidRequest for anything else."""
    package = type(batch).__module__.partition(".")[0]
    if isinstance(batch, dict):
        return "numpy"
    if package == "pyarrow" and hasattr(batch, "schema"):
        return "arrow"
    if package == "pandas" and hasattr(batch, "columns"):
        return "pandas"
    what = "a dict of numpy arrays, a pyarrow.Table or a pandas.DataFrame"
    raise InvalidRequest(f"batch: expected {what}, got {type(batch).__name__}")


def column_names(batch: Any) -> list[str]:
    """Of the batch, in order."""
    kind = kind_of(batch)
    if kind == "numpy":
        return list(batch)
    return list(batch.schema.names if kind == "arrow" else batch.columns)


def pictures(batch: Any, column: str) -> list[Any]:
    """The cells of a column as images for a batch; a cell without one as an Unusable."""
    names = column_names(batch)
    if column not in names:
        raise InvalidRequest(f"column: the batch has no {column!r}; it has {', '.join(map(repr, names)) or 'none'}")
    kind = kind_of(batch)
    if kind == "arrow":
        return usable(batch.column(column).to_pylist())
    if kind == "pandas":
        return usable(batch[column].tolist())
    cells = batch[column]
    if getattr(getattr(cells, "dtype", None), "kind", "") == "S":
        raise InvalidRequest(f"column {column!r}: numpy's fixed-width bytes drop zeros at the end; use dtype=object")
    return usable(cells)


def usable(cells: Iterable[Any]) -> list[Any]:
    """Cells as images: bytes, paths, structs {bytes, path} as Hugging Face has them, arrays, PIL images."""
    return [_usable(cell) for cell in cells]


def _usable(cell: Any) -> Any:
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytearray | memoryview):
        cell = bytes(cell)
    empty = cell is None or type(cell).__name__ == "NAType" or (isinstance(cell, float) and cell != cell)
    if empty or (isinstance(cell, str | bytes) and not cell):
        return Unusable(ImageDecodeError("expected an image, got an empty cell"))
    if isinstance(cell, Settled | Unusable):
        return cell
    if isinstance(cell, bool | int | float | list | tuple):
        return Unusable(ImageDecodeError(f"expected bytes, a path or an array, got {type(cell).__name__}"))
    if isinstance(cell, str):
        return str(cell)  # also numpy's own kind of str
    return bytes(cell) if isinstance(cell, bytes) else cell


def with_answers(batch: Any, rows: Sequence[dict[str, Any]], types: dict[str, str], drop: Sequence[str]) -> Any:
    """A batch of the same kind without the columns `drop`, and with those of the answers."""
    names = column_names(batch)
    missing = [name for name in drop if name not in names]
    if missing:
        raise InvalidRequest(f"drop: the batch has no {missing[0]!r}; it has {', '.join(map(repr, names))}")
    kept = [name for name in names if name not in drop]
    taken = [name for name in types if name in kept]
    if taken:
        what = "give prefix='kosmos_' or another, or drop it"
        raise InvalidRequest(f"the batch has a column {taken[0]!r} already, as the answers have: {what}")
    values = {name: [row[name] for row in rows] for name in types}
    kind = kind_of(batch)
    if kind == "arrow":
        return _arrow(batch, kept, values, types)
    if kind == "pandas":
        return _pandas(batch, kept, values, types)
    return {name: batch[name] for name in kept} | _numpy(values, types)


def _numpy(values: dict[str, list[Any]], types: dict[str, str]) -> dict[str, Any]:
    import numpy as np

    columns = {}
    for name, cells in values.items():
        if types[name] == "int32":
            columns[name] = np.array(cells, dtype=np.int32)
        else:  # an empty column of objects would have no type
            columns[name] = np.array(cells, dtype=object) if cells else np.empty(0, dtype="<U1")
    return columns


def _arrow(batch: Any, kept: list[str], values: dict[str, list[Any]], types: dict[str, str]) -> Any:
    import pyarrow as arrow

    table = arrow.Table.from_batches([batch]) if isinstance(batch, arrow.RecordBatch) else batch
    table = table.select(kept)
    for name, cells in values.items():
        table = table.append_column(arrow.field(name, types[name]), arrow.array(cells, types[name]))
    return table


def _pandas(batch: Any, kept: list[str], values: dict[str, list[Any]], types: dict[str, str]) -> Any:
    import pandas as pd

    kinds = {"int32": "int32", "string": "str"}
    added = {name: pd.Series(cells, index=batch.index, dtype=kinds[types[name]]) for name, cells in values.items()}
    return batch[kept].assign(**added)


def absolute(model: Any) -> str | None:
    """The path of a model file seen from the root, as a worker has another current folder; a tag unchanged."""
    if model is None:
        return None
    if not isinstance(model, str | os.PathLike) or not os.fspath(model):
        what = f"got {type(model).__name__}; a loaded model is not sent to workers"
        raise InvalidRequest(f"model: expected a tag or a path, {what}")
    spec = os.fspath(model)
    if not isinstance(spec, str):
        raise InvalidRequest(f"model: expected a tag or a path, got {spec!r}")
    is_path = isinstance(model, os.PathLike) or (os.path.dirname(spec) != "" and os.path.exists(spec))
    return os.path.abspath(spec) if is_path or spec.endswith(".gguf") else spec
