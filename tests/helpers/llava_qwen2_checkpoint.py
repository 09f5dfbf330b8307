"""Small checkpoints of LLaVA with SigLIP and Qwen2 in transformers' published layout, written by hand: no torch."""

import array
import math
import random
from pathlib import Path
from typing import Any

from helpers.convert_checkpoint import convert_safetensors_bytes
from helpers.cut_patterns import PATTERNS
from helpers.llava_checkpoint import State, write_json

ADDED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>")
SIZES: dict[str, int] = {
    "width": 64, "ff": 96, "layers": 2, "heads": 4, "kv": 2,
    "vision": 32, "vision_ff": 48, "vision_layers": 2, "vision_heads": 2, "image": 30, "patch": 14,
}  # fmt: skip


def tokenizer_json(pieces: list[str], merges: list[str], added: tuple[str, ...]) -> dict[str, Any]:
    """tokenizer.json as Qwen2's is written; `added` are the last of the pieces, all of them special."""
    plain = len(pieces) - len(added)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    split = {"type": "Split", "pattern": {"Regex": PATTERNS["qwen2"]}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": plain + i, "content": text, **flags} for i, text in enumerate(added)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": level,
        "decoder": level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
            "vocab": {piece: i for i, piece in enumerate(pieces[:plain])},
            "merges": merges,
        },
    }  # fmt: skip


def tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "eos_token": "<|im_end|>", "unk_token": None,
        "pad_token": "<|endoftext|>", "add_prefix_space": False,
    }  # fmt: skip


def preprocessor(side: int, **changes: Any) -> dict[str, Any]:
    """preprocessor_config.json of SiglipImageProcessor."""
    return {
        "image_processor_type": "SiglipImageProcessor", "do_resize": True, "size": {"height": side, "width": side},
        "resample": 3, "do_rescale": True, "rescale_factor": 0.00392156862745098, "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    } | changes  # fmt: skip


_PARTS = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_VISION = {
    "ln1": "layer_norm1", "ln2": "layer_norm2", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_out": "self_attn.out_proj", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2",
}  # fmt: skip
_OTHER = {
    "token_embd": "language_model.model.embed_tokens", "output_norm": "language_model.model.norm",
    "output": "language_model.lm_head", "mm.0": "multi_modal_projector.linear_1",
    "mm.2": "multi_modal_projector.linear_2",
    "v.patch_embd": "vision_tower.vision_model.embeddings.patch_embedding",
    "v.position_embd": "vision_tower.vision_model.embeddings.position_embedding",
}  # fmt: skip


def published(name: str) -> str:
    """transformers' name of a GGUF file's tensor."""
    base, _, kind = name.rpartition(".")
    parts = base.split(".")
    if parts[0] == "blk":
        return f"language_model.model.layers.{parts[1]}.{_PARTS[parts[2]]}.{kind}"
    if parts[:2] == ["v", "blk"]:
        return f"vision_tower.vision_model.encoder.layers.{parts[2]}.{_VISION[parts[3]]}.{kind}"
    return f"{_OTHER[base]}.{kind}"


def shapes(rows: int, tied: bool = True, **changes: int) -> dict[str, tuple[int, ...]]:
    """transformers' published names -> shapes, written down independently of the converter."""
    s = SIZES | changes
    d, kv = s["width"], s["width"] // s["heads"] * s["kv"]
    found: dict[str, tuple[int, ...]] = {"language_model.model.embed_tokens.weight": (rows, d)}
    for n in range(s["layers"]):
        at = f"language_model.model.layers.{n}"
        for part, width in (("q", d), ("k", kv), ("v", kv)):
            found |= {f"{at}.self_attn.{part}_proj.weight": (width, d), f"{at}.self_attn.{part}_proj.bias": (width,)}
        found |= {
            f"{at}.self_attn.o_proj.weight": (d, d), f"{at}.mlp.gate_proj.weight": (s["ff"], d),
            f"{at}.mlp.up_proj.weight": (s["ff"], d), f"{at}.mlp.down_proj.weight": (d, s["ff"]),
            f"{at}.input_layernorm.weight": (d,), f"{at}.post_attention_layernorm.weight": (d,),
        }  # fmt: skip
    found["language_model.model.norm.weight"] = (d,)
    if not tied:
        found["language_model.lm_head.weight"] = (rows, d)
    v, at = s["vision"], "vision_tower.vision_model"
    found[f"{at}.embeddings.patch_embedding.weight"] = (v, 3, s["patch"], s["patch"])
    found[f"{at}.embeddings.patch_embedding.bias"] = (v,)
    found[f"{at}.embeddings.position_embedding.weight"] = ((s["image"] // s["patch"]) ** 2, v)
    rows_of: dict[str, tuple[int, ...]] = {f"{at}.post_layernorm": (v,)}
    for n in range(s["vision_layers"]):
        layer = f"{at}.encoder.layers.{n}"
        rows_of |= {f"{layer}.self_attn.{part}_proj": (v, v) for part in ("q", "k", "v", "out")}
        rows_of |= {f"{layer}.layer_norm1": (v,), f"{layer}.layer_norm2": (v,)}
        rows_of |= {f"{layer}.mlp.fc1": (s["vision_ff"], v), f"{layer}.mlp.fc2": (v, s["vision_ff"])}
    rows_of |= {"multi_modal_projector.linear_1": (d, v), "multi_modal_projector.linear_2": (d, d)}
    for name, shape in rows_of.items():
        found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return found


def random_state(rows: int, seed: int = 0, tied: bool = True, **changes: int) -> State:
    """Matrices of about unit gain, weights of norms near 1, biases that matter."""
    source = random.Random(seed)
    state: State = {}
    for name, shape in shapes(rows, tied, **changes).items():
        scale = 1 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.3
        base = 1.0 if len(shape) == 1 and name.endswith(".weight") else 0.0
        if "position" in name:
            scale = 0.3
        if "embed_tokens" in name:
            scale = 0.03  # small, that a tied head does not repeat what it reads
        values = array.array("f", (base + scale * source.gauss(0, 1) for _ in range(math.prod(shape))))
        state[name] = (shape, values.tobytes())
    return state


def config(rows: int, image_id: int, tied: bool = True, **changes: Any) -> dict[str, Any]:
    """config.json; a key of changes may name a section: text_config__rope_theta. None takes a key out."""
    s = SIZES
    settings: dict[str, Any] = {
        "model_type": "llava", "image_token_index": image_id, "projector_hidden_act": "gelu",
        "vision_feature_layer": -1, "vision_feature_select_strategy": "full", "tie_word_embeddings": tied,
        "image_seq_length": (s["image"] // s["patch"]) ** 2,
        "text_config": {
            "model_type": "qwen2", "vocab_size": rows, "hidden_size": s["width"], "intermediate_size": s["ff"],
            "num_hidden_layers": s["layers"], "num_attention_heads": s["heads"], "num_key_value_heads": s["kv"],
            "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
            "tie_word_embeddings": tied, "use_sliding_window": False, "sliding_window": 32768, "hidden_act": "silu",
        },
        "vision_config": {
            "model_type": "siglip_vision_model", "hidden_size": s["vision"], "intermediate_size": s["vision_ff"],
            "num_hidden_layers": s["vision_layers"], "num_attention_heads": s["vision_heads"],
            "image_size": s["image"], "patch_size": s["patch"], "vision_use_head": False,
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


def write_hf(
    folder: Path, pieces: list[str], merges: list[str], state: State, rows: int, tied: bool = True, **changes: Any
) -> Path:
    """A folder in transformers' published layout; the pieces end with ADDED."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder,
        config=config(rows, pieces.index("<image>"), tied, **changes),
        preprocessor_config=preprocessor(SIZES["image"]),
        tokenizer=tokenizer_json(pieces, merges, ADDED),
        tokenizer_config=tokenizer_config(),
    )
    (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(state, "F32"))
    return folder
