"""/v1/about says what the served model can do, and why not the rest; captions with boxes have a length."""

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `server` is not installed")

from helpers.http_server import EXAMPLES, data_uri, serving

from kosmos_edge import load
from kosmos_edge.errors import InvalidRequest


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


def test_about(server):
    about = server.get("/v1/about").json()
    assert about["model"] == "nano" and about["notice"].startswith("nano answers")
    can = {name for name, why in about["tasks"].items() if why is None}
    assert can == {"caption", "caption_long", "ask", "ground", "locate", "describe"}
    assert about["limits"] == {"body_bytes": 20 << 20, "pixels": 64_000_000, "seconds": 120}
    with pytest.raises(InvalidRequest) as caught:
        load("nano", threads=1).read(EXAMPLES[0])
    assert about["tasks"]["read"] == str(caught.value)


def test_about_a_model_that_reads():
    with serving(lambda: load("nano-read", threads=1), id="reader", max_body=1 << 20) as server:
        about = server.get("/v1/about").json()
        assert {name for name, why in about["tasks"].items() if why is None} == {"read", "read_markdown"}
        assert about["model"] == "reader" and about["limits"]["body_bytes"] == 1 << 20
        for task, body in (("locate", {"phrase": "a"}), ("describe", {"box": [0, 0, 9, 9]})):
            answer = server.post(f"/v1/{task}", {"image": data_uri(EXAMPLES[0]), **body})
            assert about["tasks"][task] == answer.json()["error"]["message"]


def test_ground_with_a_length(server):
    model = load("nano", threads=1)
    for length in ("short", "long"):
        answer = server.post("/v1/ground", {"image": data_uri(EXAMPLES[1]), "length": length}).json()
        own = model.caption(EXAMPLES[1].read_bytes(), length=length, ground=True)
        assert answer["text"] == own.text and own.entities
        assert answer["entities"] == [entity.to_dict() for entity in own.entities]
    for wrong in ({"length": "medium"}, {"length": "long", "prompt": "There is"}):
        answer = server.post("/v1/ground", {"image": data_uri(EXAMPLES[1]), **wrong})
        assert answer.status == 400 and answer.json()["error"]["param"] == "length"
