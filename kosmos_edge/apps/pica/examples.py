"""Solved questions, and which of them are most like a new one."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_edge.apps.index import PictureIndex
from kosmos_edge.apps.words import Words
from kosmos_edge.errors import InvalidRequest, KosmosIOError
from kosmos_edge.images import AS_USUAL, Opening


@dataclass(frozen=True, slots=True)
class Example:
    """A question with its answer."""

    question: str
    answer: str
    image: str | None = None  # path
    context: str | None = None  # caption; None: the index's, else one by the model


def read_examples(path: str | os.PathLike[str]) -> list[Example]:
    """Examples from a file with a JSON object per line: question, answer (or answers, whose first is taken), image (a
    path, relative to the file) and context; other fields are not used. InvalidRequest names the line."""
    found: list[Example] = []
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")  # U+2028 may stand in a text
    except OSError as error:
        raise KosmosIOError(error.errno or 0, error.strerror or str(error), os.fspath(path)) from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path}: expected UTF-8: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(_example(json.loads(line), Path(path).parent))
            except ValueError as error:
                raise InvalidRequest(f"{path}:{number}: {error}") from error
    if not found:
        raise InvalidRequest(f"{path}: no examples in it")
    return found


def _example(record: Any, folder: Path) -> Example:
    if not isinstance(record, dict):
        raise ValueError("expected a JSON object")
    answers = record.get("answers")
    answer = record.get("answer", answers[0] if isinstance(answers, list) and answers else None)
    for name, value in (("question", record.get("question")), ("answer", answer)):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{name}: expected a text, got {value!r}")
    for name in ("image", "context"):
        if not isinstance(record.get(name, ""), str):
            raise ValueError(f"{name}: expected a text, got {record[name]!r}")
    image, context = record.get("image"), record.get("context")
    if image is None and context is None:
        raise ValueError("expected image or context")
    return Example(record["question"], str(answer), None if image is None else os.fspath(folder / image), context)


class Pool:
    """Examples to choose from. With an index by images and questions, without one by questions."""

    def __init__(
        self,
        examples: Sequence[Example],
        index: PictureIndex | None = None,
        *,
        image_weight: float = 1.0,
        text_weight: float = 1.0,
    ) -> None:
        """index: it must have the images of all examples. InvalidRequest names one that it has not."""
        self.examples = list(examples)
        self.index = index
        self._weights = image_weight, text_weight
        questions = [example.question for example in self.examples]
        self._images: Any = None
        self._questions: Any = None
        if index is not None and self.examples:
            lacking = next((example for example in self.examples if example.image is None), None)
            if lacking is not None:
                raise InvalidRequest(f"the example {lacking.question!r} has no image, by which the index would find it")
            self._images = index.vectors([example.image or "" for example in self.examples])
            self._questions = index.text_vectors(questions)
        self._words = Words(questions) if self._questions is None else None

    def nearest(
        self, image: Any, question: str, count: int, opening: Opening = AS_USUAL, *, vector: Any = None
    ) -> list[Example]:
        """The `count` most like the image and question, the most similar first, equal ones in their order.

        Similarity is the sum of the images' cosine (with an index) and the questions' (by a CLIP index, else by
        TF-IDF), each with its weight. The same question about the same file is left out. vector: of the image by the
        index (PictureIndex.vector_of), where it is known. InvalidRequest where there are fewer.
        """
        if count == 0:
            return []
        path = os.path.abspath(image) if isinstance(image, str | os.PathLike) else None
        usable = [
            number
            for number, example in enumerate(self.examples)
            if example.question != question or example.image is None or os.path.abspath(example.image) != path
        ]
        if len(usable) < count:
            raise InvalidRequest(f"expected at least {count} examples for all prompts, got {len(usable)}")
        scores = self._scores(image, question, opening, vector)
        return [self.examples[number] for number in sorted(usable, key=lambda n: (-scores[n], n))[:count]]

    def _scores(self, image: Any, question: str, opening: Opening, vector: Any) -> list[float]:
        of_image, of_text = self._weights
        if self._words is not None:
            likeness = self._words.likeness(question)
        else:
            assert self.index is not None
            likeness = [float(value) for value in self._questions @ self.index.text_vectors([question])[0]]
        scores = [of_text * value for value in likeness]
        if self._images is not None and self.index is not None:
            near = self._images @ (self.index.vector_of(image, opening=opening) if vector is None else vector)
            scores = [score + of_image * float(value) for score, value in zip(scores, near, strict=True)]
        return scores


__all__ = ["Example", "Pool", "read_examples"]
