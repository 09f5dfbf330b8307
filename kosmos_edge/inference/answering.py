"""One answer in the making: what the engine is asked, what watches its tokens, and how they become a Result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kosmos_edge._native import _core
from kosmos_edge.inference.answer import Reader, StreamReader
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.inference.running import is_cancelled
from kosmos_edge.inference.tasks import Plan
from kosmos_edge.options import Options
from kosmos_edge.results import Box, OnEvent, Result, Timings


@dataclass(slots=True)
class Prompt:
    """A plan's segments in the engine's form, and what became known on the way."""

    segments: list[tuple[str, Any]]
    last: EncodedImage | None = None  # the picture that the answer's boxes refer to
    box: Box | None = None  # the last box given, snapped
    decode_image_ms: float = 0.0
    ahead_ms: float = 0.0  # the part of it that was spent before the call
    encode_ms: float = 0.0
    notes: list[str] = field(default_factory=list)  # what should be known about the request


class Answering:
    """The engine takes segments, params and on_token, alone or in a batch; result() makes a Result of what it gave."""

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
    ) -> None:
        """emit: where events go. start: when the call began, by time.perf_counter."""
        self._engine, self._name, self._plan, self._options = engine, name, plan, options
        self._token, self._emit, self._prompt, self._reader, self._start = token, emit, prompt, reader, start
        grounding = engine.info["grounding"] if plan.one_object else None  # has the tags around boxes
        self._object = (grounding["object_begin"], grounding["object_end"]) if grounding else None
        exact = bool(options.choices)
        self._kept = _core.kept_ids(engine, engine.prompt_ids(prompt.segments), plan.keep_prompt, exact)
        if exact:
            _core.check_choices(engine, self._kept, options.choices, options.stop, options.max_tokens)
        watched = emit is not None or plan.one_object or bool(options.stop)
        self._stream = StreamReader(reader, self._kept, options.stop, options.min_score) if watched else None
        self._tokens = 0
        self._stopped = False
        self.segments = prompt.segments
        self.params = _params(options)
        self.params.logprobs |= plan.one_object  # found_score is the first token's
        self.on_token: Callable[[int, float], bool] | None = self._watch if watched else None

    def run(self, token: _core.CancelToken) -> Result:
        """The answer, computed alone."""
        return self.result(self._engine.generate(self.segments, self.params, self.on_token, token))

    def _watch(self, token_id: int, logprob: float) -> bool:
        if is_cancelled(self._options.cancel):
            self._token.cancel()
        self._tokens += 1
        if self._stream is not None:
            if self._stream.push(token_id, logprob):
                self._stopped = True
                return False
            if self._emit is not None:
                for event in self._stream.events():
                    self._emit(event)
        if self._object is None:
            return True
        begin, end = self._object
        return token_id != end and (self._tokens > 1 or token_id == begin)

    def result(self, generation: _core.Generation) -> Result:
        """The Result of the engine's answer; the last events are emitted."""
        text, entities = self._reader.read(self._kept, generation.token_ids, generation.logprobs, self._options.stop)
        ids, logprobs = generation.token_ids, generation.logprobs
        if self._plan.one_object and not entities:  # the token that showed that no box begins says nothing more
            ids, logprobs = [], []
            text = self._reader.read(self._kept, ids, logprobs)[0]
        if self._stream is not None and self._emit is not None:
            for event in self._stream.finish(ids, logprobs):
                self._emit(event)
        kept = [entity for entity in entities if entity.reaches(self._options.min_score)]
        reason = "stop_string" if self._stopped else "stop" if self._plan.one_object else generation.finish_reason
        result = Result(
            text=text,
            entities=kept,
            token_ids=list(generation.token_ids),
            logprobs=list(generation.logprobs) if self._options.logprobs else None,
            finish_reason=reason,
            device=self._engine.device,
            model=self._name,
            box=self._prompt.box if self._plan.task == "describe" else None,
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
            ),
        )
        if self._prompt.last is not None:
            result.width, result.height = self._prompt.last.width, self._prompt.last.height
            result.notes, result.source = list(self._prompt.last.notes), self._prompt.last.source
        result.notes += self._prompt.notes
        result.notes += self._plan.notes
        if self._plan.one_object and not entities:
            result.notes.append("the model gave no box for the phrase")
        result.notes += [
            f"{e.phrase!r} left out: its score {e.sureness:.3f} is below min_score {self._options.min_score:g}"
            for e in entities
            if e.sureness is not None and not e.reaches(self._options.min_score)
        ]
        return result


def _params(options: Options) -> _core.GenerateParams:
    params = _core.GenerateParams()
    params.max_tokens = options.max_tokens
    params.temperature = options.temperature
    params.top_k = options.top_k
    params.top_p = options.top_p
    params.seed = options.seed
    params.num_beams = options.num_beams
    params.length_penalty = options.length_penalty
    params.no_repeat_ngram_size = options.no_repeat_ngram_size
    # options.stop is watched for here, in the text without tags; params.stop would look at the text with them
    params.choices = list(options.choices)
    params.grammar = options.grammar
    params.logprobs = options.logprobs
    return params
