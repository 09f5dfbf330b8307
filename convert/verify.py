"""Checks a converted file against the checksums that the converter wrote into it."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt

from .sources.files import SourceFile

_STEP = 1 << 22


def verify(path: str | os.PathLike[str], progress: Callable[[int, int, str], None] | None = None) -> list[str]:
    """Names of the tensors whose stored bytes are not those that were written; [] when all are intact.

    progress: called with (bytes done, bytes in all, tensor's name). ModelCorrupt when the file does not open or has
    no checksums (a GGUF file that another tool wrote).
    """
    file = _core.GgufFile(os.fspath(path))
    tensors = file.tensors()
    metadata = file.metadata()
    key = f"{metadata.get('general.architecture')}.checksum.sha256"
    checksums = metadata.get(key)
    if not isinstance(checksums, list) or len(checksums) != len(tensors):
        raise ModelCorrupt(f"{path} has no checksums ({key}) for its {len(tensors)} tensors: it cannot be verified")
    total = sum(nbytes for *_, nbytes in tensors)
    done = 0
    bad = []
    with SourceFile(Path(path)) as raw:
        for (name, _, _, offset, nbytes), expected in zip(tensors, checksums, strict=True):
            sha256 = hashlib.sha256()
            for start in range(0, nbytes, _STEP):
                size = min(_STEP, nbytes - start)
                sha256.update(raw.read(offset + start, size))
                done += size
                if progress is not None:
                    progress(done, total, name)
            if sha256.hexdigest() != expected:
                bad.append(name)
    return bad
