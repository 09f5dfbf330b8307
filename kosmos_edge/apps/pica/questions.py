"""Files of questions about images: VQAv2's and OK-VQA's JSON, a list of records as VizWiz has it, JSONL, CSV."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.tasks.records import beside, read_json, read_lines, read_rows, reading, text_of

_COCO = re.compile(r"(?:train|val|test)20\d\d")
_FEWEST = 4  # answers with which a question can reach the accuracy 1


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about an image."""

    id: str
    image: str  # path
    question: str
    answers: tuple[str, ...] | None = None  # people's; None where they are not known


def read_questions(
    path: str | os.PathLike[str],
    annotations: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
) -> list[Asked]:
    """The questions of a file, in its order. InvalidRequest names the file and the record that is wrong.

    path: .json with an object of "questions" (VQAv2, OK-VQA) or a list of records; .jsonl with a record per line; .csv
    with a header. A record has question, image (a path), and may have id (or question_id), answer (one, which counts as
    if all people had given it) or answers (at least 4; in a CSV file as a JSON list). annotations: the answers to
    questions of the first form. images: folder of the images; default: that of the file.
    """
    file = Path(path)
    folder = file.parent if images is None else Path(images)
    if images is not None and not folder.is_dir():
        raise InvalidRequest(f"{folder}: expected the folder of the images")
    kind = file.suffix.lower()
    if kind not in (".json", ".jsonl", ".csv"):
        raise InvalidRequest(f"{file}: expected a file of questions, .json, .jsonl or .csv")
    value = read_json(file) if kind == ".json" else None
    if isinstance(value, dict):
        found = list(_vqa(file, value, None if annotations is None else Path(annotations), folder))
    else:
        if annotations is not None:
            raise InvalidRequest(f"{annotations}: annotations belong to questions in VQAv2's form, {file} has another")
        records = value if kind == ".json" else read_lines(file) if kind == ".jsonl" else _rows(file)
        found = list(_records(file, records, folder))
    if not found:
        raise InvalidRequest(f"{file}: no questions in it")
    return found


def _vqa(file: Path, value: Mapping[str, Any], annotations: Path | None, folder: Path) -> Iterator[Asked]:
    truth: dict[Any, tuple[str, ...]] = {}
    if annotations is not None:
        known = read_json(annotations)
        with reading(annotations) as records:
            for one in records.each(_list_in(known, "annotations")):
                if one["question_id"] in truth:
                    raise ValueError(f"the question_id {one['question_id']} is there twice")
                truth[one["question_id"]] = _answers(one["answers"])
    pictures = _pictures(file, value)
    seen: set[str] = set()
    with reading(file) as records:
        for one in records.each(_list_in(value, "questions")):
            id, number = one["question_id"], one["image_id"]
            if annotations is not None and id not in truth:
                raise ValueError(f"question {id} has no annotation in {annotations}")
            if isinstance(number, bool) or not str(number).isdecimal():
                raise ValueError(f"image_id: expected a whole number, got {number!r}")
            names = [f"COCO_{part}_{int(number):012d}.jpg" for part in pictures] + [f"{int(number):012d}.jpg"]
            places = [place for name in names for place in (name, *(f"{part}/{name}" for part in pictures))]
            image = beside(folder, *places)
            yield Asked(_new(id, seen), os.fspath(image), text_of(one["question"], "question"), truth.get(id))


def _pictures(file: Path, value: Mapping[str, Any]) -> list[str]:
    """The part of COCO that the images are of, such as val2014: what the file says of itself, else its name."""
    found = _COCO.search(str(value.get("data_subtype", "")).replace("-dev", "")) or _COCO.search(
        file.name.replace("-dev", "")
    )
    return [found[0]] if found else []


def _records(file: Path, values: Any, folder: Path) -> Iterator[Asked]:
    seen: set[str] = set()
    with reading(file) as records:
        if not isinstance(values, list):
            raise ValueError("expected an object with questions, or a list of records")
        for place, one in enumerate(records.each(values), 1):
            if not isinstance(one, Mapping):
                raise ValueError(f"expected an object, got {one!r}")
            image = os.fspath(folder / text_of(one.get("image"), "image"))
            id = one.get("id", one.get("question_id"))
            if id in (None, ""):
                id = place
            answers = one.get("answers")
            if answers is None and one.get("answer") not in (None, ""):
                answers = [one["answer"]]
            truth = None if answers is None else _answers(answers)
            yield Asked(_new(id, seen), image, text_of(one.get("question"), "question"), truth)


def _rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file; what is empty is not there."""
    rows = []
    with reading(file) as records:
        for row in records.each(read_rows(file, ("image", "question"))):
            one: dict[str, Any] = {name: text for name, text in row.items() if name is not None and text}
            if "answers" in one:
                one["answers"] = json.loads(one["answers"])
            rows.append(one)
    return rows


def _answers(values: Any) -> tuple[str, ...]:
    """People's answers: texts, or VQAv2's objects. One counts as ten."""
    if not isinstance(values, list) or not values:
        raise ValueError(f"answers: expected a list with answers, got {values!r}")
    texts = [one["answer"] if isinstance(one, Mapping) else one for one in values]
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise ValueError(f"answers: expected texts, got {wrong[0]!r}")
    if len(texts) == 1:
        return tuple(texts * 10)
    if len(texts) < _FEWEST:
        raise ValueError(f"answers: expected one, or at least {_FEWEST} for VQA accuracy, got {len(texts)}")
    return tuple(texts)


def _new(id: Any, seen: set[str]) -> str:
    if not isinstance(id, str | int) or isinstance(id, bool):
        raise ValueError(f"the id: expected a number or a text, got {id!r}")
    if str(id) in seen:
        raise ValueError(f"the id {id} is there twice")
    seen.add(str(id))
    return str(id)


def _list_in(value: Any, name: str) -> Iterable[Any]:
    found = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise ValueError(f"expected an object with a list of {name}")
    return found


__all__ = ["Asked", "read_questions"]
