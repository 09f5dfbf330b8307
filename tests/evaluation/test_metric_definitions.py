"""The metrics on random inputs against their definitions, to 1e-6 and better."""

import random

import pytest
from helpers import eval_definitions as definitions

from kosmos_edge.evaluation.metrics import answers, auc, bleu, boxes, cider_d, rouge_l, vqa
from kosmos_edge.results import Corners

VOCABULARY = ["a", "the", "dog", "cat", "red", "on", "of", "mat", "big", "two", "hats", "'s", "runs"]


def test_metrics_of_captions() -> None:
    source = random.Random(8)
    for size in (2, 5, 12):
        said = [source.choices(VOCABULARY, k=source.randint(0, 8)) for _ in range(size)]
        true = [
            [source.choices(VOCABULARY, k=source.randint(1, 8)) for _ in range(source.randint(1, 4))]
            for _ in range(size)
        ]
        assert cider_d.scores(said, true) == pytest.approx(definitions.cider_d(said, true), abs=1e-9)
        parts = [bleu.part(s, t) for s, t in zip(said, true, strict=True)]
        for n in (1, 2, 3, 4):
            assert bleu.score(parts, n) == pytest.approx(definitions.bleu(said, true, n), abs=1e-12)
        for s, t in zip(said, true, strict=True):
            assert rouge_l.score(s, t) == pytest.approx(definitions.rouge_l(s, t), abs=1e-12)


def test_vqa_accuracy() -> None:
    source = random.Random(9)
    pieces = [
        "one",
        "two",
        "none",
        "ten",
        "a",
        "the",
        "dont",
        "isnt",
        "couldnt've",
        "red",
        "1,000",
        ".5",
        "3.",
        "u.s.",
        "a-b",
        "x/y",
        "?",
        "!",
        "(",
        "'s",
    ]
    pieces += [" ", ", ", ") ", "\t", "The "]
    seen = set()
    for _ in range(600):
        text = "".join(source.choices(pieces, k=source.randint(1, 6)))
        assert vqa.normalize(text) == definitions.vqa_words(text, vqa._CONTRACTIONS), text
        same = source.randrange(11)
        people = [source.choice([text, "The " + text, text + "."]) for _ in range(same)]
        people += [f"other {n}" for n in range(10 - same)]
        if source.random() < 0.2:
            people = [text] * 10
        found = vqa.accuracy(text, people)
        assert found == pytest.approx(definitions.vqa(text, people, vqa._CONTRACTIONS), abs=1e-12)
        seen.add(round(found, 2))
    assert {0.3, 0.6, 0.9, 1.0} <= seen


def test_short_answers() -> None:
    pytest.importorskip("rapidfuzz", reason="rapidfuzz is not installed")
    source = random.Random(10)
    pieces = ["the ", "a", "an ", "dog", "Dog, ", "cat", " ", "-", "theory ", "3.5", "\n"]

    def text() -> str:
        return "".join(source.choices(pieces, k=source.randint(0, 5)))

    for _ in range(500):
        said, accepted = text(), [text() for _ in range(source.randint(1, 3))]
        em, f1 = definitions.squad(said, accepted)
        assert answers.exact_match(said, accepted) == em
        assert answers.f1(said, accepted) == pytest.approx(f1, abs=1e-12)
        assert answers.anls(said, accepted) == pytest.approx(definitions.anls(said, accepted), abs=1e-12)


def test_boxes() -> None:
    source = random.Random(11)

    def box() -> Corners:
        x1, y1 = source.randrange(20), source.randrange(20)
        return float(x1), float(y1), float(x1 + source.randrange(20)), float(y1 + source.randrange(20))

    hits = 0
    for _ in range(400):
        true = [box() for _ in range(source.randint(1, 3))]
        said = [box() for _ in range(source.randint(1, 3))]
        x1, y1, x2, y2 = source.choice(true)  # one that may be near
        said.insert(source.randrange(2), (x1, y1, max(x1, x2 - source.randrange(9)), y2 + source.randrange(3)))
        assert boxes.merged(true) == pytest.approx(definitions.around(true))
        for k in (1, 2, None):
            wanted = any(definitions.iou(a, b) >= 0.5 for a in said[:k] for b in true)
            assert boxes.hit(said, true, k) == wanted
            hits += wanted
    assert 100 < hits < 1100


def test_area_under_the_curve() -> None:
    source = random.Random(12)
    for _ in range(50):
        scores = [source.randint(0, 8) / 4 for _ in range(25)]
        labels = [True, False, *(source.random() < 0.3 for _ in range(23))]
        assert auc.roc_auc(scores, labels) == pytest.approx(definitions.auc(scores, labels), abs=1e-12)
