"""The form of a row in the table of routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.responses import Response

from kosmos_edge.server.fields import Fields
from kosmos_edge.server.responses import Render, openai_error
from kosmos_edge.server.service import Context


@dataclass(frozen=True)
class Row:
    """One route. fields: of the JSON body; None: there is no body."""

    method: str
    path: str
    handle: Callable[[Context], Awaitable[Response]]
    about: str
    fields: Fields | None = None
    render: Render = openai_error
    answer: str = "application/json"  # its media type
    streams: str = ""  # the media type with stream: true
