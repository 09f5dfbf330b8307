"""Hands images to workers, takes their rows, and writes parts. Knows nothing of the engine that runs the workers.

A worker that dies loses its tasks: they are handed out again. A task that was being computed twice when its worker died
is halved, until one image is left: that one is a row with an error. Each image comes out once, as only the rows that
come back from the task that is due are taken.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from kosmos_edge.distributed.items import Item
from kosmos_edge.distributed.parts import Parts
from kosmos_edge.errors import ImageDecodeError, WorkerDied

_AHEAD = 2  # tasks of a worker: the one that it computes, and the next


@dataclass(slots=True)
class Task:
    """Images for one worker, and where their rows go."""

    unit: Unit
    first: int  # place of the first image in the unit
    items: list[Item]
    deaths: int = 0  # of workers that were computing it


@dataclass(slots=True)
class Unit:
    """The images of a part that are to be computed."""

    number: int  # of the part
    mends: str | None  # the part whose rows are replaced
    rows: list[dict[str, Any] | None]
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = len(self.rows)


@dataclass(frozen=True, slots=True)
class Reply:
    """From a worker: rows, or None if it died. suspect: it was computing this task, not only keeping it."""

    task: Task
    rows: list[dict[str, Any]] | None
    suspect: bool = False


class Workers(Protocol):
    """What an engine provides. Errors that concern all images are raised by receive."""

    @property
    def count(self) -> int:
        """How many workers are ready for tasks; it may change."""
        ...

    def send(self, task: Task) -> None:
        """Gives a task to the worker that has the fewest."""
        ...

    def receive(self) -> list[Reply]:
        """Waits until at least one task has come back; may return nothing after some seconds."""
        ...

    def failed_row(self, item: Item, error: Exception) -> dict[str, Any]:
        """The row of an image that no worker could compute."""
        ...


@dataclass(slots=True)
class Counts:
    """What became of the images."""

    done: int = 0
    failed: int = 0
    known: int = 0  # answered by an earlier run
    deaths: int = 0  # of workers


def units_of(items: Iterable[Item], parts: Parts, part_rows: int, counts: Counts) -> Iterator[tuple[Unit, list[Item]]]:
    """The images that are to be computed, part by part; at the end those that failed in an earlier run."""
    again: dict[str, list[Item]] = {}
    source, number = iter(items), 0
    while chunk := list(islice(source, part_rows)):
        new = []
        for item in chunk:
            if item.identity in parts.done:
                counts.known += 1
            elif item.identity in parts.failed:
                again.setdefault(parts.failed[item.identity], []).append(item)
            else:
                new.append(item)
        if new:
            yield Unit(number, None, [None] * len(new)), new
        number += 1
    for name, old in again.items():
        yield Unit(-1, name, [None] * len(old)), old


@dataclass(slots=True)
class Run:
    """Answers all items. settled: called with each row once it is computed. task_rows: images of a task."""

    workers: Workers
    parts: Parts
    settled: Callable[[dict[str, Any]], None]
    task_rows: int = 32
    part_rows: int = 1000
    counts: Counts = field(default_factory=Counts)
    _open: list[Unit] = field(default_factory=list)
    _again: deque[Task] = field(default_factory=deque)
    _deaths: int = 0  # since a task came back

    def run(self, items: Iterable[Item]) -> Counts:
        """Writes the parts. What was computed is written when the run ends early, too."""
        tasks = self._tasks(items)
        flying, more = 0, True
        try:
            while True:
                while flying < _AHEAD * self.workers.count and (self._again or more):
                    task = self._again.popleft() if self._again else next(tasks, None)
                    if task is None:
                        more = False
                        break
                    self.workers.send(task)
                    flying += 1
                if not flying and not self._again and not more:
                    return self.counts
                for reply in self.workers.receive():
                    flying -= 1
                    self._take(reply)
        finally:
            for unit in self._open:
                self._write(unit)

    def _tasks(self, items: Iterable[Item]) -> Iterator[Task]:
        for unit, images in units_of(items, self.parts, self.part_rows, self.counts):
            self._open.append(unit)
            for first in range(0, len(images), self.task_rows):
                yield Task(unit, first, images[first : first + self.task_rows])

    def _take(self, reply: Reply) -> None:
        task = reply.task
        if reply.rows is not None:
            if len(reply.rows) != len(task.items):
                raise WorkerDied(f"a worker gave {len(reply.rows)} rows for {len(task.items)} images")
            self._deaths = 0
            self._keep(task, reply.rows)
            return
        if not reply.suspect:
            self._again.appendleft(task)
            return
        task.deaths += 1
        self._deaths += 1
        self.counts.deaths += 1
        if self._deaths > 12 + 4 * self.workers.count:
            raise WorkerDied(f"{self._deaths} workers have died one after another, and none has answered anything")
        if task.deaths < 2:
            time.sleep(min(5.0, 0.1 * 2**self._deaths))  # perhaps it was short of memory
            self._again.appendleft(task)
        elif len(task.items) == 1:
            error = ImageDecodeError(f"{task.items[0].name}: the worker died whenever it computed this image")
            self._keep(task, [self.workers.failed_row(task.items[0], error)])
        else:
            half = len(task.items) // 2
            for first, some in ((half, task.items[half:]), (0, task.items[:half])):
                self._again.appendleft(Task(task.unit, task.first + first, some, 1))

    def _keep(self, task: Task, rows: list[dict[str, Any]]) -> None:
        unit = task.unit
        unit.rows[task.first : task.first + len(rows)] = rows
        unit.left -= len(rows)
        for row in rows:
            self.counts.done += 1
            self.counts.failed += row["error"] is not None
            self.settled(row)
        if not unit.left:
            self._open.remove(unit)
            self._write(unit)

    def _write(self, unit: Unit) -> None:
        rows = [row for row in unit.rows if row is not None]
        if not rows:
            return
        if unit.mends is None:
            self.parts.write(unit.number, rows)
        else:
            self.parts.mend(unit.mends, rows)
