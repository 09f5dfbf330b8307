"""sentencepiece's compiled maps of characters, made by hand: a double array of keys, then the replacements."""

import struct
from typing import Any


def double_array(keys: dict[bytes, int]) -> list[int]:
    """A darts-clone double array (first fit) that maps byte strings to values below 2**31."""
    tree: dict[Any, Any] = {}
    for key, value in keys.items():
        node = tree
        for byte in key:
            node = node.setdefault(byte, {})
        node[None] = value
    units: dict[int, int] = {0: 0}
    bases: set[int] = set()
    queue = [(0, tree)]
    while queue:
        at, node = queue.pop()
        slots = [0 if label is None else label for label in node]
        base = 1
        while base in bases or any(base ^ slot in units for slot in slots) or base ^ at >= 1 << 21:
            base += 1
        bases.add(base)
        units[at] = units[at] & 0xFF | (base ^ at) << 10 | (None in node) << 8
        for label, child in node.items():
            slot = base ^ (label or 0)
            units[slot] = child | 1 << 31 if label is None else label
            if label is not None:
                queue.append((slot, child))
    size = (max(units) | 255) + 1

    def unused(i: int) -> int:  # a unit outside the trie may match no byte of a base in its block
        return next(label for label in range(256) if i ^ label not in bases)

    return [units[i] if i in units else unused(i) for i in range(size)]


def make_charsmap(rules: dict[bytes, bytes]) -> bytes:
    """A precompiled charsmap with these replacements."""
    blob, keys = b"", {}
    for key, replacement in rules.items():
        keys[key] = len(blob)
        blob += replacement + b"\0"
    units = double_array(keys)
    return struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + blob
