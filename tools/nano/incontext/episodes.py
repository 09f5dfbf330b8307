"""Few-shot episodes as numbers: which object each picture shows, and which word names it.

An episode has a rule, the property that its words name: the shape, the colour, or both together (the kind). It has n
classes (values of that property), each with a word of its own. Rule, classes and words are drawn anew for every
episode, so a word means nothing outside its episode. What is not named is drawn for every picture alone. The last
picture is the question; all before it are shots.

Three things can be held out:
- pairs: one in five of all pairs (value, word) is in no episode of training;
- words: those of words.HELD_OUT_WORDS are in none;
- values: pictures with the shapes and colours of HELD_OUT_SHAPES and HELD_OUT_COLORS are in none.

`ideal` says what an observer would answer who knows how episodes are made, and nothing else: no learner can do better
on average. It knows the names of shapes and colours; the model has to see them.
"""

import random
import zlib
from dataclasses import dataclass

from world import COLOR_NAMES, SHAPES

from incontext.words import HELD_OUT_WORDS, TRAINED_WORDS, WORDS

RULES = ("shape", "color", "kind")
MAX_SHOTS = 8
HELD_OUT_SHAPES = tuple(SHAPES.index(name) for name in ("heart", "moon", "cross"))
HELD_OUT_COLORS = tuple(COLOR_NAMES.index(name) for name in ("green", "pink"))
CONDITIONS = ("trained", "pairs", "words", "values")  # what is held out; "trained": nothing but the pictures


@dataclass(frozen=True)
class Episode:
    """One episode of len(classes) pictures."""

    rule: str
    values: tuple[int, ...]  # of the rule's property, one for each class
    words: tuple[int, ...]  # of words.WORDS, one for each class
    kinds: tuple[tuple[int, int], ...]  # (shape, colour) of every picture
    classes: tuple[int, ...]  # which class each picture is of
    sizes: tuple[int, int, int]  # how many values the rules had to choose from, in the order of RULES


def value_of(rule, kind):
    """A kind's value of a rule's property, as a number that no other property's value has"""
    shape, color = kind
    if rule == "shape":
        return shape
    if rule == "color":
        return len(SHAPES) + color
    return len(SHAPES) + len(COLOR_NAMES) + shape * len(COLOR_NAMES) + color


def is_held_out(value, word):
    """Whether this pair of a value and a word is kept from training"""
    return zlib.crc32(f"{value} {WORDS[word]}".encode()) % 5 == 0


def _range(names, held_out, wanted):
    return [n for n in range(len(names)) if (n in held_out) == wanted]


def draw(rng, classes=2, rule=None, condition="trained", shots=MAX_SHOTS):
    """An episode from random numbers of `rng`. rule: None for any. With condition "values" the named property's values
    are held out, and of kinds both properties'; the other property's are those of training."""
    rule = rng.choice(RULES) if rule is None else rule
    new = condition == "values"
    shapes = _range(SHAPES, HELD_OUT_SHAPES, new and rule != "color")
    colors = _range(COLOR_NAMES, HELD_OUT_COLORS, new and rule != "shape")
    every = [(s, c) for s in shapes for c in colors]
    values = sorted({value_of(rule, kind) for kind in every})
    chosen = rng.sample(values, classes)
    first = len(TRAINED_WORDS) if condition == "words" else 0
    pool = range(first, first + len(HELD_OUT_WORDS if condition == "words" else TRAINED_WORDS))
    words = []
    for value in chosen:
        word = rng.choice(pool)
        # new words and new values are in no pair of training anyway
        while word in words or (
            condition in ("trained", "pairs") and is_held_out(value, word) != (condition == "pairs")
        ):
            word = rng.choice(pool)
        words.append(word)
    members = {value: [kind for kind in every if value_of(rule, kind) == value] for value in chosen}
    drawn = [rng.randrange(classes) for _ in range(shots + 1)]
    kinds = [rng.choice(members[chosen[n]]) for n in drawn]
    sizes = (len(shapes), len(colors), len(every))
    return Episode(rule, tuple(chosen), tuple(words), tuple(kinds), tuple(drawn), sizes)


def last(episode, shots):
    """The episode with only its last `shots` shots"""
    start = len(episode.kinds) - 1 - shots
    return Episode(
        episode.rule, episode.values, episode.words, episode.kinds[start:], episode.classes[start:], episode.sizes
    )


def shuffled(episode, rng):
    """The episode with labels on its shots that have nothing to do with the pictures; the question keeps its own"""
    labels = [rng.randrange(len(episode.words)) for _ in episode.classes[:-1]]
    return Episode(
        episode.rule,
        episode.values,
        episode.words,
        episode.kinds,
        (*labels, episode.classes[-1]),
        episode.sizes,
    )


def _sequence(keys, classes, size):
    """Probability of these values in a row, when `classes` of `size` values were drawn and each picture is of one of
    them"""
    seen = len(set(keys))
    p = classes ** -len(keys)
    for n in range(seen):  # ways to be these classes, over ways to draw the values
        p *= (classes - n) / (size - n)
    return p


def ideal(episode):
    """Probability of each class for the last picture, given the shots, for one who knows how episodes are drawn"""
    n, total = len(episode.words), len(episode.kinds)
    chances = [0.0] * n
    for rule, size in zip(RULES, episode.sizes, strict=True):
        keys = [value_of(rule, kind) for kind in episode.kinds]
        if len(set(keys)) > n or size < n:
            continue
        named = {}
        labels = episode.classes[:-1]
        if any(named.setdefault(key, label) != label for key, label in zip(keys, labels, strict=False)):
            continue  # one value, two words
        if len(set(named.values())) < len(named):
            continue  # two values, one word
        p = _sequence(keys, n, size)
        if rule != "kind":  # the other property is free
            p *= episode.sizes[1 - RULES.index(rule)] ** -total
        for m in range(len(named)):
            p /= n - m
        left = [label for label in range(n) if label not in named.values()]
        for label in [named[keys[-1]]] if keys[-1] in named else left:
            chances[label] += p / (1 if keys[-1] in named else len(left))
    below = sum(chances)
    return [c / below for c in chances] if below else [1 / n] * n


def ideal_share(episode):
    """Chance that the ideal observer, who draws among equals, is right"""
    chances = ideal(episode)
    best = [n for n, c in enumerate(chances) if c > max(chances) - 1e-9]
    return (episode.classes[-1] in best) / len(best)


def series(seed, count, **how):
    """`count` episodes from a seed"""
    return [draw(random.Random(f"{seed}:{n}"), **how) for n in range(count)]
