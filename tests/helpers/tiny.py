"""A seeded two-layer KOSMOS-2, made in a blink without torch: the model that most tests run on.

`make_tiny` draws the weights (a dict of float32 arrays under their GGUF names), a small unigram vocabulary with the
model's tags and 1024 location tokens, and the metadata of a complete file. `write_tiny` writes them as GGUF with a
writer of its own, so that a mistake in the converter or in the reader cannot hide behind shared code. `tiny_hf.py`
writes the same model in the Hugging Face layout.

The random stream is PCG64's raw 64-bit output, which numpy promises never to change (NEP 19), turned into uniform
numbers by integer and exact float steps: the weights are the same bits on every machine, so recorded goldens hold.
"""

import hashlib
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

TAGS = [
    "</doc>", "<image>", "</image>", "</chunk>", "</line>", "<phrase>", "</phrase>", "<object>", "</object>",
    "</delimiter_of_multi_objects/>", "<grounding>",
]  # fmt: skip

_WORD_LIST = (
    "the to and of a in is on with for an at by it this that image picture photo man woman dog cat snow fire ball "
    "house tree car street red green blue yellow white black small large big left right up down next near under over "
    "what where how who which color many people are there he she they his her sitting standing holding wearing "
    "Question: Answer: Describe detail: An It Is The What Where How Yes No warm himself warming camp young old "
    "two three one table chair hat water sky wall door window hand face eye book grass field road boat bird horse"
)
_SUFFIXES = ["s", "ing", "ed", "er", "ly", "tion", "th", "re", "on", "en", "al", "es", "or", "man", "light"]
_OTHER = ["é", "ü", "ñ", "中", "文", "日", "本", "👍", "£", "°"]  # a few characters of 2, 3 and 4 bytes


@dataclass(frozen=True)
class TinyConfig:
    """Dimensions and defaults of a tiny model; the names follow the GGUF keys."""

    layers: int = 2
    width: int = 256
    ff_width: int = 512
    heads: int = 4
    context: int = 512
    latents: int = 64
    vision_layers: int = 2
    vision_width: int = 256
    vision_ff_width: int = 512
    vision_heads: int = 4
    image_size: int = 56
    patch_size: int = 14
    no_repeat_ngram_size: int = 3
    max_new_tokens: int = 128
    eps: float = 1e-5
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    @property
    def vision_tokens(self) -> int:
        """Patches of a picture and the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclass(frozen=True)
class TinyVocabulary:
    """Pieces by id with sentencepiece scores and GGUF token types (1 normal 2 unknown 3 control 4 tag 5 unused)."""

    pieces: list[str]
    scores: list[float]
    types: list[int]
    charsmap: bytes = b""  # sentencepiece's compiled normaliser; none in the tiny model

    def id(self, piece: str) -> int:
        """The id of a piece; KeyError-like ValueError when there is none."""
        return self.pieces.index(piece)


@dataclass
class Tiny:
    """One tiny model: `weights` are float32 arrays by GGUF name, `metadata` maps key -> (GGUF type, value)."""

    config: TinyConfig
    vocabulary: TinyVocabulary
    weights: dict[str, np.ndarray]
    metadata: dict[str, tuple[str, object]]


def make_vocabulary(size: int = 0) -> TinyVocabulary:
    """The vocabulary in the published model's order: specials, pieces, <mask>, tags, location tokens.

    `size`: at least so many pieces, filled up with numbered ones.
    """
    pieces = ["<s>", "<pad>", "</s>", "<unk>"]
    types = [3, 3, 3, 2]
    normal = [".", "▁the", ",", "▁to", "▁and", "▁of", "▁a", "s", "▁in"]  # the published model starts with these too
    normal += ["▁" + w for w in _WORD_LIST.split()] + _SUFFIXES
    normal += ["▁"] + [chr(c) for c in range(33, 127)] + _OTHER
    normal = list(dict.fromkeys(normal))
    normal += [f"▁filler{i}" for i in range(size - len(normal) - 5 - len(TAGS) - 1024)]
    # Rare pieces score lower, single characters lowest; the odd step keeps sums of different splits from tying.
    scores = [0.0] * 4 + [round(-(3.0 if len(p) > 1 else 9.0) - 0.01373 * i, 5) for i, p in enumerate(normal)]
    pieces += [*normal, "<mask>", *TAGS, *(f"<patch_index_{i:04d}>" for i in range(1024))]
    types += [1] * len(normal) + [5] + [4] * (len(TAGS) + 1024)
    scores += [0.0] * (len(pieces) - len(scores))
    return TinyVocabulary(pieces, scores, types)


def uniform(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Float32 numbers of mean 0 and variance 1, flat between -sqrt 3 and sqrt 3, fixed by (seed, name) alone."""
    count = int(np.prod(shape))
    raw = np.random.PCG64([seed, zlib.crc32(name.encode())]).random_raw((count + 1) // 2).view(np.uint32)[:count]
    centred = (raw >> 8).astype(np.float32) * np.float32(2**-23) - np.float32(1)  # exact: 24 bits
    return (centred * np.float32(3**0.5)).reshape(shape)


def _linear_gain(name: str) -> float:
    # A model of unit gain repeats its last token for ever and does not look at the picture. These gains let
    # attention choose, layers outweigh the embedding and pictures matter, so that answers vary while the two best
    # tokens stay far apart compared with rounding.
    if name.startswith("mm."):
        return {"mm.dense.weight": 16.0, "mm.attn_out.weight": 0.1}.get(name, 1.5)
    if name.startswith("v."):
        return 1.0
    gains = {"attn_q": 2.5, "attn_k": 2.5, "attn_output": 12.0, "ffn_up": 2.0, "ffn_down": 12.0}
    return gains.get(name.split(".")[-2], 1.0)


def tensor_shapes(config: TinyConfig, vocab: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of the file and its shape, outermost dimension first, in file order."""
    c = config
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, rows: int, columns: int) -> None:
        shapes[name + ".weight"], shapes[name + ".bias"] = (rows, columns), (rows,)

    def norm(name: str, width: int) -> None:
        shapes[name + ".weight"], shapes[name + ".bias"] = (width,), (width,)

    shapes["token_embd.weight"] = (vocab, c.width)
    for i in range(c.layers):
        b = f"blk.{i}."
        norm(b + "attn_norm", c.width)
        for x in "qkv":
            linear(b + "attn_" + x, c.width, c.width)
        norm(b + "attn_sub_norm", c.width)
        linear(b + "attn_output", c.width, c.width)
        norm(b + "ffn_norm", c.width)
        linear(b + "ffn_up", c.ff_width, c.width)
        norm(b + "ffn_sub_norm", c.ff_width)
        linear(b + "ffn_down", c.width, c.ff_width)
    norm("output_norm", c.width)
    shapes["v.class_embd"] = (c.vision_width,)
    shapes["v.patch_embd.weight"] = (c.vision_width, 3, c.patch_size, c.patch_size)
    shapes["v.position_embd.weight"] = (c.vision_tokens, c.vision_width)
    norm("v.pre_ln", c.vision_width)
    for i in range(c.vision_layers):
        b = f"v.blk.{i}."
        norm(b + "ln1", c.vision_width)
        for x in ("q", "k", "v", "out"):
            linear(b + "attn_" + x, c.vision_width, c.vision_width)
        norm(b + "ln2", c.vision_width)
        linear(b + "ffn_up", c.vision_ff_width, c.vision_width)
        linear(b + "ffn_down", c.vision_width, c.vision_ff_width)
    norm("v.post_ln", c.vision_width)
    shapes["mm.latent_query"] = (c.latents, c.width)
    linear("mm.dense", c.width, c.vision_width)
    for x in ("q", "k", "v", "out"):
        linear("mm.attn_" + x, c.width, c.width)
    return shapes


def _is_norm(name: str) -> bool:
    return "norm." in name or "ln." in name or ".ln1." in name or ".ln2." in name


def make_weight(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """One tensor, float32. Biases and norms are random too, so that one that an engine forgets shows up."""
    x = uniform(name, shape, seed)
    if _is_norm(name) and name.endswith(".weight"):
        x = x * np.float32(0.1) + np.float32(1)
        if name.startswith("output_norm"):
            x = x * np.float32(4)
    elif name.endswith(".bias") or name in ("v.class_embd", "v.position_embd.weight"):
        x = x * np.float32(0.05 if name.endswith(".bias") else 0.2)
    elif name == "token_embd.weight":
        x = x * np.float32(shape[1] ** -0.5)
        x[1] = 0  # the padding row is zero in the published model
    elif name != "mm.latent_query":
        x = x * np.float32(_linear_gain(name) * float(np.prod(shape[1:])) ** -0.5)
    return x.astype(np.float32, copy=False)


def make_weights(config: TinyConfig, vocab: int, seed: int) -> dict[str, np.ndarray]:
    """All tensors by GGUF name, in file order."""
    return {name: make_weight(name, shape, seed) for name, shape in tensor_shapes(config, vocab).items()}


def make_metadata(config: TinyConfig, vocabulary: TinyVocabulary, file_type: int = 0) -> dict[str, tuple[str, object]]:
    """Every key of a complete file; the checksums are added by `write_tiny`."""
    c, v = config, vocabulary
    return {
        "general.architecture": ("str", "kosmos2"),
        "general.type": ("str", "model"),
        "general.name": ("str", "tiny"),
        "general.description": ("str", "A random two-layer KOSMOS-2 for tests"),
        "general.license": ("str", "mit"),
        "general.languages": ("[str]", ["en"]),
        "general.file_type": ("u32", file_type),
        "general.quantization_version": ("u32", 2),
        "general.alignment": ("u32", 64),
        "kosmos2.converter": ("str", "tests/helpers/tiny.py"),
        "kosmos2.context_length": ("u32", c.context),
        "kosmos2.embedding_length": ("u32", c.width),
        "kosmos2.block_count": ("u32", c.layers),
        "kosmos2.feed_forward_length": ("u32", c.ff_width),
        "kosmos2.attention.head_count": ("u32", c.heads),
        "kosmos2.attention.layer_norm_epsilon": ("f32", c.eps),
        "kosmos2.vocab_size": ("u32", len(v.pieces)),
        "kosmos2.image_token_count": ("u32", c.latents),
        "kosmos2.location_bins": ("u32", 32),
        "kosmos2.first_slot_token_id": ("u32", 4),
        "clip.has_vision_encoder": ("bool", True),
        "clip.projector_type": ("str", "kosmos2"),
        "clip.use_gelu": ("bool", False),
        "clip.vision.image_size": ("u32", c.image_size),
        "clip.vision.patch_size": ("u32", c.patch_size),
        "clip.vision.embedding_length": ("u32", c.vision_width),
        "clip.vision.feed_forward_length": ("u32", c.vision_ff_width),
        "clip.vision.block_count": ("u32", c.vision_layers),
        "clip.vision.projection_dim": ("u32", c.width),
        "clip.vision.attention.head_count": ("u32", c.vision_heads),
        "clip.vision.attention.layer_norm_epsilon": ("f32", c.eps),
        "clip.vision.image_mean": ("[f32]", list(c.mean)),
        "clip.vision.image_std": ("[f32]", list(c.std)),
        "tokenizer.ggml.model": ("str", "t5"),
        "tokenizer.ggml.tokens": ("[str]", v.pieces),
        "tokenizer.ggml.scores": ("[f32]", v.scores),
        "tokenizer.ggml.token_type": ("[i32]", v.types),
        "tokenizer.ggml.bos_token_id": ("u32", 0),
        "tokenizer.ggml.eos_token_id": ("u32", 2),
        "tokenizer.ggml.unknown_token_id": ("u32", 3),
        "tokenizer.ggml.padding_token_id": ("u32", 1),
        "tokenizer.ggml.add_bos_token": ("bool", True),
        "tokenizer.ggml.add_space_prefix": ("bool", True),
        "tokenizer.ggml.remove_extra_whitespaces": ("bool", True),
        "tokenizer.ggml.precompiled_charsmap": ("[u8]", list(v.charsmap)),
        "kosmos2.generation.max_new_tokens": ("u32", c.max_new_tokens),
        "kosmos2.generation.no_repeat_ngram_size": ("u32", c.no_repeat_ngram_size),
        "kosmos2.prompt.caption": ("str", "An image of"),
        "kosmos2.prompt.caption_detailed": ("str", "Describe this image in detail:"),
        "kosmos2.prompt.question": ("str", "Question: {question} Answer:"),
        "kosmos2.prompt.locate": ("str", "<phrase> {phrase}</phrase>"),
        "kosmos2.prompt.describe": ("str", "<phrase> It</phrase>{boxes} is"),
        "kosmos2.prompt.grounding": ("str", "<grounding>"),
    }


def make_tiny(seed: int = 0, config: TinyConfig | None = None, file_type: int = 0) -> Tiny:
    """The tiny model of that seed, in memory."""
    config = config or TinyConfig()
    vocabulary = make_vocabulary()
    weights = make_weights(config, len(vocabulary.pieces), seed)
    return Tiny(config, vocabulary, weights, make_metadata(config, vocabulary, file_type))


# ------------------------------------------------------------------------------------------------- GGUF, version 3

_SCALARS = {
    "u8": (0, "B"), "i8": (1, "b"), "u16": (2, "H"), "i16": (3, "h"), "u32": (4, "I"), "i32": (5, "i"), "f32": (6, "f"),
    "bool": (7, "?"), "u64": (10, "Q"), "i64": (11, "q"), "f64": (12, "d"),
}  # fmt: skip
# name -> (GGUF tensor type, elements per block, bytes per block, llama.cpp file type)
TENSOR_TYPES = {
    "F32": (0, 1, 4, 0), "F16": (1, 1, 2, 1), "Q4_0": (2, 32, 18, 2), "Q4_1": (3, 32, 20, 3), "Q5_0": (6, 32, 22, 8),
    "Q5_1": (7, 32, 24, 9), "Q8_0": (8, 32, 34, 7), "Q2_K": (10, 256, 84, 10),
    "Q3_K": (11, 256, 110, 12), "Q4_K": (12, 256, 144, 15),
    "Q5_K": (13, 256, 176, 17), "Q6_K": (14, 256, 210, 18), "IQ4_NL": (20, 32, 18, 25), "IQ4_XS": (23, 256, 136, 30),
    "BF16": (30, 1, 2, 32),
}  # fmt: skip


@dataclass
class StoredTensor:
    """A tensor as it goes into the file: type name, shape (outermost first) and bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass
class GgufContent:
    """What `write_gguf` writes; error tests change it before it is written."""

    metadata: dict[str, tuple[str, object]]
    tensors: dict[str, StoredTensor] = field(default_factory=dict)


def _string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def _value(kind: str, value: object) -> bytes:
    if kind == "str":
        return struct.pack("<I", 8) + _string(value)
    if kind == "[str]":
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(_string(v) for v in value)
    if kind.startswith("["):
        code, letter = _SCALARS[kind[1:-1]]
        return struct.pack("<IIQ", 9, code, len(value)) + struct.pack(f"<{len(value)}{letter}", *value)
    code, letter = _SCALARS[kind]
    return struct.pack(f"<I{letter}", code, value)


def write_gguf(path: Path | str, content: GgufContent, alignment: int = 0) -> None:
    """Write a GGUF file: header, keys, tensor table, then the tensors, each at a multiple of the alignment (0: of
    general.alignment)."""
    alignment = alignment or int(content.metadata.get("general.alignment", ("u32", 32))[1])
    out = [b"GGUF", struct.pack("<IQQ", 3, len(content.tensors), len(content.metadata))]
    out += [_string(key) + _value(kind, value) for key, (kind, value) in content.metadata.items()]
    body, offset = [], 0
    for name, tensor in content.tensors.items():
        dims = tuple(reversed(tensor.shape))  # GGUF counts dimensions from the innermost
        out.append(_string(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims))
        out.append(struct.pack("<IQ", TENSOR_TYPES[tensor.dtype][0], offset))
        padding = -len(tensor.data) % alignment
        body += [tensor.data, b"\0" * padding]
        offset += len(tensor.data) + padding
    head = b"".join(out)
    Path(path).write_bytes(head + b"\0" * (-len(head) % alignment) + b"".join(body))


def encode_tensor(name: str, array: np.ndarray, dtype: str) -> StoredTensor:
    """Store a tensor by the project's rule: matrices in `dtype`, the patch kernel in F16, the rest in F32.

    A row length that is no multiple of the type's block is kept in F16. Types beyond F32 and F16 need the extension.
    """
    matrix = array.ndim == 2 and name not in ("v.position_embd.weight", "mm.latent_query")
    if dtype != "F32" and name == "v.patch_embd.weight":
        dtype = "F16"
    elif not matrix:
        dtype = "F32"
    elif array.shape[-1] % TENSOR_TYPES[dtype][1]:
        dtype = "F16"
    if dtype == "F32":
        data = array.astype("<f4").tobytes()
    elif dtype == "F16":
        data = array.astype("<f2").tobytes()
    else:
        from kosmos_edge import _core

        data = _core.quantize(dtype, array.astype("<f4").tobytes(), "F32", array.shape[-1])
    return StoredTensor(dtype, array.shape, data)


def write_tiny(
    path: Path | str,
    dtype: str = "F32",
    seed: int = 0,
    config: TinyConfig | None = None,
    edit: Callable[[GgufContent], None] | None = None,
    tiny: Tiny | None = None,
) -> Tiny:
    """Write the tiny model of `seed` as GGUF with matrices of type `dtype`; returns the model that was written.

    `edit` may drop, change or add keys and tensors of the file's content just before it is written (error tests).
    The returned weights are the float32 ones, before any rounding to `dtype`.
    """
    tiny = tiny or make_tiny(seed, config)
    content = GgufContent(dict(tiny.metadata))
    content.metadata["general.file_type"] = ("u32", TENSOR_TYPES[dtype][3])
    for name, array in tiny.weights.items():
        content.tensors[name] = encode_tensor(name, array, dtype)
    if edit:
        edit(content)
    checksums = f"{tiny.metadata['general.architecture'][1]}.checksum.sha256"
    if checksums not in content.metadata:
        sums = [hashlib.sha256(t.data).hexdigest() for t in content.tensors.values()]
        content.metadata[checksums] = ("[str]", sums)
    write_gguf(path, content)
    return tiny


def make_picture(seed: int, width: int, height: int) -> np.ndarray:
    """A test picture, (height, width, 3) uint8: a gradient, a few flat rectangles and noise, from integers alone."""
    rows, columns = np.indices((height, width))
    raw = np.random.PCG64([seed, 77]).random_raw(64)
    picture = np.stack([(columns * int(raw[i] % 7 + 1) + rows * int(raw[i + 3] % 5 + 1)) % 256 for i in range(3)], -1)
    for i in range(4):
        x, y, w, h = (int(raw[8 + 4 * i + j] % 1000) for j in range(4))
        top, left = y * height // 1000, x * width // 1000
        bottom, right = top + 1 + h * height // 2000, left + 1 + w * width // 2000
        picture[top:bottom, left:right] = [int(raw[32 + 3 * i + j] % 256) for j in range(3)]
    noise = np.random.PCG64([seed, 78]).random_raw(height * width * 3).reshape(height, width, 3) % 32
    return np.clip(picture + noise.astype(np.int64) - 16, 0, 255).astype(np.uint8)
