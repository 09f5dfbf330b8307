"""Hostile safetensors files and zip archives: refused with a reason, never a crash, never a byte from elsewhere."""

import json
import random
import struct
import zipfile
from pathlib import Path

import pytest
from helpers.convert_checkpoint import (
    convert_safetensors_bytes,
    convert_state,
    convert_torch_state,
    convert_zip_bytes,
    op_call,
    op_global,
    op_ordered,
    op_pickle,
)

from kosmos_edge.convert.sources.files import SourceFile
from kosmos_edge.convert.sources.safetensors import read_safetensors
from kosmos_edge.convert.sources.weights import read_state
from kosmos_edge.errors import KosmosError, ModelCorrupt


@pytest.fixture(scope="module")
def state():
    return convert_state(seed=4, layers=1, vision_layers=1)


# ---- safetensors


def safetensors(header, buffer=b"", length=None) -> bytes:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(head) if length is None else length) + head + buffer


def entry(begin, end, shape=None, dtype="F32", **more):
    return {
        "dtype": dtype,
        "shape": [(end - begin) // 4] if shape is None else shape,
        "data_offsets": [begin, end],
        **more,
    }


HOSTILE = {
    "empty": (b"", "too few"),
    "seven bytes": (b"\2\0\0\0\0\0\0", "too few"),
    "header beyond the file": (safetensors({}, length=100), "header of 100"),
    "header of 2^63": (safetensors({}, length=1 << 63), "header of"),
    "header of 2^64 - 1": (safetensors({}, length=(1 << 64) - 1), "header of"),
    "header above the cap": (safetensors(b"{" + b" " * (1 << 24) + b"}"), "header of"),
    "no JSON": (safetensors(b"{a"), "not valid JSON"),
    "not UTF-8": (safetensors(b'{"\xff": 1}'), "not valid JSON"),
    "a list": (safetensors(b"[]"), "JSON object"),
    "deep": (safetensors(b'{"a":' * 100_000), "not valid JSON"),
    "no tensors": (safetensors({}), "0 tensors"),
    "metadata of numbers": (safetensors({"__metadata__": {"a": 1}, "a": entry(0, 4)}, bytes(4)), "__metadata__"),
    "name twice": (safetensors(b'{"a": 1, "a": 2}'), "twice"),
    "entry of a number": (safetensors({"a": 1}), "expected an object"),
    "entry with more": (safetensors({"a": entry(0, 4, path="/etc/passwd")}, bytes(4)), "expected an object"),
    "entry with less": (safetensors({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)), "expected an object"),
    "unknown dtype": (safetensors({"a": entry(0, 4, dtype="F99")}, bytes(4)), "F99"),
    "dtype of a list": (safetensors({"a": entry(0, 4, dtype=["F32"])}, bytes(4)), "list of 1"),
    "shape of text": (safetensors({"a": entry(0, 4, shape="1")}, bytes(4)), "shape"),
    "negative shape": (safetensors({"a": entry(0, 4, shape=[-1, -1])}, bytes(4)), "shape"),
    "shape of floats": (safetensors({"a": entry(0, 4, shape=[1.0])}, bytes(4)), "shape"),
    "shape of true": (safetensors({"a": entry(0, 4, shape=[True])}, bytes(4)), "shape"),
    "nine dimensions": (safetensors({"a": entry(0, 4, shape=[1] * 9)}, bytes(4)), "shape"),
    "shape that wraps": (safetensors({"a": entry(0, 4, shape=[1 << 32, 1 << 32])}, bytes(4)), "needs"),
    "huge shape of nothing": (safetensors({"a": entry(0, 0, shape=[1 << 40, 1 << 40, 0])}, b"x"), "end at byte"),
    "shape and range disagree": (safetensors({"a": entry(0, 8, shape=[1])}, bytes(8)), "needs 4"),
    "one offset": (safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, bytes(4)), "data_offsets"),
    "negative offset": (safetensors({"a": entry(-4, 0, shape=[1])}, bytes(4)), "data_offsets"),
    "backwards": (safetensors({"a": entry(4, 0, shape=[1])}, bytes(4)), "do not lie"),
    "past the end": (safetensors({"a": entry(0, 8)}, bytes(4)), "do not lie"),
    "offset of 2^64": (safetensors({"a": entry(1 << 64, (1 << 64) + 4)}, bytes(4)), "data_offsets"),
    "overlap": (safetensors({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)), "overlaps"),
    "same bytes twice": (safetensors({"a": entry(0, 8), "b": entry(0, 8)}, bytes(8)), "overlaps"),
    "gap": (safetensors({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)), "gap"),
    "gap at the start": (safetensors({"a": entry(4, 8)}, bytes(8)), "gap"),
    "bytes left over": (safetensors({"a": entry(0, 4)}, bytes(5)), "end at byte"),
    "too many tensors": (safetensors({f"{i}": entry(0, 0) for i in range(65_537)}), "65537 tensors"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_safetensors(tmp_path, name):
    data, match = HOSTILE[name]
    (tmp_path / "model.safetensors").write_bytes(data)
    with SourceFile(tmp_path / "model.safetensors") as file, pytest.raises(ModelCorrupt, match=match):
        read_safetensors(file)


def test_every_truncation_of_safetensors_is_seen(tmp_path, state):
    small = dict(list(state.items())[1:4])
    data = convert_safetensors_bytes(small)
    path = tmp_path / "model.safetensors"
    header = 8 + int.from_bytes(data[:8], "little")
    for size in [*range(0, header + 2), *random.Random(1).sample(range(header, len(data)), 200), len(data) - 1]:
        path.write_bytes(data[:size])
        with SourceFile(path) as file, pytest.raises(ModelCorrupt):
            read_safetensors(file)
    path.write_bytes(data)
    with SourceFile(path) as file:
        assert list(read_safetensors(file)) == list(small)


def test_mutated_headers_give_tensors_or_a_typed_error(tmp_path):
    source = random.Random(2)
    data = convert_safetensors_bytes({"a": ((2, 3), bytes(24)), "b.c": ((4,), bytes(16))})
    header = 8 + int.from_bytes(data[:8], "little")
    path = tmp_path / "model.safetensors"
    for _ in range(1000):
        mutant = bytearray(data)
        for _ in range(source.randrange(1, 4)):
            mutant[source.randrange(header)] = source.choice(b'0123456789"[]{},:- \xffeE.aF\0')
        path.write_bytes(mutant)
        with SourceFile(path) as file:
            try:
                for tensor in read_safetensors(file).values():
                    assert len(tensor.read(0, tensor.nbytes)) == tensor.nbytes
            except ModelCorrupt:
                pass


# ---- the zip container


def rewrite(path: Path, change) -> None:
    data = bytearray(path.read_bytes())
    path.write_bytes(change(data) or data)


def tiny_zip(path: Path, **options) -> Path:
    tensors, records = convert_torch_state({"a": ((2, 3), bytes(24)), "b": ((4,), bytes(16))})
    convert_zip_bytes(path, op_pickle(op_ordered(tensors)), options.pop("records", records), **options)
    return path


def reads(path: Path):
    with SourceFile(path) as file:
        return {name: tensor.shape for name, tensor in read_state(file).items()}


def test_zip_of_torch(tmp_path):
    assert reads(tiny_zip(tmp_path / "x")) == {"a": (2, 3), "b": (4,)}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"records": {"0": bytes(24)}}, "storage '1' is not in the file"),
        ({"records": {"0": bytes(24), "1": bytes(12)}}, r"16 bytes\), the file has 12"),
        ({"records": {"0": bytes(28), "1": bytes(16)}}, r"24 bytes\), the file has 28"),
        ({"extra": [("data.pkl", op_pickle({}))]}, "two entries"),
        ({"extra": [("constants.pkl", b"")]}, "TorchScript"),
        ({"extra": [("../other/data.pkl", b"")]}, None),
        ({"prefix": "a/b"}, "found 0"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_records_and_pickle_must_agree(tmp_path, options, match):
    path = tiny_zip(tmp_path / "x", **options)
    if match is None:
        assert reads(path)
    else:
        with pytest.raises(ModelCorrupt, match=match):
            reads(path)


def test_zip_of_big_endian(tmp_path):
    rewrite(tiny_zip(tmp_path / "x"), lambda data: data.replace(b"little", b"bigbig"))
    with pytest.raises(ModelCorrupt, match="byte order"):
        reads(tmp_path / "x")


def test_compressed_entries_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", op_pickle({}) + bytes(1000))
    with pytest.raises(ModelCorrupt, match="compressed"):
        reads(tmp_path / "x")


def test_zip_directory_that_lies(tmp_path):
    good = tiny_zip(tmp_path / "x").read_bytes()
    central = good.index(b"PK\1\2")
    end = good.rindex(b"PK\5\6")

    def case(at: int, form: str, value: int, match: str) -> None:
        bad = bytearray(good)
        struct.pack_into(form, bad, at, value)
        (tmp_path / "bad").write_bytes(bad)
        with pytest.raises(ModelCorrupt, match=match):
            reads(tmp_path / "bad")

    case(central + 8, "<H", 1, "encrypted")
    case(central + 20, "<L", 1, "differs from its size")
    case(central + 42, "<L", 1 << 30, "outside of the file")
    case(central + 42, "<L", 3, "local header")
    case(central + 42, "<L", 0xFFFFFFFF, "zip64 field is missing")
    case(central + 28, "<H", 60000, "malformed")
    case(central + 46, "<B", ord("A"), "another name")
    case(central, "<L", 0, "malformed")
    case(end + 8, "<H", 99, "several parts")
    case(end + 16, "<L", 0xFFFFFFFF, "zip64 locator")
    case(end + 16, "<L", 1 << 30, "passes its end record")
    case(end + 20, "<H", 5, "after the end record")
    case(len(good) - 1, "<B", 1, "after the end record")
    bad = bytearray(good)
    struct.pack_into("<HH", bad, end + 8, 3, 3)
    (tmp_path / "bad").write_bytes(bad)
    with pytest.raises(ModelCorrupt, match="entries take"):
        reads(tmp_path / "bad")
    # the second entry's size reaches over the third
    second = good.index(b"PK\1\2", central + 1)
    third = good.index(b"PK\1\2", second + 1)
    struct.pack_into("<LL", bad := bytearray(good), third + 20, 500, 500)
    (tmp_path / "bad").write_bytes(bad)
    with pytest.raises(ModelCorrupt, match=r"overlaps|directory"):
        reads(tmp_path / "bad")


def test_mutated_archives_give_tensors_or_a_typed_error(tmp_path):
    source = random.Random(3)
    good = tiny_zip(tmp_path / "x").read_bytes()
    for _ in range(1000):
        mutant = bytearray(good)
        for _ in range(source.randrange(1, 4)):
            mutant[source.randrange(len(good))] = source.choice([0, 1, 255, 254, 127, 128, source.randrange(256)])
        if source.random() < 0.2:
            del mutant[source.randrange(len(mutant)) :]
        (tmp_path / "x").write_bytes(mutant)
        try:
            with SourceFile(tmp_path / "x") as file:
                for tensor in read_state(file).values():
                    assert len(tensor.read(0, tensor.nbytes)) == tensor.nbytes
        except KosmosError:
            pass


def test_a_zip64_archive(tmp_path, state):
    """torch writes zip64 end records; Python's zipfile does when forced."""
    tensors, records = convert_torch_state({"a": ((2, 3), bytes(24))})
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        for name, data in {"r/data.pkl": op_pickle(tensors), "r/data/0": records["0"]}.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(data)
    good = (tmp_path / "x").read_bytes()
    end = good.rindex(b"PK\5\6")
    count, size, at = struct.unpack_from("<HLL", good, end + 10)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, at)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    short = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    (tmp_path / "y").write_bytes(good[:end] + end64 + locator + short)
    assert reads(tmp_path / "y") == {"a": (2, 3)}


# ---- the plain stream of older torch


MAGIC = 0x1950A86A20F9469CFC6C


def stream(records=None, magic=MAGIC, protocol=1001, little=True, keys=None, root=None) -> bytes:
    """What torch.save wrote before 1.6: five pickles, then every storage with its number of values."""
    tensors, data = convert_torch_state({"a": ((2, 3), bytes(range(24))), "b": ((4,), bytes(16))})
    records = data if records is None else records
    out = op_pickle(magic) + op_pickle(protocol) + op_pickle({"protocol_version": 1001, "little_endian": little})
    out += op_pickle(op_ordered(tensors) if root is None else root) + op_pickle(list(records) if keys is None else keys)
    return out + b"".join(struct.pack("<Q", len(part) // 4) + part for part in records.values())


def test_stream_of_torch(tmp_path):
    (tmp_path / "x").write_bytes(stream())
    assert reads(tmp_path / "x") == {"a": (2, 3), "b": (4,)}
    with SourceFile(tmp_path / "x") as file:
        assert bytes(read_state(file)["a"].read(0, 24)) == bytes(range(24))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (stream(protocol=1000), "protocol 1001"),
        (stream(little=False), "little-endian"),
        (stream(keys=["0"]), "end at byte"),
        (stream(keys=["0", "1", "2"]), "no tensor uses"),
        (stream(keys=["0", "0"]), "list of storages"),
        (stream(keys=[["0"], 1]), "list of storages"),
        (stream(keys={"0": 1}), "list of storages"),
        (stream(records={"0": bytes(24), "1": bytes(8)}), r"16 bytes\), the file has 8"),
        (stream(records={"0": bytes(24)}), "storage '1' is not in the file"),
        (stream() + b"x", "end at byte"),
        (stream()[:-1], "passes the end"),
        (stream(root=op_call(op_global("os", "system"), "x")), "not to be trusted"),
    ],
)
def test_streams_that_lie(tmp_path, data, match):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ModelCorrupt, match=match):
        reads(tmp_path / "x")


def test_every_truncation_of_a_stream_is_seen(tmp_path):
    data = stream()
    for size in range(len(data)):
        (tmp_path / "x").write_bytes(data[:size])
        with pytest.raises(ModelCorrupt):
            reads(tmp_path / "x")
