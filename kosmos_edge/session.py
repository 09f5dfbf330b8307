"""Running a plan on an engine: pictures are decoded and encoded, segments handed over, the answer read."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kosmos_edge import tasks
from kosmos_edge._native import _core
from kosmos_edge.answer import Reader, StreamReader
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import ImageInput, Picture, open_image
from kosmos_edge.options import Options
from kosmos_edge.prompts import BoxSegment, PictureSegment
from kosmos_edge.results import Box, Done, OnEvent, Ranking, Result, Score, Timings
from kosmos_edge.running import is_cancelled


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """A picture that went through the encoder once; belongs to the model that made it. Threads may share it.

    It also keeps the decoder's keys and values of the last prompt whose first picture it was, with the answer, so that
    the next prompt computes only what comes after their common beginning: every further question about one photo, or
    every further photo after the same examples. The answers are the same, bit for bit. That takes about 0.2 MB per
    position in KOSMOS-2 (two times layers x width x 2 bytes; 13 MB for the 66 positions of a picture and its tags),
    within what load(prefix_cache_mb=...) allows to all encoded images of a model together.
    """

    width: int  # of the upright picture
    height: int
    source: str | None
    notes: tuple[str, ...]
    encode_ms: float
    embedding: _core.ImageEmbedding
    engine: _core.Engine

    @property
    def shape(self) -> tuple[int, int]:
        """(image tokens, decoder width)."""
        return self.embedding.shape

    @property
    def kept_positions(self) -> int:
        """Positions whose keys and values are kept for the next prompt."""
        return self.embedding.kept_positions

    @property
    def kept_bytes(self) -> int:
        """Memory that they take."""
        return self.embedding.kept_bytes

    def forget(self) -> None:
        """Frees that memory; the next prompt computes everything and keeps it again."""
        self.embedding.forget()

    def tobytes(self) -> bytes:
        """The vectors as little-endian float32, row by row."""
        return self.embedding.tobytes()


@dataclass(slots=True)
class _Prompt:
    """A plan's segments in the engine's form, and what became known on the way."""

    segments: list[tuple[str, Any]]
    last: EncodedImage | None = None  # the picture that the answer's boxes refer to
    box: Box | None = None  # the last box given, snapped
    decode_image_ms: float = 0.0
    encode_ms: float = 0.0


class Session:
    """An engine with what every call needs of it; const, so that threads share it."""

    def __init__(self, engine: _core.Engine) -> None:
        self.engine = engine
        find = engine.tokenizer.find
        self._image_end = find("</image>")
        self._phrase_begin, self._phrase_end = find("<phrase>"), find("</phrase>")
        self._object_begin, self._object_end = find("<object>"), find("</object>")
        self._delimiter = find("</delimiter_of_multi_objects/>")
        self._first_location = find("<patch_index_0000>")

    def encode(self, image: ImageInput, token: _core.CancelToken) -> EncodedImage:
        """Decodes and encodes one picture, to be used more than once."""
        return self._encode(image, token, keep=True)[0]

    def run(self, name: str, plan: tasks.Plan, options: Options, token: _core.CancelToken) -> Result:
        """The whole answer."""
        return self._answer(name, plan, options, token, None)

    def stream(self, name: str, plan: tasks.Plan, options: Options, token: _core.CancelToken, emit: OnEvent) -> None:
        """The answer as events, the last of which is Done."""
        emit(Done(self._answer(name, plan, options, token, emit)))

    def score(
        self,
        name: str,
        image: Any,
        texts: Sequence[str],
        before: str,
        after: str,
        normalize: str,
        token: _core.CancelToken,
    ) -> Ranking:
        """Texts by falling likelihood."""
        start = time.perf_counter()
        segments: list[Any] = [] if image is None else [PictureSegment(image)]
        if before.strip():
            segments.append(("text", before))
        if not segments:
            raise InvalidRequest("template: without a picture some words must stand before {text}")
        prompt = self._prompt(segments, token)
        begin = time.perf_counter()
        scoring = self.engine.score(prompt.segments, [[("text", text + after)] for text in texts], token)
        scored = [(row.token_ids, row.logprobs) for row in scoring.continuations]
        end = time.perf_counter()
        sums = [math.fsum(logprobs) for _, logprobs in scored]
        means = [total / max(len(ids), 1) for total, (ids, _) in zip(sums, scored, strict=True)]
        values = sums if normalize == "sum" else means
        top = max(values)
        weights = [math.exp(value - top) for value in values]
        rows = [
            Score(text, value, weight / sum(weights), total, mean, list(ids), list(logprobs))
            for text, value, weight, total, mean, (ids, logprobs) in zip(
                texts, values, weights, sums, means, scored, strict=True
            )
        ]
        rows.sort(key=lambda row: -row.score)
        timings = Timings(
            prompt.decode_image_ms,
            prompt.encode_ms,
            (end - begin) * 1000,
            0.0,
            (end - start) * 1000,
            0,
            sum(len(ids) for ids, _ in scored),
            scoring.reused,
        )
        ranking = Ranking(rows, normalize, self.engine.device, name, timings=timings)
        if prompt.last is not None:
            ranking.width, ranking.height = prompt.last.width, prompt.last.height
            ranking.notes, ranking.source = list(prompt.last.notes), prompt.last.source
        return ranking

    def forced_logits(self, plan: tasks.Plan, ids: Sequence[int]) -> tuple[bytes, int]:
        """The logits that predict each of `ids` after the plan's prompt and the ids before it (teacher forcing).

        -> ((len(ids), vocab) little-endian float32, vocab)
        """
        if not ids:
            return b"", self.engine.tokenizer.size
        segments = [*self._prompt(plan.segments, _core.CancelToken()).segments]
        if ids[1:]:
            segments.append(("ids", list(ids[:-1])))
        values, rows, vocab = self.engine.logits(segments)
        return values[(rows - len(ids)) * vocab * 4 :], vocab

    # ---- prompt

    def _encode(self, image: Any, token: _core.CancelToken, keep: bool = False) -> tuple[EncodedImage, float]:
        """The encoded picture and the milliseconds that decoding its file took.

        keep: prompts that begin with it leave their keys and values with it.
        """
        if isinstance(image, EncodedImage):
            if image.engine is not self.engine:
                raise InvalidRequest("an encoded image can be used only with the model that encoded it")
            return image, 0.0
        picture: Picture = open_image(image)
        embedding = self.engine.encode_image(picture.rgb, picture.width, picture.height, token, keep)
        encoded = EncodedImage(
            picture.width,
            picture.height,
            picture.name,
            picture.notes,
            embedding.encode_ms,
            embedding,
            self.engine,
        )
        return encoded, picture.decode_ms if image is not picture else 0.0

    def _prompt(self, segments: Sequence[Any], token: _core.CancelToken) -> _Prompt:
        out = _Prompt([])
        seen: dict[int, EncodedImage] = {}  # the same object twice is encoded once (a file can be read only once)
        for segment in segments:
            if isinstance(segment, PictureSegment):
                if id(segment.source) not in seen:
                    encoded, decode_ms = self._encode(segment.source, token)
                    out.decode_image_ms += decode_ms
                    out.encode_ms += 0.0 if encoded is segment.source else encoded.encode_ms
                    seen[id(segment.source)] = encoded
                encoded = out.last = seen[id(segment.source)]
                out.segments.append(("image", encoded.embedding))
            elif isinstance(segment, BoxSegment):
                boxes = [self._snap(box, segment.normalized, out.last) for box in segment.boxes]
                out.box = boxes[-1]
                out.segments.append(("boxes", [box.cells for box in boxes]))
            else:
                out.segments.append(segment)
        return out

    def _snap(self, box: Any, normalized: bool, picture: EncodedImage | None) -> Box:
        reader = self._reader(picture)
        if isinstance(box, Box):
            return reader.snap(box.normalized) if box.cells is None else reader.from_cells(box.cells)
        if normalized:
            return reader.snap(box)
        if picture is None:
            raise InvalidRequest("box: pixels of what? there is no picture before the box")
        return reader.snap(Box.from_pixels(*box, width=picture.width, height=picture.height).normalized)

    def _reader(self, picture: EncodedImage | None) -> Reader:
        size = None if picture is None else (picture.width, picture.height)
        return Reader(self.engine.tokenizer, self.engine.location_bins, size)

    # ---- answer

    def _kept(self, plan: tasks.Plan, prompt_ids: Sequence[int]) -> list[int]:
        """The prompt's ids that the text begins with: all words where asked for, else those of an unfinished entity.

        That is <phrase> a hat</phrase> at the prompt's end, perhaps with the beginning of its boxes.
        """
        if plan.keep_prompt:
            return self._caption_ids(prompt_ids)
        ids = list(prompt_ids)
        begin = len(ids)
        while begin > 0 and self._is_box_token(ids[begin - 1]):
            begin -= 1
        if begin > 0 and ids[begin - 1] == self._phrase_end and self._phrase_begin in ids[:begin]:
            begin -= 1 + ids[:begin][::-1].index(self._phrase_begin)
        return ids[begin:]

    def _is_box_token(self, token_id: int) -> bool:
        """Whether it opens or continues an <object> (not: closes it)."""
        bins = self.engine.location_bins
        return (
            token_id in (self._object_begin, self._delimiter)
            or self._first_location <= token_id < self._first_location + bins * bins
        )

    def _caption_ids(self, prompt_ids: Sequence[int]) -> list[int]:
        """What transformers calls the caption begins after the last picture."""
        ids = list(prompt_ids)
        if self._image_end in ids:
            return ids[len(ids) - list(reversed(ids)).index(self._image_end) :]
        return ids

    def _answer(
        self, name: str, plan: tasks.Plan, options: Options, token: _core.CancelToken, emit: OnEvent | None
    ) -> Result:
        start = time.perf_counter()
        prompt = self._prompt(plan.segments, token)
        reader = self._reader(prompt.last)
        events = StreamReader(reader, options.stop) if emit is not None else None
        kept = self._kept(plan, self.engine.prompt_ids(prompt.segments))
        ids: list[int] = []
        logprobs: list[float] = []
        stopped = False

        def on_token(token_id: int, logprob: float) -> bool:
            nonlocal stopped
            if is_cancelled(options.cancel):
                token.cancel()
            ids.append(token_id)
            logprobs.append(logprob)
            if options.stop and reader.has_stop(kept, ids, options.stop):
                stopped = True
                return False
            if events is not None and emit is not None:
                for event in events.feed(kept, ids, logprobs):
                    emit(event)
            if plan.one_object:
                return token_id != self._object_end and (len(ids) > 1 or token_id == self._object_begin)
            return True

        watched = events is not None or plan.one_object or bool(options.stop)
        generation = self.engine.generate(prompt.segments, _params(options), on_token if watched else None, token)
        text, entities = reader.read(kept, generation.token_ids, generation.logprobs, options.stop)
        if plan.one_object and not entities:  # the token that showed that no box begins says nothing more
            text = reader.read(kept, [], [])[0]
        if events is not None and emit is not None:
            for event in events.finish(text, entities):
                emit(event)
        reason = "stop_string" if stopped else "stop" if plan.one_object else generation.finish_reason
        result = Result(
            text=text,
            entities=entities,
            token_ids=list(generation.token_ids),
            logprobs=list(generation.logprobs) if options.logprobs else None,
            finish_reason=reason,
            device=self.engine.device,
            model=name,
            box=prompt.box if plan.task == "describe" else None,
            hf=reader.read_hf([*generation.prompt_ids, *generation.token_ids]),
            timings=Timings(
                prompt.decode_image_ms,
                prompt.encode_ms,
                generation.prefill_ms,
                generation.decode_ms,
                (time.perf_counter() - start) * 1000,
                len(generation.prompt_ids),
                len(generation.token_ids),
                generation.reused,
            ),
        )
        if prompt.last is not None:
            result.width, result.height = prompt.last.width, prompt.last.height
            result.notes, result.source = list(prompt.last.notes), prompt.last.source
        if plan.one_object and not entities:
            result.notes.append("the model gave no box for the phrase")
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
