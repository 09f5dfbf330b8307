"""CHAIR (Rohrbach et al. 2018): objects that a caption names and the picture does not have. The list of names is data:
a line for each object, its name first, then its synonyms, with commas between, as the authors' synonyms.txt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.statistics import Part

_WORD = re.compile(r"[^\W_]+(?:(?:(?!'s\b)'|-)[^\W_]+)*")  # a dog's: a, dog, s
# Two words that are one, as in the authors' program: what they name is an object only if the list of names has them
# together, so that "train tracks" is no train. Qualifiers that are people otherwise ("baby", "passenger") name nothing.
_PAIRS = frozenset(
    (
        "motor bike", "motor cycle", "air plane", "traffic light", "street light", "traffic signal", "stop light",
        "fire hydrant", "stop sign", "parking meter", "suit case", "baseball bat", "baseball glove", "tennis racket",
        "wine glass", "hot dog", "cell phone", "mobile phone", "teddy bear", "hair drier", "potted plant", "bow tie",
        "laptop computer", "home plate", "train track",
    )
)  # fmt: skip
_ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub")
_MEANT = {
    **{f"{age} {animal}": animal for age in ("baby", "adult") for animal in _ANIMALS},
    "passenger jet": "jet", "passenger train": "train", "bow tie": "tie", "toilet seat": "toilet",
}  # fmt: skip
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
    """The objects of a caption in order, as often as they are named; "hot dog" is no dog, "train track" no train."""
    words = _words(caption)
    if "toilet" in words:  # whose seat is no chair
        words = [word for word in words if word != "seat"]
    longest = max(name.count(" ") + 1 for name in names)
    out, i = [], 0
    while i < len(words):
        for n in range(min(longest, len(words) - i), 1, -1):
            name = names.get(" ".join(words[i : i + n]))
            if name is not None:
                break
        else:
            pair = " ".join(words[i : i + 2])
            n = 2 if pair in _PAIRS or pair in _MEANT else 1
            name = names.get(_MEANT.get(pair, pair) if n == 2 else words[i])
        if name is not None:
            out.append(name)
        i += n
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
