"""What is annotated in one picture: its size, a caption, and regions with a phrase each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from kosmos_edge.errors import InvalidRequest

Corners: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Region:
    """A box of a phrase."""

    phrase: str
    pixels: Corners  # x1, y1, x2, y2 of the upright picture; x1, y1 is the upper left corner
    score: float | None = None  # 0..1, uncalibrated; None: unknown

    @property
    def xywh(self) -> Corners:
        """Left, top, width and height in pixels."""
        x1, y1, x2, y2 = self.pixels
        return x1, y1, x2 - x1, y2 - y1


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture with its annotations."""

    name: str  # file name or path, as the record shall have it
    width: int  # pixels of the upright picture
    height: int
    caption: str = ""
    regions: tuple[Region, ...] = ()
    model: str = ""  # which made them

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise InvalidRequest(f"{self.name}: expected a size of at least 1 x 1, got {self.width} x {self.height}")

    def fractions(self, region: Region) -> Corners:
        """Left, top, width and height of the region in fractions of the picture's, 0..1."""
        x, y, width, height = region.xywh
        return x / self.width, y / self.height, width / self.width, height / self.height


def picture_of(result: Any, *, name: str | None = None, caption: str | None = None) -> Picture:
    """The Picture of a Result.

    name: instead of Result.source. caption: instead of Result.text. Boxes that are inverted or empty are no regions: no
    format can express them. InvalidRequest for a result without an image or without an answer.
    """
    if result.error is not None:
        raise InvalidRequest(f"expected a result with an answer, got the error: {result.error}")
    if result.width is None or result.height is None:
        raise InvalidRequest("expected the result of a request with an image: without one there are no pixels")
    entities: Iterable[Any] = getattr(result, "entities", ())
    regions = [
        Region(entity.phrase, box.pixels, box.score)
        for entity in entities
        for box in entity.boxes
        if box.valid and box.pixels is not None
    ]
    shown = name if name is not None else (result.source or "")
    text = caption if caption is not None else result.text
    return Picture(shown, result.width, result.height, text, tuple(regions), result.model)
