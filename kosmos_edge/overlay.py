"""A result as HTML or SVG: the picture with its boxes, which light up with the phrases of the text. Without scripts.

Everything is in the one text: the picture, scaled down, as a data URI, and a few rules of CSS. Texts are escaped. The
functions take any result with text, entities, width, height, error (results.Result): results.py is above this module.
"""

from __future__ import annotations

import base64
import hashlib
import io
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from PIL import Image

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import Picture
from kosmos_edge.marks import box_label, distinct_colour

_LONGEST_LABEL = 60  # characters that a label shows; its tooltip has all


@dataclass(frozen=True, slots=True)
class PreviewSize:
    """Limits of the picture in an overlay."""

    side: int  # pixels of its longer side
    bytes: int  # of its JPEG


IN_NOTEBOOKS = PreviewSize(768, 300_000)
IN_FILES = PreviewSize(1600, 1_500_000)


def overlay_html(
    result: Any,
    picture: Picture | None = None,
    *,
    scores: bool = True,
    size: PreviewSize = IN_NOTEBOOKS,
    missing: str = "",
) -> str:
    """A <div> with the picture, its boxes and the text. picture: None: the boxes on grey, and `missing` says why."""
    check_picture(result, picture)
    if result.error is not None:
        return f"<div><p>{html_text(str(result.error))}</p></div>"
    uri, wide = ("", size.side) if picture is None else preview(picture, size)
    image = _image(result, uri, scores)
    body = (image and f"{image}\n") + f"<p>{''.join(_phrases(result))}</p>"
    if missing:
        body += f"\n<p><small>{html_text(missing)}</small></p>"
    name = "ke-" + hashlib.sha256(body.encode()).hexdigest()[:12]  # several results may stand in one page
    rules = [
        f".{name}{{max-width:{wide}px;font:15px/1.5 system-ui,sans-serif}}",
        f".{name} svg{{display:block;width:100%;height:auto}}",
        f".{name} svg text{{visibility:hidden}}",
        f".{name} span{{border-bottom:2px solid}}",
        *(_light(f".{name}", number) for number, entity in enumerate(result.entities) if _boxes(entity)),
    ]
    return f'<div class="{name}">\n<style>{"".join(rules)}</style>\n{body}\n</div>'


def overlay_page(result: Any, picture: Picture | None = None, *, scores: bool = True, title: str = "") -> str:
    """overlay_html as a whole HTML file."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html_text(title)}</title>\n</head>\n<body>\n"
        f"{overlay_html(result, picture, scores=scores, size=IN_FILES)}\n</body>\n</html>\n"
    )


def overlay_svg(result: Any, picture: Picture, *, scores: bool = True) -> str:
    """A whole SVG file: the picture with its boxes and labels; a box lights up under the pointer."""
    check_picture(result, picture)
    uri, _ = preview(picture, IN_FILES)
    rules = "<style>g:hover rect{fill-opacity:.35;stroke-width:4px}</style>\n"
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + _image(result, uri, scores, rules) + "\n"


def check_picture(result: Any, picture: Picture | None) -> None:
    """InvalidRequest if the result is about a picture of another size."""
    if picture is None or result.width is None or (result.width, result.height) == (picture.width, picture.height):
        return
    raise InvalidRequest(
        f"the answer is about an image of {result.width} x {result.height}, "
        f"this one is {picture.width} x {picture.height}"
    )


def preview(picture: Picture, size: PreviewSize) -> tuple[str, int]:
    """A data URI of the picture within the limits, and its width in pixels."""
    side = size.side
    while True:
        image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        if buffer.tell() <= size.bytes or side <= 16:
            return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"), image.width
        side = side * 3 // 4


def _image(result: Any, uri: str, scores: bool, rules: str = "") -> str:
    """The <svg>; "" for a result without an image."""
    if result.width is None:
        return ""
    width, height = result.width, result.height
    shown = f'<image href="{uri}" width="{width}" height="{height}" preserveAspectRatio="none"/>'
    if not uri:
        shown = f'<rect width="{width}" height="{height}" fill="#8884"/>'
    boxes = [
        (number, entity, box) for number, entity in enumerate(result.entities) for box in _boxes(entity)
    ]  # the small ones on top, where the pointer finds them
    boxes.sort(key=lambda item: -_area(item[2]))
    groups = "".join(f"{_group(result, number, entity, box, scores)}\n" for number, entity, box in boxes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{html_text(result.text)}">\n{rules}{shown}\n{groups}</svg>'
    )


def _boxes(entity: Any) -> list[Any]:
    return [box for box in entity.boxes if box.valid]


def _area(box: Any) -> float:
    x1, y1, x2, y2 = box.normalized
    return float((x2 - x1) * (y2 - y1))


def _group(result: Any, number: int, entity: Any, box: Any, scores: bool) -> str:
    x1, y1, x2, y2 = (
        round(value * side, 2) for value, side in zip(box.normalized, (result.width, result.height) * 2, strict=True)
    )
    score = box.score if box.score is not None else entity.score
    label = box_label(entity.phrase, score if scores else None)
    short = label if len(label) <= _LONGEST_LABEL else label[:_LONGEST_LABEL].rstrip() + "..."
    letters = max(9.0, round(min(result.width, result.height) / 24, 1))
    colour = _colour(number)
    y = y1 - letters / 3 if y1 > letters * 1.3 else min(y1 + letters * 1.1, result.height - letters / 3)
    x, anchor = (x1, "start") if x1 + x2 < result.width else (x2, "end")
    return (
        f'<g class="e{number}"><title>{html_text(label)}</title><rect x="{x1}" y="{y1}" width="{round(x2 - x1, 2)}" '
        f'height="{round(y2 - y1, 2)}" fill="{colour}" fill-opacity=".08" stroke="{colour}" stroke-width="2" '
        f'vector-effect="non-scaling-stroke"/><text x="{x}" y="{round(y, 2)}" text-anchor="{anchor}" '
        f'font-size="{letters}" font-family="sans-serif" fill="#fff" stroke="#000" stroke-width="{letters / 5:.2f}" '
        f'paint-order="stroke" pointer-events="none">{html_text(short)}</text></g>'
    )


def _phrases(result: Any) -> Iterator[str]:
    """The text, its phrases that have boxes in elements of their own."""
    end = 0
    for number, entity in sorted(enumerate(result.entities), key=lambda item: item[1].span):
        start, stop = entity.span
        if start < end or start == stop or not _boxes(entity):
            continue
        yield _lines(result.text[end:start])
        shown = f'class="e{number}" tabindex="0" style="border-color:{_colour(number)}"'
        yield f"<span {shown}>{_lines(result.text[start:stop])}</span>"
        end = stop
    yield _lines(result.text[end:])


def _light(scope: str, number: int) -> str:
    """Pointing at a box or its phrase lights up both. A browser without :has() leaves the rule out."""
    red, green, blue = distinct_colour(number)
    on = f"{scope}:has(.e{number}:hover,.e{number}:focus)"
    return (
        f"{on} g.e{number} rect{{fill-opacity:.35;stroke-width:4px}}{on} g.e{number} text{{visibility:visible}}"
        f"{on} span.e{number}{{background:rgba({red},{green},{blue},.35)}}"
    )


def _colour(number: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*distinct_colour(number))


def html_text(text: str) -> str:
    """Escaped for HTML and XML, which have no place for control characters."""
    return escape("".join("\ufffd" if _is_control(c) else c for c in text))


def _is_control(c: str) -> bool:
    return c in "\ufffe\uffff" or (c not in "\t\n" and unicodedata.category(c) in ("Cc", "Cs"))


def _lines(text: str) -> str:
    return html_text(text).replace("\n", "<br>\n")
