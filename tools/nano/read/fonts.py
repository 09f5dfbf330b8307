"""The fonts of `fonts.txt` that are installed and have every character of the world, by part and family."""

import functools
import glob
import os
import re

from PIL import ImageFont

from .texts import CHARS

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = "/usr/share/fonts"
# Symbols, swashes and ornaments, and strokes too thin to be seen at the size of a line
NOT_TEXT = re.compile(r"D050000L|Symbol|Z003|LinBiolinum_K|Thin|Hairline|ExtraLight|cmunvi|cmunui|cmunbtl|Keyboard")
BASELINE = "ls"


def rows():
    """(part, pattern, package, licence) of each line"""
    with open(os.path.join(HERE, "fonts.txt")) as f:
        return [tuple(x.strip() for x in line.split("|")) for line in f if line.strip() and not line.startswith("#")]


@functools.lru_cache(maxsize=3000)
def load(path, size):
    if not path:  # Pillow's own, for tests
        return ImageFont.load_default(size)
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def complete(path):
    """Whether every character has a glyph of its own: one without is drawn as the font's box"""
    font = load(path, 24)
    box = bytes(font.getmask("\uffff"))
    return all(bytes(font.getmask(c)) != box for c in CHARS if c != " ")


def families(part, root=ROOT):
    """Font files of a part (`train` or `held`), one list for each line of fonts.txt that is installed"""
    found = []
    for at, pattern, _, _ in rows():
        if at == part:
            files = [p for p in sorted(glob.glob(os.path.join(root, pattern))) if not NOT_TEXT.search(p)]
            files = [p for p in files if complete(p)]
            if files:
                found.append(files)
    return found


@functools.lru_cache(maxsize=3000)
def advances(path, size):
    """Width of each character alone, in pixels"""
    font = load(path, size)
    return {c: font.getlength(c) for c in CHARS}
