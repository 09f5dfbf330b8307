"""A verb with its arguments but without its image, so that one request serves many images; or calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from kosmos_edge._native import _core
from kosmos_edge.inference.answering import Answering
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.inference.prompts import PictureSegment
from kosmos_edge.inference.session import EngineSession
from kosmos_edge.inference.tasks import Plan, ScorePlan
from kosmos_edge.options import Options
from kosmos_edge.results import Ranking


@dataclass(slots=True)
class GenerateRequest:
    """A generating verb."""

    name: str  # of the model
    plan: Callable[[Any], Plan]
    options: Options
    _known: dict[int, EncodedImage] = field(default_factory=dict)  # the examples' images, by id

    @property
    def cancel(self) -> Any:
        """The caller's cancel object, or None."""
        return self.options.cancel

    @property
    def joins(self) -> bool:
        """Whether the answer may be computed in a batch with others: the beams of one answer are a batch already."""
        return self.options.num_beams == 1 and not self.options.contrasts

    @property
    def guided(self) -> bool:
        """Whether the picture itself is needed, beside what the model makes of it."""
        return self.options.guide not in (None, "self")

    def begin(self, session: EngineSession, image: Any, token: _core.CancelToken) -> Answering:
        """The request about this image, which is encoded here; the examples' images are encoded once."""
        plan = self.plan(image)
        for segment in plan.segments:
            if isinstance(segment, PictureSegment) and segment.source is not image:
                source = segment.source
                if id(source) not in self._known:
                    self._known[id(source)] = session.encode(source, token)
        return session.begin(self.name, plan, self.options, token, known=self._known)


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """The ranking of texts. A prompt that the plan has for them shows the image where its own image is None."""

    name: str
    plan: ScorePlan
    cancel: Any
    joins: bool = False
    guided: bool = False
    _known: dict[int, EncodedImage] = field(default_factory=dict)  # the examples' images, by id

    def begin(self, session: EngineSession, image: Any, token: _core.CancelToken) -> Ranking:
        """The ranking for this image; the examples' images are encoded once."""
        behind = self.plan.behind
        if behind is None:
            return session.score(self.name, image, self.plan, token)
        segments = list(behind.segments)
        for place, segment in enumerate(segments):
            if isinstance(segment, PictureSegment) and segment.source is not None:
                source = segment.source
                if id(source) not in self._known:
                    self._known[id(source)] = session.encode(source, token)
                segments[place] = PictureSegment(self._known[id(source)])
        shown = about(replace(behind, segments=segments), image)
        return session.score(self.name, None, replace(self.plan, behind=shown), token)


def about(template: Plan, image: Any) -> Plan:
    """The plan of a batch for this image, which takes the place of None."""
    segments = [
        PictureSegment(image) if isinstance(s, PictureSegment) and s.source is None else s for s in template.segments
    ]
    return replace(template, segments=segments)


@dataclass(frozen=True, slots=True)
class Call:
    """A call with its arguments checked."""

    plan: Plan
    options: Options

    def opened(self, open: Callable[[Any], Any]) -> Call:
        """The call with its images opened, each once."""
        known: dict[int, PictureSegment] = {}
        segments = list(self.plan.segments)
        for place, segment in enumerate(segments):
            if isinstance(segment, PictureSegment):
                source = segment.source
                if id(source) not in known:
                    known[id(source)] = segment if isinstance(source, EncodedImage) else PictureSegment(open(source))
                segments[place] = known[id(source)]
        return Call(replace(self.plan, segments=segments), self.options)


@dataclass(frozen=True, slots=True)
class CallsRequest:
    """The request of a batch whose entries are Calls."""

    name: str  # of the model
    cancel: Any = None
    joins: bool = True
    guided: bool = False

    def begin(self, session: EngineSession, call: Call, token: _core.CancelToken) -> Answering:
        """The call's request; its images are encoded here."""
        return session.begin(self.name, call.plan, call.options, token)


Request = GenerateRequest | ScoreRequest | CallsRequest
