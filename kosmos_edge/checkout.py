"""Running from a source tree: finds the native part that `pip install .` installed.

In the repository's root Python takes the folder kosmos_edge/ of the sources for the package. It lacks what only an
installed package has beside its Python files: the native module, the C library with its header, and `convert`, which
is a folder of its own in the sources. So the search path of the package gets two folders more: the sources' root, for
convert/, and the installed package, for the rest. What the sources have comes from the sources.

The native module knows what it was built from (`_core.sources_id`), so that sources which changed since are told apart
from those that did not: their Python files would call what is not there, or answer with yesterday's engine.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

NATIVE = "kosmos_edge._core"
MARK = Path("csrc", "bindings", "module.cpp")  # next to the package's folder, in a source tree only
SUFFIXES = {".cpp", ".h", ".inl", ".cu", ".cuh"}  # cmake/sources_id.cmake has the same


def find_root(package: str | os.PathLike[str]) -> Path | None:
    """The root of the source tree that this folder of the package belongs to; None for an installed package."""
    root = Path(package).parent
    return root if (root / MARK).is_file() else None


def complete(path: list[str], search: Sequence[str] | None = None) -> None:
    """Appends to a source package's __path__ what it lacks. search: where packages are installed, by default sys.path.

    Nothing else is added if none is installed; importing the native part then raises.
    """
    root = os.path.dirname(path[0])
    places = [os.path.join(entry or os.curdir, "kosmos_edge") for entry in (sys.path if search is None else search)]
    spec = PathFinder.find_spec(NATIVE, [path[0], *places])
    path.append(root)
    if spec is not None and spec.origin is not None:
        installed = os.path.dirname(os.path.abspath(spec.origin))
        if installed not in path:
            path.append(installed)


def sources_id(root: Path) -> str:
    """What csrc/ and include/ hold, as the build writes it into the native module: SHA-256 over names and contents."""
    files = [p.relative_to(root).as_posix() for top in ("csrc", "include") for p in (root / top).rglob("*")]
    listing = "".join(
        f"{hashlib.sha256((root / name).read_bytes()).hexdigest()}  {name}\n"
        for name in sorted(files)
        if os.path.splitext(name)[1] in SUFFIXES
    )
    return hashlib.sha256(listing.encode()).hexdigest()


def check_native(native: ModuleType, package: str | os.PathLike[str]) -> None:
    """ImportError if an installed native module was built from other sources than those of this source tree.

    A module inside the package's own folder is not checked: whoever built it there is responsible for it.
    """
    root = find_root(package)
    if root is None or native.__file__ is None or os.path.samefile(os.path.dirname(native.__file__), package):
        return
    known = getattr(native, "sources_id", None)  # a build from before there was one has none
    if known is None or known() != sources_id(root):
        raise ImportError(
            f"{native.__file__}, the native part of kosmos-edge, was built from other sources than those in {root}: "
            "run `pip install .` (or `./dev build`) there again",
            name=NATIVE,
        )
