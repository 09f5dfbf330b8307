"""The list of labels: phrases of the model, or names that the caller has set."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from kosmos_edge.errors import InvalidRequest

_ARTICLE = re.compile(r"^(?:an?|the) ")


def plain_label(phrase: str) -> str:
    """The phrase without its article, in lower case and with single spaces: "A red hat" -> "red hat"."""
    return _ARTICLE.sub("", " ".join(phrase.split()).lower())


class Labels:
    """Label -> number, 0-based, in the order of the list.

    Without names the list grows: every new phrase is a label. With names it is fixed: a phrase belongs to the name that
    is equal to it without article and case; one that belongs to none has no number, and `unknown` counts it.
    plain: make labels of phrases by plain_label, so that "a dog" and "the dog" are one; always so with names.
    """

    def __init__(self, names: Iterable[str] | None = None, *, plain: bool = False) -> None:
        self.names: list[str] = []
        self.unknown: Counter[str] = Counter()  # phrases of a fixed list that belong to no name
        self.fixed = names is not None
        self._plain = plain or self.fixed
        self._numbers: dict[str, int] = {}
        for name in names or ():
            if not name.strip():
                raise InvalidRequest("labels: an empty name")
            if self._key(name) in self._numbers:
                raise InvalidRequest(f"labels: {name!r} is there twice (case and articles do not count)")
            self._add(name)
        if self.fixed and not self.names:
            raise InvalidRequest("labels: expected at least one name")

    def number(self, phrase: str) -> int | None:
        """The label's number; a new one if the list grows, None if it is fixed and the phrase belongs to no name."""
        key = self._key(phrase)
        if key not in self._numbers:
            if self.fixed:
                self.unknown[phrase] += 1
                return None
            self._add(key if self._plain else phrase)
        return self._numbers[key]

    def name(self, phrase: str) -> str | None:
        """The label of a phrase; None as in number."""
        number = self.number(phrase)
        return None if number is None else self.names[number]

    def _key(self, phrase: str) -> str:
        return plain_label(phrase) if self._plain else phrase

    def _add(self, name: str) -> None:
        self._numbers[self._key(name)] = len(self.names)
        self.names.append(name)
