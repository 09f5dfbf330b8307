"""KOSMOS-2.5, the reader of pages: transformers' Kosmos2_5ForConditionalGeneration."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt

from ..byte_bpe import ByteBpe, read_byte_bpe
from ..card import general_entries, read_card
from ..generation import generation_entries
from ..gguf import Entry
from ..mapping import check_tensors_of
from ..settings import read_sizes
from ..sources.checkpoint import Checkpoint
from ..sources.files import brief
from ..tokenizer import CONTROL, USER_DEFINED
from .cl100k_vocabulary import FILE as CL100K
from .cl100k_vocabulary import read_fairseq_vocabulary
from .clip import expect, weight_and_bias

NAME, ARCHITECTURE = "KOSMOS-2.5", "kosmos2_5"
FOLDS = True  # nothing but matrices reads what a norm of a block gives
IGNORED = (".position_ids", "embed_positions.weights")
TIED = {"text_model.lm_head.weight": "text_model.model.embed_tokens.weight"}
# A chat model has a question as well (kosmos_edge.json).
PROMPTS = {"read": "<ocr>", "markdown": "<md>", "question": ""}
CARD = {
    "name": "Kosmos-2.5",
    "basename": "Kosmos-2.5",
    "version": "v1.0",
    "size_label": "",  # counted
    "description": "KOSMOS-2.5: text lines with boxes, or Markdown, from pictures of pages",
    "license": "mit",
    "languages": ["en"],
    "tags": ["image-to-text", "ocr"],
    "source_url": "https://huggingface.co/microsoft/kosmos-2.5",
    "notice": "",
    "trained_tasks": [],
    "prompt": {},
}
TAGS = ("<ocr>", "<image>", "</image>", "</chunk>", "<bbox>", "</bbox>", "<md>")  # in the order of their ids
_SPECIAL = {"bos": 0, "pad": 1, "eos": 2}  # ids, as text_config has them
_PLACEHOLDER = 0  # of every row of an image: <s>, as transformers' processor has it
_MAX_NEW_TOKENS = 4000  # of unilm's inference; a page is long


@dataclass(frozen=True)
class Config:
    """The sizes of a model; defaults are the published ones, as in Kosmos2_5Config of transformers."""

    vocab: int = 108481
    width: int = 1536
    layers: int = 24
    ff_width: int = 6144
    heads: int = 16
    positions: int = 4096
    eps: float = 1e-5
    latents: int = 2048
    vision_width: int = 1536
    vision_layers: int = 18
    vision_ff_width: int = 3968
    vision_heads: int = 24
    vision_eps: float = 1e-6
    max_patches: int = 4096
    patch_values: int = 768

    @property
    def patch_size(self) -> int:
        """Pixels of a patch's side."""
        return math.isqrt(self.patch_values // 3)

    @property
    def context(self) -> int:
        """Positions are computed, so that their number in config.json is no limit: an image and a page of text fit."""
        return 2 * self.positions


# (field of Config, section of config.json, key there)
_SIZES = (
    ("vocab", "text_config", "vocab_size"),
    ("width", "text_config", "embed_dim"),
    ("layers", "text_config", "layers"),
    ("ff_width", "text_config", "ffn_dim"),
    ("heads", "text_config", "attention_heads"),
    ("positions", "text_config", "max_position_embeddings"),
    ("latents", "", "latent_query_num"),
    ("vision_width", "vision_config", "hidden_size"),
    ("vision_layers", "vision_config", "num_hidden_layers"),
    ("vision_ff_width", "vision_config", "intermediate_size"),
    ("vision_heads", "vision_config", "num_attention_heads"),
    ("max_patches", "vision_config", "max_num_patches"),
    ("patch_values", "vision_config", "patch_embed_hidden_size"),
)
# What the engine computes; a checkpoint that wants something else cannot be run.
_FIXED = (
    ("text_config", "activation_function", "gelu"),
    ("text_config", "scale_embedding", True),
    ("text_config", "add_cross_attention", False),
    ("text_config", "bos_token_id", 0),
    ("text_config", "pad_token_id", 1),
    ("text_config", "eos_token_id", 2),
    ("vision_config", "dense_act_fn", "gelu_new"),
)


def recognises(settings: dict[str, Any]) -> bool:
    """Whether this config.json is KOSMOS-2.5's."""
    return settings.get("model_type") == "kosmos-2.5"


def read_config(settings: dict[str, Any]) -> Config:
    """The sizes in a config.json; what it leaves out has the published value."""
    values = read_sizes(settings, Config, _FIXED, _SIZES)
    config = Config(**values)
    if config.layers > 1000 or config.vision_layers > 1000:
        raise ModelCorrupt(f"config.json: {config.layers} and {config.vision_layers} layers, expected at most 1000")
    head_dim = (settings.get("vision_config") or {}).get("head_dim", config.vision_width // config.vision_heads)
    if (
        config.width % config.heads
        or config.vision_width % config.vision_heads
        or head_dim * config.vision_heads != config.vision_width
    ):
        raise ModelCorrupt(
            f"config.json: widths {config.width} and {config.vision_width} are no multiples of their numbers of heads "
            f"{config.heads} and {config.vision_heads}, or head_dim {brief(head_dim)} is not the width of a head"
        )
    if 3 * config.patch_size**2 != config.patch_values:
        raise ModelCorrupt(f"config.json: patch_embed_hidden_size is {config.patch_values}, expected 3 * side * side")
    return config


def fit(checkpoint: Checkpoint, config: Config, vocabulary: ByteBpe) -> Config:
    """The tensors have the table's names as they are."""
    return config


# ---- tensors


def tensor_table(c: Config) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in the checkpoint, name in the GGUF file, shape outermost first), in the order of the file."""
    d, ff, v = c.width, c.ff_width, c.vision_width
    yield "text_model.model.embed_tokens.weight", "token_embd.weight", (c.vocab, d)
    yield "text_model.model.segment_emb.weight", "segment_embd.weight", (2, d)
    for n in range(c.layers):
        source, name = f"text_model.model.layers.{n}.", f"blk.{n}."
        yield from weight_and_bias(source + "self_attn_layer_norm", name + "attn_norm", d)
        for part in "qkv":
            yield from weight_and_bias(f"{source}self_attn.{part}_proj", f"{name}attn_{part}", d, d)
        yield from weight_and_bias(source + "self_attn.out_proj", name + "attn_output", d, d)
        yield from weight_and_bias(source + "final_layer_norm", name + "ffn_norm", d)
        yield from weight_and_bias(source + "ffn.fc1", name + "ffn_up", ff, d)
        yield from weight_and_bias(source + "ffn.ffn_layernorm", name + "ffn_sub_norm", ff)
        yield from weight_and_bias(source + "ffn.fc2", name + "ffn_down", d, ff)
    yield from weight_and_bias("text_model.model.layer_norm", "output_norm", d)
    yield from weight_and_bias("vision_model.embeddings.patch_projection", "v.patch_embd", v, c.patch_values)
    yield "vision_model.embeddings.row_embedder.weight", "v.row_embd.weight", (c.max_patches, v)
    yield "vision_model.embeddings.column_embedder.weight", "v.col_embd.weight", (c.max_patches, v)
    for n in range(c.vision_layers):
        source, name = f"vision_model.encoder.layer.{n}.", f"v.blk.{n}."
        yield source + "pre_attention_layer_norm.weight", name + "ln1.weight", (v,)
        for theirs, ours in (("query", "q"), ("key", "k"), ("value", "v"), ("output", "out")):
            yield f"{source}attention.{theirs}.weight", f"{name}attn_{ours}.weight", (v, v)
        yield source + "pre_mlp_layer_norm.weight", name + "ln2.weight", (v,)
        yield source + "mlp.wi_0.weight", name + "ffn_gate.weight", (c.vision_ff_width, v)
        yield source + "mlp.wi_1.weight", name + "ffn_up.weight", (c.vision_ff_width, v)
        yield source + "mlp.wo.weight", name + "ffn_down.weight", (v, c.vision_ff_width)
    yield "vision_model.layernorm.weight", "v.post_ln.weight", (v,)
    projection = "image_to_text_projection."
    yield projection + "latent_query", "mm.latent_query", (c.latents, d)
    yield from weight_and_bias(projection + "dense", "mm.dense", d, v)
    for part in ("q", "k", "v", "out"):
        yield from weight_and_bias(f"{projection}x_attn.{part}_proj", f"mm.attn_{part}", d, d)


def check(where: str, settings: dict[str, Any], tensors: Iterable[tuple[str, str, tuple[int, ...], int, int]]) -> None:
    """Whether a GGUF file's tensors are those of its keys, which the engine has accepted.

    ModelCorrupt names the first that is missing, misshapen or no part of the model.
    """
    keys = _core.GgufFile(where).metadata()
    own = {name: keys[f"{ARCHITECTURE}.{key}"] for name, key in _STORED.items()}
    vision = {name: keys[f"clip.vision.{key}"] for name, key in _STORED_VISION.items()}
    side = keys["clip.vision.patch_size"]
    check_tensors_of(where, tensor_table(Config(**own, **vision, patch_values=3 * side * side)), tensors)


# fields of Config -> keys
_STORED = {
    "vocab": "vocab_size", "width": "embedding_length", "layers": "block_count", "ff_width": "feed_forward_length",
    "heads": "attention.head_count", "latents": "image_token_count", "max_patches": "vision.max_patches",
}  # fmt: skip
_STORED_VISION = {
    "vision_width": "embedding_length", "vision_layers": "block_count", "vision_ff_width": "feed_forward_length",
    "vision_heads": "attention.head_count",
}  # fmt: skip


# ---- metadata


def read_vocabulary(checkpoint: Checkpoint) -> ByteBpe:
    """cl100k_base with the model's tags, which stay in answers."""
    found = checkpoint.tokenizer.find("tokenizer.json", CL100K)
    if found is not None and found.endswith(".tiktoken"):
        embedding = checkpoint.tensors.get(TIED["text_model.lm_head.weight"])
        rows = 0 if embedding is None else embedding.shape[0]
        vocabulary = read_fairseq_vocabulary(checkpoint.tokenizer, TAGS, rows)
    else:
        vocabulary = read_byte_bpe(checkpoint.tokenizer)
    _check_vocabulary(vocabulary)
    kinds = [
        USER_DEFINED if kind == CONTROL and token in TAGS else kind
        for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
    ]
    return replace(vocabulary, kinds=kinds)


def _check_vocabulary(vocabulary: ByteBpe) -> None:
    """It has the model's tags, and special tokens where text_config has them."""
    lacking = [tag for tag in TAGS if tag not in vocabulary.tokens]
    if lacking:
        raise ModelCorrupt(f"{vocabulary.where}: the vocabulary lacks {', '.join(lacking)}, tags of {NAME}")
    for name, expected in _SPECIAL.items():
        found = getattr(vocabulary, name)
        if found != expected:
            raise ModelCorrupt(f"{vocabulary.where}: {name}_token has the id {found}; expected {expected}")


def metadata(
    checkpoint: Checkpoint, c: Config, vocabulary: ByteBpe, file_type: int, sha256: list[str], converter: str
) -> list[Entry]:
    """Everything but the tensors' checksums: (key, GGUF type, value). sha256: "file name:hex" of every source file."""
    if len(vocabulary.tokens) != c.vocab:
        raise ModelCorrupt(
            f"the vocabulary has {len(vocabulary.tokens)} tokens, "
            f"the embedding of {checkpoint.files[0].path} {c.vocab} rows"
        )
    arch = ARCHITECTURE
    card = read_card(checkpoint.card, CARD, PROMPTS)
    _check_preprocessor(checkpoint.preprocessor, c)
    count = sum(math.prod(shape) for _, _, shape in tensor_table(c))
    generation = generation_entries(
        checkpoint,
        arch,
        max_new_tokens=min(_MAX_NEW_TOKENS, c.context // 2),  # leaves room for the prompt
        no_repeat_ngram_size=0,
        ids={f"{name}_token_id": number for name, number in _SPECIAL.items()},
    )
    # The published generation_config.json has a rule against repeats, which spoils lines and cells that do repeat.
    rule = f"{arch}.generation.no_repeat_ngram_size"
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
        (f"{arch}.first_slot_token_id", "u32", _PLACEHOLDER),
        ("clip.has_vision_encoder", "bool", True),
        ("clip.projector_type", "str", arch),
        ("clip.vision.patch_size", "u32", c.patch_size),
        (f"{arch}.vision.max_patches", "u32", c.max_patches),
        ("clip.vision.embedding_length", "u32", c.vision_width),
        ("clip.vision.feed_forward_length", "u32", c.vision_ff_width),
        ("clip.vision.block_count", "u32", c.vision_layers),
        ("clip.vision.projection_dim", "u32", c.width),
        ("clip.vision.attention.head_count", "u32", c.vision_heads),
        ("clip.vision.attention.layer_norm_epsilon", "f32", c.vision_eps),
        *((key, kind, 0 if key == rule else value) for key, kind, value in generation),
        *((f"{arch}.prompt.{task}", "str", text) for task, text in card["prompt"].items() if text),
        *([(f"{arch}.notice", "str", card["notice"])] if card["notice"] else []),
        *([(f"{arch}.trained_tasks", "str", ", ".join(tasks))] if (tasks := card["trained_tasks"]) else []),
        *vocabulary.entries(),
    ]


def _check_preprocessor(settings: dict[str, Any], c: Config) -> None:
    """What preprocessor_config.json says must be what the engine does."""
    side = {"height": c.patch_size, "width": c.patch_size}
    expect(settings, "patch_size", side, settings.get("patch_size", side) == side)
    expect(settings, "max_patches", c.max_patches, settings.get("max_patches", c.max_patches) == c.max_patches)
    expect(settings, "do_normalize", True, settings.get("do_normalize", True) is True)
