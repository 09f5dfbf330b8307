"""What a loaded model says of its device, its sizes and its keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kosmos_edge.inference.protocol import Session


class EngineFacts:
    """These properties of Model."""

    if TYPE_CHECKING:  # what they need of it

        @property
        def _open(self) -> Session: ...

    @property
    def device(self) -> str:
        """The device that computes, such as "cpu"."""
        return self._open.engine.device

    @property
    def description(self) -> str:
        """The device, human-readable: kind, instruction set, threads."""
        return self._open.engine.description

    @property
    def fallback(self) -> str:
        """Why device="auto" does not use a better installed device, in one line; "" if not applicable."""
        return self._open.engine.fallback

    @property
    def isa(self) -> str:
        """The CPU instruction set in use, such as "avx2"."""
        return self._open.engine.isa

    @property
    def threads(self) -> int:
        """The number of threads that compute."""
        return self._open.engine.threads

    @property
    def context_length(self) -> int:
        """Positions for prompt and answer together."""
        return self._open.engine.context_length

    @property
    def image_tokens(self) -> int:
        """Positions that one image takes, without its two tags."""
        return self._open.engine.image_tokens

    @property
    def kv_type(self) -> str:
        """How keys and values are kept: "q8_0" or "f16", as load(kv_type=...) said, or "f32", which "f16" means for a
        file whose weights are floats."""
        return self._open.engine.kv_type

    @property
    def shared_weights(self) -> dict[str, Any]:
        """How load(shared_weights=...) went: file (that is mapped; "": none), shared_bytes (of weights in it),
        private_bytes (of weights in memory of this process, where sharing was asked for), made (whether the file was
        made by this load), note (why not, or why again; "": nothing to say)."""
        return dict(self._open.engine.sharing)

    @property
    def kv_bytes_per_token(self) -> int:
        """Memory of the keys and values of one token of a prompt or answer; what is kept of an image that a decoder
        looks at by cross-attention is not in it."""
        return self._open.engine.kv_position_bytes
