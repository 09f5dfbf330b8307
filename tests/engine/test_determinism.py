"""Equal requests give equal bits: the fast form of bench/determinism.py; and its hash would notice a difference.

tests/models/ does it for each architecture."""

from pathlib import Path

import determinism
import pytest
from helpers.api_model import grounded_file

from kosmos_edge import _core

NANO = Path(__file__).parents[2] / "kosmos_edge" / "data" / "nano-q4_k_m.gguf"
PICTURES = range(6)


@pytest.mark.parametrize("path", [NANO, grounded_file], ids=["nano", "grounded"])
def test_every_way_gives_the_same_logits(path) -> None:
    file = str(path if isinstance(path, Path) else path())
    found = {name: way(PICTURES) for name, way in determinism.ways(file, 2).items()}
    first = next(iter(found.values()))
    assert len({answer for answer in first.values()}) == len(PICTURES)  # every picture has logits of its own
    for name, answers in found.items():
        assert answers == first, name


def test_the_hash_sees_every_bit() -> None:
    """Of the logits that decide a token, whichever way they are computed, and of nothing else."""
    engine = _core.Engine(str(grounded_file()), threads=1)
    prompt = determinism.prompt(engine, 1)
    params = determinism.params()

    def hash_of(**changes: object) -> int:
        for name, value in changes.items():
            setattr(params, name, value)
        return engine.generate(prompt, params).logits_hash

    first = hash_of()
    assert first != 0 and hash_of() == first
    assert hash_of(draft=False) == first  # tokens one at a time: the same logits
    assert hash_of(logprobs=True) == first
    assert hash_of(max_tokens=2) != first
    assert hash_of(hash_logits=False) == 0
    assert engine.generate(determinism.prompt(engine, 2), determinism.params()).logits_hash != first
