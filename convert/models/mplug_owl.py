"""mPLUG-Owl, the first version: CLIP's tower, the visual abstractor, a LLaMA decoder; the layout of its authors.

The multilingual version (BLOOM) and mPLUG-Owl2 are other models.
"""

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
from ..sources.tensor import SourceTensor, every_third
from ..spm_bpe import SpmBpe, read_spm_bpe
from . import llama, llava
from .clip import Tower, expect, read_pixels, tower_entries, weight_and_bias

NAME, ARCHITECTURE = "mPLUG-Owl", "mplug_owl"
IGNORED = llava.IGNORED
TIED: dict[str, str] = {}  # fit sees to it

PROMPTS = {
    "system": "The following is a conversation between a curious human and AI assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "caption": "\nHuman: {image}\nHuman: Provide a one-sentence caption for the provided image.\nAI: ",
    "caption_detailed": "\nHuman: {image}\nHuman: Describe this image in detail.\nAI: ",
    "question": "\nHuman: {image}\nHuman: {question}\nAI: ",
    "follow_up": "\nHuman: {question}\nAI: ",
}
CARD = {
    "name": "mPLUG-Owl",
    "basename": "mPLUG-Owl",
    "version": "v1",
    "size_label": "",  # counted
    "description": "mPLUG-Owl: captions and answers from pictures; vision, abstractor and decoder in one file",
    "license": "other",  # that of its language model, the first LLaMA
    "languages": ["en"],
    "tags": ["image-to-text"],
    "source_url": "",
    "notice": "",
    "trained_tasks": [],
    "prompt": {},
}
_MAX_NEW_TOKENS = 512
_EPS = 1e-5  # of the abstractor's norms but one, which have no setting


@dataclass(frozen=True)
class Abstractor:
    """Its sizes; it is as wide as the tower. queries: rows of an image but the last. eps: inside of feed-forwards."""

    layers: int
    ff_width: int
    heads: int
    eps: float
    queries: int


@dataclass(frozen=True)
class Config:
    """The sizes of a model."""

    decoder: llama.Decoder
    tower: Tower
    abstractor: Abstractor

    @property
    def layers(self) -> int:
        return self.decoder.layers


def recognises(settings: dict[str, Any]) -> bool:
    """Whether this config.json is mPLUG-Owl's."""
    return settings.get("model_type") == "mplug-owl"


def read_config(settings: dict[str, Any]) -> Config:
    """The sizes in a config.json; what it leaves out has the value of the authors' classes."""
    whole = Section(settings, "")
    text = Section(whole.get("text_config", {}), "text_config")
    text.only("model_type", "llama")
    decoder = llama.read_decoder(text, bool(whole.only("tie_word_embeddings", False, True)))
    tower = _read_tower(Section(whole.get("vision_config", {}), "vision_config"))
    section = Section(whole.get("visual_abstractor_config", {}), "visual_abstractor_config")
    section.only("model_type", "mplug_owl_visual_abstract")
    section.only("add_v2t_pos_emb", False)  # mPLUG-Owl2
    for key in ("hidden_size", "encoder_hidden_size"):  # queries and features stand in one matrix
        if section.whole(key, 1024) != tower.width:
            raise section.bad(key, f"the tower's width, {tower.width}")
    abstractor = Abstractor(
        layers=section.whole("num_hidden_layers", 6, 512),
        ff_width=section.whole("intermediate_size", 4096),
        heads=section.whole("num_attention_heads", 16),
        eps=section.real("layer_norm_eps", 1e-6, 0, 1),
        queries=whole.whole("num_query_tokens", 64, 4096),
    )
    if tower.width % abstractor.heads:
        raise section.bad("num_attention_heads", f"a divisor of hidden_size, {tower.width}")
    return Config(decoder, tower, abstractor)


def _read_tower(vision: Section) -> Tower:
    vision.only("model_type", "mplug_owl_vision_model")
    vision.only("hidden_act", "quick_gelu")
    vision.only("num_channels", 3)
    tower = Tower(
        width=vision.whole("hidden_size", 1024),
        layers=vision.whole("num_hidden_layers", 24, 512),
        ff_width=vision.whole("intermediate_size", 4096),
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


# ---- tensors

_EMBEDDINGS, _BLOCKS = "vision_model.embeddings.", "vision_model.encoder.layers."
_ABSTRACTOR = "abstractor.encoder.layers."


def tensor_table(c: Config) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in the checkpoint, name in the GGUF file, shape outermost first), in the order of the file."""
    yield from llama.decoder_table(c.decoder)
    t, d, ff = c.tower, c.tower.width, c.tower.ff_width
    yield _EMBEDDINGS + "cls_token", "v.class_embd", (d,)
    yield _EMBEDDINGS + "patch_embed.weight", "v.patch_embd.weight", (d, 3, t.patch_size, t.patch_size)
    yield _EMBEDDINGS + "position_embedding", "v.position_embd.weight", (t.patches + 1, d)
    yield from weight_and_bias(_EMBEDDINGS + "pre_layernorm", "v.pre_ln", d)
    for n in range(t.layers):
        block, name = f"{_BLOCKS}{n}.", f"v.blk.{n}."
        yield from weight_and_bias(block + "input_layernorm", name + "ln1", d)
        for part in "qkv":
            yield from weight_and_bias(f"{block}self_attn.{part}", f"{name}attn_{part}", d, d)
        yield from weight_and_bias(block + "self_attn.dense", name + "attn_out", d, d)
        yield from weight_and_bias(block + "post_attention_layernorm", name + "ln2", d)
        yield from weight_and_bias(block + "mlp.fc1", name + "ffn_up", ff, d)
        yield from weight_and_bias(block + "mlp.fc2", name + "ffn_down", d, ff)
    yield from weight_and_bias("vision_model.post_layernorm", "v.post_ln", d)
    a, ff = c.abstractor, c.abstractor.ff_width
    yield "query_tokens", "mm.query", (a.queries, d)
    for n in range(a.layers):
        block, name = f"{_ABSTRACTOR}{n}.crossattention.", f"mm.blk.{n}."
        yield from weight_and_bias(block + "norm1", name + "attn_norm", d)
        yield from weight_and_bias(block + "normk", name + "feature_norm", d)
        for source, part in (("query", "q"), ("key", "k"), ("value", "v")):
            yield from weight_and_bias(f"{block}attention.{source}", f"{name}attn_{part}", d, d)
        yield from weight_and_bias(block + "output.out_proj", name + "attn_output", d, d)
        yield from weight_and_bias(block + "output.norm2", name + "ffn_norm", d)
        yield from weight_and_bias(block + "output.mlp.w1", name + "ffn_gate", ff, d)
        yield from weight_and_bias(block + "output.mlp.w3", name + "ffn_up", ff, d)
        yield from weight_and_bias(block + "output.mlp.ffn_ln", name + "ffn_sub_norm", ff)
        yield from weight_and_bias(block + "output.mlp.w2", name + "ffn_down", d, ff)
    yield from weight_and_bias("abstractor.visual_fc", "mm.0", c.decoder.width, d)
    yield "abstractor.vit_eos", "mm.end", (c.decoder.width,)


_ONES = {  # leading dimensions of one
    _EMBEDDINGS + "cls_token": 2,
    _EMBEDDINGS + "position_embedding": 1,
    "query_tokens": 1,
    "abstractor.vit_eos": 2,
}


def fit(checkpoint: Checkpoint, config: Config, vocabulary: SpmBpe) -> Config:
    """Brings the tensors under the names and shapes of the table: without dimensions of one, rows that only pad the
    vocabulary, and with queries, keys and values of the tower by themselves."""
    tensors: dict[str, SourceTensor] = {}
    for name, tensor in checkpoint.tensors.items():
        ones = _ONES.get(name, 0)
        if ones and tensor.shape[:ones] == (1,) * ones:
            tensor = replace(tensor, shape=tensor.shape[ones:])
        if name.startswith(_BLOCKS) and ".self_attn.query_key_value." in name:
            tensors.update(_parts_of_heads(name, tensor, config.tower))
        else:
            tensors[name] = tensor
    llama.give_own_head(tensors, config.decoder)
    checkpoint.tensors = tensors
    return replace(config, decoder=llama.cut_rows(tensors, config.decoder, len(vocabulary.tokens), vocabulary.where))


def _parts_of_heads(name: str, tensor: SourceTensor, t: Tower) -> dict[str, SourceTensor]:
    """Queries, keys and values of one matrix or bias, in which each head has its own three one after the other."""
    if not tensor.shape or tensor.shape[0] != 3 * t.width:
        return {name: tensor}  # misshapen, and named as it is
    rows = t.width // t.heads
    return {
        name.replace(".query_key_value.", f".{part}."): every_third(tensor, rows, i) for i, part in enumerate("qkv")
    }


def check(where: str, settings: dict[str, Any], tensors: Iterable[tuple[str, str, tuple[int, ...], int, int]]) -> None:
    """Whether a GGUF file's tensors are those of its keys, which the engine has accepted.

    ModelCorrupt names the first that is missing, misshapen or no part of the model.
    """
    keys = _core.GgufFile(where).metadata()
    decoder, tower = llama.decoder_of(keys, ARCHITECTURE), llava.tower_of_file(keys)
    own = {
        key: keys[f"{ARCHITECTURE}.abstractor.{key}"] for key in ("block_count", "feed_forward_length", "query_count")
    }
    abstractor = Abstractor(own["block_count"], own["feed_forward_length"], 1, 1e-6, own["query_count"])
    check_tensors_of(where, tensor_table(Config(decoder, tower, abstractor)), tensors)


# ---- metadata


def read_vocabulary(checkpoint: Checkpoint) -> SpmBpe:
    """LLaMA's vocabulary. The authors' code begins every prompt and encodes the texts around images by themselves,
    whatever the settings say."""
    vocabulary = read_spm_bpe(checkpoint.tokenizer)
    pad = None if vocabulary.pad in (vocabulary.bos, vocabulary.eos, vocabulary.unk) else vocabulary.pad
    return replace(vocabulary, add_bos=True, blanks=replace(vocabulary.blanks, every_segment=True), pad=pad)


def metadata(
    checkpoint: Checkpoint, c: Config, vocabulary: SpmBpe, file_type: int, sha256: list[str], converter: str
) -> list[Entry]:
    """Everything but the tensors' checksums: (key, GGUF type, value). sha256: "file name:hex" of every source file."""
    arch, card, a = ARCHITECTURE, read_card(checkpoint.card, CARD, PROMPTS), c.abstractor
    _check_square(checkpoint.preprocessor, c.tower.image_size)
    pixels = read_pixels(checkpoint.preprocessor)
    count = sum(math.prod(shape) for _, _, shape in tensor_table(c))
    return [
        *general_entries(card, arch, count, file_type),
        (f"{arch}.converter", "str", converter),
        (f"{arch}.source.sha256", "[str]", sha256),
        *llama.decoder_entries(c.decoder, arch),
        *tower_entries(c.tower, arch, c.decoder.width, pixels),
        (f"{arch}.abstractor.feed_forward_length", "u32", a.ff_width),
        (f"{arch}.abstractor.block_count", "u32", a.layers),
        (f"{arch}.abstractor.attention.head_count", "u32", a.heads),
        (f"{arch}.abstractor.attention.layer_norm_epsilon", "f32", _EPS),
        (f"{arch}.abstractor.feed_forward_norm_epsilon", "f32", a.eps),
        (f"{arch}.abstractor.query_count", "u32", a.queries),
        (f"{arch}.image.token_id", "u32", vocabulary.unk),  # the authors' code has ids below zero
        *generation_entries(
            checkpoint,
            arch,
            max_new_tokens=min(_MAX_NEW_TOKENS, c.decoder.context // 2),  # leaves room for the prompt
            no_repeat_ngram_size=0,
            ids={"bos_token_id": vocabulary.bos, "eos_token_id": vocabulary.eos},
        ),
        *llava.told_entries(arch, card),
        *vocabulary.entries(),
    ]


def _check_square(settings: dict[str, Any], size: int) -> None:
    """The authors' code squashes pictures to the tower's size before CLIP's steps, which then change nothing."""
    square = {"height": size, "width": size}
    expect(settings, "size", square, settings.get("size", size) in (size, square, {"shortest_edge": size}))
    expect(settings, "crop_size", square, settings.get("crop_size", size) in (size, square))
