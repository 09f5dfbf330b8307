"""Writes csrc/text/unicode_bert.inl: what the tokenizers library drops, strips, cuts at and makes small for BERT.

python tools/unicode_bert.py > csrc/text/unicode_bert.inl

The library's tables of categories are of an old Unicode and those of small letters of a new one, so they are asked for
character by character.
"""

import sys
import unicodedata
from collections.abc import Callable

from tokenizers import __version__
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

CHARACTERS = [c for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
OFF = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}


def runs(chosen: Callable[[str], bool]) -> list[str]:
    """First and last code points of the runs of characters for which it is true."""
    found: list[list[int]] = []
    for code in CHARACTERS:
        if not chosen(chr(code)):
            continue
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return [f"{{0x{first:X}, 0x{last:X}}}" for first, last in found]


def smaller() -> list[str]:
    """First and last capital of a run, the step from one to the next, and how far their small letters are; those that
    decompose are taken apart before."""
    lower = BertNormalizer(**{**OFF, "lowercase": True}).normalize_str
    found: list[list[int]] = []
    for code in CHARACTERS:
        letter = chr(code)
        small = lower(letter)
        if small == letter or unicodedata.normalize("NFD", letter) != letter:
            continue
        assert len(small) == 1, letter
        by = ord(small) - code
        run = found[-1] if found and found[-1][3] == by else None
        if run and (code - run[1] == run[2] or (run[0] == run[1] and code - run[1] in (1, 2))):
            run[1:3] = [code, code - run[1]]
        else:
            found.append([code, code, 1, by])
    return [f"{{0x{first:X}, 0x{last:X}, {step}, {by}}}" for first, last, step, by in found]


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
    clean = BertNormalizer(**{**OFF, "clean_text": True}).normalize_str
    strip = BertNormalizer(**{**OFF, "strip_accents": True}).normalize_str
    cut = BertPreTokenizer().pre_tokenize_str
    print(f"// Made by tools/unicode_bert.py from the tokenizers library, {__version__}.")
    print("// clang-format off")
    print(table("CodePoints kDropped", runs(lambda c: clean(c) == "")))
    print(table("CodePoints kAccents", runs(lambda c: strip(c) == "")))
    print(table("CodePoints kPunctuation", runs(lambda c: c >= "\x80" and len(cut(f"a{c}b")) == 3)))
    print(table("Smaller kSmaller", smaller()))
    print("// clang-format on")
