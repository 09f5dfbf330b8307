"""How alike texts are by their words: cosines of TF-IDF vectors, in plain Python.

Words are runs of letters and digits, in lower case. tf = 1 + ln(count), idf = ln((1 + N) / (1 + df)) + 1 over the N
texts of the collection, vectors of length 1: the formulas of scikit-learn's TfidfVectorizer with sublinear_tf.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """The words of a text, in order."""
    return _WORD.findall(text.lower())


class Words:
    """A collection of texts to compare others with."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(words_of(text)) for text in texts]
        self._count = len(counts)
        self._in: Counter[str] = Counter(word for found in counts for word in found)
        self._texts: dict[str, list[tuple[int, float]]] = defaultdict(list)  # word -> (text, weight)
        for number, found in enumerate(counts):
            for word, weight in self._direction(found).items():
                self._texts[word].append((number, weight))

    def likeness(self, text: str) -> list[float]:
        """The cosine of the text to each of the collection, 0..1; 0 where they share no word."""
        out = [0.0] * self._count
        for word, weight in self._direction(Counter(words_of(text))).items():
            for number, other in self._texts.get(word, ()):
                out[number] += weight * other
        return out

    def _direction(self, counts: Counter[str]) -> dict[str, float]:
        weights = {
            word: (1 + math.log(count)) * (math.log((1 + self._count) / (1 + self._in[word])) + 1)
            for word, count in counts.items()
        }
        length = math.sqrt(math.fsum(weight * weight for weight in weights.values()))
        return {word: weight / length for word, weight in weights.items()}
