"""Answers whose boxes are text, {<12><5><80><100}, as MiniGPT-v2 writes them: what becomes an entity, what stays text,
read as a whole and while it grows."""

import math
import random
import re

import pytest

from kosmos_edge import _core

testing = _core.testing
BOXES = -1  # instead of a grid's bins
PARTS = [*"<>{}/pdelim 0123459a.", "▁", "▁a", "</", "><", "100", "><1", "é", "日", "\n"]
TOKENIZER = _core.Tokenizer(["<unk>", *PARTS, "</s>"], [-1.0] * (len(PARTS) + 2), [2] + [1] * len(PARTS) + [3], b"", 0)
TAG = re.compile(r"<p>|</p>|<delim>|\{<(\d{1,3})><(\d{1,3})><(\d{1,3})><(\d{1,3})>\}")


def ids_of(text: str) -> list[int]:
    """A token for each character; a blank is a word mark."""
    return [PARTS.index("▁" if c == " " else c) + 1 for c in text]


def read(ids: list[int], logprobs: list[float] | None = None) -> tuple:
    return testing.read_answer(TOKENIZER, BOXES, [], ids, logprobs or [-1.0] * len(ids), [])


def brief(found: tuple) -> tuple:
    """(text, [(phrase, span, boxes in hundredths)])"""
    text, entities = found
    return text, [
        (phrase, (start, end), [tuple(round(v * 100) for v in box) for box in boxes])
        for phrase, start, end, _, _, _, _, boxes, _, _ in entities
    ]


@pytest.mark.parametrize(
    ("raw", "text", "entities"),
    [
        ("{<12><5><80><100>}", "", [("", (0, 0), [(12, 5, 80, 100)])]),
        ("<p>a lid</p> {<1><2><3><4>} a.", "a lid a.", [("a lid", (0, 5), [(1, 2, 3, 4)])]),
        (
            "a <p>lid</p> {<1><2><3><4>}<delim>{<5><0><9><9>} . <p>ped</p>{<0><0><1><1>}",
            "a lid . ped",
            [("lid", (2, 5), [(1, 2, 3, 4), (5, 0, 9, 9)]), ("ped", (8, 11), [(0, 0, 1, 1)])],
        ),
        ("la {<1><2><3><4>} el", "la el", [("", (2, 2), [(1, 2, 3, 4)])]),  # around a box there is one blank
        ("{<1><2><3><4>}{<4><3><2><1>}", "", [("", (0, 0), [(1, 2, 3, 4)]), ("", (0, 0), [(4, 3, 2, 1)])]),
        ("<p>lid</p> a {<1><2><3><4>}", "lid a", [("", (5, 5), [(1, 2, 3, 4)])]),  # words part them
        ("<p>lid {<1><2><3><4>}", "lid", [("", (3, 3), [(1, 2, 3, 4)])]),  # a phrase that does not end
        ("<p> </p>{<1><2><3><4>}", "", [("", (0, 0), [(1, 2, 3, 4)])]),
        ("<p>a</p><p>é</p>{<1><2><3><4>}", "aé", [("é", (1, 2), [(1, 2, 3, 4)])]),
        ("{<101><2><3><4>}", "{<101><2><3><4>}", []),
        ("{<1><2><3>}{<1><2><3><4", "{<1><2><3>}{<1><2><3><4", []),
        ("{<1><2><3><4>> 1<2 </pa><delim></p>.", "{<1><2><3><4>> 1<2 </pa>.", []),
    ],
)
def test_what_becomes_of_an_answer(raw: str, text: str, entities: list) -> None:
    # A number of several digits is spelled by digits that there are pieces of.
    assert brief(read(ids_of(raw.replace("8", "9")))) == (
        text,
        [
            (phrase, span, [tuple(90 if v == 80 else v for v in box) for box in boxes])
            for phrase, span, boxes in entities
        ],
    )


def reference(raw: str) -> tuple:
    """The rules once more, over the whole of a text."""
    text, blanks, at_box = "", "", False
    start, phrase, boxes, entities = None, None, [], []  # phrase: its span, once it has ended

    def end() -> None:
        nonlocal start, phrase, boxes
        if boxes:
            entities.append((text[phrase[0] : phrase[1]], phrase, boxes))
        start, phrase, boxes = None, None, []

    at = 0
    while at < len(raw):
        tag = TAG.match(raw, at)
        if tag is not None and any(int(v) > 100 for v in tag.groups() if v is not None):
            tag = None
        if tag is None:
            if raw[at] in " \n":
                blanks += raw[at] if text and not (at_box and blanks) else ""
            else:
                if phrase is not None:
                    end()
                at_box = False
                text += blanks + raw[at]
                blanks = ""
                start = len(text) - 1 if start == -1 else start
            at += 1
            continue
        at = tag.end()
        if tag[0] == "<p>":
            end()
            start = -1
        elif tag[0] == "</p>":
            if start is None or start < 0:
                end()
            else:
                phrase, start = (start, len(text)), None
        elif tag[1] is not None:
            box = tuple(int(v) for v in tag.groups())
            if phrase is None:
                end()
                entities.append(("", (len(text), len(text)), [box]))
                at_box = True
            else:
                blanks = ""
                boxes.append(box)
    end()
    return text, entities


def soup(rng: random.Random, length: int) -> str:
    parts = [
        "<p>",
        "</p>",
        "<delim>",
        "{<1><20><100><0>}",
        "{<4><5><9><95>}",
        "{<1><2>",
        " ",
        "a",
        "é",
        "l.",
        "<",
        "}",
        "{",
        "\n",
    ]
    return "".join(rng.choice(parts) for _ in range(length))


def test_random_answers_follow_the_rules_and_their_streams_add_up() -> None:
    rng, entities = random.Random(7), 0
    for _ in range(1500):
        raw = soup(rng, rng.randrange(1, 25))
        ids = ids_of(raw)
        raw = TOKENIZER.decode(ids)  # without a blank in front
        whole = read(ids)
        assert brief(whole) == reference(raw), raw
        stream = testing.answer_stream(TOKENIZER, BOXES, [], [])
        events = []
        for token in ids:
            stream.push(token, -1.0)
            events += stream.events()
        events += testing.finish_stream(stream, TOKENIZER, BOXES, [], ids, [-1.0] * len(ids), [])
        assert "".join(e for e in events if isinstance(e, str)) == whole[0]
        assert [e for e in events if not isinstance(e, str)] == whole[1]
        entities += len(whole[1])
    assert entities > 500


def test_scores_are_those_of_the_tokens_of_a_box_and_of_a_phrase() -> None:
    raw = "<p>lid</p> {<1><2><3><4>}<delim>{<5><0><9><9>}."
    logprobs = [-0.01 * n for n in range(len(raw))]
    (entity,) = read(ids_of(raw), logprobs)[1]
    first, second = raw.index("{"), raw.rindex("{")
    size = len("{<1><2><3><4>}")
    shares = [math.exp(sum(logprobs[at : at + size]) / size) for at in (first, second)]
    assert entity[9] == pytest.approx(shares)
    assert entity[4] == pytest.approx(math.exp(sum(logprobs[3:6])))
    assert entity[8] == [None, None]  # no cells


def test_a_stop_text_cuts_entities_off() -> None:
    raw = "<p>lid</p> {<1><2><3><4>} a. <p>ped</p>{<1><2><3><4>}"
    ids = ids_of(raw)
    text, entities = testing.read_answer(TOKENIZER, BOXES, [], ids, [-1.0] * len(ids), [". "])
    assert text == "lid a" and [e[0] for e in entities] == ["lid"]


def test_tags_of_the_vocabulary_vanish() -> None:
    assert read([*ids_of("a"), len(PARTS) + 1])[0] == "a"
