"""The folder that a run writes: records, statistics, failures, a contact sheet. Each appears when it is complete."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self, get_args

from kosmos_edge.apps.grit.build import Builder, Made
from kosmos_edge.apps.grit.records import LineWriter, TableWriter, Writer
from kosmos_edge.apps.grit.sheet import Sheet
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.folders.tables import import_pyarrow, plain
from kosmos_edge.json_text import to_json
from kosmos_edge.targets import find_target, make_folder, write_whole

Records = Literal["json", "parquet", "both"]
LINES, TABLE, FAILED, STATISTICS, SHEET = (
    "records.jsonl",
    "records.parquet",
    "failed.jsonl",
    "statistics.json",
    "sheet.html",
)


class Folder:
    """The output of one run; a context manager.

    records: in which form. replace: files of an earlier run are replaced; otherwise there may be none. InvalidRequest,
    KosmosIOError before any work.
    """

    def __init__(self, path: str, records: Records, sheet: Sheet, *, replace: bool = False) -> None:
        if records not in get_args(Records):
            raise InvalidRequest(f"records: expected one of {', '.join(get_args(Records))}, got {records!r}")
        if records != "json":
            import_pyarrow()
        make_folder(path, "-o: the output is a folder")
        self._path, self._records, self._sheet = path, records, sheet
        self._made_by: dict[str, Any] = {}
        self._there = [name for name in (LINES, TABLE, FAILED, STATISTICS, SHEET) if os.path.lexists(self._at(name))]
        if self._there and not replace:
            raise InvalidRequest(
                f"{self._at(self._there[0])} exists: --overwrite begins again, --resume takes the boxes of that run"
            )
        self._writers: list[Writer] = []

    def start(self, made_by: Mapping[str, Any]) -> None:
        """Opens the files. made_by: for the statistics and the table: parser, detector, settings."""
        self._made_by = dict(made_by)
        self._writers.append(LineWriter(self._at(FAILED)))
        if self._records in ("json", "both"):
            self._writers.append(LineWriter(self._at(LINES)))
        if self._records in ("parquet", "both"):
            self._writers.append(TableWriter(self._at(TABLE), made_by))

    def _at(self, name: str) -> str:
        return os.path.join(self._path, name)

    def add(self, made: Made) -> None:
        """What became of a pair."""
        if made.error is not None:
            why = plain(f"{type(made.error).__name__}: {made.error}")  # names of files need not be Unicode
            self._writers[0].add({"key": made.pair.key, "error": why})
        if made.record is not None:
            for writer in self._writers[1:]:
                writer.add(made.record)
            if made.picture is not None and self._sheet.wants(made.pair.key):
                self._sheet.add(made.record, made.picture)

    def finish(self, builder: Builder) -> dict[str, Any]:
        """Everything gets its name; -> what is in statistics.json."""
        facts = {**builder.statistics.to_dict(), **self._made_by}
        for writer in self._writers:
            writer.finish()
        self._writers.clear()
        for name, records in ((LINES, "parquet"), (TABLE, "json")):
            if self._records == records and name in self._there:  # of an earlier run in another form
                os.unlink(self._at(name))
        self._write(SHEET, self._sheet.page(facts))
        self._write(STATISTICS, to_json(facts, 2) + "\n")
        return facts

    def _write(self, name: str, text: str) -> None:
        write_whole(find_target(self._at(name), overwrite=True), text.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Removes what is not finished."""
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
