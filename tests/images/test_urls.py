"""URLs: what is fetched, and what is refused before a connection is made."""

import contextlib
import errno
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from kosmos_edge import InvalidRequest, KosmosIOError, urls
from kosmos_edge.urls import UrlRules, fetch, is_public

LOCAL = UrlRules(private=True, seconds=5)


def answer(status: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1") + body


def whole(body: bytes) -> bytes:
    return answer("200 OK", f"Content-Length: {len(body)}", body=body)


class Server:
    """Answers each connection with what `reply` makes of the request's text."""

    def __init__(self, reply: Callable[[str], bytes | Iterator[bytes]]) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.requests: list[str] = []
        self._reply = reply
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            with contextlib.suppress(ConnectionError, TimeoutError):
                connection, _ = self._socket.accept()
                with connection:
                    connection.settimeout(10)
                    request = b""
                    while not request.endswith(b"\r\n\r\n"):
                        part = connection.recv(4096)
                        if part == b"stop" or not part:
                            break
                        request += part
                    if not request:
                        if part == b"stop":
                            return
                        continue
                    self.requests.append(request.decode("latin-1"))
                    found = self._reply(self.requests[-1])
                    for piece in [found] if isinstance(found, bytes) else found:
                        connection.sendall(piece)

    def stop(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"stop")
        self._thread.join()
        self._socket.close()


@contextlib.contextmanager
def serving(reply: Callable[[str], bytes | Iterator[bytes]]) -> Iterator[Server]:
    server = Server(reply)
    try:
        yield server
    finally:
        server.stop()


def test_a_file_is_fetched() -> None:
    with serving(lambda request: whole(b"picture")) as server:
        assert fetch(f"{server.url}/a b/ü.png?x=1#part".replace(" ", "%20"), LOCAL) == b"picture"
    line, *headers = server.requests[0].split("\r\n")
    assert line == "GET /a%20b/%C3%BC.png?x=1 HTTP/1.1"
    assert f"Host: 127.0.0.1:{server.port}" in headers and "Accept-Encoding: identity" in headers
    assert not any(header.lower().startswith(("cookie", "authorization", "referer")) for header in headers)


def test_without_a_length_and_in_chunks() -> None:
    chunks = answer("200 OK", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    with serving(lambda request: answer("200 OK", body=b"to the end") if "/end" in request else chunks) as server:
        assert fetch(f"{server.url}/end", LOCAL) == b"to the end"
        assert fetch(server.url, LOCAL) == b"abcde"


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *("100.64.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1"),
        *("::1", "::", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "fe80::1", "fe80::1%1", "fc00::1"),
        *("fec0::1", "ff02::1", "2001:db8::1", "2002:7f00:1::1", "2001::1", "64:ff9b::7f00:1", "64:ff9b::a00:1"),
        "64:ff9b:1::1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.1", "0x7f000001", "2130706433", "0.0.0.0"])
def test_this_machine_is_refused_without_a_connection(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object, **__: object) -> None:
        raise AssertionError("a connection was made")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises((InvalidRequest, KosmosIOError)) as caught:  # KosmosIOError: a system that knows no such form
        fetch(f"http://{host}:8064/picture.png")
    if isinstance(caught.value, InvalidRequest):
        assert "not a public address" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:///etc/passwd", "http or https"),
        ("ftp://example.org/a.png", "http or https"),
        ("http:///a.png", "with a host"),
        ("http://user:word@example.org/a.png", "user name"),
        ("http://example.org:0/", "port 0"),
        ("http://example.org:99999/", "not a valid URL"),
        ("http://[::1/", "not a valid URL"),
        ("http://example.org/a\r\nHost: x", "control characters"),
    ],
)
def test_urls_that_are_refused(url: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        fetch(url)


def test_every_address_of_a_name_must_be_public(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (name, 80)) for name in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(InvalidRequest, match=r"images\.example is 10\.0\.0\.1, which is not a public address"):
        fetch("http://images.example/a.png")


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that changes its address between two look-ups is looked up once."""
    looked, connected = [], []
    create, real = socket.create_connection, socket.getaddrinfo

    def look(host: str, port: int, *more: int, **named: int) -> list[object]:
        if host == "127.0.0.1":  # the stand-in below
            return list(real(host, port, *more, **named))
        looked.append(host)
        address = "8.8.8.8" if len(looked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    with serving(lambda request: whole(b"there")) as server:

        def connect(address: tuple[str, int], **settings: float) -> socket.socket:
            connected.append(address[0])
            return create(("127.0.0.1", server.port), **settings)

        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", look)
            patch.setattr(urls.socket, "create_connection", connect)
            assert fetch("http://images.example/a.png", UrlRules(seconds=5)) == b"there"
    assert looked == ["images.example"] and connected == ["8.8.8.8"]
    assert "Host: images.example\r\n" in server.requests[0]


def test_redirects_are_followed_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(request: str) -> bytes:
        if "/old" in request:
            return answer("302 Found", "Location: ../new", "Content-Length: 0")
        if "/loop" in request:
            return answer("301 Moved", "Location: /loop", "Content-Length: 0")
        if "/inside" in request:
            return answer("307 There", "Location: http://169.254.169.254/latest", "Content-Length: 0")
        if "/file" in request:
            return answer("308 There", "Location: file:///etc/passwd", "Content-Length: 0")
        return whole(b"new")

    with serving(reply) as server:
        assert fetch(f"{server.url}/a/old", LOCAL) == b"new"
        with pytest.raises(InvalidRequest, match="more than 5 redirects"):
            fetch(f"{server.url}/loop", LOCAL)
        assert len([r for r in server.requests if "/loop" in r]) == 6
        with pytest.raises(InvalidRequest, match=r"redirected to file:///etc/passwd\): expected an http"):
            fetch(f"{server.url}/file", LOCAL)
        with monkeypatch.context() as patch:  # this server is public, all else as it is
            real = urls.is_public
            patch.setattr(urls, "is_public", lambda address: address.is_loopback or real(address))
            with pytest.raises(InvalidRequest, match=r"169\.254\.169\.254, which is not a public address"):
                fetch(f"{server.url}/inside", UrlRules(seconds=5))


def test_bytes_are_limited() -> None:
    rules = UrlRules(private=True, seconds=5, max_bytes=1000)

    def reply(request: str) -> bytes | Iterator[bytes]:
        if "/said" in request:
            return answer("200 OK", "Content-Length: 1001")
        if "/endless" in request:
            return (answer("200 OK") if not n else bytes(4096) for n in range(100_000))
        return whole(bytes(1000))

    with serving(reply) as server:
        assert fetch(server.url, rules) == bytes(1000)
        for name in ("said", "endless"):
            with pytest.raises(InvalidRequest, match="more than the 1000 bytes"):
                fetch(f"{server.url}/{name}", rules)


def test_time_is_limited_however_slowly_bytes_come() -> None:
    def reply(request: str) -> Iterator[bytes]:
        if "/headers" not in request:
            yield answer("200 OK", "Content-Length: 100000")
        for _ in range(100):
            yield b"x"
            time.sleep(0.05)

    with serving(reply) as server:
        for name in ("headers", "body"):
            start = time.monotonic()
            with pytest.raises(KosmosIOError, match=r"within 0\.3 seconds") as caught:
                fetch(f"{server.url}/{name}", UrlRules(private=True, seconds=0.3))
            assert caught.value.errno == errno.ETIMEDOUT
            assert time.monotonic() - start < 3


def test_a_name_that_is_not_found_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: waiting.wait())
    try:
        with pytest.raises(KosmosIOError, match="not fetched within"):
            fetch("http://images.example/", UrlRules(seconds=0.1))
    finally:
        waiting.set()


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (answer("404 Not Found", "Content-Length: 0"), "the server answered 404 Not Found"),
        (answer("204 No Content"), "the server answered 204"),
        (answer("302 Found", "Content-Length: 0"), "the server answered 302"),
        (answer("200 OK", "Content-Length: 10", body=b"short"), "ends after 5 of 10 bytes"),
        (answer("200 OK", "Transfer-Encoding: chunked", body=b"9\r\nabc"), "not a valid HTTP response"),
        (answer("200 OK", "Content-Encoding: gzip", "Content-Length: 1", body=b"x"), "compressed"),
        (b"SSH-2.0-OpenSSH\r\n", "not a valid HTTP response"),
        (b"", "Remote end closed"),
    ],
)
def test_answers_without_a_file(reply: bytes, why: str) -> None:
    with serving(lambda request: reply) as server, pytest.raises(KosmosIOError, match=why):
        fetch(server.url, LOCAL)


def test_nobody_listens_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(KosmosIOError, match="refused"):
        fetch(f"http://127.0.0.1:{port}/", LOCAL)


def test_tls_is_not_left_out() -> None:
    """Plain bytes where TLS was asked for are an error, not an answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(4096)
                connection.sendall(whole(b"not secret"))

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(KosmosIOError):
            fetch(f"https://127.0.0.1:{listener.getsockname()[1]}/", LOCAL)
        thread.join()
