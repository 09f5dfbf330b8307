"""The work that the benchmark times: one picture, one answer, a folder of pictures, each phase on its own.

Every measurement takes a picture that the engine has never seen, so that nothing it keeps of an earlier one helps.
"""

from __future__ import annotations

import inspect
import io
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from kosmos_edge._native import _core
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import open_image
from kosmos_edge.inference import tasks
from kosmos_edge.model import Model
from kosmos_edge.results import Result

PHOTO_SIZE = (640, 480)
PLAIN_TEXT = 1  # the tokenizer's type of an ordinary piece
MAX_TRIES = 64
QUESTION = "what is this?"


@dataclass(frozen=True)
class Sample:
    """One measurement: seconds, and what was done in them."""

    seconds: float
    tokens: int = 0  # prompt tokens of prefill, tokens of decode and caption
    images: int = 1

    @property
    def ms(self) -> float:
        """Milliseconds."""
        return self.seconds * 1e3

    @property
    def tokens_per_s(self) -> float:
        """Rate of tokens."""
        return self.tokens / self.seconds


def synthetic_photo(number: int, size: tuple[int, int] = PHOTO_SIZE) -> Any:
    """A Pillow picture of coloured shapes on a gradient; another one for every number, the same on every machine."""
    from PIL import Image, ImageDraw

    width, height = size
    picture = Image.merge(
        "RGB",
        (
            Image.linear_gradient("L").resize(size),
            Image.linear_gradient("L").rotate(90).resize(size),
            Image.new("L", size, number * 37 % 256),
        ),
    )
    draw = ImageDraw.Draw(picture)
    for i in range(12):
        value = (number * 12 + i) * 2654435761 % 2**32
        x, y, side = value % width, (value >> 10) % height, width // 16 + (value >> 20) % (width // 5)
        colour = (value & 255, value >> 8 & 255, value >> 16 & 255)
        (draw.ellipse if i % 2 else draw.rectangle)((x - side / 2, y - side / 2, x + side / 2, y + side / 2), colour)
    return picture


def jpeg_bytes(picture: Any) -> bytes:
    """A picture as a JPEG file."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()


class Work:
    """What is timed, on one engine.

    image: a picture file to use instead of synthetic ones. words: how many ordinary tokens stand in the prompt behind
    the picture; None: the words of the model's own caption, grounded where it has boxes, or else of what it can do:
    read the picture, or answer a question about it.

    Every token is computed in full: without the grammar of boxes, whose forced tokens cost next to nothing and would
    make decoding look faster than it is. Only `folder`, which is the public verb, has it.
    """

    def __init__(
        self, engine: _core.Engine, image: str | None = None, tokens: int = 32, words: int | None = None
    ) -> None:
        if tokens < 2:
            raise InvalidRequest(f"tokens: at least 2 are needed to measure a rate, got {tokens}")
        self.model, self.engine, self.tokens = Model(engine), engine, tokens
        self._numbers = itertools.count(1)
        self._given = None if image is None else open_image(image)
        self._segments: list[tuple[str, Any] | None] = []  # None: the picture
        info = self.model.model_info
        self.grounded = info["grounding"] is not None
        self._task, plan = _plan(info, self.grounded)
        if words is None:
            self._segments = [s if isinstance(s, tuple) else None for s in plan.segments]
        else:
            self._segments = [None, ("ids", _ordinary_tokens(engine.tokenizer, words))]

    def photo(self) -> bytes:
        """The next picture as a JPEG file (or the given one's pixels with a mark that makes it a new picture)."""
        return jpeg_bytes(self._picture(PHOTO_SIZE))

    def encode(self) -> tuple[Sample, _core.ImageEmbedding]:
        """Pixels to image tokens. Synthetic pictures have the size that the encoder wants."""
        side = best_side(self.model.model_info["vision"])
        picture = self._picture((side, side))
        rgb = picture.tobytes()
        start = time.perf_counter()
        embedding = self.engine.encode_image(rgb, *picture.size)
        return Sample(time.perf_counter() - start), embedding

    def answer(self) -> tuple[Sample, Sample, list[int]]:
        """-> (prefill, decode, ids) of one answer about a freshly encoded picture; decode has no tokens if it ended."""
        generation = self._generate(self.encode()[1])
        prefill = Sample(generation.prefill_ms / 1e3, len(generation.prompt_ids))
        decode = Sample(max(generation.decode_ms, 1e-6) / 1e3, len(generation.token_ids) - 1)
        return prefill, decode, list(generation.token_ids)

    def decode(self) -> Sample:
        """As many answers as it takes to see `tokens` decoding steps."""
        seconds, steps = 0.0, 0
        for _ in range(MAX_TRIES):
            sample = self.answer()[1]
            if sample.tokens > 0:
                seconds, steps = seconds + sample.seconds, steps + sample.tokens
            if steps >= self.tokens - 1:
                return Sample(seconds, steps)
        raise InvalidRequest(f"the model ended {MAX_TRIES} answers before {self.tokens} tokens")

    def caption(self, whole: bool = False) -> Sample:
        """File to answer: decode the JPEG, resize, encode, prefill, decode up to `tokens` tokens.

        whole: until an answer has all these tokens, the only one that counts. Made-up weights end some sooner.
        """
        for _ in range(MAX_TRIES if whole else 1):
            data = self.photo()
            start = time.perf_counter()
            picture = open_image(data)
            generation = self._generate(self.engine.encode_image(picture.rgb, picture.width, picture.height))
            sample = Sample(time.perf_counter() - start, len(generation.token_ids))
            if not whole or sample.tokens == self.tokens:
                return sample
        raise InvalidRequest(f"the model ended {MAX_TRIES} answers before {self.tokens} tokens")

    def folder(self, batch: int, images: int) -> Sample:
        """Files to captions through Model.batch, `batch` at a time (one at a time before there is such an option)."""
        photos = [self.photo() for _ in range(images)]
        options: dict[str, Any] = {"max_tokens": self.tokens, **self._task}
        if can_batch():
            options[BATCH_OPTION] = batch
        start = time.perf_counter()
        results = cast(list[Result], list(self.model.batch(photos, on_error="raise", **options)))
        return Sample(time.perf_counter() - start, sum(len(r.token_ids) for r in results), images)

    def drafts(self, images: int) -> dict[str, float]:
        """Counts of a folder, one picture at a time, with what its answers teach; the same on every machine."""
        photos, before = [self.photo() for _ in range(images)], self.engine.drafts
        self.engine.drafts = "fixed"
        options: dict[str, Any] = {"max_tokens": self.tokens, "on_error": "raise", "batch_size": 1, **self._task}
        spent = [r.timings for r in cast(list[Result], list(self.model.batch(photos, **options)))]
        self.engine.drafts = before
        tokens, passes = sum(t.tokens for t in spent), sum(t.passes for t in spent)
        drafted, accepted = sum(t.drafted_tokens for t in spent), sum(t.accepted_tokens for t in spent)
        found = {"tokens": tokens, "passes": passes, "drafted": drafted, "accepted": accepted}
        return found | {"tokens_per_pass": tokens / passes}

    def logits(self) -> bytes:
        """float32 logits of a fixed prompt with a fixed picture: equal bytes mean equal arithmetic."""
        side = best_side(self.model.model_info["vision"])
        picture = synthetic_photo(0, (side, side))
        embedding = self.engine.encode_image(picture.tobytes(), *picture.size)
        return self.engine.logits(self._prompt(embedding))[0]

    def _prompt(self, embedding: _core.ImageEmbedding) -> list[tuple[str, Any]]:
        return [("image", embedding) if s is None else s for s in self._segments]

    def _generate(self, embedding: _core.ImageEmbedding) -> _core.Generation:
        params = _core.GenerateParams()
        params.max_tokens, params.grammar = self.tokens, False
        params.no_repeat_ngram_size = int(self.model.model_info["no_repeat_ngram_size"])
        return self.engine.generate(self._prompt(embedding), params)

    def _picture(self, size: tuple[int, int]) -> Any:
        from PIL import Image

        number = next(self._numbers)
        if self._given is None:
            return synthetic_photo(number, size)
        picture = Image.frombytes("RGB", (self._given.width, self._given.height), bytes(self._given.rgb))
        picture.putpixel((0, 0), (number & 255, number >> 8 & 255, number >> 16 & 255))
        return picture


def _plan(info: Mapping[str, Any], grounded: bool) -> tuple[dict[str, Any], tasks.Plan]:
    """What is asked for (the arguments of Model.batch) and its plan, whose picture is None."""
    if "caption" in info["tasks"]:
        plan = tasks.plan_caption(info, None, "short", grounded, False, ())
        return {"task": "caption", "ground": grounded}, plan
    if "read" in info["tasks"]:
        return {"task": "read"}, tasks.plan_read(info, None, False)
    return {"task": "ask", "question": QUESTION}, tasks.plan_ask(info, None, QUESTION, False, None, False, ())


def best_side(vision: Mapping[str, Any]) -> int:
    """Pixels of a square picture's side that an encoder of these numbers (model_info) does not resize."""
    if "max_patches" in vision:
        return math.isqrt(int(vision["max_patches"])) * int(vision["patch_size"])
    return int(vision["image_size"])


BATCH_OPTION = "batch_size"


def can_batch() -> bool:
    """Whether Model.batch decodes several pictures together."""
    return BATCH_OPTION in inspect.signature(Model.batch).parameters


def _ordinary_tokens(tokenizer: _core.Tokenizer, count: int) -> list[int]:
    found = [i for i in range(tokenizer.size) if tokenizer.type(i) == PLAIN_TEXT]
    return list(itertools.islice(itertools.cycle(found[len(found) // 2 :]), count))


def rounds(count: int, measure: Callable[[], Sample]) -> Iterator[Sample]:
    """A first measurement that only warms up, then `count`."""
    measure()
    for _ in range(count):
        yield measure()
