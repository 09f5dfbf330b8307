"""Documents are opened as what they are, page by page, or refused with a reason."""

import builtins
import ctypes
import io
import signal
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pikepdf
import pypdfium2
import pytest
from helpers.documents import make_pdf, save_png, save_tiff
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kosmos_edge.documents import open_document
from kosmos_edge.documents.pdf import PdfPages
from kosmos_edge.errors import ImageDecodeError, InvalidRequest, KosmosIOError
from kosmos_edge.images import Opening, open_image


def sizes(document: Any) -> list[tuple[int, int]]:
    pages = [document.page(number) for number in range(1, document.count + 1)]
    assert [page.number for page in pages] == list(range(1, document.count + 1))
    return [(page.picture.width, page.picture.height) for page in pages]


# ---- images


def test_an_image_is_one_page(tmp_path: Path) -> None:
    path = save_png(tmp_path / "a.png", dpi=(300, 300))
    with open_document(path) as document:
        assert (document.name, document.count, document.paged) == (str(path), 1, False)
        page = document.page(1)
    assert page.picture.rgb == open_image(path).rgb and page.picture.name == str(path)
    assert page.dpi == (300, 300)


@pytest.mark.parametrize("kind", ["bytes", "file", "pil", "array", "picture"])
def test_every_kind_of_image_is_taken(tmp_path: Path, kind: str) -> None:
    path = save_png(tmp_path / "a.png")
    source: Any = {
        "bytes": path.read_bytes,
        "file": lambda: io.BytesIO(path.read_bytes()),
        "pil": lambda: Image.open(path),
        "array": lambda: np.zeros((80, 120, 3), np.uint8),
        "picture": lambda: open_image(path),
    }[kind]()
    with open_document(source) as document:
        assert sizes(document) == [(120, 80)] and document.page(1).dpi is None and not document.paged


def test_resolution_is_turned_with_the_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save_png(tmp_path / "a.jpg", dpi=(300, 150), exif=exif)
    with open_document(path) as document:
        assert sizes(document) == [(80, 120)] and document.page(1).dpi == (150, 300)
    with open_document(path, opening=Opening(exif=False)) as document:
        assert sizes(document) == [(120, 80)] and document.page(1).dpi == (300, 150)


def test_pages_of_a_tiff(tmp_path: Path) -> None:
    path = save_tiff(tmp_path / "a.tif", [(10, 20), (30, 40), (50, 60)])
    for source in (path, path.read_bytes()):
        with open_document(source) as document:
            assert document.paged and sizes(document) == [(10, 20), (30, 40), (50, 60)]
            assert document.page(2).dpi == (300, 150)
    with open_document(save_tiff(tmp_path / "one.tif", [(10, 20)])) as document:
        assert not document.paged and sizes(document) == [(10, 20)]


@pytest.mark.parametrize("kind", ["image", "tiff", "picture"])
@pytest.mark.parametrize("number", [0, -1, 4, True, "1", 1.0])
def test_a_page_that_is_not_there(tmp_path: Path, kind: str, number: Any) -> None:
    source: Any = {
        "image": lambda: save_png(tmp_path / "a.png"),
        "tiff": lambda: save_tiff(tmp_path / "a.tif", [(9, 9), (9, 9), (9, 9)]),
        "picture": lambda: Image.new("RGB", (9, 9)),
    }[kind]()
    with (
        open_document(source) as document,
        pytest.raises(InvalidRequest, match=r"page .* requested, expected 1\.\.[13]"),
    ):
        document.page(number)


def test_each_page_of_a_tiff_has_its_own_resolution(tmp_path: Path) -> None:
    images = [Image.new("L", (60, 40)) for _ in range(4)]
    for image, dpi in zip(images, [(204, 98), (204, 196), None, (300, 300)], strict=True):
        image.encoderinfo = {"tiffinfo": {} if dpi is None else {282: dpi[0], 283: dpi[1], 296: 2}}  # type: ignore[attr-defined]
    images[0].save(tmp_path / "fax.tif", save_all=True, append_images=images[1:])
    with open_document(tmp_path / "fax.tif") as document:
        assert [document.page(n).dpi for n in (1, 2, 3, 4)] == [(204, 98), (204, 196), None, (300, 300)]


def test_a_smaller_copy_in_a_tiff_is_no_page(tmp_path: Path) -> None:
    path = save_tiff(tmp_path / "a.tif", [(100, 200), (10, 20), (50, 60)], thumbnail=True)
    with Image.open(path) as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
    with open_document(path) as document:
        assert sizes(document) == [(100, 200), (50, 60)]


def test_frames_of_an_animation_are_no_pages(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    frames = [Image.new("RGB", (9, 9), (n * 90, 0, 0)) for n in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with open_document(path) as document:
        assert document.count == 1 and "several frames" in " ".join(document.page(1).picture.notes)


def test_a_damaged_directory_of_a_tiff_is_refused(tmp_path: Path) -> None:
    path = save_tiff(tmp_path / "a.tif", [(10, 20), (30, 40)])
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * entries, len(data) - 3)  # where the second directory should be
    with pytest.raises(ImageDecodeError, match=r"a\.tif"), open_document(bytes(data), name="a.tif") as document:
        sizes(document)


@pytest.mark.parametrize("data", [b"", b"no image", b"GIF89a", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_document(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with pytest.raises(ImageDecodeError, match=r"x\.png"):
        open_document(path)
    with pytest.raises(ImageDecodeError, match="given bytes"):
        open_document(data)


@pytest.mark.parametrize("as_path", [True, False])
@pytest.mark.parametrize("before", [b"\n", b"\xef\xbb\xbf", b"Content-Type: application/pdf\r\n\r\n", b"\0" * 1000])
def test_a_pdf_behind_other_bytes(tmp_path: Path, as_path: bool, before: bytes) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(before + make_pdf(["a", "b"]))
    with open_document(path if as_path else path.read_bytes(), dpi=72) as document:
        assert sizes(document) == [(144, 72), (144, 72)] and isinstance(document, PdfPages)


@pytest.mark.parametrize("as_path", [True, False])
def test_an_image_that_speaks_of_pdf_is_an_image(tmp_path: Path, as_path: bool) -> None:
    info = PngInfo()
    info.add_text("Comment", "%PDF-1.7 was its source")
    path = save_png(tmp_path / "a.png", (9, 7), pnginfo=info)
    with open_document(path if as_path else path.read_bytes()) as document:
        assert sizes(document) == [(9, 7)]


def test_missing_files_and_urls(tmp_path: Path) -> None:
    with pytest.raises(KosmosIOError, match="No such file"):
        open_document(tmp_path / "none.pdf")
    with pytest.raises(InvalidRequest, match="URLs are not fetched"):
        open_document("https://example.org/a.pdf")
    with pytest.raises(ImageDecodeError, match="directory"):
        open_document(tmp_path)


# ---- PDF


@pytest.mark.parametrize("as_path", [True, False])
def test_pages_of_a_pdf_are_rendered(tmp_path: Path, as_path: bool) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(make_pdf(["one", "two"]))
    with open_document(path if as_path else path.read_bytes(), dpi=100) as document:
        assert document.paged and sizes(document) == [(200, 100), (200, 100)]
        page = document.page(2)
    assert page.dpi == (100, 100) and page.picture.name == (str(path) if as_path else "the given bytes")
    pixels = np.frombuffer(page.picture.rgb, np.uint8).reshape(100, 200, 3)
    assert (pixels[0] == 255).all(), "white where nothing is"
    dark = np.argwhere(pixels.min(axis=2) < 128)
    top, left = dark.min(axis=0)
    bottom, right = dark.max(axis=0)
    # 12 point Helvetica with its baseline at 30 points from below, 20 from the left; lower case letters and a t
    assert 26 <= left <= 30 and top >= 45 and bottom <= 60 and right < 70


def test_resolution_sets_the_size() -> None:
    for dpi in (36, 72, 200, 1200):
        with open_document(make_pdf([""]), dpi=dpi) as document:
            assert sizes(document) == [(2 * dpi, dpi)]


@pytest.mark.parametrize("dpi", [35, 1201, True, 100.0, "200"])
def test_resolutions_out_of_range(dpi: Any) -> None:
    with pytest.raises(InvalidRequest, match="dpi: expected an integer from 36 to 1200"):
        open_document(make_pdf([""]), dpi=dpi)


def test_a_turned_page_is_upright() -> None:
    with open_document(make_pdf(["x"], rotate=90), dpi=72) as document:
        assert sizes(document) == [(72, 144)]


def test_large_pages_are_refused_before_they_are_rendered() -> None:
    document = open_document(make_pdf(["x"], (14400, 14400)), dpi=200)
    with document, pytest.raises(ImageDecodeError, match=r"page 1 at 200 dpi: 40000 x 40000 pixels"):
        document.page(1)
    document = open_document(make_pdf(["x"]), dpi=72, opening=Opening(max_pixels=9000))
    with document, pytest.raises(ImageDecodeError, match=r"144 x 72 pixels are more than the 9000"):
        document.page(1)


def test_a_page_is_asked_whether_it_has_text() -> None:
    with open_document(make_pdf(["words", "", "  "])) as document:
        assert isinstance(document, PdfPages)
        assert [document.has_text(number) for number in (1, 2, 3)] == [True, False, False]


def test_a_damaged_page_leaves_the_others() -> None:
    out = io.BytesIO()
    with pikepdf.open(io.BytesIO(make_pdf(["a", "b"]))) as pdf:
        pdf.Root.Pages.Kids[1] = pdf.make_indirect(pikepdf.Array([1]))
        pdf.save(out)
    with open_document(out.getvalue(), name="d.pdf", dpi=72) as document:
        assert isinstance(document, PdfPages) and document.has_text(1) and not document.has_text(2)
        assert document.page(1).picture.width == 144
        with pytest.raises(ImageDecodeError, match=r"d\.pdf: page 2: cannot be rendered"):
            document.page(2)


def encrypted(user: str) -> bytes:
    out = io.BytesIO()
    with pikepdf.open(io.BytesIO(make_pdf(["x"]))) as pdf:
        pdf.save(out, encryption=pikepdf.Encryption(owner="owner", user=user))
    return out.getvalue()


def test_an_encrypted_pdf_is_refused() -> None:
    with pytest.raises(ImageDecodeError, match=r"s.pdf: the PDF is encrypted and needs a password"):
        open_document(encrypted("secret"), name="s.pdf")
    with open_document(encrypted(""), dpi=72) as document:  # anybody may open it
        assert sizes(document) == [(144, 72)]


@pytest.mark.parametrize("change", ["", "replaced", "gone", "bytes"])
def test_a_long_pdf_is_opened_afresh_now_and_then(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, closed = [], []

    class Counted(pypdfium2.PdfDocument):
        def __init__(self, source: Any) -> None:
            opened.append(self)
            super().__init__(source)

        def close(self, *words: Any) -> None:
            closed.append(self)
            super().close(*words)

    monkeypatch.setattr(pypdfium2, "PdfDocument", Counted)
    path = tmp_path / "long.pdf"
    path.write_bytes(make_pdf(["one"] * 40))
    with open_document(path.read_bytes() if change == "bytes" else path, dpi=72) as document:
        first = document.page(1).picture.rgb
        if change == "replaced":
            other = tmp_path / "other.pdf"
            other.write_bytes(make_pdf(["another"] * 40))
            other.replace(path)
        if change == "gone":
            path.unlink()
        assert all(document.page(number).picture.rgb == first for number in range(2, 41))
    assert len(opened) == (1 if change in ("replaced", "gone") else 3) and closed == opened


class Interrupting(ctypes.c_int):
    """An argument during whose conversion Ctrl-C is pressed."""

    @classmethod
    def from_param(cls, value: int) -> int:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.01)  # Python gets to handle the signal
        return value


def test_ctrl_c_during_a_call_of_pdfium_is_no_damaged_page(monkeypatch: pytest.MonkeyPatch) -> None:
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda value: value)
    function.argtypes = (Interrupting,)
    render = pypdfium2.PdfPage.render

    def interrupted(page: Any, **options: Any) -> Any:
        function(1)
        return render(page, **options)

    with open_document(make_pdf(["a"]), dpi=72) as document:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(pypdfium2.PdfPage, "render", interrupted)
            document.page(1)
        assert document.page(1).picture.width == 144
        document.close()
    with pytest.raises(InvalidRequest, match="the document is closed"):
        document.page(1)


@pytest.mark.parametrize("before", ["encrypted", "broken"])
def test_a_pdf_without_pages_is_told(before: str) -> None:
    """Not as what was wrong with the file before it."""
    file = io.BytesIO()
    with pikepdf.new() as pdf:
        pdf.save(file)
    other = io.BytesIO(b"%PDF-1.7\nnothing")
    if before == "encrypted":
        with pikepdf.open(io.BytesIO(make_pdf(["x"]))) as pdf:
            pdf.save(other, encryption=pikepdf.Encryption(owner="o", user="u"))
    with pytest.raises(ImageDecodeError, match="password" if before == "encrypted" else "not a PDF"):
        open_document(other.getvalue(), name="a.pdf")
    with pytest.raises(ImageDecodeError, match=r"^b\.pdf: the PDF has no pages"):
        open_document(file.getvalue(), name="b.pdf")


@pytest.mark.parametrize("data", [b"%PDF-1.7\nnothing", b"%PDF-", b"%PDFx", make_pdf(["x"])[:60]])
def test_a_broken_pdf_is_refused(data: bytes) -> None:
    with pytest.raises(ImageDecodeError, match=r"b.pdf: not a PDF that can be opened|b.pdf: the PDF has no pages"):
        open_document(data, name="b.pdf")


def test_a_pdf_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("pypdfium2"):
            raise ImportError(name)
        return original(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImageDecodeError, match=r"a.pdf: PDF needs .* pip install 'kosmos-edge\[pdf\]'"):
        open_document(make_pdf(["x"]), name="a.pdf")
