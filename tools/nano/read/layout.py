"""What stands where on a page, in pixels of the page before it is turned: lines, paragraphs, receipts, tables.

A segment is a stretch of text that gets a box of its own: a line, or one side of a receipt's row, or a cell.
"""

from dataclasses import dataclass, field

import numpy as np

from . import fonts


@dataclass
class Segment:
    text: str
    x: float  # of the pen, left
    base: float  # of the baseline
    font: str
    size: int


@dataclass
class Page:
    width: int
    height: int
    segments: list = field(default_factory=list)
    rules: list = field(default_factory=list)  # (x0, y0, x1, y1, thickness): printed lines
    shapes: list = field(default_factory=list)  # (kind of SHAPES, its points, share of ink 0..1)


SHAPES = ("ellipse", "rectangle", "polygon", "scribble")
KINDS = ("line", "lines", "receipt", "table", "none")


class Layout:
    """Pages by kind from a Generator. families: lists of font files, one list a family"""

    def __init__(self, texts, families):
        self.texts, self.families = texts, families

    def font(self, rng):
        family = self.families[rng.integers(len(self.families))]
        return family[rng.integers(len(family))]

    def page(self, rng, kind, words=6, tokens=250):
        """A page of `kind`. words: most of them in a line; tokens: the most that its answer may take"""
        size = int(rng.integers(18, 44) if kind == "line" else rng.integers(13, 27))
        page = getattr(self, kind)(rng, size, words, tokens)
        if kind != "none" and rng.random() < 0.06:
            _rule(rng, page)
        return page

    def line(self, rng, size, words, tokens):
        font = self.font(rng)
        n = int(rng.integers(1, words + 1))
        text = self.texts.phrase(rng, n, 44)
        width = fonts.load(font, size).getlength(text)
        roll = rng.random()
        margin = size * (0.1 + 0.5 * rng.random() if roll < 0.6 else 0.3 + 2.2 * rng.random() if roll < 0.95 else 4.0)
        left, right = margin * (0.5 + rng.random()), margin * (0.5 + rng.random())
        top, below = margin * (0.4 + 0.8 * rng.random()), margin * (0.4 + 0.8 * rng.random())
        page = Page(int(left + width + right) + 2, int(top + size * 1.15 + below) + 2)
        page.segments.append(Segment(text, left, top + size * 0.9, font, size))
        return page

    def lines(self, rng, size, words, tokens):
        """2 to 7 lines under each other; left, centred or right; now and then a larger heading"""
        font, other = self.font(rng), self.font(rng)
        count, limit = int(rng.integers(2, 8)), int(rng.integers(8, 29))
        pitch = size * (1.1 + 0.7 * rng.random())
        align = (0.0, 0.0, 0.0, 0.5, 1.0)[rng.integers(5)]
        heading = rng.random() < 0.25
        rows, y = [], 0.0
        for i in range(count):
            big = heading and i == 0
            use, s = (other, int(size * (1.2 + 0.5 * rng.random()))) if big else (font, size)
            text = self.texts.phrase(rng, int(rng.integers(1, 3 if big else 9)), limit)
            tokens -= len(text) + 8
            if tokens < 0:
                break
            y += s / size * pitch
            rows.append((text, use, s, y, fonts.load(use, s).getlength(text)))
        widest = max(r[4] for r in rows)
        m = size * (0.2 + 1.3 * rng.random())
        page = Page(int(widest + 2 * m) + 2, int(rows[-1][3] + size * 0.35 + 2 * m) + 2)
        for text, use, s, base, width in rows:
            page.segments.append(Segment(text, m + align * (widest - width), m + base - (pitch - size) / 2, use, s))
        return page

    def receipt(self, rng, size, words, tokens):
        """Centred head, rows of a thing and its price at the right edge, a total"""
        font = self.font(rng)
        f = fonts.load(font, size)
        wide = f.getlength("0") * int(rng.integers(18, 26))
        pitch = size * (1.1 + 0.4 * rng.random())
        m = size * (0.3 + 1.0 * rng.random())
        count = int(rng.integers(3, 8))
        page, y = Page(int(wide + 2 * m) + 2, 1), m
        head = int(rng.integers(0, 3))
        for i in range(head + count):
            y += pitch
            if i < head:
                parts = [(self.texts.phrase(rng, 2, 16), 0.5)]
            else:
                name = "TOTAL" if i == head + count - 1 and rng.random() < 0.7 else self.texts.phrase(rng, 2, 13)
                parts = [(name, 0.0), (self.texts.price(rng), 1.0)]
            tokens -= sum(len(t) + 8 for t, _ in parts)
            if tokens < 0:
                y -= pitch
                break
            for text, align in parts:
                x = m + align * (wide - f.getlength(text))
                page.segments.append(Segment(text, x, y, font, size))
        page.height = int(y + m + size * 0.3) + 2
        return page

    def table(self, rng, size, words, tokens):
        """Cells in rows and columns, with or without printed lines"""
        font = self.font(rng)
        f = fonts.load(font, size)
        columns, count = int(rng.integers(2, 5)), int(rng.integers(2, 6))
        cells = []
        for r in range(count):
            row = []
            for c in range(columns):
                text = self.texts.word(rng)[:9] if r == 0 or c == 0 else self.texts.number(rng)
                tokens -= len(text) + 8
                row.append(text)
            if tokens < 0:
                break
            cells.append(row)
        pad = size * (0.3 + 0.7 * rng.random())
        widths = [max(f.getlength(row[c]) for row in cells) + 2 * pad for c in range(columns)]
        pitch = size * (1.3 + 0.7 * rng.random())
        m = size * (0.2 + 0.8 * rng.random())
        edges = m + np.concatenate([[0.0], np.cumsum(widths)])
        page = Page(int(edges[-1] + m) + 2, int(len(cells) * pitch + 2 * m) + 2)
        align = 0.0 if rng.random() < 0.5 else 1.0
        for r, row in enumerate(cells):
            for c, text in enumerate(row):
                room = widths[c] - 2 * pad - f.getlength(text)
                x = edges[c] + pad + (0 if c == 0 else align) * room
                page.segments.append(Segment(text, x, m + r * pitch + pitch / 2 + size * 0.34, font, size))
        if rng.random() < 0.6:
            thick, bottom = int(rng.integers(1, 4)), m + len(cells) * pitch
            page.rules += [(m, m + r * pitch, edges[-1], m + r * pitch, thick) for r in range(len(cells) + 1)]
            if rng.random() < 0.7:
                page.rules += [(x, m, x, bottom, thick) for x in edges]
        return page

    def none(self, rng, size, words, tokens):
        """No text: an empty sheet, printed lines and boxes, drawn shapes and scribbles"""
        ratio = np.exp(rng.uniform(-0.7, 2.4))
        page = Page(int(240 * ratio**0.5), int(240 / ratio**0.5))
        kind = rng.integers(3)
        for _ in range(int(rng.integers(1, 5)) if kind == 1 else 0):
            _rule(rng, page)
        for _ in range(int(rng.integers(1, 8)) if kind == 2 else 0):
            _shape(rng, page)
        return page


def _shape(rng, page):
    """A drawn shape, at least a tenth of the shorter side"""
    kind, side = SHAPES[rng.integers(len(SHAPES))], min(page.width, page.height)
    w, h = side * rng.uniform(0.1, 0.9, 2)
    x, y = rng.uniform(-0.2, 1.0) * page.width, rng.uniform(-0.2, 1.0) * page.height
    points = [(x, y), (x + w, y + h)]
    if kind in ("polygon", "scribble"):
        count = int(rng.integers(3, 7))
        points = [(float(x + w * a), float(y + h * b)) for a, b in rng.random((count, 2))]
    page.shapes.append((kind, points, float(rng.uniform(0.2, 1.0))))


def _rule(rng, page):
    """A printed line across, or a frame"""
    w, h = page.width, page.height
    thick = int(rng.integers(1, 4))
    if rng.random() < 0.5:
        d = int(min(w, h) * 0.02 * rng.random()) + 1
        page.rules += [(d, d, w - d, d, thick), (d, h - d, w - d, h - d, thick)]
        page.rules += [(d, d, d, h - d, thick), (w - d, d, w - d, h - d, thick)]
    else:
        y = h - 1 - rng.random() * 2 if page.segments else rng.random() * h
        page.rules.append((w * 0.3 * rng.random(), y, w * (1 - 0.3 * rng.random()), y, thick))
