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

from kosmos_edge import InvalidRequest, load, urls
from kosmos_edge.server import app, pictures
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
                "/large": (200, "image/png", bytes(1 << 21)),
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


def test_what_can_go_wrong_with_a_url(site, monkeypatch):
    """Loopback is let through here; what is refused, redirects among it, tests/images/test_urls.py tests."""
    port, _ = site
    monkeypatch.setattr(urls, "is_public", lambda address: str(address) == "127.0.0.1")
    monkeypatch.setattr(pictures, "URL_SECONDS", 2.0)
    base = f"http://127.0.0.1:{port}"
    with serving(allow_urls=True, max_body=1 << 20) as server, socket.create_server(("127.0.0.1", 0)) as silent:
        for url, status in (
            (f"{base}/a.png", 200),
            (f"{base}/to?/a.png", 200),
            (f"{base}/to?http://127.0.0.9:{port}/a.png", 400),
            (f"{base}/to?file:///etc/hostname", 400),
            (f"{base}/none", 422),
            (f"{base}/a.html", 422),
            (f"{base}/large", 413),
            (f"http://user:word@127.0.0.1:{port}/a.png", 400),
            (f"http://127.0.0.1:{silent.getsockname()[1]}/", 504),
        ):
            answer = server.post(CHAT, show(url))
            assert answer.status == status, (url, answer.json())
            assert "127.0.0.9 is" not in str(answer.json())
