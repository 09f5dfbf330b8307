"""The log of a run: a line of JSON for each item, written when it is finished, so that a later run can go on.

The first line of each storage type says what is measured; a run with other settings does not go on with it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from kosmos_edge.errors import InvalidRequest, KosmosIOError
from kosmos_edge.targets import lock


class Log:
    """The file, open and locked; or nothing, which keeps nothing."""

    def __init__(self, path: str | os.PathLike[str] | None, resume: bool) -> None:
        """InvalidRequest if the file exists and `resume` is not set, or if it is not such a log."""
        self.path = None if path is None else Path(path)
        self._file: BinaryIO | None = None
        self._heads: dict[str, dict[str, Any]] = {}  # by type
        self._done: dict[tuple[str, str], dict[str, Any]] = {}  # (type, id) -> its line
        if self.path is None:
            return
        try:
            self._file = open(self.path, "a+b" if resume else "x+b")  # noqa: SIM115 (closed by close)
        except FileExistsError:
            raise InvalidRequest(f"{self.path} exists; --resume goes on with it, or remove it") from None
        except OSError as error:
            raise KosmosIOError(f"cannot write {self.path}: {error.strerror or error}") from error
        try:
            if not lock(self._file.fileno()):
                raise KosmosIOError(f"another process is writing {self.path}")
            self._read()
        except BaseException:
            self._file.close()
            raise

    def _read(self) -> None:
        assert self._file is not None
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break  # the run ended while it wrote this line
            try:
                record = json.loads(line)
                if "id" in record:
                    if not isinstance(record["prediction"], dict) or "error" not in record:
                        raise ValueError(record)
                    self._done[record["type"], record["id"]] = record
                else:
                    self._heads[record["type"]] = record
            except (ValueError, KeyError, TypeError):
                raise InvalidRequest(f"{self.path}, line {number}: not a line of such a log") from None
            whole += len(line)
        self._file.truncate(whole)
        self._file.seek(whole)

    def begin(self, head: Mapping[str, Any]) -> None:
        """Starts a type, or goes on with it; InvalidRequest if it was measured with other settings."""
        known = self._heads.get(head["type"])
        if known is None:
            self._write(head)
            return
        wrong = [
            f"{key} is {known.get(key)!r} there, {value!r} now"
            for key, value in head.items()
            if known.get(key) != value
        ]
        if wrong:
            raise InvalidRequest(f"{self.path} cannot be resumed: {'; '.join(wrong)}")

    def finished(self, type: str, id: str) -> dict[str, Any] | None:
        """The prediction of an item that was answered before; failures are tried again."""
        record = self._done.get((type, id))
        return None if record is None or record["error"] is not None else record["prediction"]

    def check_prompt(self, type: str, id: str, prompt: str) -> None:
        """InvalidRequest if a finished item was asked something else: the log is of other data."""
        asked = self._done[type, id].get("prompts", [prompt])[:1]
        if asked != [prompt]:
            there = f"was asked {asked[0]!r} there" if asked else "was not asked anything there"
            raise InvalidRequest(f"{self.path} cannot be resumed: item {id} {there}, {prompt!r} now")

    def add(self, record: Mapping[str, Any]) -> None:
        """Writes an item's line: type, id, prediction, scores, error, milliseconds."""
        self._write(record)

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        try:
            self._file.write(
                json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass") + b"\n"
            )
            self._file.flush()
        except OSError as error:
            raise KosmosIOError(f"cannot write {self.path}: {error.strerror or error}") from error

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
