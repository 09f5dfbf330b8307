"""Captioner: a task on batches of rows, for Ray Data, Spark, Daft, or a loop of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kosmos_edge._native import _core
from kosmos_edge.distributed.frames import absolute, answer_columns, answer_values, pictures, usable, with_answers
from kosmos_edge.distributed.opened import open_model
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import Opening
from kosmos_edge.inference.batching import DEFAULT_BATCH, TASKS, WITHOUT_PIPES, run_batch
from kosmos_edge.model import Model
from kosmos_edge.options import check_int


class Captioner:
    """Adds answers about images to batches of rows: Captioner(model="nano")({"bytes": ...}) -> the batch and columns.

    Small and picklable: the model is opened by the first batch that has rows, in the process where that happens, and
    once for all Captioners of this process that name it. A machine's processes have the weights in memory once
    (docs/sharing.md), unless load={"shared_weights": False}.

    A batch is a dict of numpy arrays, a pyarrow.Table or RecordBatch (which becomes a Table), or a pandas.DataFrame,
    and so is the answer. Rows, their order and their other columns are kept. Added, none with nulls: text (string),
    entities (string: a JSON list as in --format json; task "read": lines; "score", "classify": ranking), width and
    height (int32, of the upright image; 0 if it could not be opened), model (string), finish_reason (string), error
    (string, empty if there is an answer). A broken image is a row with an error. What is wrong for all images is
    raised: InvalidRequest (options, columns), ModelNotFound, ModelCorrupt, DeviceUnavailable, OutOfMemory,
    KosmosIOError.
    """

    def __init__(
        self,
        model: Any = None,
        task: str = "caption",
        *,
        column: str = "bytes",
        batch_size: int = DEFAULT_BATCH,
        threads: int | None = None,
        prefix: str = "",
        drop: Sequence[str] = (),
        opening: Opening = WITHOUT_PIPES,
        load: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        """model: a tag or a path, which must be there on every machine; None: as load(None) on each.

        task and arguments: as of Model.batch; ground=None: boxes if the model has them. column: of the images, which
        are bytes, paths, structs {bytes, path}, HxWx3 uint8 arrays or PIL images. batch_size: 1..256 answers in the
        same passes. threads: 1..1024; None: as many as Ray or Spark gave the worker, else 1. prefix: before the names
        of the added columns. drop: columns that do not go out, such as the images. load: other keywords of load().
        """
        if task not in TASKS:
            raise InvalidRequest(f"task: expected one of {', '.join(TASKS)}, got {task!r}")
        if not isinstance(column, str) or not column:
            raise InvalidRequest(f"column: expected a name, got {column!r}")
        if isinstance(drop, str):
            raise InvalidRequest(f"drop: expected a list of names, got {drop!r}")
        if arguments.get("stream"):
            raise InvalidRequest("stream: a batch returns complete results")
        self.model = absolute(model)
        self.task, self.column, self.prefix, self.drop = task, column, prefix, tuple(drop)
        self.batch_size = check_int("batch_size", batch_size, 1, _core.limits.MAX_BATCH)
        self.threads = None if threads is None else check_int("threads", threads, 1, _core.limits.MAX_THREADS)
        self.opening, self.load_options, self.arguments = opening, dict(load or {}), arguments

    def __repr__(self) -> str:
        return f"Captioner({self.model!r}, {self.task!r}, column={self.column!r})"

    @property
    def columns(self) -> dict[str, str]:
        """Name -> "string" or "int32" of the added columns, in order."""
        return {self.prefix + name: kind for name, kind in answer_columns(self.task).items()}

    def opened(self) -> Model:
        """The model of this process."""
        return open_model(self.model, self.threads, self.load_options)

    def answers(self, images: Iterable[Any]) -> list[Any]:
        """A Result or Ranking for each image, in order, as Model.batch gives them."""
        model, arguments = self.opened(), dict(self.arguments)
        if arguments.get("ground", False) is None:
            arguments["ground"] = model.model_info["grounding"] is not None
        return list(run_batch(model, images, self.task, "yield", self.batch_size, arguments, opening=self.opening))

    def rows(self, cells: Iterable[Any]) -> list[dict[str, Any]]:
        """The added columns of each cell, by name; a cell is what `column` may hold."""
        images = usable(cells)
        answers = self.answers(images) if images else []
        return [{self.prefix + k: v for k, v in answer_values(answer, self.task).items()} for answer in answers]

    def __call__(self, batch: Any) -> Any:
        """The batch with answers. One without rows gets empty columns, and opens no model."""
        return with_answers(batch, self.rows(pictures(batch, self.column)), self.columns, self.drop)

    def partitions(self, frames: Iterable[Any]) -> Iterator[Any]:
        """For Spark: df.mapInPandas(captioner.partitions, captioner.spark_schema(df.schema))."""
        for frame in frames:
            yield self(frame)

    def spark_schema(self, schema: Any) -> Any:
        """The pyspark StructType of what partitions gives for a DataFrame of this schema."""
        from pyspark.sql import types

        kinds = {"string": types.StringType(), "int32": types.IntegerType()}
        kept = [field for field in schema.fields if field.name not in self.drop]
        return types.StructType(kept + [types.StructField(n, kinds[k], False) for n, k in self.columns.items()])
