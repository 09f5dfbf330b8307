"""Page ranges, rectangles of boxes, and the estimated places of words."""

import pytest
from helpers.documents import make_page

from kosmos_edge.documents import PageRanges, parse_pages
from kosmos_edge.documents.page import ReadPage, around
from kosmos_edge.documents.words import is_leftward, split_words, units
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.results import Box, Line, Result


@pytest.mark.parametrize(
    ("text", "count", "numbers"),
    [
        ("1", 3, [1]),
        ("1-3,7", 9, [1, 2, 3, 7]),
        ("5-", 6, [5, 6]),
        ("3, 1 - 2", 3, [1, 2, 3]),
        ("2,1-2,2", 2, [1, 2]),
    ],
)
def test_ranges(text: str, count: int, numbers: list[int]) -> None:
    assert parse_pages(text).of(count, "x") == numbers


def test_all_pages() -> None:
    assert PageRanges().of(3, "x") == [1, 2, 3]


@pytest.mark.parametrize("text", ["", "0", "3-1", "a", "1,", "-3", "1-2-3", "1.5", "٣-a", "1;2", "0-2"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(InvalidRequest, match="pages"):
        parse_pages(text)


@pytest.mark.parametrize(("text", "page"), [("4", 4), ("1-9", 9), ("4-", 4)])
def test_a_page_that_is_not_there(text: str, page: int) -> None:
    with pytest.raises(InvalidRequest, match=rf"book.pdf: page {page} requested, the document has 3"):
        parse_pages(text).of(3, "book.pdf")


@pytest.mark.parametrize(
    ("corners", "rectangle"),
    [
        ((10, 20, 30, 40), (10, 20, 30, 40)),
        ((10.2, 20.7, 30.2, 40.7), (10, 20, 31, 41)),  # outwards
        ((30, 40, 10, 20), (10, 20, 30, 40)),  # the model gave them in the wrong order
        ((10, 20, 10, 20), (10, 20, 11, 21)),  # a pixel at least
        ((-5, -5, 2000, 2000), (0, 0, 850, 1100)),
        ((850, 1100, 850, 1100), (849, 1099, 850, 1100)),
    ],
)
def test_rectangles_are_whole_pixels_of_the_page(
    corners: tuple[float, ...], rectangle: tuple[int, int, int, int]
) -> None:
    page = make_page()
    x1, y1, x2, y2 = corners
    assert page.rectangle(Box((x1 / 850, y1 / 1100, x2 / 850, y2 / 1100))) == rectangle


def test_every_whole_pixel_survives_fractions() -> None:
    page = make_page()
    for x in range(849):
        assert page.rectangle(Box((x / 850, x / 1100, (x + 1) / 850, (x + 1) / 1100))) == (x, x, x + 1, x + 1)


def test_around() -> None:
    assert around([(5, 1, 9, 2), (3, 4, 6, 7)]) == (3, 1, 9, 7)


def test_pages_without_lines_or_size_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="read as lines"):
        _ = ReadPage(1, Result("text")).lines
    with pytest.raises(InvalidRequest, match="width"):
        _ = ReadPage(1, Result("text", lines=[])).size


def test_blank_lines_are_left_out() -> None:
    box = Box((0, 0, 1, 1))
    page = ReadPage(1, Result("", lines=[Line(" ", box), Line("a", box)], width=9, height=9))
    assert [line.text for line in page.lines] == ["a"]


def test_units() -> None:
    assert [units(c) for c in "a日ｱＡ\u0301\u200d"] == [1, 2, 1, 2, 0, 0]


@pytest.mark.parametrize(
    ("text", "leftward"), [("abc", False), ("12 שלום", True), ("مرحبا abc", True), ("abc مرحبا", False), ("12", False)]
)
def test_direction(text: str, leftward: bool) -> None:
    assert is_leftward(text) is leftward


def test_words_share_the_line_by_their_characters() -> None:
    words = split_words(" ab 日x ", (100, 10, 160, 30))  # 2 + 1 + 2 + 1 units of 10 pixels
    assert [(word.text, word.rectangle) for word in words] == [("ab", (100, 10, 120, 30)), ("日x", (130, 10, 160, 30))]


def test_leftward_words_begin_at_the_right() -> None:
    words = split_words("אב גדה", (0, 0, 60, 9))
    assert [(word.text, word.rectangle) for word in words] == [("אב", (40, 0, 60, 9)), ("גדה", (0, 0, 30, 9))]


@pytest.mark.parametrize("text", ["a b c d e f g h", "\u0301", "\u0301 \u0301", "אב גד הו", "x"])
@pytest.mark.parametrize("width", [1, 2, 3, 50])
def test_every_word_has_a_place_in_its_line(text: str, width: int) -> None:
    words = split_words(text, (7, 1, 7 + width, 2))
    assert [word.text for word in words] == text.split()
    for word in words:
        left, top, right, bottom = word.rectangle
        assert 7 <= left < right <= 7 + width and (top, bottom) == (1, 2)
