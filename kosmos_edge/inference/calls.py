"""Calls that differ in their verb, arguments and options, answered in the same passes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, Protocol

from kosmos_edge._native import _core
from kosmos_edge.errors import InvalidRequest, KosmosError
from kosmos_edge.inference import tasks
from kosmos_edge.inference.batching import WITHOUT_PIPES, Verbs, answers_of, failed_answer
from kosmos_edge.inference.local import LocalSession
from kosmos_edge.inference.prompts import PictureSegment
from kosmos_edge.inference.protocol import Session
from kosmos_edge.inference.requests import Call, CallsRequest
from kosmos_edge.options import check_int
from kosmos_edge.results import Ranking, Result

PLANS: dict[str, Callable[..., tasks.Plan]] = {**tasks.PLANS, "generate": tasks.plan_generate}


class Planning(Verbs, Protocol):
    """What calls need from a Model, besides the verbs."""

    def plan_call(self, verb: str, arguments: Mapping[str, Any]) -> Call:
        """See Model.plan_call."""
        ...


def bind_call(model: object, verb: str, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """(the arguments of the verb by name with their defaults, its options)."""
    if verb not in PLANS:
        raise InvalidRequest(f"verb: expected one of {', '.join(PLANS)}, got {verb!r}")
    try:
        bound = inspect.signature(getattr(model, verb)).bind(**arguments)
    except TypeError as error:
        raise InvalidRequest(f"{verb}: {error}") from None
    bound.apply_defaults()
    values = dict(bound.arguments)
    if values.pop("stream"):
        raise InvalidRequest("stream: a batch returns complete results; call the verb itself to stream")
    return values, values.pop("options").copy()


def run_calls(
    model: Planning, session: Session, calls: Iterable[tuple[str, Mapping[str, Any]]], batch_size: int
) -> Generator[Result | Ranking, None, None]:
    """One result per call, in order; see Model.batch_calls."""
    size = check_int("batch_size", batch_size, 1, _core.limits.MAX_BATCH)
    planned = (model.plan_call(verb, arguments) for verb, arguments in calls)
    if isinstance(session, LocalSession):
        worker = session.batch_worker(CallsRequest(model.name), size, WITHOUT_PIPES)
        return answers_of(model, worker, planned, "generate", "yield", _source)
    return _one_by_one(model, session, planned)


def _one_by_one(model: Planning, session: Session, calls: Iterable[Call]) -> Generator[Result | Ranking, None, None]:
    """In a worker process each call is sent by itself; the answers are the same."""
    for call in calls:
        try:
            answer: Result | Ranking = session.run(model.name, call.plan, call.options, _core.CancelToken())
        except KosmosError as error:
            answer = failed_answer(model, "generate", _source(call), error)
        yield answer


def _source(call: Call) -> str | None:
    """The path of the last image, if it is a path."""
    pictures = [segment.source for segment in call.plan.segments if isinstance(segment, PictureSegment)]
    return tasks.source_name(pictures[-1]) if pictures else None
