"""InstructBLIP with a Flan-T5: EVA-CLIP's tower, a Q-Former that reads the question, a linear product, T5's encoder and
decoder. Transformers' layout."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from kosmos_edge import _core

from ..card import general_entries, read_card
from ..generation import generation_entries
from ..gguf import Entry
from ..mapping import check_tensors_of
from ..settings import Section
from ..sources.checkpoint import Checkpoint
from ..unigram import UnigramVocabulary, read_t5_vocabulary
from ..word_piece import WordPiece
from . import t5
from .blip2_t5 import has_t5, image_id_of, read_image_id
from .bridge import (
    Qformer,
    check_squash,
    eva_table,
    fit_bridge,
    parts_of,
    qformer_entries,
    read_qformer,
    read_tower,
)
from .clip import Tower, read_pixels, tower_entries
from .instructblip import (
    PROMPTS,
    Text,
    fit_reader,
    read_question,
    read_text,
    reader_entries,
    reader_table,
    text_of,
)

NAME, ARCHITECTURE = "InstructBLIP with Flan-T5", "instructblip_t5"
IGNORED = (".position_ids",)  # buffers that some versions of transformers stored
TIED = t5.TIED

CARD = {
    "name": "InstructBLIP Flan-T5",
    "basename": "InstructBLIP-Flan-T5",
    "version": "v1",
    "size_label": "",  # counted
    "description": "InstructBLIP: captions and answers from pictures; vision, Q-Former and T5 in one file",
    "license": "mit",
    "languages": ["en"],
    "tags": ["image-to-text"],
    "source_url": "",
    "notice": "",
    "trained_tasks": [],
    "prompt": {},
}
_MAX_NEW_TOKENS = 256


@dataclass(frozen=True, kw_only=True)
class Config(t5.Stacks):
    """The sizes of a model."""

    tower: Tower
    qformer: Qformer
    text: Text
    image_id: int | None  # of the image's placeholder; None: the vocabulary has none


@dataclass(frozen=True)
class Vocabulary:
    """T5's, and the Q-Former's."""

    unigram: UnigramVocabulary
    question: WordPiece


def recognises(settings: dict[str, Any]) -> bool:
    """Whether this config.json is InstructBLIP's with a T5."""
    kind = settings.get("model_type")
    return kind == ARCHITECTURE or (kind == "instructblip" and has_t5(settings))


def read_config(settings: dict[str, Any]) -> Config:
    """The sizes in a config.json."""
    whole = Section(settings, "")
    stacks = t5.read_stacks(Section(whole.get("text_config", {}), "text_config"))
    tower = read_tower(Section(whole.get("vision_config", {}), "vision_config"), "instructblip_vision_model")
    qformer = read_qformer(whole, "instructblip_qformer", tower)
    return Config(**vars(stacks), tower=tower, qformer=qformer, text=read_text(whole), image_id=read_image_id(whole))


# ---- tensors


def tensor_table(c: Config) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in the checkpoint, name in the GGUF file, shape outermost first), in the order of the file."""
    yield from t5.stacks_table(c)
    yield from eva_table(c.tower, "vision_model.")
    yield from reader_table(c.qformer, c.text, c.tower.width, c.width)


def fit(checkpoint: Checkpoint, config: Config, vocabulary: Vocabulary) -> Config:
    """Brings the tensors under the table's names, without those that nothing computes with."""
    tensors = fit_bridge(checkpoint.tensors, "vision_model.")
    tensors, text = fit_reader(tensors, config.qformer, config.text, vocabulary.question)
    config = t5.fit_stacks(tensors, config, vocabulary.unigram)
    checkpoint.tensors = tensors
    return replace(config, text=text)


def check(where: str, settings: dict[str, Any], tensors: Iterable[tuple[str, str, tuple[int, ...], int, int]]) -> None:
    """Whether a GGUF file's tensors are those of its keys, which the engine has accepted.

    ModelCorrupt names the first that is missing, misshapen or no part of the model.
    """
    keys = _core.GgufFile(where).metadata()
    tower, qformer = parts_of(keys, ARCHITECTURE)
    stacks, text = t5.stacks_of(keys, ARCHITECTURE), text_of(keys, ARCHITECTURE)
    c = Config(**vars(stacks), tower=tower, qformer=qformer, text=text, image_id=None)
    check_tensors_of(where, tensor_table(c), tensors)


# ---- metadata


def read_vocabulary(checkpoint: Checkpoint) -> Vocabulary:
    """T5's vocabulary with the tokens that are added to it, and BERT's."""
    return Vocabulary(read_t5_vocabulary(checkpoint.tokenizer), read_question(checkpoint))


def metadata(
    checkpoint: Checkpoint, c: Config, vocabulary: Vocabulary, file_type: int, sha256: list[str], converter: str
) -> list[Entry]:
    """Everything but the tensors' checksums: (key, GGUF type, value). sha256: "file name:hex" of every source file."""
    arch, unigram = ARCHITECTURE, vocabulary.unigram
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
        *reader_entries(c.text, vocabulary.question, arch),
        *tower_entries(c.tower, arch, c.width, pixels, gelu=True),
        (f"{arch}.image.token_id", "u32", image_id_of(c.image_id, unigram)),
        *generation_entries(
            checkpoint,
            arch,
            max_new_tokens=min(_MAX_NEW_TOKENS, c.context // 2),
            no_repeat_ngram_size=0,
            ids={"eos_token_id": unigram.eos, "decoder_start_token_id": c.start},
        ),
        *((f"{arch}.prompt.{task}", "str", text) for task, text in card["prompt"].items()),
        *([(f"{arch}.notice", "str", card["notice"])] if card["notice"] else []),
        *([(f"{arch}.trained_tasks", "str", ", ".join(tasks))] if (tasks := card["trained_tasks"]) else []),
        *unigram.entries(),
    ]
