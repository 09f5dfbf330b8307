"""Metrics of texts and lines against jiwer, against definitions written down here, and against cases by hand."""

import itertools
import random
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import jiwer
import pytest

from kosmos_edge.evaluation import markdown, ocr, text_metrics
from kosmos_edge.evaluation.pages import Page
from kosmos_edge.evaluation.statistics import Part, ratio
from kosmos_edge.evaluation.task import Item, Task

ALPHABET = "ab é ñ日\U0001f642 "


def pairs(count: int = 60) -> list[tuple[str, str]]:
    """Random texts and disturbed copies of them; the truth has at least one word."""
    source = random.Random(5)
    out = []
    for _ in range(count):
        true = "x" + "".join(source.choices(ALPHABET, k=source.randrange(60)))
        said = [c for c in true if source.random() > 0.1]
        for _ in range(source.randrange(4)):
            said.insert(source.randrange(len(said) + 1), source.choice(ALPHABET))
        out.append((text_metrics.plain("".join(said)), text_metrics.plain(true)))
    return out


def distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Levenshtein's distance by its definition."""
    table = [[i + j if not i * j else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i, j in itertools.product(range(1, len(a) + 1), range(1, len(b) + 1)):
        change = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
        table[i][j] = min(change, table[i - 1][j] + 1, table[i][j - 1] + 1)
    return table[-1][-1]


def value(parts: list[Part]) -> float:
    made = ratio(parts)
    assert made is not None
    return made


def test_error_rates_are_those_of_jiwer() -> None:
    texts = pairs()
    said, true = [s for s, _ in texts], [t for _, t in texts]
    cer = value([text_metrics.character_errors(s, t) for s, t in texts])
    wer = value([text_metrics.word_errors(s, t) for s, t in texts])
    assert cer == pytest.approx(jiwer.cer(true, said), abs=1e-12) and 0.05 < cer < 0.5
    assert wer == pytest.approx(jiwer.wer(true, said), abs=1e-12) and 0.05 < wer < 1


def test_ned_is_the_papers_formula() -> None:
    texts = [*pairs(), ("", ""), ("", "abc"), ("abc", "")]
    terms = [distance(s, t) / max(len(s), len(t)) if s or t else 0.0 for s, t in texts]
    wanted = 1 - sum(terms) / len(terms)
    assert value([text_metrics.similarity(s, t) for s, t in texts]) == pytest.approx(wanted, abs=1e-12)
    assert text_metrics.similarity("kitten", "sitting") == (1 - 3 / 7, 1.0)
    assert [text_metrics.similarity(*pair)[0] for pair in (("", ""), ("", "abc"), ("abc", ""))] == [1.0, 0.0, 0.0]


def test_words_count_as_often_as_they_are_in_both() -> None:
    assert text_metrics.matched_words("the cat the hat", "the the the Cat hat") == (3, 4, 5)
    precision, recall, f1 = text_metrics.precision_recall_f1(3, 4, 5)
    p, r = value([precision]), value([recall])
    assert (p, r) == (3 / 4, 3 / 5) and value([f1]) == pytest.approx(2 * p * r / (p + r))


def test_white_space_and_composition_do_not_count_but_case_does() -> None:
    assert text_metrics.plain(" a\n\tb  c ") == "a b c"
    assert text_metrics.plain(unicodedata.normalize("NFD", "café")) == "café"
    assert text_metrics.plain("A") != text_metrics.plain("a")
    assert text_metrics.plain_markdown("# a  \r\n\n\n\n  - b\n") == "# a\n\n- b"


# ---- lines


def area_iou(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """Of boxes with whole corners, by counting pixels."""

    def cells(box: tuple[int, ...]) -> set[tuple[int, int]]:
        return set(itertools.product(range(box[0], box[2]), range(box[1], box[3])))

    both = cells(a) | cells(b)
    return len(cells(a) & cells(b)) / len(both) if both else 0.0


def test_matched_lines_are_the_most_that_any_pairing_gives() -> None:
    source = random.Random(3)
    seen = set()
    for _ in range(150):
        boxes = [
            (x, y, x + source.randrange(4, 9), y + source.randrange(2, 5))
            for x, y in ((source.randrange(4), source.randrange(3)) for _ in range(source.randrange(9)))
        ]
        cut = min(len(boxes), source.randrange(6))
        said, true = boxes[:cut], boxes[cut : cut + 5]
        near = [[area_iou(s, t) >= 0.5 for s in said] for t in true]
        slots = [*range(len(said)), *[None] * len(true)]
        best = max(
            sum(s is not None and near[t][s] for t, s in enumerate(chosen))
            for chosen in itertools.permutations(slots, len(true))
        )
        assert text_metrics.matched_lines(said, true) == best
        wanted = sum(max((area_iou(s, t) for s in said), default=0.0) for t in true)
        assert text_metrics.overlap(said, true) == (pytest.approx(wanted), len(true))
        seen.add(best)
    assert seen >= {0, 1, 2, 3}


def test_a_line_counts_at_exactly_half() -> None:
    """IoU 50 of 100 is a hit, and 49 of 100 is none; a box is used once."""
    true = [(0.0, 0.0, 10.0, 10.0)]
    assert text_metrics.matched_lines([(0.0, 0.0, 10.0, 5.0)], true) == 1
    assert text_metrics.matched_lines([(0.0, 0.0, 10.0, 4.9)], true) == 0
    assert text_metrics.matched_lines(true, [*true, *true]) == 1
    assert text_metrics.matched_lines([], true) == 0 and text_metrics.overlap([], true) == (0, 1)


# ---- the tasks


TRUTH = Page("The  total\nis 12.50", ((0.0, 0.0, 100.0, 20.0), (0.0, 30.0, 80.0, 50.0)))
SAID = {
    "text": "The tota1\nIS  12.50\nthe",
    "lines": [
        {"text": "The tota1", "box": [0.0, 1.0, 100.0, 21.0]},
        {"text": "IS 12.50", "box": [0.0, 40.0, 80.0, 60.0]},
        {"text": "the", "box": None},
    ],
}


def figures(task: Task, truth: object, said: dict[str, object]) -> dict[str, float]:
    return {name: value([part]) for name, part in task.score(Item("a", "a.png", truth), said).items()}


def test_a_page_by_hand() -> None:
    """ "The tota1 IS 12.50 the" against "The total is 12.50": 3 characters replaced, 4 added."""
    assert figures(ocr, TRUTH, SAID) == pytest.approx(
        {
            "cer": 7 / 18,
            "wer": 3 / 4,
            "ned": 1 - 7 / 22,
            "word_precision": 2 / 5,
            "word_recall": 2 / 4,
            "word_f1": 4 / 9,
            "line_precision": 1 / 3,
            "line_recall": 1 / 2,
            "line_f1": 2 / 5,
            "line_iou": (19 / 21 + 10 / 30) / 2,
        }
    )
    assert set(figures(ocr, Page("a", None), SAID)) == {
        "cer", "wer", "ned", "word_precision", "word_recall", "word_f1",
    }  # fmt: skip
    assert figures(markdown, "# a\n\nb", {"text": "# a \n\n\n\nc"}) == {"ned": 1 - 1 / 6}


def test_every_metric_of_a_task_is_one_that_it_scores() -> None:
    assert {metric.name for metric in ocr.METRICS} == set(figures(ocr, TRUTH, SAID))
    assert {metric.name for metric in markdown.METRICS} == {"ned", "nted"}  # nted is never scored; a reason says why


def shifted(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """IoU as some have it, with widths of x2 - x1 + 1."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]) + 1, min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize(
    ("name", "wrong", "metric"),
    [
        ("iou", shifted, "line_iou"),
        ("plain", lambda text: text, "cer"),
        ("plain", lambda text: text.lower(), "word_f1"),
        ("plain", lambda text: " ".join(text.split())[:-1], "ned"),  # loses a character
        ("similarity", lambda said, true: (1 - distance(said, true) / len(true), 1.0), "ned"),
        ("similarity", lambda said, true: (1 - distance(said, true) / (max(len(said), len(true)) + 1), 1.0), "ned"),
        ("word_errors", lambda said, true: (distance(said.split(), true.split()), len(said.split())), "wer"),
    ],
)
def test_a_planted_error_shows(monkeypatch: pytest.MonkeyPatch, name: str, wrong: object, metric: str) -> None:
    """Each mistake that is easily made changes the figure of the page that was worked out by hand."""
    right = figures(ocr, TRUTH, SAID)
    monkeypatch.setattr(text_metrics if name == "iou" else ocr, name, wrong)
    assert abs(figures(ocr, TRUTH, SAID)[metric] - right[metric]) > 1e-3


def test_without_rapidfuzz_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    from kosmos_edge.errors import InvalidRequest

    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    with pytest.raises(InvalidRequest, match=r"pip install 'kosmos-edge\[eval\]'"):
        text_metrics.edits("a", "b")
