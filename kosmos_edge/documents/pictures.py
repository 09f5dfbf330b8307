"""Documents that are images: one page, or the pages of a TIFF file."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Self

from kosmos_edge.documents.page import PageImage
from kosmos_edge.files import open_file
from kosmos_edge.images import Opening, Picture, image_facts

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
        opening = replace(self._opening, frame=self._facts.pages[number - 1]) if self.paged else self._opening
        picture = opening.open(self._source)
        if isinstance(self._source, bytes):
            picture = replace(picture, name=self.name)
        dpi = self._facts.dpi
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
        return PageImage(number, self._picture)

    def close(self) -> None:
        """Nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
