"""A PDF whose pages can be searched: images, or the pages of a PDF, under text that is not seen.

Needs pikepdf, fontTools and python-bidi (pip install 'kosmos-edge[pdf]').

Each line is one string over the line's box, as high as the box and stretched to its width. PDF readers expect the
characters of a page from left to right and turn right-to-left words round themselves, so a line with such words is
written in the order in which it is seen. A reader restores lines of one direction; of a line with both, it restores the
words, but not always their order.
"""

from __future__ import annotations

import math
import re
import zlib
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageChops

from kosmos_edge.documents.glyphless import DESCENT, UNIT, GlyphlessFont
from kosmos_edge.documents.page import PageImage, ReadPage
from kosmos_edge.documents.pdf import PdfPages
from kosmos_edge.documents.pictures import ImageFile
from kosmos_edge.documents.source import DEFAULT_DPI, Document
from kosmos_edge.documents.words import units
from kosmos_edge.errors import ImageDecodeError, InvalidRequest
from kosmos_edge.files import system_error

if TYPE_CHECKING:
    import pikepdf

_DEEPEST = 100  # nodes above a page; damaged files have circles
_LETTER = (0.0, 0.0, 612.0, 792.0)  # what PDFium takes for a page without an area
_LARGEST = 14400  # units: of a page's side, by the specification
_FONT = "/KosmosEdgeText"
_TESSERACTS_FONT = "/f-0-0"  # in a page that is text alone: OCRmyPDF's --pdf-renderer sandwich looks for this name
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_NEEDED = ("pikepdf", "fontTools.fontBuilder", "bidi")


def check_libraries() -> None:
    """InvalidRequest if the libraries for writing PDFs are not installed."""
    try:
        for name in _NEEDED:
            import_module(name)
    except ImportError as error:
        raise InvalidRequest(
            f"format pdf: {error.name or error} is not installed: pip install 'kosmos-edge[pdf]'"
        ) from None


class SearchablePdf:
    """A copy of a PDF, or a new one with a page for each image, with the text that was read."""

    def __init__(self, document: Document | None = None) -> None:
        """document: None for pages without images. Raises ImageDecodeError for a damaged PDF, InvalidRequest for an
        encrypted or a signed one."""
        check_libraries()
        import pikepdf

        self.pages = 0  # with text
        self._document = document
        self._font = GlyphlessFont()
        self._font_name = _TESSERACTS_FONT if document is None else _FONT
        if isinstance(document, PdfPages):
            self._pdf = _open(document)
        else:
            self._pdf = pikepdf.new()
        self._font_object = self._pdf.make_indirect(pikepdf.Dictionary())

    def add(self, page: ReadPage, image: PageImage) -> None:
        """Puts the text of a page over it; the image's page is appended if the document is no PDF.

        Raises ImageDecodeError for a damaged page of a PDF.
        """
        if isinstance(self._document, PdfPages):
            try:
                self._cover(page)
            except MemoryError:
                raise
            except Exception as error:  # damaged objects can be of any type
                raise ImageDecodeError(f"{self._document.name}: page {page.number}: damaged ({error})") from error
        else:
            self._append(page, image)
        self.pages += 1

    def _cover(self, page: ReadPage) -> None:
        target = self._pdf.pages[page.number - 1]
        text = self._text(page, *_upright(target))
        self._add_font(target)
        # before what the page shows: whatever its content leaves open, or closes too often, does not reach the text
        target.contents_add(text, prepend=True)

    def add_text(self, page: ReadPage) -> None:
        """Appends a page that is nothing but the text, as large as the page that was read."""
        self._append(page, None)
        self.pages += 1

    def save(self) -> bytes:
        """The PDF with the pages so far. Raises ImageDecodeError if a damaged original cannot be written again."""
        import pikepdf

        self._font.embed(self._pdf, self._font_object)
        out = BytesIO()
        try:
            self._pdf.save(out, deterministic_id=True)
        except (pikepdf.PdfError, RuntimeError) as error:
            name = "the PDF" if self._document is None else self._document.name
            raise ImageDecodeError(f"{name}: damaged, and cannot be written again ({error})") from error
        return out.getvalue()

    # ---- text

    def _text(self, page: ReadPage, matrix: tuple[float, ...], size: tuple[float, float]) -> bytes:
        """The lines as content of a page that is shown `size` units large; matrix: from there to the page's own."""
        from bidi import get_display

        across, up = size[0] / page.size[0], size[1] / page.size[1]
        out = [f"q {_numbers(*matrix)} cm BT 3 Tr\n"]  # 3: neither filled nor drawn
        for line in page.lines:
            text = _LONE_SURROGATE.sub("\ufffd", " ".join(line.text.split()))
            left, top, right, bottom = page.rectangle(line.box)
            height = (bottom - top) * up
            natural = sum(units(character) for character in text) * UNIT / 1000 * height
            stretch = 100 * (right - left) * across / natural if natural else 100
            x, y = left * across, size[1] - bottom * up - DESCENT / 1000 * height
            code = self._font.encode(str(get_display(text))).hex()
            place = f"{_numbers(height)} Tf {_numbers(stretch)} Tz 1 0 0 1 {_numbers(x, y)} Tm"
            out.append(f"{self._font_name} {place} <{code}> Tj\n")
        out.append("ET Q\n")
        return "".join(out).encode("ascii")

    def _add_font(self, page: pikepdf.Page) -> None:
        """The page gets resources of its own: pages may share theirs, or inherit them."""
        from pikepdf import Dictionary, Name

        resources = Dictionary(page.resources)
        fonts = Dictionary(resources.get("/Font", Dictionary()))
        fonts[Name(self._font_name)] = self._font_object
        resources.Font = fonts
        page.obj.Resources = resources

    # ---- images

    def _append(self, page: ReadPage, image: PageImage | None) -> None:
        from pikepdf import Array, Dictionary, Name

        across, down = page.dpi or (DEFAULT_DPI, DEFAULT_DPI)
        width, height = page.size[0] * 72 / across, page.size[1] * 72 / down
        unit = max(1, math.ceil(max(width, height) / _LARGEST))  # of 1/72 inch
        width, height = width / unit, height / unit
        target = self._pdf.add_blank_page()
        target.obj.MediaBox = Array([0, 0, width, height])  # page_size takes no side of less than 3 units
        if unit > 1:
            target.obj.UserUnit = unit
        target.obj.Resources = Dictionary(Font=Dictionary())
        picture = b""
        if image is not None:
            target.obj.Resources.XObject = Dictionary(Page=self._image(image))
            picture = f"q {_numbers(width, 0, 0, height, 0, 0)} cm /Page Do Q\n".encode("ascii")
        text = self._text(page, (1, 0, 0, 1, 0, 0), (width, height))
        target.obj.Contents = self._pdf.make_stream(picture + text)
        target.obj.Resources.Font[Name(self._font_name)] = self._font_object

    def _image(self, image: PageImage) -> pikepdf.Object:
        """The page's image: the JPEG file as it is if it is shown as it is, otherwise without loss."""
        from pikepdf import Name

        picture = image.picture
        original = _plain_jpeg(self._document) if picture.orientation == 1 and not picture.notes else None
        if original is not None:
            data, mode = original
            filters = Name.DCTDecode
        else:
            pixels = _smallest(Image.frombytes("RGB", (picture.width, picture.height), picture.rgb))
            data, mode = zlib.compress(pixels.tobytes()), pixels.mode
            filters = Name.FlateDecode
        stream = self._pdf.make_stream(
            data,
            Type=Name.XObject,
            Subtype=Name.Image,
            Width=picture.width,
            Height=picture.height,
            ColorSpace=Name.DeviceRGB if mode == "RGB" else Name.DeviceGray,
            BitsPerComponent=1 if mode == "1" else 8,
            Filter=filters,
        )
        return self._pdf.make_indirect(stream)


def _open(document: PdfPages) -> pikepdf.Pdf:
    import pikepdf

    name, source = document.name, document.original
    try:
        pdf = pikepdf.open(BytesIO(source) if isinstance(source, bytes) else source)
        form = pdf.Root.get("/AcroForm")
        signed = form is not None and int(form.get("/SigFlags", 0)) & 1
        count = len(pdf.pages)
    except MemoryError:
        raise
    except OSError as error:
        raise system_error(error, name) from error
    except Exception as error:  # damaged objects can be of any type
        raise ImageDecodeError(f"{name}: damaged ({error})") from error
    if pdf.is_encrypted:
        raise InvalidRequest(f"{name}: the PDF is encrypted; decrypt it first (qpdf --decrypt)")
    if signed:
        raise InvalidRequest(f"{name}: the PDF is signed, and a text layer would break the signature")
    if count != document.count:
        raise ImageDecodeError(f"{name}: damaged: PDFium finds {document.count} pages, qpdf {count}")
    return pdf


def _upright(page: pikepdf.Page) -> tuple[tuple[float, ...], tuple[float, float]]:
    """The matrix from the page as it is shown, its lower left corner at 0, 0, to its own units; the shown size."""
    media, crop = ([float(value) for value in box] for box in (page.mediabox, page.cropbox))
    x1, y1, x2, y2 = _ordered(media)
    if x1 == x2 or y1 == y2:
        x1, y1, x2, y2 = _LETTER
    c1, d1, c2, d2 = _ordered(crop)
    both = max(x1, c1), max(y1, d1), min(x2, c2), min(y2, d2)
    if both[0] < both[2] and both[1] < both[3]:
        x1, y1, x2, y2 = both
    width, height = x2 - x1, y2 - y1
    turn = _turn(page) % 360
    matrices: dict[int, tuple[float, ...]] = {  # clockwise
        0: (1, 0, 0, 1, x1, y1),
        90: (0, 1, -1, 0, x2, y1),
        180: (-1, 0, 0, -1, x2, y2),
        270: (0, -1, 1, 0, x1, y2),
    }
    return matrices.get(turn, matrices[0]), (width, height) if turn % 180 == 0 else (height, width)


def _turn(page: pikepdf.Page) -> int:
    """Degrees by which the page is shown turned clockwise; inherited from the nodes above it."""
    node: Any = page.obj
    for _ in range(_DEEPEST):
        if "/Rotate" in node:
            return int(node.Rotate)
        if "/Parent" not in node:
            break
        node = node.Parent
    return 0


def _ordered(box: list[float]) -> tuple[float, float, float, float]:
    return min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])


def _plain_jpeg(document: Document | None) -> tuple[bytes, str] | None:
    """The document's file and mode if it is a JPEG file whose pixels need no conversion."""
    if not isinstance(document, ImageFile):
        return None
    source = document.original
    if isinstance(source, str):
        with open(source, "rb") as file:
            data = file.read()
    else:
        data = source
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        with Image.open(BytesIO(data)) as image:
            return (data, image.mode) if image.format == "JPEG" and image.mode in ("RGB", "L") else None
    except (OSError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None


def _smallest(image: Image.Image) -> Image.Image:
    """The image in the smallest mode with the same pixels: 1, L or RGB."""
    red, green, blue = image.split()
    if ImageChops.difference(red, green).getbbox() or ImageChops.difference(red, blue).getbbox():
        return image
    counts: list[Any] = red.histogram()
    return red.convert("1", dither=Image.Dither.NONE) if not any(counts[1:255]) else red


def _numbers(*values: float) -> str:
    return " ".join(f"{value:.4f}".rstrip("0").rstrip(".") for value in values)
