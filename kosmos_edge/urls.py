"""Fetches an image's URL, for those who allow it: public addresses only, redirects checked, bytes and time limited.

A name is resolved once for each request, all of its addresses are checked, and the connection goes to one of them: a
second look at the name could give another address (DNS rebinding). Proxies of the environment are not used, because
they would look the name up themselves. Nothing here is called unless the user has allowed URLs.
"""

from __future__ import annotations

import errno
import http.client
import io
import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from kosmos_edge.errors import InvalidRequest, KosmosIOError

_log = logging.getLogger(__name__)
Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PART = 1 << 16
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # the last 32 bits are an IPv4 address


class NotPublic(InvalidRequest):
    """The host has an address that is not public."""


class TooManyBytes(InvalidRequest):
    """The file is larger than allowed."""


@dataclass(frozen=True, slots=True)
class UrlRules:
    """What fetch() accepts."""

    max_bytes: int = 64 << 20  # of the file, 1..
    seconds: float = 30.0  # for everything: names, connections, redirects, the file
    max_redirects: int = 5
    private: bool = False  # also addresses of this machine and of local networks


DEFAULT_RULES = UrlRules()


def fetch(url: str, rules: UrlRules = DEFAULT_RULES) -> bytes:
    """The bytes that the URL has. Blocks up to rules.seconds.

    Raises InvalidRequest (not http or https, a user name in it, more redirects than allowed; NotPublic, TooManyBytes)
    and KosmosIOError (no such host, refused, timed out, a status other than 200, a file that ends early).
    """
    deadline = time.monotonic() + rules.seconds
    _log.debug("GET %s", shorten(url))
    shown = shorten(url)
    for _ in range(rules.max_redirects + 1):
        parts = _check(url, shown)
        with _network_errors(shown, rules):
            answer = _request(parts, rules, deadline, shown)
        if isinstance(answer, bytes):
            _log.debug("%d bytes", len(answer))
            return answer
        url = urljoin(urlunsplit(parts), answer)
        _log.debug("redirected to %s", shorten(url))
    raise InvalidRequest(f"{shown}: more than {rules.max_redirects} redirects")


def shorten(url: str) -> str:
    """The URL for a message, at most 100 characters and printable."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in url[:101])
    return shown if len(url) <= 100 else f"{shown[:100]}..."


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet: not to this machine, a local network or a special use."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        return address in _GLOBAL_UNICAST and address not in _SIX_TO_FOUR and address.is_global
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _check(url: str, shown: str) -> SplitResult:
    """The parts of a URL that may be asked for."""
    through = "" if shorten(url) == shown else f" (redirected to {shorten(url)})"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidRequest(f"{shown}{through}: not a valid URL: {error}") from None
    if parts.scheme not in _PORTS:
        raise InvalidRequest(f"{shown}{through}: expected an http or https URL")
    if not host or "@" in parts.netloc:
        what = "a URL without a user name and password" if host else "a URL with a host"
        raise InvalidRequest(f"{shown}{through}: expected {what}")
    if port == 0 or any(c <= " " or c == "\x7f" for c in url):
        raise InvalidRequest(f"{shown}{through}: expected a URL without blanks, control characters and port 0")
    return parts


def _request(parts: SplitResult, rules: UrlRules, deadline: float, shown: str) -> bytes | str:
    """The file's bytes, or the Location of a redirect."""
    host, port = str(parts.hostname), parts.port or _PORTS[parts.scheme]
    addresses = _resolve(host, port, deadline)
    _log.debug("%s is %s", host, ", ".join(addresses))
    if not rules.private:
        for address in addresses:
            if not is_public(ipaddress.ip_address(address)):
                raise NotPublic(f"{shown}: {host} is {address}, which is not a public address")
    connection = http.client.HTTPConnection(host, port)
    plain = _connect(addresses, port, host if parts.scheme == "https" else None, deadline)
    connection.sock = _Limited(plain, deadline)
    try:
        # http.client writes the Host header; the port is left out where it is the scheme's
        target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        connection.putrequest(
            "GET", _percent(target.encode("utf-8", "surrogateescape")), skip_host=True, skip_accept_encoding=True
        )
        connection.putheader("Host", _host_header(host, parts))
        for name, value in (("Accept", "image/*,*/*;q=0.5"), ("Accept-Encoding", "identity"), ("Connection", "close")):
            connection.putheader(name, value)
        connection.putheader("User-Agent", "kosmos-edge")
        connection.endheaders()
        response = connection.getresponse()
        location = response.getheader("Location")
        if response.status in _REDIRECTS and location:
            return _percent(location.encode("latin-1"))
        if response.status != 200:
            raise KosmosIOError(errno.EIO, f"the server answered {response.status} {response.reason}".strip(), shown)
        return _read(response, rules, shown)
    finally:
        plain.close()


def _read(response: http.client.HTTPResponse, rules: UrlRules, shown: str) -> bytes:
    too_long = TooManyBytes(f"{shown}: more than the {rules.max_bytes} bytes that are allowed")
    if response.getheader("Content-Encoding", "identity").strip().lower() != "identity":
        raise KosmosIOError(errno.EIO, "the server compressed the file, which was not asked for", shown)
    expected = response.length  # None: chunked, or to the end of the connection
    if expected is not None and expected > rules.max_bytes:
        raise too_long
    data = bytearray()
    while part := response.read(_PART):
        data += part
        if len(data) > rules.max_bytes:
            raise too_long
    if expected is not None and len(data) != expected:
        raise KosmosIOError(errno.EIO, f"the file ends after {len(data)} of {expected} bytes", shown)
    return bytes(data)


def _percent(raw: bytes) -> str:
    """A URL or its path with bytes outside ASCII as percent codes."""
    return "".join(chr(byte) if 32 < byte < 127 else f"%{byte:02X}" for byte in raw)


def _host_header(host: str, parts: SplitResult) -> str:
    name = f"[{host}]" if ":" in host else host.encode("idna").decode("ascii")
    return name if parts.port in (None, _PORTS[parts.scheme]) else f"{name}:{parts.port}"


# ---- names and connections


def _resolve(host: str, port: int, deadline: float) -> list[str]:
    """All addresses of the host. On a thread, because a look-up cannot be interrupted."""
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP))
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that IDNA does not allow
            found.append(error)

    worker = threading.Thread(target=work, name="kosmos-edge name", daemon=True)
    worker.start()
    worker.join(_left(deadline))
    if not found:
        raise TimeoutError
    if isinstance(found[0], UnicodeError):
        raise OSError(errno.EINVAL, f"{host!r} is not a valid host name")
    if isinstance(found[0], OSError):
        raise found[0]
    return list(dict.fromkeys(str(info[4][0]) for info in found[0]))


def _connect(addresses: list[str], port: int, tls_host: str | None, deadline: float) -> socket.socket:
    """A connection to the first of the addresses that accepts one; tls_host: whose certificate is checked."""
    error: OSError = OSError(errno.EHOSTUNREACH, "the host has no address")
    for address in addresses:
        share = 1 if address is addresses[-1] else 2  # an address that never answers leaves time for the next
        try:
            plain = socket.create_connection((address, port), timeout=_left(deadline) / share)
        except OSError as refused:
            error = refused
            continue
        if tls_host is None:
            return plain
        try:
            plain.settimeout(_left(deadline))
            return ssl.create_default_context().wrap_socket(plain, server_hostname=tls_host)
        except BaseException:
            plain.close()
            raise
    raise error


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Limited:
    """A socket for http.client whose reads and writes all end at the deadline, however slowly bytes arrive."""

    def __init__(self, plain: socket.socket, deadline: float) -> None:
        self._plain, self._deadline = plain, deadline

    def sendall(self, data: Any) -> None:
        """Sends all bytes."""
        self._plain.settimeout(_left(self._deadline))
        self._plain.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        """For reading the response."""
        return io.BufferedReader(_Reader(self._plain, self._deadline))

    def close(self) -> None:
        """http.client calls it before the response is read; the socket is closed after that."""


class _Reader(io.RawIOBase):
    def __init__(self, plain: socket.socket, deadline: float) -> None:
        self._plain, self._deadline = plain, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._plain.settimeout(_left(self._deadline))
        return self._plain.recv_into(buffer)


@contextmanager
def _network_errors(shown: str, rules: UrlRules) -> Iterator[None]:
    """Whatever the network does wrong, as a KosmosIOError."""
    try:
        yield
    except KosmosIOError:
        raise
    except TimeoutError:
        raise KosmosIOError(errno.ETIMEDOUT, f"not fetched within {rules.seconds:g} seconds", shown) from None
    except ssl.SSLCertVerificationError as error:
        raise KosmosIOError(errno.EIO, f"the certificate is not valid: {error.verify_message}", shown) from error
    except OSError as error:
        raise KosmosIOError(errno.EIO, error.strerror or str(error) or type(error).__name__, shown) from error
    except http.client.HTTPException as error:
        text = f"not a valid HTTP response: {type(error).__name__} {error}".strip()
        raise KosmosIOError(errno.EIO, text, shown) from error


__all__ = ["DEFAULT_RULES", "UrlRules", "fetch", "is_public", "shorten"]
