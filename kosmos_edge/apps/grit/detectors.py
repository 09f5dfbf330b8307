"""What finds the boxes of phrases: our own engine. Others are in http_detector.py and onnx_detector.py."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kosmos_edge.apps.grit.boxes import Scored
from kosmos_edge.apps.grit.expressions import Span
from kosmos_edge.errors import ContextTooLong, InvalidRequest, KosmosError
from kosmos_edge.folders.journal import Journal
from kosmos_edge.images import Picture
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.model import Model
from kosmos_edge.results import Entity

_TAGS = re.compile(r"[<>{}]")  # what a template would take for tags and places


@dataclass(frozen=True, slots=True)
class Asked:
    """A picture and the phrases to find in it."""

    picture: Picture
    content: bytes  # digest of the picture's file: equal for the same picture
    caption: str
    phrases: tuple[Span, ...]

    @property
    def texts(self) -> list[str]:
        """The phrases."""
        return [self.caption[span.start : span.end] for span in self.phrases]


@dataclass(frozen=True, slots=True)
class Found:
    """What a detector says about a picture."""

    boxes: list[list[Scored]]  # of each phrase; may be empty
    without_context: int = 0  # phrases that were asked for without the words before them, although these were wanted


class Detector(Protocol):
    """Finds the boxes of phrases."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What it is, for the output: kind, name, settings."""
        ...

    def identity(self, journal: Journal) -> Mapping[str, Any]:
        """JSON-ready: on what its answers depend besides picture, caption and phrases."""
        ...

    def detect(self, asked: Sequence[Asked]) -> list[Found | KosmosError]:
        """An answer for each picture, in order: what it found, or why this picture has none. Raises what would stop
        all pictures."""
        ...


class EngineDetector:
    """A grounding model of this package: `locate` for every phrase.

    Scored.score is the probability that boxes follow the phrase (Entity.found_score), Scored.place the mean probability
    of the corners' tokens (Box.score). context: the caption's words before a phrase stand before it in the prompt, as
    KOSMOS-2 was evaluated on Flickr30k Entities. Words with one of <>{} would be read as tags: such a phrase, and one
    whose words do not fit into the model's context, is asked for without them and counted (Found.without_context).
    version: of this package. files: whose content stands for the model; None: model.path. InvalidRequest for a model
    without boxes.
    """

    def __init__(
        self, model: Model, version: str, *, context: bool = False, files: Sequence[str] | None = None
    ) -> None:
        if model.model_info["grounding"] is None:
            raise InvalidRequest(f"{model.name} has no boxes: choose a model that has")
        self._model, self._context = model, context
        self._files = (str(model.path),) if files is None else tuple(files)
        self.facts: Mapping[str, Any] = {
            "kind": "engine",
            "name": model.name,
            "verb": "locate",
            "context": context,
            "version": version,
        }

    def identity(self, journal: Journal) -> Mapping[str, Any]:
        """The content of the model's files, the version, whether there is context, how keys and values are kept."""
        model = [journal.file_digest(path).hex() for path in self._files]
        return {**self.facts, "model": model, "kv_type": self._model.kv_type}

    def detect(self, asked: Sequence[Asked]) -> list[Found | KosmosError]:
        """All phrases of all pictures in the same passes."""
        encoded: dict[bytes, EncodedImage | KosmosError] = {}
        calls, owners = [], []
        for number, one in enumerate(asked):
            if one.content not in encoded:
                encoded[one.content] = self._encode(one.picture)
            image = encoded[one.content]
            if isinstance(image, KosmosError):
                continue
            for place, span in enumerate(one.phrases):
                calls.append(self._call(image, one.caption, span, self._context))
                owners.append((number, place))
        answers: dict[tuple[int, int], Any] = dict(zip(owners, self._model.batch_calls(calls), strict=True))
        return [self._found(number, one, encoded[one.content], answers) for number, one in enumerate(asked)]

    def _encode(self, picture: Picture) -> EncodedImage | KosmosError:
        try:
            return self._model.encode(picture)
        except KosmosError as error:
            return error

    def _call(self, image: EncodedImage, caption: str, span: Span, context: bool) -> tuple[str, dict[str, Any]]:
        arguments: dict[str, Any] = {"image": image, "phrase": caption[span.start : span.end]}
        before = caption[: span.start].strip()
        if context and before and not _TAGS.search(before):
            prompt = self._model.model_info["prompts"]
            arguments["template"] = f"{prompt['grounding']}{before}{prompt['locate']}"
        return "locate", arguments

    def _found(
        self,
        number: int,
        asked: Asked,
        image: EncodedImage | KosmosError,
        answers: Mapping[tuple[int, int], Any],
    ) -> Found | KosmosError:
        if isinstance(image, KosmosError):
            return image
        boxes, without = [], 0
        for place, span in enumerate(asked.phrases):
            answer = answers[number, place]
            before = asked.caption[: span.start]
            if self._context and isinstance(answer.error, ContextTooLong) and before.strip():
                verb, arguments = self._call(image, asked.caption, span, False)
                answer = next(iter(self._model.batch_calls([(verb, arguments)])))
                without += 1
            elif self._context and _TAGS.search(before):
                without += 1
            if answer.error is not None:
                assert isinstance(answer.error, KosmosError)
                return answer.error
            boxes.append([one for entity in answer.entities for one in _scored(entity)])
        return Found(boxes, without)


def _scored(entity: Entity) -> list[Scored]:
    score = 1.0 if entity.found_score is None else entity.found_score
    return [Scored(box.normalized, score, 1.0 if box.score is None else box.score) for box in entity.boxes]
