"""A model that answers what a function says, and keeps the prompts; a task run on it."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from kosmos_edge.errors import ImageDecodeError
from kosmos_edge.evaluation.log import Log
from kosmos_edge.evaluation.registry import find_task
from kosmos_edge.evaluation.report import report
from kosmos_edge.evaluation.run import Run, Settings, run
from kosmos_edge.evaluation.task import Item, Variant
from kosmos_edge.results import Box, Entity, Ranking, Result, Score, Timings


class Scripted:
    """said(prompt, names of its images) gives a text, or boxes in pixels; rated(prompt, text, names) ln p."""

    def __init__(
        self,
        said: Callable[[str, list[str]], Any] = lambda prompt, images: "",
        rated: Callable[[str, str, list[str]], float] = lambda prompt, text, images: 0.0,
    ) -> None:
        self.said, self.rated = said, rated
        self.name, self.model_info, self.metadata = "scripted", {"prompts": {}}, {"general.architecture": "x"}
        self.prompts: list[str] = []
        self.options: list[dict[str, Any]] = []
        self.texts: list[list[str]] = []
        self.encoded: list[Path] = []

    def encode(self, image: Path) -> Path:
        """Its path stands for it."""
        self.encoded.append(image)
        _check(image)
        return image

    def batch_calls(
        self, calls: Iterable[tuple[str, Mapping[str, Any]]], *, batch_size: int = 1
    ) -> Iterator[Result | Ranking]:
        """As the model's."""
        for verb, arguments in calls:
            given = dict(arguments)
            if verb == "locate":
                words = given.pop("template").replace("{phrase}", phrase := given.pop("phrase"))
                segments = [given.pop("image"), f"<grounding>{words}"]  # as the verb does
            else:
                assert verb == "generate"
                segments = given.pop("segments")
                phrase = segments[-1].rpartition("<phrase> ")[2].removesuffix("</phrase>")
            try:
                prompt, images = self._read(segments)
            except ImageDecodeError as error:
                yield Result("", error=error, finish_reason="error")
                continue
            self.options.append(given)
            answer = self.said(prompt, images)
            if isinstance(answer, str):
                yield Result(answer, timings=Timings(total_ms=2.0), finish_reason="stop")
            else:
                boxes = tuple(Box((0.1, 0.1, 0.9, 0.9), box, (0, 1)) for box in answer)
                yield Result(phrase, [Entity(phrase, (0, len(phrase)), boxes)], finish_reason="stop")

    def score_segments(
        self, segments: Any, texts: Any, *, raw: bool = False, normalize: str = "sum", cancel: Any = None
    ) -> Ranking:
        """As the model's; every word of a text is a token."""
        prompt, images = self._read(segments)
        self.texts.append(list(texts))
        self.options.append({"normalize": normalize})
        rows = []
        for text in texts:
            value, count = self.rated(prompt, text, images), len(text.split())
            rows.append(Score(text, value, 0.0, value, value / count, [], [], False))
        return Ranking(sorted(rows, key=lambda row: -row.logprob_sum), normalize)

    def _read(self, segments: Any) -> tuple[str, list[str]]:
        prompt, images = "", []
        for segment in segments:
            if isinstance(segment, Path):
                _check(segment)
                images.append(segment.name)
                prompt += "<image>"
            else:
                prompt += segment if isinstance(segment, str) else f"<box {segment}>"
        self.prompts.append(prompt)
        return prompt, images


def _check(image: Path) -> None:
    if not image.is_file():
        raise ImageDecodeError(f"{image}: there is no such file")


def evaluate(name: str, folder: Path, model: Scripted, **variant: Any) -> tuple[dict[str, Any], list[Item], Run]:
    """(report, items, run) of a task."""
    task, chosen = find_task(name), Variant(**variant)
    items = task.load(folder, chosen)
    settings = Settings(str(folder), variant=chosen)
    done = run(task, items, model, "f16", Log(None, False), settings, lambda *_: None)
    made = report(task, [done], settings, len(items))
    json.dumps(made, allow_nan=False)
    return made, items, done


def values(made: dict[str, Any]) -> dict[str, Any]:
    """metric -> value."""
    return {name: metric["value"] for name, metric in made["metrics"].items()}


def draw_picture(path: Path, seed: int = 0, size: tuple[int, int] = (64, 48)) -> Path:
    """A small picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (37 * seed % 256, 91 * seed % 256, 53 * seed % 256)).save(path)
    return path


def write_json(path: Path, value: Any) -> Path:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_lines(path: Path, records: Iterable[Any]) -> Path:
    """A JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path
