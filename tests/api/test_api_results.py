"""Result, Box, Ranking: their written forms, and what is drawn of them. No model is needed here."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kosmos_edge.draw import distinct_colour, draw_boxes, save_drawing
from kosmos_edge.errors import ImageDecodeError, InvalidRequest, KosmosIOError
from kosmos_edge.results import Box, Entity, Line, Ranking, Result, Score, Timings, error_fields


def box(x1: float, y1: float, x2: float, y2: float, size: tuple[int, int] = (640, 320), score: float = 0.5) -> Box:
    width, height = size
    return Box((x1, y1, x2, y2), (x1 * width, y1 * height, x2 * width, y2 * height), (1, 2), score)


def snowman() -> Result:
    text = "a snowman warming himself by a fire."
    entities = [
        Entity("a snowman", (0, 9), (box(0.25, 0.125, 0.75, 0.5),), 0.5),
        Entity("a fire", (29, 35), (box(0.0, 0.5, 0.5, 1.0, score=0.25), box(0.5, 0.5, 1.0, 1.0)), 0.3),
    ]
    hf = ("An image of " + text, [("a snowman", (12, 21), [(0.25, 0.125, 0.75, 0.5)])])
    return Result(
        text, entities, [5, 6, 2], None, "stop", "cpu", "tiny", 640, 320, Timings(1, 2, 3, 4, 10, 70, 3), hf=hf
    )


# ---- boxes


def test_box_in_both_frames() -> None:
    by_pixels = Box.from_pixels(64, 32, 320, 160, width=640, height=320)
    assert by_pixels.normalized == (0.1, 0.1, 0.5, 0.5) and by_pixels.pixels == (64, 32, 320, 160)
    by_fraction = Box.from_normalized(0.1, 0.1, 0.5, 0.5)
    assert by_fraction.normalized == (0.1, 0.1, 0.5, 0.5) and by_fraction.pixels is None
    assert by_fraction.valid and not Box((0.5, 0, 0.5, 1)).valid and not Box((0.5, 0.9, 0.6, 0.1)).valid


@pytest.mark.parametrize(
    "corners",
    [
        (-1, 0, 10, 10),
        (0, 0, 641, 10),
        (0, 0, 10, 321),
        (10, 0, 10, 10),
        (20, 0, 10, 10),
        (0, 10, 10, 5),
        (math.nan, 0, 10, 10),
        (0, 0, math.inf, 10),
        (0, 0, "9", 10),
        (True, 0, 9, 10),
        (None, 0, 9, 10),
        (10**400, 0, 9, 10),
    ],
)
def test_boxes_outside_the_picture(corners: tuple) -> None:
    with pytest.raises(InvalidRequest, match="box"):
        Box.from_pixels(*corners, width=640, height=320)


@pytest.mark.parametrize("corners", [(0, 0, 1.01, 1), (-0.01, 0, 1, 1), (0.5, 0.5, 0.5, 0.6), (0, 0.6, 1, 0.5)])
def test_fractions_outside_the_picture(corners: tuple) -> None:
    with pytest.raises(InvalidRequest, match="fractions"):
        Box.from_normalized(*corners)


def test_numpy_numbers_are_numbers() -> None:
    corners = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    assert Box.from_normalized(*corners).normalized == pytest.approx((0.1, 0.2, 0.3, 0.4))


# ---- written forms


def test_to_hf_is_the_tuple_of_transformers() -> None:
    result = snowman()
    text, entities = result.to_hf()
    assert text == "An image of a snowman warming himself by a fire."
    assert entities == [("a snowman", (12, 21), [(0.25, 0.125, 0.75, 0.5)])]
    entities[0][2].clear()
    assert result.to_hf()[1][0][2] != []  # the caller's copy is its own


def test_to_dict_is_json_and_complete() -> None:
    result = snowman()
    record = json.loads(result.to_json())
    assert record == result.to_dict()
    assert record["text"] == result.text and record["error"] is None and record["error_type"] is None
    assert record["entities"][1]["phrase"] == "a fire" and record["entities"][1]["span"] == [29, 35]
    assert record["entities"][1]["boxes"][0] == {
        "pixels": [0.0, 160.0, 320.0, 320.0],
        "normalized": [0.0, 0.5, 0.5, 1.0],
        "cells": [1, 2],
        "score": 0.25,
        "valid": True,
    }
    assert record["timings"]["total_ms"] == 10 and record["timings"]["tokens"] == 3
    assert "box" not in record
    result.box = box(0, 0, 1, 1)
    assert result.to_dict()["box"]["normalized"] == [0, 0, 1, 1]


def test_lines_are_written_where_there_are_any() -> None:
    result = snowman()
    assert result.lines is None and "lines" not in result.to_dict()
    result.lines = []  # read, and found none
    assert result.to_dict()["lines"] == []
    sized = Box.from_pixels(8, 16, 320, 40, width=640, height=320)
    result.lines = [Line("Total 9.50 €", sized, 0.75), Line("no size", Box((0, 0, 1, 1)), cut=True)]
    assert json.loads(result.to_json())["lines"] == [
        {"text": "Total 9.50 €", "box": [8, 16, 320, 40], "score": 0.75},
        {"text": "no size", "box": None, "score": None, "cut": True},
    ]


def test_to_json_leaves_unicode_readable() -> None:
    assert "雪だるま ☃" in Result("雪だるま ☃").to_json()


def test_errors_are_written() -> None:
    result = Result("", source="a.jpg", error=ImageDecodeError("a.jpg: truncated"))
    assert not result.ok and Result("").ok
    assert result.to_dict()["error"] == "a.jpg: truncated" and result.to_dict()["error_type"] == "ImageDecodeError"
    assert error_fields(None) == {"error": None, "error_type": None}


def test_boxes_of_all_entities() -> None:
    assert [b.normalized[0] for b in snowman().boxes] == [0.25, 0.0, 0.5]
    assert Result("nothing").boxes == []


def test_to_coco() -> None:
    coco = snowman().to_coco(image_id=7, first_annotation_id=3, file_name="s.png")
    assert coco["images"] == [{"id": 7, "file_name": "s.png", "width": 640, "height": 320}]
    assert coco["categories"] == [{"id": 1, "name": "a snowman"}, {"id": 2, "name": "a fire"}]
    first = coco["annotations"][0]
    assert first["bbox"] == [160.0, 40.0, 320.0, 120.0] and first["area"] == 320 * 120 and first["iscrowd"] == 0
    assert [a["id"] for a in coco["annotations"]] == [3, 4, 5]
    assert [a["category_id"] for a in coco["annotations"]] == [1, 2, 2] and {
        a["image_id"] for a in coco["annotations"]
    } == {7}
    json.dumps(coco, allow_nan=False)


def test_to_coco_shares_categories_and_leaves_out_inverted_boxes() -> None:
    categories = {"a fire": 9}
    result = snowman()
    result.entities.append(Entity("a hat", (0, 0), (Box((0.5, 0.5, 0.4, 0.6), (320, 160, 256, 192)),)))
    coco = result.to_coco(categories=categories)
    assert categories == {"a fire": 9, "a snowman": 10, "a hat": 11}
    assert [a["category_id"] for a in coco["annotations"]] == [10, 9, 9]
    with pytest.raises(InvalidRequest, match="no image"):
        Result("text only").to_coco()


def test_to_markdown() -> None:
    assert snowman().to_markdown("my photo.jpg") == (
        "[a snowman](my%20photo.jpg#xywh=pixel:160,40,320,120) warming himself by "
        "[a fire](my%20photo.jpg#xywh=pixel:0,160,320,160)[2](my%20photo.jpg#xywh=pixel:320,160,320,160)."
    )
    tricky = Result("a *star* [x]", [Entity("[x]", (9, 12), (Box((0.1, 0.2, 0.3, 0.4)),))])
    assert tricky.to_markdown() == r"a \*star\* [\[x\]](#xywh=percent:10,20,20,20)"
    nameless = Result("text", [Entity("", (2, 2), (box(0, 0, 1, 1),)), Entity("x", (0, 1), (Box((1, 1, 0, 0)),))])
    assert nameless.to_markdown() == "text"


def test_fragments_are_plain_decimals_of_full_precision() -> None:
    def fragment(box: Box) -> str:
        return Result("x", [Entity("x", (0, 1), (box,))]).to_markdown().partition("xywh=")[2].rstrip(")")

    assert fragment(Box((0.1, 0.1, 0.2, 0.2), (12345.678901, 0.5, 54321.75, 99999.0))) == (
        "pixel:12345.678901,0.5,41976.071099,99998.5"
    )
    assert fragment(Box((1e-7, 2.5e-5, 0.3, 0.4))) == "percent:0.00001,0.0025,29.99999,39.9975"
    third = 1 / 3
    assert fragment(Box((0, 0, third, 1))) == "percent:0,0,33.33333333333333,100"
    assert float(fragment(Box((0, 0, third, 1))).split(",")[2]) == pytest.approx(third * 100, rel=1e-15)


def test_ranking_is_json() -> None:
    rows = [
        Score("a cat", -1.0, 0.7, -1.0, -0.5, [5, 6], [-0.4, -0.6], True),
        Score("a dog", -2.0, 0.3, -2.0, -1.0, [5, 7], [-1, -1], False),
    ]
    ranking = Ranking(rows, "sum", "cpu", "tiny")
    record = json.loads(ranking.to_json())
    assert record["ranking"][0]["text"] == "a cat" and ranking.best.text == "a cat" and ranking.ok
    assert record["ranking"][0]["token_ids"] == [5, 6] and record["error"] is None


# ---- drawing


def test_boxes_are_drawn_where_they_are() -> None:
    grey = Image.new("RGB", (640, 320), (128, 128, 128))
    drawn = draw_boxes(grey, Result("", [Entity("a snowman", (0, 9), (box(0.25, 0.125, 0.75, 0.5),))]))
    assert drawn.size == grey.size and drawn.mode == "RGB"
    pixels = np.asarray(drawn)
    colour = list(distinct_colour(0))
    # every side of the first box, away from its corners and labels
    assert pixels[100, 160].tolist() == colour and pixels[100, 480].tolist() == colour
    assert pixels[40, 400].tolist() == colour and pixels[160, 330].tolist() == colour
    assert pixels[100, 320].tolist() == [128] * 3 and pixels[5, 600].tolist() == [128] * 3
    assert np.asarray(grey).min() == 128  # the caller's picture is left alone


def test_colours_differ() -> None:
    colours = [distinct_colour(number) for number in range(12)]
    distances = [max(abs(a - b) for a, b in zip(p, q, strict=True)) for p in colours for q in colours if p != q]
    assert len(set(colours)) == 12 and min(distances) > 25


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (64, 64), (2000, 1500)])
def test_any_size_can_be_drawn_on(size: tuple[int, int]) -> None:
    entities = [
        Entity(f"a thing with a long name {n}", (0, 1), (box(n / 10, 0.0, 1.0, n / 10 + 0.1, size),)) for n in range(9)
    ]
    entities.append(Entity("", (0, 0), (Box((0.9, 0.9, 0.1, 0.1)),)))
    assert draw_boxes(Image.new("RGB", size), entities).size == size


PHRASES = [
    *("a red\nhat", "\r\n", "a\tb\x0bc", "\x00x", "\x1b[31mred", "a\u2028b\u2029c", "\ud800", "\u202eto the left"),
    *("שלום עולם", "مرحبا", "😀" * 50, "👨\u200d👩\u200d👧", "e" + "\u0301" * 5000, "ﷺ" * 3000, "w" * 200_000),
]


@pytest.mark.parametrize("phrase", PHRASES, ids=[ascii(phrase[:12]) for phrase in PHRASES])
@pytest.mark.parametrize("size", [(1, 1), (64, 64), (1500, 40)])
def test_any_phrase_can_be_drawn(phrase: str, size: tuple[int, int]) -> None:
    entities = [Entity(phrase, (0, 1), (Box((0.1, 0.1, 0.5, 0.5), score=score),)) for score in (None, 0.5)]
    assert draw_boxes(Image.new("RGB", size), entities).size == size


def test_a_line_break_is_drawn_as_a_blank() -> None:
    def drawn(phrase: str) -> bytes:
        return draw_boxes(Image.new("RGB", (300, 200)), [Entity(phrase, (0, 1), (box(0.1, 0.5, 0.9, 0.9),))]).tobytes()

    assert drawn("a red\nhat") == drawn("a red \r\n hat\n") == drawn("a red hat") != drawn("a redhat")


def test_a_long_phrase_is_measured_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageDraw

    calls, real = [], ImageDraw.ImageDraw.textlength

    def textlength(pen: ImageDraw.ImageDraw, text: str, **options: object) -> float:
        calls.append(len(text))
        return real(pen, text, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "textlength", textlength)
    draw_boxes(Image.new("RGB", (200, 200)), [Entity("w" * 100_000, (0, 1), (box(0.1, 0.5, 0.9, 0.9),))])
    assert len(calls) < 20 and max(calls) < 300


def test_labels_do_not_cover_each_other() -> None:
    entities = [Entity(f"thing {n}", (0, 1), (box(0.3, 0.3, 0.8, 0.8),)) for n in range(4)]
    pixels = np.asarray(draw_boxes(Image.new("RGB", (640, 320), "black"), entities))
    for number in range(3):  # a label's filled area is more than its letters leave
        assert (pixels == distinct_colour(number)).all(axis=2).sum() > 300, number


def test_an_answer_about_another_picture_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="640 x 320"):
        draw_boxes(Image.new("RGB", (320, 640)), snowman())


def test_save_drawing(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), "red")
    for name in ("a.png", "b.jpg", "Ж.webp"):
        save_drawing(image, tmp_path / name)
        with Image.open(tmp_path / name) as saved:
            assert saved.size == (8, 8)
    with pytest.raises(InvalidRequest, match="suffix"):
        save_drawing(image, tmp_path / "a.xyz")
    with pytest.raises(KosmosIOError):
        save_drawing(image, tmp_path / "no" / "folder.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.jpg", "Ж.webp"]
