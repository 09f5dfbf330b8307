"""Verbs of a model that compares images and texts, such as CLIP: similarity, embed_image, embed_text."""

from __future__ import annotations

import math
import os
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from kosmos_edge._native import _core
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import ImageInput
from kosmos_edge.inference import running
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.options import check_bool, check_cancel, check_texts

if TYPE_CHECKING:
    from kosmos_edge.inference.protocol import Session

# As the engine says it (csrc/models/info.h), before a picture is opened.
COMPARES_NOT = "this model writes text and has no vectors of images and texts to compare; expected a model such as CLIP"
TRUNCATED = "{} of {} texts were cut to the model's {} tokens"


@dataclass(slots=True)
class Similarity:
    """How well each text fits each image."""

    texts: tuple[str, ...]
    cosines: list[list[float]]  # (images, texts): of the angle between their vectors, -1..1
    probabilities: list[list[float]]  # (images, texts): per image the softmax over the texts, as the model was trained
    sources: list[str | None]  # the images' paths, if they have one
    device: str = ""
    model: str = ""
    total_ms: float = 0.0
    notes: list[str] = field(default_factory=list)

    def best(self, image: int = 0) -> str:
        """The text that fits the image of that number best."""
        row = self.cosines[image]
        return self.texts[max(range(len(row)), key=row.__getitem__)]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: texts, and for each image its source, cosines and probabilities."""
        rows = zip(self.sources, self.cosines, self.probabilities, strict=True)
        return {
            "texts": list(self.texts),
            "images": [{"source": s, "cosines": list(c), "probabilities": list(p)} for s, c, p in rows],
            "device": self.device,
            "model": self.model,
            "total_ms": self.total_ms,
            "notes": list(self.notes),
        }


class Similarities:
    """These verbs of Model."""

    if TYPE_CHECKING:  # what they need of it
        _info: dict[str, Any]

        @property
        def name(self) -> str: ...
        @property
        def _open(self) -> Session: ...

    def similarity(
        self,
        images: ImageInput | EncodedImage | Sequence[ImageInput | EncodedImage],
        texts: str | Sequence[str],
        *,
        truncate: bool = False,
        cancel: Any = None,
    ) -> Similarity:
        """How well each text fits each image: Similarity.cosines and .probabilities, (images, texts).

        images: one, or a list of them; texts: one, or 1..10000. A list of EncodedImage is compared without computing
        images again. truncate: cut texts that are longer than the model's (77 tokens with their begin and end, in
        CLIP), as published; else they are ContextTooLong. Tag strings in texts, such as <|endoftext|>, are plain
        characters. InvalidRequest for a model that writes text.
        """
        self._check_compares()
        start = time.perf_counter()
        given = _images_of(images)
        return self._compare(given, self._texts(texts, truncate, cancel), cancel, start)

    def similarity_to(
        self, texts: str | Sequence[str], *, truncate: bool = False, cancel: Any = None
    ) -> Callable[[ImageInput | EncodedImage | Sequence[ImageInput | EncodedImage]], Similarity]:
        """similarity() for images that come one after another: a function of images. The texts' vectors are computed
        now, and once; so what is wrong with a text is raised here. Arguments and errors as of similarity."""
        self._check_compares()
        vectors = self._texts(texts, truncate, cancel)
        return lambda images: self._compare(_images_of(images), vectors, cancel, time.perf_counter())

    def embed_image(
        self, images: ImageInput | EncodedImage | Sequence[ImageInput | EncodedImage], *, cancel: Any = None
    ) -> memoryview[float]:
        """The vectors of images, each of length 1: a float32 buffer (images, model_info["embedding"]), which
        numpy.asarray takes without a copy. One image, too, is a row. InvalidRequest for a model that writes text."""
        self._check_compares()
        rows = [self._vector(image, cancel)[0] for image in _images_of(images)]
        return self._matrix(b"".join(row.tobytes() for row in rows), len(rows))

    def embed_text(
        self, texts: str | Sequence[str], *, truncate: bool = False, cancel: Any = None
    ) -> memoryview[float]:
        """The vectors of texts, each of length 1: a float32 buffer (texts, model_info["embedding"]). truncate: as in
        similarity. InvalidRequest for a model that writes text, ContextTooLong."""
        self._check_compares()
        rows, _, words = self._texts(texts, truncate, cancel)
        return self._matrix(b"".join(row.tobytes() for row in rows), len(words))

    def similarity_judge(
        self, picture: ImageInput | EncodedImage, token: _core.CancelToken
    ) -> Callable[[Sequence[str]], list[float]]:
        """What guides another model's decoding (image_weight): a function of texts, which may be empty and are cut if
        too long, -> for each the cosine to the picture times model_info["similarity_scale"]."""
        self._check_compares()
        session, scale = self._open, float(self._info["similarity_scale"])
        image = array("f", session.encode(picture, token).tobytes())

        def judge(texts: Sequence[str]) -> list[float]:
            values = array("f", session.embed_texts(tuple(texts), True, token)[0])
            return [scale * _dot(image, values[at : at + len(image)]) for at in range(0, len(values), len(image))]

        return judge

    # ---- inside

    def _check_compares(self) -> None:
        if not self._info["embedding"]:
            raise InvalidRequest(COMPARES_NOT)

    def _compare(
        self,
        images: list[Any],
        texts: tuple[list[array[float]], int, tuple[str, ...]],
        cancel: Any,
        start: float,
    ) -> Similarity:
        vectors, cut, words = texts
        shown = [self._vector(image, cancel) for image in images]
        cosines = [[_dot(image, text) for text in vectors] for image, _ in shown]
        scale = float(self._info["similarity_scale"])
        notes = list(dict.fromkeys(note for _, encoded in shown for note in encoded.notes))
        if cut:
            notes.append(TRUNCATED.format(cut, len(words), self._info["context"]))
        return Similarity(
            words,
            cosines,
            [softmax([scale * value for value in row]) for row in cosines],
            [encoded.source for _, encoded in shown],
            self._open.engine.device,
            self.name,
            (time.perf_counter() - start) * 1000,
            notes,
        )

    def _matrix(self, data: bytes, rows: int) -> memoryview[float]:
        return memoryview(data).cast("f", (rows, int(self._info["embedding"])))

    def _vector(self, image: ImageInput | EncodedImage, cancel: Any) -> tuple[array[float], EncodedImage]:
        encoded: EncodedImage = running.run(partial(self._open.encode, image), check_cancel(cancel))
        return array("f", encoded.tobytes()), encoded

    def _texts(self, texts: object, truncate: object, cancel: Any) -> tuple[list[array[float]], int, tuple[str, ...]]:
        """-> (vectors, how many texts were cut, the texts)"""
        words = check_texts("texts", [texts] if isinstance(texts, str) else texts, _core.limits.MAX_TEXTS)
        cuts, flag = check_bool("truncate", truncate), check_cancel(cancel)
        # In no variable of its own, which an error that a caller keeps would hold, and with it the model.
        data, cut = running.run(partial(self._open.embed_texts, words, cuts), flag)
        width = int(self._info["embedding"])
        values = array("f", data)
        return [values[at : at + width] for at in range(0, len(values), width)], cut, words


def _images_of(images: Any) -> list[Any]:
    """A list of images, also of one; InvalidRequest where there is none."""
    if isinstance(images, list | tuple):
        given = list(images)
    elif isinstance(images, str | os.PathLike | bytes | bytearray | EncodedImage) or not isinstance(images, Iterable):
        given = [images]
    else:
        given = list(images) if not hasattr(images, "read") and not _is_buffer(images) else [images]
    if not given:
        raise InvalidRequest("images: expected at least one")
    return given


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def softmax(values: Sequence[float]) -> list[float]:
    """exp(v) as shares of their sum."""
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    whole = math.fsum(powers)
    return [power / whole for power in powers]
