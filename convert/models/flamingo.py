"""The perceiver resampler of Flamingo's kind, as a part of models: its sizes, tensors, metadata."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..gguf import Entry
from .clip import weight_and_bias

Rows = Iterator[tuple[str, str, tuple[int, ...]]]
EPS = 1e-5  # of the perceiver's norms: torch's, which has no setting


@dataclass(frozen=True)
class Perceiver:
    """Its sizes; it is as wide as the tower. latents: rows of an image."""

    layers: int
    heads: int
    head_dim: int
    ff_width: int
    latents: int


@dataclass(frozen=True)
class Names:
    """What a checkpoint calls the perceiver's parts; {} is the number of a block. norms: of the heads' queries and
    keys, or none."""

    latents: str
    parts: dict[str, str]  # of a block, by our name
    output_norm: str


def perceiver_table(p: Perceiver, width: int, names: Names) -> Rows:
    """The perceiver's rows in a model's table."""
    inner = p.heads * p.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "attn_norm": (width,), "context_norm": (width,), "attn_q": (inner, width), "attn_k": (inner, width),
        "attn_v": (inner, width), "attn_q_norm": (p.head_dim,), "attn_k_norm": (p.head_dim,),
        "attn_output": (width, inner), "ffn_norm": (width,), "ffn_up": (p.ff_width, width),
        "ffn_down": (width, p.ff_width),
    }  # fmt: skip
    yield names.latents, "mm.query", (p.latents, width)
    for n in range(p.layers):
        for part, source in names.parts.items():
            name, shape = f"mm.blk.{n}.{part}", shapes[part]
            if len(shape) == 1:
                yield from weight_and_bias(source.format(n), name, *shape)
            else:
                yield f"{source.format(n)}.weight", f"{name}.weight", shape
    yield from weight_and_bias(names.output_norm, "mm.output_norm", width)


def perceiver_entries(p: Perceiver, architecture: str) -> list[Entry]:
    """<architecture>.perceiver.* of a GGUF file."""
    own = f"{architecture}.perceiver"
    return [
        (f"{own}.block_count", "u32", p.layers),
        (f"{own}.attention.head_count", "u32", p.heads),
        (f"{own}.attention.key_length", "u32", p.head_dim),
        (f"{own}.feed_forward_length", "u32", p.ff_width),
        (f"{own}.query_count", "u32", p.latents),
        (f"{own}.attention.layer_norm_epsilon", "f32", EPS),
    ]


def perceiver_of(keys: dict[str, Any], architecture: str) -> Perceiver:
    """What the keys of a GGUF file say of it."""
    own = f"{architecture}.perceiver."
    return Perceiver(
        layers=keys[own + "block_count"],
        heads=keys[own + "attention.head_count"],
        head_dim=keys[own + "attention.key_length"],
        ff_width=keys[own + "feed_forward_length"],
        latents=keys[own + "query_count"],
    )
