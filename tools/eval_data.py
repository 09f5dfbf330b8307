"""Data made by rule, in the files of published data sets, for `kosmos-edge eval`: what a harness must find is known.

    python tools/eval_data.py raven DIR       iq50: matrices of shapes; attributes.json says what is on each image
    python tools/eval_data.py words DIR       rendered-sst2: short opinions as images
    python tools/eval_data.py pages DIR       websrc: shops and timetables; screenshots by Chromium
    python tools/eval_data.py scenes DIR      refcoco and vqav2: held-out scenes of nano's world

The same --seed and --count give the same data, but for screenshots, which are the browser's.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

# ---- Raven's matrices

LEVELS: dict[str, tuple[Any, ...]] = {
    "shape": ("triangle", "square", "pentagon", "hexagon", "circle"),
    "count": (1, 2, 3, 4, 5),
    "size": (1, 2, 3, 4, 5),
    "fill": (0, 1, 2, 3, 4),
}
SIDES = {"triangle": 3, "square": 4, "pentagon": 5, "hexagon": 6, "circle": 90}
GRIDS = {3: (2, 2), 4: (1, 5), 8: (3, 3)}  # cells given: (rows, columns), of which the last cell is asked for
Cell = dict[str, Any]


def _values(rule: str, rows: int, columns: int, draw: random.Random) -> list[list[int]]:
    """The attribute's level in each cell."""
    order = draw.sample(range(5), 5)
    if rule == "rows":
        return [[order[r]] * columns for r in range(rows)]
    if rule == "columns":
        return [order[:columns] for _ in range(rows)]
    if rule == "thirds":  # each level once in each row
        return [[order[(r + c) % 3] for c in range(columns)] for r in range(rows)]
    if rule == "steps":
        return [list(range(columns))] if draw.random() < 0.5 else [list(range(columns))[::-1]]
    if rule == "turns":
        return [[order[c % 2] for c in range(columns)]]
    return [[order[0]] * columns for _ in range(rows)]


RULES = {3: ("rows", "columns"), 4: ("steps", "turns"), 8: ("rows", "columns", "thirds")}


def raven_item(given: int, draw: random.Random) -> tuple[list[Cell], list[Cell]]:
    """(the given cells, six different candidates of which the first is right)."""
    rows, columns = GRIDS[given]
    changing = draw.sample(list(LEVELS), draw.choice((1, 2)))
    tables = {
        name: _values(draw.choice(RULES[given]) if name in changing else "same", rows, columns, draw) for name in LEVELS
    }
    cells = [{name: LEVELS[name][tables[name][r][c]] for name in LEVELS} for r in range(rows) for c in range(columns)]
    candidates = [cells.pop()]
    while len(candidates) < 6:
        name = draw.choice(list(LEVELS))
        other = {**candidates[0], name: draw.choice(LEVELS[name])}
        if other not in candidates:
            candidates.append(other)
    return cells, candidates


def draw_cell(cell: Cell, side: int = 96) -> Image.Image:
    """The shapes of a cell in a row or two, black edges on white."""
    big = 4 * side  # drawn large and made smaller, for smooth edges
    picture = Image.new("L", (big, big), 255)
    pen = ImageDraw.Draw(picture)
    places = {1: [(2, 2)], 2: [(1, 2), (3, 2)], 3: [(1, 1), (3, 1), (2, 3)], 4: [(1, 1), (3, 1), (1, 3), (3, 3)]}
    places[5] = [*places[4], (2, 2)]
    radius = big * (0.05 + 0.024 * cell["size"])
    sides = SIDES[cell["shape"]]
    for x, y in places[cell["count"]]:
        corners = [
            (
                big * x / 4 + radius * math.sin(2 * math.pi * n / sides),
                big * y / 4 - radius * math.cos(2 * math.pi * n / sides),
            )
            for n in range(sides)
        ]
        pen.polygon(corners, fill=255 - 60 * cell["fill"], outline=0, width=8)
    return picture.resize((side, side), Image.Resampling.LANCZOS).convert("RGB")


def raven(folder: Path, count: int, seed: int) -> None:
    """items.json and its images; attributes.json: image -> what is on it. Right answers are equally often anywhere."""
    draw = random.Random(f"raven {seed}")
    places = [n % 6 for n in range(count)]
    draw.shuffle(places)
    items, attributes = [], {}
    for number, place in enumerate(places):
        cells, candidates = raven_item((3, 4, 8)[number % 3], draw)
        right, others = candidates[0], candidates[1:]
        draw.shuffle(others)
        shown = [*others[:place], right, *others[place:]]
        names = [f"images/{number:03}-{n}.png" for n in range(len(cells))]
        choices = [f"images/{number:03}-{letter}.png" for letter in "abcdef"]
        for name, cell in zip(names + choices, cells + shown, strict=True):
            _save(draw_cell(cell), folder / name)
            attributes[name] = cell
        items.append({"id": number, "images": names, "candidates": choices, "answer": place})
    _write(folder / "items.json", items)
    _write(folder / "attributes.json", attributes)


# ---- opinions as images

WORDS = {
    "positive": ("warm", "funny", "brilliant", "moving", "charming", "clever", "a delight", "a triumph"),
    "negative": ("dull", "clumsy", "tedious", "empty", "shallow", "lifeless", "a mess", "a bore"),
}
FRAMES = (
    "this film is {0} and {1}.", "{0} from start to end, and {1}.", "the story is {0}; the cast is {1}.",
    "i found it {0}, even {1}.", "{0}, {1}, and far from what i expected.",
)  # fmt: skip


def words(folder: Path, count: int, seed: int) -> None:
    """test/positive and test/negative, half of the images each; texts.json: image -> its text."""
    draw = random.Random(f"words {seed}")
    texts = {}
    for number in range(count):
        truth = ("positive", "negative")[number % 2]
        text = draw.choice(FRAMES).format(*draw.sample(WORDS[truth], 2))
        name = f"test/{truth}/{number:04}.png"
        _save(_written(text), folder / name)
        texts[name] = text
    _write(folder / "texts.json", texts)


def _written(text: str, side: int = 448, size: int = 44) -> Image.Image:
    """Black words on white, as many in a line as fit."""
    picture = Image.new("RGB", (side, side), (255, 255, 255))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if pen.textlength(longer, font) > side - 40:
            lines.append(word)
        else:
            lines[-1] = longer
    top = (side - 1.3 * size * len(lines)) / 2
    for n, line in enumerate(lines):
        pen.text((20, top + 1.3 * size * n), line, fill=(0, 0, 0), font=font)
    return picture


# ---- web pages

SHOP = ("Copper kettle", "Oak shelf", "Desk lamp", "Wool rug", "Clay vase", "Tin box")
TOWNS = ("Aldham", "Brockley", "Carrow", "Denton", "Elmsett", "Farnham")


def page_of(number: int, draw: random.Random) -> tuple[str, list[tuple[str, str]]]:
    """(HTML, questions with their answers)."""
    if number % 2:
        rows = [(town, f"{draw.randrange(6, 22):02}:{draw.randrange(60):02}") for town in draw.sample(TOWNS, 4)]
        title, heads = f"Trains from platform {number}", ("Stop", "Leaves")
        asked = [(f"When does the train to {town} leave?", time) for town, time in rows]
    else:
        rows = [(thing, f"{draw.randrange(5, 99)} euro") for thing in draw.sample(SHOP, 4)]
        title, heads = f"House and home, page {number}", ("Article", "Price")
        asked = [(f"What does the {thing.lower()} cost?", price) for thing, price in rows]
    cells = "".join(f"<tr><td>{escape(a)}</td><td>{escape(b)}</td></tr>" for a, b in rows)
    html = (
        f"<!DOCTYPE html><html><head><meta charset='utf-8'><title>{escape(title)}</title><style>body {{ font: 24px "
        f"sans-serif; margin: 24px }} td, th {{ padding: 4px 24px 4px 0; text-align: left }}</style></head><body>"
        f"<h1>{escape(title)}</h1><table><tr><th>{heads[0]}</th><th>{heads[1]}</th></tr>{cells}</table>"
        "<script>document.title += '!'</script></body></html>"
    )
    return html, asked


def find_browser() -> str | None:
    """Chromium or Chrome, if one is on the path."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


def screenshot(browser: str, page: Path, target: Path, size: tuple[int, int] = (640, 480)) -> None:
    """The page as the browser shows it, without network and profile."""
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--hide-scrollbars", "--no-first-run", "--disable-background-networking",
                "--host-resolver-rules=MAP * ~NOTFOUND",
                f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", f"--screenshot={target}",
                page.resolve().as_uri(),
            ],
            check=True, capture_output=True, timeout=300,
        )  # fmt: skip


def pages(folder: Path, count: int, seed: int, shoot: Callable[[Path, Path], None] | None = None) -> None:
    """One set of pages, made/01, in the dev split. shoot: makes the screenshot of a page."""
    if shoot is None:
        browser = find_browser()
        if browser is None:
            raise SystemExit("pages: expected chromium or google-chrome on the path")
        shoot = lambda page, target: screenshot(browser, page, target)  # noqa: E731
    draw = random.Random(f"pages {seed}")
    place = folder / "made" / "01"
    (place / "processed_data").mkdir(parents=True, exist_ok=True)
    rows: list[Sequence[Any]] = [("question", "id", "element_id", "answer_start", "answer")]
    for number in range(count):
        html, asked = page_of(number, draw)
        name = f"01{number:05}"
        page = place / "processed_data" / f"{name}.html"
        page.write_text(html, encoding="utf-8")
        shoot(page, page.with_suffix(".png"))
        rows += [(question, f"ma{name}{n:05}", 0, 0, answer) for n, (question, answer) in enumerate(asked)]
    with open(place / "dataset.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    (folder / "dataset_split.csv").write_text("domain,number,split\nmade,01,dev\n", encoding="utf-8")


# ---- scenes of nano's world


def scenes(folder: Path, count: int, seed: int) -> None:
    """refs(unc).p with instances.json, and VQAv2's two files, on the same scenes; answers of ten people who agree."""
    from kosmos_edge.quality.cases import world_cases

    refs, boxes, images, questions, answers = [], [], [], [], []
    for number, case in enumerate(world_cases(seed, count)):
        opened = case.picture()
        size = opened.width, opened.height
        picture = Image.frombytes("RGB", size, opened.rgb)
        for split in ("train2014", "val2014"):
            _save(picture, folder / split / f"COCO_{split}_{number:012}.jpg", quality=95)
        images.append({"id": number, "width": size[0], "height": size[1]})
        names = [thing.name for thing in case.things]
        for thing in case.things:
            if names.count(thing.name) > 1:
                continue
            x1, y1, x2, y2 = (value * size[n % 2] for n, value in enumerate(thing.box))
            boxes.append({"id": len(boxes), "image_id": number, "bbox": [x1, y1, x2 - x1, y2 - y1]})
            text = f"{'an' if thing.name[0] in 'aeiou' else 'a'} {thing.name}"
            sentence = {"sent": text, "raw": text, "tokens": text.split(), "sent_id": 0}
            name = f"COCO_train2014_{number:012}_{len(refs)}.jpg"
            refs.append(
                {
                    "ref_id": len(refs), "ann_id": len(boxes) - 1, "category_id": 1, "image_id": number, "split": "val",
                    "file_name": name, "sentences": [sentence], "sent_ids": [0],
                }
            )  # fmt: skip
        for question in case.questions:
            id = len(questions)
            questions.append({"image_id": number, "question": question.text, "question_id": id})
            people = [
                {"answer": question.accepted[0], "answer_confidence": "yes", "answer_id": n + 1} for n in range(10)
            ]
            answers.append(
                {
                    "question_id": id, "image_id": number, "question_type": question.kind, "answer_type": "other",
                    "multiple_choice_answer": question.accepted[0], "answers": people,
                }
            )  # fmt: skip
    _write(folder / "instances.json", {"annotations": boxes, "images": images})
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, 2))
    _write(folder / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": questions})
    _write(folder / "v2_mscoco_val2014_annotations.json", {"annotations": answers})


# ---- files


def _save(picture: Image.Image, path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


KINDS: dict[str, tuple[Callable[..., None], int]] = {
    "raven": (raven, 48), "words": (words, 100), "pages": (pages, 20), "scenes": (scenes, 100),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, help="items, images, pages or scenes")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    make, usual = KINDS[given.kind]
    make(given.folder, usual if given.count is None else given.count, given.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
