"""What a task must say of itself. Each module that registry.py names is one such object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kosmos_edge.evaluation.statistics import Metric, Part
from kosmos_edge.results import Result


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its answer."""

    id: str  # unique in the data; names the item in the log
    image: str  # path
    truth: Any  # what Task.score compares with
    group: str = ""  # a part of the data that has figures of its own


class Task(Protocol):
    """A task. load and score raise InvalidRequest for files that are not as the task's page says."""

    @property
    def NAME(self) -> str:
        """As it is typed."""
        ...

    @property
    def SUMMARY(self) -> str:
        """One line of help."""
        ...

    @property
    def FILES(self) -> str:
        """What the folder of --data must hold, for people."""
        ...

    @property
    def METRICS(self) -> tuple[Metric, ...]:
        """In the order of the report."""
        ...

    def load(self, folder: Path) -> list[Item]:
        """All items in a fixed order."""
        ...

    def request(self, item: Item) -> tuple[str, dict[str, Any]]:
        """(verb, its arguments) that the item's image is given to. Neighbours that agree share batches."""
        ...

    def prompt(self, info: Mapping[str, Any]) -> str:
        """The prompt behind the image; info: the model's model_info."""
        ...

    def predict(self, result: Result) -> dict[str, Any]:
        """What the log keeps of an answer, JSON-ready."""
        ...

    def score(self, item: Item, prediction: Mapping[str, Any]) -> dict[str, Part]:
        """The item's part in each metric. A metric that is left out does not apply to the item."""
        ...
