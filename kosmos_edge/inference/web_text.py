"""The visible text of a web page's HTML."""

from __future__ import annotations

from html.parser import HTMLParser

HIDDEN = frozenset(
    {"script", "style", "noscript", "template", "head", "title", "svg", "canvas", "iframe", "object", "datalist"}
)
VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
)  # elements without an end
INLINE = frozenset(
    {"a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins", "kbd", "mark", "q"}
    | {"ruby", "s", "samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr"}
)  # do not end a word


def visible_text(html: str) -> str:
    """The text of a page in document order, blanks collapsed to one.

    Left out: what browsers do not show of themselves (head, scripts, styles, templates) and elements that are hidden by
    the attribute `hidden` or by display:none or visibility:hidden in their own `style`. Style sheets are not read.
    """
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return " ".join("".join(reader.parts).split())


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden: list[str] = []  # the open elements from the outermost hidden one on

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "body" and self._hidden == ["head"]:  # a head without its end
            self._hidden.clear()
        if tag not in INLINE:
            self.parts.append(" ")
        if tag not in VOID and (self._hidden or tag in HIDDEN or _is_hidden(dict(attrs))):
            self._hidden.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in INLINE:
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag not in INLINE:
            self.parts.append(" ")
        if tag in self._hidden:  # with what was left open inside it
            while self._hidden.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def _is_hidden(attributes: dict[str, str | None]) -> bool:
    style = "".join((attributes.get("style") or "").lower().split())
    return "hidden" in attributes or "display:none" in style or "visibility:hidden" in style
