"""LLaVA with Qwen2 for the suite: a tiny SigLIP tower, an MLP, and a Qwen2 with shared keys and a tied embedding."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from helpers.convert_checkpoint import convert_safetensors_bytes
from helpers.letters_bpe import spell
from helpers.llava_checkpoint import write_json
from helpers.llava_qwen2_checkpoint import preprocessor, published, tokenizer_config, tokenizer_json
from helpers.reference import Prompt, attention, gelu, preprocess
from helpers.tiny import GgufContent, StoredTensor, Tiny, TinyConfig, TinyVocabulary, make_weight

from kosmos_edge import _core
from models.description import (
    ANY_TEXT,
    Described,
    Segments,
    accepted_decoder,
    accepted_general,
    accepted_prompts,
    accepted_vision,
)
from models.llava import LlavaReference

A = "llava_qwen2"
USER, ANSWER = "<|im_start|>user ", "<|im_end|><|im_start|>assistant\n"
PROMPTS = {
    "caption": USER + "{image}\nProvide a one-sentence caption for the provided image." + ANSWER,
    "caption_detailed": USER + "{image}\nDescribe this image in detail." + ANSWER,
    "question": USER + "{image}\n{question}" + ANSWER,
}
NUMBERS = {
    "context_length": 1024, "embedding_length": 256, "block_count": 2, "feed_forward_length": 512,
    "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 64,
}  # fmt: skip
VISION = {  # 4 x 4 patches, and 4 pixels beside them that nobody looks at
    "image_size": 60, "patch_size": 14, "embedding_length": 256, "feed_forward_length": 512, "block_count": 2,
    "attention.head_count": 4,
}  # fmt: skip
SMALL = {
    "context_length": 64, "embedding_length": 16, "block_count": 1, "feed_forward_length": 16,
    "attention.head_count": 2, "attention.head_count_kv": 1,
}  # fmt: skip
SMALL_VISION = {
    "image_size": 30, "patch_size": 14, "embedding_length": 16, "feed_forward_length": 16, "block_count": 2,
    "attention.head_count": 2,
}  # fmt: skip
ADDED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>")
CONTROL, TAG = 3, 4


class Pieces:
    """A byte-level vocabulary made by hand: the bytes, then every beginning of some words."""

    WORDS = (
        "a an the of in on is it and to for with cat dog snow table house man woman tree what color where this that "
        "image picture red green blue white black user assistant Describe detail. Provide caption provided "
        "one-sentence sitting near camp fire warm himself two three"
    )

    def __init__(self, words: str = WORDS, plain: Sequence[str] = ()) -> None:
        """plain: pieces in front that no merge makes."""
        printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        hidden = [b for b in range(256) if b not in printable]
        alphabet = [chr(b) if b in printable else chr(256 + hidden.index(b)) for b in range(256)]
        spelled = ["Ġ" + word for word in words.split()]
        splits = dict.fromkeys((word[:n], word[n]) for word in spelled for n in range(1, len(word)))
        self.merges = [f"{left} {right}" for left, right in splits]
        self.pieces = [*plain, *alphabet, *(left + right for left, right in splits), *ADDED]
        self.types = [1] * (len(self.pieces) - len(ADDED)) + [CONTROL, TAG, TAG, CONTROL]
        self.vocabulary = TinyVocabulary(self.pieces, [], self.types)


PIECES = Pieces()
EOS = PIECES.vocabulary.id("<|im_end|>")


def tensor_shapes(numbers: dict[str, int], vision: dict[str, int], vocab: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of a file with feature layer -1, an MLP and a tied embedding, in file order."""
    d, ff, heads = (numbers[k] for k in ("embedding_length", "feed_forward_length", "attention.head_count"))
    kv, q = (n * (d // heads) for n in (numbers["attention.head_count_kv"], heads))
    v, patch, hidden = (vision[k] for k in ("embedding_length", "patch_size", "feed_forward_length"))
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocab, d)}
    for i in range(numbers["block_count"]):
        b = f"blk.{i}."
        shapes[b + "attn_norm.weight"] = (d,)
        for part, rows in (("q", q), ("k", kv), ("v", kv)):
            shapes |= {f"{b}attn_{part}.weight": (rows, d), f"{b}attn_{part}.bias": (rows,)}
        shapes |= {b + "attn_output.weight": (d, q), b + "ffn_norm.weight": (d,)}
        shapes |= {b + "ffn_gate.weight": (ff, d), b + "ffn_up.weight": (ff, d), b + "ffn_down.weight": (d, ff)}
    shapes |= {"output_norm.weight": (d,), "v.patch_embd.weight": (v, 3, patch, patch), "v.patch_embd.bias": (v,)}
    shapes["v.position_embd.weight"] = ((vision["image_size"] // patch) ** 2, v)
    linear: dict[str, tuple[int, ...]] = {}
    for i in range(vision["block_count"]):
        b = f"v.blk.{i}."
        linear |= {b + "ln1": (v,), **{b + f"attn_{x}": (v, v) for x in ("q", "k", "v", "out")}, b + "ln2": (v,)}
        linear |= {b + "ffn_up": (hidden, v), b + "ffn_down": (v, hidden)}
    linear |= {"mm.0": (d, v), "mm.2": (d, d)}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def metadata_of(numbers: dict[str, int], vision: dict[str, int], pieces: Pieces, max_new: int) -> dict[str, Any]:
    """Every key of a complete file; the checksums are added by `write_tiny`."""
    v = pieces.vocabulary
    return {
        "general.architecture": ("str", A),
        "general.name": ("str", "tiny"),
        "general.file_type": ("u32", 0),
        "general.quantization_version": ("u32", 2),
        "general.alignment": ("u32", 64),
        **{f"{A}.{key}": ("u32", value) for key, value in numbers.items()},
        f"{A}.attention.layer_norm_rms_epsilon": ("f32", 1e-6),
        f"{A}.rope.freq_base": ("f32", 1e6),
        f"{A}.vocab_size": ("u32", len(v.pieces)),
        f"{A}.output.tied": ("bool", True),
        f"{A}.vision.feature_layer": ("i32", -1),
        f"{A}.image.aspect": ("str", "squash"),
        f"{A}.image.token_id": ("u32", v.id("<image>")),
        f"{A}.projector": ("str", "mlp2x_gelu"),
        f"{A}.generation.max_new_tokens": ("u32", max_new),
        f"{A}.generation.no_repeat_ngram_size": ("u32", 0),
        **{f"{A}.prompt.{key}": ("str", text) for key, text in PROMPTS.items()},
        "clip.has_vision_encoder": ("bool", True),
        "clip.projector_type": ("str", A),
        "clip.use_gelu": ("bool", True),
        **{f"clip.vision.{key}": ("u32", value) for key, value in vision.items()},
        "clip.vision.projection_dim": ("u32", numbers["embedding_length"]),
        "clip.vision.attention.layer_norm_epsilon": ("f32", 1e-6),
        "clip.vision.image_mean": ("[f32]", [0.5, 0.5, 0.5]),
        "clip.vision.image_std": ("[f32]", [0.5, 0.5, 0.5]),
        "tokenizer.ggml.model": ("str", "gpt2"),
        "tokenizer.ggml.pre": ("str", "qwen2"),
        "tokenizer.ggml.normalizer": ("str", "nfc"),
        "tokenizer.ggml.tokens": ("[str]", v.pieces),
        "tokenizer.ggml.token_type": ("[i32]", v.types),
        "tokenizer.ggml.merges": ("[str]", pieces.merges),
        "tokenizer.ggml.eos_token_id": ("u32", v.id("<|im_end|>")),
        "tokenizer.ggml.padding_token_id": ("u32", v.id("<|endoftext|>")),
        "tokenizer.ggml.add_bos_token": ("bool", False),
        "tokenizer.ggml.add_space_prefix": ("bool", False),
    }


def weights_of(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Drawn as KOSMOS-2's, with gains that let attention choose and pictures matter."""
    gains = {"mm.0.weight": 2.0, "mm.2.weight": 0.3, "ffn_gate": 2.0}
    weights = {name: make_weight(name, shape, seed) for name, shape in shapes.items()}
    weights["token_embd.weight"] = make_weight("token_embd.rows", shapes["token_embd.weight"], seed)  # none is zero
    for name in weights:
        weights[name] *= np.float32(next((gain for part, gain in gains.items() if part in name), 1.0))
    return weights


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """transformers' gelu_pytorch_tanh."""
    cubed = x + x.dtype.type(0.044715) * x * x * x
    return x.dtype.type(0.5) * x * (1 + np.tanh(x.dtype.type(np.sqrt(2 / np.pi)) * cubed))


class LlavaQwen2Reference(LlavaReference):
    """transformers' LlavaForConditionalGeneration of a SiglipVisionConfig and a Qwen2Config."""

    architecture, output = A, "token_embd"

    def __init__(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
        super().__init__(metadata | {"tokenizer.ggml.bos_token_id": ("u32", EOS)}, weights)

    def encode_image(self, rgb: np.ndarray) -> np.ndarray:
        """All patches of the last block; the tower's last norm and its head are looked at by nobody."""
        value, w = self.metadata, self.weights
        size, patch = value["clip.vision.image_size"], value["clip.vision.patch_size"]
        eps, heads = value["clip.vision.attention.layer_norm_epsilon"], value["clip.vision.attention.head_count"]
        pixels = preprocess(rgb, size, value["clip.vision.image_mean"], value["clip.vision.image_std"])
        side = size // patch
        pixels = pixels[:, : side * patch, : side * patch]
        patches = pixels.reshape(3, side, patch, side, patch).transpose(1, 3, 0, 2, 4).reshape(side * side, -1)
        kernel = w["v.patch_embd.weight"]
        x = patches @ kernel.reshape(len(kernel), -1).T + w["v.patch_embd.bias"] + w["v.position_embd.weight"]
        for i in range(value["clip.vision.block_count"] + 1 + value[f"{A}.vision.feature_layer"]):
            b = f"v.blk.{i}."
            h = self.norm(x, b + "ln1", eps)
            q, k, v = (self.linear(h, b + "attn_" + n) for n in "qkv")
            x = x + self.linear(attention(q, k, v, heads), b + "attn_out")
            x = x + self.linear(gelu_tanh(self.linear(self.norm(x, b + "ln2", eps), b + "ffn_up")), b + "ffn_down")
        rows = self.linear(x, "mm.0")
        return rows if value[f"{A}.projector"] == "linear" else self.linear(gelu(rows), "mm.2")

    def product(self, x: np.ndarray, name: str) -> np.ndarray:
        """Queries, keys and values have a bias."""
        bias = self.weights.get(f"{name}.bias")
        return super().product(x, name) + (0 if bias is None else bias)

    def prompt(self, segments: list[list[int] | np.ndarray]) -> Prompt:
        """Nothing begins a prompt."""
        whole = super().prompt(segments)
        return Prompt(whole.ids[1:], {at - 1: row for at, row in whole.vectors.items()})


def turn(image: int, words: str) -> Segments:
    """One turn of a chat."""
    return [("tags", "<|im_start|>"), ("text", "user "), ("image", image), ("text", "\n" + words),
            ("tags", "<|im_end|><|im_start|>"), ("text", "assistant\n")]  # fmt: skip


CAPTION = "Provide a one-sentence caption for the provided image."


class LlavaQwen2(Described):
    """A chat about pictures in ChatML."""

    architecture = A
    tasks: ClassVar = ["caption", "ask", "generate", "score"]
    prompts: ClassVar = {
        "caption": turn(0, CAPTION),
        "long caption": turn(0, "Describe this image in detail."),
        "caption by beams": turn(0, CAPTION),
        "ask": turn(0, "what is this?"),
        "ask after an example": [
            *turn(0, "what color is it?")[:-1],
            ("text", "assistant\nred"),
            ("ids", [EOS]),
            *turn(1, "what is this?"),
        ],
        "generate": [("image", 0), ("text", "It is")],
        "generate from two pictures": [("image", 0), ("text", "a cat."), ("image", 1), ("text", "It is")],
        "score": turn(0, CAPTION),
    }
    accepted: ClassVar = {
        **accepted_general(A),
        **{key: v for key, v in accepted_decoder(A).items() if not key.endswith("layer_norm_epsilon")},
        f"{A}.attention.head_count": set(),  # heads share keys and values: their width changes
        f"{A}.attention.head_count_kv": {1},
        f"{A}.attention.key_length": set(),
        f"{A}.attention.layer_norm_rms_epsilon": {"max"},
        f"{A}.rope.freq_base": {1, "max"},
        f"{A}.rope.scaling.type": set(),
        f"{A}.rope.scaling.factor": {1, "max"},
        f"{A}.output.tied": {1},
        f"{A}.vision.feature_layer": {-1},
        f"{A}.image.aspect": {"pad", "squash"},
        f"{A}.image.token_id": set(),
        f"{A}.projector": {"mlp2x_gelu"},
        f"{A}.generation.stop": ANY_TEXT,
        f"{A}.prompt.follow_up": set(),
        f"{A}.vision.feature_layers": set(),
        **accepted_prompts(A, grounding=False),
        f"{A}.prompt.system": ANY_TEXT,
        **accepted_vision(),
        "clip.use_gelu": {1},
        "clip.vision.block_count": set(),
        "tokenizer.ggml.model": set(),
        "tokenizer.ggml.pre": {"gpt-2", "llama-bpe", "dbrx", "qwen2"},
        "tokenizer.ggml.normalizer": {"nfc"},
        "tokenizer.ggml.tokens": set(),
        "tokenizer.ggml.token_type": set(),
        "tokenizer.ggml.merges": {"empty", "fewer"},
        "tokenizer.ggml.bos_token_id": set(),
        "tokenizer.ggml.eos_token_id": set(),
        "tokenizer.ggml.unknown_token_id": set(),
        "tokenizer.ggml.padding_token_id": set(),
        "tokenizer.ggml.add_bos_token": {0, 1},
        "tokenizer.ggml.add_space_prefix": {0},
    }
    piece_texts: ClassVar = {"x" * 1024, spell("\x1b[0m")}  # in the alphabet of bytes

    def make(self, seed: int) -> Tiny:
        """Sizes that every stored type fits."""
        weights = weights_of(tensor_shapes(NUMBERS, VISION, len(PIECES.pieces)), seed)
        weights["token_embd.weight"][PIECES.vocabulary.id("<image>")] = 0  # it never comes, as in the engine
        return Tiny(TinyConfig(), PIECES.vocabulary, weights, metadata_of(NUMBERS, VISION, PIECES, 512))

    def define(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> LlavaQwen2Reference:
        """Above."""
        return LlavaQwen2Reference(metadata, weights)

    def prompt(self, name: str, tokenizer: _core.Tokenizer, pictures: list[np.ndarray]) -> Any:
        """Texts between images and tags are encoded by themselves."""
        encode = {"text": tokenizer.encode, "tags": tokenizer.encode_with_tags, "ids": list}
        return self.definition.prompt(
            [
                self.definition.encode_image(pictures[value]) if kind == "image" else encode[kind](value)
                for kind, value in self.prompts[name]
            ]
        )

    def small(self) -> GgufContent:
        """The bytes, a word, and pieces that nothing needs."""
        pieces = Pieces("an", [f"plain{i}" for i in range(10)])
        metadata = metadata_of(SMALL, SMALL_VISION, pieces, 8)
        metadata[f"{A}.vision.feature_layers"] = ("[i32]", [-1])
        tensors = {
            name: StoredTensor("F32", array.shape, array.astype("<f4").tobytes())
            for name, array in weights_of(tensor_shapes(SMALL, SMALL_VISION, len(pieces.pieces)), 0).items()
        }
        return GgufContent(metadata, tensors)

    def write_checkpoint(self, folder: Path) -> Path:
        """transformers' layout; the tower's last norm and its head are looked at by nobody."""
        folder.mkdir(parents=True)
        text, vision = NUMBERS, VISION
        config = {
            "model_type": "llava", "image_token_index": self.tiny.vocabulary.id("<image>"), "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full", "projector_hidden_act": "gelu", "tie_word_embeddings": True,
            "text_config": {
                "model_type": "qwen2", "vocab_size": len(self.tiny.vocabulary.pieces), "rms_norm_eps": 1e-6,
                "hidden_size": text["embedding_length"], "intermediate_size": text["feed_forward_length"],
                "num_hidden_layers": text["block_count"], "num_attention_heads": text["attention.head_count"],
                "num_key_value_heads": text["attention.head_count_kv"], "rope_theta": 1e6,
                "max_position_embeddings": text["context_length"], "tie_word_embeddings": True,
            },
            "vision_config": {
                "model_type": "siglip_vision_model", "hidden_size": vision["embedding_length"],
                "intermediate_size": vision["feed_forward_length"], "num_hidden_layers": vision["block_count"],
                "num_attention_heads": vision["attention.head_count"], "image_size": vision["image_size"],
                "patch_size": vision["patch_size"], "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
            },
        }  # fmt: skip
        write_json(
            folder,
            config=config,
            preprocessor_config=preprocessor(vision["image_size"]),
            tokenizer=tokenizer_json(PIECES.pieces, PIECES.merges, ADDED),
            tokenizer_config=tokenizer_config(),
        )
        state = {published(name): (array.shape, array.tobytes()) for name, array in self.tiny.weights.items()}
        norm = "vision_tower.vision_model.post_layernorm."
        width = vision["embedding_length"]
        state |= {norm + "weight": ((width,), bytes(4 * width)), norm + "bias": ((width,), bytes(4 * width))}
        (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(state, "F32"))
        return folder
