"""Images for a prompt: prepared for the encoder, and encoded."""

from __future__ import annotations

from dataclasses import dataclass

from kosmos_edge._native import _core


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """An encoded image; can be used only with the model that encoded it. Threads may share it.

    It also keeps the decoder's keys and values of the last prompt that began with it, with the answer, so that
    the next prompt computes only what follows their common beginning: every further question about one photo, or
    every further photo after the same examples. The answers are bit-identical. That takes about 0.2 MB per
    position in KOSMOS-2 (two times layers x width x 2 bytes; 13 MB for the 66 positions of an image and its tags),
    within load(prefix_cache_mb=...) for all encoded images of a model.
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
        """(rows, width) of tobytes(): image tokens and decoder width, or what text looks at by cross-attention, or,
        where image tokens depend on the question, the features of which each prompt makes its own."""
        return self.embedding.shape

    @property
    def kept_positions(self) -> int:
        """Positions whose keys and values are kept for the next prompt."""
        return self.embedding.kept_positions

    @property
    def kept_bytes(self) -> int:
        """Bytes of memory that the kept positions take."""
        return self.embedding.kept_bytes

    def forget(self) -> None:
        """Frees that memory; the next prompt computes and keeps everything again."""
        self.embedding.forget()

    def tobytes(self) -> bytes:
        """The vectors as little-endian float32, row by row."""
        return self.embedding.tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """The result of Session.prepare; every verb's plan accepts it as an image."""

    pixels: _core.PreparedImage
    width: int  # of the upright picture
    height: int
    name: str | None
    notes: tuple[str, ...]
    decode_ms: float
