"""Files inside a Qt resource bundle (.rcc): a tree of names over blobs, some compressed with zlib.

Format: "qres", then big-endian version, offsets of tree, data and names; tree nodes of 22 bytes from version 2 on
(14 before), data blobs with a 32-bit length, names in UTF-16 with a 16-bit length and a hash before the characters.
"""

import struct
import zlib

COMPRESSED, DIRECTORY, ZSTD = 1, 2, 4


def read(path, wanted):
    """{name inside the bundle: bytes} of the files whose name `wanted(name)` accepts; zstd ones are left out"""
    with open(path, "rb") as f:
        b = f.read()
    if b[:4] != b"qres":
        raise ValueError(f"{path}: expected a bundle that starts with 'qres', found {b[:4]!r}")
    version, tree, data, names = struct.unpack(">4I", b[4:20])
    size = 22 if version >= 2 else 14
    out = {}

    def walk(node, before):
        at = tree + node * size
        name_at, flags = struct.unpack(">IH", b[at : at + 6])
        length = struct.unpack(">H", b[names + name_at : names + name_at + 2])[0]
        name = b[names + name_at + 6 : names + name_at + 6 + 2 * length].decode("utf-16-be")
        full = f"{before}/{name}" if before else name
        if flags & DIRECTORY:
            count, first = struct.unpack(">II", b[at + 6 : at + 14])
            for k in range(count):
                walk(first + k, full)
        elif wanted(full) and not flags & ZSTD:
            blob = data + struct.unpack(">I", b[at + 10 : at + 14])[0]
            content = b[blob + 4 : blob + 4 + struct.unpack(">I", b[blob : blob + 4])[0]]
            out[full] = zlib.decompress(content[4:]) if flags & COMPRESSED else content

    walk(0, "")
    return out
