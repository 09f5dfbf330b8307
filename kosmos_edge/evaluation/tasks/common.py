"""What the tasks share: defaults of a PromptTask, files of data sets, examples, and how answers are cut."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.pages import read_text
from kosmos_edge.evaluation.statistics import Metric, Part
from kosmos_edge.evaluation.task import Finish, Item, Variant

T = TypeVar("T")
_SPARE = 50  # entries drawn beyond those that are wanted, since some may show the item's own picture
ACCURACY = Metric("accuracy", "right answers / all")


class Prompted:
    """Defaults of a PromptTask."""

    NAME = ""
    SUMMARY = ""
    FILES = ""
    METRICS: tuple[Metric, ...] = (ACCURACY,)
    SPLITS: tuple[str, ...] = ()
    SHOTS = 0
    EXACT = False
    SCORE = False
    LINES = False
    PROMPT = ""

    def prompt(self, info: Mapping[str, Any]) -> str:
        """The words of the prompt; the same for every model."""
        return self.PROMPT

    def finish(self, items: Sequence[Item], predictions: Sequence[Mapping[str, Any]]) -> Finish:
        """Nothing but what score gives."""
        return Finish(())

    def results(self, items: Sequence[Item], predictions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
        """No file."""
        return None

    def split(self, variant: Variant) -> str:
        """The split that is meant."""
        return variant.split or self.SPLITS[0]

    def score(self, item: Item, prediction: Mapping[str, Any]) -> dict[str, Part]:
        """Whether the prediction's choice is the truth."""
        return {"accuracy": (float(prediction.get("choice") == item.truth), 1.0)}


# ---- files


def find(folder: Path, *names: str) -> Path:
    """The first of these files or folders that is there; InvalidRequest says what was looked for."""
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise InvalidRequest(f"--data: {folder} has none of {', '.join(names)}")


def read_json(path: Path) -> Any:
    """A JSON file's value."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{path}: not JSON: {error}") from None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    out = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            try:
                record = json.loads(line)
            except ValueError as error:
                raise InvalidRequest(f"{path}, line {number}: not JSON: {error}") from None
            if not isinstance(record, dict):
                raise InvalidRequest(f"{path}, line {number}: expected an object")
            out.append(record)
    return out


class reading:
    """Turns what is missing in a file's records into InvalidRequest that names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyError | TypeError | IndexError | AttributeError | ValueError):
            what = f"there is no {error}" if isinstance(error, KeyError) else str(error)
            raise InvalidRequest(f"{self._path}: a record is not as expected: {what}") from error


def beside(folder: Path, *places: str) -> Path:
    """The first of these paths that is there, else the first of all, whose absence is then said of its item."""
    return next((folder / place for place in places if (folder / place).exists()), folder / places[0])


# ---- examples


def draw(pool: Sequence[T], count: int, variant: Variant, item: str, same: Any) -> list[T]:
    """`count` entries of the pool, drawn by the seed and the item's id; none for which same(entry) is true."""
    if not count:
        return []
    source = random.Random(f"{variant.seed}:{item}")
    out: list[T] = []
    for place in source.sample(range(len(pool)), min(len(pool), count + _SPARE)):
        if len(out) == count:
            break
        if not same(pool[place]):
            out.append(pool[place])
    if len(out) < count:
        raise InvalidRequest(f"--shots {count}: the training split has only {len(out)} examples for item {item}")
    return out


# ---- answers


def first_line(text: str) -> str:
    """Up to the first line break, without blanks around."""
    return text.lstrip().partition("\n")[0].strip()


def short(text: str) -> str:
    """A short answer: the first line without one final full stop."""
    line = first_line(text)
    return line[:-1].rstrip() if line.endswith(".") else line


def answer(result: Any) -> dict[str, Any]:
    """What is kept of a Result."""
    return {"text": result.text, "finish_reason": result.finish_reason}


def sums(ranking: Any) -> dict[str, float]:
    """ln p of each text of a Ranking."""
    return {row.text: row.logprob_sum for row in ranking.ranking}


def best(scores: Mapping[str, float]) -> str:
    """The text with the highest score, the first of equals."""
    return max(scores, key=lambda text: scores[text])
