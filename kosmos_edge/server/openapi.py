"""The OpenAPI document, made from the table of routes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from kosmos_edge import __version__
from kosmos_edge.server.fields import Fields
from kosmos_edge.server.routes.table import Row

ERRORS = {
    "400": "A field is wrong; param names it.",
    "401": "The API key is missing or wrong.",
    "413": "The body is too large.",
    "415": "The body is no JSON, or the image is of a type that is not taken.",
    "422": "The image could not be used.",
    "429": "The queue is full; Retry-After says when to try again.",
    "503": "The server stops, or the model could not be loaded.",
    "504": "No answer in time.",
}


def document(rows: Sequence[Row]) -> dict[str, Any]:
    """OpenAPI 3.1."""
    paths: dict[str, Any] = {}
    for row in rows:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", row.path)
        paths.setdefault(path, {})[row.method.lower()] = _operation(row, path)
    error = {
        "type": "object",
        "properties": {
            "message": {"type": "string"},
            "type": {"type": "string"},
            "param": {"type": ["string", "null"]},
            "code": {"type": ["string", "null"]},
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "kosmos-edge", "version": __version__, "license": {"name": "MIT", "identifier": "MIT"}},
        "paths": paths,
        "components": {
            "schemas": {"Error": {"type": "object", "properties": {"error": error}}},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(row: Row, path: str) -> dict[str, Any]:
    content: dict[str, Any] = {kind: {} for kind in (row.answer, row.streams) if kind}
    answers: dict[str, Any] = {"200": {"description": "The answer.", "content": content}}
    if row.method == "POST":
        schema = {"$ref": "#/components/schemas/Error"}
        for status, text in ERRORS.items():
            answers[status] = {"description": text, "content": {"application/json": {"schema": schema}}}
    name = f"{row.method.lower()}{re.sub(r'[^a-z0-9]+', '_', path.lower())}".rstrip("_")
    found: dict[str, Any] = {"summary": row.about, "operationId": name, "responses": answers}
    places = re.findall(r"\{(\w+)\}", path)
    if places:
        found["parameters"] = [
            {"name": place, "in": "path", "required": True, "schema": {"type": "string"}} for place in places
        ]
    if row.fields is not None:
        body = {"schema": _schema(row.fields)}
        found["requestBody"] = {"required": True, "content": {"application/json": body}}
    return found


def _schema(fields: Fields) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: field.to_schema() for name, field in fields.items()},
        "required": [name for name, field in fields.items() if field.required],
        "additionalProperties": False,
    }
