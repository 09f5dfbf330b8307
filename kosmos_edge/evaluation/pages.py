"""Pictures of pages with what stands on them, from a folder: our own form, transcripts, and published data sets.

The truth of page.png is the first of these that is there: page.json, page.hocr, page.xml (ALTO), page.gt.txt, page.txt,
beside the picture or in a folder `annotations`, `json`, `box` or `gt` beside the picture's folder. What is in the file
tells its form:

- .json: {"lines": [{"text", "box": [x1, y1, x2, y2]}], "text"} as `kosmos-edge read --format json` writes it; boxes and
  the text of the page are optional;
  FUNSD ("form"); CORD ("valid_line"); the output of the authors' inference.py of KOSMOS-2.5 ("results").
- .txt: the text; or SROIE's lines "x1,y1,x2,y2,x3,y3,x4,y4,text".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_edge.errors import InvalidRequest, KosmosIOError
from kosmos_edge.evaluation.task import Item
from kosmos_edge.images import picture_suffixes
from kosmos_edge.results import Corners, check_corners

FILES = (
    "images (sub-folders are searched), and beside each its truth: page.png and page.json, .hocr, .xml (ALTO), "
    ".gt.txt or .txt; or FUNSD, SROIE, CORD as published"
)
SUFFIXES = (".json", ".hocr", ".xml", ".gt.txt", ".txt")
FOLDERS = ("annotations", "json", "box", "gt")
_SROIE = re.compile(r"(-?\d+),(-?\d+),(-?\d+),(-?\d+),(-?\d+),(-?\d+),(-?\d+),(-?\d+),(.*)")


@dataclass(frozen=True, slots=True)
class Page:
    """What stands on a page."""

    text: str
    boxes: tuple[Corners, ...] | None  # of its lines, in pixels of the upright picture; None: unknown


def load_pages(folder: Path) -> list[Item]:
    """All pictures of the folder with their truth; InvalidRequest names a picture that has none."""
    return [
        Item(name, str(picture), read_page(beside(picture, SUFFIXES, FILES)), group_of(name))
        for name, picture in pictures_in(folder)
    ]


def group_of(name: str) -> str:
    """The sub-folder of the data that a picture is in, at whatever depth; "" for none."""
    return name.partition("/")[0] if "/" in name else ""


def pictures_in(folder: Path) -> list[tuple[str, Path]]:
    """(name within the folder, path) of its pictures and those of its sub-folders, sorted by name."""
    if not folder.is_dir():
        raise InvalidRequest(f"--data: {folder} is not a folder")
    suffixes = picture_suffixes()
    found = [path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file()]
    if not found:
        raise InvalidRequest(f"--data: no pictures in {folder}")
    return sorted((path.relative_to(folder).as_posix(), path) for path in found)


def beside(picture: Path, suffixes: Sequence[str], expected: str) -> Path:
    """The picture's file with the first of these suffixes; InvalidRequest says where it was looked for."""
    for place in (picture.parent, *(picture.parent.parent / name for name in FOLDERS)):
        for suffix in suffixes:
            for name in (picture.stem + suffix, picture.name + suffix):  # page.json, page.png.json
                if (place / name).is_file():
                    return place / name
    raise InvalidRequest(
        f"{picture}: there is no {picture.stem}{suffixes[0]}"
        + (f" (or {', '.join(suffixes[1:])})" if len(suffixes) > 1 else "")
        + f" beside it, nor in {', '.join(FOLDERS)} beside its folder; expected {expected}"
    )


def read_text(path: Path) -> str:
    """A file's text, which must be UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path}: expected UTF-8: {error}") from None
    except OSError as error:
        raise KosmosIOError(f"cannot read {path}: {error.strerror or error}") from error


def read_page(path: Path) -> Page:
    """The page that a file of truth describes. InvalidRequest says where it is not of its form."""
    if path.suffix == ".json":
        return _from_json(path)
    if path.suffix in (".hocr", ".xml"):
        from kosmos_edge.evaluation.page_markup import read_alto, read_hocr

        return page_of((read_hocr if path.suffix == ".hocr" else read_alto)(read_text(path), path))
    text = read_text(path)
    rows = [_SROIE.fullmatch(line) for line in text.splitlines() if line.strip()]
    if not rows or not all(rows):
        return Page(text, None)
    lines = [(row[9], _bounds([float(row[i]) for i in range(1, 9)])) for row in rows if row]
    return page_of(lines)


def page_of(lines: Sequence[tuple[str, Corners | None]]) -> Page:
    """The page of these lines; its boxes are known if those of all lines are."""
    boxes = [box for _, box in lines if box is not None]
    return Page("\n".join(text for text, _ in lines), tuple(boxes) if len(boxes) == len(lines) else None)


def _bounds(corners: Sequence[float]) -> Corners:
    """The box around x1, y1, x2, y2, ..."""
    xs, ys = corners[0::2], corners[1::2]
    return min(xs), min(ys), max(xs), max(ys)


# ---- JSON


def _from_json(path: Path) -> Page:
    try:
        record = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{path}: not JSON: {error}") from None
    try:
        if isinstance(record, dict):
            if "lines" in record:
                page = page_of([(_text(line), _box(line.get("box"))) for line in record["lines"]])
                return Page(_text(record), page.boxes) if "text" in record else page
            if "form" in record:
                return page_of([line for block in record["form"] for line in _lines_of(_funsd(block))])
            if "valid_line" in record:
                return page_of([line for block in record["valid_line"] for line in _lines_of(_cord(block))])
            if "results" in record:
                return page_of([(_text(line), _box(line["bounding box"])) for line in record["results"]])
    except (KeyError, TypeError, AttributeError, InvalidRequest) as error:
        raise InvalidRequest(f"{path}: a line or word is not as expected: {error}") from None
    raise InvalidRequest(f"{path}: expected an object with lines, form (FUNSD), valid_line (CORD) or results")


def _text(line: Any) -> str:
    text = line["text"]
    if not isinstance(text, str):
        raise InvalidRequest(f"text is {text!r}, expected a string")
    return text


def _box(value: Any) -> Corners | None:
    """[x1, y1, x2, y2], {"x0", "y0", "x1", "y1"}, or None."""
    if value is None:
        return None
    return check_corners(
        "box", [value[name] for name in ("x0", "y0", "x1", "y1")] if isinstance(value, dict) else value
    )


def _funsd(block: Any) -> Iterator[tuple[str, Corners]]:
    for word in block["words"]:
        if _text(word).strip():
            yield word["text"], check_corners("box", word["box"])


def _cord(block: Any) -> Iterator[tuple[str, Corners]]:
    for word in block["words"]:
        quad = word["quad"]
        corners = [float(quad[axis + str(n)]) for n in (1, 2, 3, 4) for axis in "xy"]
        yield _text(word), _bounds(corners)


def _lines_of(words: Iterable[tuple[str, Corners]]) -> list[tuple[str, Corners]]:
    """Words of one block as lines: a word whose middle is above or below the line so far begins another."""
    lines: list[tuple[str, Corners]] = []
    for text, box in words:
        if lines and lines[-1][1][1] < (box[1] + box[3]) / 2 < lines[-1][1][3]:
            before, old = lines[-1]
            lines[-1] = f"{before} {text}", _bounds([*old, *box])
        else:
            lines.append((text, box))
    return lines
