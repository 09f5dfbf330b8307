"""The formats in which a document can be written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kosmos_edge.documents.alto import AltoWriter
from kosmos_edge.documents.hocr import HocrWriter
from kosmos_edge.documents.page import ReadPage
from kosmos_edge.documents.plain import JsonWriter, MarkdownWriter, PlainWriter
from kosmos_edge.documents.tsv import TsvWriter
from kosmos_edge.documents.writer import About, PageWriter
from kosmos_edge.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Format:
    """A format."""

    suffix: str  # of its files
    writer: Callable[[About, bool], PageWriter] | None  # second argument: words; None: a PDF (searchable.py)
    markdown: bool = False  # the pages are read by the model's Markdown task
    suffixes: tuple[str, ...] = ()  # others that stand for it


FORMATS: dict[str, Format] = {
    "txt": Format(".txt", lambda about, words: PlainWriter(about), suffixes=(".text",)),
    "json": Format(".json", lambda about, words: JsonWriter(about)),
    "markdown": Format(".md", lambda about, words: MarkdownWriter(about), True, (".markdown",)),
    "hocr": Format(".hocr", lambda about, words: HocrWriter(about, words=words), suffixes=(".html", ".htm", ".xhtml")),
    "alto": Format(".xml", lambda about, words: AltoWriter(about, words=words), suffixes=(".alto",)),
    "tsv": Format(".tsv", lambda about, words: TsvWriter(about)),
    "pdf": Format(".pdf", None),
}
SUFFIXES = {suffix: name for name, form in FORMATS.items() for suffix in (form.suffix, *form.suffixes)}


def document_text(form: str, pages: Iterable[ReadPage], about: About, *, words: bool = False) -> str:
    """The pages in a format that is text; words: also give words a place in hOCR and ALTO, which is an estimate.

    Raises InvalidRequest for another format, and for pages that were not read as lines but need them.
    """
    writer = FORMATS[form].writer if form in FORMATS else None
    if writer is None:
        names = ", ".join(name for name, form in FORMATS.items() if form.writer is not None)
        raise InvalidRequest(f"form: expected one of {names}, got {form!r}")
    out = writer(about, words)
    return out.begin() + "".join(out.page(page) for page in pages) + out.end()
