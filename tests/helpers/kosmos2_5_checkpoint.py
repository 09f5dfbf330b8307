"""Small KOSMOS-2.5 checkpoints of random weights in the published layout, written by hand: no torch, no numpy.

The published vocabulary, cl100k_base with the model's tags, makes files of 139 MB. Here it is cut to the bytes, the
words of `WORDS` and a few coordinates, in the published order.
"""

import array
import json
import math
import random
from pathlib import Path
from typing import Any

from helpers.convert_checkpoint import convert_safetensors_bytes

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
TAGS = ("<ocr>", "<image>", "</image>", "</chunk>", "<bbox>", "</bbox>", "<md>")
HIDDEN = ("<ocr>", "<image>", "</image>", "</chunk>", "<md>")  # special in the published tokenizer.json
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = (
    "A a an the of in on is it It and to for with cat dog snow table What what color where this that image picture red "
    "Total TOTAL Date Invoice page line Item Price between curious user artificial intelligence assistant. assistant "
    "gives helpful, detailed, polite answers questions. user's chat USER: ASSISTANT:"
)
SIZES: dict[str, int] = {
    "width": 64, "ff": 96, "layers": 2, "heads": 4, "latents": 6,
    "vision": 48, "vision_ff": 72, "vision_layers": 2, "vision_heads": 3, "patch": 4, "max_patches": 40,
    "positions": 128,
}  # fmt: skip
State = dict[str, tuple[tuple[int, ...], bytes]]  # name -> shape, float32 values


def alphabet() -> list[str]:
    """GPT-2's characters of the bytes 0..255."""
    prints = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(256, 512))
    return [chr(byte) if byte in prints else chr(next(hidden)) for byte in range(256)]


def spell(text: str) -> str:
    """A text in that alphabet."""
    letters = alphabet()
    return "".join(letters[byte] for byte in text.encode())


class PageVocabulary:
    """Pieces by id: specials, bytes, every beginning of a blank and a word, <mask>, tags, `places` coordinates per
    axis. types: GGUF's, as the converter stores them."""

    def __init__(self, words: str = WORDS, places: int = 24, lone: tuple[str, ...] = ()) -> None:
        spelled = [spell(f" {word}") for word in words.split()]
        merged = list(dict.fromkeys(word[:n] for word in spelled for n in range(2, len(word) + 1)))
        self.merges = [f"{piece[:-1]} {piece[-1]}" for piece in merged]
        coordinates = [tag for i in range(places) for tag in (f"<x_{i}>", f"<y_{i}>")]
        plain = [*lone, *alphabet(), *merged]  # lone: pieces that no merge makes
        self.pieces = [*SPECIALS, *plain, "<mask>", *TAGS, *coordinates]
        self.types = [3] * 4 + [1] * len(plain) + [3] + [4] * (len(TAGS) + len(coordinates))
        self.added = (*SPECIALS, "<mask>", *TAGS, *coordinates)

    def id(self, piece: str) -> int:
        return self.pieces.index(piece)

    def tokenizer_json(self) -> dict[str, Any]:
        """As the published one is built."""
        control = {*SPECIALS, "<mask>", *HIDDEN}
        return {
            "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
            "added_tokens": [
                {
                    "id": self.id(text), "content": text, "single_word": False, "lstrip": False, "rstrip": False,
                    "normalized": False, "special": text in control,
                }
                for text in self.added
            ],
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Removed", "invert": True},
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
                ],
            },
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {
                "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                "vocab": {piece: i for i, piece in enumerate(self.pieces)},
                "merges": [merge.split(" ") for merge in self.merges],
            },
        }  # fmt: skip


TOKENIZER_CONFIG = {
    "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>",
    "extra_special_tokens": {"image_token": "<s>", "boi_token": "<image>", "eoi_token": "</image>"},
    "padding_side": "right", "processor_class": "Kosmos2_5Processor", "tokenizer_class": "PreTrainedTokenizerFast",
    "clean_up_tokenization_spaces": False,
}  # fmt: skip


def shapes(vocab: int, **changes: int) -> dict[str, tuple[int, ...]]:
    """transformers' names -> shapes, written down independently of the converter."""
    s = SIZES | changes
    d, ff, v, hidden = s["width"], s["ff"], s["vision"], s["vision_ff"]
    found: dict[str, tuple[int, ...]] = {
        "text_model.model.embed_tokens.weight": (vocab, d),
        "text_model.model.segment_emb.weight": (2, d),
    }
    biased: dict[str, tuple[int, ...]] = {}
    for n in range(s["layers"]):
        at = f"text_model.model.layers.{n}"
        biased |= {f"{at}.self_attn.{part}_proj": (d, d) for part in ("q", "k", "v", "out")}
        biased |= {f"{at}.self_attn_layer_norm": (d,), f"{at}.final_layer_norm": (d,), f"{at}.ffn.ffn_layernorm": (ff,)}
        biased |= {f"{at}.ffn.fc1": (ff, d), f"{at}.ffn.fc2": (d, ff)}
    biased["text_model.model.layer_norm"] = (d,)
    biased["vision_model.embeddings.patch_projection"] = (v, 3 * s["patch"] ** 2)
    biased["image_to_text_projection.dense"] = (d, v)
    biased |= {f"image_to_text_projection.x_attn.{part}_proj": (d, d) for part in ("q", "k", "v", "out")}
    for name, shape in biased.items():
        found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for side in ("row", "column"):
        found[f"vision_model.embeddings.{side}_embedder.weight"] = (s["max_patches"], v)
    for n in range(s["vision_layers"]):
        at = f"vision_model.encoder.layer.{n}"
        found |= {f"{at}.attention.{part}.weight": (v, v) for part in ("query", "key", "value", "output")}
        found |= {f"{at}.pre_attention_layer_norm.weight": (v,), f"{at}.pre_mlp_layer_norm.weight": (v,)}
        found |= {f"{at}.mlp.wi_0.weight": (hidden, v), f"{at}.mlp.wi_1.weight": (hidden, v)}
        found[f"{at}.mlp.wo.weight"] = (v, hidden)
    found["vision_model.layernorm.weight"] = (v,)
    found["image_to_text_projection.latent_query"] = (s["latents"], d)
    return found


# Parts of names -> how much larger than of unit gain: without that a random model repeats one id for ever and does not
# look at the picture.
GAINS = {
    "x_attn.out_proj.weight": 0.1, "x_attn": 1.5, "projection.dense.weight": 16.0, "self_attn.q_proj.weight": 2.5,
    "self_attn.k_proj.weight": 2.5, "self_attn.out_proj.weight": 6.0, "fc1.weight": 2.0, "fc2.weight": 6.0,
    "text_model.model.layer_norm.weight": 4.0,
}  # fmt: skip


def random_state(vocab: int, seed: int = 0, **changes: int) -> State:
    """Matrices of about unit gain times GAINS, weights of norms near 1, small biases; the padding's row is zero."""
    source = random.Random(seed)
    state: State = {}
    for name, shape in shapes(vocab, **changes).items():
        norm = "norm" in name.split(".")[-2] if "." in name else False
        gain = next((gain for part, gain in GAINS.items() if part in name), 1.0)
        if norm and name.endswith(".weight"):
            values = [gain * (1 + 0.1 * source.gauss(0, 1)) for _ in range(math.prod(shape))]
        else:
            scale = 0.05 if name.endswith(".bias") else gain / math.sqrt(math.prod(shape[1:]))
            scale = {"latent_query": 1.0, "embedder": 0.2, "segment_emb": 0.3}.get(
                next((part for part in ("latent_query", "embedder", "segment_emb") if part in name), ""), scale
            )
            values = [scale * source.gauss(0, 1) for _ in range(math.prod(shape))]
        if name.endswith("embed_tokens.weight"):
            values[shape[1] : 2 * shape[1]] = [0.0] * shape[1]
        state[name] = (shape, array.array("f", values).tobytes())
    return state


def config(vocab: int, **changes: Any) -> dict[str, Any]:
    """config.json. `changes`: sizes of SIZES, or keys, whose name may have a section: text_config__activation_function.
    None takes a key out."""
    s = SIZES | {key: changes.pop(key) for key in list(changes) if key in SIZES}
    settings: dict[str, Any] = {
        "model_type": "kosmos-2.5",
        "architectures": ["Kosmos2_5ForConditionalGeneration"],
        "latent_query_num": s["latents"],
        "text_config": {
            "model_type": "kosmos_2_5_text_model", "vocab_size": vocab, "embed_dim": s["width"], "layers": s["layers"],
            "ffn_dim": s["ff"], "attention_heads": s["heads"], "max_position_embeddings": s["positions"],
            "activation_function": "gelu", "layer_norm_eps": 1e-5, "scale_embedding": True, "bos_token_id": 0,
            "pad_token_id": 1, "eos_token_id": 2, "no_repeat_ngram_size": 3, "dropout": 0.0, "attention_dropout": 0.0,
        },
        "vision_config": {
            "model_type": "kosmos_2_5_vision_model", "hidden_size": s["vision"],
            "patch_embed_hidden_size": 3 * s["patch"] ** 2, "intermediate_size": s["vision_ff"],
            "head_dim": s["vision"] // s["vision_heads"], "num_hidden_layers": s["vision_layers"],
            "num_attention_heads": s["vision_heads"], "max_num_patches": s["max_patches"],
            "dense_act_fn": "gelu_new", "layer_norm_eps": 1e-6, "attention_dropout": 0.0, "dropout_rate": 0.0,
        },
    }  # fmt: skip
    for key, value in changes.items():
        *sections, last = key.split("__")
        at = settings
        for section in sections:
            at = at[section]
        at[last] = value
        if value is None:
            del at[last]
    return settings


def preprocessor(
    patch: int = SIZES["patch"], max_patches: int = SIZES["max_patches"], **changes: Any
) -> dict[str, Any]:
    """preprocessor_config.json."""
    return {
        "image_processor_type": "Kosmos2_5ImageProcessor", "processor_class": "Kosmos2_5Processor",
        "do_normalize": True, "do_convert_rgb": True, "max_patches": max_patches,
        "patch_size": {"height": patch, "width": patch},
    } | changes  # fmt: skip


GENERATION = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "no_repeat_ngram_size": 3}  # as published


def write_json(folder: Path, **files: Any) -> None:
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")


FULL_SIZES: dict[str, int] = {
    "width": 1536, "ff": 6144, "layers": 24, "heads": 16, "latents": 2048, "vision": 1536, "vision_ff": 3968,
    "vision_layers": 18, "vision_heads": 24, "patch": 16, "max_patches": 4096, "positions": 4096,
}  # fmt: skip


def full_vocabulary(tokens: int) -> PageVocabulary:
    """One of the published number of coordinates, filled up with pieces that no text gives."""
    rest = tokens - len(PageVocabulary(places=4096).pieces)
    return PageVocabulary(places=4096, lone=tuple(spell(f"\0filler{i}") for i in range(rest)))


def write_hf(folder: Path, vocabulary: PageVocabulary, state: State, dtype: str = "F32", **changes: Any) -> Path:
    """A folder in transformers' layout; `changes` as those of `config`."""
    write_settings(folder, vocabulary, **changes)
    (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(state, dtype))
    return folder


def write_settings(folder: Path, vocabulary: PageVocabulary, **changes: Any) -> None:
    """All of it but the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = SIZES | {key: value for key, value in changes.items() if key in SIZES}
    write_json(
        folder,
        config=config(len(vocabulary.pieces), **changes),
        preprocessor_config=preprocessor(sizes["patch"], sizes["max_patches"]),
        generation_config=GENERATION,
        tokenizer=vocabulary.tokenizer_json(),
        tokenizer_config=TOKENIZER_CONFIG,
    )
