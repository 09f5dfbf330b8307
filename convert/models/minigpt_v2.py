"""MiniGPT-v2, and MiniGPT-4 with LLaMA-2: EVA-CLIP's tower, whose neighbouring features are put side by side, a linear
product, LLaMA, from the files that the authors publish (`sources/lavis.py`). MiniGPT-v2 changes the language model,
too: its low-rank changes (LoRA) are added here."""

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
from ..sources.tensor import SourceTensor, resized_positions, with_low_rank
from ..spm_bpe import SpmBpe
from ..tokenizer import USER_DEFINED
from . import minigpt4
from .bridge import eva_table, fit_bridge, read_tower
from .clip import Tower, read_pixels, tower_entries, weight_and_bias
from .llama import Decoder, decoder_entries, decoder_of, decoder_table, fit_decoder, read_decoder
from .minigpt4 import MAX_NEW_TOKENS, POST_EPS, REPETITION_PENALTY, SYSTEM, without_unused_blocks

NAME, ARCHITECTURE = "MiniGPT-v2", "minigpt_v2"
IGNORED = (".position_ids", ".rotary_emb.inv_freq")  # buffers that some versions of transformers stored
TIED: dict[str, str] = {}  # fit sees to it

# <s> is a tag: it begins every question, beside the one that begins a prompt.
_FORMAT = "<s>[INST] <Img>{{image}}</Img> {0} [/INST]"
PROMPTS_V2 = {  # with the tags of its tasks
    "caption": _FORMAT.format("[caption] Briefly describe this image."),
    "caption_detailed": _FORMAT.format("Describe this image in detail."),
    "question": _FORMAT.format("[vqa] {question}"),
    "locate": _FORMAT.format("[refer] give me the location of {phrase}"),
    "grounding": _FORMAT.format("[grounding] {question}"),
    "grounding_words": "please describe this image in details",
}
PROMPTS = {  # of MiniGPT-4 with LLaMA-2
    "system": SYSTEM,
    "caption": _FORMAT.format("Describe this image in one sentence.") + " ",
    "caption_detailed": _FORMAT.format("Describe this image in detail.") + " ",
    "question": _FORMAT.format("{question}") + " ",
}
CARD = {
    "name": "MiniGPT-4 (LLaMA-2)",
    "basename": "MiniGPT-4-LLaMA-2",
    "version": "v1",
    "size_label": "",  # counted
    "description": "MiniGPT-4 with LLaMA-2: answers from pictures; vision and decoder in one file",
    "license": "other",  # LLaMA-2's
    "languages": ["en"],
    "tags": ["image-to-text"],
    "source_url": "",
    "notice": "",
    "trained_tasks": [],
    "prompt": {},
}
CARD_V2 = CARD | {
    "name": "MiniGPT-v2",
    "basename": "MiniGPT-v2",
    "version": "v2",
    "description": "MiniGPT-v2: answers from pictures, with boxes; vision and decoder in one file",
}
_ALPHA = 16.0  # of the low-rank changes; what is added is alpha / rank of their product


@dataclass(frozen=True, kw_only=True)
class Config(Decoder):
    """The sizes of a model. vocab: rows of the embedding; once the vocabulary is known, its number of tokens."""

    tower: Tower
    merged: int  # features that become one row of an image
    rank: int = 0  # of the low-rank changes; 0: there are none, and it is MiniGPT-4
    alpha: float = 0


def recognises(settings: dict[str, Any]) -> bool:
    """Whether this is what `sources/lavis.py` makes of the authors' files, which name no model_type."""
    return settings.get("model_type") == "minigpt_v2"


def read_config(settings: dict[str, Any]) -> Config:
    """The sizes; what a config.json beside the weights leaves out is as published."""
    whole = Section(settings, "")
    text = Section(whole.get("text_config", {}), "text_config")
    text.only("model_type", "llama")
    rank = whole.get("lora_r", 0)
    vision = Section(whole.get("vision_config", {}), "vision_config").settings
    tower = read_tower(Section({"image_size": 448 if rank else 224, **vision}, "vision_config"), "eva_clip_g")
    merged = whole.whole("merged_features", 4, 64)
    if tower.patches % merged:
        raise whole.bad("merged_features", f"a divisor of {tower.patches}, the number of patches")
    alpha = whole.real("lora_alpha", _ALPHA, 0, 1e6)
    return Config(**vars(read_decoder(text)), tower=tower, merged=merged, rank=rank, alpha=alpha)


def tensor_table(c: Config) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in the checkpoint, name in the GGUF file, shape outermost first), in the order of the file."""
    yield from decoder_table(c)
    yield from eva_table(c.tower, "vision_model.")
    yield from weight_and_bias("language_projection", "mm.0", c.width, c.merged * c.tower.width)


def fit(checkpoint: Checkpoint, config: Config, vocabulary: SpmBpe) -> Config:
    """Brings the tensors under the table's names: the tower as for BLIP-2, its positions for images of the model's
    size, the language model with its changes."""
    tensors = without_unused_blocks(fit_bridge(checkpoint.tensors, "vision_model."), config.tower)
    positions = "vision_model.embeddings.position_embedding"
    if positions in tensors:
        side = config.tower.image_size // config.tower.patch_size
        tensors[positions] = resized_positions(tensors[positions], side, first=1)
    checkpoint.tensors = _with_changes(tensors, config)
    return fit_decoder(checkpoint.tensors, config, vocabulary)


def _with_changes(tensors: dict[str, SourceTensor], config: Config) -> dict[str, SourceTensor]:
    """The same without low-rank changes, which are added to what they change."""
    changed = {name: tensor for name, tensor in tensors.items() if not name.endswith((".lora_A", ".lora_B"))}
    for name, right in tensors.items():
        if not name.endswith(".lora_A"):
            continue
        base, left = name.removesuffix(".lora_A") + ".weight", tensors.get(name.removesuffix("A") + "B")
        if left is None or base not in changed:
            raise ModelCorrupt(
                f"{right.file.path}: {right.name} has no {'lora_B' if left is None else 'tensor to change'}: expected "
                f"{base if left is not None else name.removesuffix('A') + 'B'}"
            )
        changed[base] = with_low_rank(changed[base], left, right, config.alpha / config.rank)
    for name, left in tensors.items():
        if name.endswith(".lora_B") and name.removesuffix("B") + "A" not in tensors:
            raise ModelCorrupt(f"{left.file.path}: {left.name} has no lora_A")
    return changed


def check(where: str, settings: dict[str, Any], tensors: Iterable[tuple[str, str, tuple[int, ...], int, int]]) -> None:
    """Whether a GGUF file's tensors are those of its keys, which the engine has accepted.

    ModelCorrupt names the first that is missing, misshapen or no part of the model.
    """
    keys = _core.GgufFile(where).metadata()
    vision = {key: keys[f"clip.vision.{key}"] for key in ("embedding_length", "block_count", "feed_forward_length")}
    tower = Tower(
        vision["embedding_length"], vision["block_count"], vision["feed_forward_length"], 1, 1e-6,
        keys["clip.vision.image_size"], keys["clip.vision.patch_size"],
    )  # fmt: skip
    merged = keys[f"{ARCHITECTURE}.projector.merged_features"]
    check_tensors_of(
        where, tensor_table(Config(**vars(decoder_of(keys, ARCHITECTURE)), tower=tower, merged=merged)), tensors
    )


def read_vocabulary(checkpoint: Checkpoint) -> SpmBpe:
    """MiniGPT-4's, whose beginning of a text the formats of prompts spell."""
    vocabulary = minigpt4.read_vocabulary(checkpoint)
    kinds = list(vocabulary.kinds)
    kinds[vocabulary.bos] = USER_DEFINED
    return replace(vocabulary, kinds=kinds)


def metadata(
    checkpoint: Checkpoint, c: Config, vocabulary: SpmBpe, file_type: int, sha256: list[str], converter: str
) -> list[Entry]:
    """Everything but the tensors' checksums: (key, GGUF type, value). sha256: "file name:hex" of every source file."""
    arch = ARCHITECTURE
    boxes = c.rank > 0  # MiniGPT-v2 writes them
    card = read_card(checkpoint.card, CARD_V2 if boxes else CARD, PROMPTS_V2 if boxes else PROMPTS)
    count = sum(math.prod(shape) for _, _, shape in tensor_table(c))
    return [
        *general_entries(card, arch, count, file_type),
        (f"{arch}.converter", "str", converter),
        (f"{arch}.source.sha256", "[str]", sha256),
        *decoder_entries(c, arch),
        *tower_entries(c.tower, arch, c.width, read_pixels({}), gelu=True),
        (f"{arch}.vision.post_norm_epsilon", "f32", POST_EPS),
        (f"{arch}.projector.merged_features", "u32", c.merged),
        (f"{arch}.image.token_id", "u32", vocabulary.unk),  # the vocabulary has none for it
        *([(f"{arch}.text_boxes", "bool", True)] if boxes else []),
        *generation_entries(
            checkpoint,
            arch,
            max_new_tokens=min(MAX_NEW_TOKENS, c.context // 2),  # leaves room for the prompt
            no_repeat_ngram_size=0,
            ids={},
            repetition_penalty=REPETITION_PENALTY,
        ),
        *((f"{arch}.prompt.{task}", "str", text) for task, text in card["prompt"].items() if text),
        *([(f"{arch}.notice", "str", card["notice"])] if card["notice"] else []),
        *([(f"{arch}.trained_tasks", "str", ", ".join(tasks))] if (tasks := card["trained_tasks"]) else []),
        *vocabulary.entries(),
    ]
