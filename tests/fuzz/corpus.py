"""One hostile input for each known root cause, of this project and of others, made by code.

Every case names where the cause was seen first, what the input is, and what must happen: the class of the error and a
part of its text, or SAFE (the input is usable, and nothing bad happens when it is used).
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from helpers.gguf_builder import (
    ARRAY,
    BOOL,
    FLOAT32,
    INT32,
    INT64,
    STRING,
    UINT8,
    UINT32,
    UINT64,
    GgufBuilder,
    TensorSpec,
)
from helpers.small_model import small_model

SAFE = ""
_KINDS = {"str": STRING, "u32": UINT32, "i32": INT32, "f32": FLOAT32, "bool": BOOL, "u8": UINT8, "u64": UINT64}


@dataclass(frozen=True)
class Case:
    """kind: what reads the input (see tests/hostile/test_fuzz_corpus.py). error: the class's name, or SAFE."""

    name: str
    kind: str
    make: Callable[[], Any]
    error: str
    text: str = ""  # a part of the message


CASES: list[Case] = []


def case(name: str, kind: str, error: str, text: str, make: Callable[[], Any]) -> None:
    """Adds a case."""
    CASES.append(Case(name, kind, make, error, text))


# ---- model files


def builder() -> GgufBuilder:
    """The small model as parts whose every field can be replaced."""
    content = small_model()
    out = GgufBuilder(alignment=64)
    for key, (kind, value) in content.metadata.items():
        if kind.startswith("["):
            items = [v.encode() for v in value] if kind == "[str]" else list(value)
            out.metadata[key.encode()] = (ARRAY, (_KINDS[kind[1:-1]], items))
        else:
            out.metadata[key.encode()] = (_KINDS[kind], value.encode() if kind == "str" else value)
    for name, tensor in content.tensors.items():
        out.tensors.append(TensorSpec(name.encode(), list(tensor.shape[::-1]), 0, tensor.data))
    return out


def patched(label: str, value: int, change: Callable[[GgufBuilder], None] | None = None) -> bytes:
    """The small model's file with the header field of that label overwritten."""
    parts = builder()
    if change:
        change(parts)
    data = bytearray(parts.build())
    place = next(field for field in parts.fields if field.label == label)
    data[place.offset : place.offset + place.width] = value.to_bytes(place.width, "little")
    return bytes(data)


def with_key(key: str, kind: int, value: Any) -> bytes:
    """The small model's file with another value of a key."""
    parts = builder()
    parts.metadata[key.encode()] = (kind, value)
    return parts.build()


def with_tensor(which: str, **changes: Any) -> bytes:
    """The small model's file with fields of one tensor replaced."""
    parts = builder()
    tensor = next(t for t in parts.tensors if t.name == which.encode())
    for field, value in changes.items():
        setattr(tensor, field, value)
    return parts.build()


def with_piece(piece: bytes, kind: int = 1) -> bytes:
    """The small model's file with another token 9, of that type."""
    parts = builder()
    for key, value in ((b"tokenizer.ggml.tokens", piece), (b"tokenizer.ggml.token_type", kind)):
        parts.metadata[key][1][1][9] = value
    return parts.build()


def poisoned(bits: int) -> bytes:
    """The small model's file with one bit pattern in every second weight of the embedding."""
    parts = builder()
    data = bytearray(parts.tensors[0].data)
    for at in range(0, len(data), 8):
        data[at : at + 4] = struct.pack("<I", bits)
    parts.tensors[0].data = bytes(data)
    return parts.build()


def _header(version: int, tensors: int, entries: int, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + rest


BAD = "ModelCorrupt"
_FIRST = "token_embd.weight"
_Q4_K = 12
for wrap in (2**63, 2**61 + 1, 2**64 - 1):
    case(
        f"CVE-2024-23605 entry count {wrap:#x}",
        "gguf",
        BAD,
        "metadata entries; at most",
        lambda w=wrap: patched("entry count", w),
    )
    case(
        f"CVE-2024-21836 tensor count {wrap:#x}",
        "gguf",
        BAD,
        "tensors; at most",
        lambda w=wrap: patched("tensor count", w),
    )
    case(
        f"CVE-2024-21825 array count {wrap:#x}",
        "gguf",
        BAD,
        "elements; at most",
        lambda w=wrap: patched("count of tokenizer.ggml.tokens", w),
    )
    case(
        f"CVE-2024-23496 string length {wrap:#x}",
        "gguf",
        BAD,
        "at most",
        lambda w=wrap: patched("length of string general.name", w),
    )
    case(
        f"CVE-2024-21802 dimension {wrap:#x}",
        "gguf",
        BAD,
        "token_embd.weight",
        lambda w=wrap: with_tensor(_FIRST, dims=[w, 2]),
    )
    case(
        f"CVE-2026-27940 offset {wrap & ~63:#x}",
        "gguf",
        BAD,
        "truncated or damaged",
        lambda w=wrap: with_tensor(_FIRST, offset=w & ~63),
    )
case(
    "CVE-2024-21802 product of dimensions wraps to small",
    "gguf",
    BAD,
    "token_embd.weight",
    lambda: with_tensor(_FIRST, dims=[2**32, 2**32, 4]),
)
case(
    "CVE-2025-53630 sum of two sizes wraps",
    "gguf",
    BAD,
    "",
    lambda: with_tensor(_FIRST, dims=[2**31, 2**29], offset=2**63 - 64),
)
case(
    "CVE-2026-33298 bytes of a quantized tensor wrap",
    "gguf",
    BAD,
    "token_embd.weight",
    lambda: with_tensor(_FIRST, dims=[256, 2**58], type=_Q4_K),
)
case(
    "GGML_PAD offset that pads to zero",
    "gguf",
    BAD,
    "token_embd.weight",
    lambda: with_tensor(_FIRST, offset=2**64 - 31),
)
case(
    "PR 24997 alignment of 2^31",
    "gguf",
    BAD,
    "general.alignment is 2147483648",
    lambda: with_key("general.alignment", UINT32, 2**31),
)
case(
    "PR 24997 alignment of zero",
    "gguf",
    BAD,
    "general.alignment is 0",
    lambda: with_key("general.alignment", UINT32, 0),
)
case(
    "PR 24997 alignment of another type",
    "gguf",
    BAD,
    "expected uint32",
    lambda: with_key("general.alignment", UINT64, 64),
)
case("15711 one tensor more than the cap", "gguf", BAD, "at most 65536", lambda: patched("tensor count", 65537))
case(
    "PR 26690 scores as integers",
    "gguf",
    BAD,
    "expected an array of float32",
    lambda: with_key("tokenizer.ggml.scores", ARRAY, (INT32, [0] * 30)),
)
case(
    "PR 26690 types as floats",
    "gguf",
    BAD,
    "expected an array of int32",
    lambda: with_key("tokenizer.ggml.token_type", ARRAY, (FLOAT32, [1.0] * 30)),
)
case(
    "PR 26690 charsmap as strings",
    "gguf",
    BAD,
    "expected an array of uint8",
    lambda: with_key("tokenizer.ggml.precompiled_charsmap", ARRAY, (STRING, [b"x"])),
)
case(
    "CVE-2025-49847 token length cut to 32 bits",
    "gguf",
    BAD,
    "at most",
    lambda: patched("length of string tokenizer.ggml.tokens", 2**32 + 5),
)
case("CVE-2025-49847 token of 1025 bytes", "gguf", BAD, "token 9 has 1025 bytes", lambda: with_piece(b"x" * 1025))
case("25969 byte token of -1", "gguf", BAD, "token 9 has type 6", lambda: with_piece(b"<0x-1>", 6))
case("25969 byte token of -1 as a word", "gguf", SAFE, "", lambda: with_piece(b"<0x-1>"))
case(
    "PLaMo-2 table of more pieces than fit",
    "gguf",
    BAD,
    "kosmos2.vocab_size is 1048577",
    lambda: with_key("kosmos2.vocab_size", UINT32, 2**20 + 1),
)
case("9195 token that is half a character", "gguf", BAD, "valid UTF-8", lambda: with_piece(b"\xe4\xb8"))
case(
    "27188 array length of 2^63 in 43 bytes",
    "gguf",
    BAD,
    "elements; at most",
    lambda: _header(3, 0, 1, struct.pack("<Q", 3) + b"abc" + struct.pack("<IIQ", ARRAY, UINT8, 2**63)),
)
case(
    "arrays of arrays",
    "gguf",
    BAD,
    "array of arrays",
    lambda: _header(3, 0, 1, struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", ARRAY, ARRAY, 1) * 99),
)
case("a key that occurs twice", "gguf", BAD, "occurs twice", lambda: _one_more("extra_entries"))
case("a tensor that occurs twice", "gguf", BAD, "two tensors are called", lambda: _one_more("tensors"))
case("two tensors in one place", "gguf", BAD, "overlap", lambda: with_tensor("output_norm.bias", offset=0))
case("a boolean of 2", "gguf", BAD, "expected 0 or 1", lambda: with_key("clip.use_gelu", BOOL, b"\2"))
case("a big-endian file", "gguf", BAD, "big-endian", lambda: b"GGUF" + struct.pack(">IQQ", 3, 0, 0))
case("6774 data cut off", "gguf", BAD, "truncated or damaged", lambda: builder().build()[:-1])
case(
    "CVE-2026-7482 tensor that reaches past the file",
    "gguf",
    BAD,
    "truncated or damaged",
    lambda: with_tensor("mm.attn_out.bias", offset=10**6),
)
case(
    "a tensor that the model has no place for",
    "gguf",
    BAD,
    "no part of this model",
    lambda: _one_more("another"),
)
case(
    "gemma.cpp 762 position embeddings too short",
    "gguf",
    BAD,
    "has shape",
    lambda: with_tensor("v.position_embd.weight", dims=[16, 4], data=bytes(256)),
)
for bits, what in ((0x7FC00000, "NaN"), (0x7F800000, "infinity"), (0x7F7FFFFF, "the largest number")):
    case(f"ik_llama 1984 weights of {what}", "gguf", "caption", "not a finite number", lambda b=bits: poisoned(b))
case("ik_llama 1984 denormal weights", "gguf", SAFE, "", lambda: poisoned(1))

# ---- vision settings

for key, value in (
    ("clip.vision.patch_size", 0), ("clip.vision.image_size", 0), ("clip.vision.attention.head_count", 0),
    ("kosmos2.attention.head_count", 0), ("kosmos2.image_token_count", 0), ("clip.vision.block_count", 0),
):  # fmt: skip
    case(
        f"27225 GO-2025-3557 division by zero in {key}",
        "gguf",
        BAD,
        f"{key} is {value}",
        lambda k=key, v=value: with_key(k, UINT32, v),
    )
case(
    "27225 deviation of zero",
    "gguf",
    BAD,
    "clip.vision.image_std has 0",
    lambda: with_key("clip.vision.image_std", ARRAY, (FLOAT32, [0.0] * 3)),
)
case(
    "27225 deviation of NaN",
    "gguf",
    BAD,
    "clip.vision.image_std has",
    lambda: with_key("clip.vision.image_std", ARRAY, (FLOAT32, [math.nan] * 3)),
)
case("27166 more patches than the tables hold", "gguf", BAD, "patches; at most 16384", lambda: _grid(4096, 1))
case(
    "27224 target size of 46368",
    "gguf",
    BAD,
    "clip.vision.image_size is 46368",
    lambda: with_key("clip.vision.image_size", UINT32, 46368),
)
case(
    "27224 min_pixels that nobody asked for",
    "gguf",
    SAFE,
    "",
    lambda: with_key("clip.vision.image_min_pixels", UINT32, 2**31),
)
case(
    "27223 chunk whose square wraps",
    "gguf",
    BAD,
    "kosmos2.image_token_count is 65536",
    lambda: with_key("kosmos2.image_token_count", UINT32, 65536),
)
case(
    "24142 mean of one value",
    "gguf",
    BAD,
    "expected 3",
    lambda: with_key("clip.vision.image_mean", ARRAY, (FLOAT32, [0.5])),
)
case(
    "24142 mean of integers",
    "gguf",
    BAD,
    "expected an array of float32",
    lambda: with_key("clip.vision.image_mean", ARRAY, (INT64, [1, 1, 1])),
)
case(
    "24142 mean that is text",
    "gguf",
    BAD,
    "expected an array of float32",
    lambda: with_key("clip.vision.image_mean", STRING, b"0.5"),
)
case(
    "GO-2025-3558 token id past the vocabulary",
    "gguf",
    BAD,
    "tokenizer.ggml.eos_token_id is",
    lambda: with_key("tokenizer.ggml.eos_token_id", UINT32, 1000),
)
case(
    "slots past the vocabulary",
    "gguf",
    BAD,
    "kosmos2.first_slot_token_id is",
    lambda: with_key("kosmos2.first_slot_token_id", UINT32, 2**20),
)
# Found by this project's own targets and tables.
case("own: feed-forward narrower than the model", "gguf", SAFE, "", lambda: _narrow())
case(
    "own: epsilon of the documented maximum",
    "gguf",
    SAFE,
    "",
    lambda: with_key("kosmos2.attention.layer_norm_epsilon", FLOAT32, 0.1),
)
case(
    "own: a question's format without its place",
    "gguf",
    BAD,
    "expected {question} in it",
    lambda: with_key("kosmos2.prompt.question", STRING, b"Q A"),
)
case(
    "own: flags of another tokenizer",
    "gguf",
    BAD,
    "only true is supported",
    lambda: with_key("tokenizer.ggml.add_space_prefix", BOOL, 0),
)
case(
    "own: terminal sequences in an error",
    "gguf",
    BAD,
    "\\x1b",
    lambda: with_key("general.architecture", STRING, b"\x1b[2J\x1b]0;x\x07"),
)
case(
    "own: a tensor whose name holds no layer, stored as another type",
    "requantize",
    BAD,
    "blk.0.attn_v.weight is missing",
    lambda: with_tensor("blk.0.attn_v.weight", name=b"blk.x.attn_v.weight"),
)
case("own: the good file stored as another type", "requantize", SAFE, "", lambda: builder().build())
# Templates are not a feature: these are keys like any other, or words of a prompt.
SSTI = b"{{ ''.__class__.__mro__[1].__subclasses__() }}{% for i in range(10**9) %}x{% endfor %}"
case(
    "CVE-2024-34359 chat template that runs code",
    "gguf",
    SAFE,
    "",
    lambda: with_key("tokenizer.chat_template", STRING, SSTI),
)
case(
    "PYSEC-2026-2013 loop bomb in a prompt",
    "gguf",
    SAFE,
    "",
    lambda: with_key("kosmos2.prompt.caption_detailed", STRING, SSTI),
)


def _one_more(field: str) -> bytes:
    """An entry or a tensor too many."""
    parts = builder()
    if field == "tensors":
        parts.tensors.append(parts.tensors[1])
    elif field == "another":
        parts.tensors.append(replace(parts.tensors[1], name=b"output_norm.evil"))
    else:
        parts.extra_entries.append((b"general.name", (STRING, b"again")))
    return parts.build()


def _grid(image: int, patch: int) -> bytes:
    parts = builder()
    parts.metadata[b"clip.vision.image_size"] = (UINT32, image)
    parts.metadata[b"clip.vision.patch_size"] = (UINT32, patch)
    return parts.build()


def _narrow() -> bytes:
    """Every check passes; rows of the width do not fit a buffer made for rows of the feed-forward width."""
    parts = builder()
    parts.metadata[b"kosmos2.feed_forward_length"] = (UINT32, 8)
    for tensor in parts.tensors:
        if not tensor.name.startswith(b"v.") and b"ffn_" in tensor.name and b"ffn_norm" not in tensor.name:
            axis = 0 if tensor.name.endswith(b"ffn_down.weight") else len(tensor.dims) - 1
            if not tensor.name.endswith(b"ffn_down.bias"):
                tensor.dims[axis] = 8
            tensor.data = tensor.data[: 4 * math.prod(tensor.dims)]
    return parts.build()
