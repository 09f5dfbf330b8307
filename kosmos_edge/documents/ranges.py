"""Which pages of a document: "1-3,7", "5-"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kosmos_edge.errors import InvalidRequest

_PART = re.compile(r"\s*(\d{1,9})\s*(?:(-)\s*(\d{1,9})?)?\s*")


@dataclass(frozen=True, slots=True)
class PageRanges:
    """Spans of page numbers; 1 is the first page."""

    spans: tuple[tuple[int, int | None], ...] = ((1, None),)  # first, last; None: the document's last

    def of(self, count: int, name: str) -> list[int]:
        """The page numbers in a document of `count` pages, rising, each once. InvalidRequest if it lacks one."""
        found: set[int] = set()
        for first, last in self.spans:
            highest = count if last is None else last
            if max(first, highest) > count:
                raise InvalidRequest(f"{name}: page {max(first, highest)} requested, the document has {count}")
            found.update(range(first, highest + 1))
        return sorted(found)


ALL_PAGES = PageRanges()


def parse_pages(text: str) -> PageRanges:
    """The ranges of "1-3,7" or "5-" (to the last page). InvalidRequest for anything else."""
    spans: list[tuple[int, int | None]] = []
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise InvalidRequest(f"pages: expected numbers and ranges such as 1-3,7 or 5-, got {text!r}")
        first, last = int(match[1]), int(match[3]) if match[3] else None
        if match[2] is None:
            last = first
        if first < 1 or (last is not None and last < first):
            raise InvalidRequest(f"pages: expected ranges that rise from 1, got {part.strip()!r}")
        spans.append((first, last))
    return PageRanges(tuple(spans))
