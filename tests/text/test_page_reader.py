"""Answers about pages: text lines with boxes, and Markdown; against a reading of the decoded text by patterns."""

import math
import random
import re

import pytest
from helpers.vocabularies import NORMAL, TAG

from kosmos_edge import _core

SIDE = 16  # of the page in kosmos_edge._core.testing
CONTROL = 3
WORDS = ("a", "B", "Ġ", "Ċ", "<", "br", ">", ".", "Ġtotal", "1")
SHOWN = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that a byte-level BPE writes as themselves
BYTES = [chr(b) for b in SHOWN] + [chr(256 + i) for i in range(256 - len(SHOWN))]
TAGS = ("<ocr>", "<md>", "<bbox>", "</bbox>", *(f"<{axis}_{i}>" for i in range(20) for axis in "xy"))
PIECES = ("</s>", *dict.fromkeys((*WORDS, *BYTES)), *TAGS)


@pytest.fixture(scope="module")
def tokenizer() -> _core.Tokenizer:
    types = [CONTROL if p == "</s>" else TAG if p in TAGS else NORMAL for p in PIECES]
    return _core.Tokenizer.byte_bpe(list(PIECES), types, [], "gpt2", False)


def ids_of(*pieces: str) -> list[int]:
    return [PIECES.index(piece) for piece in pieces]


def box(x1: int, y1: int, x2: int, y2: int) -> list[str]:
    return ["<bbox>", f"<x_{x1}>", f"<y_{y1}>", f"<x_{x2}>", f"<y_{y2}>", "</bbox>"]


def read(tokenizer: _core.Tokenizer, *pieces: str, markdown: bool = False, image: bool = True):
    ids = ids_of(*pieces)
    return _core.testing.read_page(tokenizer, ids, [-0.5] * len(ids), markdown, image, [])[:3]


def reference(text: str, markdown: bool) -> tuple[str, list[tuple[str, tuple[float, ...]]]]:
    """The text and the lines of a decoded answer, in which tags have [[ and ]] for < and >."""
    lines: list[tuple[str, tuple[float, ...] | None]] = []
    for number, part in enumerate(re.split(r"\[\[bbox]]", text)):
        corners = None
        if number:
            head = re.match(r"\[\[x_(\d+)]]\[\[y_(\d+)]]\[\[x_(\d+)]]\[\[y_(\d+)]]\[\[/bbox]]", part)
            if head:
                x1, y1, x2, y2 = (min(int(value) / SIDE, 1.0) for value in head.groups())
                corners = (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None
        words = re.sub(r"\[\[.*?]]", "", part)
        if markdown:
            words = "\n".join(line.strip() for line in words.replace("<br>", "\n").split("\n"))
            words = re.sub("\n{2,}", "\n\n", words)
        if words.strip():
            lines.append((words.strip(), corners))
    return "\n".join(words for words, _ in lines), [(words, corners) for words, corners in lines if corners]


def test_lines_have_their_boxes_in_reading_order(tokenizer: _core.Tokenizer) -> None:
    text, entities, notes = read(
        tokenizer, *box(1, 2, 8, 4), "Ġtotal", "Ġ", "1", "Ċ", *box(0, 4, 16, 8), "a", "Ċ", "</s>"
    )
    assert text == "total 1\na" and notes == []
    assert [(e[0], e[1], e[2]) for e in entities] == [("total 1", 0, 7), ("a", 8, 9)]
    assert entities[0][7] == [(1 / 16, 2 / 16, 8 / 16, 4 / 16)] and entities[1][7] == [(0, 4 / 16, 1, 8 / 16)]
    assert entities[0][8] == [None]  # a box of a page has no cells


def test_scores_are_those_of_the_line_s_own_tokens(tokenizer: _core.Tokenizer) -> None:
    ids = ids_of(*box(1, 2, 8, 4), "a", "B", "Ċ", *box(0, 4, 16, 8), "1", "</s>")
    logprobs = [-0.1 * (i + 1) for i in range(len(ids))]
    entities = _core.testing.read_page(tokenizer, ids, logprobs, False, True, [])[1]
    first, second = entities
    assert first[3] == pytest.approx(math.exp(sum(logprobs[1:5]) / 4)) and first[9] == [first[3]]
    assert first[4] == pytest.approx(math.exp(sum(logprobs[6:9])), rel=1e-6)
    assert first[5] == pytest.approx(math.exp(sum(logprobs[6:9]) / 3), rel=1e-6)
    assert second[3] == pytest.approx(math.exp(sum(logprobs[10:14]) / 4)) and second[5] == pytest.approx(
        math.exp(logprobs[15])
    )
    assert first[6] is None
    unknown = _core.testing.read_page(tokenizer, ids, [math.nan] * len(ids), False, True, [])[1][0]
    assert unknown[3:7] == (None, None, None, None)


@pytest.mark.parametrize(
    "head",
    [
        ["<bbox>", "<x_1>", "<y_1>", "<x_4>", "</bbox>"],
        ["<bbox>", "<x_1>", "<y_1>", "<x_4>", "<y_4>", "<x_4>", "</bbox>"],
        ["<bbox>", "<y_1>", "<x_1>", "<x_4>", "<y_4>", "</bbox>"],
        ["<bbox>", "<x_1>", "<y_1>", "<ocr>", "<x_4>", "<y_4>", "</bbox>"],
        ["<bbox>", "<x_1>", "<y_1>", "<x_4>", "<y_4>"],
        box(4, 1, 4, 3),
        box(1, 5, 4, 3),
        box(17, 1, 19, 3),  # wholly beyond the image
    ],
)
def test_a_line_without_a_usable_box_stays_in_the_text(tokenizer: _core.Tokenizer, head: list[str]) -> None:
    text, entities, notes = read(tokenizer, *head, "a", "Ċ", *box(0, 0, 2, 2), "B")
    assert text == "a\nB" and [e[0] for e in entities] == ["B"]
    assert notes == ["1 line has no usable box: it is in the text, but not among the lines"]


def test_markdown_has_no_notes_about_boxes(tokenizer: _core.Tokenizer) -> None:
    text, _, notes = read(tokenizer, "<bbox>", "<x_1>", "</bbox>", "a", *box(0, 0, 17, 2), "B", markdown=True)
    assert text == "a\nB" and notes == []


def test_what_is_cut_or_left_out_is_said(tokenizer: _core.Tokenizer) -> None:
    text, entities, notes = read(tokenizer, *box(1, 1, 19, 3), "a", *box(0, 0, 2, 2), "Ċ", *box(0, 0, 17, 2), "B")
    assert text == "a\nB" and [e[7] for e in entities] == [[(1 / 16, 1 / 16, 1, 3 / 16)], [(0, 0, 1, 2 / 16)]]
    assert notes == [
        "1 box without text was left out",
        "2 boxes reached beyond the image and were cut at its edge",
    ]


def test_without_an_image_there_are_no_lines(tokenizer: _core.Tokenizer) -> None:
    assert read(tokenizer, *box(1, 1, 2, 2), "a", "Ċ", *box(1, 2, 2, 3), "B", image=False) == ("a\nB", [], [])


def test_markdown(tokenizer: _core.Tokenizer) -> None:
    given = (
        "<md>",
        "Ċ",
        "1",
        "Ġ",
        "<",
        "br",
        ">",
        "<",
        "br",
        ">",
        "Ġ",
        "Ċ",
        "a",
        "<",
        "b",
        "<",
        "br",
        ">",
        "Ġ",
        "B",
        "<",
        "</s>",
    )
    assert read(tokenizer, *given, markdown=True)[0] == "1\n\na<b\nB<"
    assert read(tokenizer, *given)[0] == "1 <br><br> \na<b<br> B<"


def test_a_character_ends_before_a_tag(tokenizer: _core.Tokenizer) -> None:
    text, entities, _ = read(tokenizer, *box(1, 1, 2, 2), "a", "Ã", *box(1, 2, 2, 3), "©", "Ã", "©")
    assert text == "a\N{REPLACEMENT CHARACTER}\n\N{REPLACEMENT CHARACTER}é"
    assert [(e[0], e[1], e[2]) for e in entities] == [("a�", 0, 2), ("�é", 3, 5)]


def test_random_answers(tokenizer: _core.Tokenizer) -> None:
    draw = random.Random(4)
    seen = 0
    for number in range(3000):
        pieces: list[str] = []
        for _ in range(draw.randrange(12)):
            if draw.random() < 0.5:
                corners = [draw.randrange(20) for _ in range(4)]
                pieces += box(*corners)
                if draw.random() < 0.2:
                    del pieces[-draw.randrange(1, 6)]
            pieces += [draw.choice(WORDS) for _ in range(draw.randrange(6))]
        markdown = bool(number % 2)
        ids = ids_of(*pieces)
        text, entities = _core.testing.read_page(tokenizer, ids, [-1.0] * len(ids), markdown, True, [])[:2]
        decoded = "".join(f"[[{p[1:-1]}]]" if p in TAGS else p.replace("Ġ", " ").replace("Ċ", "\n") for p in pieces)
        expected_text, expected = reference(decoded, markdown)
        assert text == expected_text, pieces
        assert [(e[0], *e[7]) for e in entities] == expected, pieces
        assert all(text[e[1] : e[2]] == e[0] for e in entities)
        seen += len(entities)

        growing, end = _core.testing.stream_page(tokenizer, ids, markdown)
        events = [event for step in growing for event in step] + end
        assert "".join(e for e in events if isinstance(e, str)) == text
        assert [e[:3] for e in events if not isinstance(e, str)] == [e[:3] for e in entities]
    assert seen > 1000


def test_a_line_is_told_as_soon_as_it_closes(tokenizer: _core.Tokenizer) -> None:
    ids = ids_of(*box(1, 1, 2, 2), "a", "Ċ", "<bbox>", "<x_1>")
    growing, end = _core.testing.stream_page(tokenizer, ids, False)
    told = [[e if isinstance(e, str) else e[0] for e in step] for step in growing]
    assert told[ids.index(PIECES.index("<bbox>"), 1)] == ["a", "a"] and end == []


def read_cut(tokenizer: _core.Tokenizer, stop: list[str], *pieces: str):
    """Text, lines as (text, start, end, box, score), whether the answer ends in one; the i-th id has ln p -i / 10."""
    ids = ids_of(*pieces)
    text, entities, _, open_line = _core.testing.read_page(
        tokenizer, ids, [-i / 10 for i in range(len(ids))], False, True, stop
    )
    return text, [(e[0], e[1], e[2], e[7][0], e[5]) for e in entities], open_line


def test_a_line_that_a_stop_text_cuts_keeps_its_box_and_what_was_read(tokenizer: _core.Tokenizer) -> None:
    """Its score is that of the tokens before the stop text."""
    first, second = [*box(1, 2, 3, 4), "a", "B"], [*box(4, 8, 12, 16), "1", "Ġtotal", ".", "a"]
    at = len(first) + 6  # of the second line's first token
    whole, lines, open_line = read_cut(tokenizer, [], *first, *second)
    assert (whole, open_line) == ("aB\n1 total.a", True)
    text, kept, cut = read_cut(tokenizer, ["total"], *first, *second)
    assert (text, cut) == ("aB\n1", True) and kept[0] == lines[0]
    corners = (0.25, 0.5, 0.75, 1.0)
    assert kept[1] == ("1", 3, 4, corners, pytest.approx(math.exp(-(at + at + 1) / 2 / 10)))  # the blank is its token's
    text, kept, cut = read_cut(tokenizer, ["."], *first, *second)
    assert (text, cut) == ("aB\n1 total", True)
    assert kept[1] == ("1 total", 3, 10, corners, pytest.approx(math.exp(-(at + at + 1) / 2 / 10)))


def test_a_stop_text_outside_of_lines_cuts_none(tokenizer: _core.Tokenizer) -> None:
    lines = [*box(1, 2, 3, 4), "a", *box(4, 8, 12, 16), "B", "1"]
    for stop in ("\nB", "B"):  # between two lines; all of the second
        text, kept, cut = read_cut(tokenizer, [stop], *lines)
        assert (text, [line[0] for line in kept], cut) == ("a", ["a"], False)
    # across the end of the first
    text, kept, cut = read_cut(tokenizer, ["B\na"], *box(1, 2, 3, 4), "1", "B", *box(4, 8, 12, 16), "a")
    assert (text, [line[0] for line in kept], cut) == ("1", ["1"], True)


def test_whether_an_answer_ends_in_a_line(tokenizer: _core.Tokenizer) -> None:
    whole = box(1, 2, 3, 4)
    assert read_cut(tokenizer, [], *whole, "a")[2]
    for pieces in ([], ["a"], [*whole, "a", "<bbox>"], [*whole, "a", *whole], [*whole], ["<bbox>", "<x_1>", "a"]):
        assert not read_cut(tokenizer, [], *pieces)[2], pieces
