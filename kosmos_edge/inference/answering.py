"""Computes one answer: the engine's request, the watching of tokens, and the Result."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from kosmos_edge._native import _core
from kosmos_edge.inference.answer import Reader
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.inference.guides import Relevance
from kosmos_edge.inference.running import is_cancelled
from kosmos_edge.inference.tasks import Plan
from kosmos_edge.options import Options
from kosmos_edge.results import Box, Entity, EntityEvent, Line, OnEvent, Result, TextDelta, Timings, TokenLogprob


@dataclass(slots=True)
class Prompt:
    """A plan's segments as the engine takes them, and what encoding them has found."""

    segments: list[tuple[str, Any]]
    last: EncodedImage | None = None  # the image that the answer's boxes refer to
    box: Box | None = None  # the last box given, snapped
    decode_image_ms: float = 0.0
    ahead_ms: float = 0.0  # the part of it before the call
    encode_ms: float = 0.0


class Answering:
    """A native run, alone or in a batch, with what a Result contains besides the answer."""

    def __init__(
        self,
        engine: _core.Engine,
        name: str,
        plan: Plan,
        options: Options,
        token: _core.CancelToken,
        emit: OnEvent | None,
        prompt: Prompt,
        reader: Reader,
        start: float,
        relevance: Relevance | None = None,
    ) -> None:
        """emit: where events go. start: when the call began, by time.perf_counter. relevance: of the options' guide."""
        self._engine, self._name, self._plan, self._options = engine, name, plan, options
        self._prompt, self._reader, self._start = prompt, reader, start
        watched = emit is not None or plan.one_object or bool(options.stop)
        self.native = _core.AnswerRun(
            engine,
            prompt.segments,
            _params(options, relevance),
            options.stop,
            plan.keep_prompt,
            plan.one_object,
            plan.task == "read",
            plan.markdown,
            options.min_score,
            plan.notes,
            None if emit is None else partial(_emit, reader, emit),
            partial(_pass_on, options.cancel, token) if watched and options.cancel is not None else None,
        )

    @property
    def joins(self) -> bool:
        """Whether it may be computed in a batch with others: the beams of one answer are a batch already."""
        return self._options.num_beams == 1 and not self._options.contrasts

    def run(self, token: _core.CancelToken) -> Result:
        """The answer, computed alone."""
        return self._result(self.native.run(token))

    def result(self, generation: _core.Generation) -> Result:
        """The Result of an answer computed in a batch; emits the last events."""
        return self._result(self.native.finish(generation))

    def _result(self, reply: _core.AnswerResult) -> Result:
        generation = reply.generation
        entities = [self._reader.entity(found) for found in reply.entities]
        result = Result(
            text=reply.text,
            entities=entities,
            token_ids=list(generation.token_ids),
            logprobs=list(generation.logprobs) if self._options.logprobs else None,
            top_logprobs=self._top(generation),
            finish_reason=reply.finish_reason,
            device=self._engine.device,
            model=self._name,
            box=self._prompt.box if self._plan.task == "describe" else None,
            lines=_lines(entities, reply.cut_line) if self._plan.task == "read" and not self._plan.markdown else None,
            hf=self._reader.read_hf([*generation.prompt_ids, *generation.token_ids]),
            timings=Timings(
                self._prompt.decode_image_ms,
                self._prompt.encode_ms,
                generation.prefill_ms,
                generation.decode_ms,
                (time.perf_counter() - self._start) * 1000 + self._prompt.ahead_ms,
                len(generation.prompt_ids),
                len(generation.token_ids),
                generation.reused,
                generation.passes,
                generation.drafted,
                generation.accepted,
            ),
        )
        if self._prompt.last is not None:
            result.width, result.height = self._prompt.last.width, self._prompt.last.height
            result.notes, result.source = list(self._prompt.last.notes), self._prompt.last.source
        result.notes += reply.notes
        return result

    def _top(self, generation: _core.Generation) -> list[list[TokenLogprob]] | None:
        if self._options.top_logprobs == 0:
            return None
        decode = self._engine.tokenizer.text
        found = [TokenLogprob(number, decode(number), logprob) for number, logprob in generation.top]
        each = max(1, len(found) // max(1, len(generation.token_ids)))  # fewer than asked for in a tiny vocabulary
        return [found[i : i + each] for i in range(0, len(found), each)]


def _lines(entities: list[Entity], cut: bool) -> list[Line]:
    lines = [Line(entity.phrase, entity.boxes[0], entity.phrase_mean) for entity in entities]
    if cut:
        lines[-1] = replace(lines[-1], cut=True)
    return lines


def _emit(reader: Reader, emit: OnEvent, found: str | tuple[Any, ...], tokens: int) -> None:
    emit(TextDelta(found, tokens) if isinstance(found, str) else EntityEvent(reader.entity(found), tokens))


def _pass_on(cancel: Any, token: _core.CancelToken) -> None:
    if is_cancelled(cancel):
        token.cancel()


def _params(options: Options, relevance: Relevance | None = None) -> _core.GenerateParams:
    params = _core.GenerateParams()
    params.max_tokens = options.max_tokens
    params.temperature = options.temperature
    params.top_k = options.top_k
    params.top_p = options.top_p
    params.seed = options.seed
    params.num_beams = options.num_beams
    params.length_penalty = options.length_penalty
    params.no_repeat_ngram_size = options.no_repeat_ngram_size
    params.repetition_penalty = options.repetition_penalty
    # params.stop stays empty: it looks at the text with tags; the native run looks for options.stop in the one without
    params.choices = list(options.choices)
    params.grammar = options.grammar
    params.logprobs = options.logprobs
    params.top_logprobs = options.top_logprobs
    params.degeneration_penalty = options.degeneration_penalty
    params.image_weight = options.image_weight
    params.guided_by_self = options.guide == "self"
    params.set_relevance(relevance)
    return params
