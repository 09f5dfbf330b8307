"""GET /v1/about: the model that is served, what it can do and why not, and the limits of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from kosmos_edge import __version__
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.inference import tasks
from kosmos_edge.server.service import Context

_CAPTION = {"ground": False, "lead_in": False, "examples": ()}
_BOX = (0.0, 0.0, 1.0, 1.0)
_TRIALS: dict[str, tuple[str, dict[str, Any]]] = {  # name -> the verb and arguments that any model with it takes
    "caption": ("caption", {"length": "short", **_CAPTION}),
    "caption_long": ("caption", {"length": "long", **_CAPTION}),
    "ask": ("ask", {"question": "?", "choices": None, **_CAPTION}),
    "ground": ("ground", {"prompt": None, "lead_in": False}),
    "locate": ("locate", {"phrase": "?"}),
    "describe": ("describe", {"box": _BOX, "normalized": True, **_CAPTION}),
    "read": ("read", {"markdown": False}),
    "read_markdown": ("read", {"markdown": True}),
}


def abilities(info: Mapping[str, Any]) -> dict[str, str | None]:
    """Per task None, or why the model cannot do it: the message that a request for it would get."""
    found: dict[str, str | None] = {}
    for name, (verb, arguments) in _TRIALS.items():
        try:
            tasks.PLANS[verb](info, None, **arguments)
            found[name] = None
        except InvalidRequest as error:
            found[name] = str(error)
    return found


async def about(context: Context) -> Response:
    """GET /v1/about."""
    model, settings = context.service.keeper.about, context.settings
    limits = {
        "body_bytes": settings.max_body,
        "pixels": settings.opening.max_pixels,
        "seconds": settings.request_seconds,
    }
    return JSONResponse(
        {
            "version": __version__,
            "model": model.id,
            "notice": str(model.info.get("notice", "")),
            "tasks": abilities(model.info),
            "limits": limits,
        }
    )
