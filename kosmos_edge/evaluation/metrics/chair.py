"""CHAIR (Rohrbach et al. 2018): objects that a caption names and the picture does not have. The list of names is data:
a line for each object, its name first, then its synonyms, with commas between, as the authors' synonyms.txt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.statistics import Part

_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_PLURALS = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "mice": "mouse", "knives": "knife",
    "sheep": "sheep", "geese": "goose", "loaves": "loaf", "wolves": "wolf", "calves": "calf", "buses": "bus",
}  # fmt: skip


def read_names(text: str) -> dict[str, str]:
    """synonym (in singular words) -> the object's name."""
    names: dict[str, str] = {}
    for line in text.splitlines():
        group = [" ".join(_words(name)) for name in line.split(",")]
        for name in group:
            if name and names.setdefault(name, group[0]) != group[0]:
                raise InvalidRequest(f"synonyms: {name!r} stands for {names[name]!r} and {group[0]!r}")
    if not names:
        raise InvalidRequest("synonyms: expected lines of names with commas between")
    return names


def mentions(caption: str, names: Mapping[str, str]) -> list[str]:
    """The objects of a caption in order, as often as they are named; "hot dog" is no dog."""
    words = _words(caption)
    longest = max(name.count(" ") + 1 for name in names)
    out, i = [], 0
    while i < len(words):
        for n in range(min(longest, len(words) - i), 0, -1):
            name = names.get(" ".join(words[i : i + n]))
            if name is not None:
                out.append(name)
                i += n
                break
        else:
            i += 1
    return out


def parts(named: Iterable[str], there: Iterable[str]) -> tuple[Part, Part]:
    """(CHAIR_i, CHAIR_s): (names of absent objects, names), and (whether there is one, 1)."""
    known, listed = set(there), list(named)
    wrong = sum(name not in known for name in listed)
    return (float(wrong), float(len(listed))), (float(wrong > 0), 1.0)


def _words(text: str) -> list[str]:
    return [_singular(word) for word in _WORD.findall(text.lower())]


def _singular(word: str) -> str:
    if word in _PLURALS:
        return _PLURALS[word]
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("ches", "shes", "xes", "sses")) else word[:-1]


def object_of(category: str, names: Mapping[str, str]) -> str:
    """The object that a category of COCO is; InvalidRequest if the list of names lacks it."""
    found = names.get(" ".join(_words(category)))
    if found is None:
        raise InvalidRequest(f"synonyms: no line has COCO's {category!r}")
    return found
