"""How captions are worded for their readers: whole sentences, a capital, a full stop, words around them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kosmos_edge.errors import InvalidRequest

# A full stop, with what may close a quotation behind it, before a blank or the end; not that of "e.g." or an initial.
_END = re.compile(r"(?<!\b[A-Za-z])(?<!\be\.g)(?<!\bi\.e)(?<!\b[MD]r)(?<!\bMrs)(?<!\bSt)[.!?…]+[\"'”’)\]]*(?=\s|$)")
_CLOSED = re.compile(r"[.!?…][\"'”’)\]]*$")


@dataclass(frozen=True, slots=True)
class Wording:
    """What is done to a caption, in this order."""

    whole_sentences: bool = False  # an answer that reached the length limit loses its last, incomplete sentence
    capital: bool = False  # begin with a capital letter
    full_stop: bool = False  # end with a full stop, unless there is another mark
    prefix: str = ""  # put before it as it is
    suffix: str = ""  # put after it as it is
    trigger: str = ""  # the first word: "TRIGGER, caption"

    def __post_init__(self) -> None:
        for name in ("prefix", "suffix", "trigger"):
            value = getattr(self, name)
            if "\n" in value or "\r" in value:
                raise InvalidRequest(f"{name}: expected one line, got {value!r}")

    @property
    def changes(self) -> bool:
        """Whether it can change a caption at all."""
        return self != Wording()

    def apply(self, text: str, *, cut_off: bool = False) -> str:
        """The caption. cut_off: the answer ended at the length limit."""
        if self.whole_sentences and cut_off:
            text = whole_sentences(text)
        if self.capital and text:
            text = text[0].upper() + text[1:]
        if self.full_stop and text and not _CLOSED.search(text):
            text = text.rstrip(" ,;:") + "."
        text = self.prefix + text + self.suffix
        if self.trigger:
            text = f"{self.trigger}, {text}" if text else self.trigger
        return text


def whole_sentences(text: str) -> str:
    """The text up to its last full stop; all of it if there is none, as half a sentence is better than no caption."""
    ends = [found.end() for found in _END.finditer(text)]
    return text[: ends[-1]] if ends else text
