"""A contact sheet: some of the pictures with their captions and boxes, in one HTML file without scripts.

Which pictures are on it depends on their keys alone: those with the smallest hashes, so that a resumed run shows the
same ones.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Mapping
from html import escape
from typing import Any

from kosmos_edge.images import Picture
from kosmos_edge.overlay import PreviewSize, overlay_html
from kosmos_edge.results import Box, Entity, Result

_SIZE = PreviewSize(360, 60_000)
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:1rem auto;max-width:96rem;padding:0 1rem}"
    "main{display:grid;grid-template-columns:repeat(auto-fill,minmax(18rem,1fr));gap:1.5rem}"
    "figure{margin:0;overflow-wrap:anywhere}figcaption{font-size:.85em;color:GrayText}"
    "table{border-collapse:collapse}td,th{padding:.1rem .8rem .1rem 0;text-align:left;font-weight:normal}"
    "td{font-variant-numeric:tabular-nums}"
)


class Sheet:
    """Collects pictures; at most `most`, 0.. ."""

    def __init__(self, most: int = 60) -> None:
        self._most = most
        self._taken: list[tuple[bytes, str, str]] = []  # (hash, key, HTML), by hash

    def wants(self, key: str) -> bool:
        """Whether a picture of this key would be shown, as far as is known now."""
        return len(self._taken) < self._most or (self._most > 0 and _hash(key) < self._taken[-1][0])

    def add(self, record: Mapping[str, Any], picture: Picture) -> None:
        """A record that `wants` took."""
        shown = overlay_html(_result(record), picture, size=_SIZE)
        key = str(record["key"])
        bisect.insort(self._taken, (_hash(key), key, shown))
        del self._taken[self._most :]

    def page(self, facts: Mapping[str, Any]) -> str:
        """The page. facts: what statistics.json has."""
        figures = [
            f"<figure>\n{shown}\n<figcaption>{escape(key)}</figcaption>\n</figure>"
            for _, key, shown in sorted(self._taken, key=lambda item: item[1])
        ]
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>\n" for name, value in _flat(facts))
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            "style-src 'unsafe-inline'\">\n"
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f"<title>Grounded pairs</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
            f"<h1>Grounded pairs: {len(figures)} of {facts['pictures']}</h1>\n"
            "<p>Point at a phrase or a box.</p>\n<main>\n"
            + "\n".join(figures)
            + f"\n</main>\n<h2>The run</h2>\n<table>\n{rows}</table>\n</body>\n</html>\n"
        )


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _result(record: Mapping[str, Any]) -> Result:
    """The record as an answer with entities: its expressions."""
    spans: dict[tuple[int, int], list[Box]] = {}
    for start, end, x1, y1, x2, y2, score in record["ref_exps"]:
        spans.setdefault((int(start), int(end)), []).append(Box((x1, y1, x2, y2), score=score))
    caption = record["caption"]
    entities = [Entity(caption[start:end], (start, end), tuple(boxes)) for (start, end), boxes in spans.items()]
    return Result(caption, entities, width=record["width"], height=record["height"])


def _flat(facts: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{before}{name}: ")
        else:
            rows.append((before + name, "" if value is None else str(value)))
    return rows
