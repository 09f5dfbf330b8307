"""What `kosmos-edge read` writes can be the truth of `kosmos-edge eval`: one type's reading for another's."""

from pathlib import Path

import pytest

from kosmos_edge.documents import FORMATS, About, ReadPage
from kosmos_edge.evaluation.pages import Page, read_page
from kosmos_edge.results import Box, Line, Result

LINES = [("A & B <café>", (10, 20, 110, 40)), ("second  line", (12, 60, 90, 81)), ("日本 🙂", (5, 90, 60, 99))]


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("form", ["json", "hocr", "alto", "txt"])
def test_a_written_page_is_read_back(tmp_path: Path, form: str, words: bool) -> None:
    lines = [Line(text, Box.from_pixels(*corners, width=200, height=100), 0.5) for text, corners in LINES]
    text = "\n".join(text for text, _ in LINES)
    page = ReadPage(1, Result(text, lines=lines, width=200, height=100, source="a.png"))
    make = FORMATS[form].writer
    assert make is not None
    writer = make(About("a.png", False, 1, "reader", "1"), words)
    path = tmp_path / f"a{FORMATS[form].suffix}"
    path.write_text(writer.begin() + writer.page(page) + writer.end(), encoding="utf-8")
    found = read_page(path)
    assert " ".join(found.text.split()) == " ".join(text.split()) and len(found.text.splitlines()) == len(LINES)
    if form == "txt":
        assert found == Page(found.text, None)
    else:
        assert found.boxes == tuple(corners for _, corners in LINES)
