"""Records as JSON for people and programs: readable Unicode, short lists on one line."""

from __future__ import annotations

import json
import re
from typing import Any

# A list of plain values that indentation spread over lines; JSON strings contain no line breaks.
_NUMBERS = re.compile(r"\[\n\s+([^][{}\"]*?)\n\s*\]")


def to_json(record: Any, indent: int | None = None) -> str:
    """JSON with readable Unicode; file names that are not Unicode are written with escapes."""
    text = json.dumps(record, ensure_ascii=False, indent=indent, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(record, ensure_ascii=True, indent=indent, allow_nan=False)
    return _NUMBERS.sub(lambda match: "[" + " ".join(match[1].split()) + "]", text) if indent else text
