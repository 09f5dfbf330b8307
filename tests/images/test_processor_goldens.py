"""Token ids, decoded text, boxes and phrases equal what transformers' processor gave (make_goldens.py)."""

import numpy as np
import pytest
from helpers.golden_cases import load_arrays, load_json
from helpers.tiny import make_picture, make_vocabulary

from kosmos_edge import _core

GOLDEN = load_json("processor")


@pytest.fixture(scope="module")
def tokenizer() -> _core.Tokenizer:
    """The tiny model's tokenizer."""
    v = make_vocabulary()
    return _core.Tokenizer(v.pieces, v.scores, v.types, b"", 3)


@pytest.mark.parametrize("record", GOLDEN["texts"], ids=lambda r: repr(r["text"])[:40])
def test_ids_of_texts_with_tags(tokenizer: _core.Tokenizer, record: dict) -> None:
    """Tag strings are tags; text between them is encoded on its own."""
    assert tokenizer.encode_with_tags(record["text"]) == record["ids"]


def test_decoded_text(tokenizer: _core.Tokenizer) -> None:
    """Decoding drops special ids and keeps tags, without blanks between them."""
    for record in GOLDEN["soups"]:
        assert tokenizer.decode(record["ids"]) == record["plain"]["decoded"], record["ids"]


def test_phrases_and_boxes(tokenizer: _core.Tokenizer) -> None:
    """Well-formed and ill-formed boxes give transformers' text, phrases, spans and boxes."""
    for record in GOLDEN["soups"]:
        text, entities = _core.parse_grounded(tokenizer, record["ids"], 32)
        expected = record["plain"]
        assert text == expected["text"], expected["decoded"]
        got = [[e[0], [e[1], e[2]], [list(b) for b in e[3]]] for e in entities]
        assert got == expected["entities"], expected["decoded"]
        for entity in entities:  # the tokens that an entity names are its location tokens
            for cells, tokens in zip(entity[4], entity[5], strict=True):
                assert [tokenizer.piece(record["ids"][t]) for t in tokens] == [f"<patch_index_{c:04d}>" for c in cells]


def test_clean_up_of_blanks(tokenizer: _core.Tokenizer) -> None:
    """The text as transformers decodes it by default, with blanks before punctuation removed, and its phrases."""
    cleaned = [r for r in GOLDEN["soups"] if r["cleaned"]]
    assert len(cleaned) >= 10
    for record in cleaned:
        text = _core.clean_up_tokenization(record["plain"]["decoded"])
        assert text == record["cleaned"]["decoded"]
        caption, entities = _core.parse_grounded_text(text, 32)
        assert caption == record["cleaned"]["text"]
        assert [[e[0], [e[1], e[2]], [list(b) for b in e[3]]] for e in entities] == record["cleaned"]["entities"]


def test_boxes_to_cells() -> None:
    """coordinate_to_patch_index of transformers, borders of cells included."""
    for box, cells in GOLDEN["boxes"]["to_cells"]:
        assert list(_core.box_to_cells(*box, 32)) == cells, box


def test_cells_to_boxes() -> None:
    """patch_index_to_coordinate of transformers; an inverted pair stays inverted."""
    for cells, box in GOLDEN["boxes"]["to_box"]:
        assert list(_core.cells_to_box(*cells, 32)) == box, cells


def test_resize_is_pillows() -> None:
    """The bicubic resize equals Pillow's bit for bit."""
    for name, expected in load_arrays().items():
        if not name.startswith("resize/"):
            continue
        _, seed, size, side = name.split("/")
        width, height = (int(v) for v in size.split("x"))
        picture = make_picture(int(seed), width, height)
        got = _core.resize_bicubic(picture.tobytes(), width, height, int(side), int(side))
        assert np.array_equal(np.frombuffer(got, np.uint8).reshape(expected.shape), expected), name
