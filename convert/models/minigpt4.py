"""MiniGPT-4 with a Vicuna decoder: EVA-CLIP's tower, a Q-Former, a linear product, LLaMA, from the files that its
authors publish (`sources/lavis.py`). MiniGPT-v2 and the variant without Q-Former are `minigpt_v2`."""

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
from ..sources.tensor import SourceTensor
from ..spm_bpe import SpmBpe, read_spm_bpe
from .bridge import (
    Qformer,
    eva_table,
    fit_bridge,
    parts_of,
    qformer_entries,
    qformer_table,
    read_qformer,
    read_tower,
)
from .clip import Tower, read_pixels, tower_entries
from .llama import Decoder, decoder_entries, decoder_of, decoder_table, fit_decoder, read_decoder

NAME, ARCHITECTURE = "MiniGPT-4", "minigpt4"
IGNORED = (".position_ids", ".rotary_emb.inv_freq")  # buffers that some versions of transformers stored
TIED: dict[str, str] = {}  # fit sees to it

STOP = "###"  # ends a turn
_FORMAT = STOP + "Human: <Img>{{image}}</Img> {0}" + STOP + "Assistant: "
SYSTEM = (
    "Give the following image: <Img>ImageContent</Img>. You will be able to see the image once I provide it to you. "
    "Please answer my questions."
)
PROMPTS = {
    "system": SYSTEM,
    "caption": _FORMAT.format("Describe this image in one sentence."),
    "caption_detailed": _FORMAT.format("Describe this image in detail."),
    "question": _FORMAT.format("{question}"),
}
CARD = {
    "name": "MiniGPT-4",
    "basename": "MiniGPT-4",
    "version": "v1",
    "size_label": "",  # counted
    "description": "MiniGPT-4: answers from pictures; vision, Q-Former and decoder in one file",
    "license": "other",  # its language model is made of LLaMA's, and is not for commercial use
    "languages": ["en"],
    "tags": ["image-to-text"],
    "source_url": "",
    "notice": "",
    "trained_tasks": [],
    "prompt": {},
}
MAX_NEW_TOKENS = 300
REPETITION_PENALTY = 1.05  # of the authors' demonstration
POST_EPS = 1e-5  # of LAVIS' ln_vision; the tower's own norms have 1e-6


@dataclass(frozen=True, kw_only=True)
class Config(Decoder):
    """The sizes of a model. vocab: rows of the embedding; once the vocabulary is known, its number of tokens."""

    tower: Tower
    qformer: Qformer


def recognises(settings: dict[str, Any]) -> bool:
    """Whether this is what `sources/lavis.py` makes of the authors' files, which name no model_type."""
    return settings.get("model_type") in ("lavis", "minigpt4")


def read_config(settings: dict[str, Any]) -> Config:
    """The sizes; what a config.json beside the weights leaves out is as published."""
    whole = Section(settings, "")
    text = Section(whole.get("text_config", {}), "vicuna/config.json")
    text.only("model_type", "llama")
    tower = read_tower(Section(whole.get("vision_config", {}), "vision_config"), "eva_clip_g")
    return Config(**vars(read_decoder(text)), tower=tower, qformer=read_qformer(whole, "bert", tower))


def tensor_table(c: Config) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in the checkpoint, name in the GGUF file, shape outermost first), in the order of the file."""
    yield from decoder_table(c)
    yield from eva_table(c.tower, "vision_model.")
    yield from qformer_table(c.qformer, c.tower.width, c.width)


def fit(checkpoint: Checkpoint, config: Config, vocabulary: SpmBpe) -> Config:
    """Brings the tensors under the table's names, without the tower's blocks behind the last one that runs."""
    checkpoint.tensors = without_unused_blocks(fit_bridge(checkpoint.tensors, "vision_model."), config.tower)
    return fit_decoder(checkpoint.tensors, config, vocabulary)


def without_unused_blocks(tensors: dict[str, SourceTensor], tower: Tower) -> dict[str, SourceTensor]:
    """Without the tower's blocks behind the last one that runs."""
    blocks = "vision_model.encoder.layers."
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith(blocks) or _number(name.removeprefix(blocks)) < tower.layers
    }


def _number(text: str) -> int:
    first = text.partition(".")[0]
    return int(first) if first.isascii() and first.isdecimal() and len(first) < 8 else 0


def check(where: str, settings: dict[str, Any], tensors: Iterable[tuple[str, str, tuple[int, ...], int, int]]) -> None:
    """Whether a GGUF file's tensors are those of its keys, which the engine has accepted.

    ModelCorrupt names the first that is missing, misshapen or no part of the model.
    """
    keys = _core.GgufFile(where).metadata()
    tower, qformer = parts_of(keys, ARCHITECTURE)
    c = Config(**vars(decoder_of(keys, ARCHITECTURE)), tower=tower, qformer=qformer)
    check_tensors_of(where, tensor_table(c), tensors)


def read_vocabulary(checkpoint: Checkpoint) -> SpmBpe:
    """Vicuna's vocabulary. The authors' code encodes the texts before and behind an image by themselves, by
    sentencepiece's own rule: a blank before each."""
    vocabulary = read_spm_bpe(checkpoint.tokenizer)
    if not vocabulary.add_bos:
        raise ModelCorrupt(f"{vocabulary.where}: add_bos_token is false; every prompt of {NAME} begins with one")
    blanks = replace(vocabulary.blanks, every_segment=True, before_blank=True)
    vocabulary = replace(vocabulary, blanks=blanks)
    if vocabulary.pad in (vocabulary.bos, vocabulary.eos, vocabulary.unk):  # it needs a token of its own, or none
        return replace(vocabulary, pad=None)
    return vocabulary


def metadata(
    checkpoint: Checkpoint, c: Config, vocabulary: SpmBpe, file_type: int, sha256: list[str], converter: str
) -> list[Entry]:
    """Everything but the tensors' checksums: (key, GGUF type, value). sha256: "file name:hex" of every source file."""
    arch = ARCHITECTURE
    card = read_card(checkpoint.card, CARD, PROMPTS)
    count = sum(math.prod(shape) for _, _, shape in tensor_table(c))
    return [
        *general_entries(card, arch, count, file_type),
        (f"{arch}.converter", "str", converter),
        (f"{arch}.source.sha256", "[str]", sha256),
        *decoder_entries(c, arch),
        *qformer_entries(c.qformer, arch),
        *tower_entries(c.tower, arch, c.width, read_pixels({}), gelu=True),
        (f"{arch}.vision.post_norm_epsilon", "f32", POST_EPS),
        (f"{arch}.image.token_id", "u32", vocabulary.unk),  # the vocabulary has none for it
        *generation_entries(
            checkpoint,
            arch,
            max_new_tokens=min(MAX_NEW_TOKENS, c.context // 2),  # leaves room for the prompt
            no_repeat_ngram_size=0,
            ids={},
            repetition_penalty=REPETITION_PENALTY,
        ),
        (f"{arch}.generation.stop", "str", STOP),
        *((f"{arch}.prompt.{task}", "str", text) for task, text in card["prompt"].items() if text),
        *([(f"{arch}.notice", "str", card["notice"])] if card["notice"] else []),
        *([(f"{arch}.trained_tasks", "str", ", ".join(tasks))] if (tasks := card["trained_tasks"]) else []),
        *vocabulary.entries(),
    ]
