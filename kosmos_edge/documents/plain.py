"""Pages as plain text, as Markdown and as JSON."""

from __future__ import annotations

from typing import Any

from kosmos_edge.documents.page import ReadPage
from kosmos_edge.documents.writer import PageWriter
from kosmos_edge.json_text import to_json


class PlainWriter(PageWriter):
    """The text of each page; a form feed before every page but the first, as pdftotext writes it."""

    def _page(self, page: ReadPage) -> str:
        return ("\f" if self.written else "") + page.text


class MarkdownWriter(PageWriter):
    """The Markdown of each page; a blank line between pages."""

    def _page(self, page: ReadPage) -> str:
        return ("\n" if self.written else "") + page.text


class JsonWriter(PageWriter):
    """An image: its record. A PDF or a TIFF file of several pages: {"path", "pages": [record, ...]}.

    A record is Result.to_dict() without its entities, which are the lines again, and for a page with its number and
    the resolution, [across, down], at which it was read.
    """

    def begin(self) -> str:
        return f'{{"path": {to_json(self.about.name)}, "pages": [\n' if self.about.paged else ""

    def _page(self, page: ReadPage) -> str:
        record: dict[str, Any] = {**page.result.to_dict(), "path": self.about.name}
        del record["entities"]
        if not self.about.paged:
            return to_json(record, 2) + "\n"
        del record["path"]
        numbers = {"page": page.number, "dpi": None if page.dpi is None else list(page.dpi)}
        return (",\n" if self.written else "") + to_json(numbers | record, 2)

    def end(self) -> str:
        return ("\n" if self.written else "") + "]}\n" if self.about.paged else ""
