"""Stand-in models for the peers: KOSMOS-2's matrix sizes with random weights, in formats that the peers can run.

No peer knows KOSMOS-2. Its decoder is measured as a GPT-2 of the same sizes (fused query-key-value matrix, no
sub-layer norms), its vision tower as LLaVA's CLIP tower with a projector of two matrices. Quantized blocks are random
bytes under scales that give values of deviation 0.02: the time of a matrix product does not depend on its values.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kosmos_edge.convert.gguf import TensorInfo, data_offsets, encode_header
from kosmos_edge.convert.recipe import gets_more_bits

WIDTH, FF, LAYERS, HEADS, VOCAB, CONTEXT = 2048, 8192, 24, 32, 65037, 2048
VISION_WIDTH, VISION_FF, VISION_LAYERS, VISION_HEADS, PATCHES = 1024, 4096, 24, 16, 256
FILE_TYPES = {"F16": 1, "Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15}
_STD = 0.02


def half(value: float) -> bytes:
    """A float16."""
    return np.float16(value).tobytes()


# Type -> (bytes before the random part, random bytes, bytes after it) of one block.
_SCALES_32 = bytes([0xA0] * 8 + [0] * 4)  # eight 6-bit scales of 32 and as many minimums
_BLOCKS = {
    "Q4_0": (half(_STD / 4.61), 16, b""),
    "Q8_0": (half(_STD / 73.9), 32, b""),
    "Q4_K": (half(_STD / (32 * 4.61)) + half(7.5 * _STD / (32 * 4.61)) + _SCALES_32, 128, b""),
    "Q5_K": (half(_STD / (32 * 9.23)) + half(15.5 * _STD / (32 * 9.23)) + _SCALES_32, 160, b""),
    "Q6_K": (b"", 192, bytes([16] * 16) + half(_STD / (16 * 18.5))),
}


def random_tensor(info: TensorInfo, rng: np.random.Generator) -> bytes:
    """Stored bytes of a random matrix; vectors are ones (norm weights) or zeros (biases)."""
    if len(info.shape) == 1:
        return np.full(info.shape, 1.0 if info.name.endswith("norm.weight") else 0.0, np.float32).tobytes()
    if info.dtype in ("F32", "F16"):
        values = rng.standard_normal(info.shape, np.float32) * np.float32(_STD)
        return values.astype(np.float32 if info.dtype == "F32" else np.float16).tobytes()
    before, count, after = _BLOCKS[info.dtype]
    size = len(before) + count + len(after)
    blocks = np.frombuffer(rng.bytes(info.nbytes), np.uint8).reshape(-1, size).copy()
    blocks[:, : len(before)] = np.frombuffer(before, np.uint8)
    if after:
        blocks[:, -len(after) :] = np.frombuffer(after, np.uint8)
    return blocks.tobytes()


def write_gguf(path: Path, metadata: list, tensors: list[TensorInfo]) -> None:
    """Write a file of random weights; the same bytes every time."""
    rng = np.random.default_rng(0)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(encode_header(metadata, tensors))
        start = file.tell()
        for info, offset in zip(tensors, data_offsets(tensors)[0], strict=True):
            file.seek(start + offset)
            file.write(random_tensor(info, rng))
        file.truncate(start + data_offsets(tensors)[1])
    part.replace(path)


# ------------------------------------------------------------------------------------------------------------ decoder


def vocabulary_metadata(count: int) -> list:
    """Keys of a made-up sentencepiece vocabulary of that many pieces."""
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    words = count - len(pieces)
    return [
        ("tokenizer.ggml.model", "str", "llama"),
        ("tokenizer.ggml.pre", "str", "default"),
        ("tokenizer.ggml.tokens", "[str]", pieces + [f"\u2581t{i}" for i in range(words)]),
        ("tokenizer.ggml.scores", "[f32]", [0.0] * 259 + [-float(i) for i in range(words)]),
        ("tokenizer.ggml.token_type", "[i32]", [2, 3, 3] + [6] * 256 + [1] * words),
        ("tokenizer.ggml.bos_token_id", "u32", 1),
        ("tokenizer.ggml.eos_token_id", "u32", 2),
        ("tokenizer.ggml.unknown_token_id", "u32", 0),
    ]


def decoder_metadata(kind: str) -> list:
    """Keys of a GPT-2 with a made-up sentencepiece vocabulary of the right size."""
    return [
        ("general.architecture", "str", "gpt2"),
        ("general.name", "str", f"kosmos-2 decoder stand-in {kind}"),
        ("general.alignment", "u32", 64),
        ("general.quantization_version", "u32", 2),
        ("general.file_type", "u32", FILE_TYPES[kind]),
        ("gpt2.context_length", "u32", CONTEXT),
        ("gpt2.embedding_length", "u32", WIDTH),
        ("gpt2.feed_forward_length", "u32", FF),
        ("gpt2.block_count", "u32", LAYERS),
        ("gpt2.attention.head_count", "u32", HEADS),
        ("gpt2.attention.layer_norm_epsilon", "f32", 1e-5),
        *vocabulary_metadata(VOCAB),
    ]


def decoder_tensors(kind: str, own_output: bool) -> list[TensorInfo]:
    """Types as llama.cpp's llama-quantize chooses them (src/llama-quant.cpp): Q6_K for the output matrix beside 4-bit
    types; in Q4_K_M Q5_K for the fused attention matrix and Q6_K for some ffn_down.

    own_output: with an output matrix beside the embedding (ik_llama.cpp's loader wants one), else tied.
    """
    base = {"Q4_K_M": "Q4_K"}.get(kind, kind)
    output = "Q8_0" if kind == "Q8_0" else "Q6_K"
    out = [
        TensorInfo("token_embd.weight", base if own_output else output, (VOCAB, WIDTH)),
        TensorInfo("position_embd.weight", "F32", (CONTEXT, WIDTH)),
        TensorInfo("output_norm.weight", "F32", (WIDTH,)),
        TensorInfo("output_norm.bias", "F32", (WIDTH,)),
    ]
    if own_output:
        out.append(TensorInfo("output.weight", output, (VOCAB, WIDTH)))
    for layer in range(LAYERS):
        prefix = f"blk.{layer}."
        for norm in ("attn_norm", "ffn_norm"):
            out += [TensorInfo(f"{prefix}{norm}.{part}", "F32", (WIDTH,)) for part in ("weight", "bias")]
        more = kind == "Q4_K_M" and gets_more_bits(layer, LAYERS)
        for name, dtype, shape in (
            ("attn_qkv", "Q5_K" if kind == "Q4_K_M" else base, (3 * WIDTH, WIDTH)),
            ("attn_output", base, (WIDTH, WIDTH)),
            ("ffn_up", base, (FF, WIDTH)),
            ("ffn_down", "Q6_K" if more else base, (WIDTH, FF)),
        ):
            out.append(TensorInfo(f"{prefix}{name}.weight", dtype, shape))
            out.append(TensorInfo(f"{prefix}{name}.bias", "F32", shape[:1]))
    return out


def write_decoder(path: Path, kind: str, own_output: bool) -> None:
    """A decoder stand-in of one of llama.cpp's types."""
    write_gguf(path, decoder_metadata(kind), decoder_tensors(kind, own_output))


def decode_bytes(tensors: list[TensorInfo]) -> int:
    """Bytes of weights that one generated token reads."""
    output = "output.weight" if any(t.name == "output.weight" for t in tensors) else "token_embd.weight"
    return sum(t.nbytes for t in tensors if t.name.startswith(("blk.", "output_norm")) or t.name == output)


# ------------------------------------------------------------------------------------------------------------- vision


def vision_metadata(kind: str) -> list:
    """Keys of a LLaVA vision tower. Its graph leaves the last block out, so there is one more than is to be run."""
    prefix = "clip.vision."
    return [
        ("general.architecture", "str", "clip"),
        ("general.alignment", "u32", 64),
        ("general.file_type", "u32", FILE_TYPES[kind]),
        ("clip.has_vision_encoder", "bool", True),
        ("clip.has_text_encoder", "bool", False),
        ("clip.has_llava_projector", "bool", True),
        ("clip.projector_type", "str", "mlp"),
        ("clip.use_gelu", "bool", False),
        ("clip.use_silu", "bool", False),
        (prefix + "image_size", "u32", 224),
        (prefix + "patch_size", "u32", 14),
        (prefix + "embedding_length", "u32", VISION_WIDTH),
        (prefix + "feed_forward_length", "u32", VISION_FF),
        (prefix + "projection_dim", "u32", WIDTH),
        (prefix + "attention.head_count", "u32", VISION_HEADS),
        (prefix + "block_count", "u32", VISION_LAYERS + 1),
        (prefix + "attention.layer_norm_epsilon", "f32", 1e-5),
        (prefix + "image_mean", "[f32]", [0.48145466, 0.4578275, 0.40821073]),
        (prefix + "image_std", "[f32]", [0.26862954, 0.26130258, 0.27577711]),
    ]


def vision_tensors(kind: str) -> list[TensorInfo]:
    """CLIP ViT-L/14 and LLaVA's projector."""
    out = [
        TensorInfo("v.class_embd", "F32", (VISION_WIDTH,)),
        TensorInfo("v.patch_embd.weight", "F16", (VISION_WIDTH, 3, 14, 14)),
        TensorInfo("v.position_embd.weight", "F32", (PATCHES + 1, VISION_WIDTH)),
    ]

    def add(name: str, rows: int, cols: int = 0) -> None:
        if cols:
            out.append(TensorInfo(f"{name}.weight", kind, (rows, cols)))
        else:
            out.append(TensorInfo(f"{name}.weight", "F32", (rows,)))
        out.append(TensorInfo(f"{name}.bias", "F32", (rows,)))

    for norm in ("v.pre_ln", "v.post_ln"):
        add(norm, VISION_WIDTH)
    for layer in range(VISION_LAYERS + 1):
        for norm in ("ln1", "ln2"):
            add(f"v.blk.{layer}.{norm}", VISION_WIDTH)
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            add(f"v.blk.{layer}.{part}", VISION_WIDTH, VISION_WIDTH)
        add(f"v.blk.{layer}.ffn_up", VISION_FF, VISION_WIDTH)
        add(f"v.blk.{layer}.ffn_down", VISION_WIDTH, VISION_FF)
    add("mm.0", WIDTH, VISION_WIDTH)
    add("mm.2", WIDTH, WIDTH)
    return out


def write_vision(path: Path, kind: str) -> None:
    """A vision tower of one type."""
    write_gguf(path, vision_metadata(kind), vision_tensors(kind))


def files() -> Iterator[tuple[str, str, object]]:
    """Every stand-in file: (name in the work folder, who needs it, function that writes it to a path)."""
    for kind in ("Q4_0", "Q4_K_M", "Q8_0"):
        yield f"decoder-{kind}.gguf", "llama.cpp", lambda path, kind=kind: write_decoder(path, kind, False)
    for kind in ("Q4_0", "Q4_K_M"):
        yield f"decoder-{kind}-output.gguf", "ik_llama.cpp", lambda path, kind=kind: write_decoder(path, kind, True)
    for kind in ("F16", "Q8_0", "Q4_0"):
        yield f"vision-{kind}.gguf", "llama.cpp", lambda path, kind=kind: write_vision(path, kind)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name, _, write in files():
        if not (folder / name).exists():
            write(folder / name)
            print(name, (folder / name).stat().st_size)
