"""The ASGI application: the table of routes behind the guard."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kosmos_edge.model import Model
from kosmos_edge.server import page
from kosmos_edge.server.errors import ApiError
from kosmos_edge.server.fields import Fields
from kosmos_edge.server.guard import Guard
from kosmos_edge.server.openapi import document
from kosmos_edge.server.responses import error_form, ollama_error
from kosmos_edge.server.routes import about, moondream, ollama, openai, ours, service
from kosmos_edge.server.routes.table import Row
from kosmos_edge.server.service import Context, Endpoint, Service
from kosmos_edge.server.settings import Settings

EVENTS = "text/event-stream"


async def _openapi(context: Context) -> Response:
    return JSONResponse(document(ROWS))


def _ollama(
    method: str, path: str, handle: Callable[[Context], Awaitable[Response]], about: str, fields: Fields | None = None
) -> Row:
    streams = ollama.LINES if path in ("/api/generate", "/api/chat") else ""
    return Row(method, path, handle, about, fields, ollama_error, streams=streams)


ROWS = (
    Row("GET", "/", service.root, "The page for people; with --no-page, what this is.", answer="text/html"),
    Row("GET", "/health", service.health, "200 while requests are taken."),
    Row("GET", "/metrics", service.metrics, "Figures for Prometheus.", answer="text/plain"),
    Row("GET", "/openapi.json", _openapi, "This document."),
    Row("POST", "/v1/reload", service.reload, "Loads the model's file again."),
    Row("GET", "/v1/about", about.about, "The model that is served, what it can do, and the limits."),
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
    Row("POST", "/v1/caption", moondream.caption, "Moondream: a caption.", moondream.CAPTION, streams=EVENTS),
    Row("POST", "/v1/query", moondream.query, "Moondream: answers a question.", moondream.QUERY, streams=EVENTS),
    Row("POST", "/v1/detect", moondream.detect, "Moondream: boxes of an object.", moondream.FIND),
    Row("POST", "/v1/point", moondream.point, "Moondream: points on an object.", moondream.FIND),
    Row("POST", "/v1/ground", ours.ground, "Text with boxes for what it names.", ours.GROUND, streams=EVENTS),
    Row("POST", "/v1/locate", ours.locate, "The boxes of a phrase.", ours.LOCATE, streams=EVENTS),
    Row("POST", "/v1/describe", ours.describe, "Describes what is in a box.", ours.DESCRIBE, streams=EVENTS),
    Row("POST", "/v1/read", ours.read, "The lines of a page, with boxes.", ours.READ, streams=EVENTS),
    Row("POST", "/v1/score", ours.score, "Ranks texts by their likelihood given an image.", ours.SCORE),
    _ollama("POST", "/api/generate", ollama.generate, "Ollama: answers a prompt.", ollama.GENERATE),
    _ollama("POST", "/api/chat", ollama.chat, "Ollama: answers the last message.", ollama.CHAT),
    _ollama("POST", "/api/show", ollama.show, "Ollama: about the model.", ollama.SHOW),
    _ollama("GET", "/api/tags", ollama.tags, "Ollama: the model that is served."),
    _ollama("GET", "/api/ps", ollama.running, "Ollama: the model, while it is loaded."),
    _ollama("GET", "/api/version", ollama.version, "Ollama: our version."),
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
        response = error_form(request.url.path)(ApiError(error.status_code, message))
        response.headers.update(error.headers or {})
        return response

    routes = [Route(row.path, Endpoint(shared, row.path, row.handle, row.render), methods=[row.method]) for row in ROWS]
    if settings.page:
        routes.append(Route(f"{page.PREFIX}{{name}}", Endpoint(shared, page.PREFIX, page.file), methods=["GET"]))
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, settings=settings)],
        exception_handlers={HTTPException: http_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.service = shared
    return app
