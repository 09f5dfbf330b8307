"""EVA-CLIP's tower and the Q-Former behind it, as parts of models: settings, tensors, metadata."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from kosmos_edge.errors import ModelCorrupt

from ..gguf import Entry
from ..settings import Section
from ..sources.tensor import SourceTensor
from .clip import Tower, expect, weight_and_bias

Rows = Iterator[tuple[str, str, tuple[int, ...]]]


@dataclass(frozen=True)
class Qformer:
    """Its sizes. queries: rows of an image. every: blocks 0, every, ... look at the image."""

    width: int
    layers: int
    ff_width: int
    heads: int
    eps: float
    queries: int
    every: int


# ---- config.json


def read_tower(vision: Section, model_type: str) -> Tower:
    """The tower's sizes; what is absent is ViT-g/14's."""
    vision.only("model_type", model_type)
    vision.only("hidden_act", "gelu")
    vision.only("qkv_bias", True)
    tower = Tower(
        width=vision.whole("hidden_size", 1408),
        layers=vision.whole("num_hidden_layers", 39, 1000),
        ff_width=vision.whole("intermediate_size", 6144),
        heads=vision.whole("num_attention_heads", 16),
        eps=vision.real("layer_norm_eps", 1e-6, 0, 1),
        image_size=vision.whole("image_size", 224),
        patch_size=vision.whole("patch_size", 14),
    )
    if tower.width % tower.heads or tower.image_size % tower.patch_size:
        raise ModelCorrupt(
            f"config.json: {vision.name}hidden_size {tower.width} is no multiple of {tower.heads} heads, "
            f"or image_size {tower.image_size} none of patch_size {tower.patch_size}"
        )
    return tower


def read_qformer(whole: Section, model_type: str, tower: Tower) -> Qformer:
    """The Q-Former's sizes, of a config.json's qformer_config; what is absent is BERT-base's."""
    section = Section(whole.get("qformer_config", {}), "qformer_config")
    section.only("model_type", model_type)
    section.only("hidden_act", "gelu")
    if section.whole("encoder_hidden_size", 1408) != tower.width:
        raise section.bad("encoder_hidden_size", f"the tower's width, {tower.width}")
    found = Qformer(
        width=section.whole("hidden_size", 768),
        layers=section.whole("num_hidden_layers", 12, 1000),
        ff_width=section.whole("intermediate_size", 3072),
        heads=section.whole("num_attention_heads", 12),
        eps=section.real("layer_norm_eps", 1e-12, 0, 1),
        queries=whole.whole("num_query_tokens", 32, 4096),
        every=section.whole("cross_attention_frequency", 2, 512),
    )
    if found.width % found.heads:
        raise section.bad("hidden_size", f"a multiple of {found.heads} heads")
    return found


# ---- tensors


def eva_table(t: Tower, source: str) -> Rows:
    """The tower's rows in a model's table. source: what stands before its names, which `fit_tower` has split."""
    d, ff = t.width, t.ff_width
    yield source + "embeddings.class_embedding", "v.class_embd", (d,)
    yield from weight_and_bias(source + "embeddings.patch_embedding", "v.patch_embd", d, 3, t.patch_size, t.patch_size)
    yield source + "embeddings.position_embedding", "v.position_embd.weight", (t.patches + 1, d)
    for n in range(t.layers):
        block, name = f"{source}encoder.layers.{n}.", f"v.blk.{n}."
        yield from weight_and_bias(block + "layer_norm1", name + "ln1", d)
        for part in "qkv":
            yield from weight_and_bias(f"{block}self_attn.{part}", f"{name}attn_{part}", d, d)
        yield from weight_and_bias(block + "self_attn.projection", name + "attn_out", d, d)
        yield from weight_and_bias(block + "layer_norm2", name + "ln2", d)
        yield from weight_and_bias(block + "mlp.fc1", name + "ffn_up", ff, d)
        yield from weight_and_bias(block + "mlp.fc2", name + "ffn_down", d, ff)
    yield from weight_and_bias(source + "post_layernorm", "v.post_ln", d)


def qformer_table(q: Qformer, features: int, out: int, source: str = "qformer.", norm: str = "layernorm") -> Rows:
    """The Q-Former's rows and those of the product behind it. features, out: widths of what goes in and comes out."""
    d, ff = q.width, q.ff_width
    yield "query_tokens", "mm.query", (q.queries, d)
    yield from weight_and_bias(source + norm, "mm.query_norm", d)
    for n in range(q.layers):
        block, name = f"{source}encoder.layer.{n}.", f"mm.blk.{n}."
        yield from _attention(block + "attention.", name, d, d)
        if n % q.every == 0:
            yield from _attention(block + "crossattention.", name + "cross.", d, features)
        yield from weight_and_bias(block + "intermediate_query.dense", name + "ffn_up", ff, d)
        yield from weight_and_bias(block + "output_query.dense", name + "ffn_down", d, ff)
        yield from weight_and_bias(block + "output_query.LayerNorm", name + "ffn_norm", d)
    yield from weight_and_bias("language_projection", "mm.0", out, d)


def _attention(source: str, name: str, width: int, features: int) -> Rows:
    """BERT's attention; features: width of what keys and values are made of."""
    yield from weight_and_bias(source + "attention.query", name + "attn_q", width, width)
    yield from weight_and_bias(source + "attention.key", name + "attn_k", width, features)
    yield from weight_and_bias(source + "attention.value", name + "attn_v", width, features)
    yield from weight_and_bias(source + "output.dense", name + "attn_output", width, width)
    yield from weight_and_bias(source + "output.LayerNorm", name + "attn_norm", width)


def fit_bridge(tensors: dict[str, SourceTensor], source: str) -> dict[str, SourceTensor]:
    """The same tensors under the names and shapes of the tables: without dimensions of one, queries, keys and values
    of the tower, which are one matrix with one bias, by themselves."""
    fitted: dict[str, SourceTensor] = {}
    flat = {source + "embeddings.class_embedding": 2, source + "embeddings.position_embedding": 1, "query_tokens": 1}
    for name, tensor in tensors.items():
        ones = flat.get(name, 0)
        if ones and tensor.shape[:ones] == (1,) * ones:
            tensor = replace(tensor, shape=tensor.shape[ones:])
        if not name.startswith(source) or ".self_attn.qkv." not in name or not tensor.shape or tensor.shape[0] % 3:
            fitted[name] = tensor
            continue
        shape = (tensor.shape[0] // 3, *tensor.shape[1:])
        for i, part in enumerate("qkv"):
            begin = tensor.offset + i * (tensor.nbytes // 3)
            fitted[name.replace(".qkv.", f".{part}.")] = replace(tensor, shape=shape, offset=begin)
    return fitted


# ---- metadata


def qformer_entries(q: Qformer, architecture: str) -> list[Entry]:
    """<architecture>.qformer.* of a GGUF file."""
    own = f"{architecture}.qformer"
    return [
        (f"{own}.embedding_length", "u32", q.width),
        (f"{own}.feed_forward_length", "u32", q.ff_width),
        (f"{own}.block_count", "u32", q.layers),
        (f"{own}.attention.head_count", "u32", q.heads),
        (f"{own}.attention.layer_norm_epsilon", "f32", q.eps),
        (f"{own}.query_count", "u32", q.queries),
        (f"{own}.cross_attention_every", "u32", q.every),
    ]


def parts_of(keys: dict[str, Any], architecture: str) -> tuple[Tower, Qformer]:
    """What the keys of a GGUF file say of both parts."""
    vision = {key: keys[f"clip.vision.{key}"] for key in ("embedding_length", "block_count", "feed_forward_length")}
    tower = Tower(
        vision["embedding_length"], vision["block_count"], vision["feed_forward_length"], 1, 1e-6,
        keys["clip.vision.image_size"], keys["clip.vision.patch_size"],
    )  # fmt: skip
    own = {key: keys[f"{architecture}.qformer.{key}"] for key in _KEYS}
    return tower, Qformer(
        width=own["embedding_length"], layers=own["block_count"], ff_width=own["feed_forward_length"], heads=1,
        eps=1e-12, queries=own["query_count"], every=own["cross_attention_every"],
    )  # fmt: skip


_KEYS = ("embedding_length", "feed_forward_length", "block_count", "query_count", "cross_attention_every")


def check_squash(settings: dict[str, Any], size: int) -> None:
    """A preprocessor_config.json must squash pictures to a square of the tower's size."""
    square = {"height": size, "width": size}
    expect(settings, "size", square, settings.get("size", size) in (size, square))
    expect(settings, "do_center_crop", "false", settings.get("do_center_crop") in (None, False))
