"""KOSMOS-2 for the suite: the tiny model of tiny.py and the definition in reference.py."""

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

BOXED = "<object><patch_index_0099><patch_index_0924></object>"  # the cells of description.BOX


class Kosmos2(Described):
    """Location tokens: every task."""

    architecture = "kosmos2"
    tasks: ClassVar = ["caption", "ask", "generate", "score", "ground", "locate", "describe"]
    prompts: ClassVar = {
        "caption": [("image", 0), ("text", "An image of")],
        "long caption": [("image", 0), ("text", "Describe this image in detail:")],
        "caption by beams": [("image", 0), ("text", "An image of")],
        "ask": [("image", 0), ("text", "Question: what is this? Answer:")],
        "ask after an example": [
            ("image", 0),
            ("text", "Question: what color is it? Answer:"),
            ("text", "red"),
            ("image", 1),
            ("text", "Question: what is this? Answer:"),
        ],
        "generate": [("image", 0), ("text", "It is")],
        "generate from two pictures": [("image", 0), ("text", "a cat."), ("image", 1), ("text", "It is")],
        "ground": [("image", 0), ("tags", "<grounding>"), ("text", "An image of")],
        "locate": [("image", 0), ("tags", "<grounding><phrase> a cat</phrase>")],
        "describe": [("image", 0), ("tags", f"<grounding><phrase> It</phrase>{BOXED} is")],
        "score": [("image", 0), ("text", "An image of")],
    }
    accepted: ClassVar = {
        **accepted_general("kosmos2"),
        **accepted_decoder("kosmos2"),
        **accepted_slots("kosmos2"),
        **accepted_prompts("kosmos2", grounding=True),
        "kosmos2.location_bins": set(),
        **accepted_vision(),
        **accepted_unigram(),
    }

    def make(self, seed: int) -> Tiny:
        """As the recorded goldens of the whole model have it."""
        return make_tiny(seed)

    def define(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> Reference:
        """Of reference.py, which is held to transformers."""
        return Reference(metadata, weights)

    def small(self) -> GgufContent:
        """Of small_model.py, which the fuzz targets use, too."""
        return small_model()

    def write_checkpoint(self, folder: Path) -> Path:
        """Hugging Face's layout."""
        return write_hf_folder(folder, self.tiny)
