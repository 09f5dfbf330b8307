"""Documents for tests: small files of every kind, and results as a model that reads would give them."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pikepdf
from PIL import Image

from kosmos_edge.documents import About, ReadPage
from kosmos_edge.errors import KosmosError
from kosmos_edge.results import Box, Done, Entity, EntityEvent, Event, Line, Result, TextDelta, Timings

ABOUT = About('a "page" & more.png', False, 1, "tiny", "1.2.3")
# Text, box in pixels of a page of 850 x 1100, score. Arabic and Hebrew are written leftwards.
LINES: list[tuple[str, tuple[float, float, float, float], float | None]] = [
    ("Invoice <No. 7> & Söhne", (100, 100, 500, 140), 0.9),
    ("日本語 中文 𠮷野家", (100.4, 199.6, 399.5, 230), 0.75),
    ("مرحبا بالعالم 123", (300, 300, 700, 340), 0.5),
    ("שלום עולם", (300, 400, 700, 440), None),
    ("12.50 € 👍", (600, 500, 840, 530), 1.0),
]


def make_result(width: int = 850, height: int = 1100, lines: Any = None, **fields: Any) -> Result:
    """A result as Model.read gives it; lines: (text, box in pixels, score)."""
    read = [
        Line(text, Box((x1 / width, y1 / height, x2 / width, y2 / height), (x1, y1, x2, y2)), score)
        for text, (x1, y1, x2, y2), score in (LINES if lines is None else lines)
    ]
    start, entities = 0, []
    for line in read:
        entities.append(Entity(line.text, (start, start + len(line.text)), (line.box,), line.score))
        start += len(line.text) + 1
    text = "\n".join(line.text for line in read)
    facts = {"timings": Timings(tokens=7), "model": "tiny", "width": width, "height": height} | fields
    return Result(text, entities, lines=read, **facts)


def make_page(number: int = 1, dpi: tuple[float, float] | None = (100, 100), **fields: Any) -> ReadPage:
    """A page that was read."""
    return ReadPage(number, make_result(**fields), dpi)


class Reading:
    """Stands for a model: "reads" on every page its size and a count. For tests of what is done with results."""

    name = "stand-in"

    def __init__(self, tokens: int = 7) -> None:
        self.calls: list[tuple[int, int, bool, dict[str, Any]]] = []  # width, height, markdown, options
        self.most = tokens  # a lower max_tokens is reached
        self.notes: list[str] = []
        self.refusal: KosmosError | None = None  # of any page
        self.error: BaseException | None = None  # raised at the call number fails_at
        self.fails_at = 0

    def request(self, task: str, arguments: dict[str, Any]) -> None:
        """See Model.request."""
        assert task == "read" and arguments["image"] is None
        if self.refusal is not None:
            raise self.refusal

    def read(self, image: Any, *, markdown: bool = False, stream: bool = False, **options: Any) -> Any:
        """See Model.read."""
        self.calls.append((image.width, image.height, markdown, options))
        if self.error is not None and len(self.calls) == self.fails_at:
            raise self.error
        number = len(self.calls)
        lines = [
            (f"page {number}", (10, 10, 60, 20), 0.5),
            (f"{image.width} x {image.height}", (10, 30, image.width - 10, 45), 0.25),
        ]
        limit = options.get("max_tokens", self.most)
        result = make_result(
            image.width,
            image.height,
            lines,
            finish_reason="length" if limit < self.most else "stop",
            timings=Timings(tokens=min(limit, self.most)),
            source=image.name,
            notes=list(self.notes),
        )
        if markdown:
            result = Result(f"# Page {number}\n\n*{image.width}*", model="tiny", width=image.width, height=image.height)
        return self._events(result) if stream else result

    @staticmethod
    def _events(result: Result) -> Iterator[Event]:
        if result.lines is None:
            yield TextDelta(result.text)
        for number, entity in enumerate(result.entities):
            yield TextDelta(("\n" if number else "") + entity.phrase, 7 * number + 6)
            yield EntityEvent(entity, 7 * number + 7)
        yield Done(result)


def save_png(path: Path, size: tuple[int, int] = (120, 80), **options: Any) -> Path:
    """A white image."""
    Image.new("RGB", size, "white").save(path, **options)
    return path


def save_tiff(path: Path, sizes: list[tuple[int, int]], *, thumbnail: bool = False) -> Path:
    """A TIFF file of several pages; thumbnail: the second one says that it is a smaller copy of another."""
    images = [Image.new("L", size, 200) for size in sizes]
    if thumbnail:
        images[1].encoderinfo = {"tiffinfo": {254: 1}}  # type: ignore[attr-defined]
    images[0].save(path, save_all=True, append_images=images[1:], dpi=(300, 150))
    return path


def make_pdf(
    texts: list[str], size: tuple[float, float] = (144, 72), *, rotate: int = 0, box: tuple[float, ...] | None = None
) -> bytes:
    """A PDF with a page for each text (may be empty), in Helvetica 12 at 20, 30 from the corner of its box."""
    pdf = pikepdf.new()
    font = pikepdf.Dictionary(Type=pikepdf.Name.Font, Subtype=pikepdf.Name.Type1, BaseFont=pikepdf.Name.Helvetica)
    left, bottom = (box or (0, 0))[:2]
    for text in texts:
        page = pdf.add_blank_page(page_size=size)
        if box is not None:
            page.obj.CropBox = pikepdf.Array(list(box))
        if rotate:
            page.obj.Rotate = rotate
        page.obj.Resources = pikepdf.Dictionary(Font=pikepdf.Dictionary(F1=font))
        shown = f"BT /F1 12 Tf {left + 20} {bottom + 30} Td ({text}) Tj ET" if text else ""
        page.obj.Contents = pdf.make_stream(shown.encode("latin-1"))
    out = BytesIO()
    pdf.save(out)
    return out.getvalue()
