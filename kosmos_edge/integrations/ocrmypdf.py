"""A plugin for OCRmyPDF 17 and later: ocrmypdf --plugin kosmos_edge.integrations.ocrmypdf in.pdf out.pdf

OCRmyPDF does what it does with Tesseract (deciding which pages need text, PDF/A, optimization, metadata), and the lines
come from a model of this package. Places of words are estimates (documents/words.py). Languages given with -l are not
used: the model knows none. It does not tell how a page is turned, so --rotate-pages and --deskew are refused.

Pages are read one at a time in each process, because the model itself uses all processors.
"""

from __future__ import annotations

import logging
import shutil
import threading
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from ocrmypdf import hookimpl
from ocrmypdf.exceptions import BadArgsError, ExitCode, ExitCodeException, MissingDependencyError
from ocrmypdf.models.ocr_element import BoundingBox, OcrClass, OcrElement
from ocrmypdf.pluginspec import OcrEngine, OrientationConfidence

from kosmos_edge.documents import About, ReadPage, open_document, read_page
from kosmos_edge.documents.hocr import HocrWriter
from kosmos_edge.documents.page import around
from kosmos_edge.documents.searchable import SearchablePdf, check_libraries
from kosmos_edge.documents.words import is_leftward, split_words
from kosmos_edge.errors import InvalidRequest, KosmosError
from kosmos_edge.loading import KV_TYPES, KvType, find_model, load
from kosmos_edge.model import Model

F = TypeVar("F", bound=Callable[..., Any])
log = logging.getLogger(__name__)
_ENGINE = "auto"  # the value of --ocr-engine for which this engine is used
_TESSERACT = "ocrmypdf.builtin_plugins.tesseract_ocr"

_lock = threading.Lock()  # held while a page is read, and while the model is loaded
_loaded: dict[tuple[Any, ...], Model] = {}


class KosmosEdgeError(ExitCodeException):  # type: ignore[misc]
    """The model could not be loaded, or not read a page."""

    exit_code = ExitCode.child_process_error


class KosmosOcrEngine(OcrEngine):  # type: ignore[misc]
    """Reads the page images that OCRmyPDF makes."""

    @staticmethod
    def version() -> str:
        """That of this package."""
        from kosmos_edge import __version__

        return __version__

    @staticmethod
    def creator_tag(options: Any) -> str:
        """For the PDF's metadata."""
        return f"kosmos-edge {KosmosOcrEngine.version()}"

    def __str__(self) -> str:
        return f"kosmos-edge {self.version()}"

    @staticmethod
    def languages(options: Any) -> set[str]:
        """None, which OCRmyPDF takes for: it does not matter."""
        return set()

    @staticmethod
    def get_orientation(input_file: Path, options: Any) -> OrientationConfidence:
        """Upright, without any confidence."""
        return OrientationConfidence(angle=0, confidence=0.0)

    @staticmethod
    def supports_generate_ocr() -> bool:
        """Yes."""
        return True

    @staticmethod
    def generate_ocr(input_file: Path, options: Any, page_number: int = 0) -> tuple[OcrElement, str]:
        """The lines of a page as OCRmyPDF's tree, and its text."""
        page = _read(input_file, options)
        return _tree(page, page_number), page.text

    @staticmethod
    def generate_hocr(input_file: Path, output_hocr: Path, output_text: Path, options: Any) -> None:
        """The lines of a page as a hOCR file, and its text."""
        page = _read(input_file, options)
        about = About(input_file.name, False, 1, page.result.model, KosmosOcrEngine.version())
        writer = HocrWriter(about, words=True)
        output_hocr.write_text(writer.begin() + writer.page(page) + writer.end(), encoding="utf-8")
        output_text.write_text(page.text, encoding="utf-8")

    @staticmethod
    def generate_pdf(input_file: Path, output_pdf: Path, output_text: Path, options: Any) -> None:
        """The text of a page as a PDF without anything visible, and by itself."""
        page = _read(input_file, options)
        pdf = SearchablePdf()
        pdf.add_text(page)
        output_pdf.write_bytes(pdf.save())
        output_text.write_text(page.text, encoding="utf-8")


# ---- hooks


def _hook(function: F) -> F:
    return cast(F, hookimpl(function))


@_hook
def initialize(plugin_manager: Any) -> None:
    """Without Tesseract on this machine, OCRmyPDF's plugin for it keeps its options, which OCRmyPDF expects, alone."""
    if shutil.which("tesseract") is not None:
        return
    tesseract = plugin_manager.get_plugin(_TESSERACT)
    if tesseract is not None:
        plugin_manager.unregister(tesseract)
        options = SimpleNamespace(add_options=tesseract.add_options, register_options=tesseract.register_options)
        plugin_manager.register(options, f"{_TESSERACT} options")


@_hook
def add_options(parser: ArgumentParser) -> None:
    """The options of this plugin."""
    group = parser.add_argument_group("kosmos-edge", "Options of the model that reads")
    group.add_argument("--kosmos-edge-model", metavar="TAG|FILE", help="Model: a tag, a GGUF file, or user/repo:TAG.")
    group.add_argument("--kosmos-edge-device", metavar="NAME", default="auto", help="Device: auto, cpu, cuda, ...")
    group.add_argument("--kosmos-edge-threads", metavar="N", type=int, help="Threads. Default: all.")
    group.add_argument(
        "--kosmos-edge-kv-type", choices=KV_TYPES, default="f16", help="Keys and values; q8_0: half the memory."
    )
    group.add_argument("--kosmos-edge-max-tokens", metavar="N", type=int, help="Maximum length of a page's text.")


@_hook
def check_options(options: Any) -> None:
    """Refuses what the model cannot do, and says what is missing, before any page is made."""
    if options.ocr_engine != _ENGINE:
        return
    if options.rotate_pages or options.deskew:
        raise BadArgsError("kosmos-edge does not tell how a page is turned: leave out --rotate-pages and --deskew")
    try:
        check_libraries()
        find_model(_option(options, "model"))
    except InvalidRequest as error:
        raise MissingDependencyError(str(error)) from error
    except KosmosError as error:
        raise BadArgsError(str(error)) from error


@_hook
def get_ocr_engine(options: Any) -> OcrEngine | None:
    """This engine, unless the user asked for another one by name."""
    if options is not None and options.ocr_engine != _ENGINE:
        return None
    return KosmosOcrEngine()


# ---- inside


def _option(options: Any, name: str) -> Any:
    return getattr(options, f"kosmos_edge_{name}", None)  # not there if OCRmyPDF is called from Python without it


def _read(image_file: Path, options: Any) -> ReadPage:
    given = {"max_tokens": limit} if (limit := _option(options, "max_tokens")) is not None else {}
    try:
        with open_document(image_file) as document:
            image = document.page(1)
        with _lock:
            page = read_page(_model(options), image, **given)
    except KosmosError as error:
        raise KosmosEdgeError(f"kosmos-edge: {error}") from error
    if page.result.finish_reason == "length":
        tokens = page.result.timings.tokens
        log.warning("the text was stopped at %d tokens; raise --kosmos-edge-max-tokens", tokens)
    return page


def _model(options: Any) -> Any:
    """The Model for these options, loaded once in each process."""
    model, threads = _option(options, "model"), _option(options, "threads")
    kv_type: KvType = _option(options, "kv_type") or "f16"
    key = (model, _option(options, "device") or "auto", threads, kv_type)
    if key not in _loaded:
        _loaded[key] = load(model, device=key[1], threads=threads, kv_type=kv_type)
    return _loaded[key]


def _tree(page: ReadPage, number: int) -> OcrElement:
    rectangles = [page.rectangle(line.box) for line in page.lines]
    dpi = None if page.dpi is None else page.dpi[0]
    tree = OcrElement(OcrClass.PAGE, bbox=BoundingBox(0, 0, *page.size), dpi=dpi, page_number=number)
    if not rectangles:
        return tree
    paragraph = OcrElement(OcrClass.PARAGRAPH, bbox=BoundingBox(*around(rectangles)))
    tree.children.append(paragraph)
    for line, rectangle in zip(page.lines, rectangles, strict=True):
        direction = "rtl" if is_leftward(line.text) else "ltr"
        element = OcrElement(OcrClass.LINE, bbox=BoundingBox(*rectangle), confidence=line.score, direction=direction)
        for word in split_words(line.text, rectangle):
            place = BoundingBox(*word.rectangle)
            element.children.append(OcrElement(OcrClass.WORD, bbox=place, text=word.text, confidence=line.score))
        paragraph.children.append(element)
    return tree
