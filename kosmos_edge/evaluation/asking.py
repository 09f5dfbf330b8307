"""Asks a model what a PromptTask's items ask: rounds over many items, so that their answers share batches.

An image that several items in a round show is encoded once, and what their prompts begin with is computed once.
"""

from __future__ import annotations

import itertools
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kosmos_edge.errors import ContextTooLong, InvalidRequest, KosmosError
from kosmos_edge.evaluation.task import Generate, Item, PromptTask, Rank, Steps
from kosmos_edge.results import Ranking, Result

_ROUND = 8  # batches that a round fills
_KEPT = 64  # encoded images


class Asked(Protocol):
    """What asking needs of a Model."""

    def batch_calls(
        self, calls: Iterable[tuple[str, Mapping[str, Any]]], *, batch_size: int = 1
    ) -> Iterator[Result | Ranking]:
        """See Model.batch_calls."""
        ...

    def score_segments(
        self, segments: Sequence[Any], texts: Sequence[str], *, raw: bool = False, normalize: Any = "sum"
    ) -> Ranking:
        """See Model.score_segments."""
        ...

    def encode(self, image: Any) -> Any:
        """See Model.encode."""
        ...


@dataclass(slots=True)
class Answered:
    """What came of an item."""

    prediction: dict[str, Any]
    error: str | None
    ms: float
    prompts: list[str] | None = None  # as asked, <image> for an image and <box> for boxes


@dataclass(slots=True, eq=False)
class _Open:
    """An item that is being asked about."""

    item: Item
    steps: Steps
    step: Generate | Rank | None = None  # None: all is answered
    prediction: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    ms: float = 0.0
    prompts: list[str] = field(default_factory=list)

    def next(self, answer: Result | Ranking | None) -> None:
        """Takes the answer to the step, goes on to the next one."""
        try:
            self.step = next(self.steps) if answer is None else self.steps.send(answer)
        except StopIteration as end:
            self.step, self.prediction = None, end.value
        else:
            self.prompts.append(prompt_of(self.step))

    def take(self, answer: Result | Ranking) -> None:
        """As next; a failed image ends the item, a prompt that does not fit may be asked again."""
        self.ms += answer.timings.total_ms
        if answer.error is None:
            self.next(answer)
        elif isinstance(answer.error, ContextTooLong):
            self.refuse(answer.error)
        else:
            self.fail(answer.error)

    def refuse(self, error: ContextTooLong) -> None:
        """Lets the item ask for less; one that does not take the error ends."""
        try:
            self.step = self.steps.throw(error)
        except ContextTooLong:
            self.fail(error)
        except StopIteration as end:
            self.step, self.prediction = None, end.value
        else:
            self.prompts[-1] = prompt_of(self.step)

    def fail(self, error: KosmosError) -> None:
        """Ends the item with an empty prediction."""
        self.steps.close()
        self.step, self.prediction, self.error = None, {}, str(error)


def answers(
    task: PromptTask, items: Sequence[Item], model: Asked, batch_size: int, arguments: Mapping[str, Any]
) -> Iterator[tuple[Item, Answered]]:
    """(item, what came of it), in order. arguments: for every Generate, such as max_tokens."""
    pictures = _Pictures(model)
    for start in range(0, len(items), _ROUND * batch_size):
        opened = [_Open(item, task.steps(item)) for item in items[start : start + _ROUND * batch_size]]
        for one in opened:
            one.next(None)
        told = 0
        while told < len(opened):
            waiting = [one for one in opened[told:] if one.step is not None]
            pictures.expect(one.step for one in waiting)
            for _ in _ask(waiting, model, pictures, batch_size, arguments):
                while told < len(opened) and opened[told].step is None:  # as early as the order allows
                    one = opened[told]
                    told += 1
                    yield one.item, Answered(one.prediction, one.error, one.ms, one.prompts)
            while told < len(opened) and opened[told].step is None:
                one = opened[told]
                told += 1
                yield one.item, Answered(one.prediction, one.error, one.ms, one.prompts)


def _ask(
    waiting: Sequence[_Open], model: Asked, pictures: _Pictures, batch_size: int, arguments: Mapping[str, Any]
) -> Iterator[None]:
    """One step of each."""
    for ranks, group in itertools.groupby(waiting, lambda one: isinstance(one.step, Rank)):
        members = list(group)
        if ranks:
            for one in members:
                while isinstance(one.step, Rank):  # one after another: rankings of an item often begin alike
                    _rank(one, model, pictures)
                yield
            continue
        ready = []
        for one in members:
            assert isinstance(one.step, Generate)
            try:
                ready.append((one, (one.step.verb, {**pictures.shown(one.step.arguments), **arguments})))
            except KosmosError as error:
                if isinstance(error, InvalidRequest):
                    raise
                one.fail(error)
        found = model.batch_calls([call for _, call in ready], batch_size=batch_size)
        taken = 0
        try:
            for (one, _), answer in zip(ready, found, strict=True):
                one.take(answer)
                taken += 1
                yield
        except InvalidRequest as error:
            raise InvalidRequest(f"item {ready[taken][0].item.id}: {error}") from error


def _rank(one: _Open, model: Asked, pictures: _Pictures) -> None:
    step = one.step
    assert isinstance(step, Rank)
    try:
        segments = pictures.encoded(step.segments)
        one.take(model.score_segments(segments, list(step.texts), normalize=step.normalize))
    except ContextTooLong as error:
        one.refuse(error)
    except KosmosError as error:
        if isinstance(error, InvalidRequest):  # the task's mistake or the model's limit, not the image's
            raise InvalidRequest(f"item {one.item.id}: {error}") from error
        one.fail(error)


class _Pictures:
    """Encodes images that are shown more than once; the least recently used are dropped first."""

    def __init__(self, model: Asked) -> None:
        self._model = model
        self._shown: Counter[Path] = Counter()
        self._kept: OrderedDict[Path, Any] = OrderedDict()

    def expect(self, steps: Iterable[Generate | Rank | None]) -> None:
        """Counts the images of a round."""
        self._shown = Counter(path for step in steps if step is not None for path in _paths(step))

    def shown(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with encoded images where that saves work."""
        out = dict(arguments)
        if "image" in out:
            out["image"] = self._one(out["image"])
        if "segments" in out:
            out["segments"] = [self._one(segment) for segment in out["segments"]]
        if out.get("examples"):
            out["examples"] = [(self._one(image), *rest) for image, *rest in out["examples"]]
        return out

    def encoded(self, segments: Sequence[Any]) -> list[Any]:
        """The segments with all their images encoded."""
        return [self._one(segment, always=True) for segment in segments]

    def _one(self, segment: Any, always: bool = False) -> Any:
        if not isinstance(segment, Path) or not (always or self._shown[segment] > 1 or segment in self._kept):
            return segment
        if segment not in self._kept:
            self._kept[segment] = self._model.encode(segment)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(segment)
        return self._kept[segment]


def _paths(step: Generate | Rank) -> Iterator[Path]:
    arguments = {"segments": step.segments} if isinstance(step, Rank) else step.arguments
    shown = [*arguments.get("segments", ()), *(image for image, *_ in arguments.get("examples", ()))]
    yield from (one for one in [*shown, arguments.get("image")] if isinstance(one, Path))


def prompt_of(step: Generate | Rank) -> str:
    """The prompt for people: what is asked, with the texts that are ranked behind it."""
    if isinstance(step, Rank):
        return _written(step.segments) + f" {{{'|'.join(step.texts)}}}"
    if "segments" in step.arguments:
        return _written(step.arguments["segments"])
    words = {name: value for name, value in step.arguments.items() if isinstance(value, str)}
    template = str(words.pop("template", step.verb))
    tag = "<grounding>" if step.verb == "locate" else ""  # which is no part of its template
    return f"<image>{tag}" + " ".join([template, *(f"{name}={value!r}" for name, value in words.items())])


def _written(segments: Sequence[Any]) -> str:
    kinds = ("<image>" if isinstance(s, Path) else s if isinstance(s, str) else "<box>" for s in segments)
    return "".join(kinds)
