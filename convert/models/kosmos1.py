"""KOSMOS-1: KOSMOS-2's layout with a vocabulary that ends before <phrase>, so without location tokens.

Its weights were never published. A checkpoint of it has config.json's model_type "kosmos-1", or "kosmos-2" (as
transformers' class writes it) with a vocabulary of 64007.
"""

from typing import Any

from ..gguf import Entry
from ..sources.checkpoint import Checkpoint
from . import kosmos2, kosmos_vocabulary
from .kosmos2 import IGNORED, TIED, Config, Family, check, fit, tensor_table
from .kosmos_layout import TEXT_TAGS
from .kosmos_vocabulary import Vocabulary

__all__ = [
    "ARCHITECTURE",
    "FOLDS",
    "IGNORED",
    "NAME",
    "TIED",
    "check",
    "fit",
    "metadata",
    "read_config",
    "read_vocabulary",
    "recognises",
    "tensor_table",
]

NAME, ARCHITECTURE = "KOSMOS-1", "kosmos1"
FOLDS = True  # nothing but matrices reads what a norm of a block gives
VOCABULARY = 64007
PROMPTS = {task: kosmos2.PROMPTS[task] for task in ("caption", "caption_detailed", "question")}
CARD = {
    **kosmos2.CARD,
    "name": "Kosmos-1",
    "basename": "Kosmos-1",
    "description": "KOSMOS-1: captions and answers from pictures; vision, resampler and decoder in one file",
    "tags": ["image-to-text"],
    "source_url": "",
}
_FAMILY = Family(ARCHITECTURE, CARD, PROMPTS)


def recognises(settings: dict[str, Any]) -> bool:
    """Whether this config.json is KOSMOS-1's."""
    text = settings.get("text_config")
    size = text.get("vocab_size") if isinstance(text, dict) else None
    kind = settings.get("model_type")
    return kind == "kosmos-1" or (kind == "kosmos-2" and size == VOCABULARY)


def read_config(settings: dict[str, Any]) -> Config:
    """The sizes in a config.json; what it leaves out has KOSMOS-1's value."""
    text = settings.get("text_config") or {}
    if isinstance(text, dict):
        settings = {**settings, "text_config": {"vocab_size": VOCABULARY, **text}}
    return kosmos2.read_config(settings)


def read_vocabulary(checkpoint: Checkpoint) -> Vocabulary:
    """The vocabulary, with the tags of images and documents only."""
    return kosmos_vocabulary.read_vocabulary(checkpoint.tokenizer, TEXT_TAGS, boxes=False)


def metadata(
    checkpoint: Checkpoint, c: Config, vocabulary: Vocabulary, file_type: int, sha256: list[str], converter: str
) -> list[Entry]:
    """Everything but the tensors' checksums: (key, GGUF type, value)."""
    return kosmos2.family_metadata(_FAMILY, checkpoint, c, vocabulary, file_type, sha256, converter)
