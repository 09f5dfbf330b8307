"""Who may call: names, origins, keys; which files and addresses a request can reach. And the document of the routes."""

import http.server
import os
import re
import socket
import threading

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `server` is not installed")

from helpers.http_server import EXAMPLES, chat_body, data_uri, serving

from kosmos_edge import InvalidRequest, load
from kosmos_edge.server import app, fetch
from kosmos_edge.server.errors import ApiError
from kosmos_edge.server.settings import Settings

CHAT = "/v1/chat/completions"
KEY = "a-key-of-the-test"


@pytest.fixture(scope="module")
def server():
    with serving(allow_hosts=("photos.lan",), allow_origins=("https://page.example:8443",)) as running:
        yield running


def show(url):
    part = {"type": "image_url", "image_url": {"url": url}}
    return {"messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("app.localhost", 200),
        ("[::1]:8064", 200),
        ("192.168.1.5", 200),
        ("photos.lan:8064", 200),
        ("evil.example", 403),
        ("photos.lan.evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("user@localhost", 403),
        ("localhost:x", 403),
        ("localhost/x", 403),
        ("", 403),
    ],
)
def test_host(server, host, status):
    answer = server.get("/health", {"Host": host})
    assert answer.status == status
    if status == 403:
        assert answer.json()["error"]["code"] == "host_not_allowed"


@pytest.mark.parametrize(
    ("origin", "status", "allowed"),
    [
        (None, 200, None),
        ("own", 200, None),
        ("https://page.example:8443", 200, "https://page.example:8443"),
        ("https://page.example", 403, None),
        ("http://page.example:8443", 403, None),
        ("https://page.example:8443.evil.example", 403, None),
        ("http://127.0.0.1:1", 403, None),
        ("null", 403, None),
        ("", 403, None),
    ],
)
def test_origin_and_cors(server, origin, status, allowed):
    own = server.url if origin == "own" else origin
    headers = {} if own is None else {"Origin": own}
    for answer in (server.get("/v1/models", headers), server.post(CHAT, chat_body("What is a dog?"), headers)):
        assert answer.status == status
        assert answer.headers.get("access-control-allow-origin") == allowed
        assert answer.headers.get("access-control-allow-credentials") is None
    asked = {**headers, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    preflight = server.call("OPTIONS", CHAT, None, asked)
    assert preflight.headers.get("access-control-allow-origin") == allowed
    if allowed:
        assert preflight.status == 204 and "POST" in preflight.headers["access-control-allow-methods"]
        assert preflight.headers["access-control-allow-headers"] == "content-type"


def test_api_key():
    with serving(api_key=KEY) as server:
        for headers in ({}, {"Authorization": "Bearer wrong-key"}, {"Authorization": KEY}, {"X-Moondream-Auth": "x"}):
            for answer in (
                server.get("/v1/models", headers),
                server.get("/metrics", headers),
                server.get("/x", headers),
            ):
                assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer"
                assert answer.json()["error"]["type"] == "authentication_error" and KEY not in answer.body.decode()
        assert server.get("/health").status == 200
        for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-Moondream-Auth": KEY}):
            assert server.get("/v1/models", headers).status == 200


def test_other_addresses_need_a_key():
    for host in ("0.0.0.0", "192.168.1.5", "::", "photos.lan"):
        with pytest.raises(InvalidRequest, match="API key"):
            Settings(host=host)
        assert Settings(host=host, api_key=KEY)
    for host in ("127.0.0.1", "::1", "localhost", "127.5.5.5"):
        assert Settings(host=host)
    for key in ("", "short", "with blank in it"):
        with pytest.raises(InvalidRequest):
            Settings(host="0.0.0.0", api_key=key)
    for origin in ("page.example", "https://page.example/", "*"):
        with pytest.raises(InvalidRequest, match="allow_origins"):
            Settings(allow_origins=(origin,))


def test_routes_that_are_not_here(server):
    for answer in (server.get("/nothing"), server.post("/v1/embeddings", {}), server.get("/v1/models/")):
        assert answer.status == 404 and answer.json()["error"]["type"] == "invalid_request_error"
    answer = server.get(CHAT)
    assert answer.status == 405 and answer.headers["allow"] == "POST"
    assert server.call("HEAD", "/health").status == 200


def test_the_document_names_every_route_and_field(server):
    document = server.get("/openapi.json").json()
    found = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert found == {(row.method, re.sub(r":path", "", row.path)) for row in app.ROWS}
    body = document["paths"][CHAT]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["messages"] and {"messages", "stream", "ground"} <= set(body["properties"])
    assert len({m["operationId"] for p in document["paths"].values() for m in p.values()}) == len(app.ROWS)


def test_files_only_of_the_media_path(tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "ä b.png").write_bytes(EXAMPLES[0].read_bytes())
    secret = tmp_path / "secret.png"
    secret.write_bytes(EXAMPLES[1].read_bytes())
    os.symlink(secret, folder / "link.png")
    os.mkfifo(folder / "pipe.png")
    own = load("nano", threads=1).caption(EXAMPLES[0]).text
    with serving(media_path=folder) as server:
        inside = folder / "sub" / "ä b.png"
        for name in ("file:sub/ä b.png", "file:sub/%C3%A4%20b.png", f"file://{inside}", f"file:{inside}"):
            answer = server.post(CHAT, show(name))
            assert answer.status == 200, (name, answer.body)
            assert answer.json()["choices"][0]["message"]["content"] == own
        for name, status in (
            ("file:../secret.png", 403),
            (f"file://{secret}", 403),
            ("file:link.png", 403),
            ("file:/etc/hostname", 403),
            ("file:sub/../../secret.png", 403),
            ("file:%2e%2e/secret.png", 403),
            ("file:none.png", 422),
            ("file:pipe.png", 422),
            ("file:sub", 422),
            ("file:a%00b", 400),
            ("file:", 400),
        ):
            answer = server.post(CHAT, show(name))
            assert answer.status == status, (name, answer.status, answer.body)


PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "198.18.0.1",
    "240.0.0.1",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
    "::127.0.0.1",
    "2001:db8::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public(address):
    assert not fetch.is_public(address)
    with pytest.raises(ApiError) as caught:
        fetch.fetch("http://photos.example/a.png", 100, resolve=lambda host, port: ["8.8.8.8", address])
    assert caught.value.status == 400 and "public" in caught.value.message


def test_public_addresses():
    assert all(fetch.is_public(address) for address in ("8.8.8.8", "1.1.1.1", "2606:4700:4700::1111"))


@pytest.fixture(scope="module")
def site():
    """A web site on loopback, and what it was asked."""
    seen: list[tuple[str, dict[str, str]]] = []
    picture = EXAMPLES[0].read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, dict(self.headers)))
            if self.path.startswith("/to?"):
                self.send_response(302)
                self.send_header("Location", self.path[4:])
                self.end_headers()
                return
            status, kind, body = {
                "/a.png": (200, "image/png", picture),
                "/a.html": (200, "text/html", b"<p>"),
                "/none": (404, "image/png", b""),
            }[self.path]
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found.server_address[1], seen
        found.shutdown()
        thread.join()


def test_fetch_connects_to_the_address_that_was_checked(site):
    """A name whose second look-up gives another address gains nothing: there is no second look-up."""
    port, seen = site
    looked_up = []

    def resolve(host, port):
        looked_up.append(host)
        return ["127.0.0.1"] if len(looked_up) == 1 else ["10.0.0.1"]

    url = f"http://photos.example:{port}/a.png"
    data = fetch.fetch(url, 10**6, resolve=resolve, allowed=lambda address: True)
    assert data == EXAMPLES[0].read_bytes() and looked_up == ["photos.example"]
    path, headers = seen[-1]
    assert path == "/a.png" and headers["Host"] == f"photos.example:{port}"
    assert "Cookie" not in headers and "Authorization" not in headers


def test_fetch_checks_every_redirect(site):
    port, seen = site

    def get(url, most=10**6):
        names = {"photos.example": "127.0.0.1", "inside.example": "127.0.0.9"}
        return fetch.fetch(
            url, most, resolve=lambda host, port: [names.get(host, host)], allowed=lambda a: a == "127.0.0.1"
        )

    base = f"http://photos.example:{port}"
    assert get(f"{base}/to?/a.png") == EXAMPLES[0].read_bytes()
    for url, status in (
        (f"{base}/to?http://inside.example:{port}/a.png", 400),
        (f"{base}/to?file:///etc/hostname", 400),
        (f"{base}/to?ftp://photos.example/a.png", 400),
        (f"{base}/to?/to?/to?/to?/a.png", 422),
        (f"{base}/none", 422),
        (f"{base}/a.html", 415),
        (f"http://user:word@photos.example:{port}/a.png", 400),
        ("http:///a.png", 400),
        ("http://photos.example:99999/", 400),
        (f"{base}/a b.png", 400),
    ):
        with pytest.raises(ApiError) as caught:
            get(url)
        assert (caught.value.status, caught.value.param) == (status, "image_url"), url
    with pytest.raises(ApiError) as caught:
        get(f"{base}/a.png", 1000)
    assert caught.value.status == 413
    assert all("inside" not in headers["Host"] for _, headers in seen)


def test_urls_only_where_they_are_allowed(site, server):
    port, seen = site
    before = len(seen)
    url = f"http://127.0.0.1:{port}/a.png"
    answer = server.post(CHAT, show(url))
    assert answer.status == 400 and answer.json()["error"]["code"] == "urls_not_allowed"
    with serving(allow_urls=True) as open_server:
        answer = open_server.post(CHAT, show(url))
        assert answer.status == 400 and "public" in answer.json()["error"]["message"]
        assert open_server.post(CHAT, show(data_uri(EXAMPLES[0]))).status == 200
    assert len(seen) == before


def test_a_server_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(fetch, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://photos.example:{silent.getsockname()[1]}/a.png"
        with pytest.raises(ApiError) as caught:
            fetch.fetch(url, 100, resolve=lambda host, port: ["127.0.0.1"], allowed=lambda address: True)
        assert caught.value.status == 504
