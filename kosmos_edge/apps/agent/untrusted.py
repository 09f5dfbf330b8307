"""Tool results as text for a language model: JSON in which nothing that a picture says can be more than data.

Text that was read in a picture may be written by an attacker. It stays inside of its JSON string, and characters that
chat templates and text protocols give a meaning of their own (<|im_end|>, [INST], ```), or that cannot be seen, are
written as \\u escapes: the same text for whoever reads JSON, no mark for whoever cuts the prompt into tokens.
"""

from __future__ import annotations

import json
import re
from typing import Any

UNTRUSTED = "untrusted"  # the key under which everything stands that came from a picture
MOST_CHARACTERS = 4000  # of one text
MOST_ITEMS = 60  # boxes or lines of one result
_LITERAL = re.compile(r'"(?:[^"\\]|\\.)*"', re.S)
_MARKS = "<>[]`"


def safe_json(value: Any) -> str:
    """The value as JSON in one line, its strings without marks and hidden characters."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _LITERAL.sub(lambda literal: "".join(map(_escaped, literal[0])), text)


def _escaped(character: str) -> str:
    if character.isprintable() and character not in _MARKS:
        return character
    return json.dumps(character)[1:-1] if ord(character) > 127 else f"\\u{ord(character):04x}"


def cut(text: str) -> tuple[str, str | None]:
    """The text, no longer than a result may be, and what was left out."""
    if len(text) <= MOST_CHARACTERS:
        return text, None
    return text[:MOST_CHARACTERS], f"the text has {len(text)} characters; these are the first {MOST_CHARACTERS}"


__all__ = ["MOST_ITEMS", "UNTRUSTED", "cut", "safe_json"]
