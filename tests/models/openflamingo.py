"""OpenFlamingo for the suite: a tiny CLIP tower whose patches count, a perceiver, and a GPT-NeoX of four blocks, two of
which look at images."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from helpers.convert_checkpoint import convert_safetensors_bytes, convert_torch_state, convert_zip_bytes, op_pickle
from helpers.letters_bpe import LettersBpe, spell
from helpers.llava_checkpoint import write_json
from helpers.reference import Prompt, Reference, State, attention, gelu, quick_gelu
from helpers.tiny import GgufContent, StoredTensor, Tiny, TinyConfig, TinyVocabulary, make_weight

from kosmos_edge import _core
from models.description import (
    Described,
    Segments,
    accepted_decoder,
    accepted_general,
    accepted_prompts,
    accepted_vision,
)
from models.llava import fit, rotate

A = "openflamingo"
ADDED = ("<|endofchunk|>", "<image>")
SPECIALS = ("<|endoftext|>", "<|padding|>")
PROMPTS = {
    "caption": "{image}Output:",
    "caption_detailed": "{image}Output:",
    "question": "{image}Question:{question} Short answer:",
}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
EVERY, LOOK_HEADS, HEAD = 2, 8, 64
NUMBERS = {
    "context_length": 512, "embedding_length": 256, "block_count": 4, "feed_forward_length": 512,
    "attention.head_count": 4, "rope.dimension_count": 16, "cross_attention.every": EVERY,
    "cross_attention.head_count": LOOK_HEADS, "cross_attention.key_length": HEAD,
    "cross_attention.feed_forward_length": 1024,
}  # fmt: skip
PERCEIVER = {
    "block_count": 2, "attention.head_count": LOOK_HEADS, "attention.key_length": HEAD, "feed_forward_length": 1024,
    "query_count": 8,
}  # fmt: skip
VISION = {
    "image_size": 56, "patch_size": 14, "embedding_length": 256, "feed_forward_length": 512, "block_count": 2,
    "attention.head_count": 4,
}  # fmt: skip
SMALL = {
    "context_length": 64, "embedding_length": 16, "block_count": 1, "feed_forward_length": 16,
    "attention.head_count": 2, "rope.dimension_count": 4, "cross_attention.every": 1,
    "cross_attention.head_count": 1, "cross_attention.key_length": 16, "cross_attention.feed_forward_length": 64,
}  # fmt: skip
SMALL_PERCEIVER = {
    "block_count": 1, "attention.head_count": 1, "attention.key_length": 16, "feed_forward_length": 64,
    "query_count": 2,
}  # fmt: skip
SMALL_VISION = {
    "image_size": 28, "patch_size": 14, "embedding_length": 16, "feed_forward_length": 16, "block_count": 1,
    "attention.head_count": 2,
}  # fmt: skip
WORDS = (
    "a an the of in on is it and to for with cat dog snow table house man woman tree what color where this that image "
    "picture red green blue white black Question Short answer Output It An photo sitting standing near fire two"
)
GATES = {"attn": 0.9, "ffn": -0.6}


def vocabulary_of(words: list[str], plain: tuple[str, ...] = ()) -> LettersBpe:
    """With the tokens that OpenFlamingo adds, which are tags."""
    bpe = LettersBpe(words, SPECIALS, ADDED, plain)
    bpe.types[-2:] = [4, 4]
    return bpe


PIECES = vocabulary_of(WORDS.split())
END, IMAGE_ID = (PIECES.pieces.index(text) for text in ADDED)


def looks(layer: int, every: int = EVERY) -> bool:
    """Whether a block has a gated cross-attention in front: not as IDEFICS counts."""
    return (layer + 1) % every == 0


def tensor_shapes(
    numbers: dict[str, int], perceiver: dict[str, int], vision: dict[str, int], vocab: int
) -> dict[str, tuple[int, ...]]:
    """Every tensor of a file, in file order."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, *shape: int) -> None:
        shapes[name + ".weight"], shapes[name + ".bias"] = shape, shape[:1]

    d, ff, v = numbers["embedding_length"], numbers["feed_forward_length"], vision["embedding_length"]
    own = {key.removeprefix("cross_attention."): n for key, n in numbers.items() if key.startswith("cross")}
    inner, more = own["head_count"] * own["key_length"], own["feed_forward_length"]
    shapes["token_embd.weight"] = (vocab, d)
    for i in range(numbers["block_count"]):
        if looks(i, own["every"]):
            b = f"blk.{i}.cross."
            linear(b + "attn_norm", d)
            shapes |= {
                b + "attn_q.weight": (inner, d),
                b + "attn_k.weight": (inner, v),
                b + "attn_v.weight": (inner, v),
            }
            shapes[b + "attn_output.weight"] = (d, inner)
            shapes[b + "attn_alpha"] = (1,)
            linear(b + "ffn_norm", d)
            shapes |= {b + "ffn_up.weight": (more, d), b + "ffn_down.weight": (d, more), b + "ffn_alpha": (1,)}
        b = f"blk.{i}."
        linear(b + "attn_norm", d)
        for n in ("q", "k", "v", "output"):
            linear(f"{b}attn_{n}", d, d)
        linear(b + "ffn_norm", d)
        linear(b + "ffn_up", ff, d)
        linear(b + "ffn_down", d, ff)
    linear("output_norm", d)
    shapes["output.weight"] = (vocab, d)
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
        shapes[b + "attn_output.weight"] = (v, inner)
        linear(b + "ffn_norm", v)
        shapes[b + "ffn_up.weight"] = (perceiver["feed_forward_length"], v)
        shapes[b + "ffn_down.weight"] = (v, perceiver["feed_forward_length"])
    linear("mm.output_norm", v)
    return shapes


def metadata_of(
    numbers: dict[str, int], perceiver: dict[str, int], vision: dict[str, int], bpe: LettersBpe, max_new: int
) -> dict[str, Any]:
    """Every key of a complete file; the checksums are added by `write_tiny`."""
    return {
        "general.architecture": ("str", A),
        "general.name": ("str", "tiny"),
        "general.file_type": ("u32", 0),
        "general.quantization_version": ("u32", 2),
        "general.alignment": ("u32", 64),
        **{f"{A}.{key}": ("u32", value) for key, value in numbers.items()},
        f"{A}.attention.layer_norm_epsilon": ("f32", 1e-5),
        f"{A}.rope.freq_base": ("f32", 10000.0),
        f"{A}.vocab_size": ("u32", len(bpe.pieces)),
        **{f"{A}.perceiver.{key}": ("u32", value) for key, value in perceiver.items()},
        f"{A}.perceiver.attention.layer_norm_epsilon": ("f32", 1e-5),
        f"{A}.image.token_id": ("u32", bpe.pieces.index("<image>")),
        f"{A}.generation.max_new_tokens": ("u32", max_new),
        f"{A}.generation.no_repeat_ngram_size": ("u32", 0),
        f"{A}.generation.end_token_id": ("u32", bpe.pieces.index("<|endofchunk|>")),
        **{f"{A}.prompt.{key}": ("str", text) for key, text in PROMPTS.items()},
        "clip.has_vision_encoder": ("bool", True),
        "clip.projector_type": ("str", A),
        "clip.use_gelu": ("bool", False),
        **{f"clip.vision.{key}": ("u32", value) for key, value in vision.items()},
        "clip.vision.projection_dim": ("u32", vision["embedding_length"]),
        "clip.vision.attention.layer_norm_epsilon": ("f32", 1e-5),
        "clip.vision.image_mean": ("[f32]", list(MEAN)),
        "clip.vision.image_std": ("[f32]", list(STD)),
        "tokenizer.ggml.model": ("str", "gpt2"),
        "tokenizer.ggml.pre": ("str", "gpt-2"),
        "tokenizer.ggml.tokens": ("[str]", bpe.pieces),
        "tokenizer.ggml.token_type": ("[i32]", bpe.types),
        "tokenizer.ggml.merges": ("[str]", bpe.merges),
        "tokenizer.ggml.bos_token_id": ("u32", 0),
        "tokenizer.ggml.eos_token_id": ("u32", 0),
        "tokenizer.ggml.add_bos_token": ("bool", False),
        "tokenizer.ggml.add_space_prefix": ("bool", False),
    }


def weights_of(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Drawn as KOSMOS-2's, with gains that let attention choose and pictures matter."""
    drawn = {"token_embd.weight": "token_embd.rows", "mm.query": "mm.latent_query"}
    weights = {name: make_weight(drawn.get(name, name), shape, seed) for name, shape in shapes.items()}
    if "output.weight" in weights:
        weights["output.weight"] *= np.float32(0.5)
    for name in weights:
        if name.endswith("_alpha"):
            weights[name] = np.array([GATES[name.split(".")[-1].removesuffix("_alpha")]], np.float32)
        elif "attn_output" in name or "ffn_down" in name:
            weights[name] *= np.float32(0.25)
    return weights


class OpenFlamingoReference(Reference):
    """OpenFlamingo over weights by GGUF name (open_flamingo, transformers GPTNeoXForCausalLM and CLIPVisionModel)."""

    def __init__(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
        value = {key: entry[1] for key, entry in metadata.items()}
        self.metadata, self.weights, self.dtype = value, weights, np.float32
        prefix = value["general.architecture"] + "."
        self.own = {key.removeprefix(prefix): entry for key, entry in value.items() if key.startswith(prefix)}
        self.width, self.layers = self.own["embedding_length"], self.own["block_count"]
        self.heads, self.eps = self.own["attention.head_count"], self.own["attention.layer_norm_epsilon"]
        self.eos, self.image_id = self.own["generation.end_token_id"], self.own["image.token_id"]
        self.seen: list[tuple[int, np.ndarray]] = []  # from which position on rows look at which image

    def features(self, rgb: np.ndarray) -> np.ndarray:
        """The last block's patches, without the class token and without a norm behind them."""
        value, w = self.metadata, self.weights
        size, patch = value["clip.vision.image_size"], value["clip.vision.patch_size"]
        eps, heads = value["clip.vision.attention.layer_norm_epsilon"], value["clip.vision.attention.head_count"]
        pixels = fit(rgb, size, "crop").astype(np.float32) * np.float32(1 / 255)
        mean, std = (np.float32(value[f"clip.vision.image_{n}"]) for n in ("mean", "std"))
        pixels = ((pixels - mean) / std).transpose(2, 0, 1)
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
            x = x + self.linear(quick_gelu(self.linear(self.norm(x, b + "ln2", eps), b + "ffn_up")), b + "ffn_down")
        return x[1:]

    def feed_forward(self, x: np.ndarray, b: str, eps: float) -> np.ndarray:
        """open_flamingo's FeedForward: exact GELU, no biases but the norm's."""
        w = self.weights
        return gelu(self.norm(x, b + "ffn_norm", eps) @ w[b + "ffn_up.weight"].T) @ w[b + "ffn_down.weight"].T

    def encode_image(self, rgb: np.ndarray) -> np.ndarray:
        """open_flamingo's PerceiverResampler: keys and values of the image, then of the latents."""
        w, own, context = self.weights, self.own, self.features(rgb)
        heads, eps = own["perceiver.attention.head_count"], own["perceiver.attention.layer_norm_epsilon"]
        x = w["mm.query"]
        for i in range(own["perceiver.block_count"]):
            b = f"mm.blk.{i}."
            latents = self.norm(x, b + "attn_norm", eps)
            seen = np.concatenate([self.norm(context, b + "context_norm", eps), latents])
            q, k, v = (rows @ w[f"{b}attn_{n}.weight"].T for n, rows in zip("qkv", (latents, seen, seen), strict=True))
            x = x + attention(q, k, v, heads) @ w[b + "attn_output.weight"].T
            x = x + self.feed_forward(x, b, eps)
        return self.norm(x, "mm.output_norm", eps)

    def prompt(self, segments: list[list[int] | np.ndarray]) -> Prompt:
        """Nothing in front; <image> looks at its own image, as all behind it until the next one."""
        ids: list[int] = []
        self.seen = []
        for segment in segments:
            if isinstance(segment, np.ndarray):
                self.seen.append((len(ids), segment))
                ids.append(self.image_id)
            else:
                ids += segment
        return Prompt(ids, {})

    def look(self, i: int, x: np.ndarray, first: int) -> np.ndarray:
        """GatedCrossAttentionBlock; what looks at nothing has the feed-forward alone."""
        w, b, x, eps = self.weights, f"blk.{i}.cross.", x.copy(), self.own["perceiver.attention.layer_norm_epsilon"]
        for r in range(len(x)):
            image = next((features for at, features in reversed(self.seen) if at <= first + r), None)
            if image is not None:
                q = self.norm(x[r : r + 1], b + "attn_norm", eps) @ w[b + "attn_q.weight"].T
                k, v = (image @ w[f"{b}attn_{n}.weight"].T for n in "kv")
                a = attention(q, k, v, self.own["cross_attention.head_count"]) @ w[b + "attn_output.weight"].T
                x[r] += np.tanh(w[b + "attn_alpha"][0]) * a[0]
        return x + np.tanh(w[b + "ffn_alpha"][0]) * self.feed_forward(x, b, eps)

    def turn(self, x: np.ndarray, first: int) -> np.ndarray:
        """The first values of every head, as many as rotary positions take, are turned."""
        rows, dims = len(x), self.own["rope.dimension_count"]
        each = x.reshape(rows, self.heads, -1).copy()
        turned = rotate(each[..., :dims].reshape(rows, -1), self.heads, first, self.own["rope.freq_base"])
        each[..., :dims] = turned.reshape(rows, self.heads, dims)
        return each.reshape(x.shape)

    def forward(self, state: State, ids: list[int], vectors: dict[int, np.ndarray]) -> tuple[np.ndarray, State]:
        """GPTNeoXModel, whose halves of a block follow each other."""
        w, first = self.weights, state.length
        x = w["token_embd.weight"][ids]
        keys, values = [], []
        for i in range(self.layers):
            b = f"blk.{i}."
            if looks(i, self.own["cross_attention.every"]):
                x = self.look(i, x, first)
            h = self.norm(x, b + "attn_norm")
            keys.append(np.concatenate([state.keys[i], self.turn(self.linear(h, b + "attn_k"), first)]))
            values.append(np.concatenate([state.values[i], self.linear(h, b + "attn_v")]))
            q = self.turn(self.linear(h, b + "attn_q"), first)
            x = x + self.linear(attention(q, keys[i], values[i], self.heads, first), b + "attn_output")
            x = x + self.linear(gelu(self.linear(self.norm(x, b + "ffn_norm"), b + "ffn_up")), b + "ffn_down")
        return self.norm(x, "output_norm") @ w["output.weight"].T, State(keys, values, first + len(ids))


class OpenFlamingo(Described):
    """Captions and short answers after examples; without location tokens."""

    architecture = A
    tasks: ClassVar = ["caption", "ask", "generate", "score"]
    prompts: ClassVar[dict[str, Segments]] = {
        "caption": [("image", 0), ("text", "Output:")],
        "long caption": [("image", 0), ("text", "Output:")],
        "caption by beams": [("image", 0), ("text", "Output:")],
        "ask": [("image", 0), ("text", "Question:what is this? Short answer:")],
        "ask after an example": [
            ("image", 0),
            ("text", "Question:what color is it? Short answer:red"),
            ("ids", [END]),
            ("image", 1),
            ("text", "Question:what is this? Short answer:"),
        ],
        "generate": [("image", 0), ("text", "It is")],
        "generate from two pictures": [("image", 0), ("text", "a cat."), ("image", 1), ("text", "It is")],
        "score": [("image", 0), ("text", "Output:")],
    }
    accepted: ClassVar = {
        **accepted_general(A),
        **accepted_decoder(A),
        f"{A}.rope.freq_base": {1, "max"},
        f"{A}.rope.dimension_count": set(),
        f"{A}.cross_attention.every": {1},
        f"{A}.cross_attention.head_count": {1},
        f"{A}.cross_attention.key_length": set(),
        f"{A}.cross_attention.feed_forward_length": set(),
        f"{A}.perceiver.block_count": {1},
        f"{A}.perceiver.attention.head_count": {1},
        f"{A}.perceiver.attention.key_length": set(),
        f"{A}.perceiver.attention.layer_norm_epsilon": {"max"},
        f"{A}.perceiver.feed_forward_length": set(),
        f"{A}.perceiver.query_count": set(),
        f"{A}.image.token_id": {0, 1},
        f"{A}.generation.end_token_id": {0, 1},
        **accepted_prompts(A, grounding=False),
        **accepted_vision(),
        "tokenizer.ggml.model": set(),
        "tokenizer.ggml.pre": {"gpt-2", "llama-bpe", "dbrx", "qwen2"},
        "tokenizer.ggml.normalizer": {"nfc"},
        "tokenizer.ggml.tokens": set(),
        "tokenizer.ggml.token_type": set(),
        "tokenizer.ggml.merges": set(),
        "tokenizer.ggml.bos_token_id": {0, 1},
        "tokenizer.ggml.eos_token_id": {0, 1},
        "tokenizer.ggml.unknown_token_id": set(),
        "tokenizer.ggml.padding_token_id": {1},
        "tokenizer.ggml.add_bos_token": {0, 1},
        "tokenizer.ggml.add_space_prefix": {0},
    }
    piece_texts: ClassVar = {"x" * 1024, spell("\x1b[0m")}
    looked_at: ClassVar = (PERCEIVER["query_count"], VISION["embedding_length"])

    def make(self, seed: int) -> Tiny:
        """Sizes that every stored type fits."""
        vocabulary = TinyVocabulary(PIECES.pieces, [0.0] * len(PIECES.pieces), PIECES.types)
        weights = weights_of(tensor_shapes(NUMBERS, PERCEIVER, VISION, len(PIECES.pieces)), seed)
        weights["output.weight"][IMAGE_ID] = 0  # the definition's searches do not know that it never comes
        return Tiny(TinyConfig(), vocabulary, weights, metadata_of(NUMBERS, PERCEIVER, VISION, PIECES, 32))

    def define(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> OpenFlamingoReference:
        """Above."""
        return OpenFlamingoReference(metadata, weights)

    def prompt(self, name: str, tokenizer: _core.Tokenizer, pictures: list[np.ndarray]) -> Any:
        """Texts as they are."""
        return self.definition.prompt(
            [
                self.definition.encode_image(pictures[value])
                if kind == "image"
                else (value if kind == "ids" else tokenizer.encode(value))
                for kind, value in self.prompts[name]
            ]
        )

    def small(self) -> GgufContent:
        """Few words, but all bytes: a vocabulary without them is refused."""
        bpe = vocabulary_of(["a", "An", "image", "of"], tuple(f"Ġplain{i}" for i in range(8)))
        metadata = metadata_of(SMALL, SMALL_PERCEIVER, SMALL_VISION, bpe, 8)
        shapes = tensor_shapes(SMALL, SMALL_PERCEIVER, SMALL_VISION, len(bpe.pieces))
        tensors = {
            name: StoredTensor("F32", array.shape, array.astype("<f4").tobytes())
            for name, array in weights_of(shapes, 0).items()
        }
        return GgufContent(metadata, tensors)

    def write_checkpoint(self, folder: Path) -> Path:
        """What was trained in checkpoint.pt, the language model and the tower in folders beside it."""
        trained, language, tower = published(self.tiny.weights)
        write_parts(folder, trained, language, tower)
        return folder


def write_parts(
    folder: Path, trained: dict[str, Any], language: dict[str, Any], tower: dict[str, Any],
    config: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """The three parts; weights by name. config: the language model's, GPT-NeoX's where there is none."""
    n, v = NUMBERS, VISION
    for part in ("lang_encoder", "vision"):
        (folder / part).mkdir(parents=True)
    write_json(folder, config={"model_type": "openflamingo", "cross_attn_every_n_layers": EVERY})
    values = lambda state: {name: (w.shape, np.ascontiguousarray(w, "<f4").tobytes()) for name, w in state.items()}  # noqa: E731
    tensors, records = convert_torch_state(values(trained))
    convert_zip_bytes(folder / "checkpoint.pt", op_pickle(tensors), records)
    write_json(
        folder / "lang_encoder",
        config=config
        or {
            "model_type": "gpt_neox", "vocab_size": len(PIECES.pieces) - 2, "hidden_size": n["embedding_length"],
            "intermediate_size": n["feed_forward_length"], "num_hidden_layers": n["block_count"],
            "num_attention_heads": n["attention.head_count"], "max_position_embeddings": n["context_length"],
            "rotary_pct": 0.25, "rotary_emb_base": 10000, "use_parallel_residual": False, "hidden_act": "gelu",
            "layer_norm_eps": 1e-5, "tie_word_embeddings": False,
        },
        vocab={piece: i for i, piece in enumerate(PIECES.pieces[:-2])},
        tokenizer_config={
            "tokenizer_class": "GPTNeoXTokenizer", "bos_token": SPECIALS[0], "eos_token": SPECIALS[0],
            "unk_token": SPECIALS[0],
            "added_tokens_decoder": {str(i): {"content": text, "special": True} for i, text in enumerate(SPECIALS)},
        },
    )  # fmt: skip
    merges = "#version: 0.2\n" + "\n".join(PIECES.merges) + "\n"
    (folder / "lang_encoder" / "merges.txt").write_text(merges, encoding="utf-8")
    (folder / "lang_encoder" / "model.safetensors").write_bytes(convert_safetensors_bytes(values(language), "F32"))
    size = v["image_size"]
    write_json(
        folder / "vision",
        config={
            "model_type": "clip_vision_model", "hidden_size": v["embedding_length"],
            "intermediate_size": v["feed_forward_length"], "num_hidden_layers": v["block_count"],
            "num_attention_heads": v["attention.head_count"], "image_size": size, "patch_size": v["patch_size"],
        },
        preprocessor_config={
            "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": size},
            "resample": 3, "do_center_crop": True, "crop_size": {"height": size, "width": size}, "do_rescale": True,
            "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": list(MEAN), "image_std": list(STD),
        },
    )  # fmt: skip
    (folder / "vision" / "model.safetensors").write_bytes(convert_safetensors_bytes(values(tower), "F32"))


DECODER = {
    "attn_norm": "input_layernorm", "attn_output": "attention.dense", "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.dense_h_to_4h", "ffn_down": "mlp.dense_4h_to_h",
}  # fmt: skip
CROSS = {
    "attn_norm": "attn.norm", "attn_q": "attn.to_q", "attn_output": "attn.to_out", "ffn_norm": "ff.0", "ffn_up": "ff.1",
    "ffn_down": "ff.3", "attn_alpha": "attn_gate", "ffn_alpha": "ff_gate",
}  # fmt: skip
READER = {
    "attn_norm": "0.norm_latents", "context_norm": "0.norm_media", "attn_q": "0.to_q", "attn_output": "0.to_out",
    "ffn_norm": "1.0", "ffn_up": "1.1", "ffn_down": "1.3",
}  # fmt: skip
TOWER = {
    "ln1": "layer_norm1", "ln2": "layer_norm2", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_out": "self_attn.out_proj", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2",
}  # fmt: skip
OTHER = {
    "v.pre_ln": "vision_model.pre_layrnorm", "v.patch_embd": "vision_model.embeddings.patch_embedding",
    "v.position_embd": "vision_model.embeddings.position_embedding", "mm.output_norm": "perceiver.norm",
    "output_norm": "gpt_neox.final_layer_norm",
}  # fmt: skip


def published(weights: dict[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """-> (what was trained, the language model, the tower) under their authors' names. The language model's own
    embeddings are shorter ones that the trained take the place of; queries, keys and values of a head lie together."""
    trained: dict[str, Any] = {}
    language: dict[str, Any] = {}
    tower: dict[str, Any] = {}
    heads = NUMBERS["attention.head_count"]
    path = "lang_encoder.gpt_neox.layers.{}.gated_cross_attn_layer."
    for name, array in weights.items():
        base, _, kind = name.rpartition(".")
        parts = name.split(".")
        if name == "v.class_embd":
            tower["vision_model.embeddings.class_embedding"] = array
        elif name == "mm.query":
            trained["perceiver.latents"] = array
        elif base in ("token_embd", "output"):
            own = "gpt_neox.embed_in.weight" if base == "token_embd" else "embed_out.weight"
            trained[f"lang_encoder.{own}"], language[own] = array, array[:-2] + 1
        elif base in OTHER:
            part = trained if base.startswith("mm.") else tower if base.startswith("v.") else language
            part[f"{OTHER[base]}.{kind}"] = array
        elif parts[0] == "v":
            tower[f"vision_model.encoder.layers.{parts[2]}.{TOWER[parts[3]]}.{kind}"] = array
        elif parts[0] == "mm" or parts[2] == "cross":
            b = base.rpartition(".")[0] + "."
            own = f"perceiver.layers.{parts[2]}." if parts[0] == "mm" else path.format(parts[1])
            names, to_kv = (READER, "0.to_kv") if parts[0] == "mm" else (CROSS, "attn.to_kv")
            if parts[-1].endswith("_alpha"):
                trained[own + names[parts[-1]]] = array
            elif parts[-2] == "attn_k":
                trained[f"{own}{to_kv}.weight"] = np.concatenate([array, weights[f"{b}attn_v.weight"]])
            elif parts[-2] != "attn_v":
                trained[f"{own}{names[parts[-2]]}.{kind}"] = array
        elif parts[2] == "attn_q":
            three = [weights[f"blk.{parts[1]}.attn_{n}.{kind}"] for n in "qkv"]
            each = np.stack([one.reshape(heads, -1, *one.shape[1:]) for one in three], 1)
            language[f"gpt_neox.layers.{parts[1]}.attention.query_key_value.{kind}"] = each.reshape(
                -1, *array.shape[1:]
            )
        elif parts[2] not in ("attn_k", "attn_v"):
            language[f"gpt_neox.layers.{parts[1]}.{DECODER[parts[2]]}.{kind}"] = array
    return trained, language, tower
