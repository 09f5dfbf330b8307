"""Writes csrc/text/unicode_nfc.inl: combining classes and canonical decompositions.

From unicodedata2 (PyPI), whose tables are those of tokenizers 0.21 and later.

python tools/unicode_nfc.py > csrc/text/unicode_nfc.inl
"""

import sys

import unicodedata2 as unicodedata  # newer than the one of most Pythons

HANGUL = range(0xAC00, 0xD7A4)  # made by arithmetic


def classes() -> list[str]:
    """First and last code point of the runs of one combining class above 0, and the class."""
    found: list[list[int]] = []
    for code in range(sys.maxunicode + 1):
        kind = unicodedata.combining(chr(code))
        if kind == 0:
            continue
        if found and found[-1][1] == code - 1 and found[-1][2] == kind:
            found[-1][1] = code
        else:
            found.append([code, code, kind])
    return [f"{{0x{first:X}, 0x{last:X}, {kind}}}" for first, last, kind in found]


def decompositions() -> tuple[list[str], list[str]]:
    """Code points that stand for another one; and for two, with whether the two become it again."""
    singles, pairs = [], []
    for code in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(code))
        if not parts or parts.startswith("<") or code in HANGUL:
            continue
        first, second = [*(int(part, 16) for part in parts.split()), 0][:2]
        composes = second and unicodedata.normalize("NFC", chr(first) + chr(second)) == chr(code)
        if second:
            pairs.append(f"{{0x{code:X}, 0x{first:X}, 0x{second:X}, {int(bool(composes))}}}")
        else:
            singles.append(f"{{0x{code:X}, 0x{first:X}}}")
    return singles, pairs


def table(declaration: str, cells: list[str]) -> str:
    """A C++ array, ascending."""
    lines, line = [], "   "
    for cell in cells:
        if len(line) + len(cell) + 2 > 120:
            lines.append(line)
            line = "   "
        line += f" {cell},"
    return "\n".join([f"constexpr {declaration}[] = {{", *lines, line, "};"])


if __name__ == "__main__":
    print(f"// Made by tools/unicode_nfc.py from Unicode {unicodedata.unidata_version}.")
    print("// clang-format off")
    print(table("CombiningClass kClasses", classes()))
    singles, pairs = decompositions()
    print(table("Single kSingles", singles))
    print(table("Pair kPairs", pairs))
    print("// clang-format on")
