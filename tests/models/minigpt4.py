"""MiniGPT-4 for the suite: BLIP-2's tiny tower, whose last norm has another epsilon, and Q-Former, and a LLaMA."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from helpers.convert_checkpoint import (
    convert_safetensors_bytes,
    convert_torch_state,
    convert_zip_bytes,
    op_ordered,
    op_pickle,
)
from helpers.llava_checkpoint import write_json
from helpers.reference import Prompt
from helpers.tiny import GgufContent, StoredTensor, Tiny, TinyConfig, TinyVocabulary, make_weight

from models import blip2, llava
from models.description import (
    ANY_TEXT,
    Described,
    Segments,
    accepted_decoder,
    accepted_general,
    accepted_prompts,
)

A = "minigpt4"
STOP = "###"
SYSTEM = (
    "Give the following image: <Img>ImageContent</Img>. You will be able to see the image once I provide it to you. "
    "Please answer my questions."
)
FORMAT = "###Human: <Img>{{image}}</Img> {0}###Assistant: "
PROMPTS = {
    "system": SYSTEM,
    "caption": FORMAT.format("Describe this image in one sentence."),
    "caption_detailed": FORMAT.format("Describe this image in detail."),
    "question": FORMAT.format("{question}"),
}
POST_EPS = 1e-5  # of the tower's last norm
NUMBERS = {key: value for key, value in llava.NUMBERS.items() if key != "attention.key_length"}
NUMBERS["context_length"] = 512
SMALL = llava.SMALL


def tensor_shapes(
    numbers: dict[str, int], qformer: dict[str, int], vision: dict[str, int], vocab: int
) -> dict[str, tuple[int, ...]]:
    """Every tensor of a file, in file order."""
    llama = llava.tensor_shapes(numbers, vision, vocab)
    shapes = {name: shape for name, shape in llama.items() if not name.startswith(("v.", "mm."))}
    parts = blip2.tensor_shapes(numbers, qformer, vision, vocab)
    return shapes | {name: shape for name, shape in parts.items() if name.startswith(("v.", "mm."))}


def metadata_of(
    numbers: dict[str, int], qformer: dict[str, int], vision: dict[str, int], v: TinyVocabulary, max_new: int
) -> dict[str, Any]:
    """Every key of a complete file; the checksums are added by `write_tiny`."""
    text = llava.metadata_of(numbers, vision, v, max_new)
    own = ("llava.vision", "llava.image", "llava.projector", "llava.prompt", "general.architecture", "clip.")
    kept = {key: value for key, value in text.items() if not key.startswith(own)}
    return {
        "general.architecture": ("str", A),
        **{key.replace("llava.", f"{A}."): value for key, value in kept.items()},
        **blip2.bridge_metadata(A, qformer, vision, numbers["embedding_length"]),
        f"{A}.attention.key_length": ("u32", numbers["embedding_length"] // numbers["attention.head_count"]),
        f"{A}.vision.post_norm_epsilon": ("f32", POST_EPS),
        f"{A}.image.token_id": ("u32", 0),
        f"{A}.generation.stop": ("str", STOP),
        f"{A}.generation.repetition_penalty": ("f32", 1.05),
        **{f"{A}.prompt.{key}": ("str", text) for key, text in PROMPTS.items()},
        "tokenizer.ggml.space_prefix_every_segment": ("bool", True),
        "tokenizer.ggml.space_prefix_before_space": ("bool", True),
    }


def weights_of(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Drawn as LLaVA's and BLIP-2's; the tower's keys have no biases, as published."""
    language = {name: shape for name, shape in shapes.items() if not name.startswith(("v.", "mm."))}
    weights = llava.weights_of(language, seed)
    for name, shape in shapes.items():
        if name not in weights:
            weights[name] = make_weight({"mm.query": "mm.latent_query"}.get(name, name), shape, seed)
        if name.startswith("v.blk.") and name.endswith("attn_k.bias"):
            weights[name] = np.zeros(shape, np.float32)
    weights["mm.0.weight"] *= np.float32(2)
    return {name: weights[name] for name in shapes}


class MiniGpt4Reference(blip2.Bridge, llava.LlavaReference):
    """MiniGPT-4; its tower, Q-Former, LLaMA and the searches are inherited."""

    def __init__(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
        value = {key: entry[1] for key, entry in metadata.items()}
        self.metadata, self.weights, self.dtype = value, weights, np.float32
        self.width, self.layers = value[f"{A}.embedding_length"], value[f"{A}.block_count"]
        self.heads, self.kv_heads = value[f"{A}.attention.head_count"], value[f"{A}.attention.head_count_kv"]
        self.eps, self.base = value[f"{A}.attention.layer_norm_rms_epsilon"], value[f"{A}.rope.freq_base"]
        self.bos, self.eos = value["tokenizer.ggml.bos_token_id"], value["tokenizer.ggml.eos_token_id"]
        self.image_id, self.post_eps = value[f"{A}.image.token_id"], value[f"{A}.vision.post_norm_epsilon"]

    def prompt(self, segments: list[list[int] | np.ndarray]) -> Prompt:
        return llava.LlavaReference.prompt(self, segments)


BEGIN: Segments = [("text", SYSTEM + "###Human: <Img>")]


def turn(image: int, words: str) -> Segments:
    """The segments of a turn behind the words in front of its image."""
    return [("image", image), ("text", f"</Img> {words}###Assistant: ")]


class MiniGpt4(Described):
    """A chat about pictures, whose turns a text parts; without location tokens."""

    architecture = A
    tasks: ClassVar = ["caption", "ask", "generate", "score"]
    prompts: ClassVar[dict[str, Segments]] = {
        "caption": BEGIN + turn(0, "Describe this image in one sentence."),
        "long caption": BEGIN + turn(0, "Describe this image in detail."),
        "caption by beams": BEGIN + turn(0, "Describe this image in one sentence."),
        "ask": BEGIN + turn(0, "what is this?"),
        "ask after an example": [
            *BEGIN,
            ("image", 0),
            ("text", "</Img> what color is it?###Assistant: red###Human: <Img>"),
            *turn(1, "what is this?"),
        ],
        "generate": [("image", 0), ("text", "It is")],
        "generate from two pictures": [("image", 0), ("text", "a cat."), ("image", 1), ("text", "It is")],
        "score": [*BEGIN, ("image", 0), ("text", "</Img> Describe this image in one sentence.###Assistant:")],
    }
    accepted: ClassVar = {
        **accepted_general(A),
        **{key: v for key, v in accepted_decoder(A).items() if not key.endswith("layer_norm_epsilon")},
        **{
            key.replace("llava.", f"{A}."): value
            for key, value in llava.Llava.accepted.items()
            if key.startswith(("llava.attention.", "llava.rope.", "tokenizer."))
        },
        **blip2.accepted_bridge(A),
        f"{A}.vision.post_norm_epsilon": {"max"},
        f"{A}.image.token_id": {0, 1},
        f"{A}.generation.stop": ANY_TEXT,
        **accepted_prompts(A, grounding=False),
        f"{A}.prompt.system": ANY_TEXT,
    }

    def make(self, seed: int) -> Tiny:
        """Sizes that every stored type fits, but the tower's rows, which k-quants do not fit."""
        pieces = llava.PIECES
        v = TinyVocabulary([*pieces.pieces, *llava.ADDED], [*pieces.scores, 0.0, 0.0], [*pieces.types, 3, 3])
        weights = weights_of(tensor_shapes(NUMBERS, blip2.QFORMER, blip2.VISION, len(v.pieces)), seed)
        weights["output.weight"][0] = 0  # the definition's searches do not know that it never comes
        return Tiny(TinyConfig(), v, weights, metadata_of(NUMBERS, blip2.QFORMER, blip2.VISION, v, 256))

    def define(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> MiniGpt4Reference:
        """Above."""
        return MiniGpt4Reference(metadata, weights)

    def small(self) -> GgufContent:
        """Without bytes: what is no piece is unknown."""
        pieces = ["<unk>", "<s>", "</s>", *"▁animge.", "▁a", "▁An", "▁i", "▁im", "▁o", "▁of", *llava.ADDED]
        count = len(pieces)
        v = TinyVocabulary(pieces, [-0.5 * i for i in range(count)], [2, 3, 3, *[1] * (count - 5), 4, 3])
        metadata = metadata_of(SMALL, blip2.SMALL_QFORMER, blip2.SMALL_VISION, v, 8)
        metadata["tokenizer.ggml.precompiled_charsmap"] = ("[u8]", [])
        metadata[f"{A}.prompt.system"] = ("str", "")
        shapes = tensor_shapes(SMALL, blip2.SMALL_QFORMER, blip2.SMALL_VISION, count)
        tensors = {
            name: StoredTensor("F32", array.shape, array.astype("<f4").tobytes())
            for name, array in weights_of(shapes, 0).items()
        }
        return GgufContent(metadata, tensors)

    def write_checkpoint(self, folder: Path) -> Path:
        """The authors' files; sizes that these do not say are in config.json, and what is unused is there, too."""
        folder.mkdir(parents=True)
        n, q, v = NUMBERS, blip2.QFORMER, blip2.VISION
        tower, bridge, product, language = published(self.tiny.weights)
        save(folder / "eva_vit_g.pth", tower, inner=False)
        save(folder / "blip2_pretrained_flant5xxl.pth", bridge)
        save(folder / "pretrained_minigpt4_7b.pth", product)
        vision = {key: size for key, size in blip2.vision_config(v).items() if key != "model_type"}
        write_json(
            folder,
            config={
                "num_query_tokens": q["query_count"], "vision_config": vision,
                "qformer_config": {
                    "hidden_size": q["embedding_length"], "intermediate_size": q["feed_forward_length"],
                    "num_hidden_layers": q["block_count"], "num_attention_heads": q["attention.head_count"],
                    "encoder_hidden_size": v["embedding_length"],
                },
            },
        )  # fmt: skip
        inner = folder / "vicuna"
        inner.mkdir()
        write_json(
            inner,
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
        state = {name: (array.shape, np.ascontiguousarray(array).tobytes()) for name, array in language.items()}
        (inner / "model.safetensors").write_bytes(convert_safetensors_bytes(state, "F32"))
        return folder


def save(path: Path, state: dict[str, np.ndarray], inner: bool = True) -> None:
    """As torch.save writes it; inner: under "model"."""
    values = {name: (array.shape, np.ascontiguousarray(array, "f").tobytes()) for name, array in state.items()}
    tensors, records = convert_torch_state(values)
    root = op_ordered(tensors)
    convert_zip_bytes(path, op_pickle({"model": root} if inner else root), records)


def published(weights: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], ...]:
    """The same weights under LAVIS' names: the tower, the Q-Former, the product, the language model."""
    bridge = blip2.published({name: array for name, array in weights.items() if name.startswith(("v.", "mm."))})
    tower, qformer, product = {}, {}, {}
    names = (
        ("embeddings.class_embedding", "cls_token"), ("embeddings.position_embedding", "pos_embed"),
        ("embeddings.patch_embedding", "patch_embed.proj"), ("encoder.layers", "blocks"), ("layer_norm1", "norm1"),
        ("layer_norm2", "norm2"), ("self_attn.projection", "attn.proj"), ("self_attn.qkv", "attn.qkv"),
    )  # fmt: skip
    for name, array in bridge.items():
        if name.startswith("vision_model.post_layernorm."):
            qformer["ln_vision." + name.rpartition(".")[2]] = array
        elif name.startswith("vision_model."):
            known = name.removeprefix("vision_model.")
            for ours, theirs in names:
                known = known.replace(ours, theirs)
            if known.endswith("qkv.bias"):
                q, _, v = np.split(array, 3)
                tower[known.replace("qkv.bias", "q_bias")], tower[known.replace("qkv.bias", "v_bias")] = q, v
            else:
                tower[known] = array
        elif name.startswith("language_projection."):
            product["llama_proj." + name.rpartition(".")[2]] = array
        elif name == "query_tokens":
            qformer[name] = array
        else:
            known = name.removeprefix("qformer.").replace("attention.attention", "attention.self")
            known = known.replace("layernorm.", "embeddings.LayerNorm.") if known.startswith("layernorm") else known
            qformer["Qformer.bert." + known] = array
    last = f"blocks.{blip2.VISION['block_count']}."  # EVA's 40th, which nobody runs
    tower |= {last + name.removeprefix("blocks.0."): a for name, a in tower.items() if name.startswith("blocks.0.")}
    tower |= {"norm.weight": np.ones(4), "head.bias": np.ones(4)}
    qformer |= {"Qformer.bert.embeddings.word_embeddings.weight": np.ones((5, 4)), "t5_proj.weight": np.ones((4, 4))}
    qformer |= {"Qformer.bert.encoder.layer.0.output.dense.weight": np.ones((4, 4)), "temp": np.ones(1)}
    language = {llava.published(name).removeprefix("language_model."): array for name, array in weights.items()
                if not name.startswith(("v.", "mm."))}  # fmt: skip
    return tower, qformer, product, language
