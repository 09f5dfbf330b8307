"""Boxes, cells and entities: equal to what kosmos-2's published processor does, written out here from its patterns."""

import math
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.grounding_reference import DELIMITER, Box, reference_box, reference_cells, reference_parse
from helpers.vocabularies import TAGS, Vocabulary, train

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest

CAPTION = (
    "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object> warming"
    " himself by<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>."
)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return train(tmp_path_factory.mktemp("spm"))


# ---- the reference: transformers' models/kosmos2/processing_kosmos2.py, restated ----


def without_tokens(parsed: tuple[str, list[tuple]]) -> tuple[str, list[tuple]]:
    return parsed[0], [entity[:5] for entity in parsed[1]]


# ---- boxes and cells ----


def test_published_boxes() -> None:
    assert _core.cells_to_box(44, 863) == (0.390625, 0.046875, 0.984375, 0.828125)
    assert _core.cells_to_box(33, 33) == (0.03125, 0.03125, 0.0625, 0.0625)
    assert _core.cells_to_box(0, 1023) == (0.015625, 0.015625, 0.984375, 0.984375)
    assert _core.box_to_cells(0.25, 0.25, 0.5, 0.5) == (264, 495)
    assert _core.box_to_cells(0, 0, 1, 1) == (0, 1023)


@pytest.mark.parametrize("bins", [1, 2, 3, 7, 32])
def test_every_pair_of_cells_has_the_reference_box(bins: int) -> None:
    cells = range(bins * bins)
    for i in cells if bins < 32 else random.Random(1).sample(cells, 60):
        assert [_core.cells_to_box(i, j, bins) for j in cells] == [reference_box(i, j, bins) for j in cells]


@pytest.mark.parametrize("bins", [1, 2, 3, 7, 32, 1000])
def test_random_boxes_have_the_reference_cells(bins: int) -> None:
    rng = random.Random(bins)

    def edge() -> float:
        return rng.choice([rng.random(), rng.randint(0, 64) / 64, rng.randint(0, bins) / bins])

    for _ in range(5_000):
        (x1, x2), (y1, y2) = sorted((edge(), edge())), sorted((edge(), edge()))
        if x1 < x2 and y1 < y2:
            assert _core.box_to_cells(x1, y1, x2, y2, bins) == reference_cells(x1, y1, x2, y2, bins)


def test_cells_come_back_from_their_box() -> None:
    rng = random.Random(2)
    for _ in range(2_000):
        top, bottom = sorted(rng.choices(range(32), k=2))
        left, right = sorted(rng.choices(range(32), k=2))
        cells = (top * 32 + left, bottom * 32 + right)
        assert _core.box_to_cells(*_core.cells_to_box(*cells)) == cells


@pytest.mark.parametrize("x", [5e-324, 1e-300, 1 - 2**-53])
def test_boxes_thinner_than_rounding_stay_in_the_grid(x: float) -> None:
    for bins in (1, 3, 7, 32, 1000):
        box = (0.0, 0.0, x, x) if x < 0.5 else (x, x, 1.0, 1.0)
        cell = 0 if x < 0.5 else bins * bins - 1
        assert _core.box_to_cells(*box, bins) == (cell, cell)


@pytest.mark.parametrize(
    "box",
    [
        *((-0.1, 0, 1, 1), (0, -1e-9, 1, 1), (0, 0, 1.2, 1), (0, 0, 1, 1.0000001)),
        *((0.5, 0, 0.5, 1), (0, 0.6, 1, 0.5), (1, 0, 0, 1), (0, 0, 0, 0)),
        *((math.nan, 0, 1, 1), (0, 0, math.nan, 1), (0, -math.inf, 1, 1), (0, 0, 1, math.inf)),
    ],
)
def test_boxes_outside_the_picture_are_refused(box: Box) -> None:
    with pytest.raises(InvalidRequest, match=r"0 <= x1 < x2 <= 1"):
        _core.box_to_cells(*box)


def test_cells_and_grids_out_of_range_are_refused() -> None:
    for cells in [(-1, 0), (0, -1), (1024, 0), (0, 1024), (2**31 - 1, 0)]:
        with pytest.raises(InvalidRequest, match="outside the grid of 32 x 32"):
            _core.cells_to_box(*cells)
    for bins in (0, -1, 1025, 2**62):
        for call in (lambda b=bins: _core.cells_to_box(0, 0, b), lambda b=bins: _core.box_to_cells(0, 0, 1, 1, b)):
            with pytest.raises(InvalidRequest, match=f"1 to 1024 are allowed, not {bins}"):
                call()
        with pytest.raises(InvalidRequest, match="location bins"):
            _core.parse_grounded_text("", bins)


# ---- entities ----


def test_the_published_caption() -> None:
    text, entities = _core.parse_grounded_text(CAPTION)
    assert text == "An image of a snowman warming himself by a fire."
    snowman, fire = (0.390625, 0.046875, 0.984375, 0.828125), (0.171875, 0.015625, 0.484375, 0.890625)
    assert entities == [
        ("a snowman", 12, 21, [snowman], [(44, 863)], []),
        ("a fire", 41, 47, [fire], [(5, 911)], []),
    ]


P1, P2 = "<patch_index_0001>", "<patch_index_0069>"
OBJECT = f"<object>{P1}{P2}</object>"
EDGE_CASES = {  # text -> names and spans
    f"<phrase>a dog</phrase><object>{P1}</object>": [],  # one index
    f"<phrase>a dog</phrase><object>{P1}{P2}": [],  # unterminated
    f"<phrase>a dog</phrase><object>{P1}{P2}{P1}</object>": [],
    f"<phrase>a dog</phrase><object>{P1}{P2}{DELIMITER}</object>": [],
    f"<phrase>a dog</phrase><object>{DELIMITER}{P1}{P2}</object>": [],
    "<phrase>a dog</phrase><object></object>": [],
    "<phrase>a dog</phrase>": [],
    f"<phrase>a dog</phrase> {OBJECT}": [("<patch_index_1><patch_index_69>", 6, 6)],
    f"<phrase>a <b> dog</phrase>{OBJECT}": [("<patch_index_1><patch_index_69>", 6, 6)],
    f"<phrase></phrase>{OBJECT}": [("<patch_index_1><patch_index_69>", 0, 0)],
    f" {OBJECT}": [("<patch_index_1><patch_index_69>", 0, 0)],
    f" {OBJECT} dog": [("<patch_index_1><patch_index_69>", -1, -1)],
    f"<phrase> a  dog </phrase>{OBJECT}": [("a  dog", 0, 6)],
    f"<phrase>dog</phrase>{OBJECT}<phrase>dog</phrase>{OBJECT}": [("dog", 0, 3), ("dog", 3, 6)],
    f"a < b<phrase>dog</phrase>{OBJECT} c": [("dog", 2, 5)],  # literal < eats up to the next >
    f"é日😀<phrase>ñandú</phrase>{OBJECT}": [("ñandú", 3, 8)],  # code points
    f"<object>{P1}{P2}{DELIMITER}{P2}{P1}</object>": [
        *(("<patch_index_1><patch_index_69>", 0, 0), ("<patch_index_69><patch_index_1>", 0, 0)),
    ],
    f"<phrase>dogs</phrase><object>{P1}{P2}{DELIMITER}{P2}{P1}</object>": [("dogs", 0, 4)],
    "<phrase>a</phrase><object><patch_index_00000000000000000001><patch_index_2></object>": [("a", 0, 1)],
}


@pytest.mark.parametrize("text", EDGE_CASES)
def test_edge_cases(text: str) -> None:
    parsed = _core.parse_grounded_text(text)
    assert [entity[:3] for entity in parsed[1]] == EDGE_CASES[text]
    assert without_tokens(parsed) == reference_parse(text)


@pytest.mark.parametrize("cell", ["1024", "9999", "99999999999", "9" * 400])
def test_an_object_outside_the_grid_is_no_entity(cell: str) -> None:
    text = f"<phrase>a dog</phrase><object>{P1}<patch_index_{cell}></object> runs {OBJECT}"
    assert _core.parse_grounded_text(text)[1] == _core.parse_grounded_text(f"a dog runs {OBJECT}")[1]
    assert _core.parse_grounded_text(text)[0] == "a dog runs"


def test_an_inverted_box_comes_back_inverted() -> None:
    boxes = _core.parse_grounded_text(f"<object>{P2}{P1}</object>")[1][0][3]
    assert boxes == [(0.171875, 0.078125, 0.046875, 0.015625)]


SOUP = [
    *(
        "<phrase>",
        "<phrase>",
        "</phrase>",
        "</phrase>",
        "<object>",
        "<object>",
        "</object>",
        "</object>",
        DELIMITER,
        P1,
        P2,
    ),
    *(
        "<patch_index_1023>",
        "<patch_index_7>",
        "<patch_index_1024>",
        "<patch_index_>",
        "<patch_index_12",
        "<grounding>",
    ),
    *(
        " a dog",
        "dog ",
        " ",
        "\n",
        "\u00a0",
        "\u3000",
        "\u0085",
        "\x1c",
        "\u200b",
        "é日",
        "😀",
        "<",
        ">",
        "<<",
        "/",
        "x < y",
        "</s>",
    ),
    *(
        P1 + P2,
        P1 + P2 + DELIMITER,
        OBJECT,
        f"<phrase> two dogs</phrase>{OBJECT}",
        f"<object>{P1}{P2}{DELIMITER}{P2}{P2}</object>",
    ),
]


def soups(bins: int, count: int) -> Iterator[str]:
    """Random sequences of the parts above, their cells made to fit a grid of bins * bins."""
    rng = random.Random(bins)
    last = bins * bins - 1
    for _ in range(count):
        soup = "".join(rng.choice(SOUP) for _ in range(rng.choice([2, 4, 8, 16, 40])))
        yield (
            soup.replace("_0069", f"_{min(69, last - 2):04d}")
            .replace("_1023", f"_{last}")
            .replace("_1024", f"_{last + 1}")
        )


@pytest.mark.parametrize("bins", [32, 4])
def test_random_tag_soups_equal_the_reference(bins: int) -> None:
    found = 0
    for text in soups(bins, 12_000):
        expected = reference_parse(text, bins)
        assert without_tokens(_core.parse_grounded_text(text, bins)) == expected, text
        found += len(expected[1])
    assert found > 3_000


def random_ids(vocabulary: Vocabulary, rng: random.Random) -> list[int]:
    """Ids of any kind, with well-formed entities among them."""
    tag = {name: vocabulary.id(name) for name in TAGS}
    first_cell = vocabulary.id("<patch_index_0000>")
    ids: list[int] = []
    for _ in range(rng.randint(1, 12)):
        words = [rng.randrange(4, vocabulary.mask) for _ in range(rng.randint(0, 3))]
        pairs = [first_cell + rng.randrange(1024) for _ in range(2 * rng.randint(1, 3))]
        for i in range(len(pairs) - 2, 0, -2):
            pairs.insert(i, tag[DELIMITER])
        box = [tag["<object>"], *pairs, tag["</object>"]]
        phrase = [tag["<phrase>"], *words, tag["</phrase>"]]
        loose = [rng.randrange(vocabulary.tokenizer.size) for _ in range(rng.randint(0, 3))]
        ids += rng.choice([phrase + box, phrase + box, box, phrase, loose, words, [rng.choice(list(tag.values()))]])
    return ids


def test_ids_parse_like_their_decoded_text_and_name_their_tokens(vocabulary: Vocabulary) -> None:
    rng = random.Random(21)
    first_cell = vocabulary.id("<patch_index_0000>")
    boxes = 0
    for _ in range(3_000):
        ids = random_ids(vocabulary, rng)
        parsed = _core.parse_grounded(vocabulary.tokenizer, ids)
        assert without_tokens(parsed) == reference_parse(vocabulary.tokenizer.decode(ids))
        for *_, cells, tokens in parsed[1]:
            assert [(ids[a] - first_cell, ids[b] - first_cell) for a, b in tokens] == cells
            boxes += len(cells)
    assert boxes > 3_000


def test_a_tag_spelled_by_ordinary_pieces_is_named_by_its_first_piece(vocabulary: Vocabulary) -> None:
    pieces = ["<unk>", "<object>", "</object>", "<", "patch_index_1>", "<patch_index_0002>"]
    tokenizer = _core.Tokenizer(pieces, [-1.0] * 6, [2, 4, 4, 1, 1, 4], b"", 0)
    assert _core.parse_grounded(tokenizer, [0, 1, 3, 4, 5, 2])[1][0][4:] == ([(1, 2)], [(2, 4)])


LONG = [
    "<" * 300_000,
    "<phrase>" * 40_000,
    "<object>" * 40_000,
    "<phrase>a</phrase>" * 20_000,
    P1 * 20_000,
    "<\n" * 150_000,
]


@pytest.mark.parametrize("text", LONG, ids=lambda text: repr(text[:20]))
def test_long_soups_are_parsed_in_linear_time(text: str) -> None:
    for tail in ("", ">", OBJECT):
        clean, entities = _core.parse_grounded_text(text + tail)
        lines = (text + tail).split("\n")
        assert clean == "\n".join(re.sub("<.*?>", "", v) if ">" in v else v for v in lines).strip()
        assert len(entities) == (1 if tail == OBJECT else 0)


def test_ill_formed_input_is_refused(vocabulary: Vocabulary) -> None:
    with pytest.raises(InvalidRequest, match="UTF-8 at byte 1"):
        _core.parse_grounded_text(b"a\xff")
    with pytest.raises(InvalidRequest, match="token id 999999 is outside"):
        _core.parse_grounded(vocabulary.tokenizer, [999_999])


# ---- streams and clean-up ----


def test_deltas_join_to_the_decoded_text(vocabulary: Vocabulary) -> None:
    rng = random.Random(22)
    for _ in range(2_000):
        ids = random_ids(vocabulary, rng)
        plain = [i for i in ids if vocabulary.types[i] != 4]
        for keep_tags, kept in ((True, ids), (False, plain)):
            decoder = _core.StreamDecoder(vocabulary.tokenizer, keep_tags=keep_tags)
            assert "".join([decoder.push(i) for i in ids] + [decoder.finish()]) == vocabulary.tokenizer.decode(kept)


def test_entities_arrive_when_their_object_closes(vocabulary: Vocabulary) -> None:
    rng = random.Random(23)
    for _ in range(500):
        ids = random_ids(vocabulary, rng)
        grounder = _core.StreamGrounder(vocabulary.tokenizer)
        seen: list[tuple] = []
        for n, token in enumerate(ids, start=1):
            seen += grounder.push(token)
            so_far = _core.parse_grounded(vocabulary.tokenizer, ids[:n])[1]
            assert [(e[0], *e[3:]) for e in seen] == [(e[0], *e[3:]) for e in so_far]


def test_a_close_spelled_by_ordinary_pieces_is_seen() -> None:
    pieces = ["<unk>", "<object>", P1, "<", "/object", "</object", ">"]
    tokenizer = _core.Tokenizer(pieces, [-1.0] * 7, [2, 4, 4, 1, 1, 1, 1], b"", 0)
    for close in ([5, 6], [3, 4, 6]):
        grounder = _core.StreamGrounder(tokenizer)
        events = [grounder.push(i) for i in [1, 2, 2, *close, 6]]
        assert [len(e) for e in events] == [0] * (len(events) - 2) + [1, 0]


def test_a_stream_refuses_ids_outside_the_vocabulary_and_goes_on(vocabulary: Vocabulary) -> None:
    for stream in (_core.StreamDecoder(vocabulary.tokenizer), _core.StreamGrounder(vocabulary.tokenizer)):
        with pytest.raises(InvalidRequest, match="token id -1"):
            stream.push(-1)
        assert not stream.push(0)


CLEAN_UP = [" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"]


def test_clean_up_equals_the_chain_of_replacements() -> None:
    rng = random.Random(24)
    parts = [*CLEAN_UP, " ", "a", "'", "é", "  ", ".", "n't", "\n"]
    for _ in range(5_000):
        text = expected = "".join(rng.choices(parts, k=rng.randint(0, 12)))
        for pattern in CLEAN_UP:
            expected = expected.replace(pattern, pattern.strip())
        assert _core.clean_up_tokenization(text) == expected


def test_the_published_vocabulary_gives_the_published_entities(shared_dir: Path) -> None:
    published = Vocabulary((shared_dir / "data" / "kosmos-2" / "sentencepiece.bpe.model").read_bytes())
    ids = [64012, 712, 1648, 9, 64007, 10, 43867, 64008, 64009, 64057, 64876, 64010]
    ids += [5950, 597, 32, 64007, 10, 646, 64008, 64009, 64018, 64924, 64010, 4, 2]
    text, entities = _core.parse_grounded(published.tokenizer, ids)
    assert text == "An image of a snowman warming himself by a fire."
    assert [(e[0], e[1], e[2], e[4], e[5]) for e in entities] == [
        ("a snowman", 12, 21, [(44, 863)], [(9, 10)]),
        ("a fire", 41, 47, [(5, 911)], [(20, 21)]),
    ]
