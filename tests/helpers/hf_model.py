"""Transformers' KOSMOS-2 behind the few calls that goldens and parity tests need. Needs the reference extra.

HF 5.23 has traps that this file knows (kosmos.md 1.5, 7): the n-gram block must be passed to generate() or is dropped;
the processor takes one picture, at the front; forward() refuses prompts without a picture.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from helpers.reference import sinusoid

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
from transformers import AutoProcessor, Kosmos2ForConditionalGeneration
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()


class HfModel:
    """A checkpoint folder loaded in float32 on the CPU, with its processor."""

    def __init__(self, folder: Path | str, dtype: torch.dtype = torch.float32) -> None:
        self.model = Kosmos2ForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()
        self.processor = AutoProcessor.from_pretrained(folder)
        if "Pil" not in type(self.processor.image_processor).__name__:
            raise RuntimeError("the PIL image processor is the reference; torchvision's differs by one level")
        self.tokenizer = self.processor.tokenizer
        self.latents = self.model.config.latent_query_num
        token = self.tokenizer.convert_tokens_to_ids
        self.image_begin, self.image_end = token("<image>"), token("</image>")

    def pixels(self, picture: np.ndarray) -> torch.Tensor:
        """(height, width, 3) uint8 -> (1, 3, size, size) float32 by the image processor."""
        from PIL import Image

        return self.processor.image_processor(Image.fromarray(picture), return_tensors="pt")["pixel_values"]

    @torch.no_grad()
    def encode_image(self, picture: np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8 -> (latents, width) float32: `image_embeds` of a forward pass."""
        ids = torch.tensor([[self.tokenizer.bos_token_id, self.image_begin, *[4] * self.latents, self.image_end]])
        mask = torch.tensor([[0, 0, *[1] * self.latents, 0]])
        pixels = self.pixels(picture).to(self.model.dtype)
        out = self.model(pixel_values=pixels, input_ids=ids, image_embeds_position_mask=mask)
        return out.image_embeds[0].float().numpy()

    def text_ids(self, text: str) -> list[int]:
        """Ids of a text whose tag strings are tags."""
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def prompt(self, segments: list[tuple[str, object]], images: list[np.ndarray]) -> tuple[list[int], list[int], list]:
        """Segments of golden_cases.py -> ids, mask of picture slots, embeddings in order of appearance."""
        ids, mask, vectors = [self.tokenizer.bos_token_id], [0], []
        for kind, value in segments:
            if kind == "image":
                new = [self.image_begin, *range(4, 4 + self.latents), self.image_end]
                mask += [0] + [1] * self.latents + [0]
                vectors.append(images[value])
            else:
                new = self.text_ids(boxes_text(value) if kind == "boxes" else value)
                mask += [0] * len(new)
            ids += new
        return ids, mask, vectors

    def _inputs(self, ids: list[int], mask: list[int], vectors: list[np.ndarray]) -> dict:
        inputs = {"input_ids": torch.tensor([ids])}
        if vectors:
            together = torch.tensor(np.concatenate(vectors), dtype=self.model.dtype)
            inputs |= {"image_embeds": together[None], "image_embeds_position_mask": torch.tensor([mask])}
        return inputs

    @torch.no_grad()
    def logits(self, ids: list[int], mask: list[int], vectors: list[np.ndarray]) -> np.ndarray:
        """Logits of every position, (positions, vocab). `mask` may be shorter than `ids`."""
        mask = mask + [0] * (len(ids) - len(mask))
        return self.model.text_model(**self._inputs(ids, mask, vectors)).logits[0].float().numpy()

    @contextmanager
    def exact_sinusoids(self) -> Iterator[None]:
        """Within: the table of positions computed with rightly rounded frequencies (reference.sinusoid)."""
        table = self.model.text_model.model.embed_positions.weights
        before = table.clone()
        rows = np.stack([sinusoid(position, table.shape[1]) for position in range(table.shape[0])])
        rows[1] = 0  # the padding position
        table.copy_(torch.from_numpy(rows))
        yield
        table.copy_(before)

    def generate(self, ids: list[int], mask: list[int], vectors: list[np.ndarray], **how: object) -> dict:
        """text_model.generate, which is what Kosmos2ForConditionalGeneration.generate calls with the picture's vectors.

        Returns ids (the answer), logits (per step, of a greedy answer) and score (of a beam).
        """
        inputs = self._inputs(ids, mask, vectors)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        out = self.model.text_model.generate(
            **inputs, do_sample=False, return_dict_in_generate=True, output_logits=True, output_scores=True, **how
        )
        greedy = how.get("num_beams", 1) == 1
        return {
            "ids": out.sequences[0, len(ids) :].tolist(),
            "logits": np.stack([step[0].float().numpy() for step in out.logits]) if greedy else None,
            "score": None if greedy else float(out.sequences_scores[0]),
        }


def boxes_text(cells: list[tuple[int, int]]) -> str:
    """`<object>...</object>` as the processor writes it into a prompt, without its blanks."""
    pairs = [f"<patch_index_{a:04d}><patch_index_{b:04d}>" for a, b in cells]
    return "<object>" + "</delimiter_of_multi_objects/>".join(pairs) + "</object>"
