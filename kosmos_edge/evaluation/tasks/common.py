"""What the tasks share: defaults of a PromptTask, examples, and how answers are cut. Files: records.py."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from kosmos_edge.errors import InvalidRequest
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
