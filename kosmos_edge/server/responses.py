"""Responses that every route may give."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import JSONResponse, Response

from kosmos_edge.server.errors import ApiError

Render = Callable[[ApiError], Response]


def openai_error(error: ApiError) -> Response:
    """A response in OpenAI's form."""
    return JSONResponse(error.to_dict(), error.status, error.headers)
