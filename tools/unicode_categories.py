"""Writes csrc/text/unicode_categories.inl: ranges of letters and numbers.

From unicodedata2 (PyPI), whose tables are those of tokenizers 0.21 and later.

python tools/unicode_categories.py > csrc/text/unicode_categories.inl
"""

import sys

import unicodedata2 as unicodedata  # newer than the one of most Pythons


def ranges(major: str) -> list[tuple[int, int]]:
    """First and last code points of the runs whose general category begins with this letter."""
    found: list[tuple[int, int]] = []
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code))[0] != major:
            continue
        if found and found[-1][1] == code - 1:
            found[-1] = (found[-1][0], code)
        else:
            found.append((code, code))
    return found


def table(name: str, major: str) -> str:
    """A C++ array of the ranges, ascending."""
    lines, line = [], "   "
    for first, last in ranges(major):
        cell = f" {{0x{first:X}, 0x{last:X}}},"
        if len(line) + len(cell) > 120:
            lines.append(line)
            line = "   "
        line += cell
    return "\n".join([f"constexpr CodePoints {name}[] = {{", *lines, line, "};"])


if __name__ == "__main__":
    print(f"// Made by tools/unicode_categories.py from Unicode {unicodedata.unidata_version}.")
    print("// clang-format off")
    print(table("kLetters", "L"))
    print(table("kNumbers", "N"))
    print("// clang-format on")
