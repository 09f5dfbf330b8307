"""Boxes and phrases drawn onto a picture."""

from __future__ import annotations

import bisect
import io
import os
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import ImageInput, open_image
from kosmos_edge.marks import Colour, box_label
from kosmos_edge.marks import distinct_colour as distinct_colour
from kosmos_edge.overlay import overlay_page, overlay_svg
from kosmos_edge.results import Box, Corners, Entity, Result
from kosmos_edge.targets import Target, find_target, write_whole

Rectangle: TypeAlias = tuple[float, float, float, float]
_checked: set[str] = set()  # formats that this Pillow can write


def draw_boxes(image: ImageInput, result: Result | Iterable[Entity], *, scores: bool = True) -> Image.Image:
    """An upright RGB image with every valid box and its phrase; scores: with the score after the phrase.

    Line width and letters scale with the picture. The boxes must be about this picture: an answer about one of another
    size is InvalidRequest. Inverted boxes are not drawn.
    """
    picture = open_image(image)
    if isinstance(result, Result):
        if result.width is not None and (result.width, result.height) != (picture.width, picture.height):
            raise InvalidRequest(
                f"draw_boxes: the answer is about an image of {result.width} x {result.height}, "
                f"this one is {picture.width} x {picture.height}"
            )
        entities = result.entities
    else:
        entities = list(result)
    canvas = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    pen = ImageDraw.Draw(canvas)
    side = min(canvas.size)
    line = max(2, round(side / 200))
    font = ImageFont.load_default(size=max(11, round(side / 32)))
    placed: list[Rectangle] = []
    for number, entity in enumerate(entities):
        colour = distinct_colour(number)
        for box in entity.boxes:
            if box.valid:
                pen.rectangle(_inside(box, canvas.size), outline=colour, width=line)
    for number, entity in enumerate(entities):  # all labels on top of all boxes
        for box in entity.boxes:
            if box.valid:
                label = _label(entity, box, scores)
                if label:
                    _draw_label(pen, _inside(box, canvas.size), label, distinct_colour(number), font, line, placed)
    return canvas


def drawing(image: ImageInput, result: Result, path: str | os.PathLike[str], *, title: str = "") -> Image.Image | str:
    """What save_drawing writes to the path: by its suffix an SVG or HTML text (overlay.py), else draw_boxes.

    title: of an HTML page. Errors: those of draw_boxes.
    """
    form = overlay_format(os.fspath(path))
    if form is None:
        return draw_boxes(image, result)
    picture = open_image(image)
    return overlay_svg(result, picture) if form == "svg" else overlay_page(result, picture, title=title)


def save_drawing(image: Image.Image | str, path: str | os.PathLike[str]) -> None:
    """Writes the image in the format of the path's suffix, or a text; a failed write leaves nothing.

    A file that exists is replaced and keeps its mode; a link is followed; a device or pipe is written to in place, as
    PNG where its name has no suffix. Errors: InvalidRequest (suffix, a folder, a picture that the format cannot hold),
    KosmosIOError.
    """
    target = find_target(path, overwrite=True)
    if isinstance(image, str):
        write_whole(target, image.encode())
    else:
        write_whole(target, _encode(image, picture_format(target), target.name))


def overlay_format(name: str) -> str | None:
    """ "svg" or "html" if the file's suffix is one of theirs."""
    return {".svg": "svg", ".html": "html", ".htm": "html"}.get(os.path.splitext(name)[1].lower())


def picture_format(target: Target) -> str:
    """Pillow's name of the format for the target's suffix; InvalidRequest if it cannot be written."""
    suffix = os.path.splitext(target.name)[1].lower()
    Image.init()
    file_format = "PNG" if target.in_place and not suffix else Image.EXTENSION.get(suffix)
    if file_format is None or file_format not in Image.SAVE:
        raise InvalidRequest(
            f"{target.name}: cannot write an image with the suffix {suffix!r}; use .png, .jpg, .svg or .html"
        )
    if file_format not in _checked:  # Pillow names formats whose library is not here, or that hold no colours
        _encode(Image.new("RGB", (1, 1)), file_format, target.name)
        _checked.add(file_format)
    return file_format


def _encode(image: Image.Image, file_format: str, name: str) -> bytes:
    buffer = io.BytesIO()
    try:
        image.save(buffer, file_format)
    except (OSError, ValueError, KeyError) as error:  # nothing is written to the disk here: it is the picture
        raise InvalidRequest(f"{name}: cannot write this image as {file_format}: {error}") from error
    return buffer.getvalue()


def _label(entity: Entity, box: Box, scores: bool) -> str:
    score = box.score if box.score is not None else entity.score
    return box_label(entity.phrase, score if scores else None)


def _inside(box: Box, size: tuple[int, int]) -> Corners:
    """Pixels of the box on this canvas, no wider than it."""
    x1, y1, x2, y2 = box.normalized
    width, height = size
    return (
        min(max(x1 * width, 0), width - 1),
        min(max(y1 * height, 0), height - 1),
        min(max(x2 * width, 0), width - 1),
        min(max(y2 * height, 0), height - 1),
    )


def _draw_label(
    pen: ImageDraw.ImageDraw,
    box: Corners,
    label: str,
    colour: Colour,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    line: int,
    placed: list[Rectangle],
) -> None:
    canvas_width, canvas_height = pen.im.size
    label = _shorten(pen, label, font, canvas_width - 2 * line)
    left, top, right, bottom = pen.textbbox((0, 0), label, font=font)
    width, height = right - left + 2 * line, bottom - top + 2 * line
    rectangle = _place((width, height), box, (canvas_width, canvas_height), placed)
    placed.append(rectangle)
    pen.rectangle(rectangle, fill=colour)
    red, green, blue = colour
    ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"
    pen.text((rectangle[0] + line - left, rectangle[1] + line - top), label, fill=ink, font=font)


def _shorten(
    pen: ImageDraw.ImageDraw, label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float
) -> str:
    """The label, truncated to fit and followed by dots; at least one letter."""
    most = max(1, int(width))  # letters that can be seen: each takes a pixel
    if len(label) <= most and pen.textlength(label, font=font) <= width:
        return label
    shown = range(1, min(len(label), most) + 1)
    fitting = bisect.bisect_right(shown, width, key=lambda n: pen.textlength(label[:n] + "...", font=font))
    return label[: max(1, fitting)].rstrip() + "..."


def _place(size: tuple[float, float], box: Corners, canvas: tuple[int, int], placed: Sequence[Rectangle]) -> Rectangle:
    """Above, inside, below or next to the box: the first place that covers no other label, else the best one."""
    width, height = size
    x1, y1, x2, y2 = box
    corners = [(x1, y1 - height), (x1, y1), (x1, y2), (x2 - width, y1 - height), (x2 - width, y2), (x1, y2 - height)]
    corners += [(x1, y1 + step * height) for step in (1, 2, 3)]
    best, least = None, float("inf")
    for x, y in corners:
        x = min(max(x, 0), max(canvas[0] - width, 0))
        y = min(max(y, 0), max(canvas[1] - height, 0))
        rectangle = (x, y, x + width, y + height)
        covered = sum(_overlap(rectangle, other) for other in placed)
        if covered < least:
            best, least = rectangle, covered
        if covered == 0:
            break
    assert best is not None
    return best


def _overlap(a: Rectangle, b: Rectangle) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0
