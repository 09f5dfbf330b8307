"""BLIP-2 for the suite: a tiny tower with heads of 88, a Q-Former of three blocks, and an OPT."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from helpers.convert_checkpoint import convert_safetensors_bytes
from helpers.letters_bpe import LettersBpe, spell
from helpers.llava_checkpoint import write_json
from helpers.reference import Prompt, Reference, State, attention, gelu, preprocess
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

A = "blip2"
PROMPTS = {
    "caption": "{image}",
    "caption_detailed": "{image}Question: Describe this image in detail. Answer:",
    "question": "{image}Question: {question} Answer:",
}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
NUMBERS = {
    "context_length": 512, "embedding_length": 256, "block_count": 2, "feed_forward_length": 512,
    "attention.head_count": 4,
}  # fmt: skip
QFORMER = {
    "embedding_length": 256, "feed_forward_length": 512, "block_count": 3, "attention.head_count": 4, "query_count": 8,
    "cross_attention_every": 2,
}  # fmt: skip
VISION = {
    "image_size": 56, "patch_size": 14, "embedding_length": 352, "feed_forward_length": 512, "block_count": 2,
    "attention.head_count": 4,
}  # fmt: skip
SMALL = {
    "context_length": 64, "embedding_length": 16, "block_count": 1, "feed_forward_length": 16,
    "attention.head_count": 2,
}  # fmt: skip
SMALL_QFORMER = {
    "embedding_length": 16, "feed_forward_length": 16, "block_count": 1, "attention.head_count": 2, "query_count": 4,
    "cross_attention_every": 1,
}  # fmt: skip
SMALL_VISION = {
    "image_size": 28, "patch_size": 14, "embedding_length": 16, "feed_forward_length": 16, "block_count": 1,
    "attention.head_count": 2,
}  # fmt: skip
WORDS = (
    "a an the of in on is it and to for with cat dog snow table house man woman tree what color where this that image "
    "picture red green blue white black Question Answer Describe detail It An photo sitting standing near fire two"
)
PIECES = LettersBpe(WORDS.split(), ("<s>", "<pad>", "</s>", "<unk>"), ("<image>",))
BOS, PAD = 2, 1
END = PIECES.pieces.index("Ċ")  # a line feed


def tensor_shapes(
    numbers: dict[str, int], qformer: dict[str, int], vision: dict[str, int], vocab: int
) -> dict[str, tuple[int, ...]]:
    """Every tensor of a file, in file order."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, *shape: int) -> None:
        shapes[name + ".weight"], shapes[name + ".bias"] = shape, shape[:1]

    def block(b: str, d: int, ff: int, output: str, norms: tuple[str, str]) -> None:
        linear(b + norms[0], d)
        for x in ("attn_q", "attn_k", "attn_v", output):
            linear(b + x, d, d)
        linear(b + norms[1], d)
        linear(b + "ffn_up", ff, d)
        linear(b + "ffn_down", d, ff)

    d = numbers["embedding_length"]
    shapes["token_embd.weight"] = (vocab, d)
    shapes["position_embd.weight"] = (numbers["context_length"] + 2, d)
    for i in range(numbers["block_count"]):
        block(f"blk.{i}.", d, numbers["feed_forward_length"], "attn_output", ("attn_norm", "ffn_norm"))
    linear("output_norm", d)
    v, patch = vision["embedding_length"], vision["patch_size"]
    shapes["v.class_embd"] = (v,)
    linear("v.patch_embd", v, 3, patch, patch)
    shapes["v.position_embd.weight"] = ((vision["image_size"] // patch) ** 2 + 1, v)
    for i in range(vision["block_count"]):
        block(f"v.blk.{i}.", v, vision["feed_forward_length"], "attn_out", ("ln1", "ln2"))
    linear("v.post_ln", v)
    q = qformer["embedding_length"]
    shapes["mm.query"] = (qformer["query_count"], q)
    linear("mm.query_norm", q)
    for i in range(qformer["block_count"]):
        b = f"mm.blk.{i}."
        block(b, q, qformer["feed_forward_length"], "attn_output", ("attn_norm", "ffn_norm"))
        if i % qformer["cross_attention_every"] == 0:
            linear(b + "cross.attn_q", q, q)
            linear(b + "cross.attn_k", q, v)
            linear(b + "cross.attn_v", q, v)
            linear(b + "cross.attn_output", q, q)
            linear(b + "cross.attn_norm", q)
    linear("mm.0", d, q)
    return shapes


def bridge_metadata(a: str, qformer: dict[str, int], vision: dict[str, int], width: int) -> dict[str, Any]:
    """The keys of a tower of EVA-CLIP's kind and a Q-Former."""
    return {
        **{f"{a}.qformer.{key}": ("u32", value) for key, value in qformer.items()},
        f"{a}.qformer.attention.layer_norm_epsilon": ("f32", 1e-12),
        "clip.has_vision_encoder": ("bool", True),
        "clip.projector_type": ("str", a),
        "clip.use_gelu": ("bool", True),
        **{f"clip.vision.{key}": ("u32", value) for key, value in vision.items()},
        "clip.vision.projection_dim": ("u32", width),
        "clip.vision.attention.layer_norm_epsilon": ("f32", 1e-6),
        "clip.vision.image_mean": ("[f32]", list(MEAN)),
        "clip.vision.image_std": ("[f32]", list(STD)),
    }


def metadata_of(
    numbers: dict[str, int], qformer: dict[str, int], vision: dict[str, int], bpe: LettersBpe, max_new: int
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
        f"{A}.vocab_size": ("u32", len(bpe.pieces)),
        **bridge_metadata(A, qformer, vision, numbers["embedding_length"]),
        f"{A}.image.token_id": ("u32", bpe.pieces.index("<image>")),
        f"{A}.generation.max_new_tokens": ("u32", max_new),
        f"{A}.generation.no_repeat_ngram_size": ("u32", 0),
        f"{A}.generation.end_token_id": ("u32", bpe.pieces.index("Ċ")),
        **{f"{A}.prompt.{key}": ("str", text) for key, text in PROMPTS.items()},
        "tokenizer.ggml.model": ("str", "gpt2"),
        "tokenizer.ggml.pre": ("str", "gpt-2"),
        "tokenizer.ggml.tokens": ("[str]", bpe.pieces),
        "tokenizer.ggml.token_type": ("[i32]", bpe.types),
        "tokenizer.ggml.merges": ("[str]", bpe.merges),
        "tokenizer.ggml.bos_token_id": ("u32", BOS),
        "tokenizer.ggml.eos_token_id": ("u32", BOS),
        "tokenizer.ggml.padding_token_id": ("u32", PAD),
        "tokenizer.ggml.add_bos_token": ("bool", True),
        "tokenizer.ggml.add_space_prefix": ("bool", False),
    }


GAINS = {"blk.0.attn_q": 2.0, "blk.0.attn_k": 2.0, "blk.1.attn_q": 2.0, "blk.1.attn_k": 2.0, "ffn_down": 2.0}


def weights_of(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Drawn as KOSMOS-2's, with gains that let attention choose and pictures matter."""
    weights = {}
    for name, shape in shapes.items():
        drawn = {"token_embd.weight": "token_embd.rows", "mm.query": "mm.latent_query"}.get(name, name)
        weights[name] = make_weight(drawn, shape, seed)
    weights["token_embd.weight"] *= np.float32(0.3)
    weights["position_embd.weight"] *= np.float32(0.3)
    weights["mm.0.weight"] *= np.float32(0.5)
    return weights


class Bridge(Reference):
    """EVA-CLIP's tower and a Q-Former over weights by GGUF name (transformers Blip2VisionModel, Blip2QFormerModel)."""

    post_eps: float | None = None  # of the tower's last norm; None: as its blocks'

    def attend(
        self, x: np.ndarray, features: np.ndarray, b: str, heads: int, output: str = "attn_output"
    ) -> np.ndarray:
        q, k, v = (self.linear(of, b + "attn_" + n) for n, of in zip("qkv", (x, features, features), strict=True))
        return self.linear(attention(q, k, v, heads), b + output)

    def features(self, rgb: np.ndarray) -> np.ndarray:
        """Of the tower: (patches + 1, vision width)."""
        value, w = self.metadata, self.weights
        size, patch = value["clip.vision.image_size"], value["clip.vision.patch_size"]
        eps, heads = value["clip.vision.attention.layer_norm_epsilon"], value["clip.vision.attention.head_count"]
        side = size // patch
        pixels = preprocess(rgb, size, value["clip.vision.image_mean"], value["clip.vision.image_std"])
        patches = pixels.reshape(3, side, patch, side, patch).transpose(1, 3, 0, 2, 4).reshape(side * side, -1)
        kernel = w["v.patch_embd.weight"].reshape(len(w["v.class_embd"]), -1)
        x = np.concatenate([w["v.class_embd"][None], patches @ kernel.T + w["v.patch_embd.bias"]])
        x = x + w["v.position_embd.weight"]
        for i in range(value["clip.vision.block_count"]):
            b = f"v.blk.{i}."
            h = self.norm(x, b + "ln1", eps)
            x = x + self.attend(h, h, b, heads, "attn_out")
            x = x + self.linear(gelu(self.linear(self.norm(x, b + "ln2", eps), b + "ffn_up")), b + "ffn_down")
        return self.norm(x, "v.post_ln", self.post_eps or eps)

    def read(self, features: np.ndarray) -> np.ndarray:
        """The Q-Former's rows, (queries, decoder's width)."""
        value, own = self.metadata, self.metadata["general.architecture"] + ".qformer."
        heads, every = value[own + "attention.head_count"], value[own + "cross_attention_every"]
        eps = value[own + "attention.layer_norm_epsilon"]
        x = self.norm(self.weights["mm.query"], "mm.query_norm", eps)
        for i in range(value[own + "block_count"]):
            b = f"mm.blk.{i}."
            x = self.norm(self.attend(x, x, b, heads, "attn_output") + x, b + "attn_norm", eps)
            if i % every == 0:
                x = self.norm(
                    self.attend(x, features, b + "cross.", heads, "attn_output") + x, b + "cross.attn_norm", eps
                )
            x = self.norm(self.linear(gelu(self.linear(x, b + "ffn_up")), b + "ffn_down") + x, b + "ffn_norm", eps)
        return self.linear(x, "mm.0")

    def encode_image(self, rgb: np.ndarray) -> np.ndarray:
        return self.read(self.features(rgb))


class Blip2Reference(Bridge):
    """BLIP-2 with OPT; the searches are inherited."""

    def __init__(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
        value = {key: entry[1] for key, entry in metadata.items()}
        self.metadata, self.weights, self.dtype = value, weights, np.float32
        self.width, self.layers = value[f"{A}.embedding_length"], value[f"{A}.block_count"]
        self.heads, self.eps = value[f"{A}.attention.head_count"], value[f"{A}.attention.layer_norm_epsilon"]
        self.bos, self.eos = value["tokenizer.ggml.bos_token_id"], value[f"{A}.generation.end_token_id"]
        self.image_id = value[f"{A}.image.token_id"]

    def prompt(self, segments: list[list[int] | np.ndarray]) -> Prompt:
        """Images at the very beginning stand before what begins the text."""
        ids: list[int] = []
        vectors: dict[int, np.ndarray] = {}
        begun = False
        for segment in segments:
            if isinstance(segment, np.ndarray):
                vectors.update({len(ids) + j: row for j, row in enumerate(segment)})
                ids += [self.image_id] * len(segment)
            else:
                ids += segment if begun else [self.bos, *segment]
                begun = True
        return Prompt(ids if begun else [*ids, self.bos], vectors)

    def forward(self, state: State, ids: list[int], vectors: dict[int, np.ndarray]) -> tuple[np.ndarray, State]:
        """OPTDecoder: pre-norm, positions from row 2 on, ReLU."""
        w, first = self.weights, state.length
        x = np.stack([vectors.get(first + i, w["token_embd.weight"][token]) for i, token in enumerate(ids)])
        x = x + w["position_embd.weight"][first + 2 : first + 2 + len(ids)]
        keys, values = [], []
        for i in range(self.layers):
            b = f"blk.{i}."
            h = self.norm(x, b + "attn_norm")
            keys.append(np.concatenate([state.keys[i], self.linear(h, b + "attn_k")]))
            values.append(np.concatenate([state.values[i], self.linear(h, b + "attn_v")]))
            a = attention(self.linear(h, b + "attn_q"), keys[i], values[i], self.heads, first)
            x = x + self.linear(a, b + "attn_output")
            h = np.maximum(self.linear(self.norm(x, b + "ffn_norm"), b + "ffn_up"), 0)
            x = x + self.linear(h, b + "ffn_down")
        return self.norm(x, "output_norm") @ w["token_embd.weight"].T, State(keys, values, first + len(ids))


def accepted_bridge(a: str) -> dict[str, set[Any]]:
    """The keys of `bridge_metadata`."""
    return {
        f"{a}.qformer.embedding_length": set(),
        f"{a}.qformer.feed_forward_length": set(),
        f"{a}.qformer.block_count": {1},
        f"{a}.qformer.attention.head_count": {1},
        f"{a}.qformer.attention.layer_norm_epsilon": {"max"},
        f"{a}.qformer.query_count": set(),
        f"{a}.qformer.cross_attention_every": {1, "max"},
        **accepted_vision(),
        "clip.use_gelu": {1},
    }


class Blip2(Described):
    """Captions and answers, a line each; without location tokens."""

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
            ("ids", [END]),
            ("image", 1),
            ("text", "Question: what is this? Answer:"),
        ],
        "generate": [("image", 0), ("text", "It is")],
        "generate from two pictures": [("image", 0), ("text", "a cat."), ("image", 1), ("text", "It is")],
        "score": [("image", 0)],
    }
    accepted: ClassVar = {
        **accepted_general(A),
        **accepted_decoder(A),
        f"{A}.context_length": set(),  # the rows of the table of positions
        **accepted_bridge(A),
        f"{A}.image.token_id": {0, 1},
        f"{A}.generation.end_token_id": {0, 1},
        **accepted_prompts(A, grounding=False),
        "tokenizer.ggml.model": set(),
        "tokenizer.ggml.pre": {"gpt-2", "llama-bpe", "dbrx", "qwen2"},
        "tokenizer.ggml.normalizer": {"nfc"},
        "tokenizer.ggml.tokens": set(),
        "tokenizer.ggml.token_type": set(),
        "tokenizer.ggml.merges": set(),
        "tokenizer.ggml.bos_token_id": {0},
        "tokenizer.ggml.eos_token_id": {0},
        "tokenizer.ggml.unknown_token_id": set(),
        "tokenizer.ggml.padding_token_id": {0, 1},
        "tokenizer.ggml.add_bos_token": {0, 1},
        "tokenizer.ggml.add_space_prefix": {0},
    }

    piece_texts: ClassVar = {"x" * 1024, spell("\x1b[0m")}

    def make(self, seed: int) -> Tiny:
        """Sizes that every stored type fits, but the tower's rows, which k-quants do not fit."""
        vocabulary = TinyVocabulary(PIECES.pieces, [0.0] * len(PIECES.pieces), PIECES.types)
        weights = weights_of(tensor_shapes(NUMBERS, QFORMER, VISION, len(PIECES.pieces)), seed)
        weights["token_embd.weight"][-1] = 0  # the definition's searches do not know that <image> never comes
        return Tiny(TinyConfig(), vocabulary, weights, metadata_of(NUMBERS, QFORMER, VISION, PIECES, 64))

    def define(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> Blip2Reference:
        """Above."""
        return Blip2Reference(metadata, weights)

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
        plain = [f"Ġplain{i}" for i in range(8)]
        bpe = LettersBpe(["a", "An", "image", "of"], ("<s>", "<pad>", "</s>", "<unk>"), ("<image>",), plain)
        metadata = metadata_of(SMALL, SMALL_QFORMER, SMALL_VISION, bpe, 8)
        shapes = tensor_shapes(SMALL, SMALL_QFORMER, SMALL_VISION, len(bpe.pieces))
        tensors = {
            name: StoredTensor("F32", array.shape, array.astype("<f4").tobytes())
            for name, array in weights_of(shapes, 0).items()
        }
        return GgufContent(metadata, tensors)

    def write_checkpoint(self, folder: Path) -> Path:
        """transformers' layout."""
        folder.mkdir(parents=True)
        n, q, v = NUMBERS, QFORMER, VISION
        write_json(
            folder,
            config={
                "model_type": "blip-2", "num_query_tokens": q["query_count"],
                "image_token_index": self.tiny.vocabulary.id("<image>"),
                "text_config": {
                    "model_type": "opt", "vocab_size": len(PIECES.pieces), "hidden_size": n["embedding_length"],
                    "word_embed_proj_dim": n["embedding_length"], "ffn_dim": n["feed_forward_length"],
                    "num_hidden_layers": n["block_count"], "num_attention_heads": n["attention.head_count"],
                    "max_position_embeddings": n["context_length"], "eos_token_id": END,
                },
                "qformer_config": {
                    "hidden_size": q["embedding_length"], "intermediate_size": q["feed_forward_length"],
                    "num_hidden_layers": q["block_count"], "num_attention_heads": q["attention.head_count"],
                    "encoder_hidden_size": v["embedding_length"],
                },
                "vision_config": vision_config(v),
            },
            preprocessor_config=preprocessor_config(v["image_size"]),
            vocab={piece: i for i, piece in enumerate(PIECES.pieces[:-1])},
            tokenizer_config=TOKENIZER_CONFIG,
        )  # fmt: skip
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(PIECES.merges) + "\n", encoding="utf-8")
        state = {}
        for name, array in published(self.tiny.weights).items():
            state[name] = (array.shape, np.ascontiguousarray(array).tobytes())
        (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(state, "F32"))
        return folder


TOKENIZER_CONFIG = {
    "tokenizer_class": "GPT2Tokenizer", "bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>",
    "pad_token": "<pad>", "add_bos_token": True,
    "added_tokens_decoder": {
        str(PIECES.pieces.index(text)): {"content": text, "special": True}
        for text in ("<s>", "<pad>", "</s>", "<unk>", "<image>")
    },
}  # fmt: skip


def vision_config(v: dict[str, int]) -> dict[str, Any]:
    """Of the tower."""
    return {
        "hidden_size": v["embedding_length"], "intermediate_size": v["feed_forward_length"],
        "num_hidden_layers": v["block_count"], "num_attention_heads": v["attention.head_count"],
        "image_size": v["image_size"], "patch_size": v["patch_size"],
    }  # fmt: skip


def preprocessor_config(size: int) -> dict[str, Any]:
    """BlipImageProcessor's."""
    return {
        "image_processor_type": "BlipImageProcessor", "do_resize": True, "resample": 3, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": list(MEAN), "image_std": list(STD),
        "size": {"height": size, "width": size},
    }  # fmt: skip


DECODER = {
    "attn_norm": "self_attn_layer_norm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.out_proj", "ffn_norm": "final_layer_norm",
    "ffn_up": "fc1", "ffn_down": "fc2",
}  # fmt: skip
TOWER = {
    "ln1": "layer_norm1", "ln2": "layer_norm2", "attn_q": "self_attn.q", "attn_k": "self_attn.k",
    "attn_v": "self_attn.v", "attn_out": "self_attn.projection", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2",
}  # fmt: skip
READER = {
    "attn_q": "attention.query", "attn_k": "attention.key", "attn_v": "attention.value", "attn_output": "output.dense",
    "attn_norm": "output.LayerNorm",
}  # fmt: skip
FEED_FORWARD = {
    "ffn_up": "intermediate_query.dense", "ffn_down": "output_query.dense", "ffn_norm": "output_query.LayerNorm",
}  # fmt: skip
OTHER = {
    "token_embd": "language_model.model.decoder.embed_tokens",
    "position_embd": "language_model.model.decoder.embed_positions",
    "output_norm": "language_model.model.decoder.final_layer_norm", "mm.0": "language_projection",
    "mm.query_norm": "qformer.layernorm", "v.post_ln": "vision_model.post_layernorm",
    "v.patch_embd": "vision_model.embeddings.patch_embedding",
}  # fmt: skip
WHOLE = {
    "v.class_embd": "vision_model.embeddings.class_embedding", "mm.query": "query_tokens",
    "v.position_embd.weight": "vision_model.embeddings.position_embedding",
}  # fmt: skip


def bridge_name(base: str) -> str | None:
    """transformers' name of a tensor of the tower or the Q-Former, without its kind; None: it is of neither."""
    parts = base.split(".")
    if parts[:2] == ["v", "blk"]:
        return f"vision_model.encoder.layers.{parts[2]}.{TOWER[parts[3]]}"
    if parts[:2] == ["mm", "blk"]:
        layer = f"qformer.encoder.layer.{parts[2]}."
        if parts[3] == "cross":
            return f"{layer}crossattention.{READER[parts[4]]}"
        return layer + (FEED_FORWARD.get(parts[3]) or f"attention.{READER[parts[3]]}")
    return OTHER.get(base)


def published(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights under transformers' names: leading dimensions of one, queries, keys and values in one."""
    state: dict[str, np.ndarray] = {}
    for name, array in weights.items():
        if name in WHOLE:
            state[WHOLE[name]] = array[None, None] if name == "v.class_embd" else array[None]
            continue
        base, _, kind = name.rpartition(".")
        known = bridge_name(base)
        if known is None:
            _, layer, part = base.split(".")
            known = f"language_model.model.decoder.layers.{layer}.{DECODER[part]}"
        state[f"{known}.{kind}"] = array
    for name in [name for name in state if ".self_attn.q." in name and name.startswith("vision_model.")]:
        parts = [state.pop(name.replace(".q.", f".{x}.")) for x in "qkv"]
        state[name.replace(".q.", ".qkv.")] = np.concatenate(parts)
    return state
