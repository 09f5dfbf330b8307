"""Searchable PDFs: what PDFium finds in them, where it finds it, and that the pages look as before."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pikepdf
import pypdfium2
import pytest
from helpers.documents import LINES, make_page, make_pdf, make_result, save_png, save_tiff
from PIL import Image

from kosmos_edge.documents import ReadPage, open_document
from kosmos_edge.documents.searchable import SearchablePdf, check_libraries
from kosmos_edge.errors import ImageDecodeError, InvalidRequest

Found = list[tuple[str, tuple[float, float, float, float]]]


def lines_of(data: bytes, page: int = 0) -> Found:
    """The lines that PDFium extracts, with left, bottom, right, top in units of the page."""
    with pypdfium2.PdfDocument(data) as pdf:
        text = pdf[page].get_textpage()
        content = text.get_text_range()
        found: Found = []
        start = 0
        for line in content.split("\r\n"):
            count = len(line.encode("utf-16-le")) // 2  # as PDFium counts
            boxes = [text.get_charbox(start + n, loose=True) for n in range(count)]
            if boxes:
                lefts, bottoms, rights, tops = zip(*boxes, strict=True)
                found.append((line, (min(lefts), min(bottoms), max(rights), max(tops))))
            start += count + 2
        return found


def rendered(data: bytes, page: int = 0, scale: float = 1) -> np.ndarray[Any, Any]:
    with pypdfium2.PdfDocument(data) as pdf:
        return np.asarray(pdf[page].render(scale=scale).to_pil().convert("RGB"))


def searchable(source: Any, pages: dict[int, Any], dpi: int = 72) -> bytes:
    """pages: number -> lines, or None for those of LINES."""
    with open_document(source, dpi=dpi) as document:
        pdf = SearchablePdf(document)
        for number, lines in pages.items():
            image = document.page(number)
            result = make_result(image.picture.width, image.picture.height, lines)
            pdf.add(ReadPage(number, result, image.dpi), image)
        assert pdf.pages == len(pages)
        return pdf.save()


# ---- the text and its places


def test_text_of_all_scripts_is_found_where_it_is(tmp_path: Path) -> None:
    data = searchable(save_png(tmp_path / "a.png", (850, 1100), dpi=(100, 100)), {1: None})
    found = lines_of(data)
    assert [text for text, _ in found] == [text for text, _, _ in LINES]
    page = make_page()
    for (_, place), line in zip(found, page.lines, strict=True):
        left, top, right, bottom = (value * 0.72 for value in page.rectangle(line.box))
        assert place == pytest.approx((left, 1100 * 0.72 - bottom, right, 1100 * 0.72 - top), abs=0.5)


def test_the_text_is_not_seen(tmp_path: Path) -> None:
    path = save_png(tmp_path / "a.png", (850, 1100), dpi=(72, 72))
    assert (rendered(searchable(path, {1: None})) == 255).all()


def test_thousands_of_characters(tmp_path: Path) -> None:
    """Many codes: more than one table of the CMap; every plane that has letters."""
    letters = "".join(chr(c) for c in (*range(0x4E00, 0x4E00 + 700), *range(0x20000, 0x20000 + 50)))
    lines = [(letters[n : n + 50], (0, n, 800, n + 20), 0.5) for n in range(0, len(letters), 50)]
    data = searchable(save_png(tmp_path / "a.png", (850, 1100)), {1: lines})
    assert [text for text, _ in lines_of(data)] == [text for text, _, _ in lines]


def test_words_of_lines_with_both_directions_are_found(tmp_path: Path) -> None:
    text = "Price مرحبا بالعالم 12 total"
    data = searchable(save_png(tmp_path / "a.png"), {1: [(text, (5, 5, 110, 15), 0.5)]})
    ((found, _),) = lines_of(data)
    assert sorted(found.split()) == sorted(text.split())


def test_what_is_no_character(tmp_path: Path) -> None:
    lines = [("a\ud800b\x00c\x1bd", (5, 5, 110, 15), 0.5), ("\u0301", (5, 25, 110, 35), 0.5)]
    found = lines_of(searchable(save_png(tmp_path / "a.png"), {1: lines}))
    assert found[0][0].startswith("a\ufffdb") and found[0][0].endswith("d")


def test_a_search_finds_a_word(tmp_path: Path) -> None:
    data = searchable(save_png(tmp_path / "a.png"), {1: [("one two three", (10, 10, 110, 30), 0.5)]})
    with pypdfium2.PdfDocument(data) as pdf:
        text = pdf[0].get_textpage()
        start, count = text.search("two").get_next()
        assert text.get_text_range(start, count) == "two"
        assert text.search("four").get_next() is None


# ---- pages from images


def test_pages_have_the_size_of_the_paper(tmp_path: Path) -> None:
    for dpi, size in ({"dpi": (300, 150)}, (28.8, 38.4)), ({}, (43.2, 28.8)):
        path = save_png(tmp_path / "a.png", (120, 80), **dpi)
        with pypdfium2.PdfDocument(searchable(path, {1: []})) as pdf:
            assert pdf[0].get_size() == pytest.approx(size, abs=0.01)


def test_pages_of_a_tiff_become_pages(tmp_path: Path) -> None:
    path = save_tiff(tmp_path / "a.tif", [(300, 150), (600, 300), (90, 90)])
    data = searchable(path, {1: [("first", (10, 10, 90, 40), 0.5)], 3: [("third", (10, 10, 80, 40), 0.5)]})
    assert [[text for text, _ in lines_of(data, page)] for page in (0, 1)] == [["first"], ["third"]]
    with pypdfium2.PdfDocument(data) as pdf:
        assert len(pdf) == 2 and pdf[0].get_size() == pytest.approx((72, 72), abs=0.01)


@pytest.mark.parametrize("kind", ["colour", "grey", "black and white"])
def test_images_are_kept_without_loss(tmp_path: Path, kind: str) -> None:
    generator = np.random.default_rng(1)
    pixels = generator.integers(0, 256, (40, 61, 3), np.uint8)
    if kind != "colour":
        pixels[..., 1] = pixels[..., 2] = pixels[..., 0]
    if kind == "black and white":
        pixels = np.where(pixels < 128, 0, 255).astype(np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path, dpi=(72, 72))
    data = searchable(path, {1: []})
    with pikepdf.open(io.BytesIO(data)) as pdf:
        image = pdf.pages[0].Resources.XObject.Page
        mode = {"colour": ("/DeviceRGB", 8), "grey": ("/DeviceGray", 8), "black and white": ("/DeviceGray", 1)}[kind]
        assert (str(image.ColorSpace), int(image.BitsPerComponent)) == mode
        assert (np.asarray(pikepdf.PdfImage(image).as_pil_image().convert("RGB")) == pixels).all()


def test_a_jpeg_file_is_kept_as_it_is(tmp_path: Path) -> None:
    path = save_png(tmp_path / "a.jpg", dpi=(72, 72))
    with pikepdf.open(io.BytesIO(searchable(path, {1: []}))) as pdf:
        assert pdf.pages[0].Resources.XObject.Page.read_raw_bytes() == path.read_bytes()
    assert (rendered(searchable(path.read_bytes(), {1: []})) == np.asarray(Image.open(path).convert("RGB"))).all()


@pytest.mark.parametrize("change", ["turned", "cmyk"])
def test_a_jpeg_file_that_is_shown_differently_is_not_kept(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.jpg"
    image = Image.new("CMYK" if change == "cmyk" else "RGB", (60, 40), "red")
    exif = Image.Exif()
    exif[0x0112] = 6 if change == "turned" else 1
    image.save(path, dpi=(72, 72), exif=exif)
    data = searchable(path, {1: []})
    with open_document(path) as document:
        picture = document.page(1).picture
    shown = np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3)
    assert (rendered(data) == shown).all()


def test_pages_larger_than_a_pdf_allows(tmp_path: Path) -> None:
    path = save_png(tmp_path / "a.png", (30000, 10), dpi=(72, 72))
    with pikepdf.open(io.BytesIO(searchable(path, {1: []}))) as pdf:
        page = pdf.pages[0]
        assert [float(v) for v in page.MediaBox] == pytest.approx([0, 0, 10000, 10 / 3], abs=1e-3)
        assert int(page.UserUnit) == 3


@pytest.mark.parametrize(("size", "dpi"), [((20, 10), 300), ((1, 1), 72), ((30000, 1), 72), ((800, 600), 100_000)])
def test_pages_of_a_few_pixels(tmp_path: Path, size: tuple[int, int], dpi: int) -> None:
    data = searchable(save_png(tmp_path / "a.png", size, dpi=(dpi, dpi)), {1: [("word", (0, 0, *size), 0.5)]})
    with pikepdf.open(io.BytesIO(data)) as pdf:
        unit = float(pdf.pages[0].get("/UserUnit", 1))
        shown = [float(v) * unit for v in pdf.pages[0].MediaBox][2:]
        assert shown == pytest.approx([side * 72 / dpi for side in size], rel=0.01)
    assert [text for text, _ in lines_of(data)] == ["word"]


# ---- pages of a PDF


def ink(data: bytes, page: int, scale: int) -> tuple[int, int, int, int]:
    """left, top, right, bottom of what is dark."""
    dark = np.argwhere(rendered(data, page, scale).min(axis=2) < 128)
    (top, left), (bottom, right) = dark.min(axis=0), dark.max(axis=0) + 1
    return left, top, right, bottom


@pytest.mark.parametrize("rotate", [0, 90, 180, 270, -90])
@pytest.mark.parametrize("box", [None, (10, 20, 154, 92)])
def test_text_lies_on_what_is_seen_of_a_pdf(rotate: int, box: tuple[float, ...] | None) -> None:
    """The original's visible word, and the word that was read where it is seen, are at the same place of the page."""
    original = make_pdf(["HHHHHH"], (200, 150) if box else (144, 72), rotate=rotate, box=box)
    seen = ink(original, 0, 4)  # 288 dpi
    with open_document(original, dpi=288) as document:
        image = document.page(1)
        assert (image.picture.width, image.picture.height) == rendered(original, 0, 4).shape[1::-1]
        pdf = SearchablePdf(document)
        result = make_result(image.picture.width, image.picture.height, [("read", seen, 0.5)])
        pdf.add(ReadPage(1, result, image.dpi), image)
        data = pdf.save()
    with pypdfium2.PdfDocument(data) as out:
        text = out[0].get_textpage()
        content = text.get_text_range()
        places = {}
        for word in ("HHHHHH", "read"):
            start = content.index(word)
            corners = [text.get_charbox(n, loose=word == "read") for n in range(start, start + len(word))]
            lefts, bottoms, rights, tops = zip(*corners, strict=True)
            places[word] = (min(lefts), min(bottoms), max(rights), max(tops))
    assert places["read"] == pytest.approx(places["HHHHHH"], abs=1)
    assert (rendered(data, 0, 4) == rendered(original, 0, 4)).all()


def test_other_pages_are_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    original = make_pdf(["", "visible", ""])
    path.write_bytes(original)
    data = searchable(path, {3: [("read", (10, 10, 90, 30), 0.5)]})
    assert [[text for text, _ in lines_of(data, page)] for page in range(3)] == [[], ["visible"], ["read"]]
    assert path.read_bytes() == original


def change(data: bytes, do: Any) -> bytes:
    out = io.BytesIO()
    with pikepdf.open(io.BytesIO(data)) as pdf:
        do(pdf)
        pdf.save(out)
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"q 2 0 0 2 50 50 cm q 1 0 0 1 9 9 cm Q q",
        b"Q Q 2 0 0 2 50 50 cm",
        b"0 0 1 1 re W n 2 0 0 2 50 50 cm",
        b"BT /F1 12 Tf 2 0 0 2 50 50 Tm",
        b"/OC /Hidden BDC",
        b"(never closed",
        b"BI /W 1 /H 1 ID",
    ],
)
def test_content_that_is_not_balanced_does_not_move_the_text(content: bytes) -> None:
    original = change(make_pdf([""]), lambda pdf: pdf.pages[0].contents_add(content, prepend=True))
    ((text, place),) = lines_of(searchable(original, {1: [("read", (10, 20, 90, 30), 0.5)]}))
    assert text == "read" and place == pytest.approx((10, 42, 90, 52), abs=0.5)


@pytest.mark.parametrize("box", [None, [0, 0, 0, 0], [0, 0, 300]])
def test_a_page_without_a_size_has_that_of_pdfium(box: list[int] | None) -> None:
    def take_size(pdf: pikepdf.Pdf) -> None:
        del pdf.pages[0].MediaBox
        if box is not None:
            pdf.pages[0].MediaBox = pikepdf.Array(box)

    ((text, place),) = lines_of(searchable(change(make_pdf([""]), take_size), {1: [("read", (10, 20, 90, 30), 0.5)]}))
    assert text == "read" and place == pytest.approx((10, 792 - 30, 90, 792 - 20), abs=0.5)


def test_shared_and_inherited_resources_stay_as_they_are() -> None:
    def share(pdf: pikepdf.Pdf) -> None:
        pdf.Root.Pages.Resources = pdf.make_indirect(pdf.pages[0].Resources)
        pdf.Root.Pages.Rotate = 180
        for page in pdf.pages:
            del page.Resources

    original = change(make_pdf(["left alone", "x"]), share)
    data = searchable(original, {2: [("read", (10, 20, 90, 30), 0.5)]})
    assert [text for text, _ in lines_of(data)] == ["left alone"]
    found = dict(lines_of(data, 1))
    assert sorted(found) == ["read", "x"]
    assert (rendered(data, 1) == rendered(original, 1)).all(), "its own fonts are still there"
    with pikepdf.open(io.BytesIO(data)) as pdf:
        assert [sorted(page.resources["/Font"].keys()) for page in pdf.pages] == [["/F1"], ["/F1", "/KosmosEdgeText"]]
    assert found["read"] == pytest.approx((144 - 90, 20, 144 - 10, 30), abs=0.5), "turned with the page"


def test_what_a_pdf_may_not_get() -> None:
    def sign(pdf: pikepdf.Pdf) -> None:
        pdf.Root.AcroForm = pikepdf.Dictionary(SigFlags=3, Fields=pikepdf.Array())

    document = open_document(change(make_pdf(["x"]), sign), name="s.pdf")
    with document, pytest.raises(InvalidRequest, match=r"s\.pdf: the PDF is signed"):
        SearchablePdf(document)
    out = io.BytesIO()
    with pikepdf.open(io.BytesIO(make_pdf(["x"]))) as pdf:
        pdf.save(out, encryption=pikepdf.Encryption(owner="owner"))
    document = open_document(out.getvalue(), name="e.pdf")
    with document, pytest.raises(InvalidRequest, match=r"e\.pdf: the PDF is encrypted; decrypt it first"):
        SearchablePdf(document)


def test_a_pdf_that_only_one_library_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise pikepdf.PdfError("no trailer")

    with open_document(make_pdf(["x"]), name="d.pdf") as document:
        monkeypatch.setattr(pikepdf, "open", refuse)
        with pytest.raises(ImageDecodeError, match=r"d\.pdf: damaged \(no trailer\)"):
            SearchablePdf(document)


@pytest.mark.parametrize("missing", ["pikepdf", "fontTools.fontBuilder", "bidi"])
def test_missing_libraries_are_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InvalidRequest, match=r"format pdf: .* pip install 'kosmos-edge\[pdf\]'"):
        check_libraries()


@pytest.mark.parametrize(
    ("part", "refused"), [("CropBox", True), ("Rotate", True), ("Resources", False), ("Contents", False)]
)
def test_a_damaged_page_of_a_pdf(part: str, refused: bool) -> None:
    def damage(pdf: pikepdf.Pdf) -> None:
        wrong = {"Contents": pdf.make_stream(b"q (never closed \x00\xff << /a"), "Resources": pikepdf.Array([1, 2])}
        pdf.pages[0].obj["/" + part] = wrong.get(part, pikepdf.Name.Wrong)

    data = change(make_pdf(["", ""]), damage)
    with open_document(data, name="d.pdf", dpi=72) as document:
        pdf, image = SearchablePdf(document), document.page(2)
        result = make_result(144, 72, [("read", (10, 20, 90, 30), 0.5)])
        if refused:
            with pytest.raises(ImageDecodeError, match=r"d\.pdf: page 1: damaged \("):
                pdf.add(ReadPage(1, result, image.dpi), image)
        else:
            pdf.add(ReadPage(1, result, image.dpi), image)
        pdf.add(ReadPage(2, result, image.dpi), image)
        assert [text for text, _ in lines_of(pdf.save(), 1)] == ["read"]


# ---- the file


def test_the_same_pages_give_the_same_bytes(tmp_path: Path) -> None:
    path = save_png(tmp_path / "a.png", (850, 1100))
    assert searchable(path, {1: None}) == searchable(path, {1: None})


def test_saving_twice(tmp_path: Path) -> None:
    """As a run that is interrupted while it saves does."""
    with open_document(make_pdf(["", ""]), dpi=72) as document:
        pdf = SearchablePdf(document)
        for number in (1, 2):
            image = document.page(number)
            result = make_result(144, 72, [(f"page {'αβ'[number - 1]}", (10, 10, 90, 30), 0.5)])
            pdf.add(ReadPage(number, result, image.dpi), image)
            data = pdf.save()
    assert [lines_of(data, page)[0][0] for page in (0, 1)] == ["page α", "page β"]


def test_the_file_is_sound(tmp_path: Path) -> None:
    data = searchable(save_png(tmp_path / "a.png", (850, 1100)), {1: None})
    with pikepdf.open(io.BytesIO(data)) as pdf:
        assert pdf.check_pdf_syntax() == []
        font = pdf.pages[0].Resources.Font["/KosmosEdgeText"]
        embedded = font.DescendantFonts[0].FontDescriptor.FontFile2.read_bytes()
    from fontTools.ttLib import TTFont

    assert TTFont(io.BytesIO(embedded)).getGlyphOrder() == [".notdef", "blank"]
