"""Our own routes: the verbs' answers, bit for bit, streams, and errors that name the field."""

import base64
import json

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `server` is not installed")

from helpers.api_model import tiny_file
from helpers.http_server import EXAMPLES, data_uri, serving
from helpers.reciting import write_reader

from kosmos_edge import load, open_image
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.server.routes import ours

VERBS = {
    "ground": [{}, {"prompt": "There is", "lead_in": True}],
    "locate": [{"phrase": "a truck"}, {"phrase": "a truck", "num_beams": 3}],
    "describe": [{"box": [10, 20, 200, 300]}, {"box": [0.1, 0.2, 0.5, 0.9], "normalized": True, "ground": False}],
}


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def model():
    return load("nano", threads=1)


def plain(result):
    """A result without what differs from call to call, or is about files."""
    values = result if isinstance(result, dict) else json.loads(result.to_json())
    return {k: v for k, v in values.items() if k not in ("path", "error", "error_type", "timings")}


@pytest.mark.parametrize("task", VERBS)
def test_a_verb(server, model, task):
    for arguments in VERBS[task]:
        body = {"image": data_uri(EXAMPLES[0]), "logprobs": True, **arguments}
        answer = server.post(f"/v1/{task}", body)
        given = {k: tuple(v) if k == "box" else v for k, v in arguments.items()}
        own = getattr(model, task)(EXAMPLES[0].read_bytes(), logprobs=True, **given)
        assert answer.status == 200 and plain(answer.json()) == plain(own)
        timings = answer.json()["timings"]
        assert timings["tokens"] == own.timings.tokens and timings["total_ms"] > 0


def test_base64_in_lines(server, model):
    wrapped = base64.encodebytes(EXAMPLES[0].read_bytes()).decode()
    assert wrapped.count("\n") > 10
    for image in (wrapped, f"data:image/png;base64,{wrapped}", wrapped.replace("\n", "\r\n")):
        answer = server.post("/v1/ground", {"image": image})
        assert answer.status == 200 and plain(answer.json()) == plain(model.ground(EXAMPLES[0].read_bytes()))
    answer = server.post("/v1/ground", {"image": "/home/me/photo.jpg"})
    message = answer.json()["error"]["message"]
    assert answer.status == 400 and "data: URI" in message and message.endswith('got "/home/me/photo.jpg"')


def test_a_stream(server, model):
    bare = base64.b64encode(EXAMPLES[1].read_bytes()).decode()
    for beams in (1, 2):
        answer = server.post("/v1/ground", {"image": bare, "stream": True, "num_beams": beams})
        blocks = [block.split("\n") for block in answer.body.decode().split("\n\n") if block]
        events = [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]
        own = model.ground(EXAMPLES[1].read_bytes(), num_beams=beams)
        assert "".join(value["text"] for kind, value in events if kind == "text") == own.text
        entities = [value["entity"] for kind, value in events if kind == "entity"]
        assert own.entities and entities == [entity.to_dict() for entity in own.entities]
        assert events[-1][0] == "done" and plain(events[-1][1]) == plain(own)


def test_score(server, model):
    texts = ["a dog", "a Christmas tree", "a truck"]
    for arguments in ({}, {"normalize": "mean"}, {"template": "This is {text}."}):
        answer = server.post("/v1/score", {"image": data_uri(EXAMPLES[0]), "texts": texts, **arguments})
        assert plain(answer.json()) == plain(model.score(EXAMPLES[0].read_bytes(), texts, **arguments))
    answer = server.post("/v1/score", {"texts": texts})
    assert plain(answer.json()) == plain(model.score(None, texts))


def test_score_behind_any_sequence(server, model):
    first, second = (EXAMPLES[i] for i in (0, 1))
    texts = ["a dog", "a truck"]
    box = [15, 135, 125, 265]
    given = [
        {"image": data_uri(first)},
        {"text": "An image of "},
        {"box": box},
        {"image": data_uri(second)},
        {"text": "A "},
    ]
    own = [first.read_bytes(), "An image of ", box, second.read_bytes(), "A "]
    pictures = [open_image(value) if isinstance(value, bytes) else value for value in own]
    for arguments in ({}, {"normalize": "characters"}):
        answer = server.post("/v1/score", {"segments": given, "texts": texts, **arguments})
        assert plain(answer.json()) == plain(model.score_segments(pictures, texts, **arguments)), answer.body
    answer = server.post("/v1/score", {"segments": [{"text": "It is"}], "texts": texts})
    assert plain(answer.json()) == plain(model.score_segments(["It is"], texts))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"segments": "x"}, "segments"),
        ({"segments": ["x"]}, "segments[0]"),
        ({"segments": [{}]}, "segments[0]"),
        ({"segments": [{"text": "a", "box": [1, 2, 3, 4]}]}, "segments[0]"),
        ({"segments": [{"text": "a"}, {"image": 5}]}, "segments[1].image"),
        ({"segments": [{"words": "a"}]}, "segments[0].words"),
        ({"segments": [{"box": [1, 2, 3, 4]}]}, "segments[0]"),
        ({"segments": [{"text": "a"}], "template": "{text}"}, "template"),
        ({"segments": [{"text": "a"}], "image": data_uri(EXAMPLES[0])}, "image"),
    ],
)
def test_wrong_segments_are_named(server, fields, param):
    answer = server.post("/v1/score", {"texts": ["a dog"], **fields})
    assert answer.status == 400 and answer.json()["error"]["param"] == param, answer.body


def test_read():
    path = tiny_file().with_name("server-reader.gguf")
    write_reader(path, [((1, 1, 9, 9), "a line")])
    own = load(path, threads=1).read(EXAMPLES[0].read_bytes())
    assert own.lines
    with serving(lambda: load(path, threads=1), id="reader") as server:
        answer = server.post("/v1/read", {"image": data_uri(EXAMPLES[0])})
        assert plain(answer.json()) == plain(own)
        cut = server.post("/v1/read", {"image": data_uri(EXAMPLES[0]), "stop": ["ne"]}).json()
        assert (cut["text"], cut["notes"][-1]) == ("a li", "the last line was cut by a stop text")
        assert cut["lines"][0]["box"] == plain(own)["lines"][0]["box"] and cut["lines"][0]["cut"] is True


def test_a_verb_that_the_model_does_not_have(server, model):
    with pytest.raises(InvalidRequest) as caught:
        model.read(EXAMPLES[0])
    answer = server.post("/v1/read", {"image": data_uri(EXAMPLES[0])})
    assert answer.status == 400 and answer.json()["error"]["message"] == str(caught.value)


WRONG = [
    ("/v1/ground", {"image": None}, "image"),
    ("/v1/ground", {"image": 7}, "image"),
    ("/v1/ground", {"image": "no base64!"}, "image"),
    ("/v1/ground", {"prompt": " "}, "prompt"),
    ("/v1/locate", {}, "phrase"),
    ("/v1/locate", {"phrase": ["a"]}, "phrase"),
    ("/v1/locate", {"phrase": "a dog", "template": "no place"}, "template"),
    ("/v1/describe", {}, "box"),
    ("/v1/describe", {"box": [1, 2, 3]}, "box"),
    ("/v1/describe", {"box": [5, 5, 1, 1]}, "box"),
    ("/v1/describe", {"box": [0.1, 0.1, 0.5, 0.5]}, "box"),
    ("/v1/describe", {"box": [0, 0, 9999, 9999]}, "box"),
    ("/v1/describe", {"box": "1,2,3,4"}, "box"),
    ("/v1/score", {"texts": []}, "texts"),
    ("/v1/score", {"texts": "a dog"}, "texts"),
    ("/v1/score", {"texts": ["a dog"], "normalize": "max"}, "normalize"),
    ("/v1/score", {"texts": ["a dog"], "temperature": 1}, "temperature"),
]


@pytest.mark.parametrize(("path", "fields", "param"), WRONG)
def test_errors_name_the_field(server, path, fields, param):
    answer = server.post(path, {"image": data_uri(EXAMPLES[0]), **fields})
    assert answer.status == 400 and answer.json()["error"]["param"] == param, answer.body


NUMBERS = {
    "max_tokens": (0, -1, 2049, 1.5, True, "9", 1e400),
    "temperature": (-0.1, 100.1, "1", True, [], 1e400),
    "top_k": (0, -1, 10**9, 1.5),
    "top_p": (0, -1, 1.01, "x"),
    "seed": (-1, 2**64, 0.5),
    "num_beams": (0, 9, 1.5),
    "no_repeat_ngram_size": (-1, 2049, 1.5),
    "min_score": (-0.1, 1.1, "x"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_its_range(server, name):
    for value in NUMBERS[name]:
        extra = {"temperature": 1} if name in ("top_k", "top_p") else {}
        body = json.dumps({"image": data_uri(EXAMPLES[0]), **extra, name: value}).replace("Infinity", "1e400")
        answer = server.post("/v1/ground", body.encode())
        assert answer.status == 400 and answer.json()["error"]["param"] == name, (value, answer.body)


def test_every_option_is_a_field():
    from kosmos_edge.options import GenerationOptions

    assert set(ours.OPTIONS) == set(GenerationOptions.__annotations__) - {"cancel", "template"}


def test_a_model_in_a_worker_process(model):
    def isolated():
        return load("nano", threads=1, isolation="process")

    with serving(isolated) as server:
        body = {"image": data_uri(EXAMPLES[0]), "logprobs": True}
        own = plain(model.ground(EXAMPLES[0].read_bytes(), logprobs=True))
        assert plain(server.post("/v1/ground", body).json()) == own
        streamed = server.post("/v1/ground", {**body, "stream": True}).body.decode()
        assert plain(json.loads(streamed.split("event: done\ndata: ")[1])) == own
        texts = ["a dog", "a truck"]
        ranked = server.post("/v1/score", {"image": data_uri(EXAMPLES[0]), "texts": texts}).json()
        assert plain(ranked) == plain(model.score(EXAMPLES[0].read_bytes(), texts))
