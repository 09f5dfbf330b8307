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
    try:
        bound = inspect.signature(getattr(model, task)).bind(None, **arguments)
    except TypeError as error:
        raise InvalidRequest(f"batch of {task}: {error}") from None
    bound.apply_defaults()
    model.check_request(task, bound.arguments)
    return _results(model, images, task, on_error, arguments)


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
            result = _failed(model, task, image, error)
        yield result


def _failed(model: Model, task: str, image: Any, error: KosmosError) -> Result | Ranking:
    device, name, source = model.device, model.name, source_name(image)
    if task == "score":
        return Ranking(device=device, model=name, source=source, error=error)
    return Result("", device=device, model=name, source=source, finish_reason="error", error=error)
