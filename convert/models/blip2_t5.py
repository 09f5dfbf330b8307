"""BLIP-2 with a Flan-T5: EVA-CLIP's tower, a Q-Former, a linear product, T5's encoder and decoder. Transformers'
layout."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt

from ..card import general_entries, read_card
from ..generation import generation_entries
from ..gguf import Entry
from ..mapping import check_tensors_of
from ..settings import Section
from ..sources.checkpoint import Checkpoint
from ..tokenizer import CONTROL, UNKNOWN, USER_DEFINED
from ..unigram import UnigramVocabulary, read_t5_vocabulary
from . import t5
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
from .clip import Tower, read_pixels, tower_entries

NAME, ARCHITECTURE = "BLIP-2 with Flan-T5", "blip2_t5"
IGNORED = (".position_ids",)  # buffers that some versions of transformers stored
TIED = t5.TIED

PROMPTS = {
    "caption": "{image}",  # it captions what is given without words
    "caption_detailed": "{image}Question: Describe this image in detail. Answer:",
    "question": "{image}Question: {question} Answer:",
}
CARD = {
    "name": "BLIP-2 Flan-T5",
    "basename": "BLIP-2-Flan-T5",
    "version": "v1",
    "size_label": "",  # counted
    "description": "BLIP-2: captions and answers from pictures; vision, Q-Former and T5 in one file",
    "license": "mit",
    "languages": ["en"],
    "tags": ["image-to-text"],
    "source_url": "",
    "notice": "",
    "trained_tasks": [],
    "prompt": {},
}
_MAX_NEW_TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class Config(t5.Stacks):
    """The sizes of a model."""

    tower: Tower
    qformer: Qformer
    image_id: int | None  # of the image's placeholder; None: the vocabulary has none


def recognises(settings: dict[str, Any]) -> bool:
    """Whether this config.json is BLIP-2's with a T5."""
    kind = settings.get("model_type")
    return kind == ARCHITECTURE or (kind == "blip-2" and has_t5(settings))


def has_t5(settings: dict[str, Any]) -> bool:
    """Whether the language model of a config.json is a T5."""
    text = settings.get("text_config")
    return isinstance(text, dict) and text.get("model_type") == "t5"


def read_config(settings: dict[str, Any]) -> Config:
    """The sizes in a config.json."""
    whole = Section(settings, "")
    stacks = t5.read_stacks(Section(whole.get("text_config", {}), "text_config"))
    tower = read_tower(Section(whole.get("vision_config", {}), "vision_config"), "blip_2_vision_model")
    Section(whole.get("qformer_config", {}), "qformer_config").only("use_qformer_text_input", False)
    qformer = read_qformer(whole, "blip_2_qformer", tower)
    return Config(**vars(stacks), tower=tower, qformer=qformer, image_id=read_image_id(whole))


def read_image_id(whole: Section) -> int | None:
    """The image's placeholder; None: a config.json that is older than it."""
    image_id = whole.get("image_token_index", whole.get("image_token_id", None))
    if image_id is not None and (type(image_id) is not int or image_id < 0):
        raise whole.bad("image_token_index", "a token id")
    return image_id


# ---- tensors


def tensor_table(c: Config) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in the checkpoint, name in the GGUF file, shape outermost first), in the order of the file."""
    yield from t5.stacks_table(c)
    yield from eva_table(c.tower, "vision_model.")
    yield from qformer_table(c.qformer, c.tower.width, c.width)


def fit(checkpoint: Checkpoint, config: Config, vocabulary: UnigramVocabulary) -> Config:
    """Brings the tensors under the table's names, without rows that only pad the vocabulary."""
    tensors = fit_bridge(checkpoint.tensors, "vision_model.")
    config = t5.fit_stacks(tensors, config, vocabulary)
    checkpoint.tensors = tensors
    return config


def check(where: str, settings: dict[str, Any], tensors: Iterable[tuple[str, str, tuple[int, ...], int, int]]) -> None:
    """Whether a GGUF file's tensors are those of its keys, which the engine has accepted.

    ModelCorrupt names the first that is missing, misshapen or no part of the model.
    """
    keys = _core.GgufFile(where).metadata()
    tower, qformer = parts_of(keys, ARCHITECTURE)
    c = Config(**vars(t5.stacks_of(keys, ARCHITECTURE)), tower=tower, qformer=qformer, image_id=None)
    check_tensors_of(where, tensor_table(c), tensors)


# ---- metadata


def read_vocabulary(checkpoint: Checkpoint) -> UnigramVocabulary:
    """T5's vocabulary, with the tokens that are added to it."""
    return read_t5_vocabulary(checkpoint.tokenizer)


def metadata(
    checkpoint: Checkpoint, c: Config, vocabulary: UnigramVocabulary, file_type: int, sha256: list[str], converter: str
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
        *t5.stacks_entries(c, arch),
        *qformer_entries(c.qformer, arch),
        *tower_entries(c.tower, arch, c.width, pixels, gelu=True),
        (f"{arch}.image.token_id", "u32", image_id_of(c.image_id, vocabulary)),
        *generation_entries(
            checkpoint,
            arch,
            max_new_tokens=min(_MAX_NEW_TOKENS, c.context // 2),
            no_repeat_ngram_size=0,
            ids={"eos_token_id": vocabulary.eos, "decoder_start_token_id": c.start},
        ),
        *((f"{arch}.prompt.{task}", "str", text) for task, text in card["prompt"].items()),
        *([(f"{arch}.notice", "str", card["notice"])] if card["notice"] else []),
        *([(f"{arch}.trained_tasks", "str", ", ".join(tasks))] if (tasks := card["trained_tasks"]) else []),
        *vocabulary.entries(),
    ]


def image_id_of(image_id: int | None, vocabulary: UnigramVocabulary) -> int:
    """The placeholder of an image's rows; old vocabularies have none, so it is the unknown token there."""
    if image_id is None:
        return vocabulary.unk
    if image_id >= len(vocabulary.tokens) or vocabulary.kinds[image_id] not in (CONTROL, USER_DEFINED, UNKNOWN):
        raise ModelCorrupt(f"config.json: image_token_index is {image_id}, which is no added token of the vocabulary")
    return image_id
