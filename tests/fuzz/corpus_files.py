"""The cases of the corpus that are no model files: weights, indexes, vocabularies, pictures, requests and texts."""

import io
import json
import math
import struct
import zipfile
from typing import Any

from corpus import BAD, CASES, SAFE, case
from helpers.convert_checkpoint import (
    convert_safetensors_bytes,
    convert_sentencepiece_bytes,
    convert_tokenizer_json,
    op_call,
    op_global,
    op_ordered,
    op_pickle,
    op_tensor,
    op_value,
)
from pictures import bombs, encoded, noise

__all__ = ["CASES"]

# ---- weights of published checkpoints

_F = {"a": ((2,), struct.pack("<2f", 1, 2)), "b": ((2,), struct.pack("<2f", 3, 4))}


def safetensors(header: Any, body: bytes = bytes(16), length: int | None = None) -> bytes:
    """A file with that header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def _entry(begin: Any, end: Any, shape: Any = (2,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


_A, _B = _entry(0, 8), _entry(8, 16)
for name, text, make in (
    ("header of 100 MB", "header of", lambda: safetensors({"a": _A}, length=10**8)),
    ("header length of 2^64 - 1", "header of", lambda: safetensors({"a": _A}, length=2**64 - 1)),
    (
        "70,000 tensors in a header",
        "tensors, expected",
        lambda: safetensors({f"t{i}": _entry(0, 0, (0,)) for i in range(70_000)}),
    ),
    ("ranges that overlap", "overlaps", lambda: safetensors({"a": _A, "b": _entry(4, 12)}, bytes(12))),
    ("a gap (a polyglot's room)", "leaves a gap", lambda: safetensors({"a": _A, "b": _entry(12, 20)}, bytes(20))),
    ("bytes after the last tensor", "the file at", lambda: safetensors({"a": _A, "b": _B}, bytes(20))),
    ("a range that runs backwards", "do not lie in the buffer", lambda: safetensors({"a": _entry(8, 0)})),
    ("a shape whose product wraps", "needs", lambda: safetensors({"a": _entry(0, 8, (2**32, 2**32))})),
    ("a negative extent", "non-negative", lambda: safetensors({"a": _entry(0, 8, (-2,))})),
    ("an extent that is true", "non-negative", lambda: safetensors({"a": _entry(0, 8, (True, 2))})),
    ("an unknown type", "is not one of", lambda: safetensors({"a": _entry(0, 8, dtype="F8_E4M3")})),
    (
        "a name that occurs twice",
        "twice",
        lambda: safetensors(b'{"a":' + json.dumps(_A).encode() + b',"a":' + json.dumps(_B).encode() + b"}"),
    ),
    ("26600 nesting without end", "not valid JSON", lambda: safetensors(b'{"a":' + b"[" * 200_000)),
    ("a number of 5,000 digits", "not valid JSON", lambda: safetensors(b'{"a":' + b"9" * 5000 + b"}")),
):
    case(f"safetensors: {name}", "weights", BAD, text, make)


def torch_zip(
    pickled: bytes, records: dict[str, bytes] | None = None, prefix: str = "archive", method: int = 0
) -> bytes:
    """The container of torch.save."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(f"{prefix}/data.pkl", pickled)
        for key, data in (records or {"0": bytes(16)}).items():
            archive.writestr(f"{prefix}/data/{key}", data)
    return buffer.getvalue()


_T = op_tensor("0", "F32", (2, 2))
for name, text, make in (
    (
        "CVE-2025-32434 a call that weights_only let through",
        "to be trusted",
        lambda: torch_zip(op_pickle({"a": _T, "b": op_call(op_global("torch.jit", "load"), "x")})),
    ),
    (
        "CVE-2023-6730 os.system",
        "to be trusted",
        lambda: torch_zip(op_pickle(op_call(op_global("os", "system"), "touch x"))),
    ),
    ("CVE-2026-24747 items set in a tensor", "items are set in", lambda: torch_zip(b"\x80\x02" + _T + b"K\x00K\x01s.")),
    (
        "CVE-2026-24747 storage longer than its record",
        "should hold",
        lambda: torch_zip(op_pickle({"a": _T}), {"0": bytes(12)}),
    ),
    (
        "sparse tensor whose indices nobody checks",
        "",
        lambda: torch_zip(op_pickle({"a": op_call(op_global("torch._utils", "_rebuild_sparse_tensor"), 1, (2,))})),
    ),
    (
        "strides that leave the storage",
        "",
        lambda: torch_zip(op_pickle({"a": op_tensor("0", "F32", (1000, 1000), count=4, strides=(0, 0))})),
    ),
    ("Stanza: a broken pickle must not be tried another way", "opcode", lambda: torch_zip(b"\x80\x02\xff.")),
    (
        "picklescan: a second program after the end",
        "follow the end",
        lambda: torch_zip(op_pickle({"a": _T}) + op_pickle(op_call(op_global("os", "system"), "x"))),
    ),
    (
        "InvokeAI 2946 a pickle under another name",
        "bare pickle",
        lambda: op_pickle(op_call(op_global("os", "system"), "x")),
    ),
    (
        "CVE-2024-45436 members that climb",
        "expected one record",
        lambda: torch_zip(op_pickle({"a": _T}), prefix="../../x"),
    ),
    (
        "compressed members (a bomb)",
        "compressed",
        lambda: torch_zip(op_pickle({"a": _T}), {"0": bytes(1 << 20)}, method=8),
    ),
    (
        "a memo bomb",
        "memo entries",
        lambda: torch_zip(b"\x80\x02N" + b"".join(b"r" + struct.pack("<I", i) for i in range(500_001)) + b"."),
    ),
    (
        "26600 tuples nested without end",
        "levels of nesting",
        lambda: torch_zip(b"\x80\x02)" + b"\x85" * 100_000 + b"."),
    ),
    ("keys with one hash", "huge integer", lambda: torch_zip(b"\x80\x02}" + op_value((1 << 61) - 1) + b"Ns.")),
):
    case(f"torch: {name}", "weights", BAD, text, make)
case(
    "torch: the good file that these are made from",
    "weights",
    SAFE,
    "",
    lambda: torch_zip(op_pickle(op_ordered({"a": _T}))),
)
case("safetensors: the good file", "weights", SAFE, "", lambda: convert_safetensors_bytes(_F))

# ---- paths that an index may name

for name in (
    "../outside.safetensors",
    "/etc/passwd",
    "a/../../x",
    "..",
    ".",
    "",
    "x\0y",
    "a\\..\\b",
    "C:\\x",
    "~/x",
    "file:///x",
    "%2e%2e/x",
    "．．/x",
    "a.safetensors/",
    "x" * 300,
    "CON ",
    "a\nb",
    "http://h/x",
):
    case(f"CVE-2024-37032 CVE-2022-25882 index that names {name[:24]!r}", "index", BAD, "", lambda n=name: n)

# ---- vocabularies

for name, text, make in (
    (
        "file-supplied regex in the normalizer",
        "",
        lambda: {**convert_tokenizer_json(charsmap=b""), "normalizer": {"type": "Regex", "pattern": "(a+)+$"}},
    ),
    ("decoder of the wrong kind", SAFE, lambda: {**convert_tokenizer_json(charsmap=b""), "decoder": [[[]]]}),
    ("vocabulary that is a string", "not a list", lambda: {"model": {"type": "Unigram", "unk_id": 3, "vocab": "x"}}),
    (
        "id of an added token of 2^63",
        "no id",
        lambda: {**convert_tokenizer_json(), "added_tokens": [{"id": 2**63, "content": "x"}]},
    ),
    ("score beyond float32", "score", lambda: _with_score(1e300)),
    ("score that is an integer beyond float64", "score", lambda: _with_score(10**400)),
    ("map of characters without a header", "charsmap: 3 bytes", lambda: convert_tokenizer_json(charsmap=b"abc")),
    ("piece that is half a surrogate", "not valid Unicode", lambda: _with_piece("\ud800")),
):
    case(f"tokenizers: {name}", "tokenizer_json", SAFE if text is SAFE and "decoder" in name else BAD, text, make)


def _with_score(score: float) -> dict[str, Any]:
    data = convert_tokenizer_json(charsmap=b"")
    data["model"]["vocab"][5][1] = score
    return data


def _with_piece(piece: str) -> dict[str, Any]:
    data = convert_tokenizer_json(charsmap=b"")
    data["model"]["vocab"][5][0] = piece
    return data


for name, make in (
    ("a length past the end", lambda: b"\x0a\xff\xff\xff\xff\x0f<unk>"),
    ("a number without an end", lambda: b"\x0a" + b"\xff" * 64),
    ("cut in the middle", lambda: convert_sentencepiece_bytes()[:-7]),
    ("a group (a wire type of old)", lambda: b"\x0b" + convert_sentencepiece_bytes()),
    ("a BPE model", lambda: convert_sentencepiece_bytes(model_type=2)),
):
    case(f"CVE-2026-1260 sentencepiece: {name}", "sentencepiece", BAD, "", make)

# ---- pictures

_BOMBS = bombs()
for name in (
    "png 65536x1",
    "png 4294967295x2147483647",
    "tiff 1048576x65536",
    "gif 65535",
    "jpeg 65535",
    "png zTXt x9",
):
    case(f"CVE-2026-40192 bomb: {name}", "picture", "ImageDecodeError", "", lambda n=name: _BOMBS[n])
case("CVE-2026-34755 60,000 frames", "picture", SAFE, "", lambda: _BOMBS["gif 60000 frames"])
case("13827 a picture of 400 x 800", "picture", SAFE, "", lambda: encoded(noise(400, 800), "PNG"))
case("CVE-2026-22773 a picture of 1 x 1", "picture", SAFE, "", lambda: encoded(noise(1, 1), "PNG"))
case("CVE-2026-22773 a picture of 1 x 3", "picture", SAFE, "", lambda: encoded(noise(1, 3), "PNG"))
case(
    "CVE-2023-4863 a lossless WebP file with damaged code lengths",
    "picture",
    "ImageDecodeError",
    "",
    lambda: _webp_huffman(),
)
case(
    "stb 1838 a GIF file cut in its codes",
    "picture",
    "ImageDecodeError",
    "",
    lambda: encoded(noise(64, 64), "GIF")[:-900],
)
case(
    "an EPS program",
    "picture",
    "ImageDecodeError",
    "PostScript",
    lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
)
case(
    "CVE-2026-24779 an address instead of a picture",
    "path",
    "InvalidRequest",
    "URLs are not fetched",
    lambda: "http://127.0.0.1:9/x.png",
)
case("CVE-2026-24779 a file: address", "path", "InvalidRequest", "URLs are not fetched", lambda: "file:///etc/hostname")


def _webp_huffman() -> bytes:
    data = bytearray(encoded(noise(64, 64), "WEBP", lossless=True))
    at = data.index(b"VP8L") + 13
    data[at : at + 12] = b"\xff" * 12
    return bytes(data)


# ---- requests and texts

for name, error, changes in (
    ("CVE-2026-21869 a negative number of tokens", "InvalidRequest", {"max_tokens": -1}),
    ("CVE-2026-34756 more tokens than the context", "ContextTooLong", {"max_tokens": 2**31 - 1}),
    ("CVE-2026-34756 a million beams", "InvalidRequest", {"num_beams": 10**6}),
    ("a temperature of NaN", "InvalidRequest", {"temperature": math.nan}),
    ("a penalty of infinity", "InvalidRequest", {"num_beams": 2, "length_penalty": math.inf}),
    ("top_k below zero", "InvalidRequest", {"top_k": -5}),
):
    case(f"request: {name}", "request", error, "", lambda c=changes: c)
for name, error, text in (
    ("CVE-2026-44222 text that spells an image's place", SAFE, "<image></image>" * 3),
    ("27783 26,000 times one character", SAFE, "a" * 26_000),
    ("CVE-2025-52566 a text of more tokens than fit", "ContextTooLong", "a b " * 5_000),
    ("9195 text that is not UTF-8", "InvalidRequest", b"\xff\xfe"),
    ("CVE-2025-14924 what makes expressions backtrack", SAFE, " " * 10 + "<" * 20_000 + ">"),
    ("a text of control characters", SAFE, "\0\x01\x1b[31m\x7f"),
):
    case(f"text: {name}", "text", error, "", lambda t=text: t)
