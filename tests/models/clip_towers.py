"""CLIP for the suite: a tiny tower for images, one for texts, and a projection of each."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from helpers.convert_checkpoint import convert_safetensors_bytes
from helpers.letters_bpe import spell
from helpers.llava_checkpoint import preprocessor, write_json
from helpers.reference import attention, layer_norm, quick_gelu
from helpers.tiny import GgufContent, StoredTensor, Tiny, TinyConfig, TinyVocabulary, make_weight
from helpers.words_bpe import WordsBpe

from kosmos_edge import _core
from models.description import Described, accepted_decoder, accepted_general, accepted_vision
from models.llava import MEAN, PUBLISHED_VISION, STD, fit

A = "clip_towers"
NUMBERS = {
    "context_length": 77, "embedding_length": 256, "block_count": 2, "feed_forward_length": 512,
    "attention.head_count": 4,
}  # fmt: skip
VISION = {
    "image_size": 56, "patch_size": 14, "embedding_length": 256, "feed_forward_length": 512, "block_count": 2,
    "attention.head_count": 4, "projection_dim": 128,
}  # fmt: skip
SMALL = {
    "context_length": 16, "embedding_length": 8, "block_count": 1, "feed_forward_length": 8, "attention.head_count": 1,
}  # fmt: skip
SMALL_VISION = {
    "image_size": 28, "patch_size": 14, "embedding_length": 8, "feed_forward_length": 8, "block_count": 1,
    "attention.head_count": 1, "projection_dim": 8,
}  # fmt: skip
LOGIT_SCALE = 2.6592
WORDS = (
    "a an the photo of in on is and with cat dog snow table house man woman tree color red green blue white black two"
)
WORDS_BPE = WordsBpe(WORDS.split())


def tensor_shapes(numbers: dict[str, int], vision: dict[str, int], vocab: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of a file, in file order."""
    d, ff, out = numbers["embedding_length"], numbers["feed_forward_length"], vision["projection_dim"]
    v, hidden, patch = (vision[k] for k in ("embedding_length", "feed_forward_length", "patch_size"))
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocab, d),
        "position_embd.weight": (numbers["context_length"], d),
    }

    def blocks(prefix: str, count: int, width: int, inner: int, norms: tuple[str, str], output: str) -> None:
        for i in range(count):
            b = f"{prefix}{i}."
            linear(b + norms[0], width)
            for x in ("attn_q", "attn_k", "attn_v", output):
                linear(b + x, width, width)
            linear(b + norms[1], width)
            linear(b + "ffn_up", inner, width)
            linear(b + "ffn_down", width, inner)

    def linear(name: str, *shape: int) -> None:
        shapes[name + ".weight"], shapes[name + ".bias"] = shape, shape[:1]

    blocks("blk.", numbers["block_count"], d, ff, ("attn_norm", "ffn_norm"), "attn_output")
    linear("output_norm", d)
    shapes |= {"output.weight": (out, d), "v.class_embd": (v,), "v.patch_embd.weight": (v, 3, patch, patch)}
    shapes["v.position_embd.weight"] = ((vision["image_size"] // patch) ** 2 + 1, v)
    linear("v.pre_ln", v)
    blocks("v.blk.", vision["block_count"], v, hidden, ("ln1", "ln2"), "attn_out")
    linear("v.post_ln", v)
    shapes["mm.0.weight"] = (out, v)
    return shapes


def metadata_of(numbers: dict[str, int], vision: dict[str, int], words: WordsBpe) -> dict[str, Any]:
    """Every key of a complete file; the checksums are added by `write_tiny`."""
    return {
        "general.architecture": ("str", A),
        "general.name": ("str", "tiny"),
        "general.file_type": ("u32", 0),
        "general.quantization_version": ("u32", 2),
        "general.alignment": ("u32", 64),
        **{f"{A}.{key}": ("u32", value) for key, value in numbers.items()},
        f"{A}.attention.layer_norm_epsilon": ("f32", 1e-5),
        f"{A}.vocab_size": ("u32", len(words.pieces)),
        f"{A}.logit_scale": ("f32", LOGIT_SCALE),
        "clip.has_vision_encoder": ("bool", True),
        "clip.projector_type": ("str", A),
        "clip.use_gelu": ("bool", False),
        **{f"clip.vision.{key}": ("u32", value) for key, value in vision.items()},
        "clip.vision.attention.layer_norm_epsilon": ("f32", 1e-5),
        "clip.vision.image_mean": ("[f32]", list(MEAN)),
        "clip.vision.image_std": ("[f32]", list(STD)),
        **words.entries(),
    }


def weights_of(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Drawn as KOSMOS-2's."""
    weights = {name: make_weight(name, shape, seed) for name, shape in shapes.items()}
    weights["token_embd.weight"] = make_weight("token_embd.rows", shapes["token_embd.weight"], seed)  # none is zero
    return weights


class Towers:
    """CLIP over weights by GGUF name (transformers CLIPModel): vectors of length 1."""

    def __init__(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
        self.value, self.weights = {key: entry[1] for key, entry in metadata.items()}, weights
        self.eps = self.value[f"{A}.attention.layer_norm_epsilon"]

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        return layer_norm(x, self.weights[name + ".weight"], self.weights[name + ".bias"], self.eps)

    def block(self, x: np.ndarray, b: str, heads: int, names: tuple[str, str, str], first: int | None) -> np.ndarray:
        """first: 0 where attention is causal."""
        h = self.norm(x, b + names[0])
        q, k, v = (self.linear(h, b + "attn_" + n) for n in "qkv")
        x = x + self.linear(attention(q, k, v, heads, first), b + names[2])
        return x + self.linear(quick_gelu(self.linear(self.norm(x, b + names[1]), b + "ffn_up")), b + "ffn_down")

    def encode_image(self, rgb: np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8 -> (projection)"""
        value, w = self.value, self.weights
        size, patch = value["clip.vision.image_size"], value["clip.vision.patch_size"]
        pixels = fit(rgb, size, "crop").astype(np.float32) * np.float32(1 / 255)
        pixels = ((pixels - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)
        side = size // patch
        patches = pixels.reshape(3, side, patch, side, patch).transpose(1, 3, 0, 2, 4).reshape(side * side, -1)
        x = np.concatenate(
            [w["v.class_embd"][None], patches @ w["v.patch_embd.weight"].reshape(len(w["v.class_embd"]), -1).T]
        )
        x = self.norm(x + w["v.position_embd.weight"], "v.pre_ln")
        for i in range(value["clip.vision.block_count"]):
            heads = value["clip.vision.attention.head_count"]
            x = self.block(x, f"v.blk.{i}.", heads, ("ln1", "ln2", "attn_out"), None)
        return unit(self.norm(x, "v.post_ln")[0] @ w["mm.0.weight"].T)

    def encode_text(self, ids: list[int]) -> np.ndarray:
        """Ids with what begins and ends them -> (projection)"""
        w = self.weights
        x = w["token_embd.weight"][ids] + w["position_embd.weight"][: len(ids)]
        for i in range(self.value[f"{A}.block_count"]):
            heads = self.value[f"{A}.attention.head_count"]
            x = self.block(x, f"blk.{i}.", heads, ("attn_norm", "ffn_norm", "attn_output"), 0)
        return unit(self.norm(x, "output_norm")[-1] @ w["output.weight"].T)


def unit(x: np.ndarray) -> np.ndarray:
    """At length 1."""
    return x / np.sqrt((x * x).sum())


class ClipTowers(Described):
    """It compares, and writes nothing."""

    architecture = A
    tasks: ClassVar = ["similarity"]
    prompts: ClassVar = {}
    piece_texts: ClassVar = {"x" * 1024, spell("\x1b[0m")}
    accepted: ClassVar = {
        **accepted_general(A),
        **{key: values for key, values in accepted_decoder(A).items() if ".generation." not in key},
        f"{A}.context_length": set(),  # the rows of the table of positions
        f"{A}.logit_scale": {0, 1, -1, "max"},
        **accepted_vision(),
        "tokenizer.ggml.model": set(),
        "tokenizer.ggml.pre": set(),
        "tokenizer.ggml.tokens": set(),
        "tokenizer.ggml.token_type": set(),
        "tokenizer.ggml.merges": set(),
        "tokenizer.ggml.bos_token_id": set(),
        "tokenizer.ggml.eos_token_id": set(),
        "tokenizer.ggml.padding_token_id": set(),
        "tokenizer.ggml.add_bos_token": {1},
        "tokenizer.ggml.add_space_prefix": {0},
    }

    def make(self, seed: int) -> Tiny:
        """Sizes that every stored type fits."""
        vocabulary = TinyVocabulary(WORDS_BPE.pieces, [0.0] * len(WORDS_BPE.pieces), WORDS_BPE.types)
        weights = weights_of(tensor_shapes(NUMBERS, VISION, len(WORDS_BPE.pieces)), seed)
        return Tiny(TinyConfig(), vocabulary, weights, metadata_of(NUMBERS, VISION, WORDS_BPE))

    def define(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> Any:
        """Above; it has no sequences."""
        return Towers(metadata, weights)

    def small(self) -> GgufContent:
        """Few words, but all bytes: a vocabulary without them is refused."""
        words = WordsBpe(["an", "image"], [f"plain{i}" for i in range(10)])
        shapes = tensor_shapes(SMALL, SMALL_VISION, len(words.pieces))
        tensors = {
            name: StoredTensor("F32", array.shape, array.astype("<f4").tobytes())
            for name, array in weights_of(shapes, 0).items()
        }
        return GgufContent(metadata_of(SMALL, SMALL_VISION, words), tensors)

    def try_out(self, engine: _core.Engine, picture: tuple[bytes, int, int]) -> None:
        """A picture and a text."""
        width = engine.info["embedding"]
        assert engine.encode_image(*picture).shape == (1, width)
        data, cut = engine.embed_texts(["An image of"])
        assert len(data) == 4 * width and cut == 0

    def write_checkpoint(self, folder: Path) -> Path:
        """transformers' layout."""
        return write_clip(folder, self.tiny.weights, NUMBERS, VISION, WORDS_BPE)


def write_clip(
    folder: Path,
    weights: dict[str, np.ndarray],
    numbers: dict[str, int],
    vision: dict[str, int],
    words: WordsBpe,
    *,
    fast: bool = True,
    **text: Any,
) -> Path:
    """A checkpoint of these weights. text: keys of its text_config; without eos_token_id it is the vocabulary's."""
    folder.mkdir(parents=True)
    size = vision["image_size"]
    write_json(
        folder,
        config={
            "model_type": "clip", "architectures": ["CLIPModel"], "projection_dim": vision["projection_dim"],
            "text_config": {
                "model_type": "clip_text_model", "vocab_size": len(words.pieces),
                "hidden_size": numbers["embedding_length"], "intermediate_size": numbers["feed_forward_length"],
                "num_hidden_layers": numbers["block_count"], "num_attention_heads": numbers["attention.head_count"],
                "max_position_embeddings": numbers["context_length"], "projection_dim": vision["projection_dim"],
                "bos_token_id": words.begin, "eos_token_id": words.end, "pad_token_id": words.end,
                **text,
            },
            "vision_config": {
                "model_type": "clip_vision_model", "hidden_size": vision["embedding_length"],
                "intermediate_size": vision["feed_forward_length"], "num_hidden_layers": vision["block_count"],
                "num_attention_heads": vision["attention.head_count"], "image_size": size,
                "patch_size": vision["patch_size"], "projection_dim": vision["projection_dim"],
            },
        },
        preprocessor_config=preprocessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size}),
    )  # fmt: skip
    words.write(folder, fast=fast)
    state = {published(name): (array.shape, array.tobytes()) for name, array in weights.items()}
    state["logit_scale"] = ((), np.float32(LOGIT_SCALE).tobytes())
    (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(state, "F32"))
    return folder


PUBLISHED_TEXT = {
    "attn_norm": "layer_norm1", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.out_proj", "ffn_norm": "layer_norm2", "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
}  # fmt: skip
PUBLISHED_OTHER = {
    "token_embd": "text_model.embeddings.token_embedding",
    "position_embd": "text_model.embeddings.position_embedding", "output_norm": "text_model.final_layer_norm",
    "output": "text_projection", "mm.0": "visual_projection", "v.pre_ln": "vision_model.pre_layrnorm",
    "v.post_ln": "vision_model.post_layernorm", "v.patch_embd": "vision_model.embeddings.patch_embedding",
    "v.position_embd": "vision_model.embeddings.position_embedding",
}  # fmt: skip


def published(name: str) -> str:
    """transformers' name of a tensor."""
    if name == "v.class_embd":
        return "vision_model.embeddings.class_embedding"
    base, _, kind = name.rpartition(".")
    parts = base.split(".")
    if parts[0] == "blk":
        return f"text_model.encoder.layers.{parts[1]}.{PUBLISHED_TEXT[parts[2]]}.{kind}"
    if parts[:2] == ["v", "blk"]:
        return f"vision_model.encoder.layers.{parts[2]}.{PUBLISHED_VISION[parts[3]]}.{kind}"
    return f"{PUBLISHED_OTHER[base]}.{kind}"
