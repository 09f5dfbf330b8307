"""Pages as a table with the twelve columns of Tesseract's TSV, one row per page, block, paragraph, line and word."""

from __future__ import annotations

from kosmos_edge.documents.page import ReadPage, around
from kosmos_edge.documents.words import split_words
from kosmos_edge.documents.writer import PageWriter

COLUMNS = (
    "level", "page_num", "block_num", "par_num", "line_num", "word_num", "left", "top", "width", "height", "conf",
    "text",
)  # fmt: skip
_NO_SCORE = "-1"


class TsvWriter(PageWriter):
    """Levels as Tesseract's: 1 page, 2 block, 3 paragraph, 4 line, 5 word.

    The model names lines only: a page has one block and one paragraph, both around all of its lines, and the places of
    words are estimated (see words.py). conf: 100 times the score of the word's line, -1 if there is none.
    """

    def begin(self) -> str:
        return "\t".join(COLUMNS) + "\n"

    def _page(self, page: ReadPage) -> str:
        width, height = page.size
        rows = [self._row(1, page, (0, 0, width, height))]
        rectangles = [page.rectangle(line.box) for line in page.lines]
        if rectangles:
            rows += [self._row(level, page, around(rectangles), *(1,) * (level - 1)) for level in (2, 3)]
        for number, (line, rectangle) in enumerate(zip(page.lines, rectangles, strict=True), 1):
            rows.append(self._row(4, page, rectangle, 1, 1, number))
            conf = _NO_SCORE if line.score is None else f"{100 * line.score:.6f}"
            for place, word in enumerate(split_words(line.text, rectangle), 1):
                rows.append(self._row(5, page, word.rectangle, 1, 1, number, place, conf=conf, text=word.text))
        return "".join(rows)

    @staticmethod
    def _row(
        level: int,
        page: ReadPage,
        rectangle: tuple[int, int, int, int],
        *numbers: int,
        conf: str = _NO_SCORE,
        text: str = "",
    ) -> str:
        left, top, right, bottom = rectangle
        places = [*numbers, 0, 0, 0, 0][:4]
        cells = [level, page.number, *places, left, top, right - left, bottom - top, conf, text]
        return "\t".join(str(cell) for cell in cells) + "\n"
