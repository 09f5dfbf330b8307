"""Runs a plan on an engine: decodes and encodes images, passes segments to the engine, reads the answer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from kosmos_edge._native import _core
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import AS_USUAL, ImageInput, Picture
from kosmos_edge.inference import tasks
from kosmos_edge.inference.answer import Reader
from kosmos_edge.inference.answering import Answering, Prompt
from kosmos_edge.inference.encoded import EncodedImage, Prepared
from kosmos_edge.inference.guides import guide_of
from kosmos_edge.inference.prompts import BoxSegment, PictureSegment, RowsSegment, is_ambiguous, which_unit
from kosmos_edge.inference.running import apart
from kosmos_edge.options import Options
from kosmos_edge.results import Box, Done, OnEvent, Ranking, Result, Score, Timings


class EngineSession:
    """An engine of this process and what every call needs from it; immutable, so threads can share it."""

    def __init__(self, engine: _core.Engine) -> None:
        self.engine = engine

    def encode(self, image: ImageInput | EncodedImage, token: _core.CancelToken) -> EncodedImage:
        """Decodes and encodes one image, to be used more than once."""
        return self._encode(image, token, keep=True)[0]

    def embed_texts(self, texts: tuple[str, ...], truncate: bool, token: _core.CancelToken) -> tuple[bytes, int]:
        """The vectors of texts as float32, and how many texts were cut; of a model that compares."""
        return self.engine.embed_texts(texts, truncate, token)

    def run(self, name: str, plan: tasks.Plan, options: Options, token: _core.CancelToken) -> Result:
        """The whole answer."""
        return self.begin(name, plan, options, token).run(token)

    def stream(self, name: str, plan: tasks.Plan, options: Options, token: _core.CancelToken, emit: OnEvent) -> None:
        """The answer as events, the last of which is Done."""
        emit(Done(self.begin(name, plan, options, token, emit).run(token)))

    def begin(
        self,
        name: str,
        plan: tasks.Plan,
        options: Options,
        token: _core.CancelToken,
        emit: OnEvent | None = None,
        known: Mapping[int, EncodedImage] | None = None,
    ) -> Answering:
        """The engine's request; encodes the images, except those in `known` (by id of their source)."""
        start = time.perf_counter()
        options = self.fit(options)
        guide = guide_of(plan, options, self.engine.tokenizer, token)
        prompt = self._prompt(plan.segments, token, known)
        reader = self._reader(prompt.last)
        return Answering(self.engine, name, plan, options, token, emit, prompt, reader, start, guide)

    def fit(self, options: Options) -> Options:
        """The options with room for the longest choice; InvalidRequest if no answer could be exactly a choice."""
        if not options.choices or options.fitted:
            return options
        most = self.engine.context_length if options.default_length else options.max_tokens
        longest = _core.check_choices(self.engine, options.choices, options.stop, most)
        return replace(options, max_tokens=max(options.max_tokens, longest), fitted=True)

    def prepare(self, picture: Picture) -> Prepared:
        """The image as the model's encoder takes it; encoding it gives the same vectors as the image itself.

        Needs no computing thread, so that it can be done ahead of time, and takes little memory.
        """
        start = time.perf_counter()
        pixels = self.engine.prepare_image(picture.rgb, picture.width, picture.height)
        spent = (time.perf_counter() - start) * 1000 + picture.decode_ms
        return Prepared(pixels, picture.width, picture.height, picture.name, picture.notes, spent)

    def score(self, name: str, image: Any, plan: tasks.ScorePlan, token: _core.CancelToken) -> Ranking:
        """Texts by falling likelihood."""
        start = time.perf_counter()
        if plan.behind:
            prompt = self._prompt(plan.behind.segments, token)
            begin = time.perf_counter()
            found = _core.rank_behind(self.engine, prompt.segments, plan.texts, plan.normalize, token)
        else:
            prompt = self._prompt([] if image is None else [PictureSegment(image)], token)
            embedding = None if prompt.last is None else prompt.last.embedding
            begin = time.perf_counter()
            found = _core.rank(self.engine, embedding, plan.texts, plan.before, plan.after, plan.normalize, token)
        end = time.perf_counter()
        rows = [
            Score(
                plan.texts[r.index],
                r.score,
                r.share,
                r.logprob_sum,
                r.logprob_mean,
                r.token_ids,
                r.logprobs,
                r.greedy,
            )
            for r in found.rows
        ]
        timings = Timings(
            prompt.decode_image_ms,
            prompt.encode_ms,
            (end - begin) * 1000,
            0.0,
            (end - start) * 1000,
            0,
            found.tokens,
            found.reused,
        )
        ranking = Ranking(rows, plan.normalize, self.engine.device, name, timings=timings)
        if prompt.last is not None:
            ranking.width, ranking.height = prompt.last.width, prompt.last.height
            ranking.notes, ranking.source = list(prompt.last.notes), prompt.last.source
        said = [*ranking.notes, *(plan.behind.notes if plan.behind else []), *found.notes]
        ranking.notes = list(dict.fromkeys(said))  # the plan and the engine may say the same
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
        """The encoded image and the milliseconds for decoding its file.

        keep: prompts that begin with it leave their keys and values with it.
        """
        if isinstance(image, EncodedImage):
            if image.engine is not self.engine:
                raise InvalidRequest("an encoded image can be used only with the model that encoded it")
            return image, 0.0
        opened = isinstance(image, Picture | Prepared)
        picture: Picture | Prepared = image if opened else apart(partial(AS_USUAL.open, image), token)
        if isinstance(picture, Prepared):
            embedding = self.engine.encode_prepared(picture.pixels, token, keep)
        else:
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
        return encoded, 0.0 if isinstance(image, Picture) else picture.decode_ms

    def _prompt(
        self, segments: Sequence[Any], token: _core.CancelToken, known: Mapping[int, EncodedImage] | None = None
    ) -> Prompt:
        out = Prompt([])
        seen = dict(known or {})  # the same object twice is encoded once (a pipe can be read only once)
        for segment in segments:
            if isinstance(segment, PictureSegment):
                if id(segment.source) not in seen:
                    encoded, decode_ms = self._encode(segment.source, token)
                    out.decode_image_ms += decode_ms
                    out.ahead_ms += decode_ms if isinstance(segment.source, Prepared) else 0.0
                    out.encode_ms += 0.0 if encoded is segment.source else encoded.encode_ms
                    seen[id(segment.source)] = encoded
                encoded = out.last = seen[id(segment.source)]
                out.segments.append(("image", encoded.embedding))
            elif isinstance(segment, RowsSegment):
                out.segments.append(("rows", self.engine.given_rows(segment.values, segment.count)))
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
        if is_ambiguous(box) and (picture.width, picture.height) != (1, 1):
            raise InvalidRequest(which_unit("box", box))
        return reader.snap(Box.from_pixels(*box, width=picture.width, height=picture.height).normalized)

    def _reader(self, picture: EncodedImage | None) -> Reader:
        return Reader(self.engine, None if picture is None else (picture.width, picture.height))
