"""The nearest of many vectors: all of them compared by numpy, or candidates from a graph (HNSW, by usearch).

The graph lies beside the index as INDEX.hnsw. It is derived: where it is missing, damaged or of an earlier state, all
vectors are compared, and the next build makes it again. Candidates from it are compared exactly.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from kosmos_edge.apps.index.store import IndexDamaged, Store
from kosmos_edge.apps.index.vectors import numpy

GRAPH_FROM = 50_000  # pictures from which on a graph is made
_FACT = "graph"
_CANDIDATES = 4  # times the wanted number, of the graph
_EXPANSION = 128  # of a search in the graph: higher finds more and takes longer
MISSING = "pip install 'kosmos-edge[index]' and another build make a graph, with which this is faster"
APPROXIMATE = "candidates come from a graph (HNSW): a near picture may be missing"


def matrix(store: Store, width: int, ids: Iterable[int] | None = None) -> tuple[Any, Any]:
    """(ids, vectors) as numpy arrays (n,) and (n, width), by id. Raises IndexDamaged for rows of another width."""
    np = numpy()
    wanted = None if ids is None else sorted(ids)
    count = len(store) if wanted is None else len(wanted)
    numbers, values = np.zeros(count, np.int64), np.zeros((count, width), np.float32)
    for row, (id, vector) in enumerate(store.vectors(wanted)):
        if len(vector) != 4 * width:
            why = f"the vector of row {id} has {len(vector)} bytes, expected {4 * width}"
            raise IndexDamaged(errno.EIO, f"{why}; delete the index and build it again", str(store.path))
        numbers[row], values[row] = id, np.frombuffer(vector, "<f4")
    return numbers, values


def nearest(ids: Any, values: Any, query: Any, k: int) -> list[tuple[int, float]]:
    """(id, cosine) of the k rows most like the query, falling; equal ones by id. All vectors have length 1."""
    np = numpy()
    cosines = values @ query.astype(np.float32)
    if k < len(cosines):
        edge = np.partition(cosines, len(cosines) - k)[len(cosines) - k]
        chosen = np.flatnonzero(cosines >= edge)  # with all that are as near as the last
    else:
        chosen = np.arange(len(cosines))
    order = chosen[np.lexsort((ids[chosen], -cosines[chosen]))][:k]
    return [(int(ids[row]), float(cosines[row])) for row in order]


def graph_path(store: Store) -> Path:
    """The file of the graph."""
    return store.path.with_name(store.path.name + ".hnsw")


def update_graph(store: Store, width: int, graph_from: int) -> bool:
    """Brings the graph to the state of the index, or removes it where it is not needed. -> whether there is one.

    False, too, where usearch is not installed.
    """
    path = graph_path(store)
    if len(store) < graph_from:
        store.keep_fact(_FACT, None)
        path.unlink(missing_ok=True)
        return False
    usearch = _usearch()
    if usearch is None:
        return False
    np = numpy()
    index = _read(store, width, usearch, view=False)
    fresh = index is None
    if index is None:
        index = usearch.Index(ndim=width, metric="ip", dtype="f32", expansion_search=_EXPANSION)
    there = np.array([], np.int64) if fresh else np.asarray(index.keys).astype(np.int64)
    here = np.array([row.id for row in store.rows()], np.int64)
    gone, new = np.setdiff1d(there, here), np.setdiff1d(here, there)
    if not (fresh or len(gone) or len(new)):
        return True
    if len(gone):
        index.remove(gone.astype(np.uint64))
    for start in range(0, len(new), 10_000):
        ids, values = matrix(store, width, new[start : start + 10_000].tolist())
        order = np.argsort(ids)
        index.add(ids[order].astype(np.uint64), values[order])
    part = path.with_name(path.name + ".part")
    index.save(os.fspath(part))
    digest = _digest(part)
    store.keep_fact(_FACT, None)  # a kill between the next two steps leaves no graph that is taken for this one
    os.replace(part, path)
    store.keep_fact(_FACT, {"digest": digest, "count": len(here), "last": int(here.max(initial=0))})
    return True


class Neighbours:
    """Finds the nearest pictures of an open index. Reads the vectors at the first question and keeps them."""

    def __init__(self, store: Store, width: int) -> None:
        self._store, self._width = store, width
        self._all: tuple[Any, Any] | None = None
        self._graph: Any = None
        self._looked = False

    def find(self, query: Any, k: int, graph_from: int = GRAPH_FROM) -> tuple[list[tuple[int, float]], list[str]]:
        """((id, cosine) of the k nearest, falling), and notes about how they were found."""
        notes: list[str] = []
        count = len(self._store)
        if count >= graph_from and k * _CANDIDATES < count:
            if not self._looked:
                usearch = _usearch()
                self._graph = None if usearch is None else _read(self._store, self._width, usearch, view=True)
                self._looked = True
            if self._graph is not None:
                found = self._graph.search(query, k * _CANDIDATES)
                ids, values = matrix(self._store, self._width, [int(key) for key in found.keys])
                return nearest(ids, values, query, k), [APPROXIMATE]
            why = MISSING if _usearch() is None else "the graph is missing or of an earlier state: build again"
            notes.append(f"all {count} pictures were compared; {why}")
        if self._all is None:
            self._all = matrix(self._store, self._width)
        return nearest(*self._all, query, k), notes


def graph_state(store: Store) -> str:
    """What is there, for people."""
    fact = store.fact(_FACT)
    if fact is None:
        return "none: all vectors are compared"
    return f"{graph_path(store).name}, of {fact['count']} pictures"


def _usearch() -> Any:
    try:
        return import_module("usearch.index")
    except ImportError:
        return None


def _read(store: Store, width: int, usearch: Any, *, view: bool) -> Any:
    """The graph; None where there is none. view: it must be of the index as it is now, and stays in the file."""
    fact, path = store.fact(_FACT), graph_path(store)
    if fact is None or not path.is_file() or _digest(path) != fact["digest"]:
        return None
    if view:
        last = max((row.id for row in store.rows()), default=0)
        if (len(store), last) != (fact["count"], fact["last"]):
            return None
    index = usearch.Index(ndim=width, metric="ip", dtype="f32", expansion_search=_EXPANSION)
    getattr(index, "view" if view else "load")(os.fspath(path))
    return index


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
