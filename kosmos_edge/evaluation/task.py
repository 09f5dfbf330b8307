"""What a task must say of itself. A task is a module, or an object of a module, that registry.py names.

There are two kinds. A Task gives its images to a verb of the model. A PromptTask writes its prompts itself, as a paper
has them, and may ask several times for an item.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from kosmos_edge.evaluation.statistics import Metric, Part
from kosmos_edge.results import Result


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its answer."""

    id: str  # unique in the data; names the item in the log
    image: str  # path
    truth: Any  # what Task.score compares with
    group: str | tuple[str, ...] = ""  # the part of the data, or all parts, that it is in; each has figures of its own
    asked: Any = None  # what a PromptTask needs for its prompt


@dataclass(frozen=True, slots=True)
class Variant:
    """Which part of the data, and how it is asked."""

    split: str | None = None  # None: the task's first
    shots: int = 0  # few-shot examples before each item
    seed: int = 0  # of their draw
    exact: bool = False  # as the authors' script, where that is slower and all but the same
    score: bool = False  # by the likelihood of all names instead of an answer; no published figure is made so


@dataclass(frozen=True, slots=True)
class Generate:
    """A generating verb with its arguments by name: image, or segments for generate. Images are pathlib.Path."""

    verb: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rank:
    """Texts to be ranked behind segments; see Model.score_segments."""

    segments: Sequence[Any]
    texts: Sequence[str]
    normalize: str = "sum"


# What an item asks, one after another, and what is kept of the answers, JSON-ready.
Steps: TypeAlias = Generator[Generate | Rank, Any, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Finish:
    """What is known when all items are answered."""

    parts: Sequence[Mapping[str, Part]]  # by item, added to those of score
    reasons: Mapping[str, str] = field(default_factory=dict)  # metric -> why it has no value


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


class PromptTask(Protocol):
    """A task with prompts of its own. An item whose image fails has the prediction {}, which must count as wrong."""

    NAME: str
    SUMMARY: str
    FILES: str
    METRICS: tuple[Metric, ...]
    SPLITS: tuple[str, ...]  # the first is the default; () if the data have no splits
    SHOTS: int  # most examples; 0: none
    EXACT: bool  # whether there is an exact variant
    SCORE: bool  # whether there is a variant by likelihood
    LINES: bool  # whether the file of results has a record in each line, with the model's name as model_id

    def load(self, folder: Path, variant: Variant) -> list[Item]:
        """All items in a fixed order."""
        ...

    def prompt(self, info: Mapping[str, Any]) -> str:
        """The words of the prompt, with places in braces."""
        ...

    def steps(self, item: Item) -> Steps:
        """Yields Generate and Rank, gets a Result or a Ranking for each."""
        ...

    def score(self, item: Item, prediction: Mapping[str, Any]) -> dict[str, Part]:
        """As Task.score."""
        ...

    def finish(self, items: Sequence[Item], predictions: Sequence[Mapping[str, Any]]) -> Finish:
        """Parts in metrics that need all items."""
        ...

    def results(self, items: Sequence[Item], predictions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
        """The file that the data's own evaluation takes; None if there is none."""
        ...
