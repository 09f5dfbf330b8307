"""A pool of few-shot examples, of which some are picked for every request: at random, or the nearest to its image."""

from __future__ import annotations

import os
import random
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any

from kosmos_edge._native import _core
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.options import check_int

ENCODED = 64  # images of the pool that stay encoded: as many as a request can have


class ExamplePool:
    """Examples to pick from: tuples whose first value is an image, as a verb's `examples` takes them.

    Images are encoded when they are needed. Not for use by several threads at once.
    """

    def __init__(self, encode: Callable[[Any], EncodedImage], examples: Sequence[Sequence[Any]]) -> None:
        """encode: Model.encode. InvalidRequest if an example is no tuple with an image."""
        for number, example in enumerate(examples):
            if not isinstance(example, tuple | list) or len(example) < 2:
                raise InvalidRequest(f"examples[{number}]: expected (image, text, ...), got {example!r}")
        self._encode = encode
        self._examples = [tuple(example) for example in examples]
        self._vectors: dict[int, array[float]] = {}
        self._encoded: OrderedDict[int, EncodedImage] = OrderedDict()

    def __len__(self) -> int:
        return len(self._examples)

    def draw(self, k: int, *, seed: int = 0, item: str = "", without: Any = None) -> list[tuple[Any, ...]]:
        """k examples at random, the same for the same seed and item; item: the name of what is asked.

        without: the request's image (a path, or the object that is an example's image), which is not drawn.
        InvalidRequest if fewer than k are left.
        """
        rows = [index for index, example in enumerate(self._examples) if not _same(example[0], without)]
        return self._take(random.Random(f"{seed}:{item}").sample(rows, self._count(k, len(rows))))

    def nearest(self, image: Any, k: int, *, without: Any = None) -> list[tuple[Any, ...]]:
        """The k examples whose images are the most like this one, the most alike last, next to the request.

        Likeness is the cosine of the means of the image's vectors (Model.encode). Images that are encoded to the same
        vectors are left out: they are the same picture. without: as for draw. InvalidRequest if fewer than k are left.
        """
        vector = _direction(image if isinstance(image, EncodedImage) else self._encode(image))
        likeness = []
        for index, example in enumerate(self._examples):
            if _same(example[0], without) or _same(example[0], image):
                continue
            other = self._vectors.get(index)
            if other is None:
                other = self._vectors[index] = _direction(self._image(index))
            if other != vector:
                likeness.append((sum(a * b for a, b in zip(vector, other, strict=True)), -index))
        likeness.sort()
        count = self._count(k, len(likeness))
        return self._take([-index for _, index in likeness[len(likeness) - count :]])

    def _count(self, k: int, left: int) -> int:
        count = check_int("k", k, 0, _core.limits.MAX_EXAMPLES)
        if count > left:
            raise InvalidRequest(f"k: expected at most {left}, the examples other than the image itself, got {count}")
        return count

    def _take(self, indices: Sequence[int]) -> list[tuple[Any, ...]]:
        return [(self._image(index), *self._examples[index][1:]) for index in indices]

    def _image(self, index: int) -> EncodedImage:
        """The example's encoded image; the same object again while it is kept, so that requests share its positions."""
        if index not in self._encoded:
            source = self._examples[index][0]
            self._encoded[index] = source if isinstance(source, EncodedImage) else self._encode(source)
            if len(self._encoded) > ENCODED:
                self._encoded.popitem(last=False)
        self._encoded.move_to_end(index)
        return self._encoded[index]


def _same(a: Any, b: Any) -> bool:
    """Whether two image sources are one: the same object, or paths of the same file."""
    if a is b:
        return True
    if isinstance(a, str | os.PathLike) and isinstance(b, str | os.PathLike):
        return os.path.realpath(a) == os.path.realpath(b)
    return False


def _direction(image: EncodedImage) -> array[float]:
    """The mean of the image's vectors, with length 1."""
    rows, width = image.shape
    values = array("f", image.tobytes())
    means = array("d", (sum(values[column::width]) / rows for column in range(width)))
    length = sqrt(sum(value * value for value in means)) or 1.0
    return array("d", (value / length for value in means))
