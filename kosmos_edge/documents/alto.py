"""Pages as ALTO 4 XML."""

from __future__ import annotations

from kosmos_edge.documents.page import ReadPage, around
from kosmos_edge.documents.words import is_leftward, split_words
from kosmos_edge.documents.writer import About, PageWriter, xml_text, xml_value

_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.loc.gov/standards/alto/ns-v4# http://www.loc.gov/standards/alto/v4/alto-4-3.xsd">
 <Description>
  <MeasurementUnit>pixel</MeasurementUnit>
  <sourceImageInformation><fileName>{name}</fileName></sourceImageInformation>
  <Processing ID="read">
   <processingCategory>contentGeneration</processingCategory>
   <processingStepDescription>{step}</processingStepDescription>
   <processingSoftware>
    <softwareName>kosmos-edge</softwareName>
    <softwareVersion>{version}</softwareVersion>
   </processingSoftware>
  </Processing>
 </Description>
 <Layout>
"""


class AltoWriter(PageWriter):
    """One TextBlock around all lines of a page, because the model names lines only.

    The words of a line are Strings without a place, or with words=True at estimated places (see words.py). WC is the
    score of their line.
    """

    def __init__(self, about: About, *, words: bool = False) -> None:
        super().__init__(about)
        self._words = words

    def begin(self) -> str:
        about = self.about
        step = f"lines read by {about.model or 'a model'}" + ("; places of words are estimates" if self._words else "")
        return _HEAD.format(name=xml_text(about.name), step=xml_text(step), version=xml_text(about.version))

    def _page(self, page: ReadPage) -> str:
        number, (width, height) = page.number, page.size
        out = [
            f'  <Page ID="page_{number}" PHYSICAL_IMG_NR="{number}" WIDTH="{width}" HEIGHT="{height}">\n'
            f'   <PrintSpace HPOS="0" VPOS="0" WIDTH="{width}" HEIGHT="{height}">\n'
        ]
        rectangles = [page.rectangle(line.box) for line in page.lines]
        if rectangles:
            out.append(f'    <TextBlock ID="block_{number}_1" {_place(around(rectangles))}>\n')
            for index, (line, rectangle) in enumerate(zip(page.lines, rectangles, strict=True), 1):
                direction = ' BASEDIRECTION="rtl"' if is_leftward(line.text) else ""
                out.append(f'     <TextLine ID="line_{number}_{index}" {_place(rectangle)}{direction}>\n')
                out.append(self._strings(f"{number}_{index}", line.text, line.score, rectangle))
                out.append("     </TextLine>\n")
            out.append("    </TextBlock>\n")
        out.append("   </PrintSpace>\n  </Page>\n")
        return "".join(out)

    def _strings(self, place: str, text: str, score: float | None, rectangle: tuple[int, int, int, int]) -> str:
        conf = "" if score is None else f' WC="{score:.4f}"'
        strings = []
        for index, word in enumerate(split_words(text, rectangle), 1):
            where = f" {_place(word.rectangle)}" if self._words else ""
            strings.append(f'      <String ID="word_{place}_{index}"{where} CONTENT={xml_value(word.text)}{conf}/>\n')
        return "      <SP/>\n".join(strings)

    def end(self) -> str:
        return " </Layout>\n</alto>\n"


def _place(rectangle: tuple[int, int, int, int]) -> str:
    left, top, right, bottom = rectangle
    return f'HPOS="{left}" VPOS="{top}" WIDTH="{right - left}" HEIGHT="{bottom - top}"'
