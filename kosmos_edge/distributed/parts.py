"""The output of a run on many machines: a folder of Parquet files, each of which appears whole or not at all.

Part n has the images n * part_rows and following, so the parts in order of their names have the images in order. What
a run that resumes adds to a part that is there already goes into part-N-1.parquet and so on; an image that failed
before is replaced in its own part. There is one writer, and a lock sees to it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kosmos_edge.distributed.frames import DETAILS
from kosmos_edge.errors import InvalidRequest, KosmosIOError
from kosmos_edge.folders.tables import answer_fields, import_pyarrow
from kosmos_edge.targets import lock, make_folder, writing

_NAME = re.compile(r"part-(?:(\d+)of(\d+)-)?(\d{6,})(?:-(\d+))?\.parquet")
_MARK = b"kosmos_edge"  # in the metadata of the schema: what the answers depend on


def part_schema(arrow: Any, task: str) -> Any:
    """The schema of a part: answer_fields, then key, copy, finish_reason, for some tasks lines or ranking (JSON)."""
    more = [("key", arrow.string()), ("copy", arrow.int32()), ("finish_reason", arrow.string())]
    if task in DETAILS:
        more.append((DETAILS[task], arrow.string()))
    return arrow.schema(answer_fields(arrow) + [arrow.field(*field) for field in more])


class Parts:
    """The folder of a run; a context manager that holds its lock.

    request: what the answers depend on. resume: parts of an earlier run stay, and `done` and `failed` know their
    images. overwrite: they are removed. Otherwise a folder that has parts of this shard is refused. Raises
    InvalidRequest (also: parts of another request, of another number of shards, damaged ones), KosmosIOError.
    """

    def __init__(
        self,
        folder: str,
        task: str,
        request: Mapping[str, Any],
        *,
        shard: tuple[int, int] | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self._arrow = import_pyarrow()
        self.folder, self.shard = folder, shard
        self._request = json.loads(json.dumps(dict(request), default=repr, sort_keys=True))
        mark = {_MARK: json.dumps(self._request).encode()}
        self._schema = part_schema(self._arrow, task).with_metadata(mark)
        self._resume, self._overwrite = resume, overwrite
        self.done: set[tuple[str, int]] = set()
        self.failed: dict[tuple[str, int], str] = {}  # image -> its part
        self._names: set[str] = set()
        self._lock = -1

    def __enter__(self) -> Self:
        make_folder(self.folder, "--engine ray: -o is a folder of Parquet files")
        own = "all" if self.shard is None else f"{self.shard[0]}of{self.shard[1]}"
        with writing(self.folder):
            self._lock = os.open(os.path.join(self.folder, f".{own}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not lock(self._lock):
                raise KosmosIOError(16, "another run is writing its parts", self.folder)
            self._begin()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)

    def _begin(self) -> None:
        with writing(self.folder):
            there = sorted(os.listdir(self.folder))
        mine = [name for name in there if self._is_mine(name)]
        if mine and not (self._resume or self._overwrite):
            raise InvalidRequest(
                f"{self.folder} has parts of an earlier run ({len(mine)}): continue it with resume (--resume), replace "
                "them with overwrite (--overwrite), or name a new folder"
            )
        for name in there:
            # Temporary files of a run that was killed; we hold the lock of those that are ours.
            stale = name.startswith(".part-") and name.endswith(".tmp") and self._is_mine(name[1:-4])
            if stale or (name in mine and not self._resume):
                with writing(os.path.join(self.folder, name)):
                    os.unlink(os.path.join(self.folder, name))
        if self._resume:
            for name in mine:
                self._take(name)

    def _is_mine(self, name: str) -> bool:
        """Whether it is a part of this shard; InvalidRequest if it is one of another number of shards."""
        found = _NAME.fullmatch(name)
        if found is None:
            return False
        shard = (int(found[1]), int(found[2])) if found[1] else None
        count, wanted = (None if one is None else one[1] for one in (shard, self.shard))
        if count != wanted:
            what = f"parts of {count} shards" if count else "parts of a run without shards"
            this = f"of {wanted}" if wanted else "without shards"
            raise InvalidRequest(f"{self.folder} has {what}, and this run is {this}: name a new folder")
        return shard == self.shard

    def _take(self, name: str) -> None:
        """Learns which images a part has."""
        path = os.path.join(self.folder, name)
        arrow = self._arrow
        try:
            with arrow.parquet.ParquetFile(path) as part:
                schema = part.schema_arrow
                found = json.loads((schema.metadata or {}).get(_MARK, b"null"))
                same = schema.names == self._schema.names
                rows = part.read(columns=["path", "copy", "error"]).to_pydict() if same else {}
        except (arrow.ArrowException, OSError, ValueError) as error:
            what = "delete it, and its images are computed again"
            raise InvalidRequest(f"{path}: a damaged part ({error}); {what}") from error
        if found is None or not same:
            raise InvalidRequest(f"{path}: not a part of such a run: name a new folder")
        differing = [key for key in self._request if key != "version" and found.get(key) != self._request[key]]
        if differing:
            key = differing[0]
            was, now = found.get(key), self._request[key]
            raise InvalidRequest(f"{path}: was made with {key} {was!r}, now it is {now!r}: name a new folder")
        self._names.add(name)
        for image, copy, why in zip(rows["path"], rows["copy"], rows["error"], strict=True):
            if (image, copy) in self.done or (image, copy) in self.failed:
                raise InvalidRequest(f"{path}: has {image}, as another part has: delete one of both")
            if why is None:
                self.done.add((image, copy))
            else:
                self.failed[image, copy] = name

    # ---- writing

    def write(self, number: int, rows: list[dict[str, Any]]) -> str:
        """Writes the rows of part `number` under a name that is free; -> the name."""
        own = "" if self.shard is None else f"{self.shard[0]}of{self.shard[1]}-"
        name, more = f"part-{own}{number:06d}.parquet", 0
        while name in self._names:
            more += 1
            name = f"part-{own}{number:06d}-{more}.parquet"
        self._put(name, self._arrow.Table.from_pylist(rows, schema=self._schema))
        self._names.add(name)
        return name

    def mend(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Replaces rows of a part: those of the same path and copy."""
        new = {(row["path"], row["copy"]): row for row in rows}
        with self._arrow.parquet.ParquetFile(os.path.join(self.folder, name)) as part:
            old = part.read().to_pylist()
        merged = [new.get((row["path"], row["copy"]), row) for row in old]
        self._put(name, self._arrow.Table.from_pylist(merged, schema=self._schema))

    def _put(self, name: str, table: Any) -> None:
        buffer = io.BytesIO()
        self._arrow.parquet.write_table(table, buffer, compression="zstd")
        path = Path(self.folder, name)
        temporary = path.with_name(f".{name}.tmp")  # readers of folders leave out what begins with a dot
        with writing(str(path)):
            try:
                with open(temporary, "wb") as file:
                    file.write(buffer.getbuffer())
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
