"""Chance and damage for the Python fuzz targets: a case is (target, seed, number), the same three always make the same
bytes."""

import json
import random
from typing import Any

NASTY = (
    0, 1, 2, 3, 7, 8, 63, 64, 127, 128, 255, 256, 1023, 1024, 4095, 65535, 65536, 1 << 20, 2**31 - 1, 2**31, 2**32 - 1,
    2**32, 2**53 + 1, 2**61, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1,
)  # fmt: skip
# What stands in a text field of a hostile file.
TEXTS = (
    "", "a", "..", "../x", "/etc/passwd", "a/b", "a\0b", "x" * 300, "\ud800", "\x1b[31m", "{text}", "<image>", "</s>",
    "▁", "é", "NaN", "__class__", "F32", "F16", "BF16", "I64", "F8", "__metadata__", "data.pkl", "%n%s", "𝔘" * 20,
)  # fmt: skip


class Chance(random.Random):
    """The source of one case."""

    def __init__(self, target: str, seed: int, number: int) -> None:
        super().__init__(f"{target} {seed} {number}")

    def one_in(self, n: int) -> bool:
        return self.randrange(n) == 0

    def nasty(self, old: int = 0) -> int:
        """A number that breaks careless arithmetic, or one near `old`."""
        return self.choice([*NASTY, -1, -(2**31), -(2**63), old - 1, old + 1, 2 * old, -old])

    def value(self) -> Any:
        """Any JSON value."""
        return self.choice(
            [
                None, True, False, self.nasty(), self.nasty(), -1.5, 1e300, float("1e400"), float("nan"),
                self.choice(TEXTS), [], {}, [self.nasty()], [0, 0], {"a": 1}, [[]] * 9, 10**400,
            ]
        )  # fmt: skip

    def damage(self, data: bytes, most: int = 5) -> bytes:
        """Flips, overwrites, inserts, removes or repeats bytes."""
        out = bytearray(data)
        for _ in range(self.randrange(1, most + 1)):
            if not out:
                break
            at = self.randrange(len(out))
            n = self.randrange(1, 9)
            kind = self.randrange(8)
            if kind == 0:
                out[at] = self.randrange(256)
            elif kind == 1:
                out[at] ^= 1 << self.randrange(8)
            elif kind == 2:
                del out[at : at + n]
            elif kind == 3:
                out[at:at] = self.randbytes(n)
            elif kind == 4:
                width = self.choice((1, 2, 4, 8))
                order = self.choice(("little", "big"))
                out[at : at + width] = (self.nasty() % (1 << 8 * width)).to_bytes(width, order)
            elif kind == 5:
                source = self.randrange(len(out))
                out[at:at] = out[source : source + self.randrange(1, 65)]
            elif kind == 6 and self.one_in(4):
                del out[at:]
            else:
                out[at : at + n] = bytes([self.choice((0, 255))]) * n
        return bytes(out)

    def damage_json(self, value: Any, most: int = 3) -> Any:
        """A copy with a few values replaced, removed, duplicated or renamed, anywhere in the tree."""
        value = json.loads(json.dumps(value))
        for _ in range(self.randrange(1, most + 1)):
            holder = value
            while True:
                keys = list(holder) if isinstance(holder, dict) else range(len(holder))
                if not keys:
                    break
                # The last entries of long lists are as good as any; walking them all would be slow.
                key = self.choice(keys)
                if isinstance(holder[key], (dict, list)) and holder[key] and not self.one_in(3):
                    holder = holder[key]
                    continue
                self._damage_entry(holder, key)
                break
        return value

    def _damage_entry(self, holder: Any, key: Any) -> None:
        kind = self.randrange(6)
        old = holder[key]
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[self.choice(TEXTS)] = holder.pop(key)
        elif kind == 2 and type(old) is int:
            holder[key] = self.nasty(old)
        elif kind == 3 and isinstance(old, list):
            holder[key] = old * 2 if self.one_in(2) else old[:-1]
        elif kind == 4 and isinstance(holder, list):
            holder.insert(key, self.value())
        else:
            holder[key] = self.value()
