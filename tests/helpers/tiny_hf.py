"""The tiny model of `tiny.py` in the Hugging Face layout: what the converter reads and transformers loads.

Written without torch and without safetensors: a safetensors file is a JSON table of contents and bytes.
"""

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from helpers.tiny import Tiny

# GGUF name -> HF name, outside the numbered blocks
_TOP = {
    "token_embd": "text_model.model.embed_tokens",
    "output_norm": "text_model.model.layer_norm",
    "v.class_embd": "vision_model.model.embeddings.class_embedding",
    "v.patch_embd": "vision_model.model.embeddings.patch_embedding",
    "v.position_embd": "vision_model.model.embeddings.position_embedding",
    "v.pre_ln": "vision_model.model.pre_layrnorm",  # the published name is misspelt
    "v.post_ln": "vision_model.model.post_layernorm",
    "mm.latent_query": "image_to_text_projection.latent_query",
    "mm.dense": "image_to_text_projection.dense",
    "mm.attn_q": "image_to_text_projection.x_attn.q_proj",
    "mm.attn_k": "image_to_text_projection.x_attn.k_proj",
    "mm.attn_v": "image_to_text_projection.x_attn.v_proj",
    "mm.attn_out": "image_to_text_projection.x_attn.out_proj",
}
_DECODER = {
    "attn_norm": "self_attn_layer_norm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_sub_norm": "self_attn.inner_attn_ln",
    "attn_output": "self_attn.out_proj",
    "ffn_norm": "final_layer_norm",
    "ffn_up": "ffn.fc1",
    "ffn_sub_norm": "ffn.ffn_layernorm",
    "ffn_down": "ffn.fc2",
}
_VISION = {
    "ln1": "layer_norm1",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_out": "self_attn.out_proj",
    "ln2": "layer_norm2",
    "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
}


def hf_name(name: str) -> str:
    """The Hugging Face name of a tensor with a GGUF name."""
    if name in _TOP:
        return _TOP[name]
    stem, _, leaf = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{leaf}"
    parts = stem.split(".")
    if parts[0] == "v":
        return f"vision_model.model.encoder.layers.{parts[2]}.{_VISION[parts[3]]}.{leaf}"
    return f"text_model.model.layers.{parts[1]}.{_DECODER[parts[2]]}.{leaf}"


def write_safetensors(
    path: Path | str, shapes: dict[str, tuple[int, ...]], array_of: Callable[[str], np.ndarray]
) -> None:
    """Write float32 tensors as one safetensors file, asking for one array at a time."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with Path(path).open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for name in shapes:
            file.write(np.ascontiguousarray(array_of(name), "<f4"))


def tokenizer_json(tiny: Tiny) -> dict:
    """tokenizer.json as the published model has it; the normaliser is left out where the charsmap is empty."""
    pieces, scores = tiny.vocabulary.pieces, tiny.vocabulary.scores
    mask, charsmap = pieces.index("<mask>"), base64.b64encode(tiny.vocabulary.charsmap).decode()

    def added(i: int, special: bool, lstrip: bool) -> dict:
        return {"id": i, "content": pieces[i], "single_word": False, "lstrip": lstrip, "rstrip": False,
                "normalized": False, "special": special}  # fmt: skip

    tags = range(mask + 1, len(pieces))
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    sequence = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "</s>", "type_id": 0}}]  # fmt: skip
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added(i, True, False) for i in range(4)]
        + [added(mask, True, True)]
        + [added(i, False, True) for i in tags],
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap} if charsmap else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": sequence,
            "pair": [*sequence, {"Sequence": {"id": "B", "type_id": 0}}, sequence[-1]],
            "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for i, t in ((0, "<s>"), (2, "</s>"))},
        },
        "decoder": metaspace,
        "model": {
            "type": "Unigram",
            "unk_id": 3,
            "vocab": [[p, s] for p, s in zip(pieces[: mask + 1], scores, strict=False)],
            "byte_fallback": False,
        },
    }


def config_json(tiny: Tiny) -> dict:
    """config.json with everything that is not transformers' default."""
    c = tiny.config
    return {
        "architectures": ["Kosmos2ForConditionalGeneration"],
        "model_type": "kosmos-2",
        "dtype": "float32",
        "latent_query_num": c.latents,
        "text_config": {
            "model_type": "kosmos_2_text_model",
            "vocab_size": len(tiny.vocabulary.pieces),
            "max_position_embeddings": c.context,
            "embed_dim": c.width,
            "layers": c.layers,
            "ffn_dim": c.ff_width,
            "attention_heads": c.heads,
            "layer_norm_eps": c.eps,
            "no_repeat_ngram_size": c.no_repeat_ngram_size,
        },
        "vision_config": {
            "model_type": "kosmos_2_vision_model",
            "hidden_size": c.vision_width,
            "intermediate_size": c.vision_ff_width,
            "num_hidden_layers": c.vision_layers,
            "num_attention_heads": c.vision_heads,
            "image_size": c.image_size,
            "patch_size": c.patch_size,
            "layer_norm_eps": c.eps,
        },
    }


def write_hf_folder(folder: Path | str, tiny: Tiny) -> Path:
    """Write `tiny` as a folder that `from_pretrained` and the converter read; returns the folder."""
    folder = write_hf_settings(folder, tiny)
    weights = {hf_name(name): array for name, array in tiny.weights.items()}
    write_safetensors(folder / "model.safetensors", {n: w.shape for n, w in weights.items()}, weights.__getitem__)
    return folder


def write_hf_settings(folder: Path | str, tiny: Tiny) -> Path:
    """Write everything but the weights; returns the folder."""
    folder, c = Path(folder), tiny.config
    folder.mkdir(parents=True, exist_ok=True)
    size = {"height": c.image_size, "width": c.image_size}
    files = {
        "config.json": config_json(tiny),
        "generation_config.json": {
            "bos_token_id": 0,
            "eos_token_id": 2,
            "pad_token_id": 1,
            "no_repeat_ngram_size": c.no_repeat_ngram_size,
        },
        "preprocessor_config.json": {
            "image_processor_type": "CLIPImageProcessor",
            "processor_class": "Kosmos2Processor",
            "do_center_crop": True,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "crop_size": size,
            "size": size,
            "image_mean": list(c.mean),
            "image_std": list(c.std),
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            # the published file says use_square_size too, which transformers reads as "size is 224 x 224"
        },
        "tokenizer.json": tokenizer_json(tiny),
        "tokenizer_config.json": {
            "tokenizer_class": "XLMRobertaTokenizer",
            "processor_class": "Kosmos2Processor",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "sep_token": "</s>",
            "cls_token": "<s>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
            "mask_token": "<mask>",
            "clean_up_tokenization_spaces": True,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return folder
