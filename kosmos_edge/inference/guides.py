"""What guides decoding by the picture (image_weight): how well texts fit it, as another model or a function says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from kosmos_edge._native import _core
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import AS_USUAL, Picture
from kosmos_edge.inference.encoded import EncodedImage, Prepared
from kosmos_edge.inference.prompts import PictureSegment
from kosmos_edge.inference.running import apart, is_cancelled
from kosmos_edge.inference.tasks import Plan
from kosmos_edge.options import Options

# (ids of the answer so far, candidates for the next one) -> a score for each candidate; their softmax counts
Relevance: TypeAlias = Callable[[Sequence[int], Sequence[int]], list[float]]
LAST_TOKENS = 60  # of an answer, which a guide sees; as MAGIC's authors have it
_TAG, _CONTROL = 4, 3  # GGUF's types of tokens


def guide_of(plan: Plan, options: Options, tokenizer: _core.Tokenizer, token: _core.CancelToken) -> Relevance | None:
    """The relevance of the options' guide about the plan's last picture, or None: there is no guide but the model
    itself. The picture is opened here; the plan then has it opened."""
    if options.guide is None or options.guide == "self":
        return None
    places = [n for n, segment in enumerate(plan.segments) if isinstance(segment, PictureSegment)]
    if not places:
        raise InvalidRequest("guide: there is no picture in the request")
    segment = plan.segments[places[-1]]
    assert isinstance(segment, PictureSegment)
    source = segment.source
    picture = source
    if isinstance(picture, EncodedImage | Prepared):
        raise InvalidRequest("guide: needs the picture itself; an encoded or prepared one has no pixels")
    if not isinstance(picture, Picture):
        picture = apart(partial(AS_USUAL.open, picture), token)
        shown = replace(segment, source=picture)
        plan.segments = [shown if s is segment or _same(s, source) else s for s in plan.segments]
    guide = options.guide
    judge = guide.similarity_judge(picture, token) if hasattr(guide, "similarity_judge") else partial(guide, picture)

    def relevance(answer: Sequence[int], candidates: Sequence[int]) -> list[float]:
        texts = [continuation(tokenizer, [*answer, candidate]) for candidate in candidates]
        scores = judge(texts)
        if is_cancelled(options.cancel):  # a guide may take long: nobody else looks in the meantime
            token.cancel()
        try:
            return [float(score) for score in scores]
        except (TypeError, ValueError):
            raise InvalidRequest(f"guide: expected a number for each text, got {scores!r}") from None

    return relevance


def _same(segment: Any, source: Any) -> bool:
    return isinstance(segment, PictureSegment) and segment.source is source


def continuation(tokenizer: _core.Tokenizer, ids: Sequence[int]) -> str:
    """The text of an answer's last tokens, without tags and what ends it."""
    plain = [i for i in ids[-LAST_TOKENS:] if tokenizer.type(i) not in (_TAG, _CONTROL)]
    return tokenizer.decode(plain).strip()
