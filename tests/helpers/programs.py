"""Programs of other languages that are built and run by tests."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kosmos_edge.errors import KosmosError
from kosmos_edge.native import NativePaths, native_paths

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "kosmos_edge" / "data" / "nano-q4_k_m.gguf"


def need(*programs: str) -> None:
    """Skips without them on the path."""
    missing = [p for p in programs if shutil.which(p) is None]
    if missing:
        pytest.skip(f"not here: {', '.join(missing)}")


def need_packages(*names: str) -> None:
    """Skips where pkg-config does not know them."""
    need("pkg-config")
    for name in names:
        if subprocess.run(["pkg-config", "--exists", name]).returncode != 0:
            pytest.skip(f"not here: {name} (pkg-config)")


def installed_library() -> NativePaths:
    """The C library of the package with its header; skips without it."""
    try:
        paths = native_paths()
    except KosmosError as error:
        pytest.skip(str(error))
    if not (paths.include / "kosmos.h").exists():
        pytest.skip("the library was put here by hand, without its header")
    return paths


def flags(paths: NativePaths) -> dict[str, str]:
    """What `python -m kosmos_edge.native --cflags` and `--libs` print."""
    return {"KOSMOS_CFLAGS": " ".join(paths.cflags), "KOSMOS_LIBS": " ".join(paths.libs)}


def run(*command: object, status: int = 0, folder: Path | None = None, **environment: str):
    """The finished process; its exit status must be `status`."""
    out = subprocess.run(
        [str(c) for c in command],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=300,
        cwd=folder,
        stdin=subprocess.DEVNULL,
    )
    assert out.returncode == status, f"{command}\nstatus {out.returncode}\n{out.stdout}\n{out.stderr}"
    return out


def boxless_model(folder: Path) -> Path:
    """The file of a tiny model that knows no boxes."""
    from models.description import described

    from helpers.tiny import write_tiny

    path = folder / "boxless.gguf"
    write_tiny(path, "F32", tiny=described()["llava"].tiny)
    return path
