"""MiniGPT-v2 for the suite, as MiniGPT-4 with LLaMA-2, which writes no boxes: BLIP-2's tiny tower, whose features
become rows four by four, and a LLaMA."""

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from helpers.convert_checkpoint import convert_safetensors_bytes
from helpers.reference import Prompt
from helpers.tiny import GgufContent, StoredTensor, Tiny, TinyConfig, TinyVocabulary, make_weight

from models import blip2, llava, minigpt4
from models.description import (
    ANY_TEXT,
    Described,
    Segments,
    accepted_decoder,
    accepted_general,
    accepted_prompts,
    accepted_vision,
)

A = "minigpt_v2"
MERGED = 4
SYSTEM = minigpt4.SYSTEM
FORMAT = "<s>[INST] <Img>{{image}}</Img> {0} [/INST] "
PROMPTS = {
    "system": SYSTEM,
    "caption": FORMAT.format("Describe this image in one sentence."),
    "caption_detailed": FORMAT.format("Describe this image in detail."),
    "question": FORMAT.format("{question}"),
}
PROMPTS_V2 = {
    key: FORMAT.format(words).rstrip()
    for key, words in {
        "caption": "[caption] Briefly describe this image.",
        "caption_detailed": "Describe this image in detail.",
        "question": "[vqa] {question}",
        "locate": "[refer] give me the location of {phrase}",
        "grounding": "[grounding] {question}",
    }.items()
} | {"grounding_words": "please describe this image in details"}
NUMBERS, SMALL = minigpt4.NUMBERS, minigpt4.SMALL


def tensor_shapes(numbers: dict[str, int], vision: dict[str, int], vocab: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of a file, in file order."""
    parts = minigpt4.tensor_shapes(numbers, blip2.QFORMER, vision, vocab)
    shapes = {name: shape for name, shape in parts.items() if not name.startswith("mm.")}
    width = numbers["embedding_length"]
    return shapes | {"mm.0.weight": (width, MERGED * vision["embedding_length"]), "mm.0.bias": (width,)}


def metadata_of(
    numbers: dict[str, int], vision: dict[str, int], v: TinyVocabulary, max_new: int, prompts: dict[str, str]
) -> dict[str, Any]:
    """Every key of a complete file; the checksums are added by `write_tiny`."""
    parts = minigpt4.metadata_of(numbers, blip2.QFORMER, vision, v, max_new)
    dropped = ("minigpt4.qformer.", "minigpt4.prompt.", "minigpt4.generation.stop")
    kept = {key.replace("minigpt4.", f"{A}."): value for key, value in parts.items() if not key.startswith(dropped)}
    return kept | {
        "general.architecture": ("str", A),
        "clip.projector_type": ("str", A),
        f"{A}.projector.merged_features": ("u32", MERGED),
        **{f"{A}.prompt.{key}": ("str", text) for key, text in prompts.items()},
    }


def weights_of(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Drawn as MiniGPT-4's."""
    others = {name: shape for name, shape in shapes.items() if not name.startswith("mm.")}
    weights = minigpt4.weights_of(others | {"mm.0.weight": (8, 8)}, seed)
    for name in ("mm.0.weight", "mm.0.bias"):
        weights[name] = make_weight(name, shapes[name], seed)
    weights["mm.0.weight"] *= np.float32(2)
    return {name: weights[name] for name in shapes}


class MiniGptV2Reference(blip2.Bridge, llava.LlavaReference):
    """The whole model; its tower, LLaMA and the searches are inherited."""

    def __init__(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
        value = {key: entry[1] for key, entry in metadata.items()}
        self.metadata, self.weights, self.dtype = value, weights, np.float32
        self.width, self.layers = value[f"{A}.embedding_length"], value[f"{A}.block_count"]
        self.heads, self.kv_heads = value[f"{A}.attention.head_count"], value[f"{A}.attention.head_count_kv"]
        self.eps, self.base = value[f"{A}.attention.layer_norm_rms_epsilon"], value[f"{A}.rope.freq_base"]
        self.bos, self.eos = value["tokenizer.ggml.bos_token_id"], value["tokenizer.ggml.eos_token_id"]
        self.image_id, self.post_eps = value[f"{A}.image.token_id"], value[f"{A}.vision.post_norm_epsilon"]

    def encode_image(self, rgb: np.ndarray) -> np.ndarray:
        features = self.features(rgb)[1:]  # without that of the class
        merged = self.metadata[f"{A}.projector.merged_features"]
        return self.linear(features.reshape(len(features) // merged, -1), "mm.0")

    def prompt(self, segments: list[list[int] | np.ndarray]) -> Prompt:
        return llava.LlavaReference.prompt(self, segments)


OPEN: Segments = [("tags", "<s>"), ("text", "[INST] <Img>")]
BEGIN: Segments = [("text", SYSTEM), *OPEN]


def turn(image: int, words: str) -> Segments:
    """The segments of a turn behind the words in front of its image."""
    return [("image", image), ("text", f"</Img> {words} [/INST] ")]


class MiniGptV2(Described):
    """A chat about pictures, without location tokens."""

    architecture = A
    tasks: ClassVar = ["caption", "ask", "generate", "score"]
    prompts: ClassVar[dict[str, Segments]] = {
        "caption": BEGIN + turn(0, "Describe this image in one sentence."),
        "long caption": BEGIN + turn(0, "Describe this image in detail."),
        "caption by beams": BEGIN + turn(0, "Describe this image in one sentence."),
        "ask": BEGIN + turn(0, "what is this?"),
        "ask after an example": [
            *BEGIN,
            *turn(0, "what color is it?"),
            ("ids", []),
            ("text", "red"),
            ("ids", [2]),
            *OPEN,
            *turn(1, "what is this?"),
        ],
        "generate": [("image", 0), ("text", "It is")],
        "generate from two pictures": [("image", 0), ("text", "a cat."), ("image", 1), ("text", "It is")],
        "score": BEGIN + turn(0, "Describe this image in one sentence."),
    }
    accepted: ClassVar = {
        **accepted_general(A),
        **{key: v for key, v in accepted_decoder(A).items() if not key.endswith("layer_norm_epsilon")},
        **{
            key.replace("llava.", f"{A}."): value
            for key, value in llava.Llava.accepted.items()
            if key.startswith(("llava.attention.", "llava.rope.", "tokenizer."))
        },
        **accepted_vision(),
        "clip.use_gelu": {1},
        f"{A}.vision.post_norm_epsilon": {"max"},
        f"{A}.projector.merged_features": set(),
        f"{A}.image.token_id": {0, 1},
        f"{A}.text_boxes": {0, 1},
        **accepted_prompts(A, grounding=False),
        f"{A}.prompt.system": ANY_TEXT,
        f"{A}.prompt.locate": set(),
        f"{A}.prompt.grounding": set(),
        f"{A}.prompt.grounding_words": ANY_TEXT,
    }

    def make(self, seed: int) -> Tiny:
        """Sizes that every stored type fits, but the tower's rows, which k-quants do not fit."""
        pieces = llava.PIECES
        v = TinyVocabulary([*pieces.pieces, *llava.ADDED], [*pieces.scores, 0.0, 0.0], [2, 4, *pieces.types[2:], 3, 3])
        weights = weights_of(tensor_shapes(NUMBERS, blip2.VISION, len(v.pieces)), seed)
        weights["output.weight"][0] = 0  # the definition's searches do not know that it never comes
        return Tiny(TinyConfig(), v, weights, metadata_of(NUMBERS, blip2.VISION, v, 256, PROMPTS))

    def define(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> MiniGptV2Reference:
        """Above."""
        return MiniGptV2Reference(metadata, weights)

    def small(self) -> GgufContent:
        """Without bytes: what is no piece is unknown. As MiniGPT-v2 is, whose answers have boxes."""
        content = minigpt4.MiniGpt4().small()
        pieces = content.metadata["tokenizer.ggml.tokens"][1]
        v = TinyVocabulary(pieces, content.metadata["tokenizer.ggml.scores"][1], content.metadata[
            "tokenizer.ggml.token_type"][1])  # fmt: skip
        metadata = metadata_of(SMALL, blip2.SMALL_VISION, v, 8, PROMPTS_V2)
        metadata |= {
            "tokenizer.ggml.precompiled_charsmap": ("[u8]", []),
            f"{A}.text_boxes": ("bool", True),
            f"{A}.prompt.system": ("str", ""),
        }
        tensors = {
            name: StoredTensor("F32", array.shape, array.astype("<f4").tobytes())
            for name, array in weights_of(tensor_shapes(SMALL, blip2.SMALL_VISION, len(pieces)), 0).items()
        }
        return GgufContent(metadata, tensors)

    def write_checkpoint(self, folder: Path) -> Path:
        """The authors' files; sizes that these do not say are in config.json, and what is unused is there, too."""
        minigpt4.MiniGpt4().write_checkpoint(folder)
        (folder / "vicuna").rename(folder / "llama")
        for name in ("blip2_pretrained_flant5xxl.pth", "pretrained_minigpt4_7b.pth"):
            (folder / name).unlink()
        tower, trained, language = published(self.tiny.weights)
        minigpt4.save(folder / "eva_vit_g.pth", tower, inner=False)
        minigpt4.save(folder / "pretrained_minigpt4_llama2_7b.pth", trained)
        state = {name: (array.shape, np.ascontiguousarray(array).tobytes()) for name, array in language.items()}
        (folder / "llama" / "model.safetensors").write_bytes(convert_safetensors_bytes(state, "F32"))
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({"vision_config": settings["vision_config"]}))
        return folder


def published(weights: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], ...]:
    """The same weights under the authors' names: the tower, the trained tensors, the language model. The tower's last
    norm is among the trained ones, where it is if anybody trained it."""
    tower, bridge, product, language = minigpt4.published(
        {name: array for name, array in weights.items() if not name.startswith("mm.")}
        | {"mm.0.weight": weights["mm.0.weight"], "mm.0.bias": weights["mm.0.bias"]}
    )
    norms = {name: array for name, array in bridge.items() if name.startswith("ln_vision.")}
    buffer = {"llama_model.base_model.model.model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)}
    return tower, product | norms | buffer, language
