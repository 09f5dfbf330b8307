"""IDEFICS for the suite: a tiny tower, a perceiver whose heads are 96 wide, and a LLaMA of four blocks, two of which
look at images."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from helpers.convert_checkpoint import convert_safetensors_bytes
from helpers.llava_checkpoint import write_json
from helpers.reference import Prompt, attention, gelu, layer_norm, preprocess
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
from models.llava import FIRST_ALONE, PIECES, LlavaReference, rms

A = "idefics"
MARK, IMAGE, TURN_END = ADDED = ("<fake_token_around_image>", "<image>", "<end_of_utterance>")
PROMPTS = {
    "caption": "User:{image}Describe this image.<end_of_utterance>\nAssistant:",
    "caption_detailed": "User:{image}Describe this image in detail.<end_of_utterance>\nAssistant:",
    "question": "User:{image}{question}<end_of_utterance>\nAssistant:",
}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
NUMBERS = {
    "context_length": 512, "embedding_length": 256, "block_count": 4, "feed_forward_length": 512,
    "attention.head_count": 4, "attention.head_count_kv": 4, "attention.key_length": 64,
}  # fmt: skip
EVERY = 2
PERCEIVER = {
    "block_count": 2, "attention.head_count": 2, "attention.key_length": 96, "feed_forward_length": 1024,
    "query_count": 8,
}  # fmt: skip
VISION = {
    "image_size": 56, "patch_size": 14, "embedding_length": 256, "feed_forward_length": 512, "block_count": 2,
    "attention.head_count": 4,
}  # fmt: skip
SMALL = {
    "context_length": 64, "embedding_length": 16, "block_count": 1, "feed_forward_length": 16,
    "attention.head_count": 2, "attention.head_count_kv": 2, "attention.key_length": 8,
}  # fmt: skip
SMALL_PERCEIVER = {
    "block_count": 1, "attention.head_count": 1, "attention.key_length": 16, "feed_forward_length": 64,
    "query_count": 2,
}  # fmt: skip
SMALL_VISION = {
    "image_size": 28, "patch_size": 14, "embedding_length": 16, "feed_forward_length": 16, "block_count": 1,
    "attention.head_count": 2,
}  # fmt: skip
GATES = {"attn": 0.9, "ffn": -0.6}


def tensor_shapes(
    numbers: dict[str, int], perceiver: dict[str, int], vision: dict[str, int], vocab: int
) -> dict[str, tuple[int, ...]]:
    """Every tensor of a file with norms of heads, in file order."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, *shape: int) -> None:
        shapes[name + ".weight"], shapes[name + ".bias"] = shape, shape[:1]

    d, ff, head = numbers["embedding_length"], numbers["feed_forward_length"], numbers["attention.key_length"]
    q, v = numbers["attention.head_count"] * head, vision["embedding_length"]
    shapes["token_embd.weight"] = (vocab, d)
    for i in range(numbers["block_count"]):
        for b, kv in ((f"blk.{i}.", d), (f"blk.{i}.cross.", v)):
            if "cross" in b and i % EVERY:
                continue
            shapes |= {
                b + "attn_norm.weight": (d,), b + "attn_q.weight": (q, d), b + "attn_k.weight": (q, kv),
                b + "attn_v.weight": (q, kv), b + "attn_output.weight": (d, q), b + "ffn_norm.weight": (d,),
                b + "ffn_gate.weight": (ff, d), b + "ffn_up.weight": (ff, d), b + "ffn_down.weight": (d, ff),
            }  # fmt: skip
            if "cross" in b:
                shapes |= {f"{b}attn_{n}_norm.weight": (head,) for n in "qk"}
                shapes |= {b + "attn_alpha": (1,), b + "ffn_alpha": (1,)}
    shapes["output_norm.weight"], shapes["output.weight"] = (d,), (vocab, d)
    patch = vision["patch_size"]
    shapes["v.class_embd"] = (v,)
    shapes["v.patch_embd.weight"] = (v, 3, patch, patch)
    shapes["v.position_embd.weight"] = ((vision["image_size"] // patch) ** 2 + 1, v)
    linear("v.pre_ln", v)
    for i in range(vision["block_count"]):
        b = f"v.blk.{i}."
        linear(b + "ln1", v)
        for n in ("q", "k", "v", "out"):
            linear(f"{b}attn_{n}", v, v)
        linear(b + "ln2", v)
        linear(b + "ffn_up", vision["feed_forward_length"], v)
        linear(b + "ffn_down", v, vision["feed_forward_length"])
    inner = perceiver["attention.head_count"] * perceiver["attention.key_length"]
    shapes["mm.query"] = (perceiver["query_count"], v)
    for i in range(perceiver["block_count"]):
        b = f"mm.blk.{i}."
        linear(b + "attn_norm", v)
        linear(b + "context_norm", v)
        shapes |= {f"{b}attn_{n}.weight": (inner, v) for n in "qkv"}
        for n in "qk":
            linear(f"{b}attn_{n}_norm", perceiver["attention.key_length"])
        shapes[b + "attn_output.weight"] = (v, inner)
        linear(b + "ffn_norm", v)
        shapes[b + "ffn_up.weight"] = (perceiver["feed_forward_length"], v)
        shapes[b + "ffn_down.weight"] = (v, perceiver["feed_forward_length"])
    linear("mm.output_norm", v)
    return shapes


def metadata_of(
    numbers: dict[str, int], perceiver: dict[str, int], vision: dict[str, int], v: TinyVocabulary, max_new: int
) -> dict[str, Any]:
    """Every key of a complete file; the checksums are added by `write_tiny`."""
    return {
        "general.architecture": ("str", A),
        "general.name": ("str", "tiny"),
        "general.file_type": ("u32", 0),
        "general.quantization_version": ("u32", 2),
        "general.alignment": ("u32", 64),
        **{f"{A}.{key}": ("u32", value) for key, value in numbers.items()},
        f"{A}.attention.layer_norm_rms_epsilon": ("f32", 1e-6),
        f"{A}.rope.freq_base": ("f32", 10000.0),
        f"{A}.vocab_size": ("u32", len(v.pieces)),
        f"{A}.cross_attention.every": ("u32", EVERY),
        f"{A}.cross_attention.head_norms": ("bool", True),
        **{f"{A}.perceiver.{key}": ("u32", value) for key, value in perceiver.items()},
        f"{A}.perceiver.attention.head_norms": ("bool", True),
        f"{A}.perceiver.attention.layer_norm_epsilon": ("f32", 1e-5),
        f"{A}.image.token_id": ("u32", v.id(IMAGE)),
        f"{A}.image.mark_token_id": ("u32", v.id(MARK)),
        f"{A}.generation.max_new_tokens": ("u32", max_new),
        f"{A}.generation.no_repeat_ngram_size": ("u32", 0),
        f"{A}.generation.end_token_id": ("u32", v.id(TURN_END)),
        **{f"{A}.prompt.{key}": ("str", text) for key, text in PROMPTS.items()},
        "clip.has_vision_encoder": ("bool", True),
        "clip.projector_type": ("str", A),
        "clip.use_gelu": ("bool", True),
        **{f"clip.vision.{key}": ("u32", value) for key, value in vision.items()},
        "clip.vision.projection_dim": ("u32", vision["embedding_length"]),
        "clip.vision.attention.layer_norm_epsilon": ("f32", 1e-5),
        "clip.vision.image_mean": ("[f32]", list(MEAN)),
        "clip.vision.image_std": ("[f32]", list(STD)),
        "tokenizer.ggml.model": ("str", "llama"),
        "tokenizer.ggml.tokens": ("[str]", v.pieces),
        "tokenizer.ggml.scores": ("[f32]", v.scores),
        "tokenizer.ggml.token_type": ("[i32]", v.types),
        "tokenizer.ggml.bos_token_id": ("u32", 1),
        "tokenizer.ggml.eos_token_id": ("u32", 2),
        "tokenizer.ggml.unknown_token_id": ("u32", 0),
        "tokenizer.ggml.add_bos_token": ("bool", True),
        "tokenizer.ggml.add_space_prefix": ("bool", True),
        "tokenizer.ggml.remove_extra_whitespaces": ("bool", False),
        "tokenizer.ggml.space_prefix_every_segment": ("bool", False),  # transformers' legacy: false
        "tokenizer.ggml.space_prefix_before_space": ("bool", False),
    }


def weights_of(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Drawn as KOSMOS-2's, with gains that let attention choose and pictures matter."""
    gains = {"output.weight": 0.5, "ffn_gate": 2.0}
    drawn = {"token_embd.weight": "token_embd.rows", "mm.query": "mm.latent_query"}
    weights = {name: make_weight(drawn.get(name, name), shape, seed) for name, shape in shapes.items()}
    for name in weights:
        weights[name] *= np.float32(next((gain for part, gain in gains.items() if part in name), 1.0))
        if name.endswith("_alpha"):
            weights[name] = np.array([GATES[name.split(".")[-1].removesuffix("_alpha")]], np.float32)
    return weights


class IdeficsReference(LlavaReference):
    """IDEFICS over weights by GGUF name (transformers IdeficsForVisionText2Text); LLaMA and the searches are
    inherited."""

    def __init__(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
        value = {key: entry[1] for key, entry in metadata.items()}
        self.metadata, self.weights, self.dtype = value, weights, np.float32
        self.own = {key.removeprefix(f"{A}."): entry for key, entry in value.items() if key.startswith(f"{A}.")}
        self.width, self.layers = self.own["embedding_length"], self.own["block_count"]
        self.heads, self.kv_heads = self.own["attention.head_count"], self.own["attention.head_count_kv"]
        self.eps, self.base = self.own["attention.layer_norm_rms_epsilon"], self.own["rope.freq_base"]
        self.bos, self.eos = value["tokenizer.ggml.bos_token_id"], self.own["generation.end_token_id"]
        self.document_end = value["tokenizer.ggml.eos_token_id"]
        self.image_id, self.mark = self.own["image.token_id"], self.own["image.mark_token_id"]
        self.looks: list[tuple[int, np.ndarray | None]] = []  # from which position on rows look at which image

    def vision(self, rgb: np.ndarray) -> np.ndarray:
        """The last block's rows, the class token's first, without a norm behind them."""
        value, w = self.metadata, self.weights
        size, patch = value["clip.vision.image_size"], value["clip.vision.patch_size"]
        eps, heads = value["clip.vision.attention.layer_norm_epsilon"], value["clip.vision.attention.head_count"]
        pixels = preprocess(rgb, size, value["clip.vision.image_mean"], value["clip.vision.image_std"])
        side = size // patch
        patches = pixels.reshape(3, side, patch, side, patch).transpose(1, 3, 0, 2, 4).reshape(side * side, -1)
        kernel = w["v.patch_embd.weight"].reshape(len(w["v.class_embd"]), -1)
        x = np.concatenate([w["v.class_embd"][None], patches @ kernel.T]) + w["v.position_embd.weight"]
        x = self.norm(x, "v.pre_ln", eps)
        for i in range(value["clip.vision.block_count"]):
            b = f"v.blk.{i}."
            h = self.norm(x, b + "ln1", eps)
            q, k, v = (self.linear(h, b + "attn_" + n) for n in "qkv")
            x = x + self.linear(attention(q, k, v, heads), b + "attn_out")
            x = x + self.linear(gelu(self.linear(self.norm(x, b + "ln2", eps), b + "ffn_up")), b + "ffn_down")
        return x

    def head_norm(self, x: np.ndarray, name: str, heads: int, eps: float) -> np.ndarray:
        """A layer norm of every head's values."""
        w = self.weights
        each = x.reshape(len(x), heads, -1)
        return layer_norm(each, w[name + ".weight"], w[name + ".bias"], eps).reshape(x.shape)

    def encode_image(self, rgb: np.ndarray) -> np.ndarray:
        """IdeficsPerceiverResampler: keys and values of the image, then of the latents."""
        w, own, context = self.weights, self.own, self.vision(rgb)
        heads, eps = own["perceiver.attention.head_count"], own["perceiver.attention.layer_norm_epsilon"]
        x = w["mm.query"]
        for i in range(own["perceiver.block_count"]):
            b = f"mm.blk.{i}."
            latents = self.norm(x, b + "attn_norm", eps)
            seen = np.concatenate([self.norm(context, b + "context_norm", eps), latents])
            q, k, v = (rows @ w[f"{b}attn_{n}.weight"].T for n, rows in zip("qkv", (latents, seen, seen), strict=True))
            if own["perceiver.attention.head_norms"]:
                q = self.head_norm(q, b + "attn_q_norm", heads, eps)
                k = self.head_norm(k, b + "attn_k_norm", heads, eps)
            x = x + attention(q, k, v, heads) @ w[b + "attn_output.weight"].T
            hidden = np.maximum(self.norm(x, b + "ffn_norm", eps) @ w[b + "ffn_up.weight"].T, 0)
            x = x + hidden @ w[b + "ffn_down.weight"].T
        return self.norm(x, "mm.output_norm", eps)

    def prompt(self, segments: list[list[int] | np.ndarray]) -> Prompt:
        """IdeficsProcessor: neighbours share the mark between them. A token looks at the last image before it, <image>
        at its own; behind the end of a document nothing is seen."""
        ids, self.looks, image_before = [self.bos], [], False
        for segment in segments:
            if isinstance(segment, np.ndarray):
                ids += [] if image_before else [self.mark]
                self.looks.append((len(ids), segment))
                ids += [self.image_id, self.mark]
            else:
                for token in segment:
                    ids.append(token)
                    if token == self.document_end:
                        self.looks.append((len(ids), None))
            image_before = isinstance(segment, np.ndarray)
        return Prompt(ids, {})

    def before_block(self, i: int, x: np.ndarray, first: int) -> np.ndarray:
        """IdeficsGatedCrossAttentionLayer; what looks at nothing has the feed-forward alone."""
        if i % self.own["cross_attention.every"]:
            return x
        w, b, x = self.weights, f"blk.{i}.cross.", x.copy()

        def heads_of(rows: np.ndarray, name: str) -> np.ndarray:
            rows = rows @ w[f"{b}attn_{name}.weight"].T
            if name == "v" or not self.own["cross_attention.head_norms"]:
                return rows
            each = rows.reshape(len(rows), self.heads, -1)
            return rms(each, w[f"{b}attn_{name}_norm.weight"], self.eps).reshape(rows.shape)

        for r in range(len(x)):
            seen = next((features for at, features in reversed(self.looks) if at <= first + r), None)
            if seen is not None:
                q = heads_of(rms(x[r : r + 1], w[b + "attn_norm.weight"], self.eps), "q")
                a = attention(q, heads_of(seen, "k"), heads_of(seen, "v"), self.heads)
                x[r] += np.tanh(w[b + "attn_alpha"][0]) * (a @ w[b + "attn_output.weight"].T)[0]
        h = rms(x, w[b + "ffn_norm.weight"], self.eps)
        opened = h @ w[b + "ffn_gate.weight"].T
        hidden = opened / (1 + np.exp(-opened)) * (h @ w[b + "ffn_up.weight"].T)
        return x + np.tanh(w[b + "ffn_alpha"][0]) * (hidden @ w[b + "ffn_down.weight"].T)


PIECE_IDS = len(PIECES.pieces)
END = PIECE_IDS + ADDED.index(TURN_END)


def turn(image: int, words: str, before: str = "User:") -> Segments:
    """A question and the beginning of its answer."""
    return [("text", before), ("image", image), ("text", words), ("ids", [END]), ("text", "\nAssistant:")]


class Idefics(Described):
    """The instructed model: a chat about pictures, without location tokens."""

    architecture = A
    tasks: ClassVar = ["caption", "ask", "generate", "score"]
    prompts: ClassVar[dict[str, Segments]] = {
        "caption": turn(0, "Describe this image."),
        "long caption": turn(0, "Describe this image in detail."),
        "caption by beams": turn(0, "Describe this image."),
        "ask": turn(0, "what is this?"),
        "ask after an example": [
            *turn(0, "what color is it?")[:-1],
            ("text", "\nAssistant: red"),
            ("ids", [END]),
            *turn(1, "what is this?", "\nUser:"),
        ],
        "generate": [("image", 0), ("text", "It is")],
        "generate from two pictures": [("image", 0), ("text", "a cat."), ("image", 1), ("text", "It is")],
        "score": turn(0, "Describe this image."),
    }
    accepted: ClassVar = {
        **accepted_general(A),
        **{key: v for key, v in accepted_decoder(A).items() if not key.endswith("layer_norm_epsilon")},
        f"{A}.attention.head_count": set(),
        f"{A}.attention.head_count_kv": set(),
        f"{A}.attention.key_length": set(),
        f"{A}.attention.layer_norm_rms_epsilon": {"max"},
        f"{A}.rope.freq_base": {1, "max"},
        f"{A}.rope.scaling.type": set(),
        f"{A}.rope.scaling.factor": {1, "max"},
        f"{A}.cross_attention.every": {1, "max"},
        f"{A}.cross_attention.head_norms": {1},
        f"{A}.perceiver.block_count": {1},
        f"{A}.perceiver.attention.head_count": {1},
        f"{A}.perceiver.attention.key_length": set(),
        f"{A}.perceiver.attention.head_norms": {1},
        f"{A}.perceiver.attention.layer_norm_epsilon": {"max"},
        f"{A}.perceiver.feed_forward_length": set(),
        f"{A}.perceiver.query_count": set(),
        f"{A}.image.token_id": {0, 1},
        f"{A}.image.mark_token_id": {0, 1},
        f"{A}.generation.end_token_id": {0, 1},
        **accepted_prompts(A, grounding=False),
        f"{A}.prompt.system": ANY_TEXT,
        **accepted_vision(),
        "clip.use_gelu": {1},
        "tokenizer.ggml.model": set(),
        "tokenizer.ggml.tokens": set(),
        "tokenizer.ggml.scores": {0, 1, -1, "max"},
        "tokenizer.ggml.token_type": set(),
        "tokenizer.ggml.bos_token_id": {1},
        "tokenizer.ggml.eos_token_id": set(),
        "tokenizer.ggml.unknown_token_id": {0},
        "tokenizer.ggml.padding_token_id": set(),
        "tokenizer.ggml.add_bos_token": {1},
        **{
            f"tokenizer.ggml.{key}": {0, 1}
            for key in (
                "add_space_prefix",
                "remove_extra_whitespaces",
                "space_prefix_every_segment",
                "space_prefix_before_space",
            )
        },
        "tokenizer.ggml.precompiled_charsmap": {"empty"},
    }

    looked_at: ClassVar = (PERCEIVER["query_count"], VISION["embedding_length"])

    def make(self, seed: int) -> Tiny:
        """Sizes that every stored type fits, but the perceiver's heads, which k-quants do not fit."""
        v = TinyVocabulary([*PIECES.pieces, *ADDED], [*PIECES.scores, 0.0, 0.0, 0.0], [*PIECES.types, 4, 4, 4])
        weights = weights_of(tensor_shapes(NUMBERS, PERCEIVER, VISION, len(v.pieces)), seed)
        weights["output.weight"][[v.id(MARK), v.id(IMAGE)]] = 0  # the searches do not know that they never come
        return Tiny(TinyConfig(), v, weights, metadata_of(NUMBERS, PERCEIVER, VISION, v, 128))

    def define(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> IdeficsReference:
        """Above."""
        return IdeficsReference(metadata, weights)

    def prompt(self, name: str, tokenizer: _core.Tokenizer, pictures: list[np.ndarray]) -> Any:
        """No text begins a prompt: <s> is a part of it to the processor."""
        segments = []
        for kind, value in self.prompts[name]:
            if kind == "image":
                segments.append(self.definition.encode_image(pictures[value]))
            else:
                segments.append(value if kind == "ids" else tokenizer.encode(value, at_start=False))
        return self.definition.prompt(segments)

    def small(self) -> GgufContent:
        """Without bytes: what is no piece is unknown."""
        pieces = ["<unk>", "<s>", "</s>", *"▁animge.", "▁a", "▁An", "▁i", "▁im", "▁o", "▁of", *ADDED]
        count = len(pieces)
        types = [2, 3, 3, *[1] * (count - 6), 4, 4, 4]
        v = TinyVocabulary(pieces, [-0.5 * i for i in range(count)], types)
        metadata = metadata_of(SMALL, SMALL_PERCEIVER, SMALL_VISION, v, 8)
        metadata["tokenizer.ggml.precompiled_charsmap"] = ("[u8]", [])
        shapes = tensor_shapes(SMALL, SMALL_PERCEIVER, SMALL_VISION, count)
        tensors = {
            name: StoredTensor("F32", array.shape, array.astype("<f4").tobytes())
            for name, array in weights_of(shapes, 0).items()
        }
        return GgufContent(metadata, tensors)

    def write_checkpoint(self, folder: Path) -> Path:
        """transformers' layout."""
        folder.mkdir(parents=True)
        write_json(
            folder,
            config=config(),
            preprocessor_config=preprocessor_config(VISION["image_size"]),
            tokenizer={**PIECES.tokenizer_json(ADDED), "normalizer": None, "pre_tokenizer": FIRST_ALONE},
            tokenizer_config=TOKENIZER_CONFIG,
        )
        state = {name: (array.shape, array.tobytes()) for name, array in published(self.tiny.weights).items()}
        (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(state, "F32"))
        return folder


TOKENIZER_CONFIG = {
    "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
    "pad_token": "<unk>", "legacy": False,
}  # fmt: skip


def config() -> dict[str, Any]:
    """config.json of the tiny model."""
    n, p, v = NUMBERS, PERCEIVER, VISION
    return {
        "model_type": A, "vocab_size": PIECE_IDS, "additional_vocab_size": len(ADDED),
        "hidden_size": n["embedding_length"], "intermediate_size": n["feed_forward_length"],
        "num_hidden_layers": n["block_count"], "num_attention_heads": n["attention.head_count"],
        "max_position_embeddings": n["context_length"], "rms_norm_eps": 1e-6, "cross_layer_interval": EVERY,
        "qk_layer_norms": True, "alpha_type": "float", "use_resampler": True, "hidden_act": "silu",
        "tie_word_embeddings": False,
        "vision_config": {
            "embed_dim": v["embedding_length"], "intermediate_size": v["feed_forward_length"],
            "num_hidden_layers": v["block_count"], "num_attention_heads": v["attention.head_count"],
            "image_size": v["image_size"], "patch_size": v["patch_size"], "hidden_act": "gelu",
        },
        "perceiver_config": {
            "use_resampler": True, "resampler_n_latents": p["query_count"], "resampler_depth": p["block_count"],
            "resampler_n_heads": p["attention.head_count"], "resampler_head_dim": p["attention.key_length"],
            "qk_layer_norms_perceiver": True,
        },
    }  # fmt: skip


def preprocessor_config(size: int) -> dict[str, Any]:
    """IdeficsImageProcessor's, as published."""
    return {
        "image_processor_type": "IdeficsImageProcessor", "image_num_channels": 3, "image_size": size,
        "image_mean": list(MEAN), "image_std": list(STD),
    }  # fmt: skip


DECODER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
CROSS = {name: theirs.replace("self_attn", "cross_attn") for name, theirs in DECODER.items()} | {
    "attn_q_norm": "cross_attn.q_layer_norm", "attn_k_norm": "cross_attn.k_layer_norm",
    "attn_alpha": "alpha_cross_attn", "ffn_alpha": "alpha_dense",
}  # fmt: skip
TOWER = {
    "ln1": "layer_norm1", "ln2": "layer_norm2", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_out": "self_attn.out_proj", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2",
}  # fmt: skip
READER = {
    "attn_norm": "0.latents_layer_norm", "context_norm": "0.context_layer_norm", "attn_q": "0.q_proj",
    "attn_k": "0.k_proj", "attn_v": "0.v_proj", "attn_output": "0.output_proj", "attn_q_norm": "0.q_layer_norm",
    "attn_k_norm": "0.k_layer_norm", "ffn_norm": "1.ln", "ffn_up": "1.fc", "ffn_down": "1.c_proj",
}  # fmt: skip
OTHER = {
    "output_norm": "model.norm", "mm.output_norm": "model.perceiver_resampler.layer_norm",
    "v.pre_ln": "model.vision_model.pre_layrnorm",
    "v.patch_embd": "model.vision_model.embeddings.patch_embedding",
    "v.position_embd": "model.vision_model.embeddings.position_embedding",
}  # fmt: skip
WHOLE = {
    "v.class_embd": "model.vision_model.embeddings.class_embedding", "mm.query": "model.perceiver_resampler.latents",
}  # fmt: skip
SPLIT = {
    "token_embd.weight": ("model.embed_tokens.weight", "model.embed_tokens.additional_embedding.weight"),
    "output.weight": ("lm_head.weight", "lm_head.additional_fc.weight"),
}


def published_name(name: str) -> str:
    """transformers' name of a tensor that is not split."""
    if name in WHOLE:
        return WHOLE[name]
    if name.endswith("_alpha"):
        _, layer, _, part = name.split(".")
        return f"model.gated_cross_attn_layers.{int(layer) // EVERY}.{CROSS[part]}"
    base, _, kind = name.rpartition(".")
    parts = base.split(".")
    if parts[0] == "blk" and parts[2] == "cross":
        return f"model.gated_cross_attn_layers.{int(parts[1]) // EVERY}.{CROSS[parts[3]]}.{kind}"
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{DECODER[parts[2]]}.{kind}"
    if parts[:2] == ["v", "blk"]:
        return f"model.vision_model.encoder.layers.{parts[2]}.{TOWER[parts[3]]}.{kind}"
    if parts[:2] == ["mm", "blk"]:
        return f"model.perceiver_resampler.blocks.{parts[2]}.{READER[parts[3]]}.{kind}"
    return f"{OTHER[base]}.{kind}"


def published(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights under transformers' names: rows of added tokens by themselves, a norm that nobody reads."""
    state: dict[str, np.ndarray] = {}
    for name, array in weights.items():
        if name in SPLIT:
            first, added = SPLIT[name]
            state[first], state[added] = array[:PIECE_IDS], array[PIECE_IDS:]
        else:
            state[published_name(name)] = array
    width = VISION["embedding_length"]
    for kind in ("weight", "bias"):
        state[f"model.vision_model.post_layernorm.{kind}"] = np.full(width, 0.5, np.float32)
    return state
