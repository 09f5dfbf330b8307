"""A page before and after it was read."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import Picture
from kosmos_edge.results import Box, Line, Result


@dataclass(frozen=True, slots=True)
class PageImage:
    """A page as an image."""

    number: int  # in its document, 1 is the first
    picture: Picture
    dpi: tuple[float, float] | None = None  # across and down; None: unknown


@dataclass(frozen=True, slots=True)
class ReadPage:
    """A page and what was read on it."""

    number: int  # in its document, 1 is the first
    result: Result
    dpi: tuple[float, float] | None = None

    @property
    def lines(self) -> list[Line]:
        """The lines with text. InvalidRequest if the result has none because it is of another task, or Markdown."""
        if self.result.lines is None:
            raise InvalidRequest("expected a page that was read as lines; Markdown and other tasks have none")
        return [line for line in self.result.lines if line.text.strip()]

    @property
    def text(self) -> str:
        """The text with a line break at its end, "" without any. Lines without a usable box are in it, too."""
        text = self.result.text.rstrip("\n")
        return f"{text}\n" if text else ""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels. InvalidRequest if the result is not about an image."""
        if self.result.width is None or self.result.height is None:
            raise InvalidRequest("expected the result of an image, which has a width and a height")
        return self.result.width, self.result.height

    def rectangle(self, box: Box) -> tuple[int, int, int, int]:
        """left, top, right, bottom in whole pixels, around the box and inside the page, at least one pixel large.

        Corners that the model gave in the wrong order are put in order.
        """
        width, height = self.size
        x1, y1, x2, y2 = box.normalized
        left, right = _span(x1 * width, x2 * width, width)
        top, bottom = _span(y1 * height, y2 * height, height)
        return left, top, right, bottom


def check_number(number: object, count: int, name: str) -> None:
    """InvalidRequest unless a document of that name with `count` pages has a page of this number."""
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= count:
        raise InvalidRequest(f"{name}: page {number!r} requested, expected 1..{count}")


def around(rectangles: list[tuple[int, int, int, int]]) -> tuple[int, int, int, int]:
    """The smallest rectangle around all; there must be one at least."""
    lefts, tops, rights, bottoms = zip(*rectangles, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _span(one: float, other: float, most: int) -> tuple[int, int]:
    low, high = sorted((one, other))
    first = min(max(math.floor(low + _ROUNDING), 0), most - 1)
    return first, min(max(math.ceil(high - _ROUNDING), first + 1), most)


_ROUNDING = 1e-3  # pixels: a fraction times the width is not exactly the pixel that it stands for
