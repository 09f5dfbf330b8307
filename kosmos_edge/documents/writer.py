"""What the text formats of documents have in common."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from kosmos_edge.documents.page import ReadPage

# What XML 1.0 cannot contain, even as a reference.
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class About:
    """Facts of a document that a format may name."""

    name: str  # the file
    paged: bool  # a PDF or a TIFF file of several pages, not an image
    pages: int  # that will be written, unless some fail
    model: str = ""
    version: str = ""  # of this package


class PageWriter(ABC):
    """A document as text, page by page: begin(), page() of each, end(). All parts joined are the file."""

    def __init__(self, about: About) -> None:
        self.about = about
        self.written = 0  # pages

    def begin(self) -> str:
        """What comes before the first page."""
        return ""

    def page(self, page: ReadPage) -> str:
        """A page."""
        text = self._page(page)
        self.written += 1
        return text

    def end(self) -> str:
        """What comes after the last page."""
        return ""

    @abstractmethod
    def _page(self, page: ReadPage) -> str: ...


def xml_text(text: str) -> str:
    """The text for an XML element. Characters that XML cannot contain become U+FFFD."""
    return escape(_NOT_IN_XML.sub("\ufffd", text))


def xml_value(text: str) -> str:
    """The text as the quoted value of an XML attribute; line breaks and tabs survive as references."""
    return quoteattr(_NOT_IN_XML.sub("\ufffd", text), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
