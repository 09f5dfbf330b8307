"""A verb over many pictures: order kept, one bad picture does not end the rest."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kosmos_edge.errors import Cancelled, InvalidRequest, KosmosError
from kosmos_edge.results import Ranking, Result
from kosmos_edge.tasks import source_name

if TYPE_CHECKING:
    from kosmos_edge.model import Model

TASKS = ("caption", "ground", "locate", "describe", "ask", "score")


def run_batch(
    model: Model, images: Iterable[Any], task: str, on_error: str, arguments: Mapping[str, Any]
) -> Iterator[Result | Ranking]:
    """Checks the arguments now; the pictures are taken as the results are asked for."""
    if task not in TASKS:
        raise InvalidRequest(f"task: expected one of {', '.join(TASKS)}, got {task!r}")
    if on_error not in ("yield", "raise"):
        raise InvalidRequest(f"on_error: expected 'yield' or 'raise', got {on_error!r}")
    if isinstance(images, str | bytes) or not isinstance(images, Iterable):
        raise InvalidRequest(f"images: expected an iterable of pictures, got {type(images).__name__}")
    if arguments.get("stream"):
        raise InvalidRequest("stream: a batch gives whole results; call the verb itself to stream")
    check_task(model, task, arguments)
    return _results(model, images, task, on_error, arguments)


def check_task(model: Model, task: str, arguments: Mapping[str, Any]) -> None:
    """Raises what the verb would raise about its arguments, whatever the picture."""
    try:
        bound = inspect.signature(getattr(model, task)).bind(None, **arguments)
    except TypeError as error:
        raise InvalidRequest(f"{task}: {error}") from None
    bound.apply_defaults()
    model.check_request(task, bound.arguments)


def _results(
    model: Model, images: Iterable[Any], task: str, on_error: str, arguments: Mapping[str, Any]
) -> Iterator[Result | Ranking]:
    verb = getattr(model, task)
    for image in images:
        try:
            result = verb(image, **arguments)
        except Cancelled:
            raise
        except KosmosError as error:
            if on_error == "raise":
                raise
            result = failed_answer(model, task, source_name(image), error)
        yield result


def failed_answer(model: Model, task: str, source: str | None, error: KosmosError) -> Result | Ranking:
    """What stands for the answer about a picture that has none."""
    if task == "score":
        return Ranking(device=model.device, model=model.name, source=source, error=error)
    return Result("", device=model.device, model=model.name, source=source, finish_reason="error", error=error)
