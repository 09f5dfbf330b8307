"""What a converted model is called: `kosmos_edge.json` beside the weights, over the defaults of its kind.

{"name", "basename", "version", "size_label", "description", "license", "languages": [..], "tags": [..],
"source_url", "notice": a line shown when the model answers, "trained_tasks": [kinds of requests that it was trained
for, of csrc/tasks/trained.cpp; none: nothing is said], "prompt": {task: text}}. All are optional; unknown keys are
errors.
"""

from collections.abc import Mapping
from typing import Any

from kosmos_edge.errors import ModelCorrupt
from kosmos_edge.inference import trained

from .gguf import Entry
from .sources.files import brief


def read_card(given: dict[str, Any], defaults: Mapping[str, Any], prompts: Mapping[str, str]) -> dict[str, Any]:
    """The defaults with the values of a kosmos_edge.json put in. prompts: the model's own, by task."""
    for key, value in given.items():
        expected = defaults.get(key)
        same = isinstance(value, type(expected)) if expected is not None else False
        parts = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
        known = {"trained_tasks": list(trained.KINDS), "prompt": list(prompts)}.get(key)
        unknown = [part for part in value if part not in known] if same and known is not None else []
        if unknown:
            raise ModelCorrupt(f"kosmos_edge.json: {key!r} has {brief(unknown[0])}; expected some of {known}")
        if not same or not all(isinstance(part, str) for part in parts):
            raise ModelCorrupt(
                f"kosmos_edge.json: {key!r} is {brief(value)}; "
                f"expected the form of {defaults.get(key)!r}, keys {list(defaults)}"
            )
    return {**defaults, **given, "prompt": {**prompts, **given.get("prompt", {})}}


def general_entries(card: Mapping[str, Any], architecture: str, count: int, file_type: int) -> list[Entry]:
    """GGUF's general.*. count: the model's number of parameters."""
    return [
        ("general.architecture", "str", architecture),
        ("general.type", "str", "model"),
        ("general.name", "str", card["name"]),
        ("general.basename", "str", card["basename"]),
        ("general.version", "str", card["version"]),
        ("general.size_label", "str", card["size_label"] or size_label(count)),
        ("general.description", "str", card["description"]),
        ("general.license", "str", card["license"]),
        ("general.languages", "[str]", card["languages"]),
        ("general.tags", "[str]", card["tags"]),
        *([("general.source.url", "str", card["source_url"])] if card["source_url"] else []),
        ("general.file_type", "u32", file_type),
        ("general.quantization_version", "u32", 2),
    ]


def size_label(count: int) -> str:
    """A number of parameters as GGUF names it: 1664485376 -> 1.6B (cut off, as the model's own name does)."""
    for unit, scale in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= scale:
            return f"{count // (scale // 10) / 10:.1f}{unit}"
    return str(count)
