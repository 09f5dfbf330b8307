"""Writes GGUF files by hand, valid or not: every field can be replaced, and the place of each is known."""

import struct
from dataclasses import dataclass, field

UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
FORMATS = {
    UINT8: "<B", INT8: "<b", UINT16: "<H", INT16: "<h", UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<B",
    UINT64: "<Q", INT64: "<q", FLOAT64: "<d",
}  # fmt: skip
F32, F16, Q8_0, Q4_K = 0, 1, 8, 12


@dataclass
class Field:
    """An integer of the header: where it is, how wide, and what it is for."""

    offset: int
    width: int
    label: str


@dataclass
class TensorSpec:
    """One tensor as it will be announced; data follows in the order of the list unless offset says otherwise."""

    name: bytes
    dims: list[int]  # innermost first, as stored
    type: int
    data: bytes
    offset: int | None = None


@dataclass
class GgufBuilder:
    """Metadata {key: (type, value)}, arrays as (ARRAY, (element type, list)); tensors; and what to say about them."""

    metadata: dict[bytes, tuple] = field(default_factory=dict)
    tensors: list[TensorSpec] = field(default_factory=list)
    magic: bytes = b"GGUF"
    version: int = 3
    alignment: int = 32  # of the data; announced only if metadata says so
    extra_entries: list[tuple[bytes, tuple]] = field(default_factory=list)  # after metadata: duplicates and the like

    def build(self) -> bytes:
        """The file's bytes; self.fields and self.boundaries then tell where its parts are."""
        self.fields: list[Field] = []
        self.boundaries: list[int] = []
        self.out = bytearray(self.magic)
        self._int(4, self.version, "version")
        self._int(8, len(self.tensors), "tensor count")
        entries = [*self.metadata.items(), *self.extra_entries]
        self._int(8, len(entries), "entry count")
        for key, (kind, value) in entries:
            name = key.decode(errors="replace")
            self._text(key, f"key {name}")
            self._int(4, kind, f"type of {name}")
            self._value(kind, value, name)
        position = 0
        for t in self.tensors:
            name = t.name.decode(errors="replace")
            self._text(t.name, f"name of {name}")
            self._int(4, len(t.dims), f"rank of {name}")
            for i, extent in enumerate(t.dims):
                self._int(8, extent, f"dim {i} of {name}")
            self._int(4, t.type, f"type of tensor {name}")
            self._int(8, position if t.offset is None else t.offset, f"offset of {name}")
            position += -(-len(t.data) // self.alignment) * self.alignment
        self.header_end = len(self.out)
        for t in self.tensors:
            self.out += bytes(-len(self.out) % self.alignment)
            self.boundaries.append(len(self.out))
            self.out += t.data
            self.boundaries.append(len(self.out))
        return bytes(self.out)

    def _int(self, width: int, value: int, label: str) -> None:
        self.fields.append(Field(len(self.out), width, label))
        self.boundaries.append(len(self.out))
        self.out += value.to_bytes(width, "little")

    def _text(self, text: bytes, label: str) -> None:
        self._int(8, len(text), f"length of {label}")
        self.boundaries.append(len(self.out))
        self.out += text

    def _value(self, kind: int, value, name: str) -> None:
        if kind == STRING:
            self._text(value, f"string {name}")
        elif kind == ARRAY:
            element, values = value
            self._int(4, element, f"element type of {name}")
            self._int(8, len(values), f"count of {name}")
            for v in values:
                self._value(element, v, name)
        else:
            self.boundaries.append(len(self.out))
            self.out += value if isinstance(value, bytes) else struct.pack(FORMATS[kind], value)


def f32(name: bytes, dims: list[int], values: list[float]) -> TensorSpec:
    """A float32 tensor."""
    return TensorSpec(name, dims, F32, struct.pack(f"<{len(values)}f", *values))


def sample() -> GgufBuilder:
    """A small file with every kind of value and tensors of several types and ranks."""
    return GgufBuilder(
        metadata={
            b"general.architecture": (STRING, b"sample"),
            b"u8": (UINT8, 200), b"i8": (INT8, -100), b"u16": (UINT16, 60000), b"i16": (INT16, -30000),
            b"u32": (UINT32, 4000000000), b"i32": (INT32, -2000000000), b"u64": (UINT64, 2**63 + 1),
            b"i64": (INT64, -(2**62)), b"f32": (FLOAT32, 0.5), b"f64": (FLOAT64, 1e300), b"yes": (BOOL, 1),
            b"empty": (STRING, b""), b"text": (STRING, "▁ä<tag>\n".encode()), b"odd": (STRING, b"\xff\xfe"),
            b"strings": (ARRAY, (STRING, [b"one", b"", "drei ▁".encode()])),
            b"floats": (ARRAY, (FLOAT32, [1.0, -2.5])), b"ints": (ARRAY, (INT32, [1, -2, 3])),
            b"bytes": (ARRAY, (UINT8, [0, 1, 255])), b"flags": (ARRAY, (BOOL, [1, 0])),
            b"none": (ARRAY, (STRING, [])), b"longs": (ARRAY, (INT64, [-1])),
        },
        tensors=[
            f32(b"vector", [4], [1.0, 2.0, 3.0, 4.0]),
            f32(b"matrix", [3, 2], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
            TensorSpec(b"half", [2, 1, 2, 1], F16, struct.pack("<4e", 1, 2, 3, 4)),
            TensorSpec(b"q8", [64, 1], Q8_0, bytes(range(68))),
            TensorSpec(b"q4k", [256], Q4_K, bytes(i * 7 % 256 for i in range(144))),
        ],
    )  # fmt: skip
