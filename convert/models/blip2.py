"""BLIP-2 with an OPT decoder: EVA-CLIP's tower, a Q-Former, a linear product, OPT. Transformers' layout, of old and new
versions."""

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
from ..settings import Section
from ..sources.checkpoint import Checkpoint
from ..sources.files import brief
from ..sources.tensor import SourceTensor
from ..tokenizer import CONTROL, USER_DEFINED
from .bridge import (
    Qformer,
    check_squash,
    eva_table,
    fit_bridge,
    parts_of,
    qformer_entries,
    qformer_table,
    read_qformer,
    read_tower,
)
from .clip import Tower, read_pixels, tower_entries, weight_and_bias

NAME, ARCHITECTURE = "BLIP-2", "blip2"
IGNORED = (".position_ids",)  # buffers that some versions of transformers stored
_DECODER = "language_model.model.decoder."
_EMBEDDING = _DECODER + "embed_tokens.weight"
TIED = {"language_model.lm_head.weight": _EMBEDDING}
FIRST_POSITION = 2  # rows of the table of positions in front of the first one's

PROMPTS = {
    "caption": "{image}",  # it captions what is given without words
    "caption_detailed": "{image}Question: Describe this image in detail. Answer:",
    "question": "{image}Question: {question} Answer:",
}
CARD = {
    "name": "BLIP-2 OPT",
    "basename": "BLIP-2-OPT",
    "version": "v1",
    "size_label": "",  # counted
    "description": "BLIP-2: captions and answers from pictures; vision, Q-Former and decoder in one file",
    "license": "other",  # MIT, but its language model is OPT, which is not for commercial use
    "languages": ["en"],
    "tags": ["image-to-text"],
    "source_url": "",
    "notice": "",
    "trained_tasks": [],
    "prompt": {},
}
_MAX_NEW_TOKENS = 64
_EPS = 1e-5  # of OPT's norms, which have no setting


@dataclass(frozen=True)
class Config:
    """The sizes of a model. vocab: rows of the embedding; once the vocabulary is known, its number of tokens."""

    vocab: int
    width: int
    layers: int
    ff_width: int
    heads: int
    context: int
    tower: Tower
    qformer: Qformer
    image_id: int | None  # of the image's placeholder; None: the vocabulary has none
    end: Any  # of answers, as config.json says


def recognises(settings: dict[str, Any]) -> bool:
    """Whether this config.json is BLIP-2's."""
    return settings.get("model_type") == "blip-2"


def read_config(settings: dict[str, Any]) -> Config:
    """The sizes in a config.json."""
    whole = Section(settings, "")
    text = Section(whole.get("text_config", {}), "text_config")
    text.only("model_type", "opt")
    text.only("activation_function", "relu")
    for key in ("do_layer_norm_before", "enable_bias", "layer_norm_elementwise_affine"):
        text.only(key, True)
    text.only("_remove_final_layer_norm", False)
    for section in (whole, text):
        section.only("tie_word_embeddings", True, *([False] if section is whole else []))
    width, heads = text.whole("hidden_size", 768), text.whole("num_attention_heads", 12)
    if text.whole("word_embed_proj_dim", width) != width:
        raise text.bad("word_embed_proj_dim", f"hidden_size, {width}")
    if width % heads:
        raise text.bad("hidden_size", f"a multiple of {heads} heads")
    image_id = whole.get("image_token_index", whole.get("image_token_id", None))
    if image_id is not None and (type(image_id) is not int or image_id < 0):
        raise whole.bad("image_token_index", "a token id")
    tower = read_tower(Section(whole.get("vision_config", {}), "vision_config"), "blip_2_vision_model")
    Section(whole.get("qformer_config", {}), "qformer_config").only("use_qformer_text_input", False)
    return Config(
        vocab=text.whole("vocab_size", 50272),
        width=width,
        layers=text.whole("num_hidden_layers", 12, 1000),
        ff_width=text.whole("ffn_dim", 3072),
        heads=heads,
        context=text.whole("max_position_embeddings", 2048),
        tower=tower,
        qformer=read_qformer(whole, "blip_2_qformer", tower),
        image_id=image_id,
        end=text.get("eos_token_id", 2),
    )


# ---- tensors


def tensor_table(c: Config) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in the checkpoint, name in the GGUF file, shape outermost first), in the order of the file."""
    d = c.width
    yield _EMBEDDING, "token_embd.weight", (c.vocab, d)
    yield _DECODER + "embed_positions.weight", "position_embd.weight", (FIRST_POSITION + c.context, d)
    for n in range(c.layers):
        source, name = f"{_DECODER}layers.{n}.", f"blk.{n}."
        yield from weight_and_bias(source + "self_attn_layer_norm", name + "attn_norm", d)
        for part in "qkv":
            yield from weight_and_bias(f"{source}self_attn.{part}_proj", f"{name}attn_{part}", d, d)
        yield from weight_and_bias(source + "self_attn.out_proj", name + "attn_output", d, d)
        yield from weight_and_bias(source + "final_layer_norm", name + "ffn_norm", d)
        yield from weight_and_bias(source + "fc1", name + "ffn_up", c.ff_width, d)
        yield from weight_and_bias(source + "fc2", name + "ffn_down", d, c.ff_width)
    yield from weight_and_bias(_DECODER + "final_layer_norm", "output_norm", d)
    yield from eva_table(c.tower, "vision_model.")
    yield from qformer_table(c.qformer, c.tower.width, d)


_PREFIXES = (  # of transformers 5 in memory -> as published; the first that fits
    ("model.language_model.", "language_model.model."),
    ("model.", ""),
    ("lm_head.", "language_model.lm_head."),
)


def fit(checkpoint: Checkpoint, config: Config, vocabulary: ByteBpe) -> Config:
    """Brings the tensors under the table's names, without rows of the embedding that only pad it."""
    tensors = fit_bridge(_renamed(checkpoint.tensors), "vision_model.")
    tokens = len(vocabulary.tokens)
    if tokens > config.vocab:
        raise ModelCorrupt(f"{vocabulary.where}: {tokens} tokens, the embedding has {config.vocab} rows")
    for name in (_EMBEDDING, *TIED):
        if name in tensors and tensors[name].shape == (config.vocab, config.width):
            tensors[name] = replace(tensors[name], shape=(tokens, config.width))
    checkpoint.tensors = tensors
    return replace(config, vocab=tokens)


def _renamed(tensors: dict[str, SourceTensor]) -> dict[str, SourceTensor]:
    result: dict[str, SourceTensor] = {}
    for name, tensor in tensors.items():
        old, new = next(((old, new) for old, new in _PREFIXES if name.startswith(old)), ("", ""))
        known = new + name[len(old) :]
        if known in result:
            raise ModelCorrupt(f"{tensor.file.path}: {name} and {result[known].name} are the same tensor, {known}")
        result[known] = tensor
    return result


def check(where: str, settings: dict[str, Any], tensors: Iterable[tuple[str, str, tuple[int, ...], int, int]]) -> None:
    """Whether a GGUF file's tensors are those of its keys, which the engine has accepted.

    ModelCorrupt names the first that is missing, misshapen or no part of the model.
    """
    keys = _core.GgufFile(where).metadata()

    def own(key: str) -> Any:
        return keys[f"{ARCHITECTURE}.{key}"]

    tower, qformer = parts_of(keys, ARCHITECTURE)
    c = Config(
        vocab=own("vocab_size"), width=own("embedding_length"), layers=own("block_count"),
        ff_width=own("feed_forward_length"), heads=1, context=own("context_length"), tower=tower, qformer=qformer,
        image_id=None, end=None,
    )  # fmt: skip
    check_tensors_of(where, tensor_table(c), tensors)


# ---- metadata


def read_vocabulary(checkpoint: Checkpoint) -> ByteBpe:
    """OPT's vocabulary, in which begin and end are one token, with the tokens that are added to it."""
    vocabulary = read_byte_bpe(checkpoint.tokenizer)
    if vocabulary.pad in (vocabulary.bos, vocabulary.eos):  # it needs a token of its own, or none
        return replace(vocabulary, pad=None)
    return vocabulary


def metadata(
    checkpoint: Checkpoint, c: Config, vocabulary: ByteBpe, file_type: int, sha256: list[str], converter: str
) -> list[Entry]:
    """Everything but the tensors' checksums: (key, GGUF type, value). sha256: "file name:hex" of every source file."""
    arch = ARCHITECTURE
    card = read_card(checkpoint.card, CARD, PROMPTS)
    pixels = read_pixels(checkpoint.preprocessor)
    check_squash(checkpoint.preprocessor, c.tower.image_size)
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
        (f"{arch}.attention.layer_norm_epsilon", "f32", _EPS),
        (f"{arch}.vocab_size", "u32", c.vocab),
        *qformer_entries(c.qformer, arch),
        *tower_entries(c.tower, arch, c.width, pixels, gelu=True),
        (f"{arch}.image.token_id", "u32", _image_id(c, vocabulary)),
        *generation_entries(
            checkpoint,
            arch,
            max_new_tokens=min(_MAX_NEW_TOKENS, c.context // 2),  # leaves room for the prompt
            no_repeat_ngram_size=0,
            ids={"bos_token_id": vocabulary.bos},
        ),
        (f"{arch}.generation.end_token_id", "u32", _end(checkpoint, c)),
        *((f"{arch}.prompt.{task}", "str", text) for task, text in card["prompt"].items()),
        *([(f"{arch}.notice", "str", card["notice"])] if card["notice"] else []),
        *([(f"{arch}.trained_tasks", "str", ", ".join(tasks))] if (tasks := card["trained_tasks"]) else []),
        *vocabulary.entries(),
    ]


def _image_id(c: Config, vocabulary: ByteBpe) -> int:
    """The placeholder of an image's rows; old vocabularies have none, so it is the padding there."""
    if c.image_id is None:
        if vocabulary.pad is None:
            raise ModelCorrupt(f"{vocabulary.where}: no pad_token, and config.json names no image_token_index")
        return vocabulary.pad
    if c.image_id >= c.vocab or vocabulary.kinds[c.image_id] not in (CONTROL, USER_DEFINED):
        raise ModelCorrupt(f"config.json: image_token_index is {c.image_id}, which is no added token of the vocabulary")
    return c.image_id


def _end(checkpoint: Checkpoint, c: Config) -> int:
    """The token that ends an answer: a line feed in the published models."""
    value = checkpoint.generation.get("eos_token_id", c.end)
    if type(value) is not int or not 0 <= value < c.vocab:
        raise ModelCorrupt(f"generation_config.json: eos_token_id is {brief(value)}, expected one of {c.vocab} ids")
    return value
