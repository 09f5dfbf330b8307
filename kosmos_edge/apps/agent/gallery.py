"""The pictures of a run, named by handles: the language model cannot name any other file."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import Picture
from kosmos_edge.model import Model
from kosmos_edge.results import Corners

MADE_PIXELS = 100_000_000  # of all pictures that tools made: 300 MB
_KEPT = 4  # encoded pictures that are kept for the next question about them


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture and where it came from."""

    handle: str
    picture: Picture
    parent: str | None = None  # the handle of the picture that it was made of
    box: tuple[int, int, int, int] | None = None  # of a crop: its place in the parent, in pixels
    origin: tuple[str, int, int] | None = None  # of a crop: the user's picture, and the corner in it, in pixels

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the pixels."""
        return {
            "handle": self.handle,
            "width": self.picture.width,
            "height": self.picture.height,
            "path": self.picture.name,
            "parent": self.parent,
            "box": None if self.box is None else list(self.box),
        }


class Gallery:
    """The user's pictures, and those that tools made of them."""

    def __init__(self, most: int) -> None:
        """most: pictures, all together."""
        self._most, self._made = most, 0
        self._shown: dict[str, Shown] = {}
        self._encoded: OrderedDict[tuple[str, int], Any] = OrderedDict()

    def __iter__(self) -> Any:
        return iter(self._shown.values())

    def __getitem__(self, handle: str) -> Shown:
        """InvalidRequest names the handles that there are."""
        if handle not in self._shown:
            known = ", ".join(self._shown)
            raise InvalidRequest(f"image: there is no picture {handle[:100]!r}; there are {known}")
        return self._shown[handle]

    def add(self, picture: Picture, kind: str = "image", **facts: Any) -> Shown:
        """A new picture. kind: the first part of its handle. InvalidRequest if there are too many."""
        if len(self._shown) >= self._most:
            raise InvalidRequest(f"there are {self._most} pictures already, and no more can be made")
        if facts:
            self._made += picture.width * picture.height
            if self._made > MADE_PIXELS:
                self._made -= picture.width * picture.height
                raise InvalidRequest(
                    f"the pictures that were made have {self._made} pixels; {MADE_PIXELS} is the limit"
                )
        shown = Shown(f"{kind}_{len(self._shown) + 1}", picture, **facts)
        self._shown[shown.handle] = shown
        return shown

    def crop(self, shown: Shown, box: Corners) -> Shown:
        """The part of a picture in a box, widened to whole pixels. InvalidRequest unless the box is in the picture."""
        picture = shown.picture
        check_inside(box, picture.width, picture.height)
        left, top = math.floor(box[0]), math.floor(box[1])
        right, bottom = math.ceil(box[2]), math.ceil(box[3])
        rows = (
            picture.rgb[(row * picture.width + left) * 3 : (row * picture.width + right) * 3]
            for row in range(top, bottom)
        )
        part = Picture(b"".join(rows), right - left, bottom - top)
        root, x, y = shown.origin or (shown.handle, 0, 0)
        place = (left, top, right, bottom)
        return self.add(part, "crop", parent=shown.handle, box=place, origin=(root, x + left, y + top))

    def encoded(self, handle: str, model: Model, cancel: Any = None) -> Any:
        """The picture as the model's verbs take it without encoding it again."""
        key = (handle, id(model))
        if key in self._encoded:
            self._encoded.move_to_end(key)
        else:
            self._encoded[key] = model.encode(self[handle].picture, cancel=cancel)
            if len(self._encoded) > _KEPT:
                self._encoded.popitem(last=False)
        return self._encoded[key]


def check_inside(box: Corners, width: int, height: int) -> None:
    """InvalidRequest unless the box is in a picture of that size and has an area."""
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise InvalidRequest(
            f"box: expected 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height} in pixels of the picture, "
            f"got [{', '.join(f'{value:g}' for value in box)}]"
        )


__all__ = ["Gallery", "Shown", "check_inside"]
