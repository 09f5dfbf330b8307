"""Pictures on their way into a prompt: prepared for the encoder, and encoded."""

from __future__ import annotations

from dataclasses import dataclass

from kosmos_edge._native import _core


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """A picture that went through the encoder once; belongs to the model that made it. Threads may share it.

    It also keeps the decoder's keys and values of the last prompt whose first picture it was, with the answer, so that
    the next prompt computes only what comes after their common beginning: every further question about one photo, or
    every further photo after the same examples. The answers are the same, bit for bit. That takes about 0.2 MB per
    position in KOSMOS-2 (two times layers x width x 2 bytes; 13 MB for the 66 positions of a picture and its tags),
    within what load(prefix_cache_mb=...) allows to all encoded images of a model together.
    """

    width: int  # of the upright picture
    height: int
    source: str | None
    notes: tuple[str, ...]
    encode_ms: float
    embedding: _core.ImageEmbedding
    engine: _core.Engine

    @property
    def shape(self) -> tuple[int, int]:
        """(image tokens, decoder width)."""
        return self.embedding.shape

    @property
    def kept_positions(self) -> int:
        """Positions whose keys and values are kept for the next prompt."""
        return self.embedding.kept_positions

    @property
    def kept_bytes(self) -> int:
        """Memory that they take."""
        return self.embedding.kept_bytes

    def forget(self) -> None:
        """Frees that memory; the next prompt computes everything and keeps it again."""
        self.embedding.forget()

    def tobytes(self) -> bytes:
        """The vectors as little-endian float32, row by row."""
        return self.embedding.tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A picture as Session.prepare leaves it: every verb's plan takes it where it takes a picture."""

    pixels: _core.PreparedImage
    width: int  # of the upright picture
    height: int
    name: str | None
    notes: tuple[str, ...]
    decode_ms: float
