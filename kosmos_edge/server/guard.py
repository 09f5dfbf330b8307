"""Who may call: Host, Origin and API key, before any route. Pages of other sites and rebound names get nothing."""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kosmos_edge.server.errors import ApiError
from kosmos_edge.server.page import PREFIX
from kosmos_edge.server.responses import error_form
from kosmos_edge.server.settings import Settings

OPEN = ("/health", "/")  # need no key; nor do the files of the page, which asks for it
METHODS = "GET, HEAD, POST, OPTIONS"


class Guard:
    """Middleware."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        names = {"localhost", settings.host, *settings.allow_hosts}
        self._hosts = {name.casefold() for name in names}
        self._origins = {origin.casefold() for origin in settings.allow_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        try:
            self._check_host(headers)
            self._check_origin(origin, headers)
            preflight = scope["method"] == "OPTIONS" and origin is not None
            if not preflight and scope["path"] not in OPEN and not scope["path"].startswith(PREFIX):
                self._check_key(headers)
        except ApiError as error:
            await error_form(scope["path"])(error)(scope, receive, send)
            return
        foreign = origin is not None and origin.casefold() in self._origins
        if preflight:
            response = Response(status_code=204, headers=self._preflight(headers) if foreign else {})
            await response(scope, receive, self._with_origin(send, origin if foreign else None))
            return
        await self._app(scope, receive, self._with_origin(send, origin if foreign else None))

    def _check_host(self, headers: Headers) -> None:
        """An address, localhost, or a name that was allowed: a web page can rebind only a name of its own."""
        hosts = headers.getlist("host")
        name = _host_name(hosts[0]) if len(hosts) == 1 else None
        if name is None or not (_is_address(name) or name in self._hosts or name.endswith(".localhost")):
            shown = ", ".join(hosts)[:100]
            raise ApiError(403, f"Host: {shown!r} is not served (--allow-host allows a name)", code="host_not_allowed")

    def _check_origin(self, origin: str | None, headers: Headers) -> None:
        if origin is None:
            return
        same = urlsplit(origin).netloc.casefold() == headers.get("host", "").casefold() and "://" in origin
        if not same and origin.casefold() not in self._origins:
            message = f"Origin: pages of {origin[:100]!r} may not call (--allow-origin allows an origin)"
            raise ApiError(403, message, code="origin_not_allowed")

    def _check_key(self, headers: Headers) -> None:
        """OpenAI's and Ollama's clients send Authorization, Moondream's a header of its own."""
        key = self._settings.api_key
        if key is None:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            given = headers.get("x-moondream-auth", "")
        if not hmac.compare_digest(given.strip().encode(), key.encode()):
            message = "the API key is missing or wrong (Authorization: Bearer KEY)"
            raise ApiError(401, message, code="invalid_api_key")

    def _preflight(self, headers: Headers) -> dict[str, str]:
        asked = headers.get("access-control-request-headers", "")
        return {
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Headers": asked if asked.isascii() and len(asked) < 1000 else "",
            "Access-Control-Max-Age": "600",
        }

    def _with_origin(self, send: Send, origin: str | None) -> Send:
        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                if origin is not None:
                    headers["Access-Control-Allow-Origin"] = origin
                    headers.append("Vary", "Origin")
            await send(message)

        return send_marked


def _host_name(host: str) -> str | None:
    """The name in a Host header, without its port; None: not well-formed."""
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018  # raises for what is no port
    except ValueError:
        return None
    plain = parts.netloc == host and "@" not in host
    return parts.hostname.casefold() if plain and parts.hostname else None


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
