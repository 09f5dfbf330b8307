"""Nonsense words that serve as labels, and the sentences from which their vocabulary is made.

A word is one token, so that all shots have the same length. Words that are held out are in the vocabulary, but no
episode of training has one.
"""

import random

PROMPT = "a"  # behind each picture, before its word; one token, so that eight shots stay short
TRAINED, HELD_OUT = 240, 60
_CONSONANTS, _VOWELS = "bdfgklmnprtvz", "aeiou"


def _all():
    rng = random.Random(17)
    found = {}
    while len(found) < TRAINED + HELD_OUT:
        form = (_CONSONANTS, _VOWELS, _CONSONANTS, _VOWELS, _CONSONANTS)
        found["".join(rng.choice(letters) for letters in form)] = None  # such as "dofav"
    return tuple(found)


WORDS = _all()
TRAINED_WORDS, HELD_OUT_WORDS = WORDS[:TRAINED], WORDS[TRAINED:]


def sentences():
    """For `vocabulary.train`: every word with several marks behind it (see `vocabulary.repeated`)"""
    for word in (*PROMPT.split(), *WORDS):
        for _ in range(6):
            yield f"{word} {word}, {word}. {word}? {word}:"
