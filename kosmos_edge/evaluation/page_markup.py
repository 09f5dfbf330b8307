"""Lines and their boxes from hOCR and ALTO files."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.results import Corners, check_corners

_BBOX = re.compile(r"(?:^|;)\s*bbox\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)")
_LINES = {"ocr_line", "ocr_header", "ocr_caption", "ocr_textfloat", "ocrx_line"}  # Tesseract's kinds of lines
_EMPTY = {"br", "img", "meta", "link", "hr", "input"}  # HTML's elements without an end


class _Hocr(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, Corners | None]] = []
        self.pages = 0
        self._depth = 0  # of elements inside the line; 0: outside
        self._text: list[str] = []
        self._box: Corners | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _EMPTY:
            self._text.append(" ")
            return
        if self._depth:
            self._depth += 1
            return
        named = {name: value or "" for name, value in attrs}
        classes = set(named.get("class", "").split())
        self.pages += "ocr_page" in classes
        if _LINES & classes:
            found = _BBOX.search(named.get("title", ""))
            self._box = None if found is None else check_corners("bbox", [float(n) for n in found.groups()])
            self._depth, self._text = 1, []

    def handle_endtag(self, tag: str) -> None:
        if not self._depth or tag in _EMPTY:
            return
        self._depth -= 1
        if not self._depth:
            self.lines.append((" ".join("".join(self._text).split()), self._box))

    def handle_data(self, data: str) -> None:
        if self._depth:
            self._text.append(data)


def read_hocr(text: str, path: Path) -> list[tuple[str, Corners | None]]:
    """(text, box) of every line; InvalidRequest unless there is one page."""
    parser = _Hocr()
    parser.feed(text)
    parser.close()
    if parser.pages == 0:
        raise InvalidRequest(f"{path}: expected hOCR, which has an element of class ocr_page")
    _check_one(parser.pages, path)
    return parser.lines


def read_alto(text: str, path: Path) -> list[tuple[str, Corners | None]]:
    """(text, box) of every TextLine, of any version's namespace; boxes are taken as pixels. InvalidRequest if it is
    not well-formed, or of several pages."""
    try:
        root = ElementTree.fromstring(text.encode())
    except ElementTree.ParseError as error:
        raise InvalidRequest(f"{path}: not XML: {error}") from None
    if _local(root) != "alto":
        raise InvalidRequest(f"{path}: expected ALTO, got an element {_local(root)}")
    _check_one(sum(_local(node) == "Page" for node in root.iter()), path)
    unit = next((node.text for node in root.iter() if _local(node) == "MeasurementUnit"), "pixel")
    if unit != "pixel":
        raise InvalidRequest(f"{path}: MeasurementUnit is {unit}, expected pixel")
    return [_line(node, path) for node in root.iter() if _local(node) == "TextLine"]


def _check_one(pages: int, path: Path) -> None:
    if pages > 1:
        raise InvalidRequest(f"{path}: {pages} pages, expected the one that the picture shows")


def _line(node: ElementTree.Element, path: Path) -> tuple[str, Corners | None]:
    words = [part.get("CONTENT", "") for part in node if _local(part) == "String"]
    try:
        x, y, width, height = (float(node.attrib[name]) for name in ("HPOS", "VPOS", "WIDTH", "HEIGHT"))
    except KeyError:
        return " ".join(words), None
    except ValueError as error:
        raise InvalidRequest(f"{path}: a TextLine: {error}") from None
    return " ".join(words), (x, y, x + width, y + height)


def _local(node: ElementTree.Element) -> str:
    return node.tag.rpartition("}")[2]
