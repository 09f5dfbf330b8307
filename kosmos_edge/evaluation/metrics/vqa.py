"""VQA accuracy (Antol et al. 2015) with the normalisation of the authors' evaluation (GT-Vision-Lab/VQA), its slips
included: its published figures have them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_COMMA = re.compile(r"\d,\d")
# "Not between digits" was meant: "3." loses its stop, ".5" keeps it. At most 32, since the flag for Unicode stands in
# the place of the count.
_STOP = re.compile(r"\.(?!\d)")
_STOPS = 32
_NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_ARTICLES = {"a", "an", "the"}
# Words whose apostrophe is put back at the usual place. Those with capitals never match, since texts are lower-cased.
_WITH = (
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's "
    "I'm I've isn't it'd it'll might've mightn't must've mustn't needn't not've oughtn't shan't should've "
    "shouldn't somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd "
    "there're there's they'd they'll they're they've wasn't we've weren't what'll what're what's what've when's "
    "where'd where's where've who'd who'll who's who've why'll why're why's won't would've wouldn't you'd you'll "
    "you're you've"
)
_TWICE = (  # two apostrophes: each of the two spellings that lack one
    "couldn't've hadn't've he'd've I'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've "
    "something'd've there'd've they'd've we'd've who'd've wouldn't've you'd've"
)


def _lacking_one(word: str) -> tuple[str, str]:
    first, last = word.index("'"), word.rindex("'")
    return word[:first] + word[first + 1 :], word[:last] + word[last + 1 :]


_CONTRACTIONS = {
    **{word.replace("'", ""): word for word in _WITH.split()},
    **{spelling: word for word in _TWICE.split() for spelling in _lacking_one(word)},
    "maam": "ma'am", "oclock": "o'clock", "twas": "'twas", "let's": "let's", "she's": "she's",
    "somebody'd": "somebodyd", "yall": "y'all", "yall'll": "y'all'll", "y'allll": "y'all'll",
    "yall'd've": "y'all'd've", "y'alld've": "y'all'd've", "y'all'dve": "y'all'd've",
    "ow's'at": "'ow's'at", "'ows'at": "'ow's'at", "'ow'sat": "'ow's'at",
}  # fmt: skip


def normalize(text: str) -> str:
    """Without marks and articles, numbers as digits, contractions with their apostrophe."""
    out = text
    for mark in _MARKS:
        alone = mark + " " in text or " " + mark in text or _NUMBER_COMMA.search(text) is not None
        out = out.replace(mark, "" if alone else " ")
    out = _STOP.sub("", out, count=_STOPS)
    words = [_NUMBERS.get(word, word) for word in out.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def accuracy(said: str, answers: Sequence[str]) -> float:
    """Mean over the people of min(1, others who said so / 3). Normalised only where people disagree."""
    if not answers:
        raise ValueError("expected people's answers, got none")
    said, true = _plain(said), [_plain(answer) for answer in answers]
    if len(set(true)) > 1:
        said, true = normalize(said), [normalize(answer) for answer in true]
    same = [answer == said for answer in true]
    return sum(min(1.0, (sum(same) - one) / 3) for one in same) / len(same)


def _plain(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
