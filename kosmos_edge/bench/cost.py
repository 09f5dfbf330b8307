"""What the work costs: multiply-accumulates of encoding and prefill, bytes that a generated token reads.

Counted from the file's shapes, once per product that the graph needs. What the engine saves by algebra (the resampler's
constant queries, unused rows of the last layer) is not subtracted, so that figures of any engine on the
same model are set against the same work; the resampler is counted with its folded matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kosmos_edge._native import _core

FLOAT_TYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Cost:
    """Sizes of one model file. Matrix products count as width x height x rows."""

    config: dict[str, Any]
    weight_bytes: int  # of the decoder and its output matrix: what one token reads
    cache_values_bytes: int  # bytes of a number in the key-value cache
    quantized: bool

    @classmethod
    def of(cls, path: str) -> Cost:
        """Of a GGUF file."""
        tensors = _core.GgufFile(path).tensors()
        read = sum(size for name, *_, size in tensors if name.startswith(("blk.", "output_norm", "token_embd")))
        up = next(dtype for name, dtype, *_ in tensors if name == "blk.0.ffn_up.weight")
        quantized = up not in FLOAT_TYPES
        return cls(_core.model_info(path), read, 2 if quantized else 4, quantized)

    def encode_macs(self) -> float:
        """Tower and resampler for one picture."""
        vision, text = self.config["vision"], self.config["decoder"]
        width, ff, patch = vision["width"], vision["ff_width"], vision["patch_size"]
        patches = (vision["image_size"] // patch) ** 2
        rows = patches + 1
        layer = rows * (4 * width * width + 2 * width * ff) + 2 * rows * rows * width
        tower = patches * 3 * patch * patch * width + vision["layers"] * layer
        d, latents = text["width"], self.config["latents"]
        resampler = 2 * rows * width * d + 2 * latents * (rows + latents) * d + latents * d * d
        return float(tower + resampler)

    def prefill_macs(self, tokens: int) -> float:
        """All layers for `tokens` positions and the logits of the last one."""
        text = self.config["decoder"]
        d, ff = text["width"], text["ff_width"]
        layer = tokens * (4 * d * d + 2 * d * ff) + tokens * (tokens + 1) * d
        return float(text["layers"] * layer + d * text["vocab"])

    def decode_bytes(self, positions: float) -> float:
        """Weights, and the cache of so many positions."""
        text = self.config["decoder"]
        return float(self.weight_bytes + 2 * text["layers"] * text["width"] * self.cache_values_bytes * positions)
