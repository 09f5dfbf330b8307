"""All questions of a file, one after another: each answer is a line of a log, from which a later run goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kosmos_edge.apps.endpoint import Endpoint
from kosmos_edge.apps.errors import EndpointError
from kosmos_edge.apps.index import IndexDamaged
from kosmos_edge.apps.pica.asking import Pica
from kosmos_edge.apps.pica.questions import Asked
from kosmos_edge.errors import Cancelled, DeviceUnavailable, Forked, InvalidRequest, KosmosError, WorkerDied
from kosmos_edge.evaluation.log import Log
from kosmos_edge.evaluation.metrics.vqa import accuracy
from kosmos_edge.evaluation.statistics import Interval, Part, bootstrap, ratio
from kosmos_edge.evaluation.tasks.common import short

TYPE = "pica"  # of the log's lines
REFUSALS = 5  # of the endpoint in succession, after which the run ends
OnQuestion = Callable[[Asked, str | None], None]  # behind each that is not in the log; what failed
_OF_THE_RUN = (Cancelled, WorkerDied, Forked, DeviceUnavailable, IndexDamaged)  # no question's fault


@dataclass(slots=True)
class FileOfAnswers:
    """What became of the questions."""

    questions: int
    known: int = 0  # answered by an earlier run
    answered: int = 0  # by this one
    failed: list[tuple[str, str]] = field(default_factory=list)  # (question, why); they count as empty answers
    left: int = 0  # not asked: the limit of tokens was reached before
    tokens: int | None = 0  # of this run's requests and replies; None: the endpoint does not tell all
    vqa_accuracy: float | None = None  # 0..1, of the questions with people's answers; None without, or with some left
    ci95: Interval | None = None
    scored: int = 0
    answers: dict[str, str] = field(default_factory=dict)  # by question

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the answers."""
        names = ("questions", "known", "answered", "left", "tokens", "vqa_accuracy", "ci95", "scored")
        return {name: getattr(self, name) for name in names} | {
            "failed": [{"id": id, "error": why} for id, why in self.failed]
        }


def answer_all(
    pica: Pica,
    endpoint: Endpoint,
    questions: Sequence[Asked],
    log: Log,
    *,
    api: Literal["completions", "chat"] = "completions",
    max_tokens: int | None = None,
    seconds: float = 300.0,
    max_tokens_total: int | None = None,
    on_question: OnQuestion = lambda asked, error: None,
) -> FileOfAnswers:
    """Asks every question that the log does not answer. api, max_tokens: as Pica.ask takes them; seconds: of one
    question.

    max_tokens_total: no question is begun when this run's requests and replies had so many tokens. A question that
    fails is a line with its error, and a later run asks it again. EndpointError when the endpoint refused REFUSALS
    questions in succession; InvalidRequest for the log of another run, or for a limit that cannot be held.
    """
    head = {**pica.described, "llm": endpoint.model, "api": api, "max_tokens": max_tokens}
    log.begin({"type": TYPE, **head})
    done, refused = FileOfAnswers(len(questions)), 0
    for asked in questions:
        found = log.finished(TYPE, asked.id)
        if found is not None:
            _check_same(log, asked, found)
            done.known += 1
            done.answers[asked.id] = str(found["answer"])
            continue
        if max_tokens_total is not None and done.tokens is not None and done.tokens >= max_tokens_total:
            done.left += 1
            continue
        line, error = _ask(pica, endpoint, asked, api, max_tokens, seconds)
        tokens = line["prediction"].get("tokens")
        if error is None:
            if tokens is None and max_tokens_total is not None:
                raise InvalidRequest(f"{endpoint.url} tells no usage: a limit of all tokens cannot be held")
            done.tokens = None if tokens is None or done.tokens is None else done.tokens + tokens
            done.answered += 1
            done.answers[asked.id] = line["prediction"]["answer"]
        else:
            done.failed.append((asked.id, line["error"]))
        log.add(line)
        on_question(asked, line["error"])
        refused = refused + 1 if isinstance(error, EndpointError) else 0
        if refused == REFUSALS:
            raise EndpointError(f"{REFUSALS} questions in succession failed, the last one: {error}")
    _score(done, questions)
    return done


def _ask(
    pica: Pica,
    endpoint: Endpoint,
    asked: Asked,
    api: Literal["completions", "chat"],
    max_tokens: int | None,
    seconds: float,
) -> tuple[dict[str, Any], KosmosError | None]:
    """(the question's line of the log, what failed)"""
    begun = time.perf_counter()
    error: KosmosError | None = None
    prediction: dict[str, Any] = {"image": asked.image, "question": asked.question}
    scores = {}
    try:
        answer = pica.ask(endpoint, asked.image, asked.question, api=api, max_tokens=max_tokens, seconds=seconds)
    except _OF_THE_RUN:
        raise
    except KosmosError as caught:
        error = caught
    else:
        prediction |= answer.to_dict()
        del prediction["prompts"]  # sixteen examples each; --show-prompt has them
        if asked.answers is not None:
            scores = {"vqa_accuracy": accuracy(short(answer.answer), asked.answers)}
    line = {
        "type": TYPE,
        "id": asked.id,
        "prediction": prediction,
        "scores": scores,
        "error": None if error is None else str(error),
        "ms": round((time.perf_counter() - begun) * 1000, 3),
    }
    return line, error


def _check_same(log: Log, asked: Asked, found: dict[str, Any]) -> None:
    """InvalidRequest if the log is of other questions; the images' folder may have moved."""
    there = found.get("question"), os.path.basename(str(found.get("image")))
    now = asked.question, os.path.basename(asked.image)
    if there != now:
        raise InvalidRequest(f"{log.path} cannot be resumed: {asked.id} asks {there} there, {now} now")


def _score(done: FileOfAnswers, questions: Sequence[Asked]) -> None:
    if done.left:  # of a part the figure would be of another set of questions
        return
    parts: list[Part] = [
        (accuracy(short(done.answers.get(asked.id, "")), asked.answers), 1.0)
        for asked in questions
        if asked.answers is not None
    ]
    done.scored = len(parts)
    done.vqa_accuracy, done.ci95 = ratio(parts), bootstrap(ratio, parts, 0)


__all__ = ["REFUSALS", "FileOfAnswers", "answer_all"]
