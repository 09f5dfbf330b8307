"""transformers' KOSMOS-2.5 behind the few calls that parity tests need. Needs the reference extra.

Its traps: each row of an image has the id of <s>; only the mask tells them apart (1), and the tags beside them (-1, for
the segment). The image must be given to the first forward alone, which generate() does. generation_config.json has a
rule against repeats, which generate() applies unless it is told another.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
from PIL import Image
from transformers import AutoTokenizer, Kosmos2_5ForConditionalGeneration
from transformers.models.kosmos2_5.image_processing_pil_kosmos2_5 import Kosmos2_5ImageProcessorPil
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()


class HfPage:
    """A checkpoint folder loaded in float32 on the CPU."""

    def __init__(self, folder: Path | str) -> None:
        self.model, loading = Kosmos2_5ForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
        assert not loading["mismatched_keys"] and not loading["unexpected_keys"], loading
        assert set(loading["missing_keys"]) <= {"text_model.lm_head.weight"}, loading  # tied
        self.model.eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        # Pillow's back end has the population's deviation, as the authors have; torchvision's is 2e-6 off.
        self.processor = Kosmos2_5ImageProcessorPil.from_pretrained(folder)
        self.latents = int(self.model.config.latent_query_num)
        token = self.tokenizer.convert_tokens_to_ids
        self.around = [token("<image>"), token("</image>")]

    def patches(self, picture: np.ndarray) -> torch.Tensor:
        """(height, width, 3) uint8 -> (1, max_patches, 2 + values) float32."""
        return torch.as_tensor(self.processor(Image.fromarray(picture), return_tensors="pt")["flattened_patches"])

    @torch.no_grad()
    def encode_image(self, picture: np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8 -> (latents, width) float32."""
        hidden = self.model.vision_model(self.patches(picture)).last_hidden_state
        unit = torch.nn.functional.normalize(hidden, dim=-1)
        return self.model.image_to_text_projection(unit)[0][0].numpy()

    def prompt(self, words: str, answer: list[int] | None = None) -> dict[str, torch.Tensor]:
        """<s>, an image's places, the words (tag strings are tags) and an answer that is given."""
        begin, end = self.around
        rest = [*self.tokenizer(words, add_special_tokens=False).input_ids, *(answer or [])]
        ids = torch.tensor([[0, begin, *[0] * self.latents, end, *rest]])
        mask = torch.tensor([[0, -1, *[1] * self.latents, -1, *[0] * len(rest)]])
        return {"input_ids": ids, "image_embeds_position_mask": mask, "attention_mask": torch.ones_like(ids)}

    @torch.no_grad()
    def logits(self, picture: np.ndarray, words: str, answer: list[int]) -> np.ndarray:
        """(positions, vocabulary) of the prompt and an answer."""
        return self.model(flattened_patches=self.patches(picture), **self.prompt(words, answer)).logits[0].numpy()

    @torch.no_grad()
    def generate(self, picture: np.ndarray, words: str, tokens: int, **options: Any) -> list[int]:
        """Greedy search; options: generate()'s."""
        given = self.prompt(words)
        out = self.model.generate(
            flattened_patches=self.patches(picture), **given, do_sample=False, max_new_tokens=tokens, **options
        )
        return out[0, given["input_ids"].shape[1] :].tolist()
