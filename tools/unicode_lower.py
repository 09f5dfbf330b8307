"""Writes csrc/text/unicode_lower.inl: the small letters of the tokenizers library's Lowercase, whose Unicode is Rust's.

python tools/unicode_lower.py > csrc/text/unicode_lower.inl
"""

import sys

from tokenizers import __version__
from tokenizers.normalizers import Lowercase

DOTTED_CAPITAL_I = 0x130  # becomes two characters: csrc/text/lowercase.cpp


def runs() -> list[list[int]]:
    """[first and last capital of a run, the step from one to the next, how far their small letters are]"""
    lower = Lowercase().normalize_str
    found: list[list[int]] = []
    for code in (c for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000 and c != DOTTED_CAPITAL_I):
        letter = chr(code)
        small = lower(letter)
        if small == letter:
            continue
        assert len(small) == 1, letter
        by = ord(small) - code
        run = found[-1] if found and found[-1][3] == by else None
        if run and (code - run[1] == run[2] or (run[0] == run[1] and code - run[1] in (1, 2))):
            run[1:3] = [code, code - run[1]]
        else:
            found.append([code, code, 1, by])
    return found


def main() -> None:
    """Prints the table."""
    print(f"// Made by tools/unicode_lower.py from the tokenizers library, {__version__}.")
    print("// clang-format off")
    print("constexpr Smaller kSmaller[] = {")
    line = "   "
    for first, last, step, by in runs():
        cell = f" {{0x{first:X}, 0x{last:X}, {step}, {by}}},"
        if len(line) + len(cell) > 120:
            print(line)
            line = "   "
        line += cell
    print(line)
    print("};")
    print("// clang-format on")


if __name__ == "__main__":
    main()
