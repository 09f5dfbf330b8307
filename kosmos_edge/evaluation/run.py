"""Runs a task on a model: images in batches, answers into the log, and their scores."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeGuard, cast

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation import asking
from kosmos_edge.evaluation.asking import Answered
from kosmos_edge.evaluation.log import Log
from kosmos_edge.evaluation.statistics import Part
from kosmos_edge.evaluation.task import Item, PromptTask, Task, Variant
from kosmos_edge.results import Ranking, Result

Progress = Callable[[int, int, str], None]  # items done, items in all, the item


class Batching(asking.Asked, Protocol):
    """What a run needs of a Model."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    @property
    def model_info(self) -> dict[str, Any]:
        """See Model.model_info."""
        ...

    @property
    def metadata(self) -> dict[str, Any]:
        """The file's keys."""
        ...

    def batch(
        self, images: Iterable[Any], task: Any = "caption", *, batch_size: int = 1, **arguments: Any
    ) -> Iterator[Result | Ranking]:
        """See Model.batch."""
        ...


@dataclass(slots=True)
class Run:
    """What one type achieved, with one draw of few-shot examples."""

    type: str
    model: str
    prompt: str
    seed: int = 0  # of the examples
    scores: list[dict[str, Part]] = field(default_factory=list)  # by item
    groups: list[str | tuple[str, ...]] = field(default_factory=list)  # by item
    failed: list[tuple[str, str]] = field(default_factory=list)  # (item, why); they count as empty answers
    cut: int = 0  # answers that ended at the limit of tokens
    seconds: float = 0.0  # of this run's computing
    computed: int = 0  # items that were not in the log
    reasons: dict[str, str] = field(default_factory=dict)  # metric -> why it has no value
    predictions: list[dict[str, Any]] = field(default_factory=list)  # by item, of a PromptTask


@dataclass(frozen=True, slots=True)
class Settings:
    """What all types of a run share."""

    data: str
    seed: int = 0  # of the subset, of the intervals, and of the first draw of examples
    limit: int | None = None
    batch_size: int = 8
    arguments: Mapping[str, Any] = field(default_factory=dict)  # for every verb, such as max_tokens
    variant: Variant = field(default_factory=Variant)

    @property
    def described(self) -> dict[str, Any]:
        """The variant as the log and the report have it; {} for the usual one."""
        usual, ours = asdict(Variant()), asdict(self.variant)
        return {name: value for name, value in ours.items() if value != usual[name] and name != "seed"} | (
            {"shots_seed": self.variant.seed} if self.variant.shots else {}
        )

    def label(self, type: str) -> str:
        """The name of the type in the log: draws of examples behind the first have their seed in it."""
        return type if self.variant.seed == self.seed else f"{type} seed {self.variant.seed}"


def choose(items: list[Item], limit: int | None, seed: int) -> list[Item]:
    """All items, or the first `limit` of a shuffle by `seed`, in the order of the data.

    InvalidRequest if two of them have one id, which the log could not tell apart.
    """
    ids: set[str] = set()
    for item in items:
        if item.id in ids:
            raise InvalidRequest(f"--data: two items have the id {item.id}")
        ids.add(item.id)
    if limit is None or limit >= len(items):
        return items
    order = list(range(len(items)))
    random.Random(seed).shuffle(order)
    return [items[i] for i in sorted(order[:limit])]


def run(
    task: Task | PromptTask,
    items: Sequence[Item],
    model: Batching,
    type: str,
    log: Log,
    settings: Settings,
    progress: Progress,
) -> Run:
    """Answers of the model to all items, from the log where it has them."""
    out = Run(type, model.name, task.prompt(model.model_info), settings.variant.seed)
    label = settings.label(type)
    log.begin(
        {
            "task": task.NAME,
            "type": label,
            "model": model.name,
            "source": _source(model.metadata),
            "prompt": out.prompt,
            "arguments": dict(settings.arguments),
            **settings.described,
        }
    )
    predictions = {item.id: known for item in items if (known := log.finished(label, item.id)) is not None}
    if is_prompt_task(task):
        for item in items:
            if item.id in predictions and "words" not in predictions[item.id]:  # whose prompt was cut
                log.check_prompt(label, item.id, asking.prompt_of(next(task.steps(item))))
    todo = [item for item in items if item.id not in predictions]
    done = len(predictions)
    start = time.perf_counter()
    for item, answered in _answers(task, todo, model, settings):
        out.seconds += time.perf_counter() - start
        predictions[item.id] = answered.prediction
        log.add(_line(task, item, answered, label))
        if answered.error is not None:
            out.failed.append((item.id, answered.error))
        out.computed += 1
        done += 1
        progress(done, len(items), item.id)
        start = time.perf_counter()
    for item in items:
        out.scores.append(task.score(item, predictions[item.id]))
        out.groups.append(item.group)
        out.cut += predictions[item.id].get("finish_reason") == "length"
    if is_prompt_task(task):
        out.predictions = [predictions[item.id] for item in items]
        finish = task.finish(items, out.predictions)
        out.reasons = dict(finish.reasons)
        for parts, more in zip(out.scores, finish.parts, strict=bool(finish.parts)):
            parts.update(more)
    return out


def is_prompt_task(task: Task | PromptTask) -> TypeGuard[PromptTask]:
    """Which of the two kinds it is."""
    return hasattr(task, "steps")


def _answers(
    task: Task | PromptTask, items: Sequence[Item], model: Batching, settings: Settings
) -> Iterator[tuple[Item, Answered]]:
    if is_prompt_task(task):
        yield from asking.answers(task, items, model, settings.batch_size, settings.arguments)
        return
    verbal = cast(Task, task)
    for (verb, given), group in itertools.groupby(items, verbal.request):
        members = list(group)
        answers = model.batch(
            [item.image for item in members], verb, batch_size=settings.batch_size, **{**settings.arguments, **given}
        )
        for item, answer in zip(members, answers, strict=True):
            if not isinstance(answer, Result):
                raise InvalidRequest(f"{task.NAME}: the verb {verb} gives no text")
            error = None if answer.error is None else str(answer.error)
            yield item, Answered(verbal.predict(answer), error, answer.timings.total_ms)


def _line(task: Task | PromptTask, item: Item, answered: Answered, type: str) -> dict[str, Any]:
    """The item's line of the log. A failed image counts as an empty answer."""
    line = {
        "type": type,
        "id": item.id,
        "prediction": answered.prediction,
        "scores": {name: list(part) for name, part in task.score(item, answered.prediction).items()},
        "error": answered.error,
        "ms": round(answered.ms, 3),
    }
    return line if answered.prompts is None else line | {"prompts": answered.prompts}


def _source(metadata: Mapping[str, Any]) -> list[str]:
    """The hashes of the files that the model was converted from."""
    found = metadata.get(f"{metadata.get('general.architecture')}.source.sha256")
    return [str(value) for value in found] if isinstance(found, list) else []
