"""What nano is asked about a scene, and the true answers: forms of eight kinds of questions.

An object is (shape, colour, box): two indices into the world's lists and four fractions. tools/nano trains on these
forms, `kosmos-edge bench quality` measures with them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

from kosmos_edge.quality.nano_world import BACKGROUNDS, COLOR_NAMES, SHAPES, TONES, Corners

Known: TypeAlias = tuple[int, int, Corners]  # shape, colour, box
Ground: TypeAlias = tuple[int, int]  # kind and tone of the background
Asked: TypeAlias = tuple[str, str] | None  # question and answer; None if the image has no answer

NUMBERS = ("zero", "one", "two", "three", "four")
QUESTIONS = ("count", "count_shape", "count_color", "color", "shape", "exist", "relation", "background")
SIDES = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}


def article(word: str) -> str:
    """a or an"""
    return "an" if word[0] in "aeiou" else "a"


def plural(word: str) -> str:
    """More than one of it"""
    return word + ("es" if word.endswith("s") else "s")


def name_of(o: Known) -> str:
    """red circle"""
    return f"{COLOR_NAMES[o[1]]} {SHAPES[o[0]]}"


def phrase_of(o: Known) -> str:
    """a red circle"""
    return f"{article(COLOR_NAMES[o[1]])} {name_of(o)}"


def centre(box: Corners) -> tuple[float, float]:
    """x, y"""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def ask(
    objects: Sequence[Known], ground: Ground, rng: random.Random, kind: str | None = None, style: bool = True
) -> Asked:
    """A question of a kind (a random one if None) that this picture can answer, else None. `style`: vary the wording"""
    while True:
        found = _ASK[kind or rng.choice(_MIX)](objects, ground, rng)
        if found:
            break
        if kind:
            return None
    question, answer = found
    if style:
        if rng.random() < 0.12:
            question = question[0].lower() + question[1:]
        if rng.random() < 0.08:
            question = question.rstrip("?")
        if "color" in question and rng.random() < 0.3:
            question = question.replace("color", "colour")
    return question, answer


def _ask_count(objects: Sequence[Known], ground: Ground, rng: random.Random) -> Asked:
    noun = rng.choice(("shapes", "shapes", "objects"))
    tail = rng.choice(("are there", "are there", "are in the image", "are in the picture", "can you see"))
    return f"How many {noun} {tail}?", NUMBERS[len(objects)]


def _ask_count_shape(objects: Sequence[Known], ground: Ground, rng: random.Random) -> Asked:
    s = rng.choice(objects)[0] if rng.random() < 0.75 else rng.randrange(len(SHAPES))
    return f"How many {plural(SHAPES[s])} are there?", NUMBERS[sum(o[0] == s for o in objects)]


def _ask_count_color(objects: Sequence[Known], ground: Ground, rng: random.Random) -> Asked:
    c = rng.choice(objects)[1] if rng.random() < 0.75 else rng.randrange(len(COLOR_NAMES))
    noun = rng.choice(("shapes", "objects"))
    return f"How many {COLOR_NAMES[c]} {noun} are there?", NUMBERS[sum(o[1] == c for o in objects)]


def _ask_color(objects: Sequence[Known], ground: Ground, rng: random.Random) -> Asked:
    only = [o for o in objects if sum(p[0] == o[0] for p in objects) == 1]
    if not only:
        return None
    o = rng.choice(only)
    s = SHAPES[o[0]]
    return rng.choice((f"What color is the {s}?", f"What is the color of the {s}?")), COLOR_NAMES[o[1]]


def _ask_shape(objects: Sequence[Known], ground: Ground, rng: random.Random) -> Asked:
    only = [o for o in objects if sum(p[1] == o[1] for p in objects) == 1]
    if not only:
        return None
    o = rng.choice(only)
    c = COLOR_NAMES[o[1]]
    forms = (f"What shape is {c}?", f"What shape is the {c} object?", f"What is the {c} shape?")
    return rng.choice(forms), SHAPES[o[0]]


def _ask_exist(objects: Sequence[Known], ground: Ground, rng: random.Random) -> Asked:
    """Half yes, half no; a no is often one half right (the shape in another colour, the colour on another shape)"""
    o = rng.choice(objects)
    shape, color = o[:2]
    form = rng.choice(("name", "name", "name", "shape", "color"))
    no = rng.random() < 0.5
    shapes, colors, names = {p[0] for p in objects}, {p[1] for p in objects}, {p[:2] for p in objects}
    if form == "name":
        while no and (shape, color) in names:
            z = rng.random()
            shape = rng.randrange(len(SHAPES)) if z < 0.67 else o[0]
            color = rng.randrange(len(COLOR_NAMES)) if z > 0.33 else o[1]
        thing = f"{COLOR_NAMES[color]} {SHAPES[shape]}"
    elif form == "shape":
        while no and shape in shapes:
            shape = rng.randrange(len(SHAPES))
        thing = SHAPES[shape]
    else:
        while no and color in colors:
            color = rng.randrange(len(COLOR_NAMES))
        thing = f"{COLOR_NAMES[color]} {rng.choice(('shape', 'object'))}"
    tail = rng.choice(("", "", " in the image", " in the picture"))
    return f"Is there {article(thing)} {thing}{tail}?", "no" if no else "yes"


def _ask_relation(objects: Sequence[Known], ground: Ground, rng: random.Random) -> Asked:
    """The one object that is clearly on one side of an object with a unique name, or nothing"""
    only = [o for o in objects if sum(p[:2] == o[:2] for p in objects) == 1]
    if not only:
        return None
    o = rng.choice(only)
    x, y = centre(o[2])
    side = rng.choice(list(SIDES))
    sign, axis = (-1 if side in ("left", "above") else 1), (0 if side in ("left", "right") else 1)
    beyond = [(sign * (centre(p[2])[axis] - (x, y)[axis]), p) for p in objects if p is not o]
    if any(-0.05 < d < 0.12 for d, _ in beyond):
        return None  # on neither side plainly
    there = [p for d, p in beyond if d >= 0.12]
    if len(there) > 1 or (not there and rng.random() < 0.6):
        return None
    name = SHAPES[o[0]] if sum(p[0] == o[0] for p in objects) == 1 and rng.random() < 0.5 else name_of(o)
    words = rng.choice((f"{side} of", SIDES[side])) if axis == 0 else side
    return f"What is {words} the {name}?", phrase_of(there[0]) if there else "nothing"


def _ask_background(objects: Sequence[Known], ground: Ground, rng: random.Random) -> Asked:
    if rng.random() < 0.5:
        return rng.choice(("Is the background dark or light?", "Is the background light or dark?")), TONES[ground[1]]
    question = rng.choice(("What is the background like?", "What kind of background is it?"))
    return question, f"{TONES[ground[1]]} and {BACKGROUNDS[ground[0]]}"


_ASK: dict[str, Callable[[Sequence[Known], Ground, random.Random], Asked]] = {
    "count": _ask_count,
    "count_shape": _ask_count_shape,
    "count_color": _ask_count_color,
    "color": _ask_color,
    "shape": _ask_shape,
    "exist": _ask_exist,
    "relation": _ask_relation,
    "background": _ask_background,
}
_MIX = (
    "count",
    "count_shape",
    "count_color",
    "color",
    "color",
    "shape",
    "shape",
    "exist",
    "exist",
    "exist",
    "exist",
    "relation",
    "relation",
    "background",
)
