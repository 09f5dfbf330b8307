"""The ASGI application: the table of routes behind the guard."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kosmos_edge.model import Model
from kosmos_edge.server.errors import ApiError
from kosmos_edge.server.guard import Guard
from kosmos_edge.server.openapi import document
from kosmos_edge.server.routes import openai, service
from kosmos_edge.server.routes.table import Row
from kosmos_edge.server.service import Context, Endpoint, Service, openai_error
from kosmos_edge.server.settings import Settings

EVENTS = "text/event-stream"
LINES = "application/x-ndjson"


async def _openapi(context: Context) -> Response:
    return JSONResponse(document(ROWS))


ROWS = (
    Row("GET", "/", service.root, "What this is.", answer="text/plain"),
    Row("GET", "/health", service.health, "200 while requests are taken."),
    Row("GET", "/metrics", service.metrics, "Figures for Prometheus.", answer="text/plain"),
    Row("GET", "/openapi.json", _openapi, "This document."),
    Row("POST", "/v1/reload", service.reload, "Loads the model's file again."),
    Row("GET", "/v1/models", openai.models, "The model that is served."),
    Row("GET", "/v1/models/{id:path}", openai.model, "The model of that name."),
    Row(
        "POST",
        "/v1/chat/completions",
        openai.chat,
        "OpenAI: answers the last message, behind those before it. An image without words is captioned.",
        openai.CHAT,
        streams=EVENTS,
    ),
)


def make_app(settings: Settings, load: Callable[[], Model], id: str) -> Starlette:
    """The application; loads the model now. Its state.service is the Service."""
    shared = Service(settings, load, id)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watcher = asyncio.ensure_future(shared.keeper.watch()) if settings.watch else None
        shared.keeper.settle()
        try:
            yield
        finally:
            if watcher is not None:
                watcher.cancel()
            shared.close()

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        shown = {404: f"{request.url.path[:100]} is not a route here; see /openapi.json"}
        message = shown.get(error.status_code, f"{request.method} {request.url.path[:100]}: {error.detail}")
        response = openai_error(ApiError(error.status_code, message))
        response.headers.update(error.headers or {})
        return response

    routes = [Route(row.path, Endpoint(shared, row.path, row.handle, row.render), methods=[row.method]) for row in ROWS]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, settings=settings)],
        exception_handlers={HTTPException: http_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.service = shared
    return app
