"""Distances of texts and of lines of text, as parts of metrics (see statistics.py).

Edit distances are rapidfuzz's, on which jiwer is built, too. A text is compared in Unicode's composed form, with every
run of blanks and line breaks as one blank; case and punctuation count.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from importlib import import_module

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.statistics import Part
from kosmos_edge.quality.metrics import HIT, iou
from kosmos_edge.results import Corners


def edits(said: Sequence[str], true: Sequence[str]) -> int:
    """Levenshtein's distance of two texts, or of two lists of words. InvalidRequest if rapidfuzz is missing."""
    try:
        levenshtein = import_module("rapidfuzz.distance").Levenshtein
    except ImportError as error:
        raise InvalidRequest(f"eval needs the package rapidfuzz: pip install 'kosmos-edge[eval]' ({error})") from error
    distance: int = levenshtein.distance(said, true)
    return distance


def plain(text: str) -> str:
    """A text as it is compared."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def plain_markdown(text: str) -> str:
    """Markdown as it is compared: line breaks count, blanks at the ends of lines and further empty lines do not."""
    lines = [line.strip() for line in unicodedata.normalize("NFC", text).splitlines()]
    return re.sub(r"\n{2,}", "\n\n", "\n".join(lines)).strip()


def character_errors(said: str, true: str) -> Part:
    """(edits, characters of the truth): pooled, the character error rate, which may exceed 1."""
    return float(edits(said, true)), float(len(true))


def word_errors(said: str, true: str) -> Part:
    """(edits, words of the truth): pooled, the word error rate."""
    words = true.split()
    return float(edits(said.split(), words)), float(len(words))


def similarity(said: str, true: str) -> Part:
    """(1 - edits / length of the longer text, 1): averaged, the NED of the KOSMOS-2.5 paper. 1 if both are empty."""
    longest = max(len(said), len(true))
    return (1 - edits(said, true) / longest if longest else 1.0), 1.0


def matched_words(said: str, true: str) -> tuple[int, int, int]:
    """(words in both, words said, words of the truth); a word counts as often as it is in both."""
    ours, theirs = Counter(said.split()), Counter(true.split())
    return (ours & theirs).total(), ours.total(), theirs.total()


def matched_lines(said: Sequence[Corners], true: Sequence[Corners]) -> int:
    """The most pairs of a said and a true box, each used once, that overlap with an IoU of at least 0.5."""
    near = [[s for s, box in enumerate(said) if iou(box, wanted) >= HIT] for wanted in true]
    owner: dict[int, int] = {}  # said -> true

    def place(t: int, tried: set[int]) -> bool:
        """Finds a box for t, moving others if that helps (augmenting paths)."""
        for s in near[t]:
            if s not in tried:
                tried.add(s)
                if s not in owner or place(owner[s], tried):
                    owner[s] = t
                    return True
        return False

    return sum(place(t, set()) for t in range(len(true)))


def overlap(said: Sequence[Corners], true: Sequence[Corners]) -> Part:
    """(sum over the true boxes of the best IoU that a said box has with it, number of true boxes)."""
    return sum(max((iou(box, wanted) for box in said), default=0.0) for wanted in true), float(len(true))


def precision_recall_f1(matched: int, said: int, true: int) -> tuple[Part, Part, Part]:
    """Parts of pooled precision, recall and F1."""
    return (float(matched), float(said)), (float(matched), float(true)), (2.0 * matched, float(said + true))
