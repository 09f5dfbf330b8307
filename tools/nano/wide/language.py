"""What the wider nano is asked and what it answers, from a scene's objects: prompts and targets of every task.

The prompts are v0's (`texts.py`), which are the published ones. New: things by name with or without a colour, words
and numbers, counts of one kind, sides of two things, and a way to say no:
    caption, nothing known in sight    -> " nothing I know."          detailed -> " I see nothing I know."
    locate what is not there           -> the text ends without a box
    describe an empty place            -> " nothing I know."
Every function returns (prompt, target), both as text with tags. Objects come ordered by centre, left to right.
"""

import functools

from boxes import box_indices
from texts import CAPTION, DETAILED, PLAIN, SIDES, box_tags, index_tags
from world import definition as shapes

from wide.nouns import nouns
from wide.spec import COLOR_NAMES

NUMBERS = ["zero", "one", "two", "three", "four", "five"]
NOTHING = " nothing I know."
SEE_NOTHING = " I see nothing I know."
ALWAYS_PLURAL = {"glasses", "scissors", "headphones", "cherries", "grapes", "french fries"}
MASS = {"bread", "broccoli", "cheese", "corn", "garlic", "popcorn", "sushi", "beer", "ice cream", "candy"}
SAME_PLURAL = {"fish", "sheep", "shrimp", "dice"}
IRREGULAR = {"knife": "knives", "wolf": "wolves", "cactus": "cactuses", "hippopotamus": "hippopotamuses"}
_MIX = {
    "count": 1,
    "count_kind": 3,
    "count_color": 1,
    "color": 1.5,
    "what": 1.5,
    "exist": 4,
    "exist_color": 1,
    "relation": 2,
    "side": 1.5,
    "read": 1,
    "background": 0.7,
}
QUESTIONS = tuple(_MIX)


# ------------------------------------------------------------------------------------------ words
def article(words):
    return "an" if words[0] in "aeiou" and not words.startswith("uni") else "a"


def plural(noun):
    if noun in SAME_PLURAL or noun in ALWAYS_PLURAL or noun in MASS:
        return noun
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh", "tomato", "potato", "mango")) else "s")


def name_of(o):
    """What it is called without an article: "red star", "cat", "word stop", "number 7\""""
    if o.kind in ("word", "number"):
        return f"{o.kind} {o.name}"
    return f"{o.color} {o.name}" if o.color else o.name


def with_article(noun, words=None):
    """`words` (the noun, perhaps with a colour) with the article that the noun takes"""
    words = words or noun
    return words if noun in ALWAYS_PLURAL or noun in MASS else f"{article(words)} {words}"


def phrase_of(o):
    return f"the {name_of(o)}" if o.kind in ("word", "number") else with_article(o.name, name_of(o))


@functools.cache
def groups():
    """{noun: what it is one of}"""
    say = {"plant": "a plant", "food": "food", "animal": "an animal", "vehicle": "a vehicle", "object": "an object"}
    return {n.name: say.get(n.group, "an object") for n in nouns()}


def _centre(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


# ------------------------------------------------------------------------------------------ captions
def _joint(objects):
    (x1, y1), (x2, y2) = _centre(objects[0].box), _centre(objects[1].box)
    dx, dy = x2 - x1, y2 - y1
    if dx > 0.12 and dx > 1.2 * abs(dy):
        return f" {SIDES['left']}"
    if abs(dy) > 0.12 and abs(dy) > 1.2 * dx:
        return " above" if dy > 0 else " below"
    return " and"


def enumeration(objects, tagged, sides=True):
    """' a cat, a red star and the word stop.' with or without tags; `sides`: of two, say how they stand"""
    said = [f"<phrase> {phrase_of(o)}</phrase>{box_tags([o.box])}" if tagged else f" {phrase_of(o)}" for o in objects]
    last = _joint(objects) if sides and len(said) == 2 else " and"
    return (",".join(said[:-1]) + last if said[1:] else "") + said[-1] + "."


def caption(scene):
    return CAPTION, enumeration(scene.objects, True) if scene.objects else NOTHING


def plain(scene):
    return PLAIN, enumeration(scene.objects, False) if scene.objects else NOTHING


def ground_words(scene):
    return "a photo" if scene.kind == "photo" else f"a {scene.tone} {scene.kind} background"


def detailed(scene, tagged=True):
    prompt = DETAILED if tagged else DETAILED.removeprefix("<grounding>")
    n = len(scene.objects)
    if n == 0:
        return prompt, SEE_NOTHING
    intro = f" The image features {NUMBERS[n]} {'thing' if n == 1 else 'things'} on {ground_words(scene)}:"
    return prompt, intro + enumeration(scene.objects, tagged, sides=False)


# ------------------------------------------------------------------------------------------ referring
def locate(scene, rng, names, absent=0.14):
    """A thing by name, by name and colour, or by colour; all that fit, left to right. `names`: what may be absent"""
    objects = scene.objects
    if not objects or rng.random() < absent:
        here = {o.name for o in objects}
        name = rng.choice([n for n in rng.sample(names, 9) if n not in here])
        return f"<grounding><phrase> {with_article(name)}</phrase>", ""
    o = rng.choice(objects)
    form = rng.random()
    if o.color and o.kind in ("noun", "shape") and form < 0.15:
        phrase, match = f"{article(o.color)} {o.color} thing", [p.box for p in objects if p.color == o.color]
    elif o.kind in ("noun", "shape") and form < 0.6:
        phrase, match = with_article(o.name), [p.box for p in objects if p.name == o.name]
    else:
        phrase, match = phrase_of(o), [p.box for p in objects if name_of(p) == name_of(o)]
    if phrase.startswith(("a ", "an ")) and rng.random() < 0.35:
        phrase = "the " + phrase.partition(" ")[2]
    return f"<grounding><phrase> {phrase}</phrase>", box_tags(match)


def _shift(index, rng):
    x, y = (min(31, max(0, v + rng.choice((-1, 0, 0, 0, 1)))) for v in (index % 32, index // 32))
    return y * 32 + x


def describe(scene, rng, jitter=True, empty=0.1):
    """Box to phrase; in training each corner may be one bin off. A box around nothing known is answered so."""
    if not scene.objects or rng.random() < empty:
        for _ in range(20):
            w, h = rng.uniform(0.15, 0.4), rng.uniform(0.15, 0.4)
            x, y = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
            box = (x, y, x + w, y + h)
            if not any(min(box[2], o.box[2]) > max(box[0], o.box[0]) - 0.02
                       and min(box[3], o.box[3]) > max(box[1], o.box[1]) - 0.02 for o in scene.objects):  # fmt: skip
                return f"<grounding><phrase> It</phrase>{box_tags([box])} is", NOTHING
        if not scene.objects:
            return f"<grounding><phrase> It</phrase>{box_tags([(0, 0, 1, 1)])} is", NOTHING
    o = rng.choice(scene.objects)
    a, b = box_indices(o.box)
    if jitter:
        a, b = _shift(a, rng), _shift(b, rng)
    return f"<grounding><phrase> It</phrase><object>{index_tags(a, b)}</object> is", f" {phrase_of(o)}."


# ------------------------------------------------------------------------------------------ questions
def ask(scene, rng, names, kind=None, style=True):
    """A question of a kind (any if None) that this picture can answer, or None if it cannot"""
    found = None
    while not found:
        found = _ASK[kind or rng.choices(QUESTIONS, tuple(_MIX.values()))[0]](scene, rng, names)
        if kind and not found:
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


def _tail(rng):
    return rng.choice(("are there", "are there", "are in the image", "are in the picture", "can you see"))


def _count(scene, rng, names):
    return f"How many {rng.choice(('things', 'objects'))} {_tail(rng)}?", NUMBERS[len(scene.objects)]


def _countable(o):
    return o.kind in ("noun", "shape") and o.name not in ALWAYS_PLURAL and o.name not in MASS


def _count_kind(scene, rng, names):
    here = [o.name for o in scene.objects if _countable(o)]
    if here and rng.random() < 0.85:
        several = [n for n in here if here.count(n) > 1]
        name = rng.choice(several if several and rng.random() < 0.6 else here)
    else:
        name = rng.choice([n for n in rng.sample(names, 30) if n not in ALWAYS_PLURAL and n not in MASS])
    return f"How many {plural(name)} {_tail(rng)}?", NUMBERS[here.count(name)]


def _count_color(scene, rng, names):
    colors = [o.color for o in scene.objects if o.color and o.kind in ("noun", "shape")]
    if any(o.color is None for o in scene.objects):
        return None  # a thing in many colours may or may not count as red
    c = rng.choice(colors) if colors and rng.random() < 0.8 else rng.choice(COLOR_NAMES)
    if any(o.kind in ("word", "number") and o.color == c for o in scene.objects):
        return None
    return f"How many {c} things are there?", NUMBERS[colors.count(c)]


def _only(scene):
    """Things whose name singles them out"""
    return [o for o in scene.objects if sum(p.name == o.name for p in scene.objects) == 1]


def _color(scene, rng, names):
    only = [o for o in _only(scene) if o.color]
    if not only:
        return None
    o = rng.choice(only)
    what = name_of(o) if o.kind in ("word", "number") else o.name
    verb = "are" if o.name in ALWAYS_PLURAL else "is"
    return rng.choice((f"What color {verb} the {what}?", f"What is the color of the {what}?")), o.color


def _what(scene, rng, names):
    if len(scene.objects) > 1:
        return None
    answer = phrase_of(scene.objects[0]) if scene.objects else "nothing I know"
    return rng.choice(("What is this?", "What is in the picture?", "What do you see?")), answer


def _exist(scene, rng, names):
    here = [o for o in scene.objects if o.kind in ("noun", "shape")]
    if here and rng.random() < 0.5:
        name, answer = rng.choice(here).name, "yes"
    else:
        name, answer = rng.choice([n for n in rng.sample(names, 9) if n not in {o.name for o in here}]), "no"
    verb = "Are there" if name in ALWAYS_PLURAL else "Is there"
    return f"{verb} {with_article(name)}{rng.choice(('', '', ' in the image', ' in the picture'))}?", answer


def _exist_color(scene, rng, names):
    """Half right: the thing is there, in this colour or another"""
    here = [o for o in scene.objects if o.color and o.kind in ("noun", "shape")]
    if not here:
        return None
    o = rng.choice(here)
    color, answer = o.color, "yes"
    if rng.random() < 0.5:
        color = rng.choice([c for c in COLOR_NAMES if c not in {p.color for p in here if p.name == o.name}])
        answer = "no"
    verb = "Are there" if o.name in ALWAYS_PLURAL else "Is there"
    return f"{verb} {with_article(o.name, f'{color} {o.name}')}?", answer


def _relation(scene, rng, names):
    """What lies plainly on one side of a thing that its name singles out: one thing, or nothing"""
    only = _only(scene)
    if not only:
        return None
    o = rng.choice(only)
    at = _centre(o.box)
    side = rng.choice(list(SIDES))
    sign, axis = (-1 if side in ("left", "above") else 1), (0 if side in ("left", "right") else 1)
    beyond = [(sign * (_centre(p.box)[axis] - at[axis]), p) for p in scene.objects if p is not o]
    if any(-0.05 < d < 0.12 for d, _ in beyond):
        return None
    there = [p for d, p in beyond if d >= 0.12]
    if len(there) > 1 or (not there and rng.random() < 0.7):
        return None
    words = rng.choice((f"{side} of", SIDES[side])) if axis == 0 else side
    what = name_of(o) if o.kind in ("word", "number") else o.name
    return f"What is {words} the {what}?", phrase_of(there[0]) if there else "nothing"


def _side(scene, rng, names):
    only = _only(scene)
    if len(only) < 2:
        return None
    a, b = rng.sample(only, 2)
    axis = rng.randrange(2)
    d = _centre(a.box)[axis] - _centre(b.box)[axis]
    if abs(d) < 0.12:
        return None
    one, two = (name_of(o) if o.kind in ("word", "number") else o.name for o in (a, b))
    verb = "Are" if a.name in ALWAYS_PLURAL else "Is"
    if axis == 0:
        return f"{verb} the {one} left or right of the {two}?", "left" if d < 0 else "right"
    return f"{verb} the {one} above or below the {two}?", "above" if d < 0 else "below"


def _read(scene, rng, names):
    for kind in rng.sample(("word", "number"), 2):
        found = [o for o in scene.objects if o.kind == kind]
        if len(found) == 1:
            form = rng.choice((f"What {kind} is in the picture?", f"Which {kind} can you read?", f"What {kind} is it?"))
            return form, found[0].name
    return None


def _background(scene, rng, names):
    if scene.tone and rng.random() < 0.5:
        return rng.choice(("Is the background dark or light?", "Is the background light or dark?")), scene.tone
    answer = "a photo" if scene.kind == "photo" else f"{scene.tone} and {scene.kind}"
    return rng.choice(("What is the background like?", "What kind of background is it?")), answer


_ASK = {
    "count": _count, "count_kind": _count_kind, "count_color": _count_color, "color": _color, "what": _what,
    "exist": _exist, "exist_color": _exist_color, "relation": _relation, "side": _side, "read": _read,
    "background": _background,
}  # fmt: skip


# ------------------------------------------------------------------------------------------ without a picture
def fact(rng, names):
    """A line of text alone: (prompt, target)"""
    form = rng.randrange(4)
    if form == 0:
        a, b = rng.randrange(4), rng.randrange(3)
        return f"Question: What is {NUMBERS[a]} and {NUMBERS[b]}? Answer:", f" {NUMBERS[a + b]}"
    noun = rng.choice([n for n in names if n in groups()])
    group = groups()[noun]
    be = "are" if noun in ALWAYS_PLURAL else "is"
    if form == 1:
        return f"Question: What {be} {with_article(noun)}? Answer:", f" {group}"
    if form == 2:
        other = rng.choice(("an animal", "food", "a vehicle", "an object", group, group))
        verb = "Are" if noun in ALWAYS_PLURAL else "Is"
        return f"Question: {verb} {with_article(noun)} {other}? Answer:", " yes" if other == group else " no"
    return "", f" {with_article(noun).capitalize()} {be} {group}."


def known_names(opened):
    """Every noun and shape that may be asked about"""
    return sorted({*opened.nouns, *shapes.SHAPES})
