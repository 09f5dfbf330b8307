"""KOSMOS-2.5 for the suite: a tiny reader of pages, as the chat model, which has a prompt of its own.

Its definition does everything the long way round: whitened pixels, all rows of the padding, a table of segments.
"""

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from helpers.convert_checkpoint import convert_safetensors_bytes
from helpers.kosmos2_5_checkpoint import (
    GENERATION,
    TOKENIZER_CONFIG,
    PageVocabulary,
    config,
    preprocessor,
    spell,
    write_json,
)
from helpers.reference import Prompt, Reference, State, attention, gelu, sinusoid
from helpers.tiny import GgufContent, StoredTensor, Tiny, TinyConfig, TinyVocabulary, make_weight
from PIL import Image

from models.description import (
    ANY_TEXT,
    Described,
    Segments,
    accepted_decoder,
    accepted_general,
    accepted_slots,
)

A = "kosmos2_5"
EOS = 2
CHAT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. USER: {question} ASSISTANT:"
)
NUMBERS = {
    "context_length": 512, "embedding_length": 256, "block_count": 2, "feed_forward_length": 512,
    "attention.head_count": 4, "image_token_count": 12, "vision.max_patches": 24,
}  # fmt: skip
VISION = {
    "patch_size": 4, "embedding_length": 256, "feed_forward_length": 288, "block_count": 2, "attention.head_count": 4,
}  # fmt: skip
SMALL = {
    "context_length": 64, "embedding_length": 16, "block_count": 1, "feed_forward_length": 16,
    "attention.head_count": 2, "image_token_count": 3, "vision.max_patches": 9,
}  # fmt: skip
SMALL_VISION = {
    "patch_size": 2, "embedding_length": 16, "feed_forward_length": 16, "block_count": 1, "attention.head_count": 2,
}  # fmt: skip
VOCABULARY = PageVocabulary()


def tensor_shapes(numbers: dict[str, int], vision: dict[str, int], vocab: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of a file, in file order."""
    d, ff = numbers["embedding_length"], numbers["feed_forward_length"]
    v, hidden, patches = vision["embedding_length"], vision["feed_forward_length"], numbers["vision.max_patches"]
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocab, d), "segment_embd.weight": (2, d)}

    def biased(prefix: str, parts: dict[str, tuple[int, ...]]) -> None:
        for name, shape in parts.items():
            shapes.update({f"{prefix}{name}.weight": shape, f"{prefix}{name}.bias": shape[:1]})

    for i in range(numbers["block_count"]):
        square = {f"attn_{x}": (d, d) for x in ("q", "k", "v", "output")}
        feed = {"ffn_norm": (d,), "ffn_up": (ff, d), "ffn_sub_norm": (ff,), "ffn_down": (d, ff)}
        biased(f"blk.{i}.", {"attn_norm": (d,), **square, **feed})
    biased("", {"output_norm": (d,), "v.patch_embd": (v, 3 * vision["patch_size"] ** 2)})
    shapes |= {"v.row_embd.weight": (patches, v), "v.col_embd.weight": (patches, v)}
    for i in range(vision["block_count"]):
        b = f"v.blk.{i}."
        shapes[f"{b}ln1.weight"] = (v,)
        shapes |= {f"{b}attn_{x}.weight": (v, v) for x in ("q", "k", "v", "out")}
        shapes[f"{b}ln2.weight"] = (v,)
        shapes |= {f"{b}ffn_gate.weight": (hidden, v), f"{b}ffn_up.weight": (hidden, v)}
        shapes[f"{b}ffn_down.weight"] = (v, hidden)
    shapes |= {"v.post_ln.weight": (v,), "mm.latent_query": (numbers["image_token_count"], d)}
    biased("mm.", {"dense": (d, v), **{f"attn_{x}": (d, d) for x in ("q", "k", "v", "out")}})
    return shapes


def metadata_of(numbers: dict[str, int], vision: dict[str, int], v: PageVocabulary, max_new: int) -> dict[str, Any]:
    """Every key of a complete file; the checksums are added by `write_tiny`."""
    return {
        "general.architecture": ("str", A),
        "general.name": ("str", "tiny"),
        "general.file_type": ("u32", 0),
        "general.quantization_version": ("u32", 2),
        "general.alignment": ("u32", 64),
        **{f"{A}.{key}": ("u32", value) for key, value in numbers.items()},
        f"{A}.attention.layer_norm_epsilon": ("f32", 1e-5),
        f"{A}.vocab_size": ("u32", len(v.pieces)),
        f"{A}.first_slot_token_id": ("u32", 0),
        f"{A}.generation.max_new_tokens": ("u32", max_new),
        f"{A}.generation.no_repeat_ngram_size": ("u32", 0),
        f"{A}.prompt.read": ("str", "<ocr>"),
        f"{A}.prompt.markdown": ("str", "<md>"),
        f"{A}.prompt.question": ("str", f"<md>{CHAT}"),
        "clip.has_vision_encoder": ("bool", True),
        "clip.projector_type": ("str", A),
        **{f"clip.vision.{key}": ("u32", value) for key, value in vision.items()},
        "clip.vision.projection_dim": ("u32", numbers["embedding_length"]),
        "clip.vision.attention.layer_norm_epsilon": ("f32", 1e-6),
        "tokenizer.ggml.model": ("str", "gpt2"),
        "tokenizer.ggml.pre": ("str", "dbrx"),
        "tokenizer.ggml.tokens": ("[str]", v.pieces),
        "tokenizer.ggml.token_type": ("[i32]", v.types),
        "tokenizer.ggml.merges": ("[str]", v.merges),
        "tokenizer.ggml.bos_token_id": ("u32", 0),
        "tokenizer.ggml.eos_token_id": ("u32", EOS),
        "tokenizer.ggml.padding_token_id": ("u32", 1),
        "tokenizer.ggml.add_bos_token": ("bool", False),
        "tokenizer.ggml.add_space_prefix": ("bool", False),
    }


def weights_of(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Drawn as KOSMOS-2's, with tables that matter."""
    weights = {name: make_weight(name, shape, seed) for name, shape in shapes.items()}
    for name in ("segment_embd.weight", "v.row_embd.weight", "v.col_embd.weight"):
        weights[name] *= np.float32(0.3 * math.sqrt(shapes[name][1]))
    return weights


def whitened_grid(rgb: np.ndarray, patch: int, most: int) -> tuple[int, int, np.ndarray]:
    """transformers' Kosmos2_5ImageProcessor: -> rows, columns, (rows * columns, patch * patch * 3).

    Pixels are whitened together, over all channels, before they are resized; small pictures are enlarged. Pillow's
    resize of floats has the triangle filter with antialiasing, as torch's has.
    """
    height, width, _ = rgb.shape
    pixels = rgb.astype(np.float64)
    white = (pixels - pixels.mean()) / max(pixels.std(), 1 / math.sqrt(pixels.size))
    scale = math.sqrt(most * (patch / height) * (patch / width))
    rows, columns = (max(1, min(math.floor(scale * side / patch), most)) for side in (height, width))
    size = (columns * patch, rows * patch)
    channels = [
        np.asarray(Image.fromarray(white[..., c].astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
        for c in range(3)
    ]
    grid = np.stack(channels, -1).reshape(rows, patch, columns, patch, 3).transpose(0, 2, 1, 3, 4)
    return rows, columns, grid.reshape(rows * columns, patch * patch * 3)


def rms(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return weight * (x / np.sqrt((x * x).mean(-1, keepdims=True) + x.dtype.type(eps)))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """The third of the model's family: the gate of its encoder."""
    inner = x.dtype.type(math.sqrt(2 / math.pi)) * (x + x.dtype.type(0.044715) * x**3)
    return x * (np.tanh(inner) + 1) / 2


class Kosmos2_5Reference(Reference):
    """KOSMOS-2.5 over weights by GGUF name (transformers modeling_kosmos2_5.py); the searches are inherited."""

    def vision_rows(self, rgb: np.ndarray) -> np.ndarray:
        """(max_patches, vision width), each row of length 1: the padding is a patch of zeros at (0, 0)."""
        value, w = self.metadata, self.weights
        most, eps = value[f"{A}.vision.max_patches"], value["clip.vision.attention.layer_norm_epsilon"]
        rows, columns, patches = whitened_grid(rgb, value["clip.vision.patch_size"], most)
        seen = rows * columns
        flat = np.zeros((most, patches.shape[1]), self.dtype)
        flat[:seen] = patches
        row_ids, column_ids = np.zeros(most, int), np.zeros(most, int)  # counted from 1
        row_ids[:seen], column_ids[:seen] = np.arange(seen) // columns + 1, np.arange(seen) % columns + 1
        x = self.linear(flat, "v.patch_embd") + w["v.row_embd.weight"][row_ids] + w["v.col_embd.weight"][column_ids]
        heads = value["clip.vision.attention.head_count"]
        for i in range(value["clip.vision.block_count"]):
            b = f"v.blk.{i}."
            h = rms(x, w[b + "ln1.weight"], eps)
            q, k, v = (h @ w[f"{b}attn_{n}.weight"].T for n in "qkv")
            x = x + attention(q, k[:seen], v[:seen], heads) @ w[b + "attn_out.weight"].T  # nobody looks at padding
            h = rms(x, w[b + "ln2.weight"], eps)
            gate = gelu_tanh(h @ w[b + "ffn_gate.weight"].T)
            x = x + (gate * (h @ w[b + "ffn_up.weight"].T)) @ w[b + "ffn_down.weight"].T
        x = rms(x, w["v.post_ln.weight"], eps)
        return x / np.maximum(np.sqrt((x * x).sum(-1, keepdims=True)), self.dtype(1e-12))

    def encode_image(self, rgb: np.ndarray) -> np.ndarray:
        """The latents look at all rows, those of the padding, too, and at themselves."""
        return self.resample(self.vision_rows(rgb))

    def prompt(self, segments: list[list[int] | np.ndarray]) -> Prompt:
        """<s>, then ids, or <image>, an id <s> for each row, </image>."""
        ids, vectors = [self.bos], {}
        for segment in segments:
            if isinstance(segment, np.ndarray):
                vectors.update({len(ids) + 1 + j: row for j, row in enumerate(segment)})
                ids += [self.image_begin, *[self.first_slot] * len(segment), self.image_end]
            else:
                ids += segment
        return Prompt(ids, vectors)

    def forward(self, state: State, ids: list[int], vectors: dict[int, np.ndarray]) -> tuple[np.ndarray, State]:
        """A row of an image and the tags beside it have segment 1; everything else has segment 0."""
        w, first = self.weights, state.length
        embedding = w["token_embd.weight"]
        x = np.stack([vectors.get(first + i, embedding[token]) for i, token in enumerate(ids)]).astype(self.dtype)
        places = np.stack([sinusoid(first + i + 2, self.width) for i in range(len(ids))])
        beside = {place + step for place in vectors for step in (-1, 0, 1)}
        segments = w["segment_embd.weight"][[int(first + i in beside) for i in range(len(ids))]]
        x = x * self.dtype(math.sqrt(self.width)) + places.astype(self.dtype) + segments
        keys, values = [], []
        for i in range(self.layers):
            b = f"blk.{i}."
            h = self.norm(x, b + "attn_norm")
            keys.append(np.concatenate([state.keys[i], self.linear(h, b + "attn_k")]))
            values.append(np.concatenate([state.values[i], self.linear(h, b + "attn_v")]))
            o = attention(self.linear(h, b + "attn_q"), keys[i], values[i], self.heads, first)
            x = x + self.linear(o, b + "attn_output")  # no norm in between, unlike KOSMOS-2
            h = gelu(self.linear(self.norm(x, b + "ffn_norm"), b + "ffn_up"))
            x = x + self.linear(self.norm(h, b + "ffn_sub_norm"), b + "ffn_down")
        return self.norm(x, "output_norm") @ embedding.T, State(keys, values, first + len(ids))


def turn(image: int, question: str, answer: str = "") -> Segments:
    """One turn of the chat."""
    return [("image", image), ("tags", "<md>"), ("text", CHAT.replace("{question}", question) + answer)]


class Kosmos2_5(Described):
    """No captions and no location tokens; it reads, and answers because it has a prompt of questions."""

    architecture = A
    tasks: ClassVar = ["ask", "read", "generate", "score"]
    prompts: ClassVar = {
        "ask": turn(0, "what is this?"),
        "ask by beams": turn(0, "what is this?"),
        "ask after an example": [*turn(0, "what color is it?", " red"), ("ids", [EOS]), *turn(1, "what is this?")],
        "read": [("image", 0), ("tags", "<ocr>")],
        "read as Markdown": [("image", 0), ("tags", "<md>")],
        "generate": [("image", 0), ("text", "It is")],
        "generate from two pictures": [("image", 0), ("text", "a cat."), ("image", 1), ("text", "It is")],
        "score": [("image", 0)],
    }
    accepted: ClassVar = {
        **accepted_general(A),
        **accepted_decoder(A),
        **accepted_slots(A),
        f"{A}.vision.max_patches": set(),
        f"{A}.prompt.read": ANY_TEXT,
        f"{A}.prompt.markdown": ANY_TEXT,
        f"{A}.prompt.question": set(),
        "clip.has_vision_encoder": {1},
        "clip.projector_type": set(),
        "clip.vision.patch_size": set(),
        "clip.vision.embedding_length": set(),
        "clip.vision.feed_forward_length": set(),
        "clip.vision.block_count": {1},
        "clip.vision.projection_dim": set(),
        "clip.vision.attention.head_count": {1},
        "clip.vision.attention.layer_norm_epsilon": {"max"},
        "tokenizer.ggml.model": set(),
        "tokenizer.ggml.pre": {"gpt-2", "llama-bpe", "dbrx", "qwen2"},
        "tokenizer.ggml.normalizer": {"nfc"},
        "tokenizer.ggml.tokens": set(),
        "tokenizer.ggml.token_type": set(),
        "tokenizer.ggml.merges": set(),
        "tokenizer.ggml.bos_token_id": {0},
        "tokenizer.ggml.eos_token_id": {0},  # byte-level BPE may have one for begin and end
        "tokenizer.ggml.unknown_token_id": set(),
        "tokenizer.ggml.padding_token_id": {1},
        "tokenizer.ggml.add_bos_token": {0, 1},
        "tokenizer.ggml.add_space_prefix": {0},
    }
    piece_texts: ClassVar = {"x" * 1024, spell("\x1b[0m")}  # in the alphabet of bytes

    def make(self, seed: int) -> Tiny:
        """Sizes that every stored type fits, but for the encoder's second feed-forward matrix, as published."""
        v = VOCABULARY
        weights = weights_of(tensor_shapes(NUMBERS, VISION, len(v.pieces)), seed)
        vocabulary = TinyVocabulary(v.pieces, [], v.types)
        return Tiny(TinyConfig(), vocabulary, weights, metadata_of(NUMBERS, VISION, v, 128))

    def define(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> Kosmos2_5Reference:
        """Above."""
        return Kosmos2_5Reference(metadata, weights)

    def small(self) -> GgufContent:
        """Token 9 is in no merge, so that tests may change it."""
        v = PageVocabulary("a An of", places=2, lone=tuple(f"zz{i}" for i in range(8)))
        weights = weights_of(tensor_shapes(SMALL, SMALL_VISION, len(v.pieces)), 0)
        tensors = {name: StoredTensor("F32", w.shape, w.astype("<f4").tobytes()) for name, w in weights.items()}
        return GgufContent(metadata_of(SMALL, SMALL_VISION, v, 8), tensors)

    def write_checkpoint(self, folder: Path) -> Path:
        """transformers' layout, with the chat model's prompt beside it."""
        folder.mkdir(parents=True)
        n, v = NUMBERS, VISION
        write_json(
            folder,
            config=config(
                len(VOCABULARY.pieces), width=n["embedding_length"], ff=n["feed_forward_length"],
                layers=n["block_count"], heads=n["attention.head_count"], latents=n["image_token_count"],
                vision=v["embedding_length"], vision_ff=v["feed_forward_length"], vision_layers=v["block_count"],
                vision_heads=v["attention.head_count"], patch=v["patch_size"], max_patches=n["vision.max_patches"],
                positions=n["context_length"] // 2,
            ),
            preprocessor_config=preprocessor(v["patch_size"], n["vision.max_patches"]),
            generation_config=GENERATION | {"max_new_tokens": 128},
            tokenizer=VOCABULARY.tokenizer_json(),
            tokenizer_config=TOKENIZER_CONFIG,
            kosmos_edge={"prompt": {"question": f"<md>{CHAT}"}},
        )  # fmt: skip
        state = {published(name): (array.shape, array.tobytes()) for name, array in self.tiny.weights.items()}
        (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(state, "F32"))
        return folder


PUBLISHED = {
    "attn_norm": "self_attn_layer_norm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.out_proj", "ffn_norm": "final_layer_norm",
    "ffn_up": "ffn.fc1", "ffn_sub_norm": "ffn.ffn_layernorm", "ffn_down": "ffn.fc2",
}  # fmt: skip
PUBLISHED_VISION = {
    "ln1": "pre_attention_layer_norm", "ln2": "pre_mlp_layer_norm", "attn_q": "attention.query",
    "attn_k": "attention.key", "attn_v": "attention.value", "attn_out": "attention.output", "ffn_gate": "mlp.wi_0",
    "ffn_up": "mlp.wi_1", "ffn_down": "mlp.wo",
}  # fmt: skip
PUBLISHED_OTHER = {
    "token_embd": "text_model.model.embed_tokens", "segment_embd": "text_model.model.segment_emb",
    "output_norm": "text_model.model.layer_norm", "v.patch_embd": "vision_model.embeddings.patch_projection",
    "v.row_embd": "vision_model.embeddings.row_embedder", "v.col_embd": "vision_model.embeddings.column_embedder",
    "v.post_ln": "vision_model.layernorm", "mm.dense": "image_to_text_projection.dense",
    **{f"mm.attn_{x}": f"image_to_text_projection.x_attn.{x}_proj" for x in ("q", "k", "v", "out")},
}  # fmt: skip


def published(name: str) -> str:
    """transformers' name of a tensor."""
    if name == "mm.latent_query":
        return "image_to_text_projection.latent_query"
    base, _, kind = name.rpartition(".")
    parts = base.split(".")
    if parts[0] == "blk":
        return f"text_model.model.layers.{parts[1]}.{PUBLISHED[parts[2]]}.{kind}"
    if parts[:2] == ["v", "blk"]:
        return f"vision_model.encoder.layer.{parts[2]}.{PUBLISHED_VISION[parts[3]]}.{kind}"
    return f"{PUBLISHED_OTHER[base]}.{kind}"
