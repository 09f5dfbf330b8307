"""LLaVA for the suite: a tiny CLIP tower whose last but one layer counts, an MLP, and a LLaMA with shared keys."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from helpers.bpe_vocabularies import SpmBpe
from helpers.convert_checkpoint import convert_safetensors_bytes
from helpers.llava_checkpoint import preprocessor, write_json
from helpers.reference import Prompt, Reference, State, attention, gelu, quick_gelu
from helpers.tiny import GgufContent, StoredTensor, Tiny, TinyConfig, TinyVocabulary, make_weight
from PIL import Image

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

A = "llava"
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)
PROMPTS = {
    "system": SYSTEM,
    "caption": "USER: {image}\nProvide a one-sentence caption for the provided image. ASSISTANT:",
    "caption_detailed": "USER: {image}\nDescribe this image in detail. ASSISTANT:",
    "question": "USER: {image}\n{question} ASSISTANT:",
}
EOS = 2
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
NUMBERS = {
    "context_length": 1024, "embedding_length": 256, "block_count": 2, "feed_forward_length": 512,
    "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 64,
}  # fmt: skip
VISION = {
    "image_size": 56, "patch_size": 14, "embedding_length": 256, "feed_forward_length": 512, "block_count": 3,
    "attention.head_count": 4,
}  # fmt: skip
SMALL = {
    "context_length": 64, "embedding_length": 16, "block_count": 1, "feed_forward_length": 16,
    "attention.head_count": 2, "attention.head_count_kv": 1,
}  # fmt: skip
SMALL_VISION = {
    "image_size": 28, "patch_size": 14, "embedding_length": 16, "feed_forward_length": 16, "block_count": 2,
    "attention.head_count": 2,
}  # fmt: skip


class Pieces(SpmBpe):
    """A vocabulary in the order of LLaMA's, made by hand: every beginning of some words, the bytes, characters."""

    WORDS = (
        "A a an the of in on is it It and to for with cat dog snow table house man woman tree what What color where "
        "this that image picture red green blue white black USER: ASSISTANT: Describe detail. Provide caption chat "
        "between curious user artificial intelligence assistant. assistant gives helpful, detailed, polite answers "
        "questions. user's provided one-sentence sitting standing near camp fire warm himself two three"
    )

    def __init__(self) -> None:
        words = [f"▁{word}" for word in self.WORDS.split()]
        merged = list(dict.fromkeys(word[:n] for word in words for n in range(2, len(word) + 1)))
        characters = ["▁", *map(chr, range(33, 127)), "é", "ü", "中", "👍"]
        self.pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *merged, *characters]
        plain = len(merged) + len(characters)
        self.scores = [0.0] * 259 + [-float(i) for i in range(plain)]
        self.types = [2, 3, 3] + [6] * 256 + [1] * plain
        self.charsmap, self.added = b"", ()


PIECES = Pieces()
# transformers' legacy: false, as tokenizer.json has it: a blank before the first text of a prompt alone.
FIRST_ALONE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
ADDED = ("<image>", "<pad>")


def tensor_shapes(numbers: dict[str, int], vision: dict[str, int], vocab: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of a file with feature layer -2 and an MLP, in file order."""
    d, ff, heads = (numbers[k] for k in ("embedding_length", "feed_forward_length", "attention.head_count"))
    kv, q = (n * (d // heads) for n in (numbers["attention.head_count_kv"], heads))
    v, patch, hidden = (vision[k] for k in ("embedding_length", "patch_size", "feed_forward_length"))
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocab, d)}
    for i in range(numbers["block_count"]):
        shapes |= {
            f"blk.{i}.{name}.weight": shape
            for name, shape in {
                "attn_norm": (d,), "attn_q": (q, d), "attn_k": (kv, d), "attn_v": (kv, d), "attn_output": (d, q),
                "ffn_norm": (d,), "ffn_gate": (ff, d), "ffn_up": (ff, d), "ffn_down": (d, ff),
            }.items()
        }  # fmt: skip
    shapes |= {"output_norm.weight": (d,), "output.weight": (vocab, d), "v.class_embd": (v,)}
    shapes["v.patch_embd.weight"] = (v, 3, patch, patch)
    shapes["v.position_embd.weight"] = ((vision["image_size"] // patch) ** 2 + 1, v)
    linear = {"v.pre_ln": (v,)}
    for i in range(vision["block_count"] - 1):  # the last one is not run
        b = f"v.blk.{i}."
        linear |= {b + "ln1": (v,), **{b + f"attn_{x}": (v, v) for x in ("q", "k", "v", "out")}, b + "ln2": (v,)}
        linear |= {b + "ffn_up": (hidden, v), b + "ffn_down": (v, hidden)}
    linear |= {"mm.0": (d, v), "mm.2": (d, d)}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def metadata_of(numbers: dict[str, int], vision: dict[str, int], v: TinyVocabulary, max_new: int) -> dict[str, Any]:
    """Every key of a complete file; the checksums are added by `write_tiny`."""
    return {
        "general.architecture": ("str", A),
        "general.name": ("str", "tiny"),
        "general.file_type": ("u32", 0),
        "general.quantization_version": ("u32", 2),
        "general.alignment": ("u32", 64),
        **{f"{A}.{key}": ("u32", value) for key, value in numbers.items()},
        f"{A}.attention.layer_norm_rms_epsilon": ("f32", 1e-5),
        f"{A}.rope.freq_base": ("f32", 10000.0),
        f"{A}.vocab_size": ("u32", len(v.pieces)),
        f"{A}.vision.feature_layer": ("i32", -2),
        f"{A}.image.aspect": ("str", "crop"),
        f"{A}.image.token_id": ("u32", v.id("<image>")),
        f"{A}.projector": ("str", "mlp2x_gelu"),
        f"{A}.generation.max_new_tokens": ("u32", max_new),
        f"{A}.generation.no_repeat_ngram_size": ("u32", 0),
        **{f"{A}.prompt.{key}": ("str", text) for key, text in PROMPTS.items()},
        "clip.has_vision_encoder": ("bool", True),
        "clip.projector_type": ("str", A),
        "clip.use_gelu": ("bool", False),
        **{f"clip.vision.{key}": ("u32", value) for key, value in vision.items()},
        "clip.vision.projection_dim": ("u32", numbers["embedding_length"]),
        "clip.vision.attention.layer_norm_epsilon": ("f32", 1e-5),
        "clip.vision.image_mean": ("[f32]", list(MEAN)),
        "clip.vision.image_std": ("[f32]", list(STD)),
        "tokenizer.ggml.model": ("str", "llama"),
        "tokenizer.ggml.tokens": ("[str]", v.pieces),
        "tokenizer.ggml.scores": ("[f32]", v.scores),
        "tokenizer.ggml.token_type": ("[i32]", v.types),
        "tokenizer.ggml.bos_token_id": ("u32", 1),
        "tokenizer.ggml.eos_token_id": ("u32", EOS),
        "tokenizer.ggml.unknown_token_id": ("u32", 0),
        "tokenizer.ggml.padding_token_id": ("u32", v.id("<pad>")),
        "tokenizer.ggml.add_bos_token": ("bool", True),
        "tokenizer.ggml.add_space_prefix": ("bool", True),
        "tokenizer.ggml.remove_extra_whitespaces": ("bool", False),
        "tokenizer.ggml.space_prefix_every_segment": ("bool", False),  # transformers' legacy: false
        "tokenizer.ggml.space_prefix_before_space": ("bool", False),
    }


def weights_of(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Drawn as KOSMOS-2's, with gains that let attention choose and pictures matter."""
    gains = {"mm.0.weight": 2.0, "mm.2.weight": 0.3, "output.weight": 0.5, "ffn_gate": 2.0}
    weights = {name: make_weight(name, shape, seed) for name, shape in shapes.items()}
    weights["token_embd.weight"] = make_weight("token_embd.rows", shapes["token_embd.weight"], seed)  # none is zero
    for name in weights:
        weights[name] *= np.float32(next((gain for part, gain in gains.items() if part in name), 1.0))
    return weights


def fit(rgb: np.ndarray, size: int, aspect: str) -> np.ndarray:
    """LLaVA's two ways to a square: expand2square of its authors, or transformers' CLIPImageProcessor."""
    image = Image.fromarray(rgb)
    if aspect == "pad":
        side = max(image.size)
        square = Image.new("RGB", (side, side), tuple(int(x * 255) for x in MEAN))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))
    short = min(image.size)
    sides = tuple(size if side == short else int(size * side / short) for side in image.size)
    image = image.resize(sides, Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image)[top : top + size, left : left + size]


def rms(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return weight * (x / np.sqrt((x * x).mean(-1, keepdims=True) + x.dtype.type(eps)))


def rotate(x: np.ndarray, heads: int, first: int, base: float) -> np.ndarray:
    """transformers' apply_rotary_pos_emb: the halves of every head are pairs. x (rows, width), row 0 at `first`."""
    rows, head = x.shape[0], x.shape[1] // heads
    frequency = 1 / base ** (np.arange(0, head, 2, dtype=np.float32) / np.float32(head))
    angles = np.arange(first, first + rows, dtype=np.float32)[:, None] * frequency.astype(np.float32)
    cos, sin = (np.concatenate([f(angles)] * 2, -1)[:, None].astype(x.dtype) for f in (np.cos, np.sin))
    x = x.reshape(rows, heads, head)
    turned = np.concatenate([-x[..., head // 2 :], x[..., : head // 2]], -1)
    return (x * cos + turned * sin).reshape(rows, -1)


class LlavaReference(Reference):
    """LLaVA over weights by GGUF name (transformers LlavaForConditionalGeneration); the searches are inherited."""

    architecture = A
    output = "output"  # name of the output matrix

    def __init__(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
        value = {key: entry[1] for key, entry in metadata.items()}
        self.metadata, self.weights, self.dtype = value, weights, np.float32
        own = {key.removeprefix(f"{self.architecture}."): entry for key, entry in value.items()}
        self.width, self.layers = own["embedding_length"], own["block_count"]
        self.heads, self.kv_heads = own["attention.head_count"], own["attention.head_count_kv"]
        self.eps, self.base = own["attention.layer_norm_rms_epsilon"], own["rope.freq_base"]
        self.bos, self.eos = value["tokenizer.ggml.bos_token_id"], value["tokenizer.ggml.eos_token_id"]
        self.image_id = own["image.token_id"]

    def encode_image(self, rgb: np.ndarray) -> np.ndarray:
        value, w = self.metadata, self.weights
        size, patch = value["clip.vision.image_size"], value["clip.vision.patch_size"]
        eps, heads = value["clip.vision.attention.layer_norm_epsilon"], value["clip.vision.attention.head_count"]
        pixels = fit(rgb, size, value[f"{A}.image.aspect"]).astype(np.float32) * np.float32(1 / 255)
        pixels = ((pixels - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)
        side = size // patch
        patches = pixels.reshape(3, side, patch, side, patch).transpose(1, 3, 0, 2, 4).reshape(side * side, -1)
        x = np.concatenate(
            [w["v.class_embd"][None], patches @ w["v.patch_embd.weight"].reshape(len(w["v.class_embd"]), -1).T]
        )
        x = self.norm(x + w["v.position_embd.weight"], "v.pre_ln", eps)
        behind, last = {}, value["clip.vision.block_count"] + 1
        for i in range(last + value[f"{A}.vision.feature_layer"]):
            b = f"v.blk.{i}."
            h = self.norm(x, b + "ln1", eps)
            q, k, v = (self.linear(h, b + "attn_" + n) for n in "qkv")
            x = x + self.linear(attention(q, k, v, heads), b + "attn_out")
            x = x + self.linear(quick_gelu(self.linear(self.norm(x, b + "ln2", eps), b + "ffn_up")), b + "ffn_down")
            behind[i + 1] = x[1:]
        layers = value.get(f"{A}.vision.feature_layers", [value[f"{A}.vision.feature_layer"]])
        rows = self.linear(np.concatenate([behind[last + layer] for layer in layers], 1), "mm.0")
        return rows if value[f"{A}.projector"] == "linear" else self.linear(gelu(rows), "mm.2")

    def prompt(self, segments: list[list[int] | np.ndarray]) -> Prompt:
        ids, vectors = [self.bos], {}
        for segment in segments:
            if isinstance(segment, np.ndarray):
                vectors.update({len(ids) + j: row for j, row in enumerate(segment)})
                ids += [self.image_id] * len(segment)
            else:
                ids += segment
        return Prompt(ids, vectors)

    def start(self) -> State:
        empty = np.zeros((0, self.kv_heads * (self.width // self.heads)), self.dtype)
        return State([empty] * self.layers, [empty] * self.layers)

    def product(self, x: np.ndarray, name: str) -> np.ndarray:
        """One of the decoder's products."""
        return x @ self.weights[f"{name}.weight"].T

    def before_block(self, i: int, x: np.ndarray, first: int) -> np.ndarray:
        """What block i of the decoder takes, of the rows x from position `first` on."""
        return x

    def forward(self, state: State, ids: list[int], vectors: dict[int, np.ndarray]) -> tuple[np.ndarray, State]:
        w, first, group = self.weights, state.length, self.heads // self.kv_heads
        x = np.stack([vectors.get(first + i, w["token_embd.weight"][token]) for i, token in enumerate(ids)])
        keys, values = [], []

        def spread(kv: np.ndarray) -> np.ndarray:
            """Every head with its own copy of what it shares."""
            return kv.reshape(len(kv), self.kv_heads, -1).repeat(group, 1).reshape(len(kv), -1)

        for i in range(self.layers):
            b = f"blk.{i}."
            x = self.before_block(i, x, first)
            h = rms(x, w[b + "attn_norm.weight"], self.eps)
            q = rotate(self.product(h, b + "attn_q"), self.heads, first, self.base)
            k = rotate(self.product(h, b + "attn_k"), self.kv_heads, first, self.base)
            keys.append(np.concatenate([state.keys[i], k]))
            values.append(np.concatenate([state.values[i], self.product(h, b + "attn_v")]))
            x = x + attention(q, spread(keys[i]), spread(values[i]), self.heads, first) @ w[b + "attn_output.weight"].T
            h = rms(x, w[b + "ffn_norm.weight"], self.eps)
            gate = self.product(h, b + "ffn_gate")
            x = x + (gate / (1 + np.exp(-gate)) * self.product(h, b + "ffn_up")) @ w[b + "ffn_down.weight"].T
        logits = rms(x, w["output_norm.weight"], self.eps) @ w[f"{self.output}.weight"].T
        return logits, State(keys, values, first + len(ids))


def turn(image: int, words: str) -> Segments:
    """The segments of one turn behind what was said before."""
    return [("image", image), ("text", f"\n{words} ASSISTANT:")]


BEGIN: Segments = [("text", SYSTEM + "USER: ")]
CAPTION = "Provide a one-sentence caption for the provided image."


class Llava(Described):
    """A chat about pictures, without location tokens."""

    architecture = A
    tasks: ClassVar = ["caption", "ask", "generate", "score"]
    prompts: ClassVar = {
        "caption": BEGIN + turn(0, CAPTION),
        "long caption": BEGIN + turn(0, "Describe this image in detail."),
        "caption by beams": BEGIN + turn(0, CAPTION),
        "ask": BEGIN + turn(0, "what is this?"),
        "ask after an example": [
            *BEGIN,
            ("image", 0),
            ("text", "\nwhat color is it? ASSISTANT: red"),
            ("ids", [EOS]),
            ("text", "USER: "),
            *turn(1, "what is this?"),
        ],
        "generate": [("image", 0), ("text", "It is")],
        "generate from two pictures": [("image", 0), ("text", "a cat."), ("image", 1), ("text", "It is")],
        "score": BEGIN + turn(0, CAPTION),
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
        f"{A}.vision.feature_layer": set(),
        f"{A}.image.aspect": {"pad", "crop"},
        f"{A}.image.token_id": {0, 1},
        f"{A}.projector": {"mlp2x_gelu"},
        f"{A}.generation.stop": ANY_TEXT,
        f"{A}.prompt.follow_up": set(),
        f"{A}.vision.feature_layers": set(),
        **accepted_prompts(A, grounding=False),
        f"{A}.prompt.system": ANY_TEXT,
        **accepted_vision(),
        "clip.vision.block_count": set(),
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

    def make(self, seed: int) -> Tiny:
        """Sizes that every stored type fits."""
        v = TinyVocabulary([*PIECES.pieces, *ADDED], [*PIECES.scores, 0.0, 0.0], [*PIECES.types, 4, 3])
        weights = weights_of(tensor_shapes(NUMBERS, VISION, len(v.pieces)), seed)
        weights["output.weight"][v.id("<image>")] = 0  # the definition's searches do not know that it never comes
        return Tiny(TinyConfig(), v, weights, metadata_of(NUMBERS, VISION, v, 512))

    def define(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> LlavaReference:
        """Above."""
        return LlavaReference(metadata, weights)

    def prompt(self, name: str, tokenizer: _core.Tokenizer, pictures: list[np.ndarray]) -> Any:
        """A text that does not begin the prompt has no blank in front of it."""
        segments = []
        for number, (kind, value) in enumerate(self.prompts[name]):
            if kind == "image":
                segments.append(self.definition.encode_image(pictures[value]))
            else:
                segments.append(value if kind == "ids" else tokenizer.encode(value, at_start=number == 0))
        return self.definition.prompt(segments)

    def small(self) -> GgufContent:
        """Without bytes: what is no piece is unknown."""
        pieces = ["<unk>", "<s>", "</s>", *"▁animge.", "▁a", "▁An", "▁i", "▁im", "▁o", "▁of", *ADDED]
        count = len(pieces)
        types = [2, 3, 3, *[1] * (count - 5), 4, 3]
        v = TinyVocabulary(pieces, [-0.5 * i for i in range(count)], types)
        metadata = metadata_of(SMALL, SMALL_VISION, v, 8)
        metadata["tokenizer.ggml.precompiled_charsmap"] = ("[u8]", [])
        metadata[f"{A}.vision.feature_layers"] = ("[i32]", [-2])
        tensors = {
            name: StoredTensor("F32", array.shape, array.astype("<f4").tobytes())
            for name, array in weights_of(tensor_shapes(SMALL, SMALL_VISION, count), 0).items()
        }
        return GgufContent(metadata, tensors)

    def write_checkpoint(self, folder: Path) -> Path:
        """transformers' layout; what the last layer of the tower computes is looked at by nobody."""
        folder.mkdir(parents=True)
        text, vision = NUMBERS, VISION
        config = {
            "model_type": A, "image_token_index": self.tiny.vocabulary.id("<image>"), "vision_feature_layer": -2,
            "text_config": {
                "model_type": "llama", "vocab_size": len(self.tiny.vocabulary.pieces), "rms_norm_eps": 1e-5,
                "hidden_size": text["embedding_length"], "intermediate_size": text["feed_forward_length"],
                "num_hidden_layers": text["block_count"], "num_attention_heads": text["attention.head_count"],
                "num_key_value_heads": text["attention.head_count_kv"],
                "max_position_embeddings": text["context_length"],
            },
            "vision_config": {
                "model_type": "clip_vision_model", "hidden_size": vision["embedding_length"],
                "intermediate_size": vision["feed_forward_length"], "num_hidden_layers": vision["block_count"],
                "num_attention_heads": vision["attention.head_count"], "image_size": vision["image_size"],
                "patch_size": vision["patch_size"],
            },
        }  # fmt: skip
        size = vision["image_size"]
        write_json(
            folder,
            config=config,
            preprocessor_config=preprocessor(
                size={"shortest_edge": size}, crop_size={"height": size, "width": size}
            ),
            tokenizer={
                **PIECES.tokenizer_json(ADDED, plain="<image>"),
                "normalizer": None,
                "pre_tokenizer": FIRST_ALONE,
            },
            tokenizer_config={
                "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
                "pad_token": "<pad>", "legacy": False,
            },
        )  # fmt: skip
        state = {published(name): (array.shape, array.tobytes()) for name, array in self.tiny.weights.items()}
        (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(state, "F32"))
        return folder


PUBLISHED = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
PUBLISHED_VISION = {
    "ln1": "layer_norm1", "ln2": "layer_norm2", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_out": "self_attn.out_proj", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2",
}  # fmt: skip
PUBLISHED_OTHER = {
    "token_embd": "language_model.model.embed_tokens", "output_norm": "language_model.model.norm",
    "output": "language_model.lm_head", "mm.0": "multi_modal_projector.linear_1",
    "mm.2": "multi_modal_projector.linear_2", "v.pre_ln": "vision_tower.vision_model.pre_layrnorm",
    "v.patch_embd": "vision_tower.vision_model.embeddings.patch_embedding",
    "v.position_embd": "vision_tower.vision_model.embeddings.position_embedding",
}  # fmt: skip


def published(name: str) -> str:
    """transformers' name of a tensor."""
    if name == "v.class_embd":
        return "vision_tower.vision_model.embeddings.class_embedding"
    base, _, kind = name.rpartition(".")
    parts = base.split(".")
    if parts[0] == "blk":
        return f"language_model.model.layers.{parts[1]}.{PUBLISHED[parts[2]]}.{kind}"
    if parts[:2] == ["v", "blk"]:
        return f"vision_tower.vision_model.encoder.layers.{parts[2]}.{PUBLISHED_VISION[parts[3]]}.{kind}"
    return f"{PUBLISHED_OTHER[base]}.{kind}"
