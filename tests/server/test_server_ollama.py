"""Ollama's client from PyPI against the server."""

import base64
import time

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `server` is not installed")
ollama = pytest.importorskip("ollama", reason="Ollama's client is not installed")

from helpers.http_server import EXAMPLES, serving  # noqa: E402

from kosmos_edge import Model, __version__, load  # noqa: E402


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    found = ollama.Client(host=server.url, trust_env=False)
    yield found
    found.close()


@pytest.fixture(scope="module")
def model() -> Model:
    return load("nano", threads=1)


def test_generate(client, model):
    answer = client.generate("nano", "What is this?", images=[EXAMPLES[0]], logprobs=True)
    own = model.ask(EXAMPLES[0], "What is this?", logprobs=True)
    assert (answer.response, answer.done, answer.done_reason) == (own.text, True, "stop")
    assert (answer.prompt_eval_count, answer.eval_count) == (own.timings.prompt_tokens, own.timings.tokens)
    assert [token.logprob for token in answer.logprobs] == own.logprobs[:-1]
    assert answer.total_duration > 0 and answer.model == "nano"
    caption = client.generate("nano", images=[EXAMPLES[0].read_bytes()])
    assert caption.response == model.caption(EXAMPLES[0]).text
    told = client.generate("nano", "What is this?", system="Be short.", images=[EXAMPLES[0]])
    assert told.response == model.ask(EXAMPLES[0], "Be short.\nWhat is this?").text
    raw = client.generate("nano", "<grounding> An image of", raw=True, images=[EXAMPLES[0]])
    assert raw.response == model.generate([EXAMPLES[0], "<grounding> An image of"], raw=True).text


def test_generate_streams(client, model):
    parts = list(client.generate("nano", images=[EXAMPLES[1]], stream=True))
    own = model.caption(EXAMPLES[1])
    assert len(parts) > 4 and "".join(part.response for part in parts) == own.text
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].eval_count == own.timings.tokens


def test_chat(client, model):
    messages = [{"role": "user", "content": "What is this?", "images": [str(EXAMPLES[2])]}]
    chat = model.chat(EXAMPLES[2])
    for question in ("What is this?", "What colour is it?"):
        if len(messages) > 1:
            messages.append({"role": "user", "content": question})
        answer = client.chat("nano", messages)
        assert answer.message.role == "assistant" and answer.message.content == chat.ask(question).text
        messages.append(answer.message)
    streamed = list(client.chat("nano", messages[:1], stream=True))
    assert "".join(part.message.content for part in streamed) == model.ask(EXAMPLES[2], "What is this?").text


def test_options(client, model):
    options = {"temperature": 1.5, "seed": 5, "top_k": 40, "top_p": 0.9, "num_predict": 7, "stop": ["zebra"]}
    hints = {"num_ctx": 2048, "num_thread": 3, "repeat_penalty": 1.0, "mirostat": 0}
    answer = client.generate("nano", "What is this?", images=[EXAMPLES[3]], options={**options, **hints})
    own = {name: options[name] for name in ("temperature", "seed", "top_k", "top_p", "stop")}
    assert answer.response == model.ask(EXAMPLES[3], "What is this?", max_tokens=7, **own).text
    greedy = client.generate("nano", images=[EXAMPLES[3]], options={"top_k": 40, "top_p": 0.9, "num_predict": -1})
    assert greedy.response == model.caption(EXAMPLES[3]).text


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"format": "json"}, "format"),
        ({"think": True}, "think"),
        ({"suffix": "end"}, "suffix"),
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"context": [1, 2]}, "context"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"options": {"repeat_penalty": 1.1}}, "options.repeat_penalty"),
        ({"options": {"num_ctx": 8192}}, "options.num_ctx"),
        ({"options": {"colour": 1}}, "options.colour"),
        ({"options": {"num_predict": 0}}, "max_tokens"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"keep_alive": "nan"}, "keep_alive"),
        ({"keep_alive": "1e300"}, "keep_alive"),
        ({"keep_alive": 10**300}, "keep_alive"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_done_is_refused_by_name(client, fields, says):
    for stream in (False, True):
        with pytest.raises(ollama.ResponseError) as caught:
            list(client.generate("nano", "What is this?", images=[EXAMPLES[0]], stream=stream, **fields))
        assert caught.value.status_code == 400 and caught.value.error.startswith(says)


def test_tools_and_images_that_cannot_be_used(client, server):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    with pytest.raises(ollama.ResponseError, match="tools") as caught:
        client.chat("nano", [{"role": "user", "content": "hi"}], tools=[tool])
    assert caught.value.status_code == 400
    with pytest.raises(ollama.ResponseError) as caught:
        client.generate("nano", images=[b"no image"])
    assert caught.value.status_code == 422
    with pytest.raises(ollama.ResponseError, match="not served") as caught:
        client.generate("llava", "hi")
    assert caught.value.status_code == 404
    for image, status in (("@@", 400), (7, 400), (base64.b64encode(b"").decode(), 422)):
        answer = server.post("/api/generate", {"model": "nano", "images": [image]})
        assert answer.status == status and isinstance(answer.json()["error"], str)


def test_what_is_not_here_is_said_in_ollamas_form(client, server):
    with pytest.raises(ollama.ResponseError) as caught:
        client.embed("nano", "a text")
    assert (caught.value.status_code, caught.value.error) == (404, "/api/embed is not a route here; see /openapi.json")
    for answer in (server.get("/api/chat"), server.call("GET", "/api/tags", headers={"Origin": "https://a.example"})):
        assert answer.status in (403, 405) and isinstance(answer.json()["error"], str)


def test_the_model_in_lists(client):
    [listed] = client.list().models
    assert listed.model == "nano:latest" and listed.size > 10**6 and listed.details.parameter_size == "8.2M"
    shown = client.show("nano:latest")
    assert shown.modelinfo["general.architecture"] == "kosmos2" and "vision" in shown.capabilities
    assert client.ps().models[0].model == "nano:latest"
    with pytest.raises(ollama.ResponseError):
        client.show("llava")


def test_version(server):
    assert server.get("/api/version").json() == {"version": __version__}


def test_keep_alive_unloads_and_an_empty_prompt_loads():
    with serving() as server:
        client = ollama.Client(host=server.url, trust_env=False)
        assert client.generate("nano", keep_alive=0).done_reason == "unload"
        assert client.ps().models == [] and not server.service.keeper.loaded
        assert client.generate("nano", keep_alive="1h5m").done_reason == "load"
        assert server.service.keeper.keep_alive == 3900 and server.service.keeper.loaded
        assert client.generate("nano", images=[EXAMPLES[0]], keep_alive="100ms").response
        end = time.monotonic() + 5
        while server.service.keeper.loaded:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert client.generate("nano", keep_alive=-1).done_reason == "load"
        assert server.service.keeper.keep_alive is None
        client.close()
