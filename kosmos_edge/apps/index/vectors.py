"""Vectors of pictures, and which model they are of."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from kosmos_edge.errors import InvalidRequest, KosmosIOError, ModelCorrupt
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.model import Model

JOINT = "joint"  # images and texts in one space, as CLIP's
POOLED = "pooled"  # the mean of the image's vectors


def numpy() -> Any:
    """The module numpy; InvalidRequest where it is missing."""
    try:
        return import_module("numpy")
    except ImportError as error:
        raise InvalidRequest(f"an index needs the package numpy: pip install 'kosmos-edge[index]' ({error})") from error


@dataclass(frozen=True, slots=True)
class Maker:
    """The model that made the vectors of an index."""

    digest: str  # SHA-256 of the model file (and of the vision encoder's, where there is one), 64 hex digits
    name: str
    path: str  # absolute, where the model was
    mmproj: str | None  # as in load()
    kind: str  # JOINT or POOLED
    stamps: list[list[int]]  # (size, time, inode) of each file, by which it is known not to have changed

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Maker:
        """From to_dict(). Raises TypeError or KeyError for other values."""
        return cls(**values)


def maker_of(model: Model, mmproj: str | os.PathLike[str] | None, known: Maker | None = None) -> Maker:
    """Who would make vectors now. Reads the whole model file, unless `known` says that it has not changed.

    mmproj: the second file of a pair. KosmosIOError if a file is gone.
    """
    files = [os.path.abspath(model.path)] + ([] if mmproj is None else [os.path.abspath(mmproj)])
    second = None if mmproj is None else os.path.abspath(mmproj)
    compares = bool(model.model_info["embedding"])
    stamps = [_stamp(path) for path in files]
    if known is not None and (known.path, known.mmproj, known.stamps) == (files[0], second, stamps):
        digest = known.digest
    else:
        digest = _digest(files)
    return Maker(digest, model.name, files[0], second, JOINT if compares else POOLED, stamps)


def image_vector(encoded: EncodedImage) -> Any:
    """The mean of the image's vectors, of length 1: a numpy array (width,) of float32. Of CLIP it is the image's vector
    itself. ModelCorrupt if it has no direction."""
    np = numpy()
    rows = np.frombuffer(encoded.tobytes(), dtype="<f4").reshape(encoded.shape)
    mean = rows.mean(axis=0, dtype=np.float64)
    length = float(np.sqrt((mean * mean).sum()))
    if not 0 < length < float("inf"):
        raise ModelCorrupt(f"the image's vector has the length {length}, expected a finite one above 0")
    return (mean / length).astype("<f4")


def _stamp(path: str) -> list[int]:
    try:
        info = os.stat(path)
    except OSError as error:
        raise KosmosIOError(error.errno or 0, error.strerror or str(error), path) from error
    return [info.st_size, info.st_mtime_ns, info.st_ino]


def _digest(files: list[str]) -> str:
    digests = []
    for path in files:
        with open(path, "rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").digest())
    return digests[0].hex() if len(digests) == 1 else hashlib.sha256(b"".join(digests)).hexdigest()
