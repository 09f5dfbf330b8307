"""Files of answers to questions about pictures, as `eval owleval --out` and the authors of OwlEval write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.pages import read_text
from kosmos_edge.evaluation.tasks.records import read_json, read_lines, reading
from kosmos_edge.images import picture_suffixes

PICTURES = ("cases", "OwlEval/cases", ".")
QUESTIONS = ("questions.jsonl", "OwlEval/questions.jsonl")


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a picture."""

    id: str
    image: str  # file name
    text: str
    abilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model said."""

    model: str
    questions: tuple[Question, ...]
    said: dict[str, str]  # by question


def read_answers(path: Path) -> Answers:
    """A file of {"question_id", "image", "question", "answer"}, a list or a record in each line.

    The model is the records' model_id, or without one the file's name. InvalidRequest for files that are not so.
    """
    text = read_text(path).lstrip()
    records: Any = read_json(path) if text.startswith("[") else read_lines(path)
    questions, said, models = [], {}, set()
    with reading(path):
        for one in records:
            id = str(one["question_id"])
            if id in said:
                raise ValueError(f"question {id} is there twice")
            questions.append(Question(id, str(one["image"]), str(one["question"])))
            said[id] = str(one["answer"])
            models.add(str(one.get("model_id", path.stem)))
    if len(models) != 1:
        raise InvalidRequest(f"{path}: expected the answers of one model, got {', '.join(sorted(models)) or 'none'}")
    return Answers(models.pop(), tuple(questions), said)


def join(paths: Sequence[Path], folder: Path) -> tuple[list[Question], list[Answers]]:
    """The questions of the first file, with their abilities where the data have them, and all files' answers.

    InvalidRequest unless every model answers the same questions.
    """
    found = [read_answers(path) for path in paths]
    names = [one.model for one in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidRequest(f"two files are of the model {twice}: expected one of each (model_id, or the file's name)")
    first = found[0]
    for path, one in zip(paths[1:], found[1:], strict=True):
        for here, there, what in ((first, one, path), (one, first, paths[0])):
            if missing := [question.id for question in here.questions if question.id not in there.said]:
                raise InvalidRequest(f"{what}: no answer to question {missing[0]}, which another file has")
    known = _abilities(folder)
    return [Question(q.id, q.image, q.text, known.get(q.id, ())) for q in first.questions], found


def _abilities(folder: Path) -> dict[str, tuple[str, ...]]:
    path = next((folder / name for name in QUESTIONS if (folder / name).is_file()), None)
    if path is None:
        return {}
    with reading(path):
        listed = ((str(one["question_id"]), str(one.get("ability", ""))) for one in read_lines(path))
        return {id: tuple(part.strip() for part in text.split(",") if part.strip()) for id, text in listed}


def find_picture(folder: Path, name: str) -> Path:
    """The picture of an answer: by its name, or by its name without the suffix, which some files have wrong."""
    places = [folder / place for place in PICTURES if (folder / place).is_dir()]
    for place in places:
        if (place / Path(name).name).is_file():
            return place / Path(name).name
    suffixes = picture_suffixes()
    for place in places:
        stem = Path(name).stem
        found = sorted(one for one in place.iterdir() if one.stem == stem and one.suffix.lower() in suffixes)
        if found:
            return found[0]
    raise InvalidRequest(f"--data: {folder} has no picture {name} (looked in {', '.join(map(str, places)) or folder})")


def write_lines(records: Sequence[dict[str, Any]], model: str) -> bytes:
    """Records as lines of JSON, each with the model's name."""
    return "".join(
        json.dumps(record | {"model_id": model}, ensure_ascii=False, allow_nan=False) + "\n" for record in records
    ).encode()
