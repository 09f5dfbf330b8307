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

from boxes import BINS, box_indices
from world import BACKGROUNDS, COLOR_NAMES, SHAPES, TONES

from kosmos_edge.quality import nano_questions as questions
from kosmos_edge.quality.nano_questions import NUMBERS, QUESTIONS, SIDES, article, centre, name_of, phrase_of, plural

__all__ = ["NUMBERS", "QUESTIONS", "SIDES", "article", "name_of", "phrase_of", "plural"]  # and what follows
CAPTION, PLAIN, DETAILED = "<grounding>An image of", "An image of", "<grounding>Describe this image in detail:"


def index_tags(a, b):
    return f"<patch_index_{a:04d}><patch_index_{b:04d}>"


def box_tags(boxes):
    return "<object>" + "</delimiter_of_multi_objects/>".join(index_tags(*box_indices(b)) for b in boxes) + "</object>"


def _joint(objects):
    """The words between two objects; a side is named only where it is plainly so."""
    (x1, y1), (x2, y2) = centre(objects[0][2]), centre(objects[1][2])
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


def ask(objects, ground, rng, kind=None, style=True):
    """A question of a kind (a random one if None) that this picture can answer; None where it cannot"""
    found = questions.ask(objects, ground, rng, kind, style)
    return (f"Question: {found[0]} Answer:", " " + found[1]) if found else None
