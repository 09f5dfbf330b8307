"""A linear prefix for the suite: CLIP's tiny tower, whose class feature becomes two rows, and a LLaMA."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from helpers.convert_checkpoint import convert_safetensors_bytes
from helpers.llava_checkpoint import write_json
from helpers.reference import Prompt, attention
from helpers.tiny import GgufContent, StoredTensor, Tiny, TinyConfig, TinyVocabulary, make_weight

from models import llava
from models.description import (
    Described,
    Segments,
    accepted_decoder,
    accepted_general,
    accepted_prompts,
    accepted_vision,
)

A = "linear_prefix"
ROWS = 2
PROMPTS = {"caption": "{image}", "caption_detailed": "{image}", "question": "{image}Question: {question} Answer:"}
NUMBERS, SMALL, VISION = llava.NUMBERS, llava.SMALL, llava.VISION
SMALL_VISION = {**llava.SMALL_VISION, "block_count": 1}


def tensor_shapes(numbers: dict[str, int], vision: dict[str, int], vocab: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of a file, in file order: LLaVA's with all blocks of the tower and its last norm."""
    whole = llava.tensor_shapes(numbers, {**vision, "block_count": vision["block_count"] + 1}, vocab)
    shapes = {name: shape for name, shape in whole.items() if not name.startswith("mm.")}
    v, d = vision["embedding_length"], numbers["embedding_length"]
    shapes |= {"v.post_ln.weight": (v,), "v.post_ln.bias": (v,)}
    return shapes | {"mm.0.weight": (ROWS * d, v), "mm.0.bias": (ROWS * d,)}


def metadata_of(numbers: dict[str, int], vision: dict[str, int], v: TinyVocabulary, max_new: int) -> dict[str, Any]:
    """Every key of a complete file; the checksums are added by `write_tiny`."""
    text = llava.metadata_of(numbers, vision, v, max_new)
    dropped = ("llava.vision.", "llava.image.", "llava.projector", "llava.prompt.")
    kept = {key.replace("llava.", f"{A}."): value for key, value in text.items() if not key.startswith(dropped)}
    return kept | {
        "general.architecture": ("str", A),
        "clip.projector_type": ("str", A),
        f"{A}.prefix.row_count": ("u32", ROWS),
        f"{A}.image.token_id": ("u32", 0),
        **{f"{A}.prompt.{key}": ("str", text) for key, text in PROMPTS.items()},
        "tokenizer.ggml.space_prefix_every_segment": ("bool", True),
        "tokenizer.ggml.space_prefix_before_space": ("bool", True),
    }


def weights_of(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Drawn as LLaVA's."""
    weights = llava.weights_of({n: s for n, s in shapes.items() if not n.startswith("mm.")}, seed)
    weights |= {name: make_weight(name, shapes[name], seed) for name in ("mm.0.weight", "mm.0.bias")}
    weights["mm.0.weight"] *= np.float32(4)
    return {name: weights[name] for name in shapes}


class LinearPrefixReference(llava.LlavaReference):
    """The whole model; its LLaMA and the searches are inherited."""

    def __init__(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
        value = {key: entry[1] for key, entry in metadata.items()}
        self.metadata, self.weights, self.dtype = value, weights, np.float32
        self.width, self.layers = value[f"{A}.embedding_length"], value[f"{A}.block_count"]
        self.heads, self.kv_heads = value[f"{A}.attention.head_count"], value[f"{A}.attention.head_count_kv"]
        self.eps, self.base = value[f"{A}.attention.layer_norm_rms_epsilon"], value[f"{A}.rope.freq_base"]
        self.bos, self.eos = value["tokenizer.ggml.bos_token_id"], value["tokenizer.ggml.eos_token_id"]
        self.image_id = value[f"{A}.image.token_id"]

    def encode_image(self, rgb: np.ndarray) -> np.ndarray:
        value, w = self.metadata, self.weights
        size, patch = value["clip.vision.image_size"], value["clip.vision.patch_size"]
        eps, heads = value["clip.vision.attention.layer_norm_epsilon"], value["clip.vision.attention.head_count"]
        pixels = llava.fit(rgb, size, "crop").astype(np.float32) * np.float32(1 / 255)
        pixels = ((pixels - np.float32(llava.MEAN)) / np.float32(llava.STD)).transpose(2, 0, 1)
        side = size // patch
        patches = pixels.reshape(3, side, patch, side, patch).transpose(1, 3, 0, 2, 4).reshape(side * side, -1)
        kernel = w["v.patch_embd.weight"].reshape(len(w["v.class_embd"]), -1)
        x = np.concatenate([w["v.class_embd"][None], patches @ kernel.T])
        x = self.norm(x + w["v.position_embd.weight"], "v.pre_ln", eps)
        for i in range(value["clip.vision.block_count"]):
            b = f"v.blk.{i}."
            h = self.norm(x, b + "ln1", eps)
            q, k, v = (self.linear(h, b + "attn_" + n) for n in "qkv")
            x = x + self.linear(attention(q, k, v, heads), b + "attn_out")
            h = self.linear(self.norm(x, b + "ln2", eps), b + "ffn_up")
            x = x + self.linear(llava.quick_gelu(h), b + "ffn_down")
        pooled = self.norm(x[:1], "v.post_ln", eps)
        return self.linear(pooled, "mm.0").reshape(value[f"{A}.prefix.row_count"], -1)

    def prompt(self, segments: list[list[int] | np.ndarray]) -> Prompt:
        return llava.LlavaReference.prompt(self, segments)


class LinearPrefix(Described):
    """A language model that goes on behind images, whose examples follow each other; without location tokens."""

    architecture = A
    tasks: ClassVar = ["caption", "ask", "generate", "score"]
    prompts: ClassVar[dict[str, Segments]] = {
        "caption": [("image", 0)],
        "long caption": [("image", 0)],
        "caption by beams": [("image", 0)],
        "ask": [("image", 0), ("text", "Question: what is this? Answer:")],
        "ask after an example": [
            ("image", 0),
            ("text", "Question: what color is it? Answer: red\n"),
            ("image", 1),
            ("text", "Question: what is this? Answer:"),
        ],
        "generate": [("image", 0), ("text", "It is")],
        "generate from two pictures": [("image", 0), ("text", "a cat."), ("image", 1), ("text", "It is")],
        "score": [("image", 0)],
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
        f"{A}.prefix.row_count": set(),
        f"{A}.image.token_id": {0, 1},
        **accepted_prompts(A, grounding=False),
    }

    def make(self, seed: int) -> Tiny:
        """Sizes that every stored type fits."""
        pieces = llava.PIECES
        v = TinyVocabulary([*pieces.pieces, *llava.ADDED], [*pieces.scores, 0.0, 0.0], [*pieces.types, 3, 3])
        weights = weights_of(tensor_shapes(NUMBERS, VISION, len(v.pieces)), seed)
        weights["output.weight"][0] = 0  # the definition's searches do not know that it never comes
        return Tiny(TinyConfig(), v, weights, metadata_of(NUMBERS, VISION, v, 64))

    def define(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> LinearPrefixReference:
        """Above."""
        return LinearPrefixReference(metadata, weights)

    def small(self) -> GgufContent:
        """Without bytes: what is no piece is unknown."""
        pieces = ["<unk>", "<s>", "</s>", *"▁animge.", "▁a", "▁An", "▁i", "▁im", "▁o", "▁of", *llava.ADDED]
        count = len(pieces)
        v = TinyVocabulary(pieces, [-0.5 * i for i in range(count)], [2, 3, 3, *[1] * (count - 5), 4, 3])
        metadata = metadata_of(SMALL, SMALL_VISION, v, 8)
        metadata["tokenizer.ggml.precompiled_charsmap"] = ("[u8]", [])
        tensors = {
            name: StoredTensor("F32", array.shape, array.astype("<f4").tobytes())
            for name, array in weights_of(tensor_shapes(SMALL, SMALL_VISION, count), 0).items()
        }
        return GgufContent(metadata, tensors)

    def write_checkpoint(self, folder: Path) -> Path:
        """A folder of three parts."""
        n, v = NUMBERS, VISION
        (folder / "language_model").mkdir(parents=True)
        (folder / "vision").mkdir()
        write_json(folder, config={"model_type": A, "num_prefix_tokens": ROWS})
        write_json(
            folder / "language_model",
            config={
                "model_type": "llama", "vocab_size": len(self.tiny.vocabulary.pieces), "rms_norm_eps": 1e-5,
                "hidden_size": n["embedding_length"], "intermediate_size": n["feed_forward_length"],
                "num_hidden_layers": n["block_count"], "num_attention_heads": n["attention.head_count"],
                "num_key_value_heads": n["attention.head_count_kv"], "max_position_embeddings": n["context_length"],
            },
            tokenizer={**llava.PIECES.tokenizer_json(llava.ADDED), "normalizer": None,
                       "pre_tokenizer": llava.FIRST_ALONE},
            tokenizer_config={
                "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
                "pad_token": "<pad>",
            },
        )  # fmt: skip
        write_json(
            folder / "vision",
            config={
                "model_type": "clip_vision_model", "hidden_size": v["embedding_length"],
                "intermediate_size": v["feed_forward_length"], "num_hidden_layers": v["block_count"],
                "num_attention_heads": v["attention.head_count"], "image_size": v["image_size"],
                "patch_size": v["patch_size"],
            },
            preprocessor_config={"size": {"shortest_edge": v["image_size"]}, "crop_size": v["image_size"]},
        )  # fmt: skip
        states: dict[str, dict[str, Any]] = {"language_model/model": {}, "vision/model": {}, "prefix": {}}
        for name, array in self.tiny.weights.items():
            if name.startswith("mm."):
                part, known = "prefix", "prefix." + name.rpartition(".")[2]
            elif name.startswith("v.post_ln."):
                part, known = "vision/model", "vision_model.post_layernorm." + name.rpartition(".")[2]
            else:
                known = llava.published(name)
                part = "language_model/model" if known.startswith("language_model.") else "vision/model"
                known = known.removeprefix("language_model.").removeprefix("vision_tower.")
            states[part][known] = (array.shape, np.ascontiguousarray(array).tobytes())
        for part, state in states.items():
            (folder / f"{part}.safetensors").write_bytes(convert_safetensors_bytes(state, "F32"))
        return folder
