"""Flickr30k Entities: sentences with phrases and boxes of what they name, in the authors' form and in MDETR's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.pages import read_text
from kosmos_edge.evaluation.tasks.records import find, numbers_of, read_json, reading
from kosmos_edge.results import Corners

_PHRASE = re.compile(r"\[/EN#(\d+)((?:/[^\s/\]]+)*) ([^\]]*)\]")
_NOT_VISUAL = "0"


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase of a sentence with the boxes of its chain, in pixels."""

    picture: str
    sentence: int  # of the picture, 0-based
    place: int  # of the phrase in the sentence, 0-based
    text: str
    before: str  # the sentence's words before it
    boxes: tuple[Corners, ...]
    types: tuple[str, ...]  # () where the file does not say


def read_phrases(folder: Path, split: str) -> list[Phrase]:
    """All phrases of the split whose chain has a box."""
    published = folder / f"{split}.txt"
    if published.is_file() and (folder / "Sentences").is_dir():
        return [phrase for name in read_text(published).split() for phrase in _authors(folder, name)]
    path = find(folder, f"final_flickr_separateGT_{split}.json", f"{split}.txt")
    if path.suffix == ".txt":
        find(folder, "Sentences")
    with reading(path) as records:
        return list(_mdetr(read_json(path), records))


def _authors(folder: Path, name: str) -> Iterator[Phrase]:
    boxes = _boxes(find(folder, f"Annotations/{name}.xml"))
    for number, line in enumerate(read_text(find(folder, f"Sentences/{name}.txt")).split("\n")):
        end, words = 0, ""
        for place, found in enumerate(_PHRASE.finditer(line)):
            words += line[end : found.start()]
            chain, text, end = found[1], " ".join(found[3].split()), found.end()
            if chain != _NOT_VISUAL and chain in boxes:
                types = tuple(found[2].strip("/").split("/"))
                yield Phrase(name, number, place, text, " ".join(words.split()), tuple(boxes[chain]), types)
            words += text


def _boxes(path: Path) -> dict[str, list[Corners]]:
    """chain -> its boxes."""
    try:
        root = ElementTree.fromstring(read_text(path).encode())
    except ElementTree.ParseError as error:
        raise InvalidRequest(f"{path}: not XML: {error}") from None
    out: dict[str, list[Corners]] = {}
    with reading(path) as objects:
        for node in objects.each(root.iter("object")):
            bounds = node.find("bndbox")
            if bounds is None:  # a scene, or what has no box
                continue
            sides = numbers_of((bounds.findtext(side) or "" for side in ("xmin", "ymin", "xmax", "ymax")), "bndbox")
            x1, y1, x2, y2 = (side - 1 for side in sides)  # the first pixel is 1; the authors' reader does so
            for chain in node.findall("name"):
                out.setdefault(str(chain.text), []).append((x1, y1, x2, y2))
    return out


def _mdetr(record: Any, records: reading) -> Iterator[Phrase]:
    """Boxes belong to places of the sentence; several boxes of one place are of one phrase."""
    boxes: dict[Any, list[tuple[tuple[tuple[int, int], ...], Corners]]] = {}
    for one in records.each(record["annotations"]):
        x, y, width, height = numbers_of(one["bbox"], "bbox")
        spans = tuple((int(start), int(end)) for start, end in one["tokens_positive"])
        boxes.setdefault(one["image_id"], []).append((spans, (x, y, x + width, y + height)))
    for image in records.each(record["images"]):
        caption = image["caption"]
        known = boxes.get(image["id"], [])
        for place, spans in enumerate(image["tokens_positive_eval"]):
            wanted = tuple((int(start), int(end)) for start, end in spans)
            mine = tuple(box for where, box in known if set(wanted) & set(where))
            if mine:
                text = " ".join(" ".join(caption[start:end] for start, end in wanted).split())
                before = " ".join(caption[: wanted[0][0]].split())
                picture, sentence = str(image["original_img_id"]), int(image["sentence_id"])
                yield Phrase(picture, sentence, place, text, before, mine, ())
