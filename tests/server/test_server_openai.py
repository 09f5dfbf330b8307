"""OpenAI's client from PyPI against the server: answers, streams, log-probabilities, refusals."""

import math

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `server` is not installed")
openai = pytest.importorskip("openai", reason="OpenAI's client is not installed")

from helpers.http_server import EXAMPLES, chat_body, data_uri, serving  # noqa: E402

from kosmos_edge import Model, load  # noqa: E402


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none needed", max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def model() -> Model:
    return load("nano", threads=1)


def test_a_question(client, model):
    answer = client.chat.completions.create(
        model="nano", logprobs=True, top_p=1, temperature=0, **chat_body(EXAMPLES[0], "What is this?")
    )
    own = model.ask(EXAMPLES[0], "What is this?", logprobs=True)
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", own.text, "stop")
    assert answer.model == "nano" and answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert answer.usage.prompt_tokens == own.timings.prompt_tokens
    assert answer.usage.total_tokens == own.timings.prompt_tokens + own.timings.tokens
    assert [token.logprob for token in choice.logprobs.content] == own.logprobs[:-1]  # without that of </s>
    assert "".join(token.token for token in choice.logprobs.content).strip() == own.text
    assert b"".join(bytes(token.bytes) for token in choice.logprobs.content).decode().strip() == own.text


def test_an_image_without_words_is_captioned_with_boxes(client, model):
    answer = client.chat.completions.create(model="nano", extra_body={"ground": True}, **chat_body(EXAMPLES[1]))
    own = model.caption(EXAMPLES[1], ground=True)
    assert answer.choices[0].message.content == own.text
    assert own.entities and answer.choices[0].message.grounding == [entity.to_dict() for entity in own.entities]


def test_a_stream_is_the_same_answer(client, model):
    chunks = list(
        client.chat.completions.create(
            model="nano",
            stream=True,
            logprobs=True,
            stream_options={"include_usage": True},
            extra_body={"ground": True},
            **chat_body(EXAMPLES[2]),
        )
    )
    own = model.caption(EXAMPLES[2], ground=True, logprobs=True)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert len(deltas) > 4 and deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == own.text
    boxes = [entity for delta in deltas for entity in getattr(delta, "grounding", [])]
    assert boxes == [entity.to_dict() for entity in own.entities]
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    last = [chunk for chunk in chunks if chunk.choices][-1]
    assert len(last.choices[0].logprobs.content) == len(own.token_ids) - 1
    assert chunks[-1].usage.completion_tokens == own.timings.tokens and not chunks[-1].choices


def test_the_likeliest_tokens_at_each_place(client, model):
    answer = client.chat.completions.create(model="nano", logprobs=True, top_logprobs=3, **chat_body(EXAMPLES[0]))
    own = model.caption(EXAMPLES[0], top_logprobs=3)
    places = answer.choices[0].logprobs.content
    assert len(places) == len(own.token_ids) - 1 > 0
    for place, token, others in zip(places, own.token_ids, own.top_logprobs, strict=False):
        assert [other.logprob for other in place.top_logprobs] == [other.logprob for other in others]
        assert token == others[0].token_id and place.token == place.top_logprobs[0].token


def test_a_conversation_and_a_system_text(client, model):
    def user(*parts):
        return chat_body(*parts)["messages"][0]

    messages = [user(EXAMPLES[3], "What is this?")]
    chat = model.chat(EXAMPLES[3])
    for question in ("What is this?", "What colour is it?", "Where is it?"):
        if len(messages) > 1:
            messages.append({"role": "user", "content": question})
        answer = client.chat.completions.create(model="nano", messages=messages).choices[0].message
        assert answer.content == chat.ask(question).text
        messages.append({"role": "assistant", "content": answer.content})
    system = {"role": "system", "content": "Be short."}
    answer = client.chat.completions.create(model="nano", messages=[system, user(EXAMPLES[3], "What is this?")])
    assert answer.choices[0].message.content == model.ask(EXAMPLES[3], "Be short.\nWhat is this?").text


def test_several_images_in_one_message(client, model):
    answer = client.chat.completions.create(
        model="nano", logprobs=True, **chat_body(EXAMPLES[0], EXAMPLES[1], "What is this?")
    )
    prompt = [EXAMPLES[0], EXAMPLES[1], "Question: What is this? Answer:"]
    own = model.generate(prompt, logprobs=True, grammar=True)
    assert own.text and answer.choices[0].message.content == own.text
    assert answer.usage.prompt_tokens == own.timings.prompt_tokens > 2 * model.image_tokens
    assert [token.logprob for token in answer.choices[0].logprobs.content] == own.logprobs[:-1]


def test_sampling_stop_and_length(client, model):
    sampled = {"temperature": 1.5, "seed": 7, "top_p": 0.9}
    given = chat_body(EXAMPLES[4], "What is this?")
    answers = [client.chat.completions.create(model="nano", **sampled, **given) for _ in range(2)]
    own = model.ask(EXAMPLES[4], "What is this?", **sampled)
    assert {answer.choices[0].message.content for answer in answers} == {own.text}
    cut = client.chat.completions.create(model="nano", max_completion_tokens=2, **chat_body(EXAMPLES[0]))
    assert cut.choices[0].finish_reason == "length" and cut.usage.completion_tokens == 2
    stopped = client.chat.completions.create(model="nano", stop=[" to"], **chat_body(EXAMPLES[0]))
    assert stopped.choices[0].message.content == model.caption(EXAMPLES[0], stop=" to").text
    assert stopped.choices[0].finish_reason == "stop"


def test_an_answer_from_a_list(client, model):
    choices = ["a cat", "a truck"]
    answer = client.chat.completions.create(
        model="nano", extra_body={"choices": choices}, **chat_body(EXAMPLES[0], "What is this?")
    )
    assert answer.choices[0].message.content == model.ask(EXAMPLES[0], "What is this?", choices=choices).text
    assert answer.choices[0].message.content in choices


def test_models(client):
    assert [found.id for found in client.models.list()] == ["nano"]
    assert client.models.retrieve("nano").id == "nano"
    with pytest.raises(openai.NotFoundError, match="gpt"):
        client.models.retrieve("gpt-4o")


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [TOOL]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"n": 2}, "n"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**6}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 1, "top_p": 0}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"extra_body": {"colour": "red"}}, "colour"),
        ({"extra_body": {"ground": "yes"}}, "ground"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_done_is_refused_by_name(client, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="nano", **fields, **chat_body(EXAMPLES[0], "What is this?"))
    assert caught.value.type == "invalid_request_error" and caught.value.param == param
    assert param in caught.value.message


def test_values_without_effect_are_taken(client):
    harmless = {
        "n": 1,
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "presence_penalty": 0,
        "user": "me",
        "store": False,
    }
    answer = client.chat.completions.create(model="nano", **harmless, **chat_body(EXAMPLES[0]))
    assert answer.choices[0].message.content


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"role": "assistant", "content": "hi"}], "messages[0]"),
        ([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hi"}], "messages"),
        ([{"role": "tool", "content": "hi"}], "messages[0].role"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0].image_url"),
        ([{"role": "user", "content": "  "}], "question"),
    ],
)
def test_messages_that_make_no_prompt(client, messages, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="nano", messages=messages)
    assert caught.value.param == param


def test_images_that_cannot_be_used(client):
    def ask(url):
        part = {"type": "image_url", "image_url": {"url": url}}
        client.chat.completions.create(model="nano", messages=[{"role": "user", "content": [part]}])

    half = EXAMPLES[0].read_bytes()[:400]
    for url, error in (
        (data_uri(b"no image"), openai.UnprocessableEntityError),
        (data_uri(half), openai.UnprocessableEntityError),
        ("data:image/png;base64,@@@", openai.BadRequestError),
        ("data:image/png,abc", openai.BadRequestError),
        ("http://127.0.0.1/a.png", openai.BadRequestError),
        ("file:///etc/hostname", openai.BadRequestError),
        ("photo.png", openai.BadRequestError),
    ):
        with pytest.raises(error) as caught:
            ask(url)
        assert caught.value.type == "invalid_request_error" and caught.value.param, url
    with pytest.raises(openai.APIStatusError) as caught:
        ask("data:application/pdf;base64,AAAA")
    assert caught.value.status_code == 415


def test_another_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4o", **chat_body(EXAMPLES[0]))
    assert caught.value.code == "model_not_found"


def test_a_prompt_that_does_not_fit(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="nano", **chat_body(EXAMPLES[0], "what " * 3000))
    assert caught.value.code == "context_length_exceeded"


def test_logprobs_are_numbers(client):
    answer = client.chat.completions.create(model="nano", logprobs=True, **chat_body("What is a dog?"))
    assert all(math.isfinite(token.logprob) and token.logprob <= 0 for token in answer.choices[0].logprobs.content)
