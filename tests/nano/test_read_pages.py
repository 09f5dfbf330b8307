"""nano-read's world: pages, their labels and the vocabulary of their answers. No torch."""

import numpy as np
import pytest
from helpers.nano_read import small_world
from read import batches, fonts, labels, texts
from read.cells import cells
from read.evaluate import SETS, case, distance, figures, iou, matched, parse
from read.layout import KINDS, SHAPES, Page, Segment
from read.paint import MAX_PATCHES, PATCH, Look, boxes, grid, paint, turned
from read.vocabulary import EOS, PLACES, Vocabulary


@pytest.fixture(scope="module")
def world():
    return small_world()


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary()


def page_of(text, size=40):
    wide = fonts.load("", size).getlength(text)
    return Page(int(wide) + 60, 90, [Segment(text, 30, 60, "", size)])


@pytest.mark.parametrize(
    ("size", "rows_columns"),
    [((1000, 714), (13, 18)), ((400, 40), (5, 50)), ((17, 17), (16, 16)), ((20, 2000), (160, 1))],
)
def test_the_grid_is_the_published_rule(size, rows_columns):
    assert grid(*size, 256) == rows_columns


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_a_function_of_its_seed_and_fits_its_answer(world, vocabulary, kind):
    for n in range(12):
        page, how, picture = world.sample(np.random.default_rng((3, n)), kind, 1.0)
        again = world.sample(np.random.default_rng((3, n)), kind, 1.0)
        assert page == again[0] and how == again[1] and picture.tobytes() == again[2].tobytes()
        lines = batches.answer(page, how, *grid(*picture.size))
        assert bool(lines) == (kind != "none")
        ids = vocabulary.ocr(lines)
        assert ids[-1] == EOS and len(ids) <= 264
        assert parse(vocabulary.decode(ids[:-1])) == lines


def test_sheets_without_text_are_empty_ruled_or_drawn_on(world):
    pages = [world.layout.page(np.random.default_rng((4, n)), "none") for n in range(60)]
    assert not any(p.segments for p in pages)
    assert {bool(p.rules) for p in pages} == {bool(p.shapes) for p in pages} == {True, False}
    drawn = {kind for p in pages for kind, _, _ in p.shapes}
    assert drawn == set(SHAPES)
    for p in pages:
        levels = np.asarray(paint(np.random.default_rng(0), p, Look(0, 0)).convert("L"), int)
        if not p.shapes:  # which can stand beside the sheet
            assert (np.ptp(levels) > 0) == bool(p.rules)


def test_boxes_hold_the_ink():
    page = page_of("Hgypj 1,5")
    ink = np.asarray(paint(np.random.default_rng(0), page, Look(0, 0)).convert("L"), np.float32)
    y, x = np.nonzero(np.abs(ink - ink[0, 0]) > 20)
    x0, y0, x1, y1 = boxes(page, Look(0, 0))[0]
    assert abs(y0 - y.min()) <= 1 and abs(y1 - y.max() - 1) <= 1
    assert 0 <= x.min() - x0 <= 6 and 0 <= x1 - x.max() - 1 <= 6  # the room that a letter has of its own


def test_turning_moves_ink_and_boxes_alike():
    page, how = page_of("Milk and bread", 30), Look(3.0, 0)
    ink = np.asarray(paint(np.random.default_rng(0), page, how).convert("L"), np.float32)
    y, x = np.nonzero(np.abs(ink - ink[0, 0]) > 40)
    x0, y0, x1, y1 = boxes(page, how)[0]
    assert x0 - 2 <= x.min() and x.max() <= x1 + 2 and y0 - 2 <= y.min() and y.max() <= y1 + 2
    a = turned(*turned(12.0, 70.0, page, 3.0), page, -3.0)
    assert np.allclose(a, (12.0, 70.0))


def test_labels_name_the_character_under_each_point():
    text = "WMWMHHWM"
    page = page_of(text)
    rows, columns = grid(page.width, page.height)
    characters, ranks, places, reach = labels.dense(page, Look(0, 0), rows, columns)
    box = labels.final_boxes(page, Look(0, 0), rows, columns)[0]
    middle = (box[1] + box[3]) // 2
    edges = 30 + np.cumsum([0] + [fonts.load("", 40).getlength(c) for c in text])
    seen = set()
    for column in range(columns):
        for k, dx in enumerate(labels.SPOTS_X):
            x = (column * PATCH + dx) * page.width / (columns * PATCH)
            patch = middle // PATCH * columns + column
            row = int(middle % PATCH >= 8)
            inside = edges[0] <= x < edges[-1]
            assert (characters[patch, row, k] > 0) == inside
            if inside:
                at = int(np.searchsorted(edges, x, "right")) - 1
                assert characters[patch, row, k] == labels.CLASS[text[at]]
                seen.add(at)
                if k == 1:
                    assert ranks[patch, row] == 1 and places[patch, row] == at + 1
                    point = np.array([column * PATCH + 8, middle // PATCH * PATCH + labels.SPOTS_Y[row]] * 2)
                    assert np.allclose(point + reach[patch, row] * PATCH, box, atol=1e-3)
    assert seen == set(range(len(text)))


def test_cells_of_characters_hold_their_middles():
    page, how = page_of("WMWMHHWM"), Look(2.0, 0)
    rows, columns = grid(page.width, page.height)
    found = labels.cells_of(page, how, rows, columns)[0]
    where = [cells()[i] for i in found]
    assert len(found) == 8 and len({r for r, _ in where}) <= 2 and [c for _, c in where] == sorted(c for _, c in where)
    characters = labels.dense(page, how, rows, columns)[0]
    for letter, (r, c) in zip("WMWMHHWM", where, strict=True):
        patches = [y * columns + x for y in (2 * r, 2 * r + 1) for x in (2 * c, 2 * c + 1) if y < rows and x < columns]
        assert labels.CLASS[letter] in characters[patches]
    assert (labels.cells_of(Page(4000, 40, [Segment("far away", 3500, 30, "", 30)]), Look(0, 0), 1, 100)[0] == -1).all()


def test_a_batch_is_a_function_of_its_number(world):
    plan = (5, 7, 3, "dense", 0.5, 300)
    made = [batches.make(world, *p) for p in (plan, plan, (5, 8, *plan[2:]))]
    (a, lines, looks), (b, same, _), (c, others, _) = made
    assert lines == same != others
    assert [[len(t) for _, t in page] for page in lines] == [[len(x) for x in page] for page in looks]
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True)) and not np.array_equal(a[0], c[0])
    patches, at, stats, characters = a[:4]
    assert patches.shape == (3, MAX_PATCHES, 768) and characters.shape == (3, MAX_PATCHES, 2, 3)
    for n in range(3):
        used = at[n, 0] > 0
        assert used.sum() == at[n, 0].max() * at[n, 1].max() and not patches[n][~used].any()
        assert 0 < stats[n, 0] < 255 and stats[n, 1] > 0


def test_statistics_are_those_of_the_whole_picture(world):
    _, _, picture = world.sample(np.random.default_rng(1), "line", 1.0)
    values = np.asarray(picture, np.float64)
    assert labels.statistics(picture) == pytest.approx((values.mean(), values.std()), rel=1e-9)


def test_a_character_of_the_world_is_one_token(vocabulary):
    assert all(len(vocabulary.encode(c)) == 1 for c in texts.CHARS + "éß“–")
    for text in ("Total £5.20", "naïve – 中\n", "  a\tb"):
        assert vocabulary.decode(vocabulary.encode(text)) == text
    assert vocabulary.tokens[vocabulary.place(0, 7)] == "<x_7>" and vocabulary.tokens[vocabulary.place(1, 9)] == "<y_9>"
    assert len(vocabulary) == vocabulary.base + 2 * PLACES == len(vocabulary.id)


def test_words_of_one_part_are_never_in_the_other(tmp_path):
    path = tmp_path / "words"
    path.write_text(
        "\n".join(f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(400)) + "\nit's\n3rd\nna\u00efve\n"
    )
    train, held = texts.read_words(path, "train"), texts.read_words(path, "held")
    assert not set(train) & set(held) and len(train) + len(held) == 401 and 10 < len(held) < 90
    assert texts.held("Apple") == texts.held("aPPLE")


def test_figures_count_what_they_say(world):
    assert distance("kitten", "sitting") == 3 and distance("", "ab") == 2
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert matched([(0, 0, 10, 10), (20, 0, 30, 10)], [(20, 0, 30, 10)]) == [0, 1]
    cases = [case(world, "pages", n) for n in range(6)]
    true = iter(cases)

    def perfect(_):
        return "".join("<bbox><x_{}><y_{}><x_{}><y_{}></bbox>{}\n".format(*box, text) for box, text in next(true)[1])

    said = figures(perfect, cases)
    assert said["cer"] == 0 and said["exact"] == said["boxes"] == said["iou"] == 1 and said["whole"] < 0.2
    assert figures(lambda _: "", cases)["cer"] == 1
    quiet = [case(world, "none", n) for n in range(4)]
    assert figures(lambda _: "", quiet)["silent"] == 1
    assert figures(lambda _: "<bbox><x_1><y_1><x_2><y_2></bbox>a\n", quiet)["silent"] == 0
    assert [case(world, s, 0)[0].size for s in SETS] == [case(world, s, 0)[0].size for s in SETS]


def test_every_font_of_the_list_has_a_part_a_package_and_a_licence():
    rows = fonts.rows()
    assert {r[0] for r in rows} == {"train", "held"} and all(len(r) == 4 and all(r) for r in rows)
    assert len({r[1] for r in rows}) == len(rows)
