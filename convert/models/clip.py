"""CLIP's vision tower, as a part of models: its tensors, its metadata, and how its pictures are prepared."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kosmos_edge.errors import ModelCorrupt

from ..gguf import Entry
from ..sources.files import brief

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Tower:
    """Its sizes. image_size, patch_size: pixels of a side."""

    width: int
    layers: int
    ff_width: int
    heads: int
    eps: float
    image_size: int
    patch_size: int

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


def weight_and_bias(source: str, name: str, out: int, *inner: int) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """The rows of a product or a norm in a model's table of tensors."""
    yield f"{source}.weight", f"{name}.weight", (out, *inner)
    yield f"{source}.bias", f"{name}.bias", (out,)


def tower_table(
    t: Tower, source: str, blocks: int, post_norm: bool = True
) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """The tower's rows in a model's table of tensors. source: what stands before its names in the checkpoint.

    blocks: those that the file has, from the first on. post_norm: whether it has the norm behind the last one.
    """
    d, ff = t.width, t.ff_width
    yield source + "embeddings.class_embedding", "v.class_embd", (d,)
    yield source + "embeddings.patch_embedding.weight", "v.patch_embd.weight", (d, 3, t.patch_size, t.patch_size)
    yield source + "embeddings.position_embedding.weight", "v.position_embd.weight", (t.patches + 1, d)
    yield from weight_and_bias(source + "pre_layrnorm", "v.pre_ln", d)
    for n in range(blocks):
        block, name = f"{source}encoder.layers.{n}.", f"v.blk.{n}."
        yield from weight_and_bias(block + "layer_norm1", name + "ln1", d)
        for part in ("q", "k", "v", "out"):
            yield from weight_and_bias(f"{block}self_attn.{part}_proj", f"{name}attn_{part}", d, d)
        yield from weight_and_bias(block + "layer_norm2", name + "ln2", d)
        yield from weight_and_bias(block + "mlp.fc1", name + "ffn_up", ff, d)
        yield from weight_and_bias(block + "mlp.fc2", name + "ffn_down", d, ff)
    if post_norm:
        yield from weight_and_bias(source + "post_layernorm", "v.post_ln", d)


def tower_entries(
    t: Tower, projector: str, projection: int, pixels: tuple[list[float], list[float]], gelu: bool = False
) -> list[Entry]:
    """clip.* of a GGUF file. projection: width of an image's rows in the decoder. pixels: their mean and deviation.

    gelu: the tower's own kind (by tanh or by the error function), instead of CLIP's quick one.
    """
    return [
        ("clip.has_vision_encoder", "bool", True),
        ("clip.projector_type", "str", projector),
        ("clip.use_gelu", "bool", gelu),
        ("clip.vision.image_size", "u32", t.image_size),
        ("clip.vision.patch_size", "u32", t.patch_size),
        ("clip.vision.embedding_length", "u32", t.width),
        ("clip.vision.feed_forward_length", "u32", t.ff_width),
        ("clip.vision.block_count", "u32", t.layers),
        ("clip.vision.projection_dim", "u32", projection),
        ("clip.vision.attention.head_count", "u32", t.heads),
        ("clip.vision.attention.layer_norm_epsilon", "f32", t.eps),
        ("clip.vision.image_mean", "[f32]", pixels[0]),
        ("clip.vision.image_std", "[f32]", pixels[1]),
    ]


def expect(settings: dict[str, Any], key: str, expected: object, fine: bool) -> None:
    """ModelCorrupt unless what preprocessor_config.json says of `key` is what the engine does."""
    if not fine:
        raise ModelCorrupt(
            f"preprocessor_config.json: {key} is {brief(settings.get(key))}; only {expected} is supported"
        )


def read_pixels(
    settings: dict[str, Any], usual: tuple[tuple[float, ...], tuple[float, ...]] = (MEAN, STD)
) -> tuple[list[float], list[float]]:
    """Mean and deviation of pixels, the usual ones where the settings have none; how they are resampled and scaled must
    be what the engine does."""
    for key in ("do_resize", "do_rescale", "do_normalize"):
        expect(settings, key, True, settings.get(key, True) is True)
    expect(settings, "resample", "3 (bicubic)", settings.get("resample", 3) == 3)
    factor = settings.get("rescale_factor", 1 / 255)
    fine = isinstance(factor, float) and math.isclose(factor, 1 / 255, rel_tol=1e-6)
    expect(settings, "rescale_factor", "1/255", fine)
    values = []
    for key, default in (("image_mean", usual[0]), ("image_std", usual[1])):
        value = settings.get(key, list(default))
        numbers = (
            isinstance(value, list) and len(value) == 3 and all(type(v) in (int, float) and abs(v) < 1e6 for v in value)
        )
        wanted = "a list of three numbers" + (" above 0" if key == "image_std" else "")
        expect(settings, key, wanted, numbers and (key == "image_mean" or min(value) > 0))
        values.append([float(v) for v in value])
    return values[0], values[1]


def check_crop(settings: dict[str, Any], size: int) -> None:
    """preprocessor_config.json must be CLIP's: the shorter side resized, the middle cut out."""
    square = {"height": size, "width": size}
    expect(settings, "size", {"shortest_edge": size}, settings.get("size", size) in (size, {"shortest_edge": size}))
    expect(settings, "do_center_crop", True, settings.get("do_center_crop", True) is True)
    expect(settings, "crop_size", square, settings.get("crop_size", size) in (size, square))
