"""XMP sidecars by a fixed schema, merged into what is there.

| what | property |
| the caption | dc:description |
| the caption as alt text | Iptc4xmpCore:AltTextAccessibility |
| phrases with boxes, if asked for | dc:subject |
| boxes | mwg-rs:Regions, in the orientation in which the picture is stored |

Properties of others stay as they are, with their comments and prefixes. A description, an alt text, a keyword or a
region that is there is not written a second time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.dom import Node, minidom
from xml.parsers.expat import ExpatError

from kosmos_edge.annotations import Region, picture_of
from kosmos_edge.annotations.labels import plain_label
from kosmos_edge.errors import KosmosError
from kosmos_edge.folders.stored import Answer
from kosmos_edge.results import Ranking

META = "adobe:ns:meta/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
DC = "http://purl.org/dc/elements/1.1/"
IPTC = "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"
REGIONS = "http://www.metadataworkinggroup.com/schemas/regions/"
AREA = "http://ns.adobe.com/xmp/sType/Area#"
SIZE = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
_XMLNS, _XML = "http://www.w3.org/2000/xmlns/", "http://www.w3.org/XML/1998/namespace"
_PREFIXES = {RDF: "rdf", DC: "dc", IPTC: "Iptc4xmpCore", REGIONS: "mwg-rs", AREA: "stArea", SIZE: "stDim"}
_NEW = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    f'<x:xmpmeta xmlns:x="{META}">\n <rdf:RDF xmlns:rdf="{RDF}">\n  <rdf:Description rdf:about=""/>\n </rdf:RDF>\n'
    '</x:xmpmeta>\n<?xpacket end="w"?>\n'
)
_TURNED = re.compile(r"turned upright by EXIF orientation ([2-8])")
# What XML 1.0 cannot hold.
_REFUSED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class NotXmp(KosmosError):
    """The sidecar that is there is no XMP, so nothing can be merged into it."""


def merge_xmp(
    before: bytes | None, answer: Answer, caption: str, *, name: str, replace: bool = False, keywords: bool = False
) -> bytes:
    """The sidecar with what the answer adds.

    before: the file that is there. name: for errors. replace: description and alt text are replaced. Raises NotXmp.
    """
    document = _read(before, name)
    place = _Place(document, name)
    caption = _REFUSED.sub("\ufffd", caption)
    if caption:
        for uri, local in ((DC, "description"), (IPTC, "AltTextAccessibility")):
            place.set_text(uri, local, caption, replace=replace)
    if not isinstance(answer, Ranking) and answer.width is not None:
        picture = picture_of(answer, caption=caption)
        named = [region for region in picture.regions if region.phrase]
        if keywords:
            place.add_keywords(list(dict.fromkeys(plain_label(region.phrase) for region in named)))
        if picture.regions:
            place.add_regions(picture.regions, (picture.width, picture.height), _orientation(answer))
    # Read once more: the parser puts attributes into an order that the next merge will not change.
    return _written(_read(_written(document), name))


def _written(document: minidom.Document) -> bytes:
    return "".join(node.toxml() + "\n" for node in document.childNodes).encode("utf-8")


def _orientation(answer: Answer) -> int:
    """In which the picture is stored; 1 if its pixels were used as they are."""
    found = [match for note in answer.notes if (match := _TURNED.search(note))]
    return int(found[0][1]) if found else 1


def as_stored(corners: tuple[float, float, float, float], orientation: int) -> tuple[float, float, float, float]:
    """A box in fractions of the upright picture -> in fractions of the picture as it is stored."""

    def turn(x: float, y: float) -> tuple[float, float]:
        if orientation >= 5:
            x, y = y, x
        return (1 - x if orientation in (2, 3, 7, 8) else x), (1 - y if orientation in (3, 4, 6, 7) else y)

    (x1, y1), (x2, y2) = turn(*corners[:2]), turn(*corners[2:])
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _read(before: bytes | None, name: str) -> minidom.Document:
    if before is None or not before.strip():
        return minidom.parseString(_NEW.encode())
    if re.search(rb"<\s*!\s*(?:DOCTYPE|ENTITY)", before.replace(b"\0", b"")):
        raise NotXmp(f"{name}: expected XMP, got a document with a DOCTYPE, which XMP does not have")
    try:
        return minidom.parseString(before)
    except (ExpatError, ValueError, LookupError) as error:
        raise NotXmp(f"{name}: expected XMP, got damaged XML ({error})") from error


class _Place:
    """The rdf:RDF of a document."""

    def __init__(self, document: minidom.Document, name: str) -> None:
        self._document = document
        found = document.getElementsByTagNameNS(RDF, "RDF")
        if not found:
            raise NotXmp(f"{name}: expected XMP, got XML without rdf:RDF")
        self._root = found[0]
        self._parts = list(_children(self._root, RDF, "Description"))
        if not self._parts:
            made = self._add(self._root, RDF, "Description")
            self._set(made, RDF, "about", "")
            self._parts = [made]

    # ---- properties

    def set_text(self, uri: str, local: str, text: str, *, replace: bool) -> None:
        """A text in the default language."""
        alternatives = self._list(self._property(uri, local), "Alt")
        items = list(_children(alternatives, RDF, "li"))
        default = [item for item in items if item.getAttributeNS(_XML, "lang") == "x-default"]
        if not default and items and not replace:
            return  # a text in some language is a text
        if not default:
            item = self._document.createElementNS(RDF, f"{self._prefix(alternatives, RDF)}:li")
            item.setAttributeNS(_XML, "xml:lang", "x-default")
            alternatives.insertBefore(item, alternatives.firstChild)
            default = [item]
        if replace or not _text(default[0]).strip():
            for child in list(default[0].childNodes):
                default[0].removeChild(child)
            default[0].appendChild(self._document.createTextNode(text))

    def add_keywords(self, words: list[str]) -> None:
        """Those that are not there."""
        if not words:
            return
        bag = self._list(self._property(DC, "subject"), "Bag")
        there = {_text(item).strip().lower() for item in _children(bag, RDF, "li")}
        for word in words:
            word = _REFUSED.sub("\ufffd", word)
            if word.lower() not in there:
                self._add(bag, RDF, "li", word)

    def add_regions(self, regions: tuple[Region, ...], size: tuple[int, int], orientation: int) -> None:
        """Those that are not there. size: of the upright picture."""
        top = self._property(REGIONS, "Regions")
        inside = next(_children(top, RDF, "Description"), top)
        if inside is top and not top.hasAttributeNS(RDF, "parseType"):
            self._set(top, RDF, "parseType", "Resource")
        if not any(_children(inside, REGIONS, "AppliedToDimensions")):
            applied = self._add(inside, REGIONS, "AppliedToDimensions")
            width, height = reversed(size) if orientation >= 5 else size
            for local, value in (("w", str(width)), ("h", str(height)), ("unit", "pixel")):
                self._set(applied, SIZE, local, value)
        listed = next(_children(inside, REGIONS, "RegionList"), None)
        if listed is None:
            listed = self._add(inside, REGIONS, "RegionList")
        bag = self._list(listed, "Bag")
        there = {_region_of(item) for item in _children(bag, RDF, "li")}
        for region in regions:
            x1, y1, x2, y2 = region.pixels
            corners = x1 / size[0], y1 / size[1], x2 / size[0], y2 / size[1]
            x1, y1, x2, y2 = as_stored(corners, orientation)
            values = [f"{value:.6f}" for value in ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)]
            phrase = _REFUSED.sub("\ufffd", region.phrase)
            if (phrase, *map(float, values)) in there:
                continue
            inner = self._add(self._add(bag, RDF, "li"), RDF, "Description")
            if phrase:
                self._set(inner, REGIONS, "Name", phrase)
            area = self._add(inner, REGIONS, "Area")
            for local, text in zip(("x", "y", "w", "h", "unit"), [*values, "normalized"], strict=True):
                self._set(area, AREA, local, text)

    # ---- nodes

    def _property(self, uri: str, local: str) -> minidom.Element:
        """The property's element, in whatever description it is; a new one if there is none."""
        for part in self._parts:
            for found in _children(part, uri, local):
                return found
        return self._add(self._parts[0], uri, local)

    def _list(self, parent: minidom.Element, kind: str) -> minidom.Element:
        """The rdf:Alt, rdf:Bag or rdf:Seq in an element; a new one of this kind, with a plain text as its item."""
        for name in ("Alt", "Bag", "Seq"):
            for found in _children(parent, RDF, name):
                return found
        text = _text(parent).strip()
        for child in list(parent.childNodes):
            parent.removeChild(child)
        made = self._add(parent, RDF, kind)
        if text:
            item = self._add(made, RDF, "li", text)
            if kind == "Alt":
                item.setAttributeNS(_XML, "xml:lang", "x-default")
        return made

    def _add(self, parent: minidom.Element, uri: str, local: str, text: str | None = None) -> minidom.Element:
        made = self._document.createElementNS(uri, f"{self._prefix(parent, uri)}:{local}")
        if text is not None:
            made.appendChild(self._document.createTextNode(text))
        parent.appendChild(made)
        return made

    def _set(self, element: minidom.Element, uri: str, local: str, value: str) -> None:
        element.setAttributeNS(uri, f"{self._prefix(element, uri)}:{local}", value)

    def _prefix(self, element: minidom.Element, uri: str) -> str:
        """A prefix that means `uri` at this element; declared at the property's description if there is none."""
        bound: dict[str, str] = {}
        above: list[minidom.Element] = []
        node: Node | None = element
        while isinstance(node, minidom.Element):
            above.append(node)
            for name, value in node.attributes.items():
                if name.startswith("xmlns:"):
                    bound.setdefault(name.removeprefix("xmlns:"), value)
            node = node.parentNode
        for prefix, meaning in bound.items():
            if meaning == uri:
                return prefix
        prefix = _PREFIXES[uri]
        while prefix in bound:
            prefix += "1"
        place = next((one for one in above if one in self._parts), element)
        place.setAttributeNS(_XMLNS, f"xmlns:{prefix}", uri)
        return prefix


def _children(parent: minidom.Element, uri: str, local: str) -> Iterator[minidom.Element]:
    for child in list(parent.childNodes):
        if isinstance(child, minidom.Element) and (child.namespaceURI, child.localName) == (uri, local):
            yield child


def _text(element: minidom.Element) -> str:
    return "".join(child.data for child in element.childNodes if isinstance(child, minidom.Text))


def _value(element: minidom.Element | None, uri: str, local: str) -> str:
    """A simple value: an attribute or a child, of the element or of the description in it."""
    if element is None:
        return ""
    for place in (element, next(_children(element, RDF, "Description"), None)):
        if place is None:
            continue
        if place.hasAttributeNS(uri, local):
            return place.getAttributeNS(uri, local)
        for child in _children(place, uri, local):
            return _text(child).strip()
    return ""


def _region_of(item: minidom.Element) -> tuple[str, float, float, float, float] | None:
    """Name and area of a region that is there; None if it is none that we could have written."""
    inner = next(_children(item, RDF, "Description"), item)
    area = next(_children(inner, REGIONS, "Area"), None)
    try:
        x, y, width, height = (float(_value(area, AREA, local)) for local in ("x", "y", "w", "h"))
    except ValueError:
        return None
    return _value(inner, REGIONS, "Name"), x, y, width, height
