"""What the server allows and how long it waits."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import Opening

DEFAULT_PORT = 8064  # 64 image tokens; none of 1234, 2020, 8000, 8080, 11434, which other programs use
MIB = 1 << 20
MAX_PIXELS = 64_000_000


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits and permissions of one server."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    api_key: str | None = None
    allow_hosts: tuple[str, ...] = ()  # names in Host besides localhost, addresses and `host`
    allow_origins: tuple[str, ...] = ()  # web pages of other origins that may call, "https://name:port"
    allow_urls: bool = False  # fetch images by http and https
    media_path: Path | None = None  # images of this folder may be named by file: URLs
    opening: Opening = field(default_factory=lambda: Opening(max_pixels=MAX_PIXELS))
    max_body: int = 20 * MIB  # bytes of one request
    max_bodies: int = 80 * MIB  # bytes of all requests that are being received
    max_images: int = 16  # of one request
    batch_size: int = 8  # answers computed at once
    queue: int = 64  # requests that wait for a place among them
    connections: int = 256
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    request_seconds: float = 120.0  # from the whole request to the last byte of the answer
    drain_seconds: float = 30.0  # for answers that are being computed when the server is told to stop
    keep_alive: float | None = None  # seconds without a request after which the model is unloaded; None: never
    watch: bool = False  # load the model again when its file changes
    page: bool = True  # serve the page for people at /

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.api_key:
            raise InvalidRequest(
                f"host: {self.host} can be reached from other machines, which needs an API key "
                "(--api-key-file, or KOSMOS_EDGE_API_KEY)"
            )
        if self.api_key is not None and (len(self.api_key) < 8 or not self.api_key.isascii() or " " in self.api_key):
            raise InvalidRequest("api_key: expected at least 8 ASCII characters without blanks")
        for origin in self.allow_origins:
            if not origin.startswith(("http://", "https://")) or origin.endswith("/"):
                raise InvalidRequest(f"allow_origins: expected scheme://name[:port], got {origin!r}")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that is bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
