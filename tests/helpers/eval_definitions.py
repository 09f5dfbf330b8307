"""The metrics once more, from their definitions alone and as slowly as they read: what the package is compared with."""

import itertools
import math
import re
import string
from collections.abc import Sequence

import numpy as np

Words = Sequence[str]


def runs(words: Words, n: int) -> list[tuple[str, ...]]:
    """All runs of n words."""
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _weights(words: Words, n: int, rare: dict[tuple[str, ...], float]) -> np.ndarray:
    """How often each of the known runs is in the words, times how rare it is."""
    found = runs(words, n)
    return np.array([found.count(run) * weight for run, weight in rare.items()])


def cider_d(said: Sequence[Words], true: Sequence[Sequence[Words]]) -> list[float]:
    """CIDEr-D with dense vectors over all runs of words."""
    out = np.zeros(len(said))
    for n in (1, 2, 3, 4):
        rare = {}
        for run in {run for words in [*said, *(w for group in true for w in group)] for run in runs(words, n)}:
            pictures = sum(any(run in runs(words, n) for words in group) for group in true)
            rare[run] = math.log(len(said)) - math.log(max(pictures, 1))
        for i, (words, group) in enumerate(zip(said, true, strict=True)):
            h = _weights(words, n, rare)
            for other in group:
                r = _weights(other, n, rare)
                norm = np.linalg.norm(h) * np.linalg.norm(r)
                value = float(np.sum(np.minimum(h, r) * r)) / (norm or 1.0)
                gap = max(len(words) - 1, 0) - max(len(other) - 1, 0)
                out[i] += 10 * value * math.exp(-(gap**2) / 72) / len(group) / 4
    return list(out)


def bleu(said: Sequence[Words], true: Sequence[Sequence[Words]], order: int) -> float:
    """BLEU of the corpus."""
    product = 1.0
    for n in range(1, order + 1):
        right = guessed = 0
        for words, group in zip(said, true, strict=True):
            for run in set(runs(words, n)):
                most = max(runs(other, n).count(run) for other in group)
                right += min(runs(words, n).count(run), most)
            guessed += len(runs(words, n))
        product *= (right + 1e-15) / (guessed + 1e-9)
    ours = sum(map(len, said))
    theirs = sum(
        sorted(map(len, group), key=lambda length, words=words: (abs(length - len(words)), length))[0]  # type: ignore[misc]
        for words, group in zip(said, true, strict=True)
    )
    ratio = (ours + 1e-15) / (theirs + 1e-9)
    return float(product ** (1 / order) * (math.exp(1 - 1 / ratio) if ratio < 1 else 1))


def rouge_l(said: Words, true: Sequence[Words]) -> float:
    """By trying all subsequences of the shorter text, the longest first."""

    def common(a: Words, b: Words) -> int:
        short, long = sorted((list(a), list(b)), key=len)
        for size in range(len(short), 0, -1):
            for chosen in itertools.combinations(short, size):
                rest = iter(long)
                if all(word in rest for word in chosen):
                    return size
        return 0

    precision = max(common(said, other) / len(said) for other in true) if said else 0.0
    recall = max(common(said, other) / len(other) for other in true)
    return 2.44 * precision * recall / (recall + 1.44 * precision) if precision and recall else 0.0


def vqa_words(text: str, contractions: dict[str, str]) -> str:
    """The normalisation of VQA, step by step."""
    digits = ["none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    comma = re.compile(r"(\d)(\,)(\d)")
    out = text
    for p in [";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",", "?", "!"]:
        if (p + " " in text or " " + p in text) or comma.search(text):
            out = out.replace(p, "")
        else:
            out = out.replace(p, " ")
    pieces, removed = [], 0
    for i, c in enumerate(out):  # a full stop before anything but a digit goes, 32 times
        if c == "." and not (i + 1 < len(out) and out[i + 1].isdigit()) and removed < 32:
            removed += 1
        else:
            pieces.append(c)
    kept = []
    for word in "".join(pieces).lower().split():
        if word in digits:
            word = str(max(digits.index(word) - 1, 0))
        if word not in ("a", "an", "the"):
            kept.append(contractions.get(word, word))
    return " ".join(kept)


def vqa(said: str, people: Sequence[str], contractions: dict[str, str]) -> float:
    """Each person left out in turn."""
    said, *people = (text.replace("\n", " ").replace("\t", " ").strip() for text in (said, *people))
    if any(answer != people[0] for answer in people):
        said, *people = (vqa_words(text, contractions) for text in (said, *people))
    found = []
    for i in range(len(people)):
        others = people[:i] + people[i + 1 :]
        found.append(min(1.0, sum(other == said for other in others) / 3))
    return sum(found) / len(found)


def squad(said: str, accepted: Sequence[str]) -> tuple[float, float]:
    """(exact match, F1)."""

    def plain(text: str) -> list[str]:
        text = "".join(c for c in text.lower() if c not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", text).split()

    def f1(a: list[str], b: list[str]) -> float:
        if not a or not b:
            return float(a == b)
        left, shared = list(b), 0
        for word in a:
            if word in left:
                left.remove(word)
                shared += 1
        if not shared:
            return 0.0
        precision, recall = shared / len(a), shared / len(b)
        return 2 * precision * recall / (precision + recall)

    ours = plain(said)
    return (
        float(any(ours == plain(answer) for answer in accepted)),
        max(f1(ours, plain(answer)) for answer in accepted),
    )


def anls(said: str, accepted: Sequence[str]) -> float:
    """With Levenshtein's distance by its table."""

    def one(a: str, b: str) -> float:
        a, b = (" ".join(text.lower().split()) for text in (a, b))
        table = np.zeros((len(a) + 1, len(b) + 1), int)
        table[:, 0], table[0, :] = np.arange(len(a) + 1), np.arange(len(b) + 1)
        for i, j in itertools.product(range(1, len(a) + 1), range(1, len(b) + 1)):
            change = table[i - 1, j - 1] + (a[i - 1] != b[j - 1])
            table[i, j] = min(change, table[i - 1, j] + 1, table[i, j - 1] + 1)
        far = table[-1, -1] / max(len(a), len(b)) if a or b else 0.0
        return 1 - far if far < 0.5 else 0.0

    return max(one(said, answer) for answer in accepted)


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Of boxes with whole coordinates below 40, by counting cells."""
    masks = np.zeros((2, 40, 40), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, (a, b), strict=True):
        mask[int(y1) : int(y2), int(x1) : int(x2)] = True
    union = int((masks[0] | masks[1]).sum())
    return int((masks[0] & masks[1]).sum()) / union if union else 0.0


def around(boxes: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The box around all."""
    table = np.array(boxes)
    return (*table[:, :2].min(0), *table[:, 2:].max(0))


def auc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Area under the curve of (false positives, true positives) over all thresholds, by trapezoids."""
    points = [
        (
            sum(s >= t for s, label in zip(scores, labels, strict=True) if not label),
            sum(s >= t for s, label in zip(scores, labels, strict=True) if label),
        )
        for t in [math.inf, *sorted(set(scores), reverse=True)]
    ]
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))
    return area / (points[-1][0] * points[-1][1])
