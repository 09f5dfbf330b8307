"""Words of a line and where they are, for formats that need a place for every word.

A model that reads lines says where a line is, not where its words are. Their places are estimated here: the line's box
is shared out by the widths of its characters (one unit; two for wide East Asian ones; none for marks above and below
others), from the left, or from the right if the line begins with a letter of a script that is written leftwards.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Word:
    """A word and its estimated place."""

    text: str
    rectangle: tuple[int, int, int, int]  # left, top, right, bottom in pixels


def units(character: str) -> int:
    """The width of a character: 0, 1 or 2 units."""
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def is_leftward(text: str) -> bool:
    """Whether the first letter with a direction is of a script that is written from right to left."""
    for character in text:
        direction = unicodedata.bidirectional(character)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return False


def split_words(text: str, rectangle: tuple[int, int, int, int]) -> list[Word]:
    """The words of a line in their order, each with the line's height and its share of the line's width."""
    text = text.strip()
    left, top, right, bottom = rectangle
    before = [0]
    for character in text:
        before.append(before[-1] + units(character))
    total = max(before[-1], 1)

    def x(index: int) -> int:
        return round((right - left) * before[index] / total)

    words = []
    for match in _WORD.finditer(text):
        start, end = x(match.start()), x(match.end())
        if is_leftward(text):
            start, end = right - left - end, right - left - start
        # a word of a narrow line still takes one pixel of it
        start = min(start, right - left - 1)
        words.append(Word(match[0], (left + start, top, left + max(end, start + 1), bottom)))
    return words
