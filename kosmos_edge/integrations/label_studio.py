"""An ML backend for Label Studio:

    python -m kosmos_edge.integrations.label_studio --model kosmos-2 --port 9090

It needs label-studio-ml, the package of github.com/HumanSignal/label-studio-ml-backend (the one on PyPI is older). For
every Image of a project's labelling interface it fills

- RectangleLabels: the boxes of its labels. A label's predicted_values="a car, a truck" are the prompts instead of its
  value; the tag's model_score_threshold="0.5" is the least score.
- TextArea: the caption.
- Choices: the choice that fits best.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from label_studio_ml.api import init_app
from label_studio_ml.model import LabelStudioMLBase

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import Picture, open_image
from kosmos_edge.integrations.finding import MIN_SCORE, Finder, use_model
from kosmos_edge.model import Model

_settings: dict[str, Any] = {"model": None, "device": "auto", "threads": None}
_loaded: list[Model] = []


class KosmosEdge(LabelStudioMLBase):  # type: ignore[misc,unused-ignore]
    """What label-studio-ml asks for predictions; it makes one for each request."""

    def setup(self) -> None:
        """Names the model."""
        self.set("model_version", _model().name)

    def predict(self, tasks: Sequence[dict[str, Any]], context: Any = None, **_: Any) -> list[dict[str, Any]]:
        """A prediction for each task."""
        return [self._prediction(task) for task in tasks]

    def _prediction(self, task: dict[str, Any]) -> dict[str, Any]:
        results: list[dict[str, Any]] = []
        pictures: dict[str, Picture] = {}
        for name, control in self.parsed_label_config.items():
            fill = _FILLS.get(control["type"])
            if fill is None or [given["type"] for given in control["inputs"]] != ["Image"]:
                continue
            address = task["data"].get(control["inputs"][0]["value"])
            if not isinstance(address, str):
                continue
            if address not in pictures:
                pictures[address] = open_image(self.get_local_path(address, task_id=task.get("id")))
            tag = self.label_interface.get_control(name)
            for row in fill(pictures[address], tag):
                results.append({"from_name": name, "to_name": control["to_name"][0], **row})
        scores = [row["score"] for row in results if "score" in row]
        scored = {"score": sum(scores) / len(scores)} if scores else {}
        return {"model_version": _model().name, "result": results, **scored}


def _rectangles(picture: Picture, tag: Any) -> list[dict[str, Any]]:
    prompts: dict[str, str] = {}
    for label, given in tag.labels_attrs.items():
        words = [word.strip() for word in given.attr.get("predicted_values", "").split(",") if word.strip()]
        prompts |= dict.fromkeys(words or [label], label)
    if not prompts:
        return []
    least = tag.attr.get("model_score_threshold")
    try:
        threshold = MIN_SCORE if least is None else float(least)
    except ValueError:
        raise InvalidRequest(f"model_score_threshold: expected a number in 0..1, got {least!r}") from None
    size = {"original_width": picture.width, "original_height": picture.height, "image_rotation": 0}
    rows = []
    for one in Finder(prompts, _model(), min_score=threshold).find(picture):
        x1, y1, x2, y2 = one.pixels
        place = {
            "x": 100 * x1 / picture.width,
            "y": 100 * y1 / picture.height,
            "width": 100 * (x2 - x1) / picture.width,
            "height": 100 * (y2 - y1) / picture.height,
        }
        value = {**place, "rotation": 0, "rectanglelabels": [one.label]}
        score = {} if one.score is None else {"score": one.score}
        rows.append({"type": "rectanglelabels", "value": value, **size, **score})
    return rows


def _caption(picture: Picture, tag: Any) -> list[dict[str, Any]]:
    return [{"type": "textarea", "value": {"text": [_model().caption(picture).text]}}]


def _choice(picture: Picture, tag: Any) -> list[dict[str, Any]]:
    best = _model().score(picture, list(tag.labels)).best
    return [{"type": "choices", "value": {"choices": [best.text]}, "score": best.share}]


_FILLS = {"RectangleLabels": _rectangles, "TextArea": _caption, "Choices": _choice}


def _model() -> Model:
    """The model, loaded once."""
    if not _loaded:
        _loaded.append(use_model(**_settings))
    return _loaded[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(prog="python -m kosmos_edge.integrations.label_studio")
    parser.add_argument("-m", "--model", metavar="TAG|FILE", help="Model: a tag, a GGUF file, or user/repo:TAG.")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9090)
    given = parser.parse_args(arguments)
    _settings.update(model=given.model, device=given.device, threads=given.threads)
    _model()
    init_app(KosmosEdge).run(given.host, given.port)


if __name__ == "__main__":
    main()
