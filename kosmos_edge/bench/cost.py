"""What the work costs: multiply-accumulates of encoding and prefill, bytes that a generated token reads.

Counted from the file's shapes, once per product that the graph needs. What the engine saves by algebra (the resampler's
constant queries, unused rows of the last layer) is not subtracted, so that figures of any engine on the
same model are set against the same work; the resampler is counted with its folded matrices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from kosmos_edge._native import _core

FLOAT_TYPES = ("F32", "F16", "BF16")
KV_BYTES = {"f32": 4, "f16": 2, "q8_0": 34 / 32}  # of a number


@dataclass(frozen=True)
class Looks:
    """What cross-attention to an image, or to what an encoder read, adds to a decoder: all of its layers together."""

    macs: int  # of a position's products, without the attention itself
    row_macs: int  # of a row of the image: its keys and values, which are made once
    query_width: int  # of all heads of all layers
    key_width: int  # the same of keys

    @classmethod
    def of(cls, shapes: dict[str, tuple[int, ...]]) -> Looks | None:
        """Of a model's tensors; None: it has no such layers."""
        cross = {name: shape for name, shape in shapes.items() if ".cross." in name and name.startswith("blk.")}
        if not cross:
            return None

        def ends(*parts: str) -> list[tuple[int, ...]]:
            return [shape for name, shape in cross.items() if name.endswith(tuple(f"{p}.weight" for p in parts))]

        products = ends("attn_q", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
        memory = ends("attn_k", "attn_v")
        return cls(
            sum(map(math.prod, products)),
            sum(map(math.prod, memory)),
            sum(shape[0] for shape in ends("attn_q")),
            sum(shape[0] for shape in ends("attn_k")),
        )


def _read_per_token(name: str, output: str) -> bool:
    """Whether a token reads that tensor. Keys and values of an image, or of what an encoder read, are made once."""
    of_image = ".cross.attn_k." in name or ".cross.attn_v." in name
    return name == output or (name.startswith(("blk.", "output_norm")) and not of_image)


@dataclass(frozen=True)
class Cost:
    """Sizes of one model file. Matrix products count as width x height x rows."""

    config: dict[str, Any]
    weight_bytes: int  # of the decoder and its output matrix: what one token reads
    cache_values_bytes: float  # bytes of a number in the key-value cache
    quantized: bool
    query_width: int | None = None  # of all heads together; None: the decoder's width
    key_width: int | None = None  # the same of keys, which heads may share
    gated: bool = False  # a third matrix in the feed-forward part
    looks: Looks | None = None
    projector: int = 0  # values of mm.0.weight

    @classmethod
    def of(cls, path: str, kv_type: str = "f16") -> Cost:
        """Of a GGUF file, with keys and values as load(kv_type=...) keeps them."""
        tensors = _core.GgufFile(path).tensors()
        shapes = {name: shape for name, _, shape, *_ in tensors}
        # Logits need one matrix: the embedding, where it is the output matrix, too.
        output = "output.weight" if "output.weight" in shapes else "token_embd.weight"
        read = sum(size for name, *_, size in tensors if _read_per_token(name, output))
        up = next(dtype for name, dtype, *_ in tensors if name == "blk.0.ffn_up.weight")
        quantized = up not in FLOAT_TYPES
        return cls(
            _core.model_info(path),
            read,
            KV_BYTES[kv_type if quantized or kv_type != "f16" else "f32"],
            quantized,
            shapes["blk.0.attn_q.weight"][0],
            shapes["blk.0.attn_k.weight"][0],
            "blk.0.ffn_gate.weight" in shapes,
            Looks.of(shapes),
            math.prod(shapes.get("mm.0.weight", (0,))),
        )

    def encode_macs(self) -> float:
        """Tower, as far as it runs, and resampler or projector for one picture; not what is made anew per prompt."""
        vision, text = self.config["vision"], self.config["decoder"]
        width, ff, patch = vision["width"], vision["ff_width"], vision["patch_size"]
        products = 2
        if "max_patches" in vision:  # a square picture that is not resized; gated; one row stands for the padding
            patches = math.isqrt(vision["max_patches"]) ** 2
            rows, products = patches + (patches < vision["max_patches"]), 3
        else:
            patches = (vision["image_size"] // patch) ** 2
            rows = patches + 1
        layer = rows * (4 * width * width + products * width * ff) + 2 * rows * rows * width
        blocks = vision["layers"] + 1 + vision.get("feature_layer", -1)
        tower = patches * 3 * patch * patch * width + blocks * layer
        d = text["width"]
        if "perceiver" in self.config:
            return float(tower + self._perceiver_macs(rows, width))
        if "qformer" in self.config:
            if "positions" in self.config["qformer"]:  # it reads the question
                return float(tower)
            return float(tower + self._qformer_macs(rows, width, d))
        if "abstractor" in self.config:
            return float(tower + self._abstractor_macs(rows, width, d))
        if "prefix" in self.config:  # of one feature
            return float(tower + self.projector)
        if "merged_features" in self.config:
            return float(tower + patches // self.config["merged_features"] * self.projector)
        if "latents" not in self.config:
            products = self.projector + (0 if self.config["projector"] == "linear" else d * d)
            return float(tower + patches * products)
        latents = self.config["latents"]
        resampler = 2 * rows * width * d + 2 * latents * (rows + latents) * d + latents * d * d
        return float(tower + resampler)

    def _qformer_macs(self, rows: int, features: int, out: int) -> int:
        """The Q-Former for `rows` features of that width, and the product behind it."""
        q = self.config["qformer"]
        width, n, every = q["width"], q["queries"], q["cross_every"]
        block = n * (4 * width * width + 2 * width * q["ff_width"]) + 2 * n * n * width
        cross = 2 * n * width * width + 2 * rows * features * width + 2 * n * rows * width
        return int(q["layers"] * block + -(-q["layers"] // every) * cross + n * width * out)

    def _abstractor_macs(self, rows: int, width: int, out: int) -> int:
        """The abstractor for `rows` features of that width, and the product behind it."""
        a = self.config["abstractor"]
        n = a["queries"]
        products = (2 * n + 2 * (n + rows)) * width * width + 3 * n * width * a["ff_width"]
        return int(a["layers"] * (products + 2 * n * (n + rows) * width) + n * width * out)

    def _perceiver_macs(self, rows: int, width: int) -> int:
        """The perceiver for `rows` features of that width, and the keys and values that the decoder looks at."""
        p = self.config["perceiver"]
        inner, n = p["heads"] * p["head_width"], p["latents"]
        products = 2 * n * width * inner + 2 * (rows + n) * width * inner + 2 * n * width * p["ff_width"]
        memory = n * self.looks.row_macs if self.looks else 0
        return int(p["layers"] * (products + 2 * n * (rows + n) * inner) + memory)

    def _seen_rows(self, tokens: float) -> float:
        """By a position of the decoder: those of an image, or of a prompt of `tokens` that an encoder read."""
        if self.looks is None:
            return 0
        return tokens if "encoder" in self.config else float(self.config["perceiver"]["latents"])

    def prefill_macs(self, tokens: int) -> float:
        """All layers for `tokens` positions, which look at one image, and the logits of the last one. Where an encoder
        reads the prompt: its layers, the keys and values that are made of it, and the decoder's first position."""
        text = self.config["decoder"]
        d, ff = text["width"], text["ff_width"]
        q, k = self.query_width or d, self.key_width or d
        products = 2 * d * q + 2 * d * k + (3 if self.gated else 2) * d * ff
        head, seen = d * text["vocab"], self._seen_rows(tokens)
        if "encoder" in self.config and self.looks:
            read = self.config["encoder"]["layers"] * (tokens * products + 2 * tokens * tokens * q)
            first = text["layers"] * (products + 2 * q) + self.looks.macs + 2 * seen * self.looks.query_width
            return float(read + tokens * self.looks.row_macs + first + head)
        layer = tokens * products + tokens * (tokens + 1) * q
        look = tokens * (self.looks.macs + 2 * seen * self.looks.query_width) if self.looks else 0
        return float(text["layers"] * layer + look + head)

    def decode_bytes(self, positions: float, answer: float = 0) -> float:
        """Weights, the cache of so many positions, and what the rows of an image, or of the prompt, are looked at
        through, in float32. answer: how many of the positions are the answer's."""
        memory = 2 * 4 * self._seen_rows(positions - answer) * self.looks.key_width if self.looks else 0
        cached = answer if "encoder" in self.config else positions
        return float(self.weight_bytes + memory + self.token_bytes() * cached)

    def token_bytes(self) -> float:
        """Keys and values of a token, in all layers."""
        text = self.config["decoder"]
        return float(2 * text["layers"] * (self.key_width or text["width"]) * self.cache_values_bytes)
