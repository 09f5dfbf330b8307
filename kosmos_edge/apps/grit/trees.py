"""A parsed caption: words with their heads, and noun chunks. Plain data, from whatever parser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kosmos_edge.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Token:
    """A word or a punctuation mark."""

    text: str
    start: int  # code points in the caption: caption[start:end] == text
    end: int
    lemma: str  # "flower" for "flowers"
    pos: str  # universal part of speech: NOUN, PROPN, PRON, ...
    dep: str  # its relation to its head: prep, pobj, conj, punct, ... or those of Universal Dependencies
    head: int  # index of its head; its own index for a root


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens first <= i < end of a noun phrase without what modifies it from behind."""

    first: int
    end: int


@dataclass(frozen=True)
class Tree:
    """The words of a caption. There may be several roots. Raises InvalidRequest for what is no tree."""

    text: str  # the caption
    tokens: tuple[Token, ...]
    chunks: tuple[Chunk, ...]  # in the order of the caption

    def __post_init__(self) -> None:
        count, end = len(self.tokens), 0
        for number, token in enumerate(self.tokens):
            if not end <= token.start < token.end or self.text[token.start : token.end] != token.text:
                raise InvalidRequest(f"token {number}: {token.text!r} is not at {token.start}..{token.end}")
            if not 0 <= token.head < count:
                raise InvalidRequest(f"token {number} {token.text!r}: its head is {token.head} of {count} tokens")
            end = token.end
        for number in range(count):
            self._check_root(number)
        last = 0
        for chunk in self.chunks:
            if not last <= chunk.first < chunk.end <= count:
                raise InvalidRequest(f"chunk {chunk.first}..{chunk.end}: expected growing places among {count} tokens")
            last = chunk.end

    def _check_root(self, number: int) -> None:
        at = number
        for _ in self.tokens:
            if self.tokens[at].head == at:
                return
            at = self.tokens[at].head
        raise InvalidRequest(f"token {number} {self.tokens[number].text!r}: its heads form a circle")

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """For each token the tokens whose head it is."""
        found: list[list[int]] = [[] for _ in self.tokens]
        for number, token in enumerate(self.tokens):
            if token.head != number:
                found[token.head].append(number)
        return tuple(tuple(some) for some in found)

    def root(self, chunk: Chunk) -> int:
        """The token of the chunk whose head is outside of it (the first, should there be several)."""
        inside = range(chunk.first, chunk.end)
        for number in inside:
            head = self.tokens[number].head
            if head == number or head not in inside:
                return number
        raise AssertionError("a tree has no circles")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; from_dict reads it."""
        names = ("text", "start", "end", "lemma", "pos", "dep", "head")
        return {
            "text": self.text,
            "tokens": [{name: getattr(token, name) for name in names} for token in self.tokens],
            "chunks": [[chunk.first, chunk.end] for chunk in self.chunks],
        }


def tree_from_dict(record: Any) -> Tree:
    """The tree of {"text", "tokens": [{"text", "start", "end", "lemma", "pos", "dep", "head"}], "chunks": [[first,
    end]]}. InvalidRequest says what is wrong."""
    if not isinstance(record, Mapping):
        raise InvalidRequest(f"a tree: expected an object, got {type(record).__name__}")
    text, chunks = record.get("text"), record.get("chunks")
    if not isinstance(text, str) or not isinstance(record.get("tokens"), list) or not isinstance(chunks, list):
        raise InvalidRequest("a tree: expected text, a list of tokens and a list of chunks")
    return Tree(text, tuple(_tokens(record["tokens"])), tuple(_chunk(chunk) for chunk in chunks))


def _tokens(records: Iterable[Any]) -> Iterable[Token]:
    for number, record in enumerate(records):
        try:
            words = [record[name] for name in ("text", "lemma", "pos", "dep")]
            places = [record[name] for name in ("start", "end", "head")]
        except (TypeError, KeyError) as error:
            raise InvalidRequest(
                f"token {number}: expected text, start, end, lemma, pos, dep, head ({error})"
            ) from None
        if not all(isinstance(word, str) for word in words) or not all(_is_int(place) for place in places):
            raise InvalidRequest(f"token {number}: expected texts, and integers for start, end, head, got {record!r}")
        text, lemma, pos, dep = words
        start, end, head = places
        yield Token(text, start, end, lemma, pos, dep, head)


def _chunk(record: Any) -> Chunk:
    if not isinstance(record, list) or len(record) != 2 or not all(_is_int(place) for place in record):
        raise InvalidRequest(f"a chunk: expected [first token, end], got {record!r}")
    return Chunk(*record)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
