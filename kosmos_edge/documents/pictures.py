"""Documents that are images: one page, or the pages of a TIFF file."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, BinaryIO, Self, cast

from PIL import Image

from kosmos_edge.documents.page import PageImage, check_number
from kosmos_edge.errors import ImageDecodeError
from kosmos_edge.files import open_file
from kosmos_edge.images import Opening, Picture, identify

_SUBFILE_TYPE = 254  # TIFF's NewSubfileType
_TURNED_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


class ImageFile:
    """An image file."""

    def __init__(self, source: str | bytes, name: str, opening: Opening) -> None:
        """source: the path, or the file's bytes. Raises ImageDecodeError, KosmosIOError."""
        self.name = name
        self._source, self._opening = source, opening
        with open_file(source, pipes=False) if isinstance(source, str) else BytesIO(source) as file:
            self._facts = image_facts(file, name)
        self.count = len(self._facts.pages)
        self.paged = self.count > 1

    def page(self, number: int) -> PageImage:
        """See Document.page."""
        check_number(number, self.count, self.name)
        opening = replace(self._opening, frame=self._facts.pages[number - 1]) if self.paged else self._opening
        picture = opening.open(self._source)
        if isinstance(self._source, bytes):
            picture = replace(picture, name=self.name)
        dpi = self._facts.dpi[number - 1]
        if dpi is not None and opening.exif and picture.orientation in _TURNED_SIDEWAYS:
            dpi = dpi[1], dpi[0]
        return PageImage(number, picture, dpi)

    @property
    def original(self) -> str | bytes:
        """The file: its path, or its bytes."""
        return self._source

    def close(self) -> None:
        """Nothing is open between two pages."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class OneImage:
    """An image that is decoded already."""

    def __init__(self, picture: Picture, name: str) -> None:
        self.name, self.count, self.paged = name, 1, False
        self._picture = picture

    def page(self, number: int) -> PageImage:
        """See Document.page."""
        check_number(number, self.count, self.name)
        return PageImage(number, self._picture)

    def close(self) -> None:
        """Nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a file says about its images before they are decoded."""

    pages: tuple[int, ...]  # frames that are pages, for Opening.frame; one, unless it is a TIFF file of several pages
    dpi: tuple[tuple[float, float] | None, ...]  # of each page, as stored, across and down; None: not stated


def image_facts(file: BinaryIO, name: str) -> ImageFacts:
    """Reads the header of an image file, of a TIFF file those of all pages. Raises ImageDecodeError, KosmosIOError."""
    with identify(file, name) as image:
        try:
            dpi = {0: _stated_dpi(image)}
            if image.format == "TIFF":
                dpi = _pages_of_tiff(image) or dpi
        except MemoryError:
            raise
        except Exception as error:  # a damaged directory can make the plugin raise anything
            raise ImageDecodeError(f"{name}: damaged ({type(error).__name__}: {error})") from error
    return ImageFacts(tuple(dpi), tuple(dpi.values()))


def _pages_of_tiff(image: Image.Image) -> dict[int, tuple[float, float] | None]:
    """The resolution of each page, by its frame; none if all frames are smaller copies."""
    tiff, found = cast(Any, image), {}
    for frame in range(int(tiff.n_frames)):
        if frame:
            tiff.info.pop("dpi", None)  # Pillow leaves that of the frame before if this one states none
        tiff.seek(frame)
        # a smaller copy of another page (a thumbnail, a pyramid) says so in bit 0 of NewSubfileType
        if not tiff.tag_v2.get(_SUBFILE_TYPE, 0) & 1:
            found[frame] = _stated_dpi(tiff)
    return found


def _stated_dpi(image: Image.Image) -> tuple[float, float] | None:
    dpi = image.info.get("dpi")
    across, down = (_whole_dpi(float(value)) for value in dpi) if dpi else (0.0, 0.0)
    stated = all(math.isfinite(value) and value > 1 for value in (across, down))  # 1: a unit that says nothing
    return (across, down) if stated else None


def _whole_dpi(value: float) -> float:
    """PNG stores whole pixels per metre: 300 dpi come back as 299.9994."""
    return float(round(value)) if math.isfinite(value) and abs(value - round(value)) < 0.0128 else value
