"""SigLIP's vision tower, as a part of models: no class token, patches with a bias, GELU by tanh."""

from collections.abc import Iterator

from kosmos_edge.errors import ModelCorrupt

from ..settings import Section
from .clip import Tower, weight_and_bias

PIXELS = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  # the usual mean and deviation


def read_siglip(vision: Section) -> Tower:
    """The sizes in a vision_config; what is absent is as transformers' class has it."""
    vision.only("model_type", "siglip_vision_model")
    vision.only("hidden_act", "gelu_pytorch_tanh")
    vision.only("num_channels", 3)
    tower = Tower(
        width=vision.whole("hidden_size", 768),
        layers=vision.whole("num_hidden_layers", 12, 1000),
        ff_width=vision.whole("intermediate_size", 3072),
        heads=vision.whole("num_attention_heads", 12),
        eps=vision.real("layer_norm_eps", 1e-6, 0, 1),
        image_size=vision.whole("image_size", 224),
        patch_size=vision.whole("patch_size", 16),
    )
    if tower.width % tower.heads or tower.patch_size > tower.image_size:
        raise ModelCorrupt(
            f"config.json: {vision.name}hidden_size {tower.width} is no multiple of {tower.heads} heads, "
            f"or patch_size {tower.patch_size} is above image_size {tower.image_size}"
        )
    return tower


def siglip_table(t: Tower, source: str, blocks: int) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """The rows of its first blocks in a model's table of tensors. source: what stands before its names."""
    d, ff = t.width, t.ff_width
    patch = (3, t.patch_size, t.patch_size)
    yield from weight_and_bias(source + "embeddings.patch_embedding", "v.patch_embd", d, *patch)
    yield source + "embeddings.position_embedding.weight", "v.position_embd.weight", (t.patches, d)
    for n in range(blocks):
        block, name = f"{source}encoder.layers.{n}.", f"v.blk.{n}."
        yield from weight_and_bias(block + "layer_norm1", name + "ln1", d)
        for part in ("q", "k", "v", "out"):
            yield from weight_and_bias(f"{block}self_attn.{part}_proj", f"{name}attn_{part}", d, d)
        yield from weight_and_bias(block + "layer_norm2", name + "ln2", d)
        yield from weight_and_bias(block + "mlp.fc1", name + "ffn_up", ff, d)
        yield from weight_and_bias(block + "mlp.fc2", name + "ffn_down", d, ff)
