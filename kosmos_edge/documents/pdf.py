"""Pages of a PDF, rendered by PDFium (pip install 'kosmos-edge[pdf]')."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any, Self, TypeVar

from kosmos_edge.documents.page import PageImage
from kosmos_edge.errors import ImageDecodeError, InvalidRequest, KosmosError, OutOfMemory
from kosmos_edge.files import open_file
from kosmos_edge.images import Opening, Picture, check_size

if TYPE_CHECKING:
    from types import ModuleType

T = TypeVar("T")

_NO_FILE = 2  # FPDF_ERR_FILE
_PASSWORD_NEEDED = 4  # FPDF_ERR_PASSWORD
_FRESH_AFTER = 16  # pages


class PdfPages:
    """A PDF file. For one thread: PDFium is not safe for several, whatever they open.

    PDFium runs in a thread of the file's own: ctypes makes an error of the call out of a KeyboardInterrupt that comes
    while it converts arguments, and Ctrl-C would be lost. In a thread no KeyboardInterrupt is raised.
    It keeps what it has parsed, in the end the whole file, so the file is opened again now and then.
    """

    paged = True

    def __init__(self, source: str | bytes, name: str, dpi: int, opening: Opening) -> None:
        """source: the path, or the file's bytes. Raises ImageDecodeError, KosmosIOError."""
        self.name, self.original = name, source
        self._dpi, self._opening = dpi, opening
        pdfium = _pdfium(name)
        self._error: type[Exception] = pdfium.PdfiumError
        self._state, self._used = _state(source), 0
        if isinstance(source, str):
            open_file(source, pipes=False).close()  # the system's reason, which PDFium does not tell
        self._thread, self._closed = ThreadPoolExecutor(1, "kosmos-edge pdf"), False
        try:
            self._pdf: Any = self._call(self._open_first)
            self.count = self._call(lambda: len(self._pdf))
        except RuntimeError as error:
            self._thread.shutdown()
            if not isinstance(error, pdfium.PdfiumError):
                raise OutOfMemory(f"no thread could be started: {error}") from error
            if getattr(error, "err_code", None) == _PASSWORD_NEEDED:
                raise ImageDecodeError(
                    f"{name}: the PDF is encrypted and needs a password; decrypt it first (qpdf --decrypt)"
                ) from error
            if getattr(error, "err_code", None) == _NO_FILE:  # no reason of this file's own
                raise ImageDecodeError(f"{name}: the PDF has no pages that can be found") from error
            raise ImageDecodeError(f"{name}: not a PDF that can be opened ({error})") from error
        except BaseException:
            self._thread.shutdown()
            raise
        if self.count == 0:
            self.close()
            raise ImageDecodeError(f"{name}: the PDF has no pages")

    def _call(self, call: Callable[[], T]) -> T:
        if self._closed:
            raise InvalidRequest(f"{self.name}: the document is closed")
        return self._thread.submit(call).result()

    def _open_first(self) -> Any:
        """Opens the file. Where PDFium finds no page it fails without a reason, and leaves that of another file: so
        a second try follows a failure that no readable file has, to tell the two apart."""
        pdfium = _pdfium(self.name)
        try:
            return self._open()
        except pdfium.PdfiumError:
            pdfium.raw.FPDF_LoadDocument(b"", None)  # fails with _NO_FILE
            return self._open()

    def _open(self) -> Any:
        pdf = _pdfium(self.name).PdfDocument(self.original)
        pdf.init_forms()  # so that filled-in fields are rendered
        return pdf

    def _page(self, number: int) -> Any:
        if self._used >= _FRESH_AFTER and _state(self.original) == self._state:  # not another file of that name
            fresh = self._open()
            self._pdf.close()
            self._pdf, self._used = fresh, 0
        self._used += 1
        return self._pdf[number - 1]

    def page(self, number: int) -> PageImage:
        """See Document.page."""
        return self._call(lambda: self._render(number))

    def _render(self, number: int) -> PageImage:
        name = f"{self.name}: page {number}"
        page: Any = None
        try:
            page = self._page(number)
            scale = self._dpi / 72  # a point is 1/72 inch
            width, height = (math.ceil(side * scale) for side in page.get_size())
            check_size((width, height), f"{name} at {self._dpi} dpi", self._opening, of_file=True)
            bitmap = page.render(scale=scale, rev_byteorder=True, prefer_bgrx=True)
            image = bitmap.to_pil().convert("RGB")
            picture = Picture(image.tobytes(), image.width, image.height, self.name)
            bitmap.close()
        except (KosmosError, MemoryError):
            raise
        except Exception as error:  # damaged pages: PdfiumError, or whatever ctypes makes of the values
            raise ImageDecodeError(f"{name}: cannot be rendered ({error})") from error
        finally:
            if page is not None:
                page.close()
        return PageImage(number, picture, (self._dpi, self._dpi))

    def has_text(self, number: int) -> bool:
        """Whether the page has text other than blanks already; not if it is damaged, which page() tells."""
        return self._call(lambda: self._has_text(number))

    def _has_text(self, number: int) -> bool:
        suppressed = contextlib.suppress(self._error)
        with suppressed, closing(self._page(number)) as page, closing(page.get_textpage()) as text:
            return bool(text.get_text_bounded().strip())
        return False

    def close(self) -> None:
        """Closes the file. Waits for what PDFium is at; a second time it does nothing."""
        if not self._closed:
            self._closed = True
            with self._thread:
                self._thread.submit(lambda: self._pdf.close()).result()  # whichever is open by then

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _state(source: str | bytes) -> tuple[int, ...] | None:
    """What changes when a file does; None if it is gone, and for bytes."""
    if isinstance(source, str):
        with contextlib.suppress(OSError):
            found = os.stat(source)
            return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
    return None


def _pdfium(name: str) -> ModuleType:
    try:
        import pypdfium2
    except ImportError:
        raise ImageDecodeError(
            f"{name}: PDF needs a library that is not installed: pip install 'kosmos-edge[pdf]'"
        ) from None
    module: ModuleType = pypdfium2
    return module
