"""Moondream's client from PyPI against the server. Its package brings a GPU runtime along, which the client itself does
not need: `pip install --no-deps moondream` is enough for these tests. Without it they use what it sends."""

import base64
import io
import json

import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `server` is not installed")

from helpers.http_server import EXAMPLES, data_uri, serving

from kosmos_edge import Model, load


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def model() -> Model:
    return load("nano", threads=1)


def as_sent(path) -> bytes:
    """The JPEG that the client makes of a picture."""
    out = io.BytesIO()
    Image.open(path).convert("RGB").save(out, format="JPEG", quality=95)
    return out.getvalue()


@pytest.fixture(scope="module")
def client(server):
    moondream = pytest.importorskip("moondream", reason="Moondream's client is not installed")
    return moondream.vl(endpoint=f"{server.url}/v1")


def test_caption(client, model):
    picture, sent = Image.open(EXAMPLES[0]), as_sent(EXAMPLES[0])
    for length, own in (("short", "short"), ("normal", "short"), ("long", "long")):
        assert client.caption(picture, length=length)["caption"] == model.caption(sent, own).text
    parts = list(client.caption(picture, stream=True)["caption"])
    assert len(parts) > 4 and "".join(parts) == model.caption(sent).text
    assert client.caption(picture, settings={"max_tokens": 2})["caption"] == model.caption(sent, max_tokens=2).text


def test_query(client, model):
    picture, sent = Image.open(EXAMPLES[1]), as_sent(EXAMPLES[1])
    own = model.ask(sent, "What is this?").text
    assert client.query(picture, "What is this?") == {"answer": own}
    assert "".join(client.query(picture, "What is this?", stream=True)["answer"]) == own
    assert (
        client.query(question="What is a dog?")["answer"] == model.generate(["Question: What is a dog? Answer:"]).text
    )


def test_detect_and_point(client, model):
    picture, sent = Image.open(EXAMPLES[0]), as_sent(EXAMPLES[0])
    own = model.locate(sent, "a truck")
    assert own.boxes
    found = client.detect(picture, "a truck")["objects"]
    corners = [(box["x_min"], box["y_min"], box["x_max"], box["y_max"]) for box in found]
    assert corners == [box.normalized for box in own.boxes if box.valid]
    x1, y1, x2, y2 = own.boxes[0].normalized
    assert client.point(picture, "a truck")["points"][0] == {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2}
    assert len(client.detect(picture, "a truck", settings={"max_objects": 1})["objects"]) == 1


def test_chat(client, model):
    content = [
        {"type": "image_url", "image_url": {"url": data_uri(EXAMPLES[2])}},
        {"type": "text", "text": "What is this?"},
    ]
    client.model = "nano"
    answer = client.chat([{"role": "user", "content": content}])
    assert answer["message"]["content"] == model.ask(EXAMPLES[2], "What is this?").text
    streamed = client.chat([{"role": "user", "content": content}], stream=True)
    assert "".join(streamed["message"]) == answer["message"]["content"]


# ---- what the client sends, without the client


def test_caption_and_its_stream_as_bytes(server, model):
    body = {"image_url": data_uri(EXAMPLES[0]), "length": "normal", "stream": False}
    own = model.caption(EXAMPLES[0])
    answer = server.post("/v1/caption", body).json()
    assert answer["caption"] == own.text and answer["finish_reason"] == "stop" and answer["request_id"]
    streamed = server.post("/v1/caption", {**body, "stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in streamed.body.decode().splitlines() if line]
    assert "".join(event["chunk"] for event in events) == own.text
    assert [event["completed"] for event in events] == [False] * (len(events) - 1) + [True]


def test_detect_and_point_as_bytes(server, model):
    body = {"image_url": data_uri(EXAMPLES[0]), "object": "a truck"}
    [box] = model.locate(EXAMPLES[0], "a truck").boxes
    x1, y1, x2, y2 = box.normalized
    found = server.post("/v1/detect", body).json()["objects"]
    assert found == [{"x_min": x1, "y_min": y1, "x_max": x2, "y_max": y2, "score": box.score}]
    assert server.post("/v1/point", body).json()["points"] == [{"x": (x1 + x2) / 2, "y": (y1 + y2) / 2}]


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/query", {"question": "what?", "reasoning": True}, "reasoning"),
        ("/v1/query", {"question": "what?", "spatial_refs": [[0.1, 0.1, 0.2, 0.2]]}, "spatial_refs"),
        ("/v1/query", {"question": " "}, "question"),
        ("/v1/query", {}, "question"),
        ("/v1/caption", {"length": "endless"}, "length"),
        ("/v1/caption", {"settings": {"variant": "mine"}}, "settings.variant"),
        ("/v1/caption", {"settings": {"temperature": -1}}, "temperature"),
        ("/v1/detect", {"object": "a dog", "settings": {"max_objects": 0}}, "settings.max_objects"),
        ("/v1/detect", {"object": ""}, "phrase"),
        ("/v1/caption", {"image_url": base64.b64encode(b"bare").decode()}, "image_url"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(server, path, fields, param):
    answer = server.post(path, {"image_url": data_uri(EXAMPLES[0]), **fields})
    assert (answer.status, answer.json()["error"]["param"]) == (400, param), answer.body
