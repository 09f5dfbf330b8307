"""IDEFICS, the first one: CLIP's tower with the exact GELU, a perceiver, LLaMA with gated cross-attention in front of
every n-th block. Transformers' layout, which keeps the rows of added tokens in matrices of their own."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt

from ..card import general_entries, read_card
from ..generation import generation_entries
from ..gguf import Entry
from ..mapping import check_tensors_of
from ..settings import Section
from ..sources.checkpoint import Checkpoint
from ..sources.tensor import SourceTensor, stacked
from ..spm_bpe import SpmBpe, read_spm_bpe
from ..tokenizer import CONTROL, USER_DEFINED
from .clip import Tower, expect, read_pixels, tower_entries, tower_table
from .flamingo import Names, Perceiver, perceiver_entries, perceiver_of, perceiver_table

NAME, ARCHITECTURE = "IDEFICS", "idefics"
IGNORED = (".position_ids", ".rotary_emb.inv_freq")  # buffers that some versions of transformers stored
TIED: dict[str, str] = {}
MARK, IMAGE, TURN_END = "<fake_token_around_image>", "<image>", "<end_of_utterance>"

PROMPTS = {  # of the base model, as transformers' documentation has them
    "caption": "{image}",
    "caption_detailed": "User:{image}Describe this image in detail.\nAssistant:",
    "question": "{image}Question: {question} Answer:",
}
_CHAT = {  # of the instructed one
    "caption": f"User:{{image}}Describe this image.{TURN_END}\nAssistant:",
    "caption_detailed": f"User:{{image}}Describe this image in detail.{TURN_END}\nAssistant:",
    "question": f"User:{{image}}{{question}}{TURN_END}\nAssistant:",
}
CARD = {
    "name": "IDEFICS",
    "basename": "IDEFICS",
    "version": "v1",
    "size_label": "",  # counted
    "description": "IDEFICS: text about several pictures; vision, perceiver and decoder in one file",
    "license": "other",  # LLaMA's, which is not for commercial use
    "languages": ["en"],
    "tags": ["image-to-text"],
    "source_url": "",
    "notice": "",
    "trained_tasks": [],
    "prompt": {},
}
_MAX_NEW_TOKENS = 128


@dataclass(frozen=True)
class Config:
    """The sizes of a model. vocab: rows of the embedding without those of added tokens, added: of these; once the
    vocabulary is known, its number of tokens, and 0."""

    vocab: int
    added: int
    width: int
    layers: int
    ff_width: int
    heads: int
    context: int
    eps: float
    rope_base: float
    every: int  # blocks 0, every, ... look at images
    head_norms: bool
    tower: Tower
    perceiver: Perceiver
    perceiver_head_norms: bool


def recognises(settings: dict[str, Any]) -> bool:
    """Whether this config.json is that of IDEFICS."""
    return settings.get("model_type") == "idefics"


def read_config(settings: dict[str, Any]) -> Config:
    """The sizes in a config.json."""
    whole = Section(settings, "")
    whole.only("hidden_act", "silu")
    whole.only("alpha_type", "float")
    whole.only("tie_word_embeddings", False)
    if whole.only("use_resampler", False, True) is not True:
        raise whole.bad("use_resampler", "true: images without a perceiver are not supported")
    width, heads = whole.whole("hidden_size", 4096), whole.whole("num_attention_heads", 32)
    if width % heads:
        raise whole.bad("hidden_size", f"a multiple of {heads} heads")
    added = whole.get("additional_vocab_size", 0)
    if type(added) is not int or not 0 <= added <= 1 << 20:
        raise whole.bad("additional_vocab_size", f"0..{1 << 20}")
    tower = _read_tower(Section(whole.get("vision_config", {}), "vision_config"))
    reader = Section(whole.get("perceiver_config", {}), "perceiver_config")
    layers, every = whole.whole("num_hidden_layers", 32, 1000), whole.whole("cross_layer_interval", 1, 512)
    if layers % every:
        raise whole.bad("num_hidden_layers", f"a multiple of cross_layer_interval, {every}")
    rope = Section(whole.get("rope_parameters", {}), "rope_parameters")
    rope.only("rope_type", "default")
    if whole.get("rope_scaling", None) is not None:
        raise whole.bad("rope_scaling", "none")
    return Config(
        vocab=whole.whole("vocab_size", 32000),
        added=added,
        width=width,
        layers=layers,
        ff_width=whole.whole("intermediate_size", 11008),
        heads=heads,
        context=whole.whole("max_position_embeddings", 2048),
        eps=whole.real("rms_norm_eps", 1e-6, 0, 1),
        rope_base=rope.real("rope_theta", 10000.0, 1, 1e9),
        every=every,
        head_norms=bool(whole.only("qk_layer_norms", False, True)),
        tower=tower,
        perceiver=Perceiver(
            layers=reader.whole("resampler_depth", 6, 512),
            heads=reader.whole("resampler_n_heads", 16, 1024),
            head_dim=reader.whole("resampler_head_dim", 96, 256),
            ff_width=4 * tower.width,
            latents=reader.whole("resampler_n_latents", 64, 4096),
        ),
        perceiver_head_norms=bool(reader.only("qk_layer_norms_perceiver", False, True)),
    )


def _read_tower(vision: Section) -> Tower:
    """The sizes of the tower."""
    vision.only("hidden_act", "gelu")
    vision.only("num_channels", 3)
    tower = Tower(
        width=vision.whole("embed_dim", vision.whole("hidden_size", 768)),
        layers=vision.whole("num_hidden_layers", 32, 1000),
        ff_width=vision.whole("intermediate_size", 5120),
        heads=vision.whole("num_attention_heads", 16),
        eps=vision.real("layer_norm_eps", 1e-5, 0, 1),
        image_size=vision.whole("image_size", 224),
        patch_size=vision.whole("patch_size", 14),
    )
    if tower.width % tower.heads or tower.image_size % tower.patch_size:
        raise ModelCorrupt(
            f"config.json: {vision.name}embed_dim {tower.width} is no multiple of {tower.heads} heads, "
            f"or image_size {tower.image_size} none of patch_size {tower.patch_size}"
        )
    return tower


# ---- tensors

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_ADDED = {_EMBEDDING: "model.embed_tokens.additional_embedding.weight", _HEAD: "lm_head.additional_fc.weight"}
_BLOCK = "model.perceiver_resampler.blocks.{}."
_PARTS = {
    "attn_norm": "0.latents_layer_norm",
    "context_norm": "0.context_layer_norm",
    "attn_q": "0.q_proj",
    "attn_k": "0.k_proj",
    "attn_v": "0.v_proj",
    "attn_q_norm": "0.q_layer_norm",
    "attn_k_norm": "0.k_layer_norm",
    "attn_output": "0.output_proj",
    "ffn_norm": "1.ln",
    "ffn_up": "1.fc",
    "ffn_down": "1.c_proj",
}


def tensor_table(c: Config) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in the checkpoint, name in the GGUF file, shape outermost first), in the order of the file."""
    d, tokens = c.width, c.vocab + c.added
    yield _EMBEDDING, "token_embd.weight", (tokens, d)
    for n in range(c.layers):
        if n % c.every == 0:
            cross, name = f"model.gated_cross_attn_layers.{n // c.every}.", f"blk.{n}.cross."
            yield from _block(c, cross, "cross_attn.", name, c.tower.width)
            if c.head_norms:
                for part in "qk":
                    source = f"{cross}cross_attn.{part}_layer_norm.weight"
                    yield source, f"{name}attn_{part}_norm.weight", (d // c.heads,)
            yield cross + "alpha_cross_attn", name + "attn_alpha", (1,)
            yield cross + "alpha_dense", name + "ffn_alpha", (1,)
        yield from _block(c, f"model.layers.{n}.", "self_attn.", f"blk.{n}.", d)
    yield "model.norm.weight", "output_norm.weight", (d,)
    yield _HEAD, "output.weight", (tokens, d)
    yield from tower_table(c.tower, "model.vision_model.", c.tower.layers, post_norm=False)
    skipped = () if c.perceiver_head_norms else ("attn_q_norm", "attn_k_norm")
    parts = {part: _BLOCK + source for part, source in _PARTS.items() if part not in skipped}
    names = Names("model.perceiver_resampler.latents", parts, "model.perceiver_resampler.layer_norm")
    yield from perceiver_table(c.perceiver, c.tower.width, names)


def _block(c: Config, source: str, attention: str, name: str, keys: int) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """The matrices and norms of LLaMA's block; keys: width of what keys and values are made of."""
    d, ff = c.width, c.ff_width
    yield source + "input_layernorm.weight", name + "attn_norm.weight", (d,)
    for part, inner in (("q", d), ("k", keys), ("v", keys)):
        yield f"{source}{attention}{part}_proj.weight", f"{name}attn_{part}.weight", (d, inner)
    yield f"{source}{attention}o_proj.weight", name + "attn_output.weight", (d, d)
    yield source + "post_attention_layernorm.weight", name + "ffn_norm.weight", (d,)
    yield source + "mlp.gate_proj.weight", name + "ffn_gate.weight", (ff, d)
    yield source + "mlp.up_proj.weight", name + "ffn_up.weight", (ff, d)
    yield source + "mlp.down_proj.weight", name + "ffn_down.weight", (d, ff)


def fit(checkpoint: Checkpoint, config: Config, vocabulary: SpmBpe) -> Config:
    """Puts the rows of added tokens behind the others, without those that have no token, and leaves out the tower's
    last norm, which nothing reads."""
    unused = "model.vision_model.post_layernorm."
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith(unused)}
    tokens = len(vocabulary.tokens)
    if tokens > config.vocab + config.added:
        raise ModelCorrupt(f"{vocabulary.where}: {tokens} tokens, the embedding has {config.vocab + config.added} rows")
    first = min(tokens, config.vocab)
    for name, added in _ADDED.items():
        more = tensors.pop(added, None)
        if name not in tensors or (more is None and config.added):
            continue  # named as missing by its table
        tensors[name] = _joined(tensors[name], (config.vocab, first), more, (config.added, tokens - first), config)
    checkpoint.tensors = tensors
    return replace(config, vocab=tokens, added=0)


def _joined(
    first: SourceTensor, rows: tuple[int, int], more: SourceTensor | None, added: tuple[int, int], c: Config
) -> SourceTensor:
    """The first rows of both matrices, one behind the other; each has so many, of which so many are used."""
    parts = []
    for tensor, (there, used) in ((first, rows), (more, added)):
        if tensor is None:
            continue
        if tensor.shape != (there, c.width):
            raise ModelCorrupt(
                f"{tensor.file.path}: {tensor.name} has the shape {tensor.shape}, expected {(there, c.width)}"
            )
        if used:
            parts.append(replace(tensor, shape=(used, c.width)))
    return stacked(parts)


def check(where: str, settings: dict[str, Any], tensors: Iterable[tuple[str, str, tuple[int, ...], int, int]]) -> None:
    """Whether a GGUF file's tensors are those of its keys, which the engine has accepted.

    ModelCorrupt names the first that is missing, misshapen or no part of the model.
    """
    keys = _core.GgufFile(where).metadata()

    def own(key: str) -> Any:
        return keys[f"{ARCHITECTURE}.{key}"]

    vision = {key: keys[f"clip.vision.{key}"] for key in ("embedding_length", "block_count", "feed_forward_length")}
    tower = Tower(
        vision["embedding_length"], vision["block_count"], vision["feed_forward_length"], 1, 1e-5,
        keys["clip.vision.image_size"], keys["clip.vision.patch_size"],
    )  # fmt: skip
    c = Config(
        vocab=own("vocab_size"), added=0, width=own("embedding_length"), layers=own("block_count"),
        ff_width=own("feed_forward_length"), heads=own("attention.head_count"), context=0, eps=0, rope_base=0,
        every=own("cross_attention.every"), head_norms=own("cross_attention.head_norms"), tower=tower,
        perceiver=perceiver_of(keys, ARCHITECTURE), perceiver_head_norms=own("perceiver.attention.head_norms"),
    )  # fmt: skip
    check_tensors_of(where, tensor_table(c), tensors)


# ---- metadata


def read_vocabulary(checkpoint: Checkpoint) -> SpmBpe:
    """LLaMA's vocabulary with the tokens that are added to it, which are tags: formats of prompts hold them."""
    vocabulary = read_spm_bpe(checkpoint.tokenizer, llama_class=True)
    for text in (MARK, IMAGE):
        if text not in vocabulary.tokens:
            raise ModelCorrupt(f"{vocabulary.where}: there is no token {text}")
    kinds = list(vocabulary.kinds)
    for text in (MARK, IMAGE, TURN_END):
        if text in vocabulary.tokens:
            number = vocabulary.tokens.index(text)
            if kinds[number] not in (CONTROL, USER_DEFINED):
                raise ModelCorrupt(f"{vocabulary.where}: {text} is an ordinary piece, expected an added token")
            kinds[number] = USER_DEFINED
    pad = vocabulary.pad
    if pad in (vocabulary.bos, vocabulary.eos, vocabulary.unk):  # it needs a token of its own, or none
        pad = None
    # Every text of the processor begins with <s>, whatever add_bos_token says.
    return replace(vocabulary, kinds=kinds, pad=pad, add_bos=True)


def metadata(
    checkpoint: Checkpoint, c: Config, vocabulary: SpmBpe, file_type: int, sha256: list[str], converter: str
) -> list[Entry]:
    """Everything but the tensors' checksums: (key, GGUF type, value). sha256: "file name:hex" of every source file."""
    arch = ARCHITECTURE
    instructed = TURN_END in vocabulary.tokens
    card = read_card(checkpoint.card, CARD, _CHAT if instructed else PROMPTS)
    pixels = read_pixels(checkpoint.preprocessor)
    _check_squash(checkpoint.preprocessor, c.tower.image_size)
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
        (f"{arch}.attention.head_count_kv", "u32", c.heads),
        (f"{arch}.attention.key_length", "u32", c.width // c.heads),
        (f"{arch}.attention.layer_norm_rms_epsilon", "f32", c.eps),
        (f"{arch}.rope.freq_base", "f32", c.rope_base),
        (f"{arch}.vocab_size", "u32", c.vocab),
        (f"{arch}.cross_attention.every", "u32", c.every),
        (f"{arch}.cross_attention.head_norms", "bool", c.head_norms),
        *perceiver_entries(c.perceiver, arch),
        (f"{arch}.perceiver.attention.head_norms", "bool", c.perceiver_head_norms),
        *tower_entries(c.tower, arch, c.tower.width, pixels, gelu=True),
        (f"{arch}.image.token_id", "u32", vocabulary.tokens.index(IMAGE)),
        (f"{arch}.image.mark_token_id", "u32", vocabulary.tokens.index(MARK)),
        *generation_entries(
            checkpoint,
            arch,
            max_new_tokens=min(_MAX_NEW_TOKENS, c.context // 2),  # leaves room for the prompt
            no_repeat_ngram_size=0,
            ids={"bos_token_id": vocabulary.bos},
        ),
        (f"{arch}.generation.end_token_id", "u32", vocabulary.tokens.index(TURN_END) if instructed else vocabulary.eos),
        *((f"{arch}.prompt.{task}", "str", text) for task, text in card["prompt"].items()),
        *([(f"{arch}.notice", "str", card["notice"])] if card["notice"] else []),
        *([(f"{arch}.trained_tasks", "str", ", ".join(tasks))] if (tasks := card["trained_tasks"]) else []),
        *vocabulary.entries(),
    ]


def _check_squash(settings: dict[str, Any], size: int) -> None:
    """preprocessor_config.json must squash pictures to a square of the tower's size, as the class always does."""
    square = {"height": size, "width": size}
    expect(settings, "image_size", size, settings.get("image_size", size) == size)
    expect(settings, "size", square, settings.get("size", size) in (size, square))
    expect(settings, "image_num_channels", 3, settings.get("image_num_channels", 3) == 3)
    expect(settings, "do_center_crop", "false", settings.get("do_center_crop") in (None, False))
