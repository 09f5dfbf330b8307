"""KOSMOS-2: source names -> GGUF names with the shapes that the settings demand, and the metadata of the file."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kosmos_edge.errors import ModelCorrupt

from ..card import general_entries, read_card
from ..generation import generation_entries
from ..gguf import Entry
from ..mapping import check_tensors_of
from ..settings import read_sizes
from ..sources.checkpoint import Checkpoint
from . import kosmos_vocabulary
from .clip import Tower, expect, read_pixels, tower_entries, tower_table, weight_and_bias
from .kosmos_layout import BOS, EOS, PAD, TAGS
from .kosmos_vocabulary import Vocabulary

NAME, ARCHITECTURE = "KOSMOS-2", "kosmos2"
FOLDS = True  # nothing but matrices reads what a norm of a block gives
# Buffers that some versions of transformers stored; nothing of the model is in them.
IGNORED = (".position_ids", "embed_positions.weights")
TIED = {"text_model.lm_head.weight": "text_model.model.embed_tokens.weight"}

PROMPTS = {
    "caption": "An image of",
    "caption_detailed": "Describe this image in detail:",
    "question": "Question: {question} Answer:",
    "locate": "<phrase> {phrase}</phrase>",
    "describe": "<phrase> It</phrase>{boxes} is",
    "grounding": "<grounding>",
}
CARD = {
    "name": "Kosmos-2",
    "basename": "Kosmos-2",
    "version": "v1.0",
    "size_label": "",  # counted
    "description": "KOSMOS-2: captions, answers and boxes from pictures; vision, resampler and decoder in one file",
    "license": "mit",
    "languages": ["en"],
    "tags": ["image-to-text", "visual-grounding"],
    "source_url": "https://huggingface.co/microsoft/kosmos-2-patch14-224",
    "notice": "",
    "trained_tasks": [],
    "prompt": {},
}
_FIRST_SLOT = 4  # unk + 1: the processor's first_image_token_id


@dataclass(frozen=True)
class Family:
    """What tells the models of this layout apart: KOSMOS-2, and KOSMOS-1 (kosmos1.py)."""

    architecture: str
    card: dict[str, Any]  # see card.py
    prompts: dict[str, str]  # by task


@dataclass(frozen=True)
class Config:
    """The sizes of a model; defaults are the published ones, as in Kosmos2Config of transformers."""

    vocab: int = 65037
    width: int = 2048
    layers: int = 24
    ff_width: int = 8192
    heads: int = 32
    context: int = 2048
    eps: float = 1e-5
    latents: int = 64
    vision_width: int = 1024
    vision_layers: int = 24
    vision_ff_width: int = 4096
    vision_heads: int = 16
    vision_eps: float = 1e-5
    image_size: int = 224
    patch_size: int = 14

    @property
    def tower(self) -> Tower:
        return Tower(
            self.vision_width,
            self.vision_layers,
            self.vision_ff_width,
            self.vision_heads,
            self.vision_eps,
            self.image_size,
            self.patch_size,
        )


# (field of Config, section of config.json, key there)
_SIZES = (
    ("vocab", "text_config", "vocab_size"),
    ("width", "text_config", "embed_dim"),
    ("layers", "text_config", "layers"),
    ("ff_width", "text_config", "ffn_dim"),
    ("heads", "text_config", "attention_heads"),
    ("context", "text_config", "max_position_embeddings"),
    ("latents", "", "latent_query_num"),
    ("vision_width", "vision_config", "hidden_size"),
    ("vision_layers", "vision_config", "num_hidden_layers"),
    ("vision_ff_width", "vision_config", "intermediate_size"),
    ("vision_heads", "vision_config", "num_attention_heads"),
    ("image_size", "vision_config", "image_size"),
    ("patch_size", "vision_config", "patch_size"),
)
# What the engine computes; a checkpoint that wants something else cannot be run.
_FIXED = (
    ("text_config", "activation_function", "gelu"),
    ("text_config", "scale_embedding", True),
    ("text_config", "add_cross_attention", False),
    ("text_config", "bos_token_id", 0),
    ("text_config", "pad_token_id", 1),
    ("text_config", "eos_token_id", 2),
    ("vision_config", "hidden_act", "quick_gelu"),
    ("vision_config", "num_channels", 3),
)


def recognises(settings: dict[str, Any]) -> bool:
    """Whether this config.json is KOSMOS-2's."""
    return settings.get("model_type") == "kosmos-2"


def fit(checkpoint: Checkpoint, config: Config, vocabulary: Vocabulary) -> Config:
    """The tensors have the table's names as they are."""
    return config


def read_config(settings: dict[str, Any]) -> Config:
    """The sizes in a config.json; what it leaves out has the published value."""
    values = read_sizes(settings, Config, _FIXED, _SIZES)
    config = Config(**values)
    if config.layers > 1000 or config.vision_layers > 1000:
        raise ModelCorrupt(f"config.json: {config.layers} and {config.vision_layers} layers, expected at most 1000")
    if config.width % config.heads or config.vision_width % config.vision_heads:
        raise ModelCorrupt(
            f"config.json: widths {config.width} and {config.vision_width} are no multiples of their numbers of heads "
            f"{config.heads} and {config.vision_heads}"
        )
    if config.image_size % config.patch_size or config.width % 2:
        raise ModelCorrupt(
            f"config.json: image_size {config.image_size} is no multiple of patch_size, or the width is odd"
        )
    return config


# ---- tensors


def tensor_table(c: Config) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in the checkpoint, name in the GGUF file, shape outermost first), in the order of the file."""
    d, ff = c.width, c.ff_width
    yield "text_model.model.embed_tokens.weight", "token_embd.weight", (c.vocab, d)
    for n in range(c.layers):
        source, name = f"text_model.model.layers.{n}.", f"blk.{n}."
        yield from weight_and_bias(source + "self_attn_layer_norm", name + "attn_norm", d)
        for part in "qkv":
            yield from weight_and_bias(f"{source}self_attn.{part}_proj", f"{name}attn_{part}", d, d)
        yield from weight_and_bias(source + "self_attn.inner_attn_ln", name + "attn_sub_norm", d)
        yield from weight_and_bias(source + "self_attn.out_proj", name + "attn_output", d, d)
        yield from weight_and_bias(source + "final_layer_norm", name + "ffn_norm", d)
        yield from weight_and_bias(source + "ffn.fc1", name + "ffn_up", ff, d)
        yield from weight_and_bias(source + "ffn.ffn_layernorm", name + "ffn_sub_norm", ff)
        yield from weight_and_bias(source + "ffn.fc2", name + "ffn_down", d, ff)
    yield from weight_and_bias("text_model.model.layer_norm", "output_norm", d)
    yield from tower_table(c.tower, "vision_model.model.", c.vision_layers)
    projection = "image_to_text_projection."
    yield projection + "latent_query", "mm.latent_query", (c.latents, d)
    yield from weight_and_bias(projection + "dense", "mm.dense", d, c.vision_width)
    for part in ("q", "k", "v", "out"):
        yield from weight_and_bias(f"{projection}x_attn.{part}_proj", f"mm.attn_{part}", d, d)


def check(where: str, settings: dict[str, Any], tensors: Iterable[tuple[str, str, tuple[int, ...], int, int]]) -> None:
    """Whether a GGUF file's tensors are those of its settings: what _core.GgufFile.tensors and _core.model_info gave.

    ModelCorrupt names the first that is missing, misshapen or no part of the model.
    """
    decoder, vision = settings["decoder"], settings["vision"]
    c = Config(
        vocab=decoder["vocab"], width=decoder["width"], layers=decoder["layers"], ff_width=decoder["ff_width"],
        latents=settings["latents"], vision_width=vision["width"], vision_layers=vision["layers"],
        vision_ff_width=vision["ff_width"], image_size=vision["image_size"], patch_size=vision["patch_size"],
    )  # fmt: skip
    check_tensors_of(where, tensor_table(c), tensors)


# ---- metadata


def read_vocabulary(checkpoint: Checkpoint) -> Vocabulary:
    """The vocabulary, with tags and location tokens."""
    return kosmos_vocabulary.read_vocabulary(checkpoint.tokenizer, TAGS, boxes=True)


def metadata(
    checkpoint: Checkpoint, c: Config, vocabulary: Vocabulary, file_type: int, sha256: list[str], converter: str
) -> list[Entry]:
    """Everything but the tensors' checksums: (key, GGUF type, value). sha256: "file name:hex" of every source file."""
    family = Family(ARCHITECTURE, CARD, PROMPTS)
    return family_metadata(family, checkpoint, c, vocabulary, file_type, sha256, converter)


def family_metadata(
    family: Family,
    checkpoint: Checkpoint,
    c: Config,
    vocabulary: Vocabulary,
    file_type: int,
    sha256: list[str],
    converter: str,
) -> list[Entry]:
    """metadata() of any model of this layout."""
    if len(vocabulary.pieces) != c.vocab:
        raise ModelCorrupt(
            f"the vocabulary has {len(vocabulary.pieces)} pieces, "
            f"the embedding of {checkpoint.files[0].path} {c.vocab} rows"
        )
    arch = family.architecture
    card = read_card(checkpoint.card, family.card, family.prompts)
    pixels = _read_preprocessor(checkpoint.preprocessor, c)
    count = sum(math.prod(shape) for _, _, shape in tensor_table(c))
    return [
        *general_entries(card, arch, count, file_type),
        (f"{arch}.converter", "str", converter),
        (f"{arch}.source.sha256", "[str]", sha256),
        (f"{arch}.context_length", "u32", c.context),
        (f"{arch}.embedding_length", "u32", c.width),
        (f"{arch}.block_count", "u32", c.layers),
        (f"{arch}.feed_forward_length", "u32", c.ff_width),
        (f"{arch}.attention.head_count", "u32", c.heads),
        (f"{arch}.attention.layer_norm_epsilon", "f32", c.eps),
        (f"{arch}.vocab_size", "u32", c.vocab),
        (f"{arch}.image_token_count", "u32", c.latents),
        *([(f"{arch}.location_bins", "u32", vocabulary.location_bins)] if vocabulary.location_bins else []),
        (f"{arch}.first_slot_token_id", "u32", _FIRST_SLOT),
        *tower_entries(c.tower, arch, c.width, pixels),
        *generation_entries(
            checkpoint,
            arch,
            max_new_tokens=128,
            no_repeat_ngram_size=3,
            ids={"bos_token_id": BOS, "pad_token_id": PAD, "eos_token_id": EOS},
        ),
        *((f"{arch}.prompt.{task}", "str", text) for task, text in card["prompt"].items()),
        *([(f"{arch}.notice", "str", card["notice"])] if card["notice"] else []),
        *([(f"{arch}.trained_tasks", "str", ", ".join(tasks))] if (tasks := card["trained_tasks"]) else []),
        *vocabulary.entries(),
    ]


def _read_preprocessor(settings: dict[str, Any], c: Config) -> tuple[list[float], list[float]]:
    """Mean and deviation of pixels; everything else that preprocessor_config.json says must be what the engine does."""
    square = {"height": c.image_size, "width": c.image_size}
    size = settings.get("size", square)
    squashed = settings.get("use_square_size") is True and size == {"shortest_edge": c.image_size}
    expect(settings, "size", square, size in (square, c.image_size) or squashed)
    cropped = settings.get("crop_size", square) in (square, c.image_size) or settings.get("do_center_crop") is False
    expect(settings, "crop_size", square, cropped)
    return read_pixels(settings)
