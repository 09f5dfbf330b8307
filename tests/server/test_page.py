"""The page of the server without a browser: what is served, its headers, and that its files ask for nothing else."""

import re
from html.parser import HTMLParser

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `server` is not installed")

from helpers.http_server import serving

from kosmos_edge import load
from kosmos_edge.server import page

KEY = "a-key-of-the-test"
SCRIPTS = sorted(page.FOLDER.glob("*.js"))
HTML = (page.FOLDER / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


class Elements(HTMLParser):
    """All elements with their attributes."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.feed(HTML)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


ELEMENTS = Elements().found


def asked_for():
    """The paths that the page's files name, relative to /."""
    paths = set()
    for _, attributes in ELEMENTS:
        paths |= {attributes[name] for name in ("src", "href", "data-example") if name in attributes}
    for script in SCRIPTS:
        text = script.read_text(encoding="utf-8")
        paths |= {f"page/{name}" for name in re.findall(r'from "\./([^"]+)"', text)}
        assert not re.search(r'from "(?!\./)|import\(', text), script.name
    return {path for path in paths if not path.startswith("#")}


def test_the_page_is_served(server):
    answer = server.get("/")
    assert answer.status == 200 and answer.body.decode() == HTML
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert server.call("HEAD", "/").status == 200


def test_every_file_that_the_page_asks_for_is_there(server):
    paths = asked_for()
    kinds = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml",
             "png": "image/png", "webp": "image/webp", "json": "application/json"}  # fmt: skip
    assert {"page/app.js", "page/style.css", "page/icon.svg", "page/scene-1.webp", "openapi.json"} <= paths
    for path in sorted(paths):
        answer = server.get(f"/{path}")
        assert answer.status == 200 and answer.headers["content-type"] == kinds[path.rpartition(".")[2]], path
    assert {path.name for path in page.FOLDER.iterdir()} == {
        path.removeprefix("page/") for path in paths if path.startswith("page/")
    } | {"index.html"}  # and nothing else lies in the package


def test_headers(server):
    for path in ("/", "/page/app.js", "/page/style.css", "/page/icon.svg"):
        headers = server.get(path).headers
        policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
        assert policy == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "img-src": "'self' blob: data:",
            "connect-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


def test_a_file_that_the_browser_has_is_not_sent_again(server):
    first = server.get("/page/app.js")
    again = server.get("/page/app.js", {"If-None-Match": first.headers["etag"]})
    assert again.status == 304 and not again.body and again.headers["etag"] == first.headers["etag"]
    assert server.get("/page/app.js", {"If-None-Match": '"other"'}).body == first.body


def test_nothing_else_can_be_reached(server):
    for path in ("/page/", "/page/none.js", "/page/../page.py", "/page/..%2fpage.py", "/page/%2e%2e/page.py", "/page"):
        assert server.get(path).status == 404, path
    assert server.post("/page/app.js", {}).status == 405


def test_no_external_address_in_any_file():
    """But for the names of XML."""
    names = {"http://www.w3.org/2000/svg"}
    for path in page.FOLDER.iterdir():
        if path.suffix in (".html", ".css", ".js", ".svg"):
            text = path.read_text(encoding="utf-8")
            assert set(re.findall(r"(?:https?:)?//[\w.-]+\.\w[^\s\"'<>)]*", text)) <= names, path.name
            assert "url(" not in text and "@import" not in text, path.name


def test_no_inline_script_and_style():
    assert [attributes for tag, attributes in ELEMENTS if tag == "script"] == [{"type": "module", "src": "page/app.js"}]
    for tag, attributes in ELEMENTS:
        assert tag != "style" and "style" not in attributes, (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert not attributes.get("href", "").startswith("javascript:")
    for script in SCRIPTS:
        text = script.read_text(encoding="utf-8")
        banned = (
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\(\"(?:style|on)"
        )
        assert not re.search(banned, text), script.name


def test_every_id_that_a_script_names_is_there():
    ids = [attributes["id"] for _, attributes in ELEMENTS if "id" in attributes]
    assert len(set(ids)) == len(ids)
    used = {name for script in SCRIPTS for name in re.findall(r'(?:\bat|ById)\("([^"]+)"\)', script.read_text("utf-8"))}
    assert len(used) > 20 and used <= set(ids)
    for _, attributes in ELEMENTS:
        for name in ("for", "aria-controls", "aria-labelledby", "aria-describedby"):
            assert set(attributes.get(name, "").split()) <= set(ids), attributes


def test_the_names_on_boxes_can_be_read():
    """White on each colour of boxes has the contrast that WCAG asks of text."""
    colours = re.findall(r"--c\d: #(\w{6});", (page.FOLDER / "style.css").read_text(encoding="utf-8"))
    assert len(colours) == 8
    for colour in colours:
        shares = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
        assert 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05) >= 4.5, colour


def test_without_the_page():
    with serving(page=False) as server:
        answer = server.get("/")
        assert answer.status == 200 and "openapi.json" in answer.body.decode()
        assert answer.headers["content-type"].startswith("text/plain") and b"<" not in answer.body
        assert server.get("/page/app.js").status == 404
        assert server.get("/v1/about").status == 200


def test_the_page_needs_no_key_but_its_routes_do():
    with serving(api_key=KEY) as server:
        for path in ("/", "/page/app.js", "/page/scene-1.webp"):
            assert server.get(path).status == 200
        assert server.get("/v1/about").status == 401
        assert server.get("/v1/about", {"Authorization": f"Bearer {KEY}"}).status == 200


def test_nano_knows_the_example_pictures():
    """The alternative texts are what it answers."""
    model = load("nano", threads=1)
    shown = [attributes for _, attributes in ELEMENTS if attributes.get("src", "").startswith("page/scene")]
    told = {attributes["src"]: attributes["alt"] for attributes in shown}
    assert len(told) == 3
    for path, alt in told.items():
        text = model.caption((page.FOLDER / path.removeprefix("page/")).read_bytes()).text
        assert all(thing in text for thing in re.split(r", | and ", alt[0].lower() + alt[1:])), (path, text)
