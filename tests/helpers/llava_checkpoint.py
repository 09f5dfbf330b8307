"""Small LLaVA checkpoints of random weights in their published layouts, written by hand: no torch, no numpy."""

import array
import json
import math
import random
from pathlib import Path
from typing import Any

from helpers.bpe_vocabularies import SpmBpe
from helpers.convert_checkpoint import convert_safetensors_bytes

ADDED = ("<image>", "<pad>")
SIZES: dict[str, int] = {
    "width": 64, "ff": 96, "layers": 2, "heads": 4, "kv": 2, "head": 16,
    "features": 1, "vision": 32, "vision_ff": 64, "vision_layers": 3, "vision_heads": 2, "image": 28, "patch": 14,
}  # fmt: skip
State = dict[str, tuple[tuple[int, ...], bytes]]  # name -> shape, float32 values


def shapes(rows: int, linear: bool = False, **changes: int) -> dict[str, tuple[int, ...]]:
    """transformers' published names -> shapes, written down independently of the converter."""
    s = SIZES | changes
    d, q, kv = s["width"], s["heads"] * s["head"], s["kv"] * s["head"]
    found: dict[str, tuple[int, ...]] = {"language_model.model.embed_tokens.weight": (rows, d)}
    for n in range(s["layers"]):
        at = f"language_model.model.layers.{n}"
        found |= {
            f"{at}.self_attn.q_proj.weight": (q, d), f"{at}.self_attn.k_proj.weight": (kv, d),
            f"{at}.self_attn.v_proj.weight": (kv, d), f"{at}.self_attn.o_proj.weight": (d, q),
            f"{at}.mlp.gate_proj.weight": (s["ff"], d), f"{at}.mlp.up_proj.weight": (s["ff"], d),
            f"{at}.mlp.down_proj.weight": (d, s["ff"]),
            f"{at}.input_layernorm.weight": (d,), f"{at}.post_attention_layernorm.weight": (d,),
        }  # fmt: skip
    found |= {"language_model.model.norm.weight": (d,), "language_model.lm_head.weight": (rows, d)}
    v, at = s["vision"], "vision_tower.vision_model"
    found[f"{at}.embeddings.class_embedding"] = (v,)
    found[f"{at}.embeddings.patch_embedding.weight"] = (v, 3, s["patch"], s["patch"])
    found[f"{at}.embeddings.position_embedding.weight"] = ((s["image"] // s["patch"]) ** 2 + 1, v)
    rows_of = {f"{at}.pre_layrnorm": (v,), f"{at}.post_layernorm": (v,)}
    for n in range(s["vision_layers"]):
        layer = f"{at}.encoder.layers.{n}"
        rows_of |= {f"{layer}.self_attn.{part}_proj": (v, v) for part in ("q", "k", "v", "out")}
        rows_of |= {f"{layer}.layer_norm1": (v,), f"{layer}.layer_norm2": (v,)}
        rows_of |= {f"{layer}.mlp.fc1": (s["vision_ff"], v), f"{layer}.mlp.fc2": (v, s["vision_ff"])}
    rows_of["multi_modal_projector.linear_1"] = (d, s["features"] * v)
    if not linear:
        rows_of["multi_modal_projector.linear_2"] = (d, d)
    for name, shape in rows_of.items():
        found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return found


def random_state(rows: int, seed: int = 0, linear: bool = False, **changes: int) -> State:
    """Matrices of about unit gain, weights of norms near 1, small biases."""
    source = random.Random(seed)
    state: State = {}
    for name, shape in shapes(rows, linear, **changes).items():
        scale = 1 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.1
        base = 1.0 if len(shape) == 1 and name.endswith(".weight") else 0.0
        if "embed" in name and "patch" not in name:
            scale = 0.3
        values = array.array("f", (base + scale * source.gauss(0, 1) for _ in range(math.prod(shape))))
        state[name] = (shape, values.tobytes())
    return state


def config(rows: int, **changes: Any) -> dict[str, Any]:
    """config.json; a key of changes may name a section: text_config__rope_theta. None takes a key out."""
    s = SIZES
    settings: dict[str, Any] = {
        "model_type": "llava", "image_token_index": rows and 600, "projector_hidden_act": "gelu",
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
        "image_seq_length": (s["image"] // s["patch"]) ** 2,
        "text_config": {
            "model_type": "llama", "vocab_size": rows, "hidden_size": s["width"], "intermediate_size": s["ff"],
            "num_hidden_layers": s["layers"], "num_attention_heads": s["heads"], "num_key_value_heads": s["kv"],
            "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
        },
        "vision_config": {
            "model_type": "clip_vision_model", "hidden_size": s["vision"], "intermediate_size": s["vision_ff"],
            "num_hidden_layers": s["vision_layers"], "num_attention_heads": s["vision_heads"],
            "image_size": s["image"], "patch_size": s["patch"],
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


def preprocessor(**changes: Any) -> dict[str, Any]:
    """preprocessor_config.json of CLIPImageProcessor."""
    size = SIZES["image"]
    return {
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": size}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": size, "width": size}, "do_rescale": True,
        "rescale_factor": 0.00392156862745098, "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    } | changes  # fmt: skip


def write_json(folder: Path, **files: Any) -> None:
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")


def write_vocabulary(folder: Path, vocabulary: SpmBpe, added: tuple[str, ...] = ADDED, legacy: bool = False) -> None:
    """tokenizer.json with the tokens that are added, or without such tokenizer.model; tokenizer_config.json."""
    settings = {
        "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "legacy": legacy,
    }  # fmt: skip
    if added:
        write_json(
            folder, tokenizer=vocabulary.tokenizer_json(added), tokenizer_config=settings | {"pad_token": "<pad>"}
        )
    else:
        (folder / "tokenizer.model").write_bytes(vocabulary.model)
        write_json(folder, tokenizer_config=settings)


def write_hf(
    folder: Path,
    vocabulary: SpmBpe,
    state: State,
    rows: int,
    dtype: str = "F32",
    added: tuple[str, ...] = ADDED,
    **changes: Any,
) -> Path:
    """A folder in transformers' published layout."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder, config=config(rows, **changes), preprocessor_config=preprocessor())
    write_vocabulary(folder, vocabulary, added)
    (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(state, dtype))
    return folder


def own_name(name: str) -> str:
    """transformers' published name -> the authors', written down independently of the converter."""
    if name.startswith("language_model."):
        return name.removeprefix("language_model.")
    projector = {
        "multi_modal_projector.linear_1": "model.mm_projector.0",
        "multi_modal_projector.linear_2": "model.mm_projector.2",
    }
    base, _, kind = name.rpartition(".")
    return f"{projector[base]}.{kind}" if base in projector else name


def write_own(folder: Path, vocabulary: SpmBpe, state: State, **changes: Any) -> Path:
    """A folder in the authors' layout, of the same tensors: linear where the state has one matrix in the projector."""
    (folder / "vision_tower").mkdir(parents=True, exist_ok=True)
    linear = "multi_modal_projector.linear_2.weight" not in state
    tower = {name.removeprefix("vision_tower."): value for name, value in state.items() if name.startswith("vision_")}
    rest = {own_name(name): value for name, value in state.items() if not name.startswith("vision_")}
    if linear:
        rest = {name.replace("mm_projector.0.", "mm_projector."): value for name, value in rest.items()}
    whole = config(len(vocabulary.pieces))
    own = {
        **whole["text_config"], "model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"],
        "mm_vision_tower": "openai/clip-vit-large-patch14", "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch", "mm_use_im_start_end": False, "image_aspect_ratio": "square",
        "mm_projector_type": "linear" if linear else "mlp2x_gelu",
    } | changes  # fmt: skip
    write_json(folder, config={key: value for key, value in own.items() if value is not None})
    write_vocabulary(folder, vocabulary, added=())
    write_json(folder / "vision_tower", config=whole["vision_config"], preprocessor_config=preprocessor())
    (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(rest, "F32"))
    (folder / "vision_tower" / "model.safetensors").write_bytes(convert_safetensors_bytes(tower, "F32"))
    return folder
