"""An index of pictures: the nearest to a picture or to a text, by vectors of the engine's own models.

    import kosmos_edge
    from kosmos_edge.apps.index import PictureIndex

    model = kosmos_edge.load("clip-vit-large-patch14")
    with PictureIndex("photos.index", model) as photos:
        photos.update(Path("photos").rglob("*.jpg"), folders=["photos"])
        for hit in photos.search_text("a red hat", 5).hits:
            print(hit.score, hit.path)

Needs numpy; beyond 50,000 pictures usearch makes searches faster: pip install 'kosmos-edge[index]'.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from kosmos_edge.apps.index.neighbours import GRAPH_FROM, Neighbours, graph_state, matrix, update_graph
from kosmos_edge.apps.index.searching import Hit, Hits, candidates_for, rank_by_likelihood
from kosmos_edge.apps.index.store import IndexDamaged, Row, Store
from kosmos_edge.apps.index.updating import OnPicture, Update, Updating
from kosmos_edge.apps.index.vectors import JOINT, POOLED, Maker, image_vector, maker_of, numpy
from kosmos_edge.errors import InvalidRequest, KosmosError
from kosmos_edge.files import path_name, read_stream
from kosmos_edge.images import AS_USUAL, ImageInput, Opening
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.model import Model
from kosmos_edge.options import check_int, check_text

MAX_HITS = 100_000
CANDIDATES = 100  # pictures that a text is ranked for, by default


def read_maker(path: str | os.PathLike[str]) -> Maker | None:
    """The model that made an index's vectors; None for a new index. Raises as PictureIndex, and for a damaged file."""
    if not os.path.exists(path) or not os.path.getsize(path):
        return None
    with Store(path, "read") as store:
        return _maker(store)


class PictureIndex:
    """An open index; a context manager. Not for use by several threads at once.

    The index knows its model by the SHA-256 of the model's file: another model's vectors are refused, also those of
    another storage type of the same model.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: Model | None = None,
        *,
        mmproj: str | os.PathLike[str] | None = None,
        read_only: bool = False,
        graph_from: int = GRAPH_FROM,
    ) -> None:
        """Opens the file of an index, or makes a new one.

        model: whose vectors it has; None: nothing can be computed, only looked at. mmproj: the model's second file, as
        in load(). read_only: never writes; the file must exist. graph_from: 1..: number of pictures from which on a
        graph of neighbours (HNSW) is kept beside the index; below it all vectors are compared, which is exact.
        InvalidRequest for another model, another kind of file, or without numpy; IndexDamaged; KosmosIOError.
        """
        numpy()
        self._graph_from = check_int("graph_from", graph_from, 1, 1 << 40)
        self._model = model
        new = not os.path.exists(path) or not os.path.getsize(path)
        if new and model is None:
            read_only = True  # says that there is none
        self._store = Store(path, "read" if read_only else "write")
        try:
            known = _maker(self._store)
            if model is not None:
                mine = maker_of(model, mmproj, known)
                self._check_maker(known, mine)
                if not read_only and mine != known:
                    self._store.keep_fact("maker", mine.to_dict())
                known = mine
            self._maker = known
        except BaseException:
            self._store.close()
            raise
        self._neighbours: Neighbours | None = None

    def close(self) -> None:
        """Closes the file."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._store)

    # ---- building

    def update(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        folders: Sequence[str | os.PathLike[str]] = (),
        captions: bool = False,
        opening: Opening = AS_USUAL,
        on_picture: OnPicture | None = None,
    ) -> Update:
        """Takes in pictures that are new or changed; what it has is kept, also if the update ends early.

        A picture whose size and time are unchanged is not read; one whose content is known is not computed. folders:
        pictures of the index in these folders whose files are gone are removed. captions: also a caption of each
        picture, by the model. on_picture(path, outcome, error) is called behind each. A picture that fails is in
        Update.failed and not in the index; a later update tries it again.
        """
        if self._model is None:
            raise InvalidRequest("update: the index was opened without a model")
        if captions and self._model.model_info["embedding"]:
            raise InvalidRequest("captions: this model writes no text; build the index without them")
        self._neighbours = None
        width = int(self._store.fact("width") or 0)
        run = Updating(self._store, self._model, width, bool(captions), opening, on_picture)
        done = run.run(paths, folders)
        if run.width:
            update_graph(self._store, run.width, self._graph_from)
        return done

    # ---- searching

    def search_image(
        self, image: ImageInput | EncodedImage, k: int = 10, *, others: bool = False, opening: Opening = AS_USUAL
    ) -> Hits:
        """The k (1..100000) nearest pictures by the cosine of their vectors. others: without those that have exactly
        the content of the image, which must then be a path or bytes."""
        model = self._searched("image", k)
        digest, source, name = _content(image)
        if others and digest is None:
            raise InvalidRequest("others: expected the image as a path or bytes")
        encoded = source if isinstance(source, EncodedImage) else model.encode(opening.open(source))
        same = {row.id for row in self._store.rows() if row.digest == digest} if others else set()
        found, notes = self._nearest(image_vector(encoded), k + len(same))
        hits = self._hits([(id, score) for id, score in found if id not in same][:k])
        return self._answer(name, "cosine", hits, len(self), list(encoded.notes) + notes)

    def search_text(
        self,
        text: str,
        k: int = 10,
        *,
        candidates: int = CANDIDATES,
        template: str | None = None,
        truncate: bool = False,
        opening: Opening = AS_USUAL,
        on_picture: Callable[[str, KosmosError | None], None] | None = None,
    ) -> Hits:
        """The k (1..100000) pictures that fit a text best.

        A model with a joint space (CLIP): by the cosine; truncate as in Model.embed_text. Any other: by ln p of the
        text given the picture (Model.score, with its template), for at most `candidates` pictures: all of the index, or
        those whose captions are nearest to the text by TF-IDF. Each of them is opened and encoded again.
        """
        model = self._searched("text", k)
        check_text("text", text)
        if not text.strip():
            raise InvalidRequest("text: expected words, got an empty text")
        limit = check_int("candidates", candidates, 1, 1 << 40)
        if self._is_joint:
            if template is not None:
                raise InvalidRequest("template: expected with a model that writes text; this one compares")
            np = numpy()
            query = np.asarray(model.embed_text([text], truncate=truncate))[0]
            found, notes = self._nearest(query, k)
            return self._answer(text, "cosine", self._hits(found), len(self), notes)
        rows, notes = candidates_for(self._store, text, limit)
        ranked, more = rank_by_likelihood(model, rows, text, template, opening, on_picture)
        return self._answer(text, "likelihood", ranked[:k], len(rows), notes + more)

    def vectors(self, paths: Sequence[str | os.PathLike[str]]) -> Any:
        """The vectors of pictures in the index, a numpy array (paths, width) of float32 with rows of length 1.

        A picture is found by its path, or where another path is in the index, by its content. InvalidRequest names
        the first that is not there.
        """
        ids = [self._find(os.path.abspath(path)).id for path in paths]
        found, values = matrix(self._store, int(self._store.fact("width") or 0), set(ids))
        place = {int(id): row for row, id in enumerate(found)}
        return values[[place[id] for id in ids]]

    def vector_of(self, image: ImageInput | EncodedImage, *, opening: Opening = AS_USUAL) -> Any:
        """The vector of any image by the index's model, a numpy array (width,) of float32 of length 1."""
        model = self._searched("image", 1)
        return image_vector(image if isinstance(image, EncodedImage) else model.encode(opening.open(image)))

    def text_vectors(self, texts: Sequence[str]) -> Any:
        """The vectors of texts in the images' space, a numpy array (texts, width) of float32 with rows of length 1.

        None without a joint space (CLIP). Texts that are too long for the model are cut, as published.
        """
        model = self._searched("text", 1)
        return numpy().asarray(model.embed_text(list(texts), truncate=True)) if self._is_joint else None

    def caption_of(self, path: str | os.PathLike[str]) -> str | None:
        """The caption that the index has of a picture. InvalidRequest if the picture is not there."""
        return self._find(os.path.abspath(path)).caption

    # ---- facts

    def info(self) -> dict[str, Any]:
        """JSON-ready facts: pictures, contents, captions, model, sha256, model_path, mmproj, kind, width, complete,
        graph, bytes."""
        rows = list(self._store.rows())
        maker = self._maker
        return {
            "path": os.fspath(self._store.path),
            "pictures": len(rows),
            "contents": len({row.digest for row in rows}),
            "captions": sum(row.caption is not None for row in rows),
            "complete": bool(self._store.fact("complete")),
            "model": None if maker is None else maker.name,
            "sha256": None if maker is None else maker.digest,
            "model_path": None if maker is None else maker.path,
            "mmproj": None if maker is None else maker.mmproj,
            "kind": None if maker is None else maker.kind,
            "width": self._store.fact("width"),
            "graph": graph_state(self._store),
            "bytes": os.path.getsize(self._store.path),
        }

    @property
    def model(self) -> Model | None:
        """The open model that computes vectors, as it was given."""
        return self._model

    @property
    def maker(self) -> Maker | None:
        """The model of the vectors."""
        return self._maker

    # ---- inside

    @property
    def _is_joint(self) -> bool:
        return self._maker is not None and self._maker.kind == JOINT

    def _check_maker(self, known: Maker | None, mine: Maker) -> None:
        if known is not None and known.digest != mine.digest and len(self._store):
            raise InvalidRequest(
                f"{self._store.path} has the vectors of {known.name} (SHA-256 {known.digest[:16]}..., {known.path}); "
                f"this is {mine.name} (SHA-256 {mine.digest[:16]}..., {mine.path}): use that model, or another index"
            )
        if known is not None and known.digest != mine.digest:
            self._store.keep_fact("width", None)

    def _searched(self, what: str, k: int) -> Model:
        check_int("k", k, 1, MAX_HITS)
        if self._model is None:
            raise InvalidRequest(f"search by {what}: the index was opened without a model")
        return self._model

    def _nearest(self, query: Any, k: int) -> tuple[list[tuple[int, float]], list[str]]:
        width = int(self._store.fact("width") or 0)
        if not width or not len(self._store):
            return [], []
        if len(query) != width:
            raise InvalidRequest(f"the index has vectors of {width} values, the model makes them of {len(query)}")
        if self._neighbours is None:
            self._neighbours = Neighbours(self._store, width)
        return self._neighbours.find(query, k, self._graph_from)

    def _hits(self, found: list[tuple[int, float]]) -> list[Hit]:
        rows = {row.id: row for row in self._store.rows([id for id, _ in found])}
        return [Hit(rows[id].path, score, rows[id].caption) for id, score in found]

    def _answer(self, query: str, by: str, hits: list[Hit], compared: int, notes: list[str]) -> Hits:
        notes = list(dict.fromkeys(notes))
        if not self._store.fact("complete"):
            notes.append("the last build of this index ended early: build it again to take in the rest")
        assert self._maker is not None
        return Hits(query, by, hits, len(self), compared, self._maker.name, notes)

    def _find(self, path: str) -> Row:
        row = self._store.row(path)
        if row is None:
            try:
                with open(path, "rb") as file:
                    row = self._store.content(hashlib.file_digest(file, "sha256").digest())
            except OSError:
                row = None
        if row is None:
            raise InvalidRequest(f"{path}: not in the index {self._store.path}; build it with this picture")
        return row


def _maker(store: Store) -> Maker | None:
    values = store.fact("maker")
    try:
        return None if values is None else Maker.of(values)
    except TypeError as error:
        raise IndexDamaged(0, f"what is kept about the model: {error}", os.fspath(store.path)) from error


def _content(image: Any) -> tuple[bytes | None, Any, str]:
    """(digest, what to open, name) of a query image."""
    if isinstance(image, bytes | bytearray):
        return hashlib.sha256(image).digest(), bytes(image), "the given bytes"
    if isinstance(image, str | os.PathLike):
        name = path_name(image)
        if os.path.isfile(name):
            try:
                with open(name, "rb") as file:
                    return hashlib.sha256(read_stream(file, name)).digest(), name, name
            except PermissionError:
                pass  # opening it as an image says so
        return None, name, name
    return None, image, getattr(image, "source", None) or type(image).__name__


__all__ = [
    "CANDIDATES",
    "JOINT",
    "POOLED",
    "Hit",
    "Hits",
    "IndexDamaged",
    "Maker",
    "PictureIndex",
    "Update",
    "read_maker",
]
