"""The page at /: its files from the package, with headers that let it load nothing from elsewhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.responses import Response

from kosmos_edge.server.errors import ApiError
from kosmos_edge.server.service import Context

FOLDER = Path(__file__).parent / "web"
PREFIX = "/page/"  # of the files besides index.html
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webp": "image/webp",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked for again each time, so that page and server are of one version
}


@dataclass(frozen=True, slots=True)
class File:
    """A file of the page."""

    data: bytes
    media_type: str
    tag: str  # ETag


@cache
def files() -> dict[str, File]:
    """The files by name, read once: a request cannot reach any other."""
    found = {}
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in TYPES:
            data = path.read_bytes()
            found[path.name] = File(data, TYPES[path.suffix], f'"{hashlib.sha256(data).hexdigest()[:32]}"')
    return found


async def index(context: Context) -> Response:
    """GET /: the page."""
    return _response(context, files()["index.html"])


async def file(context: Context) -> Response:
    """GET /page/NAME: what the page asks for."""
    name = context.request.path_params["name"]
    found = files().get(name)
    if found is None:
        raise ApiError(404, f"{PREFIX}{name[:100]}: the page has no such file")
    return _response(context, found)


def _response(context: Context, file: File) -> Response:
    headers = HEADERS | {"ETag": file.tag}
    if context.request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    return Response(file.data, headers=headers, media_type=file.media_type)
