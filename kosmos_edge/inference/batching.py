"""A verb over many images: results keep the order, and a failed image does not end the batch."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kosmos_edge._native import _core
from kosmos_edge.errors import Cancelled, InvalidRequest, KosmosError
from kosmos_edge.images import Opening
from kosmos_edge.inference.batch_worker import BatchWorker, Job
from kosmos_edge.inference.one_by_one import OneByOne, OwnJob
from kosmos_edge.inference.requests import Request, ScoreRequest
from kosmos_edge.inference.tasks import source_name
from kosmos_edge.options import check_int
from kosmos_edge.results import Ranking, Result

# A pipe among many paths is a failed image: waiting for its writer would delay all later images.
WITHOUT_PIPES = Opening(pipes=False)
TASKS = ("caption", "ground", "locate", "describe", "ask", "read", "score", "classify", "reason")
DEFAULT_BATCH = _core.limits.DEFAULT_BATCH


@dataclass(frozen=True, slots=True)
class Settled:
    """An entry of `images` that needs no answer: it comes out in its place, between the answers."""

    value: Any = None


class Verbs(Protocol):
    """What a batch needs from a Model, besides the verbs."""

    @property
    def name(self) -> str:
        """Result.model."""
        ...

    @property
    def device(self) -> str:
        """Result.device."""
        ...

    def request(self, task: str, arguments: Mapping[str, Any]) -> Request:
        """The verb with its arguments and without its image."""
        ...

    def batch_worker(self, request: Request, size: int, opening: Opening) -> Any:
        """Session.batch_worker."""
        ...

    def check_reason(self, values: Mapping[str, Any]) -> None:
        """Raises what reason would raise about these arguments for any image."""
        ...

    @property
    def reason(self) -> Callable[..., Any]:
        """The verb."""
        ...


def run_batch(
    model: Verbs,
    images: Iterable[Any],
    task: str,
    on_error: str,
    batch_size: int,
    arguments: Mapping[str, Any],
    *,
    opening: Opening = WITHOUT_PIPES,
    namer: Callable[[Any], str | None] = source_name,
) -> Generator[Any, None, None]:
    """One Result or Ranking per image, in order; a Settled entry comes out as it is.

    Checks the arguments now; takes images as results are consumed. opening: how images are opened, on separate threads.
    namer: entry -> Result.source of a failed one.
    """
    if task not in TASKS:
        raise InvalidRequest(f"task: expected one of {', '.join(TASKS)}, got {task!r}")
    if on_error not in ("yield", "raise"):
        raise InvalidRequest(f"on_error: expected 'yield' or 'raise', got {on_error!r}")
    if isinstance(images, str | bytes) or not isinstance(images, Iterable):
        raise InvalidRequest(f"images: expected an iterable of images, got {type(images).__name__}")
    if arguments.get("stream"):
        raise InvalidRequest("stream: a batch returns complete results; call the verb itself to stream")
    size = check_int("batch_size", batch_size, 1, _core.limits.MAX_BATCH)
    bound = bind_task(model, task, arguments)
    if task == "reason":  # the second stage waits for the first
        model.check_reason(bound)
        return answers_of(model, OneByOne(model.reason, arguments, opening), images, task, on_error, namer)
    request = model.request(task, bound)
    worker = model.batch_worker(request, size, opening)
    failing = "score" if isinstance(request, ScoreRequest) else task  # what a failed image gives
    return answers_of(model, worker, images, failing, on_error, namer)


def bind_task(model: Verbs, task: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of the verb by name, with defaults; the image is None."""
    try:
        bound = inspect.signature(getattr(model, task)).bind(None, **arguments)
    except TypeError as error:
        raise InvalidRequest(f"{task}: {error}") from None
    bound.apply_defaults()
    return bound.arguments


def answers_of(
    model: Verbs,
    worker: BatchWorker | OneByOne,
    images: Iterable[Any],
    task: str,
    on_error: str,
    namer: Callable[[Any], str | None],
) -> Generator[Any, None, None]:
    """Results of a worker. Keeps worker.ahead images queued; a slow source of images delays results by little."""
    jobs: deque[Job | OwnJob | Settled] = deque()
    source = iter(images)
    more = True
    given: Any = None
    job: Job | OwnJob | Settled | None = None
    error: BaseException | None = None
    broken: Exception | None = None
    try:
        with worker:
            while True:
                while more and len(jobs) < worker.ahead and not (jobs and _is_done(jobs[0])):
                    try:
                        given = next(source)
                        jobs.append(given if isinstance(given, Settled) else worker.submit(given))
                    except StopIteration:
                        more = False
                    except Exception as raised:  # from the caller's iterable: raised after the results before it
                        more, broken = False, raised
                if not jobs:
                    break
                job = jobs.popleft()
                if isinstance(job, Settled):
                    yield job
                    continue
                error = worker.wait(job)  # type: ignore[arg-type]  # a job of its own
                if isinstance(error, KosmosError) and not isinstance(error, Cancelled) and on_error == "yield":
                    yield failed_answer(model, task, namer(job.source), error)
                elif error is not None:
                    raise error
                else:
                    assert job.result is not None
                    yield job.result
        if broken is not None:
            raise broken
    finally:
        given = None
        del (
            worker,
            jobs,
            job,
            error,
            broken,
            given,
        )  # an error that is raised holds this frame, which must not hold the model


def _is_done(job: Job | OwnJob | Settled) -> bool:
    return isinstance(job, Settled) or job.done.is_set()


def failed_answer(model: Verbs, task: str, source: str | None, error: KosmosError) -> Result | Ranking:
    """The result for an image that failed."""
    if task == "score":
        return Ranking(device=model.device, model=model.name, source=source, error=error)
    return Result("", device=model.device, model=model.name, source=source, finish_reason="error", error=error)
