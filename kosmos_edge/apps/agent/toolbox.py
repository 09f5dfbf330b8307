"""The tools of a run: the verbs of the models (kosmos_edge.tools), and crop, draw_boxes and measure.

A tool reads pictures of the gallery and may add one. It opens no file, no connection and no process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kosmos_edge.apps.agent.gallery import Gallery, Shown, check_inside
from kosmos_edge.apps.agent.measure import measure
from kosmos_edge.apps.agent.untrusted import MOST_ITEMS, UNTRUSTED, cut
from kosmos_edge.draw import draw_boxes
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import open_image
from kosmos_edge.model import Model
from kosmos_edge.results import Box, Corners, Entity, Result
from kosmos_edge.tools import CORNERS, FLAG, STRING, Tool, VerbTool, verb_tools

MOST_BOXES = 12  # of one call of draw_boxes or measure
_HANDLE = "Handle of a picture, such as image_1"
_ORDERED: dict[str, Any] = {**CORNERS, "description": "x1, y1, x2, y2: left, top, right, bottom"}

CROP = Tool(
    "crop",
    "Cuts a box out of a picture and gives the handle of the new picture, for a closer look. In pixels, or with "
    "normalized in fractions of the picture, 0..1.",
    {"image": STRING, "box": _ORDERED, "normalized": FLAG},
    ("image", "box"),
)
DRAW_BOXES = Tool(
    "draw_boxes",
    "Draws boxes with labels onto a copy of a picture, for the user to see, and gives the handle of the copy.",
    {
        "image": STRING,
        "boxes": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"box": _ORDERED, "label": STRING},
                "required": ["box", "label"],
                "additionalProperties": False,
            },
            "minItems": 1,
            "maxItems": MOST_BOXES,
        },
        "normalized": FLAG,
    },
    ("image", "boxes"),
)
MEASURE = Tool(
    "measure",
    "Measures boxes of one picture: sizes, areas, centres, and for each pair of boxes the distance, the gap, the "
    "overlap, and which is left of, right of, above or below the other.",
    {
        "image": STRING,
        "boxes": {"type": "array", "items": _ORDERED, "minItems": 1, "maxItems": MOST_BOXES},
        "normalized": FLAG,
    },
    ("image", "boxes"),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tool gave."""

    payload: dict[str, Any]  # for the language model
    result: Result | None = None  # of a verb
    made: str | None = None  # the handle of a new picture


class Toolbox:
    """The tools that a run has, and its pictures."""

    def __init__(self, model: Model, reader: Model | None, gallery: Gallery) -> None:
        """reader: for read, and for the verbs that the model lacks."""
        self.gallery = gallery
        self._models = {tool.verb: model for tool in verb_tools(model.model_info["tasks"])}
        if reader is not None:
            for tool in verb_tools(reader.model_info["tasks"]):
                if tool.verb == "read" or tool.verb not in self._models:
                    self._models[tool.verb] = reader
        self.tools: dict[str, Tool] = {tool.name: tool for tool in verb_tools(self._models.keys())}
        self.tools |= {tool.name: tool for tool in (CROP, DRAW_BOXES, MEASURE)}

    def schemas(self) -> list[dict[str, Any]]:
        """The tools in the form of OpenAI's API."""
        return [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters(image=_HANDLE),
                },
            }
            for tool in self.tools.values()
        ]

    def check(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as the tool takes them; InvalidRequest for an unknown tool and for wrong arguments."""
        if name not in self.tools:
            raise InvalidRequest(f"there is no tool {name[:100]!r}; there are {', '.join(self.tools)}")
        return self.tools[name].check(arguments)

    def run(self, name: str, arguments: Mapping[str, Any], cancel: Any = None) -> Outcome:
        """Calls a tool with checked arguments. Errors: those of the verb, InvalidRequest, Cancelled."""
        tool, shown = self.tools[name], self.gallery[arguments["image"]]
        rest = {key: value for key, value in arguments.items() if key != "image"}
        if isinstance(tool, VerbTool):
            model = self._models[tool.verb]
            result = tool.call(model, self.gallery.encoded(shown.handle, model, cancel), rest, cancel)
            return Outcome(self._seen(name, shown, result), result)
        normalized = bool(rest.get("normalized", False))
        if tool is CROP:
            return self._crop(shown, _pixels(rest["box"], normalized, shown))
        if tool is DRAW_BOXES:
            boxes = [_pixels(item["box"], normalized, shown) for item in rest["boxes"]]
            return self._draw(shown, boxes, [item["label"] for item in rest["boxes"]])
        boxes = [_pixels(box, normalized, shown) for box in rest["boxes"]]
        facts = measure(boxes, shown.picture.width, shown.picture.height)
        return Outcome({"tool": name, **_about(shown), **facts})

    def _seen(self, name: str, shown: Shown, result: Result) -> dict[str, Any]:
        """A verb's answer. All that the model saw in the picture is under one key."""
        text, note = cut(result.text)
        notes = [*result.notes, *([] if note is None else [note])]
        if result.finish_reason == "length":
            notes.append("the text ends at the model's limit; there may be more")
        untrusted: dict[str, Any] = {"text": text}
        if result.lines is not None:
            untrusted = {"lines": [{"text": cut(line.text)[0], **_place(line.box, shown)} for line in result.lines]}
        elif result.entities:
            untrusted["boxes"] = [_row(entity, box, shown) for entity in result.entities for box in entity.boxes]
        for key in ("lines", "boxes"):
            rows = untrusted.get(key, [])
            if len(rows) > MOST_ITEMS:
                notes.append(f"there are {len(rows)} {key}; these are the first {MOST_ITEMS}")
                untrusted[key] = rows[:MOST_ITEMS]
        payload: dict[str, Any] = {"tool": name, **_about(shown), UNTRUSTED: untrusted}
        return {**payload, "notes": notes} if notes else payload

    def _crop(self, shown: Shown, box: Corners) -> Outcome:
        made = self.gallery.crop(shown, box)
        payload = {"tool": "crop", "made": _about(made), "of": shown.handle, "box": list(made.box or ())}
        return Outcome(payload, made=made.handle)

    def _draw(self, shown: Shown, boxes: Sequence[Corners], labels: Sequence[str]) -> Outcome:
        width, height = shown.picture.width, shown.picture.height
        entities = [
            Entity(label, (0, 0), (Box.from_pixels(*box, width=width, height=height),))
            for box, label in zip(boxes, labels, strict=True)
        ]
        drawn = open_image(draw_boxes(shown.picture, entities))
        made = self.gallery.add(drawn, "drawing", parent=shown.handle)
        return Outcome({"tool": "draw_boxes", "made": _about(made), "of": shown.handle}, made=made.handle)


def _about(shown: Shown) -> dict[str, Any]:
    return {"image": shown.handle, "width": shown.picture.width, "height": shown.picture.height}


def _pixels(box: Sequence[float], normalized: bool, shown: Shown) -> Corners:
    """The box in pixels. InvalidRequest if it is not in the picture, or looks like fractions of it."""
    x1, y1, x2, y2 = box
    width, height = shown.picture.width, shown.picture.height
    if normalized:
        if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
            raise InvalidRequest(
                f"box: expected fractions with 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1 (normalized), got {list(box)}"
            )
        return x1 * width, y1 * height, x2 * width, y2 * height
    if max(box) <= 1 and min(width, height) > 1:
        raise InvalidRequest(f"box: {list(box)} looks like fractions; pass normalized: true, or pixels")
    corners: Corners = (x1, y1, x2, y2)
    check_inside(corners, width, height)
    return corners


def _row(entity: Entity, box: Box, shown: Shown) -> dict[str, Any]:
    score = box.score if box.score is not None else entity.score
    row = {"phrase": cut(entity.phrase)[0], **_place(box, shown)}
    for name, value in (("score", score), ("found_score", entity.found_score)):
        if value is not None:
            row[name] = round(value, 3)
    return row if box.valid else {**row, "valid": False}


def _place(box: Box, shown: Shown) -> dict[str, Any]:
    """The box in pixels of the picture, and for a crop in the user's picture, too."""
    if box.pixels is None:
        return {}
    place: dict[str, Any] = {"box": [round(value, 1) for value in box.pixels]}
    if shown.origin is not None:
        handle, left, top = shown.origin
        x1, y1, x2, y2 = box.pixels
        moved = (x1 + left, y1 + top, x2 + left, y2 + top)
        place["original"] = {"image": handle, "box": [round(value, 1) for value in moved]}
    return place


__all__ = ["CROP", "DRAW_BOXES", "MEASURE", "Outcome", "Toolbox"]
