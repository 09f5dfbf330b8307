"""A linear prefix (Frozen): a vision encoder, a linear product that makes n rows of its pooled feature, and a language
model in front of which they stand. None was published: this is the layout of ours, a folder of three parts.

config.json, {"model_type": "linear_prefix", "num_prefix_tokens": n}, and prefix.safetensors, prefix.weight (n * width,
features) and prefix.bias; CLIP in `vision`; LLaMA with its tokenizer in `language_model`.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt, ModelNotFound

from ..card import general_entries, read_card
from ..generation import generation_entries
from ..gguf import Entry
from ..mapping import check_tensors_of
from ..settings import Section
from ..sources.checkpoint import Checkpoint
from ..sources.files import Folder
from ..sources.hf import open_hf
from ..sources.tensor import SourceTensor
from ..sources.tokenizer_files import TokenizerFiles
from ..spm_bpe import SpmBpe, read_spm_bpe
from .clip import Tower, check_crop, read_pixels, tower_entries, tower_table, weight_and_bias
from .llama import Decoder, decoder_entries, decoder_of, decoder_table, fit_decoder, read_decoder
from .llava import read_tower, tower_of_file, tower_tensors

NAME, ARCHITECTURE = "a linear prefix", "linear_prefix"
IGNORED = (".position_ids", ".rotary_emb.inv_freq")  # buffers that some versions of transformers stored
TIED: dict[str, str] = {}  # fit sees to it
_LANGUAGE, _VISION = "language_model", "vision"  # folders

PROMPTS = {
    "caption": "{image}",
    "caption_detailed": "{image}",
    "question": "{image}Question: {question} Answer:",
}
CARD = {
    "name": "Linear prefix",
    "basename": "Linear-Prefix",
    "version": "v1",
    "size_label": "",  # counted
    "description": "A language model with a linear image prefix; vision and decoder in one file",
    "license": "other",
    "languages": ["en"],
    "tags": ["image-to-text"],
    "source_url": "",
    "notice": "",
    "trained_tasks": [],
    "prompt": {},
}
_MAX_NEW_TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class Prefix(Decoder):
    """The sizes of a model."""

    tower: Tower
    rows: int


@dataclass(frozen=True)
class Rows:
    """What the folder's config.json says; `fit` reads those of its parts."""

    rows: int
    layers: int = 0


def recognises(settings: dict[str, Any]) -> bool:
    """Whether this config.json is that of such a folder."""
    return settings.get("model_type") == "linear_prefix" or settings.get("family") == "frozen"


def read_config(settings: dict[str, Any]) -> Rows:
    """How many rows an image has."""
    return Rows(Section(settings, "").whole("num_prefix_tokens", 2, 4096))


def tensor_table(c: Prefix) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in the checkpoint, name in the GGUF file, shape outermost first), in the order of the file."""
    yield from decoder_table(c)
    yield from tower_table(c.tower, "vision_tower.vision_model.", c.tower.layers)
    yield from weight_and_bias("prefix", "mm.0", c.rows * c.width, c.tower.width)


def fit(checkpoint: Checkpoint, config: Rows, vocabulary: SpmBpe) -> Prefix:
    """Joins the parts."""
    language, settings = _open(checkpoint, _LANGUAGE, "the language model, with its tokenizer")
    text = Section(settings, "")
    text.only("model_type", "llama")
    vision, settings = _open(checkpoint, _VISION, "CLIP, with its preprocessor_config.json")
    tower = read_tower(Section(settings.get("vision_config", settings), f"{_VISION}/config.json"))
    tensors = {f"language_model.{name}": tensor for name, tensor in language.items()}
    checkpoint.tensors = {**checkpoint.tensors, **tensors, **tower_tensors(vision)}
    whole = Prefix(**vars(read_decoder(text)), tower=tower, rows=config.rows)
    return fit_decoder(checkpoint.tensors, whole, vocabulary)


def _open(checkpoint: Checkpoint, name: str, what: str) -> tuple[dict[str, SourceTensor], dict[str, Any]]:
    """-> (tensors, config.json) of a part in a folder beside the weights."""
    folder = checkpoint.folder.inner(name)
    if folder is None:
        raise ModelNotFound(f"no folder {checkpoint.folder.path / name}: put {what} there")
    with open_hf(folder, None) as part:
        checkpoint.preprocessor = checkpoint.preprocessor or part.preprocessor
        checkpoint.files.extend(part.files)
        part.files = []  # the checkpoint closes them
        return part.tensors, part.config


def check(where: str, settings: dict[str, Any], tensors: Iterable[tuple[str, str, tuple[int, ...], int, int]]) -> None:
    """Whether a GGUF file's tensors are those of its keys, which the engine has accepted.

    ModelCorrupt names the first that is missing, misshapen or no part of the model.
    """
    keys = _core.GgufFile(where).metadata()
    rows = keys[f"{ARCHITECTURE}.prefix.row_count"]
    c = Prefix(**vars(decoder_of(keys, ARCHITECTURE)), tower=tower_of_file(keys), rows=rows)
    check_tensors_of(where, tensor_table(c), tensors)


def read_vocabulary(checkpoint: Checkpoint) -> SpmBpe:
    """The language model's."""
    files = checkpoint.tokenizer
    inner = checkpoint.folder.inner(_LANGUAGE)
    if files.find("tokenizer.json", "tokenizer.model") is None and isinstance(inner, Folder):
        files = TokenizerFiles(inner, None, checkpoint.files)
    vocabulary = read_spm_bpe(files)
    if not vocabulary.add_bos:
        raise ModelCorrupt(f"{vocabulary.where}: add_bos_token is false; every prompt of {NAME} begins with one")
    # Texts around an image are encoded by themselves, by sentencepiece's own rule: a blank before each.
    blanks = replace(vocabulary.blanks, every_segment=True, before_blank=True)
    vocabulary = replace(vocabulary, blanks=blanks)
    if vocabulary.pad in (vocabulary.bos, vocabulary.eos, vocabulary.unk):  # it needs a token of its own, or none
        return replace(vocabulary, pad=None)
    return vocabulary


def metadata(
    checkpoint: Checkpoint, c: Prefix, vocabulary: SpmBpe, file_type: int, sha256: list[str], converter: str
) -> list[Entry]:
    """Everything but the tensors' checksums: (key, GGUF type, value). sha256: "file name:hex" of every source file."""
    arch = ARCHITECTURE
    card = read_card(checkpoint.card, CARD, PROMPTS)
    pixels = read_pixels(checkpoint.preprocessor)
    check_crop(checkpoint.preprocessor, c.tower.image_size)
    count = sum(math.prod(shape) for _, _, shape in tensor_table(c))
    return [
        *general_entries(card, arch, count, file_type),
        (f"{arch}.converter", "str", converter),
        (f"{arch}.source.sha256", "[str]", sha256),
        *decoder_entries(c, arch),
        *tower_entries(c.tower, arch, c.width, pixels),
        (f"{arch}.prefix.row_count", "u32", c.rows),
        (f"{arch}.image.token_id", "u32", vocabulary.unk),  # the vocabulary has none for it
        *generation_entries(
            checkpoint,
            arch,
            max_new_tokens=min(_MAX_NEW_TOKENS, c.context // 2),  # leaves room for the prompt
            no_repeat_ngram_size=0,
            ids={},
        ),
        *((f"{arch}.prompt.{task}", "str", text) for task, text in card["prompt"].items()),
        *([(f"{arch}.notice", "str", card["notice"])] if card["notice"] else []),
        *([(f"{arch}.trained_tasks", "str", ", ".join(tasks))] if (tasks := card["trained_tasks"]) else []),
        *vocabulary.entries(),
    ]
