"""A font without ink for PDF text that can be selected, searched and copied, but not seen.

Every character that a document uses gets a code of its own; the font's ToUnicode table says which character it is, so
that all of Unicode survives. All codes share one glyph without an area; their widths are those of words.units().
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from kosmos_edge.documents.words import units

if TYPE_CHECKING:
    import pikepdf

UNIT = 500  # thousandths of the font size: the width of one unit
ASCENT, DESCENT = 800, -200  # thousandths; together the height of a line
_MOST = 0xFFFF  # codes of two bytes; 0 is no character
_ROWS = 100  # entries of one table of a CMap
_NAME = "KosmosEdgeGlyphless"
_TIME = 3786912000  # of the font file, in seconds since 1904: the beginning of 2024
_CMAP_HEAD = """/CIDInit /ProcSet findresource begin
12 dict begin
begincmap
/CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def
/CMapName /Adobe-Identity-UCS def
/CMapType 2 def
1 begincodespacerange
<0000> <FFFF>
endcodespacerange
"""
_CMAP_TAIL = "endcmap\nCMapName currentdict /CMap defineresource pop\nend\nend\n"


class GlyphlessFont:
    """The codes of one document's characters."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def encode(self, text: str) -> bytes:
        """The text as codes of two bytes."""
        out = bytearray()
        for character in text:
            code = self._codes.setdefault(character, len(self._codes) + 1)
            if code > _MOST:
                raise OverflowError(f"more than {_MOST} different characters in one document")
            out += code.to_bytes(2, "big")
        return bytes(out)

    def embed(self, pdf: pikepdf.Pdf, font: pikepdf.Object) -> None:
        """Fills in the font, an indirect dictionary of the PDF, with the codes so far."""
        from pikepdf import Array, Dictionary, Name, Stream, String

        descriptor = Dictionary(
            Type=Name.FontDescriptor,
            FontName=Name("/" + _NAME),
            Flags=5,  # fixed pitch, symbolic
            FontBBox=Array([0, DESCENT, 2 * UNIT, ASCENT]),
            ItalicAngle=0,
            Ascent=ASCENT,
            Descent=DESCENT,
            CapHeight=ASCENT,
            StemV=80,
            FontFile2=pdf.make_indirect(Stream(pdf, _font_file())),
        )
        one_glyph = b"\0\0" + b"\0\1" * len(self._codes)  # code -> glyph
        cid_font = Dictionary(
            Type=Name.Font,
            Subtype=Name.CIDFontType2,
            BaseFont=Name("/" + _NAME),
            CIDSystemInfo=Dictionary(Registry=String("Adobe"), Ordering=String("Identity"), Supplement=0),
            FontDescriptor=pdf.make_indirect(descriptor),
            DW=UNIT,
            W=Array([1, Array([units(character) * UNIT for character in self._codes])]),
            CIDToGIDMap=pdf.make_indirect(Stream(pdf, one_glyph)),
        )
        font.Type = Name.Font
        font.Subtype = Name.Type0
        font.BaseFont = Name("/" + _NAME)
        font.Encoding = Name("/Identity-H")
        font.DescendantFonts = Array([pdf.make_indirect(cid_font)])
        font.ToUnicode = pdf.make_indirect(Stream(pdf, self._to_unicode()))

    def _to_unicode(self) -> bytes:
        rows = [
            f"<{code:04X}> <{character.encode('utf-16-be').hex().upper()}>\n" for character, code in self._codes.items()
        ]
        tables = [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]
        body = "".join(f"{len(table)} beginbfchar\n{''.join(table)}endbfchar\n" for table in tables)
        return (_CMAP_HEAD + body + _CMAP_TAIL).encode("ascii")


def _font_file() -> bytes:
    """A TrueType font whose glyphs show nothing.

    The second one is a line there and back from corner to corner: PDFium leaves out turned text without an extent.
    """
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    from fontTools.ttLib.tables._g_l_y_f import Glyph

    pen = TTGlyphPen(None)
    pen.moveTo((0, DESCENT))
    pen.lineTo((UNIT, ASCENT))
    pen.closePath()

    names = [".notdef", "blank"]
    builder = FontBuilder(1000, isTTF=True)
    builder.updateHead(created=_TIME, modified=_TIME)  # the same bytes in every run
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({})
    builder.setupGlyf(dict(zip(names, (Glyph(), pen.glyph()), strict=True)))
    builder.setupHorizontalMetrics({name: (UNIT, 0) for name in names})
    builder.setupHorizontalHeader(ascent=ASCENT, descent=DESCENT)
    builder.setupNameTable({"familyName": _NAME, "styleName": "Regular", "psName": _NAME})
    builder.setupOS2(sTypoAscender=ASCENT, sTypoDescender=DESCENT, usWinAscent=ASCENT, usWinDescent=-DESCENT)
    builder.setupPost()
    builder.font.recalcTimestamp = False
    out = BytesIO()
    builder.save(out)
    return out.getvalue()
