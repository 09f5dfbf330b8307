"""The GGUF reader: what it accepts, and what it says about everything else."""

import os
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from helpers.gguf_builder import (
    ARRAY,
    BOOL,
    F32,
    FLOAT32,
    INT32,
    STRING,
    UINT8,
    UINT32,
    UINT64,
    GgufBuilder,
    TensorSpec,
    f32,
    sample,
)  # fmt: skip

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest, KosmosIOError, ModelCorrupt, ModelNotFound

MODES = ("mmap", "copy")


def write(path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def refused(tmp_path, builder: GgufBuilder | bytes, message: str) -> None:
    """Both modes refuse the file with ModelCorrupt, name the file and say message (a regular expression)."""
    path = write(tmp_path / "bad.gguf", builder if isinstance(builder, bytes) else builder.build())
    for mode in MODES:
        with pytest.raises(ModelCorrupt, match=message) as caught:
            _core.GgufFile(path, mode)
        assert str(caught.value).startswith(path)


@pytest.mark.parametrize("mode", MODES)
def test_reads_every_kind_of_value(tmp_path, mode):
    file = _core.GgufFile(write(tmp_path / "a.gguf", sample().build()), mode)
    assert file.metadata() == {
        "general.architecture": "sample", "u8": 200, "i8": -100, "u16": 60000, "i16": -30000, "u32": 4000000000,
        "i32": -2000000000, "u64": 2**63 + 1, "i64": -(2**62), "f32": 0.5, "f64": 1e300, "yes": True, "empty": "",
        "text": "▁ä<tag>\n", "odd": "\udcff\udcfe", "strings": ["one", "", "drei ▁"], "floats": [1.0, -2.5],
        "ints": [1, -2, 3], "bytes": [0, 1, 255], "flags": [True, False], "none": [], "longs": [-1],
    }  # fmt: skip
    assert type(file.metadata()["yes"]) is bool
    builder = sample()
    content = builder.build()
    listed = file.tensors()
    assert [(name, dtype, shape, size) for name, dtype, shape, _, size in listed] == [
        ("vector", "F32", (4,), 16), ("matrix", "F32", (2, 3), 24), ("half", "F16", (1, 2, 1, 2), 8),
        ("q8", "Q8_0", (1, 64), 68), ("q4k", "Q4_K", (256,), 144),
    ]  # fmt: skip
    for (name, _, _, offset, size), spec in zip(listed, builder.tensors, strict=True):
        assert file.tensor_data(name) == spec.data == content[offset : offset + size]
    with pytest.raises(InvalidRequest, match='no tensor is called "other"'):
        file.tensor_data("other")


@pytest.mark.parametrize("mode", MODES)
def test_reads_what_the_gguf_package_writes(tmp_path, mode):
    path = tmp_path / "b.gguf"
    rng = np.random.RandomState(5)
    shapes = {"line": (3,), "plane": (2, 5), "space": (2, 3, 4)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    writer = gguf.GGUFWriter(path, "kosmos2")
    writer.add_custom_alignment(64)
    writer.add_array("names", ["a", "b▁"])
    writer.add_float32("pi", 3.25)
    for name, values in arrays.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = _core.GgufFile(str(path), mode)
    assert file.metadata()["names"] == ["a", "b▁"]
    assert file.metadata()["pi"] == 3.25
    for name, dtype, shape, offset, size in file.tensors():
        assert (dtype, shape, size) == ("F32", arrays[name].shape, arrays[name].nbytes)
        assert offset % 64 == 0
        assert file.tensor_data(name) == arrays[name].tobytes()


def test_version_2_is_read_and_others_are_not(tmp_path):
    builder = sample()
    builder.version = 2
    assert len(_core.GgufFile(write(tmp_path / "v2.gguf", builder.build())).tensors()) == 5
    for version in (0, 1, 4, 2**32 - 1):
        builder.version = version
        refused(tmp_path, builder, f"GGUF version {version}; expected 2 or 3")
    big_endian = bytearray(sample().build())
    big_endian[4:8] = struct.pack(">I", 3)
    refused(tmp_path, bytes(big_endian), "big-endian GGUF file")


def test_other_files_are_told_apart(tmp_path):
    refused(tmp_path, b"", "0 bytes long")
    refused(tmp_path, b"GGUF", "4 bytes long")
    refused(tmp_path, b"PK\x03\x04" + bytes(100), r"found 50 4b 03 04 \(a zip archive")
    refused(tmp_path, bytes(100), "found 00 00 00 00")


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(ModelNotFound, match="no such file"):
        _core.GgufFile(str(tmp_path / "none.gguf"))
    with pytest.raises(ModelNotFound, match="no such file"):
        _core.GgufFile(write(tmp_path / "plain", b"x") + "/deeper.gguf")
    with pytest.raises(KosmosIOError, match="expected a regular file, found a directory"):
        _core.GgufFile(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(KosmosIOError, match="expected a regular file"):  # and does not wait for a writer
        _core.GgufFile(str(tmp_path / "pipe"))
    with pytest.raises(InvalidRequest, match='mode is "both"; expected "mmap" or "copy"'):
        _core.GgufFile(str(tmp_path), "both")
    link = tmp_path / "link.gguf"
    link.symlink_to(write(tmp_path / "real.gguf", sample().build()))
    assert len(_core.GgufFile(str(link)).tensors()) == 5  # model caches are made of links


def test_unreadable_file(tmp_path):
    path = write(tmp_path / "secret.gguf", sample().build())
    os.chmod(path, 0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(KosmosIOError, match="cannot open: Permission denied"):
        _core.GgufFile(path)


def test_the_copy_does_not_depend_on_the_file(tmp_path):
    path = tmp_path / "gone.gguf"
    file = _core.GgufFile(write(path, sample().build()), "copy")
    with open(path, "r+b") as f:
        f.truncate(10)
    assert file.tensor_data("vector") == sample().tensors[0].data


def resident_bytes(path: str) -> int:
    """Bytes of this process's mapping of path that are in memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    return sum(
        int(next(line for line in lines if line.startswith("Rss:")).split()[1]) * 1024
        for header in lines
        if header.endswith(path)
    )


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="needs Linux's /proc")
def test_released_pages_leave_memory_and_come_back(tmp_path):
    size = 1 << 20
    data = np.random.RandomState(6).randint(0, 256, 4 * size).astype(np.uint8).tobytes()
    builder = GgufBuilder(tensors=[TensorSpec(b"big", [size], F32, data), f32(b"next", [2], [1.0, 2.0])])
    path = write(tmp_path / "big.gguf", builder.build())
    file = _core.GgufFile(path)
    assert file.tensor_data("big") == data
    assert resident_bytes(path) >= len(data)
    _core.testing.release_tensor(file, "big")
    assert resident_bytes(path) < len(data) // 4
    assert file.tensor_data("big") == data
    copy = _core.GgufFile(path, "copy")
    _core.testing.release_tensor(copy, "big")
    assert copy.tensor_data("big") == data


def changed(**tensor) -> GgufBuilder:
    """sample() with fields of its second tensor (a 2 x 3 matrix) replaced."""
    builder = sample()
    for name, value in tensor.items():
        setattr(builder.tensors[1], name, value)
    return builder


def with_entry(key: bytes, entry: tuple) -> GgufBuilder:
    builder = sample()
    builder.extra_entries.append((key, entry))
    return builder


REFUSALS = {
    "key twice": (lambda: with_entry(b"u8", (UINT8, 1)), 'key "u8" occurs twice'),
    "empty key": (lambda: with_entry(b"", (UINT8, 1)), "a metadata key at byte [0-9]+ is empty"),
    "key no UTF-8": (lambda: with_entry(b"\xc0\x80", (UINT8, 1)), "a metadata key at byte [0-9]+ is not valid UTF-8"),
    "key with control": (lambda: with_entry(b"a\nb", (UINT8, 1)), "has a control character"),
    "key too long": (lambda: with_entry(b"k" * 1025, (UINT8, 1)), "1025 bytes long; at most 1024"),
    "value type": (lambda: with_entry(b"k", (13, b"")), 'key "k" has value type 13; known are 0..12'),
    "element type": (lambda: with_entry(b"k", (ARRAY, (13, []))), 'key "k" has value type 13'),
    "nested array": (lambda: with_entry(b"k", (ARRAY, (ARRAY, []))), "array of arrays"),
    "bool of 2": (lambda: with_entry(b"k", (BOOL, 2)), "is a bool of 2; expected 0 or 1"),
    "bools of 2": (lambda: with_entry(b"k", (ARRAY, (BOOL, [0, 2]))), "neither 0 nor 1"),
    "alignment 0": (lambda: with_entry(b"general.alignment", (UINT32, 0)), "alignment is 0; expected a power of two"),
    "alignment 4": (lambda: with_entry(b"general.alignment", (UINT32, 4)), "alignment is 4; expected"),
    "alignment 48": (lambda: with_entry(b"general.alignment", (UINT32, 48)), "alignment is 48; expected"),
    "alignment 2^17": (lambda: with_entry(b"general.alignment", (UINT32, 1 << 17)), "alignment is 131072; expected"),
    "alignment type": (lambda: with_entry(b"general.alignment", (UINT64, 32)), "is uint64; expected uint32"),
    "alignment array": (lambda: with_entry(b"general.alignment", (ARRAY, (UINT32, [32]))), "an array of 1 uint32"),
    "alignment unmet": (lambda: with_entry(b"general.alignment", (UINT32, 4096)), "no multiple of the alignment 4096"),
    "no dimensions": (lambda: changed(dims=[]), 'tensor "matrix" has 0 dimensions; expected 1..4'),
    "five dimensions": (lambda: changed(dims=[3, 2, 1, 1, 1]), "has 5 dimensions"),
    "dimension 0": (lambda: changed(dims=[3, 0]), 'tensor "matrix" has dimension 1 of 0'),
    "dimension 2^63": (lambda: changed(dims=[2**63]), "dimension 0 of 9223372036854775808"),
    "product 2^64": (lambda: changed(dims=[2**32, 2**32]), "more values than can be counted"),
    "product wraps to 6": (lambda: changed(dims=[2**62 + 3, 2, 2]), "more values than can be counted"),
    "bytes wrap": (lambda: changed(dims=[2**62]), "more bytes than any file"),
    "too large": (lambda: changed(dims=[3, 2**40]), "needs 13194139533312 bytes at [0-9]+ . 32; the file has [0-9]+"),
    "unknown type": (lambda: changed(type=5), r'"matrix" has type 5; supported are F32 \(0\), .*Q6_K \(14\)'),
    "huge type": (lambda: changed(type=2**32 - 1), "has type 4294967295"),
    "part of a block": (lambda: changed(type=8), "rows of 3 values; Q8_0 needs a multiple of 32"),
    "part of a block in rows": (lambda: changed(type=12, dims=[128, 2]), "Q4_K needs a multiple of 256"),
    "offset not aligned": (lambda: changed(offset=33), "starts at offset 33, which is no multiple of the alignment 32"),
    "offset outside": (lambda: changed(offset=2**20), "truncated or damaged"),
    "offset wraps": (lambda: changed(offset=2**64 - 32), "truncated or damaged"),
    "overlap": (lambda: changed(offset=0), 'tensors "(vector|matrix)" and "(vector|matrix)" overlap'),
    "overlap inside": (lambda: changed(offset=224), "overlap"),
    "name twice": (lambda: changed(name=b"half"), 'two tensors are called "half"'),
    "name no UTF-8": (lambda: changed(name=b"\xed\xa0\x80"), "a tensor name at byte [0-9]+ is not valid UTF-8"),
    "name empty": (lambda: changed(name=b""), "is empty"),
    "name too long": (lambda: changed(name=b"n" * 1025), "1025 bytes long"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(tmp_path, case):
    make, message = REFUSALS[case]
    refused(tmp_path, make(), message)


def test_limits_are_accepted(tmp_path):
    builder = GgufBuilder(
        metadata={b"k" * 1024: (UINT8, 1), b"general.alignment": (UINT32, 65536), b"s": (STRING, b"x" * (16 << 20))},
        tensors=[f32(b"n" * 1024, [1, 1, 1, 1], [1.0])],
        alignment=65536,
    )
    file = _core.GgufFile(write(tmp_path / "a.gguf", builder.build()))
    assert len(file.metadata()["s"]) == 16 << 20
    assert file.tensor_data("n" * 1024) == struct.pack("<f", 1.0)


def test_caps(tmp_path):
    refused(tmp_path, GgufBuilder({b"s": (STRING, b"x" * ((16 << 20) + 1))}), "16777217 bytes long; at most 16777216")
    path = tmp_path / "many.gguf"
    entries = GgufBuilder({b"k%d" % i: (UINT8, 0) for i in range(4096)})
    assert len(_core.GgufFile(write(path, entries.build())).metadata()) == 4096
    entries.metadata[b"one more"] = (UINT8, 0)
    refused(tmp_path, entries, "announces 4097 metadata entries; at most 4096")
    tensors = GgufBuilder(tensors=[TensorSpec(b"t%d" % i, [1], F32, b"abcd") for i in range(65536)], alignment=32)
    assert len(_core.GgufFile(write(path, tensors.build())).tensors()) == 65536
    tensors.tensors.append(TensorSpec(b"one more", [1], F32, b"abcd"))
    refused(tmp_path, tensors, "announces 65537 tensors; at most 65536")


def test_long_arrays(tmp_path):
    limit = 4 << 20
    head = GgufBuilder({b"a": (ARRAY, (UINT8, []))}).build()[:-8]
    path = write(tmp_path / "a.gguf", head + struct.pack("<Q", limit) + bytes(limit))
    assert _core.GgufFile(path).metadata()["a"] == [0] * limit
    refused(tmp_path, head + struct.pack("<Q", limit + 1) + bytes(limit + 1), "has 4194305 elements; at most 4194304")
    refused(tmp_path, head + struct.pack("<Q", 2**63) + bytes(100), "has 9223372036854775808 elements")
    refused(tmp_path, head + struct.pack("<Q", limit) + bytes(100), "needs 4194304 bytes, 100 remain")
    strings = head[:-4] + struct.pack("<I", STRING)
    refused(tmp_path, strings + struct.pack("<Q", limit) + bytes(80), "truncated or damaged")


def test_header_of_more_than_64_mib(tmp_path):
    builder = GgufBuilder({b"k%d" % i: (STRING, b"x" * (16 << 20)) for i in range(4)})
    refused(tmp_path, builder, "headers of more than 64 MiB are not accepted")


def test_message_about_a_long_name_is_cut_between_characters(tmp_path):
    refused(tmp_path, with_entry("ä".encode() * 500, (BOOL, 7)), 'value of "ä{64}..." is a bool of 7')


def test_the_builder_speaks_gguf():
    kinds = gguf.GGUFValueType
    names = ("UINT8", "UINT32", "INT32", "FLOAT32", "BOOL", "STRING", "ARRAY", "UINT64")
    assert tuple(int(kinds[n]) for n in names) == (UINT8, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64)
