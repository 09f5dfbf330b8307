"""Parsed captions for tests, written by hand, and a detector with a script."""

import re

from kosmos_edge.apps.grit import Chunk, Found, Scored, Token, Tree


def tree(words: str, chunks: str, text: str | None = None) -> Tree:
    """words: "a>1:det dog>1:ROOT:NOUN in>1:prep ..." (word>head:relation, and :POS and :lemma where they matter).

    chunks: "0-2 3-5": tokens. text: the caption, if it is not the words joined by blanks.
    """
    parts = [re.fullmatch(r"(.+?)>(\d+):([^:]+)(?::([A-Z]*))?(?::(.+))?", part) for part in words.split()]
    assert all(parts), words
    caption = " ".join(part[1] for part in parts) if text is None else text
    tokens, at = [], 0
    for part in parts:
        start = caption.index(part[1], at)
        at = start + len(part[1])
        lemma = part[5] or part[1].lower()
        tokens.append(Token(part[1], start, at, lemma, part[4] or "NOUN", part[3], int(part[2])))
    places = [tuple(int(n) for n in chunk.split("-")) for chunk in chunks.split()]
    return Tree(caption, tuple(tokens), tuple(Chunk(*place) for place in places))


# The example of the paper's section 2, as spaCy 3.8 parses it.
FIELD = tree(
    "a>1:det:DET dog>1:ROOT in>1:prep:ADP a>4:det:DET field>2:pobj of>4:prep:ADP flowers>5:pobj::flower", "0-2 3-5 6-7"
)
CATS = tree("two>1:nummod:NUM cats>1:ROOT::cat and>1:cc:CCONJ a>4:det:DET dog>1:conj", "0-2 3-5")


class Parsed:
    """A parser that knows some trees."""

    def __init__(self, *trees: Tree) -> None:
        self.facts = {"name": "hand-made"}
        self._trees = {one.text: one for one in trees}

    def parse(self, caption: str) -> Tree:
        return self._trees[caption]


class Scripted:
    """A detector: phrase -> its boxes with scores. Counts what it is asked."""

    def __init__(
        self, script: dict[str, list[tuple[tuple[float, float, float, float], float]]], version: int = 1
    ) -> None:
        self._script, self.asked = script, []
        self.facts = {"kind": "scripted", "version": version}

    def identity(self, journal):
        return self.facts

    def detect(self, asked):
        self.asked += [one.texts for one in asked]
        return [Found([[Scored(*row) for row in self._script.get(text, ())] for text in one.texts]) for one in asked]
