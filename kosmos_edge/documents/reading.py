"""Reads pages with a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Protocol

from kosmos_edge.documents.page import PageImage, ReadPage
from kosmos_edge.documents.ranges import ALL_PAGES, PageRanges
from kosmos_edge.documents.source import Document
from kosmos_edge.results import Done, OnEvent


class Reader(Protocol):
    """A model that reads; see Model.read."""

    @property
    def read(self) -> Callable[..., Any]:
        """(image, *, markdown, stream, **options) -> Result, or with stream=True an iterator of events."""
        ...


def read_page(
    model: Reader, image: PageImage, *, markdown: bool = False, on_event: OnEvent | None = None, **options: Any
) -> ReadPage:
    """Reads one page. on_event: receives what has been read so far. options: those of Model.read."""
    if on_event is None:
        return ReadPage(image.number, model.read(image.picture, markdown=markdown, **options), image.dpi)
    result: Any = None
    with closing(model.read(image.picture, markdown=markdown, stream=True, **options)) as events:
        for event in events:
            on_event(event)
            if isinstance(event, Done):
                result = event.result
    return ReadPage(image.number, result, image.dpi)


def read_pages(
    model: Reader, document: Document, pages: PageRanges = ALL_PAGES, *, markdown: bool = False, **options: Any
) -> Iterator[ReadPage]:
    """Reads pages of a document, one after another. InvalidRequest if the document lacks one of them."""
    for number in pages.of(document.count, document.name):
        yield read_page(model, document.page(number), markdown=markdown, **options)
