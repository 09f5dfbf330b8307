"""mPLUG-Owl for the suite: a tiny CLIP tower with its last norm and class token, an abstractor, and a LLaMA."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from helpers.convert_checkpoint import convert_safetensors_bytes
from helpers.llava_checkpoint import preprocessor, write_json
from helpers.reference import attention, preprocess, quick_gelu
from helpers.tiny import GgufContent, StoredTensor, Tiny, TinyConfig, TinyVocabulary, make_weight

from models.description import (
    ANY_TEXT,
    Described,
    Segments,
    accepted_decoder,
    accepted_general,
    accepted_prompts,
    accepted_vision,
)
from models.llava import EOS, MEAN, NUMBERS, PIECES, SMALL, STD, Llava, LlavaReference, published

A = "mplug_owl"
SYSTEM = (
    "The following is a conversation between a curious human and AI assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
PROMPTS = {
    "system": SYSTEM,
    "caption": "\nHuman: {image}\nHuman: Provide a one-sentence caption for the provided image.\nAI: ",
    "caption_detailed": "\nHuman: {image}\nHuman: Describe this image in detail.\nAI: ",
    "question": "\nHuman: {image}\nHuman: {question}\nAI: ",
    "follow_up": "\nHuman: {question}\nAI: ",
}
VISION = {
    "image_size": 56, "patch_size": 14, "embedding_length": 256, "feed_forward_length": 512, "block_count": 2,
    "attention.head_count": 4,
}  # fmt: skip
ABSTRACTOR = {"feed_forward_length": 768, "block_count": 2, "attention.head_count": 4, "query_count": 8}
SMALL_VISION = {
    "image_size": 28, "patch_size": 14, "embedding_length": 16, "feed_forward_length": 16, "block_count": 1,
    "attention.head_count": 2,
}  # fmt: skip
SMALL_ABSTRACTOR = {"feed_forward_length": 16, "block_count": 1, "attention.head_count": 2, "query_count": 3}


def tensor_shapes(
    numbers: dict[str, int], vision: dict[str, int], abstractor: dict[str, int], vocab: int
) -> dict[str, tuple[int, ...]]:
    """Every tensor of a file, in file order."""
    d, ff, heads = (numbers[k] for k in ("embedding_length", "feed_forward_length", "attention.head_count"))
    kv = numbers["attention.head_count_kv"] * (d // heads)
    v, patch, hidden = (vision[k] for k in ("embedding_length", "patch_size", "feed_forward_length"))
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocab, d)}
    for i in range(numbers["block_count"]):
        shapes |= {
            f"blk.{i}.{name}.weight": shape
            for name, shape in {
                "attn_norm": (d,), "attn_q": (d, d), "attn_k": (kv, d), "attn_v": (kv, d), "attn_output": (d, d),
                "ffn_norm": (d,), "ffn_gate": (ff, d), "ffn_up": (ff, d), "ffn_down": (d, ff),
            }.items()
        }  # fmt: skip
    shapes |= {"output_norm.weight": (d,), "output.weight": (vocab, d), "v.class_embd": (v,)}
    shapes["v.patch_embd.weight"] = (v, 3, patch, patch)
    shapes["v.position_embd.weight"] = ((vision["image_size"] // patch) ** 2 + 1, v)
    linear = {"v.pre_ln": (v,)}
    for i in range(vision["block_count"]):
        b = f"v.blk.{i}."
        linear |= {b + "ln1": (v,), **{b + f"attn_{x}": (v, v) for x in ("q", "k", "v", "out")}, b + "ln2": (v,)}
        linear |= {b + "ffn_up": (hidden, v), b + "ffn_down": (v, hidden)}
    linear["v.post_ln"] = (v,)
    shapes["mm.query"] = (abstractor["query_count"], v)
    inner = abstractor["feed_forward_length"]
    for i in range(abstractor["block_count"]):
        b = f"mm.blk.{i}."
        linear |= {b + "attn_norm": (v,), b + "feature_norm": (v,), b + "ffn_norm": (v,), b + "ffn_sub_norm": (inner,)}
        linear |= {b + f"attn_{x}": (v, v) for x in ("q", "k", "v", "output")}
        linear |= {b + "ffn_gate": (inner, v), b + "ffn_up": (inner, v), b + "ffn_down": (v, inner)}
    linear["mm.0"] = (d, v)
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    shapes["mm.end"] = (d,)
    return shapes


def metadata_of(
    numbers: dict[str, int], vision: dict[str, int], abstractor: dict[str, int], v: TinyVocabulary, max_new: int
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
        **{f"{A}.abstractor.{key}": ("u32", value) for key, value in abstractor.items()},
        f"{A}.abstractor.attention.layer_norm_epsilon": ("f32", 1e-5),
        f"{A}.abstractor.feed_forward_norm_epsilon": ("f32", 1e-6),
        f"{A}.image.token_id": ("u32", 0),
        f"{A}.generation.max_new_tokens": ("u32", max_new),
        f"{A}.generation.no_repeat_ngram_size": ("u32", 0),
        **{f"{A}.prompt.{key}": ("str", text) for key, text in PROMPTS.items()},
        "clip.has_vision_encoder": ("bool", True),
        "clip.projector_type": ("str", A),
        "clip.use_gelu": ("bool", False),
        **{f"clip.vision.{key}": ("u32", value) for key, value in vision.items()},
        "clip.vision.projection_dim": ("u32", numbers["embedding_length"]),
        "clip.vision.attention.layer_norm_epsilon": ("f32", 1e-6),
        "clip.vision.image_mean": ("[f32]", list(MEAN)),
        "clip.vision.image_std": ("[f32]", list(STD)),
        "tokenizer.ggml.model": ("str", "llama"),
        "tokenizer.ggml.tokens": ("[str]", v.pieces),
        "tokenizer.ggml.scores": ("[f32]", v.scores),
        "tokenizer.ggml.token_type": ("[i32]", v.types),
        "tokenizer.ggml.bos_token_id": ("u32", 1),
        "tokenizer.ggml.eos_token_id": ("u32", EOS),
        "tokenizer.ggml.unknown_token_id": ("u32", 0),
        "tokenizer.ggml.add_bos_token": ("bool", True),
        "tokenizer.ggml.add_space_prefix": ("bool", True),
        "tokenizer.ggml.remove_extra_whitespaces": ("bool", False),
        "tokenizer.ggml.space_prefix_every_segment": ("bool", True),
        "tokenizer.ggml.space_prefix_before_space": ("bool", True),
    }


def weights_of(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Drawn as KOSMOS-2's; no row of the embedding and no query is zero."""
    weights = {name: make_weight(name, shape, seed) for name, shape in shapes.items()}
    for name in ("token_embd.weight", "mm.query"):
        weights[name] = make_weight(f"{name}.rows", shapes[name], seed)
    weights["output.weight"] *= np.float32(0.5)
    for name in weights:  # so that rounding in quantized files does not grow from block to block
        if name.startswith("mm.blk.") and name.endswith(("attn_q.weight", "ffn_down.weight")):
            weights[name] *= np.float32(0.5)
    return weights


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


class MplugOwlReference(LlavaReference):
    """The authors' MplugOwlForConditionalGeneration over weights by GGUF name."""

    architecture = A

    def encode_image(self, rgb: np.ndarray) -> np.ndarray:
        value, w = self.metadata, self.weights
        size, patch = value["clip.vision.image_size"], value["clip.vision.patch_size"]
        eps, heads = value["clip.vision.attention.layer_norm_epsilon"], value["clip.vision.attention.head_count"]
        pixels, side = preprocess(rgb, size, MEAN, STD), size // patch
        patches = pixels.reshape(3, side, patch, side, patch).transpose(1, 3, 0, 2, 4).reshape(side * side, -1)
        width = len(w["v.class_embd"])
        x = np.concatenate([w["v.class_embd"][None], patches @ w["v.patch_embd.weight"].reshape(width, -1).T])
        x = self.norm(x + w["v.position_embd.weight"], "v.pre_ln", eps)
        for i in range(value["clip.vision.block_count"]):
            b = f"v.blk.{i}."
            h = self.norm(x, b + "ln1", eps)
            q, k, v = (self.linear(h, b + "attn_" + n) for n in "qkv")
            x = x + self.linear(attention(q, k, v, heads), b + "attn_out")
            x = x + self.linear(quick_gelu(self.linear(self.norm(x, b + "ln2", eps), b + "ffn_up")), b + "ffn_down")
        return self.abstract(self.norm(x, "v.post_ln", eps))

    def abstract(self, features: np.ndarray) -> np.ndarray:
        """The abstractor: features (n, width) -> rows of the decoder."""
        value, w = self.metadata, self.weights
        eps, inner_eps, heads = (
            value[f"{A}.abstractor.{key}"]
            for key in ("attention.layer_norm_epsilon", "feed_forward_norm_epsilon", "attention.head_count")
        )
        x = w["mm.query"]
        for i in range(value[f"{A}.abstractor.block_count"]):
            b = f"mm.blk.{i}."
            x = self.norm(x, b + "attn_norm", eps)
            both = np.concatenate([x, self.norm(features, b + "feature_norm", eps)])
            q, k, v = (self.linear(rows, b + "attn_" + n) for rows, n in ((x, "q"), (both, "k"), (both, "v")))
            x = x + self.linear(attention(q, k, v, heads), b + "attn_output")
            h = self.norm(x, b + "ffn_norm", eps)
            h = silu(self.linear(h, b + "ffn_gate")) * self.linear(h, b + "ffn_up")
            x = x + self.linear(self.norm(h, b + "ffn_sub_norm", inner_eps), b + "ffn_down")
        return np.concatenate([self.linear(x, "mm.0"), w["mm.end"][None]])


def turn(image: int, words: str) -> Segments:
    """The segments of one turn behind what was said before."""
    return [("image", image), ("text", f"\nHuman: {words}\nAI: ")]


BEGIN: Segments = [("text", SYSTEM + "\nHuman: ")]
CAPTION = "Provide a one-sentence caption for the provided image."


class MplugOwl(Described):
    """A chat about pictures, whose answers begin texts of their own."""

    architecture = A
    tasks: ClassVar = ["caption", "ask", "generate", "score"]
    prompts: ClassVar = {
        "caption": BEGIN + turn(0, CAPTION),
        "long caption": BEGIN + turn(0, "Describe this image in detail."),
        "caption by beams": BEGIN + turn(0, CAPTION),
        "ask": BEGIN + turn(0, "what is this?"),
        "ask after an example": [
            *BEGIN,
            *turn(0, "what color is it?"),
            ("ids", []),
            ("text", "red"),
            ("ids", [EOS]),
            ("text", "\nHuman: "),
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
        f"{A}.abstractor.feed_forward_length": set(),
        f"{A}.abstractor.block_count": {1},
        f"{A}.abstractor.attention.head_count": {1},
        f"{A}.abstractor.attention.layer_norm_epsilon": {"max"},
        f"{A}.abstractor.feed_forward_norm_epsilon": {"max"},
        f"{A}.abstractor.query_count": set(),
        f"{A}.image.token_id": {0, 1},
        **accepted_prompts(A, grounding=False),
        f"{A}.prompt.system": ANY_TEXT,
        f"{A}.prompt.follow_up": set(),
        **accepted_vision(),
        **{key: v for key, v in Llava.accepted.items() if key.startswith("tokenizer.")},
    }

    def make(self, seed: int) -> Tiny:
        """Sizes that every stored type fits."""
        v = TinyVocabulary(PIECES.pieces, PIECES.scores, PIECES.types)
        weights = weights_of(tensor_shapes(NUMBERS, VISION, ABSTRACTOR, len(v.pieces)), seed)
        weights["output.weight"][0] = 0  # the definition's searches do not know that the placeholder never comes
        return Tiny(TinyConfig(), v, weights, metadata_of(NUMBERS, VISION, ABSTRACTOR, v, 512))

    def define(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> MplugOwlReference:
        """Above."""
        return MplugOwlReference(metadata, weights)

    def small(self) -> GgufContent:
        """Without bytes: what is no piece is unknown."""
        pieces = ["<unk>", "<s>", "</s>", *"▁animge.", "▁a", "▁An", "▁i", "▁im", "▁o", "▁of"]
        count = len(pieces)
        v = TinyVocabulary(pieces, [-0.5 * i for i in range(count)], [2, 3, 3] + [1] * (count - 3))
        metadata = metadata_of(SMALL, SMALL_VISION, SMALL_ABSTRACTOR, v, 8)
        metadata["tokenizer.ggml.precompiled_charsmap"] = ("[u8]", [])
        tensors = {
            name: StoredTensor("F32", array.shape, array.astype("<f4").tobytes())
            for name, array in weights_of(tensor_shapes(SMALL, SMALL_VISION, SMALL_ABSTRACTOR, count), 0).items()
        }
        return GgufContent(metadata, tensors)

    def write_checkpoint(self, folder: Path) -> Path:
        """The authors' layout."""
        return write_checkpoint(folder, self.tiny)


PUBLISHED_VISION = {
    "ln1": "input_layernorm", "attn_out": "self_attn.dense", "ln2": "post_attention_layernorm", "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
}  # fmt: skip
PUBLISHED_ABSTRACTOR = {
    "attn_norm": "norm1", "feature_norm": "normk", "attn_q": "attention.query", "attn_k": "attention.key",
    "attn_v": "attention.value", "attn_output": "output.out_proj", "ffn_norm": "output.norm2",
    "ffn_gate": "output.mlp.w1", "ffn_up": "output.mlp.w3", "ffn_sub_norm": "output.mlp.ffn_ln",
    "ffn_down": "output.mlp.w2",
}  # fmt: skip
PUBLISHED_OTHER = {
    "v.pre_ln": "vision_model.embeddings.pre_layernorm", "v.post_ln": "vision_model.post_layernorm",
    "v.patch_embd": "vision_model.embeddings.patch_embed", "mm.0": "abstractor.visual_fc",
}  # fmt: skip
PUBLISHED_WHOLE = {
    "v.class_embd": ("vision_model.embeddings.cls_token", 2), "mm.query": ("query_tokens", 1),
    "v.position_embd.weight": ("vision_model.embeddings.position_embedding", 1), "mm.end": ("abstractor.vit_eos", 2),
}  # fmt: skip


def published_state(weights: dict[str, np.ndarray], heads: int) -> dict[str, np.ndarray]:
    """The authors' names and shapes. heads: of the tower, whose queries, keys and values lie together head by head."""
    state: dict[str, np.ndarray] = {}
    for name, array in weights.items():
        if name in PUBLISHED_WHOLE:
            known, ones = PUBLISHED_WHOLE[name]
            state[known] = array.reshape((1,) * ones + array.shape)
            continue
        base, _, kind = name.rpartition(".")
        parts = base.split(".")
        if parts[:2] == ["v", "blk"]:
            block = f"vision_model.encoder.layers.{parts[2]}."
            if parts[3] == "attn_q":
                three = [weights[f"v.blk.{parts[2]}.attn_{x}.{kind}"] for x in "qkv"]
                split = [x.reshape(heads, len(x) // heads, *x.shape[1:]) for x in three]
                fused = np.stack(split, 1).reshape(3 * len(array), *array.shape[1:])
                state[f"{block}self_attn.query_key_value.{kind}"] = fused
            elif parts[3] not in ("attn_k", "attn_v"):
                state[f"{block}{PUBLISHED_VISION[parts[3]]}.{kind}"] = array
        elif parts[:2] == ["mm", "blk"]:
            state[f"abstractor.encoder.layers.{parts[2]}.crossattention.{PUBLISHED_ABSTRACTOR[parts[3]]}.{kind}"] = (
                array
            )
        else:
            state[f"{PUBLISHED_OTHER[base]}.{kind}" if base in PUBLISHED_OTHER else published(name)] = array
    return state


def config_json(tiny: Tiny) -> dict[str, Any]:
    """config.json of the suite's model."""
    text, vision, abstractor = NUMBERS, VISION, ABSTRACTOR
    return {
        "model_type": "mplug-owl", "num_query_tokens": abstractor["query_count"],
        "text_config": {
            "model_type": "llama", "vocab_size": len(tiny.vocabulary.pieces), "rms_norm_eps": 1e-6,
            "hidden_size": text["embedding_length"], "intermediate_size": text["feed_forward_length"],
            "num_hidden_layers": text["block_count"], "num_attention_heads": text["attention.head_count"],
            "num_key_value_heads": text["attention.head_count_kv"], "max_position_embeddings": text["context_length"],
        },
        "vision_config": {
            "model_type": "mplug_owl_vision_model", "hidden_act": "quick_gelu", "layer_norm_eps": 1e-6,
            "hidden_size": vision["embedding_length"], "intermediate_size": vision["feed_forward_length"],
            "num_hidden_layers": vision["block_count"], "num_attention_heads": vision["attention.head_count"],
            "image_size": vision["image_size"], "patch_size": vision["patch_size"],
        },
        "visual_abstractor_config": {
            "model_type": "mplug_owl_visual_abstract", "layer_norm_eps": 1e-6,
            "hidden_size": vision["embedding_length"], "encoder_hidden_size": vision["embedding_length"],
            "intermediate_size": abstractor["feed_forward_length"], "num_hidden_layers": abstractor["block_count"],
            "num_attention_heads": abstractor["attention.head_count"],
        },
    }  # fmt: skip


def write_checkpoint(folder: Path, tiny: Tiny) -> Path:
    """The authors' layout; their tokenizer's settings say nothing of a beginning."""
    folder.mkdir(parents=True)
    size = VISION["image_size"]
    write_json(
        folder,
        config=config_json(tiny),
        preprocessor_config=preprocessor(
            image_processor_type="MplugOwlImageProcessor", size={"height": size, "width": size},
            crop_size={"height": size, "width": size},
        ),
        tokenizer=PIECES.tokenizer_json(),
        tokenizer_config={
            "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
            "add_bos_token": False,
        },
    )  # fmt: skip
    state = published_state(tiny.weights, VISION["attention.head_count"])
    raw = {name: (array.shape, array.tobytes()) for name, array in state.items()}
    (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(raw, "F32"))
    return folder
