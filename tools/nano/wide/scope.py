"""How wide the world is: which cut-outs are in it, how large things stand in a picture, how many, how far turned.

`all` is everything that the archive has. `icons` is what a CPU can learn in hours: nouns that have enough coloured
cut-outs, and shapes, at a third of the picture or more. A model is trained and measured in one scope.
"""

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Practice:
    """What is practised on: stronger changes than will be asked about, perhaps in fuller pictures"""

    counts: tuple  # as Scope's
    mono: float  # share of nouns drawn as one-coloured cut-outs
    recolored: float  # share of coloured cut-outs painted in shades of one colour
    turn: float  # factor on the degrees
    stretch: tuple  # width to height
    overlapping: float  # share of scenes in which things may overlap
    covered: float  # share of the smaller box that may lie under another there
    bent: float  # how far waves may bend a noun's cut-out, as a share of its side
    part: float  # of a photograph's width that is behind, at least
    blank: float = 0.0  # share of photographs with nothing known on them, beside those that `counts` gives


@dataclass(frozen=True)
class Scope:
    """Shares and sizes that `spec.sample` draws from; `min_coloured` > 0 keeps the nouns that have at least so many
    coloured cut-outs to train on and one held out, and leaves words, numbers and held-out one-coloured ones away"""

    sizes: dict  # longest side of an object as a share of the picture's, by number of objects
    counts: tuple  # numbers of objects in a scene, their shares
    kinds: tuple  # kinds of things, their shares
    turn: dict  # degrees either way
    min_coloured: int = 0
    mono: float = 0.35  # share of nouns drawn as one-coloured cut-outs, where there are both
    practice: Practice | None = None  # of the ViT alone
    reading: Practice | None = None  # of every other picture behind which texts stand
    shapes_alone: float = (
        0.0  # share of scenes as `kosmos_edge.quality.nano_world` has them: shapes on patterns, v0's world
    )

    @property
    def max_objects(self):
        return max(self.counts[0])


SCOPES = {
    "all": Scope(
        sizes={1: (0.26, 0.72), 2: (0.22, 0.5), 3: (0.2, 0.42), 4: (0.18, 0.36), 5: (0.17, 0.3)},
        counts=((0, 1, 2, 3, 4, 5), (0.1, 0.26, 0.24, 0.19, 0.14, 0.07)),
        kinds=(("noun", "shape", "word", "number"), (0.72, 0.16, 0.06, 0.06)),
        turn={"noun": 25, "word": 14, "number": 14, "unknown": 60},
    ),
    "icons": Scope(
        sizes={1: (0.36, 0.8), 2: (0.34, 0.56), 3: (0.32, 0.48), 4: (0.3, 0.42)},
        counts=((0, 1, 2, 3, 4), (0.1, 0.28, 0.28, 0.2, 0.14)),
        kinds=(("noun", "shape"), (0.82, 0.18)),
        turn={"noun": 15, "unknown": 30},
        min_coloured=7,
        mono=0.0,
        shapes_alone=0.08,
        practice=Practice(
            counts=((0, 1, 2, 3, 4), (0.05, 0.13, 0.24, 0.28, 0.3)),
            mono=0.22,
            recolored=0.15,
            turn=1.7,
            stretch=(0.72, 1.38),
            overlapping=0.5,
            covered=0.3,
            bent=0.08,
            part=0.45,
        ),
        reading=Practice(
            counts=((0, 1, 2, 3, 4), (0.1, 0.25, 0.28, 0.22, 0.15)),
            mono=0.06,
            recolored=0.08,
            turn=1.4,
            stretch=(0.78, 1.28),
            overlapping=0.4,
            covered=0.18,
            bent=0.07,
            part=0.3,
            blank=0.22,
        ),
    ),
}


def within(scope, sprites):
    """The rows of an archive's index that belong to the scope"""
    if not scope.min_coloured:
        return sprites
    coloured = {
        split: Counter(s["name"] for s in sprites if s["kind"] == "noun" and not s["tint"] and s["split"] == split)
        for split in ("train", "test")
    }
    nouns = {n for n, k in coloured["train"].items() if k >= scope.min_coloured and coloured["test"][n]}

    def belongs(s):
        if s["kind"] == "noun":
            return s["name"] in nouns and not (s["tint"] and s["split"] == "test")
        return s["kind"] in scope.kinds[0] or (s["kind"] == "unknown" and not s["tint"])

    return [s for s in sprites if belongs(s)]
