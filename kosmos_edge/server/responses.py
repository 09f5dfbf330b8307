"""Responses that every route may give."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import JSONResponse, Response

from kosmos_edge.server.errors import ApiError

Render = Callable[[ApiError], Response]


def openai_error(error: ApiError) -> Response:
    """A response in OpenAI's form."""
    return JSONResponse(error.to_dict(), error.status, error.headers)


def ollama_error(error: ApiError) -> Response:
    """A response in Ollama's form."""
    return JSONResponse({"error": error.message}, error.status, error.headers)


def error_form(path: str) -> Render:
    """The form of errors at a path, also of one that is no route."""
    return ollama_error if path.startswith("/api/") else openai_error
