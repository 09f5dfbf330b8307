"""A detector behind HTTP: the requests, and what becomes of answers that are not as documented."""

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer

import pytest
from PIL import Image

from kosmos_edge import open_image
from kosmos_edge.apps.grit import Asked, HttpDetector, Scored, Span
from kosmos_edge.apps.grit.http_detector import read_boxes
from kosmos_edge.errors import InvalidRequest, KosmosIOError

GOOD = b'{"boxes": [[{"box": [0, 0.1, 0.5, 1], "score": 0.75, "place": 0.5}], []]}'


@pytest.fixture
def endpoint():
    """(address, the replies that are to come as (status, body), the requests that came)"""
    replies, requests = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            requests.append((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
            status, body = replies.pop(0)
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/detect", replies, requests
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def asked():
    picture = open_image(Image.new("RGB", (9, 5), (1, 2, 3)))
    return Asked(picture, b"content", "a dog in a field", (Span(0, 5), Span(9, 16)))


def test_the_request_is_the_documented_one(endpoint, asked):
    url, replies, requests = endpoint
    replies.append((200, GOOD))
    (found,) = HttpDetector(url).detect([asked])
    assert found.boxes == [[Scored((0.0, 0.1, 0.5, 1.0), 0.75, 0.5)], []]
    headers, body = requests[0]
    record = json.loads(body)
    image = Image.open(io.BytesIO(base64.b64decode(record.pop("image"))))
    assert (
        image.size == (9, 5) and image.getpixel((0, 0)) == (1, 2, 3) and headers["Content-Type"] == "application/json"
    )
    assert record == {
        "version": 1,
        "width": 9,
        "height": 5,
        "caption": "a dog in a field",
        "phrases": [{"text": "a dog", "start": 0, "end": 5}, {"text": "a field", "start": 9, "end": 16}],
    }


def test_it_is_tried_again_and_the_pauses_grow(endpoint, asked):
    url, replies, _ = endpoint
    pauses = []
    replies += [(503, b""), (429, b""), (200, GOOD)]
    (found,) = HttpDetector(url, pause=pauses.append).detect([asked])
    assert len(found.boxes) == 2 and pauses == [1.0, 2.0]


@pytest.mark.parametrize("tail", [b"", b" "])  # cut off, or without an end
def test_an_answer_that_does_not_end_is_tried_again(asked, tail):
    """A whole answer of which more was promised: it may have been cut at a brace."""
    connections, stopped = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            connections.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", str(len(GOOD) + 1_000_000))
            self.end_headers()
            self.wfile.write(GOOD)
            try:
                while tail and not stopped.wait(0.02):
                    self.wfile.write(tail)
            except OSError:
                pass

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        says = "timed out" if tail else "IncompleteRead"
        with pytest.raises(KosmosIOError, match=f"does not answer: {says}"):
            HttpDetector(
                f"http://127.0.0.1:{server.server_port}/", seconds=0.5 if tail else 60, tries=2, pause=lambda _: None
            ).detect([asked])
        assert len(connections) == 2
    finally:
        stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_some_refusals_concern_one_picture(endpoint, asked, status):
    url, replies, _ = endpoint
    replies += [(status, b"too large"), (200, GOOD)]
    refused, found = HttpDetector(url).detect([asked, asked])
    assert isinstance(refused, InvalidRequest) and f"status {status}" in str(refused) and "too large" in str(refused)
    assert found.boxes


@pytest.mark.parametrize("status", [302, 401, 404, 500])
def test_others_end_the_run(endpoint, asked, status):
    url, replies, requests = endpoint
    replies += [(status, b"")] * 4
    with pytest.raises(KosmosIOError, match=f"does not answer: status {status}"):
        HttpDetector(url, pause=lambda _: None).detect([asked])
    assert len(requests) == (4 if status == 500 else 1)  # a redirect is not followed


def test_nobody_there(asked):
    with pytest.raises(KosmosIOError, match="does not answer"):
        HttpDetector("http://127.0.0.1:9/", tries=2, pause=lambda _: None).detect([asked])


def test_an_answer_of_another_form_concerns_one_picture(endpoint, asked):
    url, replies, _ = endpoint
    replies += [(200, b"<html>"), (200, GOOD)]
    wrong, found = HttpDetector(url).detect([asked, asked])
    assert isinstance(wrong, InvalidRequest) and found.boxes


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"{", "expected JSON"),
        (b"[" * 100_000, "expected JSON"),
        (b"[]", 'expected {"boxes"'),
        (b'{"boxes": [[], 3]}', 'expected {"boxes"'),
        (b'{"boxes": [[]]}', "for 2 phrases, got 1"),
        (b'{"boxes": [[], [{"box": [0, 0, 1, 1]}]]}', "phrase 1, box 0"),
        (b'{"boxes": [[], [{"box": [0, 0, 1], "score": 1}]]}', "four finite numbers"),
        (b'{"boxes": [[], [{"box": [0, 0, NaN, 1], "score": 1}]]}', "four finite numbers"),
        (b'{"boxes": [[], [{"box": [0, 0, 1%s, 1], "score": 1}]]}' % (b"0" * 400), "four finite numbers"),
        (b'{"boxes": [[], [{"box": [0, 0, 1, 1], "score": 1%s}]]}' % (b"0" * 400), "score from 0 to 1"),
        (b'{"boxes": [[], [%s]]}' % b",".join([b'{"box": [0, 0, 1, 1], "score": 1}'] * 5001), "at most 5000"),
        (b'{"boxes": [[], [{"box": [0, 0, 1, 1], "score": 7}]]}', "score from 0 to 1"),
        (b'{"boxes": [[], [{"box": [0, 0, 1, 1], "score": 1, "place": "x"}]]}', "place from 0 to 1"),
    ],
)
def test_answers_are_checked(answer, says):
    with pytest.raises(InvalidRequest, match=says):
        read_boxes(answer, 2)


@pytest.mark.parametrize("url", ["ftp://x/", "http://", "http://me:secret@x/"])
def test_addresses_are_checked(url):
    with pytest.raises(InvalidRequest, match="--detector") as caught:
        HttpDetector(url)
    assert "secret" not in str(caught.value)
