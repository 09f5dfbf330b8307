"""Documents: the pages of images, TIFF and PDF files, and what was read on them as text, hOCR, ALTO, TSV, JSON or PDF.

with open_document("book.pdf") as document:
    for page in read_pages(model, document, parse_pages("1-3")):
        print(page.number, [line.text for line in page.lines])
"""

from kosmos_edge.documents.formats import FORMATS, document_text
from kosmos_edge.documents.page import PageImage, ReadPage
from kosmos_edge.documents.ranges import ALL_PAGES, PageRanges, parse_pages
from kosmos_edge.documents.reading import Reader, read_page, read_pages
from kosmos_edge.documents.source import DEFAULT_DPI, MAX_DPI, MIN_DPI, Document, open_document
from kosmos_edge.documents.writer import About, PageWriter

__all__ = [
    "ALL_PAGES",
    "DEFAULT_DPI",
    "FORMATS",
    "MAX_DPI",
    "MIN_DPI",
    "About",
    "Document",
    "PageImage",
    "PageRanges",
    "PageWriter",
    "ReadPage",
    "Reader",
    "document_text",
    "open_document",
    "parse_pages",
    "read_page",
    "read_pages",
]
