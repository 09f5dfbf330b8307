"""LLaVA with SigLIP's tower and a Qwen2 decoder (llava-interleave-qwen), in the layout of transformers'
LlavaForConditionalGeneration. Its prompts are ChatML."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt

from ..byte_bpe import ByteBpe, read_byte_bpe
from ..card import general_entries, read_card
from ..generation import generation_entries
from ..gguf import Entry
from ..mapping import check_tensors_of, equal_tensors
from ..settings import Section
from ..sources.checkpoint import Checkpoint
from ..tokenizer import CONTROL, USER_DEFINED
from . import llama, llava
from .clip import expect, read_pixels, tower_entries
from .llama import EMBEDDING, HEAD
from .llava import TOWER, Config
from .siglip import PIXELS, read_siglip, siglip_table

NAME, ARCHITECTURE = "LLaVA with Qwen2", "llava_qwen2"
IGNORED = llava.IGNORED
TIED: dict[str, str] = {}  # fit sees to it

_USER, _ANSWER = "<|im_start|>user ", "<|im_end|><|im_start|>assistant\n"
PROMPTS = {
    "caption": _USER + "{image}\nProvide a one-sentence caption for the provided image." + _ANSWER,
    "caption_detailed": _USER + "{image}\nDescribe this image in detail." + _ANSWER,
    "question": _USER + "{image}\n{question}" + _ANSWER,
}
CARD = llava.CARD | {
    "name": "LLaVA interleave Qwen",
    "basename": "LLaVA-Interleave-Qwen",
    "version": "v1.0",
    "description": "LLaVA with SigLIP and Qwen2: answers about one or several pictures; all parts in one file",
}
_MAX_NEW_TOKENS = 512
_TAG = re.compile(r"<[^<>\s{}]+>")


def recognises(settings: dict[str, Any]) -> bool:
    """Whether this config.json is this model's."""
    text = settings.get("text_config")
    is_qwen2 = isinstance(text, dict) and text.get("model_type") == "qwen2"
    return settings.get("model_type") == ARCHITECTURE or (settings.get("model_type") == "llava" and is_qwen2)


def read_config(settings: dict[str, Any]) -> Config:
    """The sizes in a config.json."""
    whole = Section(settings, "")
    text = Section(settings.get("text_config"), "text_config")
    text.only("model_type", "qwen2")
    text.only("use_sliding_window", False)
    whole.only("projector_hidden_act", "gelu")
    whole.only("multimodal_projector_bias", True)
    if settings.get("vision_feature_select_strategy") != "full":  # there is no class token to be left out
        raise whole.bad("vision_feature_select_strategy", "'full'")
    tower = read_siglip(Section(settings.get("vision_config"), "vision_config"))
    layers = llava.read_feature_layers(whole, "vision_feature_layer", tower)
    decoder = llama.read_decoder(text, bool(whole.only("tie_word_embeddings", False, True)))
    return Config(
        **vars(replace(decoder, qkv_bias=True, own_head=not decoder.tied)),
        tower=tower,
        feature_layer=max(layers),
        feature_layers=layers if len(layers) > 1 else (),
        projector="mlp2x_gelu",
        aspect=None,
        image_id=llava.read_image_id(whole),
    )


def tensor_table(c: Config) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in the checkpoint, name in the GGUF file, shape outermost first), in the order of the file."""
    yield from llama.decoder_table(c)
    yield from siglip_table(c.vision, TOWER, c.blocks)
    yield from llava.projector_table(c)


def fit(checkpoint: Checkpoint, config: Config, vocabulary: ByteBpe) -> Config:
    """Brings the tensors of any version's layout under the table's names, without those that nothing computes with: the
    tower's blocks behind the feature layer, its last norm and its head, and rows that only pad the vocabulary."""
    tensors = llava.published_names(checkpoint.tensors)
    head = tensors.pop(HEAD, None) if config.tied and EMBEDDING in tensors else None
    if head is not None and not equal_tensors(head, tensors[EMBEDDING]):
        raise ModelCorrupt(f"{head.file.path}: {head.name} differs from the embedding; config.json says tied")
    checkpoint.tensors = tensors = llava.without_unused(tensors, config)
    return llama.cut_rows(tensors, config, len(vocabulary.tokens), vocabulary.where)


def check(where: str, settings: dict[str, Any], tensors: Iterable[tuple[str, str, tuple[int, ...], int, int]]) -> None:
    """Whether a GGUF file's tensors are those of its keys, which the engine has accepted.

    ModelCorrupt names the first that is missing, misshapen or no part of the model.
    """
    tied = _core.GgufFile(where).metadata()[f"{ARCHITECTURE}.output.tied"]
    c = replace(llava.config_of_file(where, ARCHITECTURE), qkv_bias=True, own_head=not tied)
    check_tensors_of(where, tensor_table(c), tensors)


def read_vocabulary(checkpoint: Checkpoint) -> ByteBpe:
    """Qwen2's vocabulary. The tokens that formats of prompts spell (ChatML's) become tags, which formats may hold."""
    vocabulary = read_byte_bpe(checkpoint.tokenizer)
    if vocabulary.add_bos:
        raise ModelCorrupt(f"{vocabulary.where}: add_bos_token is true; no prompt of {NAME} begins with one")
    formats = read_card(checkpoint.card, CARD, PROMPTS)["prompt"].values()
    spelled = {tag for text in formats for tag in _TAG.findall(text)}
    kinds = [
        USER_DEFINED if kind == CONTROL and token in spelled else kind
        for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
    ]
    pad = None if vocabulary.pad == vocabulary.eos else vocabulary.pad  # it needs a token of its own, or none
    return replace(vocabulary, kinds=kinds, pad=pad)


def metadata(
    checkpoint: Checkpoint, c: Config, vocabulary: ByteBpe, file_type: int, sha256: list[str], converter: str
) -> list[Entry]:
    """Everything but the tensors' checksums: (key, GGUF type, value). sha256: "file name:hex" of every source file."""
    arch, card = ARCHITECTURE, read_card(checkpoint.card, CARD, PROMPTS)
    _check_square(checkpoint.preprocessor, c)
    pixels = read_pixels(checkpoint.preprocessor, PIXELS)
    count = sum(math.prod(shape) for _, _, shape in tensor_table(c))
    assert c.image_id is not None
    return [
        *general_entries(card, arch, count, file_type),
        (f"{arch}.converter", "str", converter),
        (f"{arch}.source.sha256", "[str]", sha256),
        *llama.decoder_entries(c, arch),
        (f"{arch}.output.tied", "bool", not c.own_head),
        *tower_entries(c.vision, arch, c.width, pixels, gelu=True),
        *llava.layer_entries(c, arch),
        (f"{arch}.image.aspect", "str", "squash"),
        (f"{arch}.image.token_id", "u32", llava.check_image_id(c, c.image_id, vocabulary.kinds)),
        (f"{arch}.projector", "str", c.projector),
        *generation_entries(
            checkpoint,
            arch,
            max_new_tokens=min(_MAX_NEW_TOKENS, c.context // 2),  # leaves room for the prompt
            no_repeat_ngram_size=0,
            ids={"eos_token_id": vocabulary.eos},
        ),
        *llava.told_entries(arch, card),
        *(entry for entry in vocabulary.entries() if entry[0] != "tokenizer.ggml.bos_token_id"),  # nothing begins
    ]


def _check_square(settings: dict[str, Any], c: Config) -> None:
    """Pictures are resized to a square, whatever their shape."""
    size, square = c.vision.image_size, {"height": c.vision.image_size, "width": c.vision.image_size}
    expect(settings, "size", square, settings.get("size", size) in (size, square))
    for key in ("do_center_crop", "do_pad"):
        expect(settings, key, False, settings.get(key, False) is False)
