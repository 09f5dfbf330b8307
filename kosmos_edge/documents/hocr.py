"""Pages as hOCR 1.2: XHTML with the place of every line in its title."""

from __future__ import annotations

from kosmos_edge.documents.page import ReadPage, around
from kosmos_edge.documents.words import is_leftward, split_words
from kosmos_edge.documents.writer import About, PageWriter, xml_text, xml_value

_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml">
 <head>
  <title>{title}</title>
  <meta http-equiv="Content-Type" content="text/html; charset=utf-8"/>
  <meta name="ocr-system" content={system}/>
  <meta name="ocr-capabilities" content="{capabilities}"/>
  <meta name="ocr-number-of-pages" content="{pages}"/>
 </head>
 <body>
"""


class HocrWriter(PageWriter):
    """ocr_page, one ocr_carea and ocr_par around all lines, and ocr_line; the model names lines only.

    words: also ocrx_word, at estimated places (see words.py) with the score of the line as x_wconf, for programs that
    read nothing else.
    """

    def __init__(self, about: About, *, words: bool = False) -> None:
        super().__init__(about)
        self._words = words

    def begin(self) -> str:
        about = self.about
        return _HEAD.format(
            title=xml_text(about.name),
            system=xml_value(f"kosmos-edge {about.version} {about.model}".strip()),
            capabilities="ocr_page ocr_carea ocr_par ocr_line" + (" ocrx_word" if self._words else "") + " ocrp_dir",
            pages=about.pages,
        )

    def _page(self, page: ReadPage) -> str:
        number = page.number
        quoted = self.about.name.replace("\\", "\\\\").replace('"', '\\"')
        facts = [f'image "{quoted}"', _bbox((0, 0, *page.size)), f"ppageno {number - 1}"]
        if page.dpi is not None:
            facts.append(f"scan_res {round(page.dpi[0])} {round(page.dpi[1])}")
        out = [f'  <div class="ocr_page" id="page_{number}" title={xml_value("; ".join(facts))}>\n']
        rectangles = [page.rectangle(line.box) for line in page.lines]
        if rectangles:
            whole = _bbox(around(rectangles))
            out.append(f'   <div class="ocr_carea" id="block_{number}_1" title="{whole}">\n')
            out.append(f'    <p class="ocr_par" id="par_{number}_1" title="{whole}">\n')
            for index, (line, rectangle) in enumerate(zip(page.lines, rectangles, strict=True), 1):
                direction = ' dir="rtl"' if is_leftward(line.text) else ""
                text = self._line(f"{number}_{index}", line.text, line.score, rectangle)
                title = _bbox(rectangle)
                out.append(
                    f'     <span class="ocr_line" id="line_{number}_{index}" title="{title}"{direction}>{text}</span>\n'
                )
            out.append("    </p>\n   </div>\n")
        out.append("  </div>\n")
        return "".join(out)

    def _line(self, place: str, text: str, score: float | None, rectangle: tuple[int, int, int, int]) -> str:
        if not self._words:
            return xml_text(text.strip())
        conf = "" if score is None else f"; x_wconf {round(100 * score)}"
        return " ".join(
            f'<span class="ocrx_word" id="word_{place}_{index}" title="{_bbox(word.rectangle)}{conf}">'
            f"{xml_text(word.text)}</span>"
            for index, word in enumerate(split_words(text, rectangle), 1)
        )

    def end(self) -> str:
        return " </body>\n</html>\n"


def _bbox(rectangle: tuple[int, int, int, int]) -> str:
    return "bbox " + " ".join(str(value) for value in rectangle)
