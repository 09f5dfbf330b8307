"""Opens a document: an image, a TIFF file of several pages, or a PDF."""

from __future__ import annotations

import os
from io import BytesIO
from typing import BinaryIO, Protocol, Self

from kosmos_edge import files
from kosmos_edge.documents.page import PageImage
from kosmos_edge.errors import ImageDecodeError, InvalidRequest
from kosmos_edge.images import AS_USUAL, ImageInput, Opening, Picture, identify

DEFAULT_DPI = 200
MIN_DPI, MAX_DPI = 36, 1200
_PDF_MARK = b"%PDF"
_HEAD = 1024  # bytes, in which PDF readers look for the mark


class Document(Protocol):
    """An opened document. Pages are decoded or rendered when they are asked for; close it at the end."""

    name: str  # the path, or what it was given as
    count: int  # of pages
    paged: bool  # a PDF or a TIFF file of several pages, not an image

    def page(self, number: int) -> PageImage:
        """The page as an image; 1 is the first. ImageDecodeError, KosmosIOError, OutOfMemory, InvalidRequest."""
        ...

    def close(self) -> None:
        """Releases the file."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def open_document(
    source: ImageInput,
    *,
    dpi: int = DEFAULT_DPI,
    opening: Opening = AS_USUAL,
    name: str | None = None,
) -> Document:
    """Opens a path, bytes, a file object, or an image as open_image takes it.

    dpi: 36..1200, at which PDF pages are rendered. opening: how images are opened; its max_pixels also limits rendered
    pages. name: for messages; default: the path.
    Raises ImageDecodeError (damaged, encrypted, not a document, or a PDF without pypdfium2), KosmosIOError,
    InvalidRequest.
    """
    check_dpi(dpi)
    data: str | bytes
    if isinstance(source, str | os.PathLike):
        path = files.path_name(source)
        name = path if name is None else name
        with files.open_file(path, pipes=opening.pipes) as file:
            data = file.getvalue() if isinstance(file, BytesIO) else path  # a pipe can be read once
            is_pdf = _is_pdf(file, path)
    elif isinstance(source, bytes | bytearray):
        data = bytes(source)
        is_pdf = _is_pdf(BytesIO(data))
    elif hasattr(source, "read") and not isinstance(source, Picture):
        data = files.read_stream(source)
        is_pdf = _is_pdf(BytesIO(data))
    else:
        from kosmos_edge.documents.pictures import OneImage

        return OneImage(opening.open(source), name or "the given image")
    name = name or "the given bytes"
    if is_pdf:
        from kosmos_edge.documents.pdf import PdfPages

        return PdfPages(data, name, dpi, opening)
    from kosmos_edge.documents.pictures import ImageFile

    return ImageFile(data, name, opening)


def check_dpi(dpi: object) -> None:
    """InvalidRequest unless pages can be rendered at this resolution."""
    if isinstance(dpi, bool) or not isinstance(dpi, int) or not MIN_DPI <= dpi <= MAX_DPI:
        raise InvalidRequest(f"dpi: expected an integer from {MIN_DPI} to {MAX_DPI}, got {dpi!r}")


def _is_pdf(file: BinaryIO, name: str = "") -> bool:
    """Whether PDFium is to open the file: the mark may stand behind other bytes, such as the header of a mail."""
    head = file.read(_HEAD)
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(_PDF_MARK):
        return True
    if _PDF_MARK + b"-" not in head:
        return False
    try:
        identify(file, name)
    except ImageDecodeError:
        return True
    return False
