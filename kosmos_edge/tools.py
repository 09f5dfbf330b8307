"""The verbs as tools that an agent's language model may call: one table, for MCP and for our own agent.

A tool is a name, a description, a JSON Schema of its arguments, and the call of a model's verb. Nothing here knows how
the call came, or where images come from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.model import Model
from kosmos_edge.results import Box, Result

Schema: TypeAlias = Mapping[str, Any]
_SHOWN = 100  # characters of a wrong value that an error repeats

STRING: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean", "default": False}
CORNERS: Schema = {
    "type": "array",
    "items": {"type": "number"},
    "minItems": 4,
    "maxItems": 4,
    "description": "x1, y1, x2, y2",
}


@dataclass(frozen=True, slots=True)
class Tool:
    """What a language model is told about a tool, and the check of what it passes."""

    name: str
    description: str
    properties: Mapping[str, Schema]  # of the arguments
    required: tuple[str, ...]

    def parameters(self, **more: str) -> dict[str, Any]:
        """The JSON Schema of the arguments. more: descriptions of arguments, instead of those here."""
        properties = {name: dict(schema) for name, schema in self.properties.items()}
        for name, text in more.items():
            if name in properties:
                properties[name]["description"] = text
        return {
            "type": "object",
            "properties": properties,
            "required": list(self.required),
            "additionalProperties": False,
        }

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as the tool takes them; InvalidRequest names the first that is wrong.

        A list, number or boolean that was written as JSON text is taken for what it says: some models do that.
        """
        unknown = sorted(str(name) for name in arguments.keys() - set(self.properties))
        if unknown:
            known = ", ".join(self.properties)
            raise InvalidRequest(f"{unknown[0][:_SHOWN]}: unknown argument of {self.name}; known are {known}")
        missing = [name for name in self.required if name not in arguments]
        if missing:
            raise InvalidRequest(f"{missing[0]}: {self.name} needs this argument; it needs {', '.join(self.required)}")
        return {name: _checked(name, value, self.properties[name]) for name, value in arguments.items()}


@dataclass(frozen=True, slots=True)
class VerbTool(Tool):
    """A tool that calls a verb of a model; its first argument is the image."""

    verb: str  # of Model, and in model_info["tasks"]

    def call(self, model: Model, image: Any, arguments: Mapping[str, Any], cancel: Any = None) -> Result:
        """The verb's answer. arguments: checked, without the image. Errors: those of the verb."""
        given = {name: tuple(value) if name == "box" else value for name, value in arguments.items()}
        verb: Callable[..., Result] = getattr(model, self.verb)
        return verb(image, cancel=cancel, **given)


def _verb_tool(
    verb: str, description: str, properties: Mapping[str, Schema], required: tuple[str, ...] = (), name: str = ""
) -> VerbTool:
    given = {"image": STRING, **properties}
    return VerbTool(name or verb, description, given, ("image", *required), verb)


VERB_TOOLS = (
    _verb_tool(
        "caption",
        "Describes an image in a sentence (short) or a paragraph (long); ground: with boxes for what it names.",
        {"length": {"type": "string", "enum": ["short", "long"], "default": "short"}, "ground": FLAG},
    ),
    _verb_tool("ask", "Answers a question about an image.", {"question": STRING}, ("question",)),
    _verb_tool(
        "ground",
        "Describes an image with boxes for what it names. prompt: words to continue, instead of a caption's.",
        {"prompt": {"type": ["string", "null"], "default": None}},
    ),
    _verb_tool(
        "locate",
        "Finds an object, named by a phrase, and gives its boxes with scores. The model tends to find whatever it is "
        "asked for; found_score says how likely it is there.",
        {"phrase": STRING},
        ("phrase",),
    ),
    _verb_tool(
        "describe",
        "Describes what is in a box of an image, in pixels, or with normalized in fractions of it, 0..1.",
        {"box": CORNERS, "normalized": FLAG},
        ("box",),
        "describe_region",
    ),
    _verb_tool(
        "read", "Reads the text in an image: its lines with boxes, or the page as Markdown.", {"markdown": FLAG}
    ),
)


def verb_tools(tasks: Collection[str]) -> list[VerbTool]:
    """The tools of a model with these tasks (model_info["tasks"])."""
    return [tool for tool in VERB_TOOLS if tool.verb in tasks]


def result_text(result: Result) -> str:
    """What a language model reads: the text, its boxes in pixels, and what was decided about the image."""
    lines = [result.text] if result.text else []
    for entity in result.entities if result.lines is None else ():
        name = entity.phrase or "(no phrase)"
        lines += [f"{name}: {_corners(box)}" for box in entity.boxes if box.valid]
    lines += [f"Note: {note}" for note in result.notes]
    return "\n".join(lines) or "(no text)"


def _corners(box: Box) -> str:
    corners = ", ".join(f"{value:g}" for value in (box.pixels or box.normalized))
    return f"[{corners}]" + ("" if box.score is None else f" (score {box.score:.2f})")


# ---- the part of JSON Schema that the tools use

_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "number": lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(_as_float(value))
    ),
    "array": lambda value: isinstance(value, list | tuple),
    "object": lambda value: isinstance(value, dict),
}
_NAMES = {"string": "a text", "null": "null", "boolean": "true or false", "number": "a finite number"}


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _checked(name: str, value: Any, schema: Schema) -> Any:
    """The value, if it is as the schema says; InvalidRequest otherwise."""
    types = [schema["type"]] if isinstance(schema["type"], str) else list(schema["type"])
    fitting = [kind for kind in types if _TYPES[kind](value)]
    if not fitting and isinstance(value, str):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            parsed = value
        fitting = [kind for kind in types if _TYPES[kind](parsed)]
        value = parsed if fitting else value
    least, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
    if not fitting or (fitting[0] == "array" and not least <= len(value) <= most):
        raise InvalidRequest(f"{name}: expected {_expected(schema)}, got {_shown(value)}")
    if "enum" in schema and value not in schema["enum"]:
        raise InvalidRequest(f"{name}: expected one of {', '.join(schema['enum'])}, got {_shown(value)}")
    if fitting[0] == "array":
        return [_checked(f"{name}[{number}]", item, schema["items"]) for number, item in enumerate(value)]
    if fitting[0] == "object":
        inner = Tool(name, "", schema["properties"], tuple(schema["required"]))
        return inner.check(value)
    return value


def _expected(schema: Schema) -> str:
    if schema["type"] == "array":
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        count = f"{least}" if least == most else f"{least} to {most}" if most else f"at least {least}"
        return f"a list of {count} {'numbers' if schema['items'].get('type') == 'number' else 'items'}"
    if schema["type"] == "object":
        return f"an object with {', '.join(schema['required'])}"
    types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    return " or ".join(_NAMES[kind] for kind in types)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


__all__ = ["CORNERS", "FLAG", "STRING", "VERB_TOOLS", "Schema", "Tool", "VerbTool", "result_text", "verb_tools"]
