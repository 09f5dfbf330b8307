"""Damaged GGUF files: whatever is changed, the reader either refuses with ModelCorrupt or hands out sound tensors."""

import os
import random

import pytest
from helpers.gguf_builder import sample

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt

MODES = ("mmap", "copy")


class Trial:
    """Opens variants of one file, written in place into a file that is kept open."""

    def __init__(self, path):
        self.path = str(path)
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)

    def opens(self, content: bytes, mode: str) -> bool:
        """False when refused; when accepted, everything is read and must lie inside the file."""
        os.ftruncate(self.fd, len(content))
        os.pwrite(self.fd, content, 0)
        try:
            file = _core.GgufFile(self.path, mode)
        except ModelCorrupt as error:
            assert str(error).startswith(self.path + ": ")
            return False
        file.metadata()
        for name, dtype, shape, offset, size in file.tensors():
            assert offset + size <= len(content)
            assert file.tensor_data(name) == content[offset : offset + size]
            count = 1
            for extent in shape:
                count *= extent
            assert len(_core.dequantize(dtype, file.tensor_data(name), count)) == 4 * count
        return True


@pytest.fixture
def trial(tmp_path):
    trial = Trial(tmp_path / "damaged.gguf")
    yield trial
    os.close(trial.fd)


def test_undamaged(trial):
    assert all(trial.opens(sample().build(), mode) for mode in MODES)


def test_every_integer_of_the_header(trial):
    """Counts, lengths, types, ranks, dimensions and offsets replaced by the values that break careless arithmetic."""
    builder = sample()
    content = builder.build()
    refused = accepted = 0
    for place in builder.fields:
        old = int.from_bytes(content[place.offset : place.offset + place.width], "little")
        top = 256**place.width
        powers = {2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1}
        values = powers | {0, 1, 2, old - 1, old + 1, 2 * old, 2**64 - old, top - 32, top - 1}
        for value in sorted(v for v in values if 0 <= v < top and v != old):
            new = bytearray(content)
            new[place.offset : place.offset + place.width] = value.to_bytes(place.width, "little")
            for mode in MODES:
                opened = trial.opens(bytes(new), mode)
                refused += not opened
                accepted += opened
                if value >= 2**31 and "offset" not in place.label:
                    assert not opened, f"{place.label} = {value}"
    assert refused > 20 * accepted  # harmless changes are few: a smaller dimension, a free offset, another scalar type


def test_truncation_at_every_length(trial):
    builder = sample()
    content = builder.build()
    assert {b + d for b in builder.boundaries for d in (-1, 0, 1)} <= set(range(len(content) + 2))
    for length in range(len(content)):
        for mode in MODES:
            assert not trial.opens(content[:length], mode), f"{length} of {len(content)} bytes"


def test_bytes_after_the_last_tensor_are_padding(trial):
    assert all(trial.opens(sample().build() + bytes(n), mode) for n in (1, 31, 4096) for mode in MODES)


def test_random_mutants(trial):
    rng = random.Random(20260131)
    builder = sample()
    content = builder.build()
    opened = 0
    for i in range(20000):
        new = bytearray(content)
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            at = rng.randrange(builder.header_end if rng.random() < 0.9 else len(new))
            kind = rng.random()
            if kind < 0.5:
                new[at] = rng.randrange(256)
            elif kind < 0.7:
                new[at] ^= 1 << rng.randrange(8)
            elif kind < 0.8:
                del new[at : at + rng.choice((1, 4, 8))]
            elif kind < 0.9:
                new[at:at] = rng.randbytes(rng.choice((1, 4, 8)))
            else:
                new[at : at + 8] = rng.choice((0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)).to_bytes(8, "little")
        opened += trial.opens(bytes(new), MODES[i % 2])
    assert 100 < opened < 15000  # the mutants are neither all harmless nor all hopeless
