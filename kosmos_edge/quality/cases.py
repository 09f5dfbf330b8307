"""Pictures to measure on: scenes of nano's shapes, any folder, or pictures with a file of labels.

A file of labels is JSON, in one of two forms. COCO's own (images with file_name, annotations with bbox [x, y, w, h]
in pixels, categories), or:

    {"boxes": "pixels",                         # or "fractions" of the upright picture; x1, y1, x2, y2
     "pictures": [
       {"file": "street.jpg",                   # relative to --pictures, or to the file of labels
        "objects": [{"name": "dog", "box": [10, 20, 110, 220]}],
        "questions": [{"question": "How many dogs are there?", "answer": ["1", "one"], "kind": "count"}]}]}

`objects`, `questions` and `kind` may be missing; an answer is a string or a list of accepted ones.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import Picture, open_image
from kosmos_edge.results import Corners

WORLD_SIZE = 224  # pixels of a painted scene
QUESTIONS_PER_SCENE = 4
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".jp2"})
MAX_LABEL_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Question:
    """A question and what counts as right. kind: by which accuracies are grouped, such as count or exist."""

    text: str
    accepted: tuple[str, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Thing:
    """An object that is in the picture; box in fractions of it."""

    name: str
    box: Corners


@dataclass(frozen=True, slots=True)
class Case:
    """One image with its labels; without labels everything else is empty."""

    name: str
    source: str | int  # a file's path, or a scene's seed
    things: tuple[Thing, ...] = ()
    questions: tuple[Question, ...] = ()

    def picture(self) -> Picture:
        """Decoded or painted, upright RGB."""
        if isinstance(self.source, str):
            return open_image(self.source)
        from kosmos_edge.quality.nano_world import render, sample_scene

        return open_image(render(sample_scene(self.source), WORLD_SIZE))


# ---- the shapes of nano's world


def world_cases(seed: int, count: int) -> list[Case]:
    """`count` held-out scenes. Seed 0 begins at HELD_OUT_SEED, each further seed 100 million later."""
    from kosmos_edge.quality import nano_questions
    from kosmos_edge.quality.nano_world import HELD_OUT_SEED, sample_scene

    first = HELD_OUT_SEED + 100_000_000 * seed
    kinds = nano_questions.QUESTIONS
    cases = []
    for number in range(first, first + count):
        scene = sample_scene(number)
        objects = [(o.shape, o.color, o.box) for o in scene.objects]
        ground = (scene.background.kind, scene.background.tone)
        rng = random.Random(f"questions {number}")
        questions = []
        for turn in range(QUESTIONS_PER_SCENE):
            kind = kinds[(number * QUESTIONS_PER_SCENE + turn) % len(kinds)]
            asked = nano_questions.ask(objects, ground, rng, kind, style=False)
            if asked is not None:
                questions.append(Question(asked[0], (asked[1],), kind))
        things = tuple(Thing(o.name, o.box) for o in scene.objects)
        cases.append(Case(f"scene {number}", number, things, tuple(questions)))
    return cases


# ---- folders and labels


def folder_cases(folder: str | os.PathLike[str], count: int | None) -> list[Case]:
    """The first `count` pictures of a folder (None: all), by name; folders inside are left out."""
    root = Path(folder)
    if not root.is_dir():
        raise InvalidRequest(f"--pictures: {root} is not a folder")
    files = sorted(path for path in root.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise InvalidRequest(f"--pictures: {root} contains no images ({', '.join(sorted(SUFFIXES))})")
    return [Case(path.name, str(path)) for path in files[:count]]


def labelled_cases(
    labels: str | os.PathLike[str], folder: str | os.PathLike[str] | None, count: int | None
) -> list[Case]:
    """The first `count` pictures of a file of labels (None: all)."""
    path = Path(labels)
    content = _read_json(path)
    root = path.parent if folder is None else Path(folder)
    if folder is not None and not root.is_dir():
        raise InvalidRequest(f"--pictures: {root} is not a folder")
    if "images" in content and "annotations" in content:
        rows = _from_coco(content)
    elif isinstance(content.get("pictures"), list):
        rows = _from_own(content)
    else:
        raise InvalidRequest(f"--labels: {path} has neither COCO's images and annotations nor a list named pictures")
    cases: list[Case] = []
    try:
        for file, in_pixels, objects, questions in rows:
            if count is not None and len(cases) == count:
                break
            name = root / file
            if not name.is_file():
                raise InvalidRequest(f"--labels: {path} names {file}, which is not in {root}")
            width, height = _upright_size(name) if in_pixels and objects else (1, 1)
            things = tuple(Thing(label, _fractions(box, width, height, file)) for label, box in objects)
            cases.append(Case(file, str(name), things, tuple(questions)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidRequest(f"--labels: {path} does not have the documented format: {error!r}") from error
    if not cases:
        raise InvalidRequest(f"--labels: {path} names no image")
    return cases


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_LABEL_BYTES:
            raise InvalidRequest(f"--labels: {path} has more than {MAX_LABEL_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"--labels: cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"--labels: {path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InvalidRequest(f"--labels: {path} holds a {type(content).__name__}, expected an object")
    return content


_Row = tuple[str, bool, list[tuple[str, list[float]]], list[Question]]


def _from_own(content: dict[str, Any]) -> Iterator[_Row]:
    form = content.get("boxes", "pixels")
    if form not in ("pixels", "fractions"):
        raise ValueError(f"boxes is {form!r}, expected pixels or fractions")
    for row in content["pictures"]:
        objects = [(_text(o["name"]), [float(v) for v in o["box"]]) for o in row.get("objects", [])]
        questions = [
            Question(_text(q["question"]), _accepted(q["answer"]), _text(q.get("kind", "question")))
            for q in row.get("questions", [])
        ]
        yield _text(row["file"]), form == "pixels", objects, questions


def _from_coco(content: dict[str, Any]) -> Iterator[_Row]:
    categories = {row["id"]: _text(row["name"]) for row in content["categories"]}
    objects: dict[Any, list[tuple[str, list[float]]]] = {}
    for row in content["annotations"]:
        if row.get("iscrowd"):
            continue
        x, y, w, h = (float(value) for value in row["bbox"])
        objects.setdefault(row["image_id"], []).append((categories[row["category_id"]], [x, y, x + w, y + h]))
    for image in content["images"]:
        yield _text(image["file_name"]), True, objects.get(image["id"], []), []


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected a text, got {value!r}")
    return value


def _accepted(value: Any) -> tuple[str, ...]:
    accepted = (value,) if isinstance(value, str) else tuple(value)
    if not accepted:
        raise ValueError("a question has no answer")
    return tuple(_text(answer) for answer in accepted)


def _upright_size(path: Path) -> tuple[int, int]:
    picture = open_image(path)
    return picture.width, picture.height


def _fractions(box: Iterable[float], width: int, height: int, file: str) -> Corners:
    x1, y1, x2, y2 = box
    out = (x1 / width, y1 / height, x2 / width, y2 / height)
    if not (-0.01 <= out[0] < out[2] <= 1.01 and -0.01 <= out[1] < out[3] <= 1.01):  # a pixel of rounding is forgiven
        raise ValueError(f"{file}: box {[x1, y1, x2, y2]} is not inside an image of {width} x {height}")
    return out
