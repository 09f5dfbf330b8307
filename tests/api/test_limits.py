"""Limits of requests: csrc/base/limits.h has them once; the code holds no other copy, and the documents agree."""

import re
from pathlib import Path

import pytest

from kosmos_edge import Model, _core, load
from kosmos_edge.options import GenerationOptions

ROOT = Path(__file__).resolve().parents[2]
LIMITS = _core.limits
HEADER = (ROOT / "include" / "kosmos.h").read_text(encoding="utf-8")
# Names that a second copy would have, and each number as a bound of a check.
COPIES = re.compile(
    r"MAX_(THREADS|TEXTS|STOPS|CHOICES|EXAMPLES|BEAMS|BATCH|SEGMENTS) = \d"
    r"|kMax(Threads|Texts|Stops|Choices|Examples|Beams|Batch|Segments|Boxes|Size) = \d"
    r"|(<=|>|check_int\([^)]*, 1,|IntRange\(1,) (32|64|256|1000|1024|4096|10000|10_000|65535)\b"
)
FOLDERS = [ROOT / "csrc" / name for name in ("engine", "tasks", "capi", "bindings")] + [ROOT / "kosmos_edge"]
# Bounds of something else: the size of a struct, the length of a name, rounds of a measurement.
OTHER = {"support.h", "images.py", "bench.py", "speed.py"}


def test_every_limit_is_written_once():
    paths = [p for folder in FOLDERS for p in folder.rglob("*") if p.suffix in {".h", ".cpp", ".py"}]
    assert len(paths) > 80
    texts = {p: p.read_text(encoding="utf-8") for p in paths if p.name not in OTHER and "convert" not in p.parts}
    assert not {p: match[0] for p, text in texts.items() if (match := COPIES.search(text))}


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("int32_t threads;", f"1..{LIMITS.MAX_THREADS}"),
        ("int32_t num_beams;", f"1..{LIMITS.MAX_BEAMS}"),
        ("double temperature;", f"..{LIMITS.MAX_TEMPERATURE:g}"),
        ("double length_penalty;", f"-{LIMITS.MAX_LENGTH_PENALTY:g}..{LIMITS.MAX_LENGTH_PENALTY:g}"),
        ("*stop;", f"up to {LIMITS.MAX_STOPS}"),
        ("*choices;", f"up to {LIMITS.MAX_CHOICES}"),
        ("*examples;", f"up to {LIMITS.MAX_EXAMPLES}"),
        ("size_t box_count;", f"1..{LIMITS.MAX_BOXES}"),
        ("int32_t batch_size;", f"1..{LIMITS.MAX_BATCH}"),
        ("int32_t batch_size;", f"0: {LIMITS.DEFAULT_BATCH}"),
        ("int32_t width, height;", f"1..{LIMITS.MAX_IMAGE_SIDE}"),
        ("int32_t keep;", f"{LIMITS.DEFAULT_PREFIX_CACHE_MB} MiB"),
        ("", f"1..{LIMITS.MAX_SEGMENTS} images"),
        ("", f"1..{LIMITS.MAX_TEXTS} texts"),
    ],
)
def test_the_header_states_the_limits(field, words):
    """In the comment of the field, or of a function."""
    comments = re.findall(re.escape(field) + r"\s*/\*(.*?)\*/", HEADER, re.S)
    assert any(re.search(re.escape(words) + r"(?![\d.])", comment) for comment in comments), comments


def test_docstrings_state_the_limits():
    assert f"threads: 1..{LIMITS.MAX_THREADS}" in (load.__doc__ or "")
    assert f"prefix_cache_mb: 0..{LIMITS.MAX_PREFIX_CACHE_MB} MB" in (load.__doc__ or "")
    assert f"choices: 1..{LIMITS.MAX_CHOICES} texts" in (Model.ask.__doc__ or "")
    assert f"batch_size: 1..{LIMITS.MAX_BATCH} answers" in (Model.batch.__doc__ or "")
    assert (
        f"1..{LIMITS.MAX_BEAMS}, default 1"
        in Path(__import__(GenerationOptions.__module__, fromlist=[""]).__file__).read_text()
    )
