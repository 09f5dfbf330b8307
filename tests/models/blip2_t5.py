"""BLIP-2 with Flan-T5 for the suite: BLIP-2's tiny tower and Q-Former, and a T5 whose heads are wider than it."""

import base64
import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from helpers.charsmaps import make_charsmap
from helpers.convert_checkpoint import convert_safetensors_bytes
from helpers.llava_checkpoint import write_json
from helpers.reference import Answer, Prompt, Reference, State, softmax
from helpers.tiny import GgufContent, StoredTensor, Tiny, TinyConfig, TinyVocabulary, make_weight

from models import blip2
from models.description import (
    Described,
    Segments,
    accepted_decoder,
    accepted_general,
    accepted_prompts,
    accepted_unigram,
)

A = "blip2_t5"
PROMPTS = {
    "caption": "{image}",
    "caption_detailed": "{image}Question: Describe this image in detail. Answer:",
    "question": "{image}Question: {question} Answer:",
}
PAD, EOS, UNK = 0, 1, 2
NUMBERS = {
    "context_length": 512, "embedding_length": 256, "block_count": 2, "encoder.block_count": 3,
    "feed_forward_length": 512, "attention.head_count": 8, "attention.key_length": 64,
    "attention.relative_buckets_count": 32, "attention.relative_max_distance": 128,
}  # fmt: skip
SMALL = {
    "context_length": 64, "embedding_length": 16, "block_count": 1, "encoder.block_count": 1,
    "feed_forward_length": 16, "attention.head_count": 2, "attention.key_length": 16,
    "attention.relative_buckets_count": 8, "attention.relative_max_distance": 16,
}  # fmt: skip
CHARSMAP = make_charsmap({"ﬁ".encode(): b"fi", "ﬀ".encode(): b"ff"})
WORDS = (
    "a an the of in on is it and to for with cat dog snow table house man woman tree what color where this that image "
    "picture red green blue white black Question Answer Short short Describe description detail It An A photo"
)


def vocabulary_of(words: list[str], letters: str, extra: int) -> TinyVocabulary:
    """T5's order: specials, pieces, extra ids from the last to the first, what was added."""
    normal = list(dict.fromkeys([*("▁" + word for word in words), "▁", *letters, "s", "ing", "ed"]))
    pieces = ["<pad>", "</s>", "<unk>", *normal, *(f"<extra_id_{extra - 1 - i}>" for i in range(extra)), "<image>"]
    scores = [round(-(3.0 if len(p) > 1 else 9.0) - 0.01373 * i, 5) for i, p in enumerate(normal)]
    return TinyVocabulary(
        pieces,
        [float(np.float32(s)) for s in [0.0, 0.0, 0.0, *scores, *[0.0] * (extra + 1)]],
        [3, 3, 2, *[1] * len(normal), *[3] * (extra + 1)],
        CHARSMAP,
    )


def tensor_shapes(
    numbers: dict[str, int], qformer: dict[str, int], vision: dict[str, int], vocab: int
) -> dict[str, tuple[int, ...]]:
    """Every tensor of a file, in file order."""
    d, ff = numbers["embedding_length"], numbers["feed_forward_length"]
    inner = numbers["attention.head_count"] * numbers["attention.key_length"]
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocab, d)}

    def attention(b: str) -> None:
        shapes[b + "attn_norm.weight"] = (d,)
        for part in "qkv":
            shapes[f"{b}attn_{part}.weight"] = (inner, d)
        shapes[b + "attn_output.weight"] = (d, inner)

    def stack(prefix: str, blocks: int, crosses: bool) -> None:
        rows = numbers["attention.relative_buckets_count"]
        shapes[prefix + "attn_rel_b.weight"] = (rows, numbers["attention.head_count"])
        for i in range(blocks):
            b = f"{prefix}blk.{i}."
            attention(b)
            if crosses:
                attention(b + "cross.")
            shapes[b + "ffn_norm.weight"] = (d,)
            shapes[b + "ffn_gate.weight"] = shapes[b + "ffn_up.weight"] = (ff, d)
            shapes[b + "ffn_down.weight"] = (d, ff)
        shapes[prefix + "output_norm.weight"] = (d,)

    stack("enc.", numbers["encoder.block_count"], crosses=False)
    stack("", numbers["block_count"], crosses=True)
    shapes["output.weight"] = (vocab, d)
    bridge = blip2.tensor_shapes(
        {"embedding_length": d, "block_count": 0, "feed_forward_length": 0, "context_length": 0}, qformer, vision, vocab
    )
    return shapes | {name: shape for name, shape in bridge.items() if name.startswith(("v.", "mm."))}


def t5_metadata(a: str, numbers: dict[str, int], v: TinyVocabulary, max_new: int) -> dict[str, Any]:
    """The keys of both stacks, of generation and of the vocabulary."""
    return {
        "general.architecture": ("str", a),
        "general.name": ("str", "tiny"),
        "general.file_type": ("u32", 0),
        "general.quantization_version": ("u32", 2),
        "general.alignment": ("u32", 64),
        **{f"{a}.{key}": ("u32", value) for key, value in numbers.items()},
        f"{a}.attention.layer_norm_rms_epsilon": ("f32", 1e-6),
        f"{a}.decoder_start_token_id": ("u32", PAD),
        f"{a}.vocab_size": ("u32", len(v.pieces)),
        f"{a}.image.token_id": ("u32", v.id("<image>")),
        f"{a}.generation.max_new_tokens": ("u32", max_new),
        f"{a}.generation.no_repeat_ngram_size": ("u32", 0),
        "tokenizer.ggml.model": ("str", "t5"),
        "tokenizer.ggml.tokens": ("[str]", v.pieces),
        "tokenizer.ggml.scores": ("[f32]", v.scores),
        "tokenizer.ggml.token_type": ("[i32]", v.types),
        "tokenizer.ggml.eos_token_id": ("u32", EOS),
        "tokenizer.ggml.unknown_token_id": ("u32", UNK),
        "tokenizer.ggml.padding_token_id": ("u32", PAD),
        "tokenizer.ggml.add_eos_token": ("bool", True),
        "tokenizer.ggml.add_space_prefix": ("bool", True),
        "tokenizer.ggml.remove_extra_whitespaces": ("bool", True),
        "tokenizer.ggml.precompiled_charsmap": ("[u8]", list(v.charsmap)),
    }


def metadata_of(
    numbers: dict[str, int], qformer: dict[str, int], vision: dict[str, int], v: TinyVocabulary, max_new: int
) -> dict[str, Any]:
    """Every key of a complete file; the checksums are added by `write_tiny`."""
    return {
        **t5_metadata(A, numbers, v, max_new),
        **blip2.bridge_metadata(A, qformer, vision, numbers["embedding_length"]),
        **{f"{A}.prompt.{key}": ("str", text) for key, text in PROMPTS.items()},
    }


def weights_of(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Drawn as KOSMOS-2's, with gains that let attention choose and pictures matter."""
    weights = {}
    for name, shape in shapes.items():
        drawn = {"token_embd.weight": "token_embd.rows", "mm.query": "mm.latent_query"}.get(name, name)
        weights[name] = make_weight(drawn, shape, seed)
        heads = name.endswith(("attn_q.weight", "attn_k.weight")) and not name.startswith(("v.", "mm."))
        if heads:  # products have no scale: widths of heads are no part of it
            weights[name] *= np.float32(0.25)
        if name.endswith("attn_rel_b.weight"):
            weights[name] = make_weight("mm.latent_query", shape, seed + len(name))
        if name.endswith("output_norm.weight"):
            weights[name] = make_weight("ffn_norm.weight", shape, seed + len(name))
        if name.startswith("enc.") and name.endswith(("attn_output.weight", "ffn_down.weight")):
            weights[name] *= np.float32(0.2)
    weights["token_embd.weight"] *= np.float32(3)
    weights["output.weight"] *= np.float32(4)
    weights["mm.0.weight"] *= np.float32(0.5)
    return weights


# ---- the definition


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """T5LayerNorm: no mean, no bias."""
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + x.dtype.type(eps)) * weight


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """NewGELUActivation."""
    return (0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))).astype(x.dtype)


def bucket(distance: int, buckets: int, furthest: int, both_ways: bool) -> int:
    """T5Attention._relative_position_bucket of a key so many positions behind the query."""
    first = 0
    if both_ways:
        buckets //= 2
        first = buckets if distance > 0 else 0
        far = abs(distance)
    else:
        far = max(-distance, 0)
    exact = buckets // 2
    if far < exact:
        return first + far
    steps = np.float32(math.log(far / exact)) / np.float32(math.log(furthest / exact)) * np.float32(buckets - exact)
    return first + min(exact + int(steps), buckets - 1)


class T5(Reference):
    """T5's stacks over weights by GGUF name (transformers T5Stack)."""

    def read_numbers(self, value: dict[str, Any]) -> None:
        own = value["general.architecture"] + "."
        self.width, self.layers = value[own + "embedding_length"], value[own + "block_count"]
        self.encoder_layers = value[own + "encoder.block_count"]
        self.heads, self.head = value[own + "attention.head_count"], value[own + "attention.key_length"]
        self.eps = value[own + "attention.layer_norm_rms_epsilon"]
        self.buckets = value[own + "attention.relative_buckets_count"]
        self.furthest = value[own + "attention.relative_max_distance"]
        self.first_id, self.eos = value[own + "decoder_start_token_id"], value["tokenizer.ggml.eos_token_id"]

    def product(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[name + ".weight"].T

    def rms(self, x: np.ndarray, name: str) -> np.ndarray:
        return rms_norm(x, self.weights[name + ".weight"], self.eps)

    def looks(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        """Scores without a scale, plus a bias (heads, rows, positions)."""
        out = np.empty_like(q)
        for h in range(self.heads):
            at = slice(h * self.head, (h + 1) * self.head)
            scores = q[:, at] @ k[:, at].T
            out[:, at] = softmax(scores if bias is None else scores + bias[h]) @ v[:, at]
        return out

    def biases(self, name: str, rows: range, positions: int, both_ways: bool) -> np.ndarray:
        """(heads, rows, positions); what a decoder's row must not see is -infinity."""
        table, out = self.weights[name], np.full((self.heads, len(rows), positions), -np.inf, np.float32)
        for r, row in enumerate(rows):
            for position in range(positions if both_ways else row + 1):
                out[:, r, position] = table[bucket(position - row, self.buckets, self.furthest, both_ways)]
        return out

    def feed_forward(self, x: np.ndarray, b: str) -> np.ndarray:
        h = self.rms(x, b + "ffn_norm")
        return self.product(gelu_tanh(self.product(h, b + "ffn_gate")) * self.product(h, b + "ffn_up"), b + "ffn_down")

    def read_prompt(self, prompt: Prompt) -> np.ndarray:
        """The encoder: (positions, width)."""
        n = len(prompt.ids)
        embedding = self.weights["token_embd.weight"]
        x = np.stack([prompt.vectors.get(i, embedding[token]) for i, token in enumerate(prompt.ids)])
        bias = self.biases("enc.attn_rel_b.weight", range(n), n, both_ways=True)
        for i in range(self.encoder_layers):
            b = f"enc.blk.{i}."
            h = self.rms(x, b + "attn_norm")
            q, k, v = (self.product(h, f"{b}attn_{part}") for part in "qkv")
            x = x + self.product(self.looks(q, k, v, bias), b + "attn_output")
            x = x + self.feed_forward(x, b)
        return self.rms(x, "enc.output_norm")

    def behind(self, prompt: Prompt) -> "T5Decoder":
        return T5Decoder(self, self.read_prompt(prompt))

    # The searches are the decoder's, behind what the encoder read.
    def logits(self, prompt: Prompt, answer: tuple[int, ...] = ()) -> np.ndarray:
        return self.behind(prompt).logits(Prompt([self.first_id, *answer], {}))

    def generate(self, prompt: Prompt, max_tokens: int, no_repeat_ngram_size: int = 0) -> Answer:
        return self.behind(prompt).generate(Prompt([self.first_id], {}), max_tokens, no_repeat_ngram_size)

    def beam_search(self, prompt: Prompt, *args: Any, **named: Any) -> Answer:
        return self.behind(prompt).beam_search(Prompt([self.first_id], {}), *args, **named)

    def score(self, prompt: Prompt, continuation: list[int]) -> list[float]:
        return self.behind(prompt).score(Prompt([self.first_id], {}), continuation)


class T5Decoder(T5):
    """The decoder that looks at one memory; the searches are inherited from Reference."""

    logits, generate, beam_search, score = Reference.logits, Reference.generate, Reference.beam_search, Reference.score

    def __init__(self, whole: T5, memory: np.ndarray) -> None:
        self.__dict__.update(whole.__dict__)
        self.memory = memory

    def start(self) -> State:
        empty = np.zeros((0, self.heads * self.head), np.float32)
        return State([empty] * self.layers, [empty] * self.layers)

    def forward(self, state: State, ids: list[int], vectors: dict[int, np.ndarray]) -> tuple[np.ndarray, State]:
        first = state.length
        x = self.weights["token_embd.weight"][ids]
        bias = self.biases("attn_rel_b.weight", range(first, first + len(ids)), first + len(ids), both_ways=False)
        keys, values = [], []
        for i in range(self.layers):
            b = f"blk.{i}."
            h = self.rms(x, b + "attn_norm")
            keys.append(np.concatenate([state.keys[i], self.product(h, b + "attn_k")]))
            values.append(np.concatenate([state.values[i], self.product(h, b + "attn_v")]))
            a = self.looks(self.product(h, b + "attn_q"), keys[i], values[i], bias)
            x = x + self.product(a, b + "attn_output")
            c = b + "cross."
            q, k, v = (
                self.product(of, f"{c}attn_{part}")
                for part, of in zip("qkv", (self.rms(x, c + "attn_norm"), self.memory, self.memory), strict=True)
            )
            x = x + self.product(self.looks(q, k, v, None), c + "attn_output")
            x = x + self.feed_forward(x, b)
        return self.product(self.rms(x, "output_norm"), "output"), State(keys, values, first + len(ids))


class Blip2T5Reference(T5, blip2.Bridge):
    """BLIP-2 with Flan-T5 (transformers Blip2ForConditionalGeneration)."""

    def __init__(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
        value = {key: entry[1] for key, entry in metadata.items()}
        self.metadata, self.weights, self.dtype = value, weights, np.float32
        self.read_numbers(value)
        self.image_id = value[value["general.architecture"] + ".image.token_id"]

    def prompt(self, segments: list[list[int] | np.ndarray]) -> Prompt:
        """As they come; </s> ends them."""
        ids: list[int] = []
        vectors: dict[int, np.ndarray] = {}
        for segment in segments:
            if isinstance(segment, np.ndarray):
                vectors.update({len(ids) + j: row for j, row in enumerate(segment)})
                ids += [self.image_id] * len(segment)
            else:
                ids += segment
        return Prompt([*ids, self.eos], vectors)


# ---- what must load


def accepted_t5(a: str) -> dict[str, set[Any]]:
    """The keys of `t5_metadata`."""
    decoder = {key: value for key, value in accepted_decoder(a).items() if not key.endswith("layer_norm_epsilon")}
    unigram = {key: value for key, value in accepted_unigram().items() if "bos" not in key}
    return {
        **accepted_general(a),
        **decoder,
        f"{a}.attention.head_count": set(),
        f"{a}.attention.key_length": set(),
        f"{a}.attention.layer_norm_rms_epsilon": {"max"},
        f"{a}.attention.relative_buckets_count": set(),
        f"{a}.attention.relative_max_distance": {"max"},
        f"{a}.encoder.block_count": {1},
        f"{a}.decoder_start_token_id": {0, 1},
        f"{a}.image.token_id": {0},
        **unigram,
        "tokenizer.ggml.eos_token_id": {1},
        "tokenizer.ggml.padding_token_id": {0},
        "tokenizer.ggml.add_eos_token": {1},
    }


class Blip2T5(Described):
    """Captions and answers; without location tokens."""

    architecture = A
    tasks: ClassVar = ["caption", "ask", "generate", "score"]
    prompts: ClassVar[dict[str, Segments]] = {
        "caption": [("image", 0)],
        "long caption": [("image", 0), ("text", "Question: Describe this image in detail. Answer:")],
        "caption by beams": [("image", 0)],
        "ask": [("image", 0), ("text", "Question: what is this? Answer:")],
        "ask after an example": [
            ("image", 0),
            ("text", "Question: what color is it? Answer: red"),
            ("image", 1),
            ("text", "Question: what is this? Answer:"),
        ],
        "generate": [("image", 0), ("text", "It is")],
        "generate from two pictures": [("image", 0), ("text", "a cat."), ("image", 1), ("text", "It is")],
        "score": [("image", 0)],
    }
    accepted: ClassVar = {**accepted_t5(A), **blip2.accepted_bridge(A), **accepted_prompts(A, grounding=False)}

    def make(self, seed: int) -> Tiny:
        """Sizes that every stored type fits, but the tower's rows, which k-quants do not fit."""
        v = vocabulary_of(WORDS.split(), "abcdefghijklmnopqrstuvwxyz0123456789.,:;?!'-", 4)
        weights = weights_of(tensor_shapes(NUMBERS, blip2.QFORMER, blip2.VISION, len(v.pieces)), seed)
        weights["output.weight"][v.id("<image>")] = 0  # the definition's searches do not know that it never comes
        return Tiny(TinyConfig(), v, weights, metadata_of(NUMBERS, blip2.QFORMER, blip2.VISION, v, 64))

    def define(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> Blip2T5Reference:
        """Above."""
        return Blip2T5Reference(metadata, weights)

    def small(self) -> GgufContent:
        """Few words."""
        v = vocabulary_of(["a", "An", "image", "of"], "animge.of", 1)
        metadata = metadata_of(SMALL, blip2.SMALL_QFORMER, blip2.SMALL_VISION, v, 8)
        metadata["tokenizer.ggml.precompiled_charsmap"] = ("[u8]", [])
        shapes = tensor_shapes(SMALL, blip2.SMALL_QFORMER, blip2.SMALL_VISION, len(v.pieces))
        tensors = {
            name: StoredTensor("F32", array.shape, array.astype("<f4").tobytes())
            for name, array in weights_of(shapes, 0).items()
        }
        return GgufContent(metadata, tensors)

    def write_checkpoint(self, folder: Path) -> Path:
        """transformers' layout."""
        folder.mkdir(parents=True)
        q, v = blip2.QFORMER, blip2.VISION
        write_json(
            folder,
            config={
                "model_type": "blip-2", "num_query_tokens": q["query_count"],
                "image_token_index": self.tiny.vocabulary.id("<image>"),
                "text_config": text_config(NUMBERS, len(self.tiny.vocabulary.pieces)),
                "qformer_config": {
                    "hidden_size": q["embedding_length"], "intermediate_size": q["feed_forward_length"],
                    "num_hidden_layers": q["block_count"], "num_attention_heads": q["attention.head_count"],
                    "encoder_hidden_size": v["embedding_length"],
                },
                "vision_config": blip2.vision_config(v),
            },
            preprocessor_config=blip2.preprocessor_config(v["image_size"]),
            tokenizer=tokenizer_json(self.tiny.vocabulary), tokenizer_config=TOKENIZER_CONFIG,
        )  # fmt: skip
        write_weights(folder, published(self.tiny.weights))
        return folder


TOKENIZER_CONFIG = {
    "tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "extra_ids": 4,
}  # fmt: skip


def write_weights(folder: Path, weights: dict[str, np.ndarray]) -> None:
    """model.safetensors."""
    state = {name: (array.shape, np.ascontiguousarray(array).tobytes()) for name, array in weights.items()}
    (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(state, "F32"))


def text_config(numbers: dict[str, int], vocab: int) -> dict[str, Any]:
    """T5Config's."""
    return {
        "model_type": "t5", "vocab_size": vocab, "d_model": numbers["embedding_length"],
        "d_ff": numbers["feed_forward_length"], "d_kv": numbers["attention.key_length"],
        "num_heads": numbers["attention.head_count"], "num_layers": numbers["encoder.block_count"],
        "num_decoder_layers": numbers["block_count"], "feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-6,
        "relative_attention_num_buckets": numbers["attention.relative_buckets_count"],
        "relative_attention_max_distance": numbers["attention.relative_max_distance"],
        "n_positions": numbers["context_length"], "tie_word_embeddings": False, "decoder_start_token_id": PAD,
    }  # fmt: skip


def tokenizer_json(v: TinyVocabulary) -> dict[str, Any]:
    """As transformers writes T5's; <image> is added behind the model's own pieces."""
    control = [i for i, kind in enumerate(v.types) if kind in (2, 3)]
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": i, "content": v.pieces[i], "special": True, **dict.fromkeys(flags, False)} for i in control
        ],
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(v.charsmap).decode()},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        ]},
        "model": {
            "type": "Unigram", "unk_id": UNK, "byte_fallback": False,
            "vocab": [list(pair) for pair in zip(v.pieces[:-1], v.scores[:-1], strict=True)],
        },
    }  # fmt: skip


ATTENTION = {"attn_norm": "layer_norm", **{f"attn_{p}": f"{{}}.{p}" for p in "qkv"}, "attn_output": "{}.o"}
FEED = {
    "ffn_norm": "layer_norm", "ffn_gate": "DenseReluDense.wi_0", "ffn_up": "DenseReluDense.wi_1",
    "ffn_down": "DenseReluDense.wo",
}  # fmt: skip
LAST = {"encoder": 1, "decoder": 2}


def published_t5(name: str) -> str:
    """transformers' name of a tensor of the stacks."""
    if name in ("token_embd.weight", "output.weight"):
        return {"token_embd.weight": "language_model.shared.weight", "output.weight": "language_model.lm_head.weight"}[
            name
        ]
    stack = "encoder" if name.startswith("enc.") else "decoder"
    at, parts = f"language_model.{stack}.", name.removeprefix("enc.").split(".")
    if parts[0] == "attn_rel_b":
        return at + "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    if parts[0] == "output_norm":
        return at + "final_layer_norm.weight"
    block = f"{at}block.{parts[1]}.layer."
    if parts[2] == "cross":
        return f"{block}1.{ATTENTION[parts[3]].format('EncDecAttention')}.weight"
    if parts[2] in FEED:
        return f"{block}{LAST[stack]}.{FEED[parts[2]]}.weight"
    return f"{block}0.{ATTENTION[parts[2]].format('SelfAttention')}.weight"


def published(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights under transformers' names."""
    bridge = {name: array for name, array in weights.items() if name.startswith(("v.", "mm."))}
    own = {published_t5(name): array for name, array in weights.items() if name not in bridge}
    return own | blip2.published(bridge)
