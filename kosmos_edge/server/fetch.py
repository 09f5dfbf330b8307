"""Fetches an image by its URL, from public addresses only.

The name is looked up once, every address that it has must be public, and the connection goes to the address that was
checked, so a name that changes its address in between (DNS rebinding) gains nothing. Each redirect is checked in the
same way. Proxies of the environment are not used, and no cookies or credentials are sent.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urljoin, urlsplit

from kosmos_edge.server.errors import ApiError

MAX_REDIRECTS = 3
SECONDS = 10.0  # for one fetch, redirects included
_TUNNELS = [IPv6Network(text) for text in ("64:ff9b::/96", "2002::/16", "2001::/32", "::/96")]  # with IPv4 inside
Resolve = Callable[[str, int], list[str]]


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet: not this machine, its network, multicast, or a tunnel."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if any(ip in network for network in _TUNNELS):
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def fetch(url: str, most: int, *, resolve: Resolve = resolve, allowed: Callable[[str], bool] = is_public) -> bytes:
    """The bytes at the URL, at most `most`. ApiError 400 (refused), 413, 415, 422 (not there), 504.

    allowed: says whether an address may be connected to.
    """
    deadline = time.monotonic() + SECONDS
    for _ in range(MAX_REDIRECTS + 1):
        answer = _get(_parts(url), most, deadline, resolve, allowed)
        if isinstance(answer, bytes):
            return answer
        url = urljoin(url, answer)
    raise _error(422, f"more than {MAX_REDIRECTS} redirects")


def _error(status: int, message: str) -> ApiError:
    return ApiError(status, f"image_url: {message}", param="image_url")


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _error(400, f"not a URL ({error})") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise _error(400, "expected http://name/... or https://name/...")
    if parts.username is not None or not url.isascii() or any(c <= " " or c == "\\" for c in url):
        raise _error(400, "a URL with a user name, blanks or characters beyond ASCII is refused")
    return parts


def _get(
    parts: SplitResult,
    most: int,
    deadline: float,
    resolve: Resolve,
    allowed: Callable[[str], bool],
) -> bytes | str:
    """The body, or where a redirect leads."""
    assert parts.hostname is not None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        addresses = resolve(parts.hostname, port)
    except (OSError, UnicodeError):
        raise _error(422, f"{parts.hostname} is not known") from None
    if not addresses or not all(allowed(address) for address in addresses):
        raise _error(400, f"{parts.hostname} is not a public address")
    connection = _Connection(parts.hostname, port, addresses[0], _left(deadline))
    answer: http.client.HTTPResponse | None = None
    try:
        connection.open(parts.scheme == "https")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"Accept": "image/*", "Accept-Encoding": "identity"})
        answer = connection.getresponse()
        if answer.status in (301, 302, 303, 307, 308):
            return answer.getheader("Location") or "?"
        if answer.status != 200:
            raise _error(422, f"the server answered {answer.status}")
        kind = (answer.getheader("Content-Type") or "").partition(";")[0].strip().lower()
        if not kind.startswith("image/") and kind != "application/octet-stream":
            raise _error(415, f"expected an image, got {kind[:60] or 'no type'}")
        return _read(answer, most, deadline, connection)
    except TimeoutError:
        raise _error(504, "the server did not answer in time") from None
    except (OSError, http.client.HTTPException):
        raise _error(422, "the connection failed") from None
    finally:
        connection.close()
        if answer is not None:
            answer.close()


def _read(answer: http.client.HTTPResponse, most: int, deadline: float, connection: _Connection) -> bytes:
    data = bytearray()
    while part := answer.read1(1 << 16):
        data += part
        if len(data) > most:
            raise _error(413, f"more than {most} bytes")
        if connection.sock is not None:
            connection.sock.settimeout(_left(deadline))
    return bytes(data)


def _left(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise _error(504, "the server did not answer in time")
    return seconds


class _Connection(http.client.HTTPConnection):
    """A connection to a given address."""

    def __init__(self, host: str, port: int, address: str, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout)
        self._address, self._seconds = address, timeout

    def open(self, https: bool) -> None:
        """Connects; over TLS the certificate must be that of the name."""
        self.sock = socket.create_connection((self._address, self.port), self._seconds)
        if https:
            self.default_port = 443
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)
