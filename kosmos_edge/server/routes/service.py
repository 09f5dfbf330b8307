"""The server's own routes: its start page, health, metrics, reload."""

from __future__ import annotations

from starlette.responses import JSONResponse, PlainTextResponse, Response

from kosmos_edge.server import page
from kosmos_edge.server.errors import api_error
from kosmos_edge.server.service import Context


async def root(context: Context) -> Response:
    """GET /: the page, or a line that says what this is."""
    if context.settings.page:
        return await page.index(context)
    return PlainTextResponse("kosmos-edge is running; its routes are in /openapi.json\n")


async def health(context: Context) -> Response:
    """GET /health: 200 while requests are taken."""
    service = context.service
    state = {
        "status": "ok",
        "model": service.keeper.about.id,
        "loaded": service.keeper.loaded,
        "running": service.scheduler.running,
        "waiting": service.scheduler.waiting,
    }
    return JSONResponse(state)


async def metrics(context: Context) -> Response:
    """GET /metrics, for Prometheus."""
    service, found = context.service, context.service.metrics
    found.waiting.set(service.scheduler.waiting)
    found.running.set(service.scheduler.running)
    found.loaded.set(service.keeper.loaded)
    found.loads.set(service.keeper.loads)
    return Response(found.text(), media_type=found.content_type)


async def reload(context: Context) -> Response:
    """POST /v1/reload: loads the model's file again; answers that have begun end with the old one."""
    try:
        await context.service.keeper.reload()
    except Exception as error:
        found = api_error(error)
        found.message = f"the old model stays: {found.message}"
        raise found from error
    about = context.service.keeper.about
    return JSONResponse({"model": about.id, "path": str(about.path), "loads": context.service.keeper.loads})
