"""Nodes for ComfyUI. In custom_nodes/kosmos_edge.py:

    from kosmos_edge.integrations.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

Images are tensors [batch, height, width, 3] of 0..1, as in ComfyUI. Each node gives lists with one entry per image:
texts, boxes (x1, y1, x2, y2) in pixels, and a mask [batch, height, width], which is 1 inside of the boxes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from kosmos_edge.integrations.finding import use_model
from kosmos_edge.json_text import to_json
from kosmos_edge.model import Model
from kosmos_edge.results import Result

CATEGORY = "kosmos-edge"
SEED = ("INT", {"default": 0, "min": 0, "max": 2**64 - 1})
TEMPERATURE = ("FLOAT", {"default": 0.0, "min": 0.0, "max": 5.0, "step": 0.05})
MAX_TOKENS = ("INT", {"default": 0, "min": 0, "max": 4096, "tooltip": "0: the model's own limit"})
GENERATION = {"max_tokens": MAX_TOKENS, "temperature": TEMPERATURE, "seed": SEED}
KOSMOS = "KOSMOS_EDGE_MODEL"


class LoadModel:
    """Loads a model."""

    CATEGORY, FUNCTION = CATEGORY, "load"
    RETURN_TYPES, RETURN_NAMES = (KOSMOS,), ("model",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """A tag, a file or user/repo:TAG; empty: the default."""
        text = ("STRING", {"default": "", "tooltip": "kosmos-2, kosmos-2:q8_0, nano, or a GGUF file. Empty: default"})
        return {"required": {"model": text, "device": ("STRING", {"default": "auto"})}}

    def load(self, model: str, device: str) -> tuple[Model]:
        """The model."""
        return (use_model(model.strip() or None, device=device),)


class _Node:
    """A verb on every image of a batch."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    TASK: ClassVar[str]

    def _all(self, model: Model, image: Any, generation: dict[str, Any], **arguments: Any) -> list[Result]:
        options = {name: value for name, value in generation.items() if value or name == "seed"}
        results = model.batch(pixels_of(image), self.TASK, on_error="raise", **arguments, **options)  # type: ignore[arg-type]
        return [result for result in results if isinstance(result, Result)]


class _WithBoxes(_Node):
    """Texts, boxes and a mask."""

    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("STRING", "BBOX", "MASK", "STRING")
    RETURN_NAMES: ClassVar[tuple[str, ...]] = ("text", "boxes", "mask", "json")
    OUTPUT_IS_LIST: ClassVar[tuple[bool, ...]] = (True, True, False, True)

    def _boxes(self, results: list[Result], image: Any) -> tuple[list[str], list[Any], Any, list[str]]:
        boxes = [[box.pixels for box in result.boxes if box.valid and box.pixels] for result in results]
        mask = np.zeros(tuple(image.shape[:3]), np.float32)
        for number, found in enumerate(boxes):
            for x1, y1, x2, y2 in found:
                mask[number, int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = 1
        return [result.text for result in results], boxes, like(image, mask), [to_json(r.to_dict()) for r in results]


class Caption(_WithBoxes):
    """Captions images, with boxes for what the caption names."""

    TASK = "caption"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """image, model, length, boxes, options of generation."""
        asked = {"length": (["short", "long"],), "boxes": ("BOOLEAN", {"default": True})}
        return {"required": {"model": (KOSMOS,), "image": ("IMAGE",), **asked, **GENERATION}}

    def run(self, model: Model, image: Any, length: str, boxes: bool, **generation: Any) -> Any:
        """(texts, boxes, mask, JSON)."""
        return self._boxes(self._all(model, image, generation, length=length, ground=boxes), image)


class Locate(_WithBoxes):
    """Finds a phrase."""

    TASK = "locate"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """image, model, phrase, the least score."""
        least = ("FLOAT", {"default": 0.0, "min": 0.0, "max": 1.0, "step": 0.05})
        asked = {"phrase": ("STRING", {"default": "a red hat"}), "min_score": least}
        return {"required": {"model": (KOSMOS,), "image": ("IMAGE",), **asked}}

    def run(self, model: Model, image: Any, phrase: str, min_score: float) -> Any:
        """(texts, boxes, mask, JSON)."""
        return self._boxes(self._all(model, image, {}, phrase=phrase, min_score=min_score), image)


class Ask(_Node):
    """Answers a question about images."""

    TASK = "ask"
    RETURN_TYPES, RETURN_NAMES, OUTPUT_IS_LIST = ("STRING",), ("text",), (True,)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """image, model, question, options of generation."""
        question = ("STRING", {"default": "What is this?", "multiline": True})
        return {"required": {"model": (KOSMOS,), "image": ("IMAGE",), "question": question, **GENERATION}}

    def run(self, model: Model, image: Any, question: str, **generation: Any) -> tuple[list[str]]:
        """The answers."""
        return ([result.text for result in self._all(model, image, generation, question=question)],)


def pixels_of(image: Any) -> list[np.ndarray[Any, Any]]:
    """The images of a tensor (of torch or numpy) as arrays of 0..255. A fourth channel, alpha, is left out."""
    array = np.asarray(image.detach().cpu().numpy() if hasattr(image, "detach") else image)
    if array.ndim != 4 or array.shape[3] not in (3, 4):
        raise ValueError(f"image: expected [batch, height, width, 3], got {list(array.shape)}")
    whole = np.rint(np.clip(array[..., :3].astype(np.float32), 0, 1) * 255).astype(np.uint8)
    return [np.ascontiguousarray(one) for one in whole]


def like(image: Any, array: np.ndarray[Any, Any]) -> Any:
    """The array as what the image is: a tensor of torch, or an array."""
    if not hasattr(image, "detach"):
        return array
    import torch

    return torch.from_numpy(array)


NODE_CLASS_MAPPINGS = {
    "KosmosEdgeLoadModel": LoadModel,
    "KosmosEdgeCaption": Caption,
    "KosmosEdgeLocate": Locate,
    "KosmosEdgeAsk": Ask,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "KosmosEdgeLoadModel": "Load model (kosmos-edge)",
    "KosmosEdgeCaption": "Caption with boxes (kosmos-edge)",
    "KosmosEdgeLocate": "Locate a phrase (kosmos-edge)",
    "KosmosEdgeAsk": "Ask about images (kosmos-edge)",
}
