"""How boxes are marked, in drawings and overlays: their colours and labels."""

from __future__ import annotations

import colorsys
import unicodedata
from typing import TypeAlias

Colour: TypeAlias = tuple[int, int, int]
_GOLDEN_TURN = 0.618034  # steps around the colour wheel that keep neighbours far apart


def distinct_colour(number: int) -> Colour:
    """A saturated colour for the number-th thing, far from its neighbours'."""
    red, green, blue = colorsys.hsv_to_rgb((number * _GOLDEN_TURN) % 1.0, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def box_label(phrase: str, score: float | None) -> str:
    """The phrase in one line, with the score if there is one."""
    return one_line(phrase) if score is None else f"{one_line(phrase)} {score:.2f}".strip()


def one_line(text: str) -> str:
    """The text as it can be drawn: line breaks and other white space as blanks, control characters as U+FFFD."""
    plain = " ".join(text.split())
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs") else c for c in plain)
