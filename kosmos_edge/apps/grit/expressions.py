"""Noun chunks and referring expressions of a parsed caption, as KOSMOS-2's authors made theirs (paper, section 2).

1. Noun chunks whose noun is abstract, pronouns, and chunks with markup (< or >) are left out.
2. A chunk grows by what depends on its noun: "a dog" of "a dog in a field of flowers" becomes the whole.
3. A chunk whose noun is coordinated ("cats and dogs") stays as it is.
4. Of expressions that contain each other the longest stays (`outermost`).

The paper leaves open what depends on a noun but does not refer to it. Here relative clauses belong to the expression;
coordinated words and appositions do not, and end it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from kosmos_edge.apps.grit.trees import Chunk, Tree

_LEADS = frozenset({"ADP", "DET", "CCONJ", "SCONJ"})  # words that say nothing without what follows
EXCLUDED = frozenset({"punct", "cc", "conj", "appos"})  # relations that no expression follows


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A part of a caption: caption[start:end], in code points."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun chunk that may have a box."""

    chunk: Span
    expression: Span  # contains the chunk, or is equal to it


@dataclass(frozen=True, slots=True)
class Nouns:
    """What a caption names."""

    kept: tuple[Noun, ...]
    abstract: int  # noun chunks that were left out: their noun is in the list
    pronouns: int  # ... is a pronoun, or they have no letter
    markup: int  # they have < or >, and would be read as tags by who trains on them


@cache
def abstract_nouns() -> frozenset[str]:
    """Our list (abstract_nouns.txt): lemmas of what has no place in a picture, and of what means the whole picture."""
    return read_nouns(files(__package__).joinpath("abstract_nouns.txt").read_text("utf-8"))


def read_nouns(text: str) -> frozenset[str]:
    """One lemma a line, in any case; # begins a comment."""
    lines = (line.partition("#")[0].strip().casefold() for line in text.splitlines())
    return frozenset(line for line in lines if line)


def find_nouns(tree: Tree, abstract: Collection[str]) -> Nouns:
    """The chunks of the tree with their expressions. abstract: lemmas in lower case."""
    kept, dropped, pronouns, markup = [], 0, 0, 0
    for chunk in tree.chunks:
        root = tree.tokens[tree.root(chunk)]
        span = _span(tree, range(chunk.first, chunk.end))
        if _has_markup(tree.text[span.start : span.end]):
            markup += 1
        elif root.pos == "PRON" or not any(c.isalpha() for c in tree.text[span.start : span.end]):
            pronouns += 1
        elif root.lemma.casefold() in abstract:
            dropped += 1
        else:
            kept.append(Noun(span, expand(tree, chunk)))
    return Nouns(tuple(kept), dropped, pronouns, markup)


def expand(tree: Tree, chunk: Chunk) -> Span:
    """The referring expression of a chunk.

    The unbroken run of words around the chunk that depend on its noun, at any depth, without EXCLUDED ones and what
    depends on these; punctuation between two words of the run does not break it, markup does.
    """
    inside = range(chunk.first, chunk.end)
    root = tree.root(chunk)
    if is_coordinated(tree, root):
        return _span(tree, inside)
    taken = set(inside)
    waiting = [child for child in tree.children[root] if child not in inside]
    while waiting:
        token = waiting.pop()
        if tree.tokens[token].dep not in EXCLUDED and not _has_markup(tree.tokens[token].text):
            taken.add(token)
            waiting += tree.children[token]
    first, end = chunk.first, chunk.end
    while (before := _next(tree, first, -1)) in taken:
        first = before
    while (after := _next(tree, end - 1, 1)) in taken:
        end = after + 1
    if max(taken) >= end or (after >= 0 and _has_markup(tree.tokens[after].text)):  # cut off: "a dog with"
        while end > chunk.end and tree.tokens[end - 1].pos in _LEADS:
            end -= 1
    return _span(tree, range(first, end))


def is_coordinated(tree: Tree, token: int) -> bool:
    """Whether the token has conjuncts: "cats" and "dogs" of "cats and dogs"."""
    if tree.tokens[token].dep == "conj":
        return True
    return any(tree.tokens[child].dep == "conj" for child in tree.children[token])


def outermost(spans: Sequence[Span]) -> list[bool]:
    """For each span whether no other one contains it; of equal ones all stay."""
    return [
        not any(other != span and other.start <= span.start and span.end <= other.end for other in spans)
        for span in spans
    ]


def _next(tree: Tree, token: int, step: int) -> int:
    """The next word in this direction that is no punctuation; -1 where there is none."""
    token += step
    while 0 <= token < len(tree.tokens) and _is_mark(tree, token):
        token += step
    return token if token < len(tree.tokens) else -1


def _is_mark(tree: Tree, token: int) -> bool:
    found = tree.tokens[token]
    return not _has_markup(found.text) and (found.dep == "punct" or not any(c.isalnum() for c in found.text))


def _has_markup(text: str) -> bool:
    return "<" in text or ">" in text


def _span(tree: Tree, tokens: Iterable[int]) -> Span:
    """Around the tokens, without punctuation at both ends."""
    places = list(tokens)
    words = [place for place in places if any(c.isalnum() for c in tree.tokens[place].text)] or places
    return Span(tree.tokens[words[0]].start, tree.tokens[words[-1]].end)
