"""Random checkpoints of other families in their published layouts, where ../shared is, and what parity compares."""

import functools
import importlib.util
import itertools
import subprocess
import sys
import unicodedata
import zlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import numpy as np
from helpers.bpe_vocabularies import random_texts

SHARED = Path(__file__).resolve().parents[3] / "shared"
SCRIPT = SHARED / "spec" / "make_family_checkpoint.py"
PRESETS = {f"{preset}-{seed}": (preset, seed) for preset in ("tiny", "small") for seed in (0, 1)}
TOLERANCE = 1e-4  # largest difference over largest magnitude, per row


def presets() -> list[str]:
    """Names of the checkpoints that can be made here."""
    return list(PRESETS) if SCRIPT.exists() else []


def write(family: str, name: str, folder: Path) -> Path:
    """One of `presets`, made in `folder`."""
    preset, seed = PRESETS[name]
    command = [sys.executable, str(SCRIPT), "--family", family, "--preset", preset, "--seed", str(seed)]
    subprocess.run([*command, "--out", str(folder)], check=True, capture_output=True)
    return folder


@functools.cache
def reference() -> ModuleType:
    """Forwards in torch of what transformers lacks, a function for each family."""
    spec = importlib.util.spec_from_file_location("family_reference", SCRIPT.with_name("family_reference.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_strings(name: str, pieces: list[str], special: Iterable[str], *, assigned: bool = True) -> list[str]:
    """Random strings, others for every name, without those that spell something of `special`, which is no text to
    transformers: as many as make 80,000 over all `presets`, with `assigned` without code points that the Unicode
    of one side does not have yet."""
    count = 80_000 // len(PRESETS)
    found: list[str] = []
    for seed in itertools.count(zlib.crc32(name.encode())):
        texts = random_texts(pieces, count, seed)
        found += [
            text
            for text in texts
            if not any(s in text for s in special)
            and not (assigned and any(unicodedata.category(c) == "Cn" for c in text))
        ]
        if len(found) >= count:
            break
    return found[:count]


def far(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of a row over its largest magnitude."""
    assert found.shape == expected.shape
    return float((np.abs(found - expected) / np.abs(expected).max(-1, keepdims=True)).max())


def pictures() -> list[np.ndarray]:
    """Noise, a gradient and stripes, of three shapes."""
    rng = np.random.default_rng(5)
    steps = np.indices((90, 60)).sum(0)[..., None] * np.array([3, 4, 2])
    stripes = np.repeat(rng.integers(0, 256, (50, 1, 3)), 140, 1)
    return [rng.integers(0, 256, (61, 97, 3), np.uint8), steps.astype(np.uint8), stripes.astype(np.uint8)]
