"""llama.cpp's layout of a LLaVA, a language model and a vision encoder in a GGUF file each, written down from that of
our own file independently of the engine: names, keys and the order of rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from helpers.tiny import GgufContent, StoredTensor, write_gguf
from kosmos_edge import _core

KINDS = {bool: "bool", str: "str"}
Edit = Callable[[GgufContent, GgufContent], None]


def neighbours(data: bytes, rows: int, heads: int) -> bytes:
    """Rows of queries or keys as llama.cpp's converter puts them: those of a head's halves by turns."""
    stored = np.frombuffer(data, np.uint8).reshape(heads, 2, rows // heads // 2, -1)
    return stored.transpose(0, 2, 1, 3).tobytes()


def contents(path: Path) -> tuple[GgufContent, GgufContent]:
    """(language model, vision encoder) of our file, with the tower's products under each other's name, as published."""
    file = _core.GgufFile(str(path))
    keys = file.metadata()
    tensors = {
        name: StoredTensor(dtype, tuple(shape), file.tensor_data(name)) for name, dtype, shape, *_ in file.tensors()
    }

    def own(key: str) -> Any:
        return keys[f"llava.{key}"]

    heads, kv_heads = own("attention.head_count"), own("attention.head_count_kv")
    text = GgufContent({
        "general.architecture": ("str", "llama"),
        "general.name": ("str", keys.get("general.name", "")),
        "general.quantization_version": ("u32", 2),
        **{
            f"llama.{key}": ("u32", own(key))
            for key in (
                "context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
                "attention.head_count_kv",
            )
        },
        "llama.attention.layer_norm_rms_epsilon": ("f32", own("attention.layer_norm_rms_epsilon")),
        "llama.rope.freq_base": ("f32", own("rope.freq_base")),
        "llama.rope.dimension_count": ("u32", own("embedding_length") // heads),
        "llama.vocab_size": ("u32", own("vocab_size")),
        "tokenizer.ggml.model": ("str", "llama"),
        "tokenizer.ggml.pre": ("str", "default"),
        "tokenizer.ggml.tokens": ("[str]", keys["tokenizer.ggml.tokens"]),
        "tokenizer.ggml.scores": ("[f32]", keys["tokenizer.ggml.scores"]),
        "tokenizer.ggml.token_type": ("[i32]", keys["tokenizer.ggml.token_type"]),
        "tokenizer.ggml.bos_token_id": ("u32", 1),
        "tokenizer.ggml.eos_token_id": ("u32", 2),
        "tokenizer.ggml.unknown_token_id": ("u32", 0),
        "tokenizer.ggml.padding_token_id": ("u32", keys["tokenizer.ggml.padding_token_id"]),
        "tokenizer.ggml.add_bos_token": ("bool", True),
        "tokenizer.chat_template": ("str", "{% for message in messages %}{{ message.content }}{% endfor %}"),
    })  # fmt: skip
    blocks = len({name.split(".")[2] for name in tensors if name.startswith("v.blk.")})
    vision = GgufContent({
        "general.architecture": ("str", "clip"),
        "general.file_type": ("u32", 1),
        "clip.has_text_encoder": ("bool", False),
        "clip.has_vision_encoder": ("bool", True),
        "clip.has_llava_projector": ("bool", True),
        "clip.projector_type": ("str", "mlp"),
        "clip.use_gelu": ("bool", False),
        "clip.vision.block_count": ("u32", blocks),
        "clip.vision.projection_dim": ("u32", 768),
        **{
            f"clip.vision.{key}": ("u32", keys[f"clip.vision.{key}"])
            for key in ("image_size", "patch_size", "embedding_length", "feed_forward_length", "attention.head_count")
        },
        "clip.vision.attention.layer_norm_epsilon": ("f32", keys["clip.vision.attention.layer_norm_epsilon"]),
        "clip.vision.image_mean": ("[f32]", keys["clip.vision.image_mean"]),
        "clip.vision.image_std": ("[f32]", keys["clip.vision.image_std"]),
    })  # fmt: skip
    swapped = {"ffn_up": "ffn_down", "ffn_down": "ffn_up"}
    for name, tensor in tensors.items():
        if not name.startswith(("v.", "mm.")):
            for part, count in (("attn_q", heads), ("attn_k", kv_heads)):
                if name.endswith(f".{part}.weight"):
                    data = neighbours(tensor.data, tensor.shape[0], count)
                    tensor = StoredTensor(tensor.dtype, tensor.shape, data)
            text.tensors[name] = tensor
            continue
        parts = [swapped.get(part, part) for part in name.split(".")] if name.startswith("v.blk.") else [name]
        vision.tensors[".".join(parts)] = tensor
    return text, vision


def write_pair(path: Path, folder: Path, edit: Edit | None = None) -> tuple[Path, Path]:
    """Our file as the two of a pair, in a folder; edit changes what is written."""
    text, vision = contents(path)
    if edit:
        edit(text, vision)
    folder.mkdir(parents=True, exist_ok=True)
    names = folder / "vicuna-tiny.gguf", folder / "mmproj-tiny.gguf"
    for name, content in zip(names, (text, vision), strict=True):
        write_gguf(name, content)
    return names
