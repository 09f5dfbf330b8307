"""What nano is asked and what it should answer: prompts and targets of every task, from a scene's objects.

The prompts are the published ones, always after `<s><image>64 slots</image>`:
    caption    <grounding>An image of
    plain      An image of
    detailed   <grounding>Describe this image in detail:       (and the same without <grounding>)
    locate     <grounding><phrase> a red circle</phrase>
    describe   <grounding><phrase> It</phrase><object><patch_index_0044><patch_index_0863></object> is
    ask        Question: How many shapes are there? Answer:

An object is (shape, colour, box); objects come ordered by centre, left to right, and captions keep that order.
Every function returns (prompt, target), both as text with tags.
"""

from data import BINS, box_indices
from world import BACKGROUNDS, COLOR_NAMES, SHAPES, TONES

NUMBERS = ["zero", "one", "two", "three", "four"]
CAPTION, PLAIN, DETAILED = "<grounding>An image of", "An image of", "<grounding>Describe this image in detail:"
QUESTIONS = ("count", "count_shape", "count_color", "color", "shape", "exist", "relation", "background")
SIDES = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}


def article(word):
    return "an" if word[0] in "aeiou" else "a"


def plural(word):
    return word + ("es" if word.endswith("s") else "s")


def name_of(o):
    return f"{COLOR_NAMES[o[1]]} {SHAPES[o[0]]}"


def phrase_of(o):
    return f"{article(COLOR_NAMES[o[1]])} {name_of(o)}"


def index_tags(a, b):
    return f"<patch_index_{a:04d}><patch_index_{b:04d}>"


def box_tags(boxes):
    return "<object>" + "</delimiter_of_multi_objects/>".join(index_tags(*box_indices(b)) for b in boxes) + "</object>"


def _centre(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _joint(objects):
    """The words between two objects; a side is named only where it is plainly so."""
    (x1, y1), (x2, y2) = _centre(objects[0][2]), _centre(objects[1][2])
    if x2 - x1 >= 0.25 and abs(y2 - y1) < 0.2:
        return " to the left of"
    if x2 - x1 < 0.15 and abs(y2 - y1) >= 0.3:
        return " above" if y1 < y2 else " below"
    return " and"


def enumeration(objects, tagged, sides=True):
    """' a red circle, a blue star and a green heart.' with or without tags; `sides`: of two, say how they stand"""
    said = [f"<phrase> {phrase_of(o)}</phrase>{box_tags([o[2]])}" if tagged else f" {phrase_of(o)}" for o in objects]
    last = _joint(objects) if sides and len(said) == 2 else " and"
    return (",".join(said[:-1]) + last if said[1:] else "") + said[-1] + "."


def caption(objects):
    return CAPTION, enumeration(objects, True)


def plain(objects):
    return PLAIN, enumeration(objects, False)


def detailed(objects, ground, tagged=True):
    n = len(objects)
    noun = "shape" if n == 1 else "shapes"
    intro = f" The image features {NUMBERS[n]} {noun} on a {TONES[ground[1]]} {BACKGROUNDS[ground[0]]} background:"
    prompt = DETAILED if tagged else DETAILED.removeprefix("<grounding>")
    return prompt, intro + enumeration(objects, tagged, sides=False)


def locate(objects, rng, form=None):
    """One of the objects by name, by shape or by colour; the target has the boxes of all that fit, left to right"""
    o = rng.choice(objects)
    form = form or rng.choice(("name", "name", "shape", "color"))
    if form == "name":
        phrase, match = name_of(o), [p[2] for p in objects if p[:2] == o[:2]]
    elif form == "shape":
        phrase, match = SHAPES[o[0]], [p[2] for p in objects if p[0] == o[0]]
    else:
        noun = rng.choice(("shape", "object"))
        phrase, match = f"{COLOR_NAMES[o[1]]} {noun}", [p[2] for p in objects if p[1] == o[1]]
    word = article(phrase) if rng.random() < 0.6 else "the"
    return f"<grounding><phrase> {word} {phrase}</phrase>", box_tags(match)


def describe(objects, rng, jitter=True):
    """Box to phrase; in training each corner may be one bin off"""
    o = rng.choice(objects)
    a, b = box_indices(o[2])
    if jitter:
        a, b = (_shift(i, rng) for i in (a, b))
    return f"<grounding><phrase> It</phrase><object>{index_tags(a, b)}</object> is", f" {phrase_of(o)}."


def _shift(index, rng):
    x, y = index % BINS, index // BINS
    x, y = (min(BINS - 1, max(0, v + rng.choice((-1, 0, 0, 0, 1)))) for v in (x, y))
    return y * BINS + x


# ------------------------------------------------------------------------------------------ questions
def ask(objects, ground, rng, kind=None, style=True):
    """A question of a kind (a random one if None) that this picture can answer. `style`: vary case and wording"""
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
    return f"Question: {question} Answer:", " " + answer


def _ask_count(objects, ground, rng):
    noun = rng.choice(("shapes", "shapes", "objects"))
    tail = rng.choice(("are there", "are there", "are in the image", "are in the picture", "can you see"))
    return f"How many {noun} {tail}?", NUMBERS[len(objects)]


def _ask_count_shape(objects, ground, rng):
    s = rng.choice(objects)[0] if rng.random() < 0.75 else rng.randrange(len(SHAPES))
    return f"How many {plural(SHAPES[s])} are there?", NUMBERS[sum(o[0] == s for o in objects)]


def _ask_count_color(objects, ground, rng):
    c = rng.choice(objects)[1] if rng.random() < 0.75 else rng.randrange(len(COLOR_NAMES))
    noun = rng.choice(("shapes", "objects"))
    return f"How many {COLOR_NAMES[c]} {noun} are there?", NUMBERS[sum(o[1] == c for o in objects)]


def _ask_color(objects, ground, rng):
    only = [o for o in objects if sum(p[0] == o[0] for p in objects) == 1]
    if not only:
        return None
    o = rng.choice(only)
    s = SHAPES[o[0]]
    return rng.choice((f"What color is the {s}?", f"What is the color of the {s}?")), COLOR_NAMES[o[1]]


def _ask_shape(objects, ground, rng):
    only = [o for o in objects if sum(p[1] == o[1] for p in objects) == 1]
    if not only:
        return None
    o = rng.choice(only)
    c = COLOR_NAMES[o[1]]
    forms = (f"What shape is {c}?", f"What shape is the {c} object?", f"What is the {c} shape?")
    return rng.choice(forms), SHAPES[o[0]]


def _ask_exist(objects, ground, rng):
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


def _ask_relation(objects, ground, rng):
    """What lies plainly on one side of an object that its name singles out: one object, or nothing"""
    only = [o for o in objects if sum(p[:2] == o[:2] for p in objects) == 1]
    if not only:
        return None
    o = rng.choice(only)
    x, y = _centre(o[2])
    side = rng.choice(list(SIDES))
    sign, axis = (-1 if side in ("left", "above") else 1), (0 if side in ("left", "right") else 1)
    beyond = [(sign * (_centre(p[2])[axis] - (x, y)[axis]), p) for p in objects if p is not o]
    if any(-0.05 < d < 0.12 for d, _ in beyond):
        return None  # on neither side plainly
    there = [p for d, p in beyond if d >= 0.12]
    if len(there) > 1 or (not there and rng.random() < 0.6):
        return None
    name = SHAPES[o[0]] if sum(p[0] == o[0] for p in objects) == 1 and rng.random() < 0.5 else name_of(o)
    words = rng.choice((f"{side} of", SIDES[side])) if axis == 0 else side
    return f"What is {words} the {name}?", phrase_of(there[0]) if there else "nothing"


def _ask_background(objects, ground, rng):
    if rng.random() < 0.5:
        return rng.choice(("Is the background dark or light?", "Is the background light or dark?")), TONES[ground[1]]
    question = rng.choice(("What is the background like?", "What kind of background is it?"))
    return question, f"{TONES[ground[1]]} and {BACKGROUNDS[ground[0]]}"


_ASK = {
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
