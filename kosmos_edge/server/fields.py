"""The fields of a JSON request: one table serves the check of a request and the OpenAPI document."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kosmos_edge.server.errors import ApiError, refuse

MAX_DEPTH = 32
KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field. Absent and null mean the same."""

    kinds: str  # names of KINDS, joined by "|"
    about: str = ""
    required: bool = False
    values: tuple[Any, ...] = ()  # the only ones allowed
    schema: Mapping[str, Any] | None = None  # for OpenAPI, instead of the kind alone
    neutral: bool = False  # only `values` are taken, and they change nothing: the feature is not there

    def check(self, name: str, value: Any) -> Any:
        """The value, or an ApiError that names the field."""
        kinds = self.kinds.split("|")
        types = tuple(kind for one in kinds for kind in KINDS[one])
        if not isinstance(value, types) or (isinstance(value, bool) and "boolean" not in kinds):
            raise refuse(name, f"expected {' or '.join(kinds)}, got {shown(value)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise refuse(name, "expected a finite number")
        if self.neutral and value not in self.values:
            raise refuse(name, f"{self.about}; leave it out", code="unsupported_value")
        if self.values and value not in self.values:
            raise refuse(name, f"expected {' or '.join(json.dumps(v) for v in self.values)}, got {shown(value)}")
        return value

    def to_schema(self) -> dict[str, Any]:
        """The JSON schema."""
        kinds = self.kinds.split("|")
        out: dict[str, Any] = dict(self.schema or {"type": kinds[0] if len(kinds) == 1 else kinds})
        if self.schema is None and "array" in kinds:
            out["items"] = {}
        if self.values and "object" not in kinds and "array" not in kinds:
            out["enum"] = list(self.values)
        if self.about:
            out["description"] = self.about
        return out


Fields = Mapping[str, Field]


def shown(value: Any) -> str:
    """A value for a message: short, and never a whole image."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def take(body: Any, fields: Fields, within: str = "") -> dict[str, Any]:
    """The given fields, checked; unknown ones are errors, so that nothing is silently ignored."""
    prefix = f"{within}." if within else ""
    if not isinstance(body, dict):
        raise ApiError(400, f"{within or 'the body'}: expected an object, got {shown(body)}", param=within or None)
    out = {}
    for name, value in body.items():
        if name not in fields:
            raise refuse(prefix + name, f"unknown field; known are {', '.join(fields)}", code="unknown_parameter")
        if value is not None:
            out[name] = fields[name].check(prefix + name, value)
    for name, field in fields.items():
        if field.required and name not in out:
            raise refuse(prefix + name, "is missing", code="missing_required_parameter")
    return out


def parse_json(data: bytes) -> Any:
    """The body's value: UTF-8, no NaN, no name twice, no lone surrogates, nested at most MAX_DEPTH deep."""
    try:
        text = data.decode("utf-8")
        value = _BODIES.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body: not UTF-8 at byte {error.start}", code="invalid_json") from None
    except UnicodeEncodeError:
        raise ApiError(400, "the body: half of a surrogate pair in a text", code="invalid_json") from None
    except RecursionError:
        raise ApiError(400, f"the body: nested deeper than {MAX_DEPTH}", code="invalid_json") from None
    except ValueError as error:
        raise ApiError(400, f"the body: not JSON ({error})", code="invalid_json") from None
    _check_depth(value)
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object; one whose fields do not say what was meant is refused."""
    out = dict(pairs)
    if len(out) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"the field {shown(twice)} comes twice")
    return out


# One for all: the names of attributes that making a decoder asks for would pile up in CPython's cache of methods.
_BODIES = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_once)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inside: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inside += item.values()
            elif isinstance(item, list):
                inside += item
        if not inside:
            return
        level = [item for item in inside if isinstance(item, dict | list)]
    if level:
        raise ApiError(400, f"the body: nested deeper than {MAX_DEPTH}", code="invalid_json")
