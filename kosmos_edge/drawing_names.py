"""The names of the drawings of many pictures in one folder: readable, different, the same in every run.

photos/IMG_1.png becomes IMG_1.boxes.png. Pictures of one stem keep their suffix (IMG.png.boxes.png, IMG.jpg.boxes.png);
where that is not enough, the folders above come before it, as few as tell them apart (a_IMG_1.png.boxes.png). What is
equal all the same is numbered in the order of the pictures (IMG.png-2.boxes.png). Upper and lower case and Unicode's
ways of writing one letter count as equal, as they do on the disks of other systems.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

SUFFIX = ".boxes.png"
_ROOM = (
    255 - len(".boxes.html") - len(".kosmos-edge.part") - len("-000000")
)  # bytes: with what may be added to the name


def drawing_names(pictures: Sequence[str], suffix: str = SUFFIX) -> list[str]:
    """One file name per picture, in their order; the same path given twice has one name. Linear in their number.

    suffix: of all names, at most as long as .boxes.html.
    """
    parts = {picture: _parts(picture) for picture in pictures}
    names: dict[str, str] = {}
    depth, left = 0, list(parts)
    while left:
        wanted = {picture: _name(picture, parts[picture], depth) for picture in left}
        count = Counter(_key(name) for name in wanted.values())
        for picture in left:
            if count[_key(wanted[picture])] == 1:
                names[picture] = wanted[picture]
            elif depth >= len(parts[picture]):  # no folder tells it apart
                names[picture] = _name(picture, parts[picture], 1)
        left = [picture for picture in left if picture not in names]
        depth += 1
    taken: set[str] = set()
    numbers: Counter[str] = Counter()
    for picture in parts:
        name = base = _short(names[picture])
        while _key(name) in taken:
            numbers[base] += 1
            name = f"{base}-{numbers[base] + 1}"
        taken.add(_key(name))
        names[picture] = name
    return [names[picture] + suffix for picture in pictures]


def _parts(picture: str) -> list[str]:
    """Folders and file name, the root left out."""
    path = Path(os.path.abspath(picture))
    return [re.sub(r"[\\/:]", "", part) for part in path.parts[1:]] or [path.name]


def _name(picture: str, parts: list[str], depth: int) -> str:
    return Path(picture).stem if depth == 0 else "_".join(parts[-depth:])


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def _short(name: str) -> str:
    """A name that fits, with what is added to it; of a longer one the beginning and a hash of all of it."""
    raw = os.fsencode(name)
    if len(raw) <= _ROOM:
        return name
    return raw[: _ROOM - 9].decode("utf-8", "ignore") + "-" + hashlib.sha256(raw).hexdigest()[:8]
