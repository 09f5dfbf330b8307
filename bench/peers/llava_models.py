"""LLaVA at published sizes with random weights: a checkpoint for our converter, and llama.cpp's pair of files.

llama.cpp and ik_llama.cpp run this model itself, so their files have its matrices, no stand-in's. Types as llama.cpp's
llama-quantize chooses them (src/llama-quant.cpp, Q4_K_M of a LLaMA): Q6_K for the output matrix, and for attn_v and
ffn_down in the layers that get more bits.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from llava_net import CONTEXT, MODELS, PROMPT, ROWS, VISION, VOCAB, WORDS, Sizes
from peers_models import FILE_TYPES, vision_metadata, vision_tensors, vocabulary_metadata, write_gguf

from kosmos_edge.convert.gguf import TensorInfo
from kosmos_edge.convert.recipe import gets_more_bits

__all__ = ["MODELS", "PROMPT", "VISION", "WORDS", "Sizes"]


def write_checkpoint(folder: Path, sizes: Sizes) -> None:
    """The published layout of llava-hf in float32, written tensor by tensor."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tests"))
    from helpers.llava_checkpoint import config, preprocessor, shapes, write_json, write_vocabulary
    from helpers.tiny import make_weight
    from helpers.tiny_hf import write_safetensors
    from models.llava import ADDED, Pieces

    vocabulary = Pieces()
    more = VOCAB - len(ADDED) - len(vocabulary.pieces)
    vocabulary.pieces += [chr(0xE000 + i % 6000) + chr(0xE000 + i // 6000) for i in range(more)]
    vocabulary.scores += [-1e4 - i for i in range(more)]
    vocabulary.types += [1] * more
    text = {"width": sizes.width, "ff": sizes.ff, "layers": sizes.layers, "heads": sizes.heads, "kv": sizes.kv}
    changes = {
        "text_config__hidden_size": sizes.width, "text_config__intermediate_size": sizes.ff,
        "text_config__num_hidden_layers": sizes.layers, "text_config__num_attention_heads": sizes.heads,
        "text_config__num_key_value_heads": sizes.kv, "text_config__max_position_embeddings": CONTEXT,
        "vision_config__hidden_size": VISION["vision"], "vision_config__intermediate_size": VISION["vision_ff"],
        "vision_config__num_hidden_layers": VISION["vision_layers"], "image_seq_length": ROWS,
        "vision_config__num_attention_heads": VISION["vision_heads"], "vision_config__image_size": VISION["image"],
        "image_token_index": VOCAB - len(ADDED),
    }  # fmt: skip
    side = VISION["image"]
    folder.mkdir(parents=True, exist_ok=True)
    square = preprocessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    write_json(folder, config=config(VOCAB, **changes), preprocessor_config=square)
    write_vocabulary(folder, vocabulary)
    table = shapes(VOCAB, head=sizes.head, **text, **VISION)
    part = folder / "part"
    write_safetensors(part, table, lambda name: make_weight(name, table[name], seed=0))
    part.replace(folder / "model.safetensors")


def text_metadata(sizes: Sizes, kind: str) -> list:
    """Keys of a LLaMA with a made-up sentencepiece vocabulary of the right size."""
    numbers = {
        "context_length": CONTEXT, "embedding_length": sizes.width, "block_count": sizes.layers,
        "feed_forward_length": sizes.ff, "attention.head_count": sizes.heads, "attention.head_count_kv": sizes.kv,
        "rope.dimension_count": sizes.head, "vocab_size": VOCAB,
    }  # fmt: skip
    return [
        ("general.architecture", "str", "llama"),
        ("general.name", "str", f"{sizes.name} {kind}"),
        ("general.alignment", "u32", 64),
        ("general.quantization_version", "u32", 2),
        ("general.file_type", "u32", FILE_TYPES[kind]),
        *((f"llama.{key}", "u32", value) for key, value in numbers.items()),
        ("llama.attention.layer_norm_rms_epsilon", "f32", 1e-5),
        ("llama.rope.freq_base", "f32", 10000.0),
        *vocabulary_metadata(VOCAB),
    ]


def text_tensors(sizes: Sizes, kind: str) -> list[TensorInfo]:
    """The language model of one of llama.cpp's types."""
    base = {"Q4_K_M": "Q4_K"}.get(kind, kind)
    d, keys = sizes.width, sizes.kv * sizes.head
    out = [TensorInfo("token_embd.weight", base, (VOCAB, d)), TensorInfo("output_norm.weight", "F32", (d,))]
    out.append(TensorInfo("output.weight", "Q6_K", (VOCAB, d)))
    for layer in range(sizes.layers):
        at = f"blk.{layer}."
        more = "Q6_K" if kind == "Q4_K_M" and gets_more_bits(layer, sizes.layers) else base
        out += [TensorInfo(f"{at}{norm}.weight", "F32", (d,)) for norm in ("attn_norm", "ffn_norm")]
        for name, dtype, shape in (
            ("attn_q", base, (d, d)),
            ("attn_k", base, (keys, d)),
            ("attn_v", more, (keys, d)),
            ("attn_output", base, (d, d)),
            ("ffn_gate", base, (sizes.ff, d)),
            ("ffn_up", base, (sizes.ff, d)),
            ("ffn_down", more, (d, sizes.ff)),
        ):
            out.append(TensorInfo(f"{at}{name}.weight", dtype, shape))
    return out


def write_text(path: Path, sizes: Sizes, kind: str) -> None:
    """llama.cpp's language model."""
    write_gguf(path, text_metadata(sizes, kind), text_tensors(sizes, kind))


def write_tower(path: Path, sizes: Sizes, kind: str) -> None:
    """llama.cpp's vision encoder. Its graph leaves out the last block that the file counts: the last but one's
    features are asked for, so the file has all of the published blocks."""
    changes = {"clip.vision.image_size": VISION["image"], "clip.vision.projection_dim": sizes.width}
    changes["clip.vision.block_count"] = VISION["vision_layers"]
    metadata = [(key, form, changes.get(key, value)) for key, form, value in vision_metadata(kind)]
    shapes = {"v.position_embd.weight": (ROWS + 1, VISION["vision"])}
    shapes |= {"mm.0.weight": (sizes.width, VISION["vision"]), "mm.0.bias": (sizes.width,)}
    shapes |= {"mm.2.weight": (sizes.width, sizes.width), "mm.2.bias": (sizes.width,)}
    last = f"v.blk.{VISION['vision_layers']}."
    tensors = [
        TensorInfo(t.name, t.dtype, shapes.get(t.name, t.shape))
        for t in vision_tensors(kind)
        if not t.name.startswith(last)
    ]
    write_gguf(path, metadata, tensors)


def files(sizes: Sizes) -> Iterator[tuple[str, object]]:
    """Every file of the pair: (name, function that writes it to a path)."""
    for kind in ("Q4_0", "Q4_K_M"):
        yield f"text-{kind}.gguf", lambda path, kind=kind: write_text(path, sizes, kind)
    for kind in ("F16", "Q8_0", "Q4_0"):
        yield f"mmproj-{kind}.gguf", lambda path, kind=kind: write_tower(path, sizes, kind)
