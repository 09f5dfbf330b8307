"""KOSMOS-1 for the suite: its successor's tiny model without what its vocabulary lacks, location tokens."""

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from helpers.reference import Reference
from helpers.small_model import small_model
from helpers.tiny import GgufContent, Tiny, make_tiny
from helpers.tiny_hf import write_hf_folder

from models.description import (
    Described,
    accepted_decoder,
    accepted_general,
    accepted_prompts,
    accepted_slots,
    accepted_unigram,
    accepted_vision,
)
from models.kosmos2 import Kosmos2

ONLY_SUCCESSOR = ("location_bins", "prompt.locate", "prompt.describe", "prompt.grounding")
ARRAYS = {"tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"}


def without_boxes(metadata: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """KOSMOS-2's metadata as KOSMOS-1's, with the vocabulary cut before <phrase>; and how many tokens are left."""
    size = metadata["tokenizer.ggml.tokens"][1].index("<phrase>")
    out = {}
    for key, (kind, value) in metadata.items():
        if key.removeprefix("kosmos2.") in ONLY_SUCCESSOR:
            continue
        cut = value[:size] if key in ARRAYS else value
        out[key.replace("kosmos2.", "kosmos1.")] = (kind, "kosmos1" if cut == "kosmos2" else cut)
    out["kosmos1.vocab_size"] = ("u32", size)
    return out, size


class Kosmos1(Described):
    """No location tokens: captions, answers and scores only."""

    architecture = "kosmos1"
    tasks: ClassVar = ["caption", "ask", "generate", "score"]
    prompts: ClassVar = Kosmos2.prompts  # the same words, where it has the task
    accepted: ClassVar = {
        **accepted_general("kosmos1"),
        **accepted_decoder("kosmos1"),
        **accepted_slots("kosmos1"),
        **accepted_prompts("kosmos1", grounding=False),
        **accepted_vision(),
        **accepted_unigram(),
    }

    def make(self, seed: int) -> Tiny:
        """The successor's weights."""
        tiny = make_tiny(seed)
        tiny.metadata, size = without_boxes(tiny.metadata)
        v = tiny.vocabulary
        tiny.vocabulary = type(v)(v.pieces[:size], v.scores[:size], v.types[:size])
        tiny.weights["token_embd.weight"] = tiny.weights["token_embd.weight"][:size]
        return tiny

    def define(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> Reference:
        """The successor's, in which location tokens have no part."""
        return Reference(metadata, weights)

    def small(self) -> GgufContent:
        """The successor's small file, cut."""
        content = small_model()
        content.metadata, size = without_boxes(content.metadata)
        embedding = content.tensors["token_embd.weight"]
        embedding.data = embedding.data[: size * len(embedding.data) // embedding.shape[0]]
        embedding.shape = (size, *embedding.shape[1:])
        return content

    def write_checkpoint(self, folder: Path) -> Path:
        """Its successor's layout; config.json says which of the two it is."""
        write_hf_folder(folder, self.tiny)
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "kosmos-1"}))
        return folder
