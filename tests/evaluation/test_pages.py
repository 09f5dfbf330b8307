"""Folders of pages: which file is a picture's truth, and what each form says."""

import json
from pathlib import Path

import pytest
from PIL import Image

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation import markdown, ocr
from kosmos_edge.evaluation.pages import Page, load_pages, read_page


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
    return path


def page_of(tmp_path: Path, name: str, text: str | object) -> Page:
    path = tmp_path / name
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return read_page(path)


def test_items_are_sorted_and_named_by_their_place(tmp_path: Path) -> None:
    for name in ("b/2.png", "a.jpg", "b/10.png"):
        (picture(tmp_path / name).with_suffix(".txt")).write_text(name)
    (tmp_path / "README.txt").write_text("no picture of this name")
    items = load_pages(tmp_path)
    assert [item.id for item in items] == ["a.jpg", "b/10.png", "b/2.png"]
    assert [item.truth.text for item in items] == ["a.jpg", "b/10.png", "b/2.png"]
    assert [Path(item.image) for item in items] == [tmp_path / item.id for item in items]
    assert ocr.load(tmp_path) == items and [item.group for item in items] == ["", "b", "b"]


def test_the_first_kind_of_truth_counts(tmp_path: Path) -> None:
    picture(tmp_path / "page.png")
    (tmp_path / "page.txt").write_text("txt")
    assert load_pages(tmp_path)[0].truth.text == "txt"
    (tmp_path / "page.gt.txt").write_text("gt")
    assert load_pages(tmp_path)[0].truth.text == "gt"
    (tmp_path / "page.json").write_text('{"lines": [{"text": "json"}]}')
    assert load_pages(tmp_path)[0].truth == Page("json", None)


def test_truth_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """As FUNSD (images/, annotations/) and CORD (image/, json/) are published."""
    picture(tmp_path / "images" / "0001.png")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "0001.json").write_text('{"lines": [{"text": "x"}]}')
    assert load_pages(tmp_path)[0].truth.text == "x"


def test_a_picture_without_truth_is_an_error(tmp_path: Path) -> None:
    picture(tmp_path / "page.png")
    with pytest.raises(InvalidRequest, match=r"page\.png: there is no page\.json \(or \.hocr.*annotations"):
        load_pages(tmp_path)
    with pytest.raises(InvalidRequest, match=r"there is no page\.md beside it"):
        markdown.load(tmp_path)
    (tmp_path / "page.png").unlink()
    with pytest.raises(InvalidRequest, match="no pictures in"):
        load_pages(tmp_path)
    with pytest.raises(InvalidRequest, match="is not a folder"):
        load_pages(tmp_path / "missing")


def test_text(tmp_path: Path) -> None:
    assert page_of(tmp_path, "a.txt", "\ufeffeins\nzwei\n") == Page("eins\nzwei\n", None)
    assert page_of(tmp_path, "a.txt", "") == Page("", None)
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(InvalidRequest, match=r"a\.txt: expected UTF-8"):
        read_page(tmp_path / "a.txt")


def test_sroie(tmp_path: Path) -> None:
    text = "72,25,326,25,326,64,72,64,TAN WOON YANN\r\n50,82,440,80,440,121,50,121,A, B (C)\r\n"
    assert page_of(tmp_path, "a.txt", text) == Page("TAN WOON YANN\nA, B (C)", ((72, 25, 326, 64), (50, 80, 440, 121)))
    assert page_of(tmp_path, "a.txt", text + "a plain line").boxes is None  # then it is a text


def test_our_own_form(tmp_path: Path) -> None:
    lines = [{"text": "a", "box": [1, 2, 3.5, 4], "score": 0.5}, {"text": "b", "box": [5, 6, 7, 8]}]
    assert page_of(tmp_path, "a.json", {"lines": lines}) == Page("a\nb", ((1, 2, 3.5, 4), (5, 6, 7, 8)))
    assert page_of(tmp_path, "a.json", {"lines": [lines[0], {"text": "b", "box": None}]}) == Page("a\nb", None)
    assert page_of(tmp_path, "a.json", {"lines": []}) == Page("", ())
    whole = {"text": "a\nwithout a box\nb", "lines": lines}  # a line without a usable box is in the text alone
    assert page_of(tmp_path, "a.json", whole) == Page("a\nwithout a box\nb", ((1, 2, 3.5, 4), (5, 6, 7, 8)))


def test_the_authors_output(tmp_path: Path) -> None:
    record = {"results": [{"text": "a", "bounding box": {"x0": 1, "y0": 2, "x1": 3, "y1": 4}}]}
    assert page_of(tmp_path, "a.png.json", record) == Page("a", ((1, 2, 3, 4),))


def test_funsd(tmp_path: Path) -> None:
    """A block of words on two lines, a word above its neighbours, an empty word."""
    words = [
        {"box": [10, 10, 40, 20], "text": "Date"},
        {"box": [45, 12, 80, 22], "text": "of"},
        {"box": [10, 26, 60, 36], "text": "birth:"},
        {"box": [0, 0, 1, 1], "text": ""},
    ]
    form = [{"box": [10, 10, 80, 36], "text": "Date of birth:", "label": "question", "words": words, "linking": []}]
    assert page_of(tmp_path, "a.json", {"form": form}) == Page("Date of\nbirth:", ((10, 10, 80, 22), (10, 26, 60, 36)))


def test_cord(tmp_path: Path) -> None:
    def word(text: str, x: int, y: int) -> dict[str, object]:
        quad = {"x1": x, "y1": y, "x2": x + 10, "y2": y - 1, "x3": x + 10, "y3": y + 8, "x4": x, "y4": y + 9}
        return {"quad": quad, "text": text, "is_key": 0, "row_id": 1}

    lines = [
        {"words": [word("2", 5, 10), word("TEA", 20, 10)], "category": "menu.nm"},
        {"words": [word("9.00", 5, 30)]},
    ]
    assert page_of(tmp_path, "a.json", {"valid_line": lines}) == Page("2 TEA\n9.00", ((5, 9, 30, 19), (5, 29, 15, 39)))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ([], "expected an object with lines, form"),
        ({"text": "a"}, "expected an object with lines, form"),
        ({"lines": [{"box": [1, 2, 3, 4]}]}, "not as expected: 'text'"),
        ({"lines": [{"text": 5}]}, "text is 5, expected a string"),
        ({"lines": [{"text": "a", "box": [1, 2, 3]}]}, "expected four numbers"),
        ({"lines": [{"text": "a", "box": [1, 2, 3, None]}]}, "expected four finite numbers"),
        ({"lines": 5}, "not as expected"),
        ({"lines": [], "text": None}, "text is None, expected a string"),
        ({"form": [{"text": "a"}]}, "not as expected: 'words'"),
        ({"valid_line": [{"words": [{"text": "a", "quad": {"x1": 1}}]}]}, "not as expected: 'y1'"),
    ],
)
def test_json_that_is_wrong(tmp_path: Path, record: object, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"a\.json: .*{reason}"):
        page_of(tmp_path, "a.json", record)


HOCR = """<?xml version="1.0" encoding="UTF-8"?>
<html><body><div class='ocr_page' title='image "a.png"; bbox 0 0 200 100'>
<p class='ocr_par'><span class='ocr_line' id='l1' title="bbox 10 11 90 30; baseline 0 -3">
  <span class='ocrx_word' title='bbox 10 11 40 30; x_wconf 90'>A&amp;B</span><br/>
  <span class='ocrx_word' title='bbox 50 11 90 30'><strong>caf&#233;</strong></span>
</span><span class='ocr_header' title='x_size 5; bbox 10 40 90 60'>second line</span></p></div></body></html>"""

ALTO = """<?xml version="1.0"?><alto xmlns="http://www.loc.gov/standards/alto/ns-v4#">
<Description><MeasurementUnit>{unit}</MeasurementUnit></Description><Layout><Page><PrintSpace><TextBlock>
<TextLine HPOS="10" VPOS="11" WIDTH="80" HEIGHT="19"><String CONTENT="A&amp;B"/><SP/><String CONTENT="café"/></TextLine>
<TextLine HPOS="10" VPOS="40" WIDTH="80" HEIGHT="20"><String CONTENT="second"/><String CONTENT="line"/></TextLine>
</TextBlock></PrintSpace></Page></Layout></alto>"""


def test_hocr_and_alto_say_the_same(tmp_path: Path) -> None:
    wanted = Page("A&B café\nsecond line", ((10, 11, 90, 30), (10, 40, 90, 60)))
    assert page_of(tmp_path, "a.hocr", HOCR) == wanted
    assert page_of(tmp_path, "a.xml", ALTO.format(unit="pixel")) == wanted
    assert page_of(tmp_path, "a.hocr", HOCR.replace("bbox 10 40 90 60", "")).boxes is None
    assert page_of(tmp_path, "a.xml", ALTO.format(unit="pixel").replace(' HPOS="10" VPOS="40"', "")).boxes is None


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.hocr", "<html><body>hello</body></html>", "expected hOCR"),
        ("a.hocr", HOCR.replace("</body>", "<div class='ocr_page'></div></body>"), "2 pages, expected the one"),
        ("a.xml", ALTO.format(unit="pixel").replace("</Layout>", "<Page/></Layout>"), "2 pages, expected the one"),
        ("a.xml", "<alto", "not XML"),
        ("a.xml", "<page/>", "expected ALTO, got an element page"),
        ("a.xml", ALTO.format(unit="mm10"), "MeasurementUnit is mm10, expected pixel"),
        ("a.xml", ALTO.format(unit="pixel").replace('HPOS="10"', 'HPOS="x"'), "a TextLine"),
    ],
)
def test_markup_that_is_wrong(tmp_path: Path, name: str, text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        page_of(tmp_path, name, text)
