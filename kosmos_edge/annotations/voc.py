"""Pascal VOC: an XML file for each picture."""

from __future__ import annotations

import math
import os
import xml.etree.ElementTree as ET

from kosmos_edge.annotations.labels import Labels
from kosmos_edge.annotations.pictures import Picture


def voc(picture: Picture, labels: Labels | None = None, *, folder: str = "") -> str:
    """The XML. Corners are whole pixels that count from 1, the last one included, as in the data set of that name.

    A region is never made smaller: the corners are rounded outward. labels: names instead of phrases.
    """
    labels = Labels() if labels is None else labels
    root = ET.Element("annotation")
    _add(root, "folder", folder)
    _add(root, "filename", os.path.basename(picture.name))
    _add(root, "path", picture.name)
    _add(ET.SubElement(root, "source"), "database", picture.model)
    size = ET.SubElement(root, "size")
    for name, value in (("width", picture.width), ("height", picture.height), ("depth", 3)):
        _add(size, name, value)
    _add(root, "segmented", 0)
    for region in picture.regions:
        label = labels.name(region.phrase)
        if label is None:
            continue
        thing = ET.SubElement(root, "object")
        for name, text in (("name", label), ("pose", "Unspecified"), ("truncated", 0), ("difficult", 0)):
            _add(thing, name, text)
        x1, y1, x2, y2 = region.pixels
        box = ET.SubElement(thing, "bndbox")
        for name, value in (
            ("xmin", min(math.floor(x1), picture.width - 1) + 1),
            ("ymin", min(math.floor(y1), picture.height - 1) + 1),
            ("xmax", min(math.ceil(x2), picture.width)),
            ("ymax", min(math.ceil(y2), picture.height)),
        ):
            _add(box, name, value)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _add(parent: ET.Element, name: str, text: object) -> None:
    # XML has no place for control characters, which a file name may have
    ET.SubElement(parent, name).text = "".join(c if c >= " " or c in "\t\n" else "\ufffd" for c in str(text))
