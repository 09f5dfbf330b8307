"""Questions to a scripted endpoint over real HTTP: bodies, ensembles, replies without ln p, refusals, the key."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="the extra `agent` is not installed")

from helpers.agent_endpoint import Scripted, say, scripted
from helpers.api_model import png, tiny_model
from helpers.tiny import write_tiny
from models.description import every

from kosmos_edge import load
from kosmos_edge.apps.endpoint import Endpoint
from kosmos_edge.apps.index import PictureIndex
from kosmos_edge.apps.pica import Answer, EndpointError, Example, Pica, Pool, choose, question_prompt, read_examples
from kosmos_edge.apps.pica.prompts import Shot
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.model import Model

EXAMPLES = [
    Example("What color is the bus?", "red", None, "A red bus."),
    Example("How many dogs are there?", "2", None, "Two dogs."),
    Example("What color is the hat?", "blue", None, "A blue hat."),
    Example("Who is it?", "a man", None, "A man."),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("kosmos_edge.apps.endpoint.FIRST_PAUSE", 0.02)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(png(3))
    return path


def completion(text: str, *tokens: tuple[str, float | None], **more: Any) -> Scripted:
    values = {"tokens": [t for t, _ in tokens], "token_logprobs": [p for _, p in tokens]} if tokens else None
    return Scripted({"object": "text_completion", "choices": [{"text": text, "logprobs": values}]}, **more)


def ask(replies: Sequence[Scripted], photo: Path, *, seconds: float = 20, **how: Any) -> tuple[Answer, list[Any]]:
    pica = Pica(tiny_model(), Pool(EXAMPLES), shots=1, ensemble=how.pop("ensemble", 2), tags=False)
    with scripted(replies) as server:
        endpoint = Endpoint(server.url, "llm")
        try:
            answer = pica.ask(endpoint, photo, "What color is the cat?", seconds=seconds, **how)
        finally:
            endpoint.close()
        assert not server.errors
        return answer, server.got


def test_the_likeliest_answer_of_the_prompts_is_taken(photo: Path) -> None:
    replies = [
        completion(" red\nQ: more", (" red", -2.0), ("\n", -0.5), ("Q", 90.0)),
        completion(" dark blue", (" dark", -0.5), (" blue", -0.25)),
    ]
    answer, got = ask(replies, photo)
    assert (answer.answer, answer.by, answer.logprob) == ("dark blue", "likelihood", -0.75)
    assert answer.said == [("red", -2.0), ("dark blue", -0.75)]
    caption = tiny_model().caption(photo).text.strip()
    prompts = [
        question_prompt([Shot(one.context or "", one.question, one.answer)], caption, "What color is the cat?")
        for one in (EXAMPLES[0], EXAMPLES[2])  # equally near, in their order
    ]
    assert [request.path for request in got] == ["/v1/completions"] * 2
    expected = {"model": "llm", "max_tokens": 5, "temperature": 0, "stop": ["\n"], "logprobs": 1}
    assert [request.body for request in got] == [expected | {"prompt": prompt} for prompt in prompts]
    assert "authorization" not in got[0].headers


def test_chat_and_missing_likelihoods_are_votes(photo: Path) -> None:
    answer, got = ask([say("The red.\nmore"), say("blue"), say("red")], photo, api="chat", ensemble=3)
    assert (answer.answer, answer.by, answer.logprob) == ("The red.", "votes", None)
    assert got[0].path == "/v1/chat/completions" and got[0].body["messages"][0]["role"] == "user"
    replies = [completion("blue", ("blue", -1.0)), completion("red"), completion("red", ("red", None))]
    answer, _ = ask(replies, photo, ensemble=3)
    assert (answer.answer, answer.by) == ("red", "votes")


def test_choosing() -> None:
    assert (
        choose([("", -0.1), ("a", -5.0)]).answer == "a"
        and "1 of 2 answers were empty" in choose([("", 0), ("a", 0)]).notes[0]
    )
    assert choose([("x", None)]).by == "single" and choose([("", None)]).notes
    assert choose([("a", None), ("b", None)]).answer == "a"


def test_a_refusal_for_the_moment_is_tried_again(photo: Path) -> None:
    wait = Scripted({"error": {"message": "slow down"}}, 429, {"Retry-After": "0"})
    answer, got = ask([wait, Scripted("?", 500), completion("red", ("red", -1.0))], photo, ensemble=1)
    assert answer.answer == "red" and answer.by == "single" and len(got) == 3


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Scripted(b"{"), "no completion"),
        (Scripted({"choices": []}), r"no choices\[0\].text"),
        (Scripted({"choices": [{"message": {"content": "a"}}]}), r"no choices\[0\].text"),
        (Scripted({"error": {"message": "no such model"}}, 404), "404: no such model"),
    ],
)
def test_replies_that_are_none_are_errors(reply: Scripted, says: str, photo: Path) -> None:
    with pytest.raises(EndpointError, match=says):
        ask([reply], photo, ensemble=1)


def test_a_slow_endpoint_ends_with_the_time(photo: Path) -> None:
    with pytest.raises(EndpointError):
        ask([completion("red", delay=20.0)], photo, seconds=0.3, ensemble=1)


def test_the_key_comes_from_the_environment_and_is_never_shown(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-1234")
    answer, got = ask([completion("sk-secret-1234")], photo, ensemble=1)
    assert got[0].headers["authorization"] == "Bearer sk-secret-1234"
    assert "sk-secret" not in json.dumps(answer.to_dict())
    with pytest.raises(EndpointError) as error:
        ask([Scripted({"error": {"message": "wrong key sk-secret-1234"}}, 401)], photo, ensemble=1)
    assert "wrong key" in str(error.value) and "sk-secret" not in str(error.value)


def test_examples_are_chosen_by_images_and_questions(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        path.write_bytes(png(number))
    file = tmp_path / "clip.gguf"
    write_tiny(file, tiny=every()["clip_towers"].make(5))
    examples = [
        Example(f"a {w}", w, str(path), w) for w, path in zip(("cat", "dog", "man", "house"), paths, strict=True)
    ]
    with load(file, threads=1) as clip, PictureIndex(tmp_path / "i", clip) as index:
        index.update(paths)
        images = clip.similarity(paths, "a cat").cosines
        vectors = index.vectors(paths)
        near = vectors @ index.vector_of(paths[2])
        texts = index.text_vectors([one.question for one in examples]) @ index.text_vectors(["a woman"])[0]
        pool = Pool(examples, index, text_weight=2.0)
        expected = sorted(range(4), key=lambda n: -(near[n] + 2 * texts[n]))
        assert [one.answer for one in pool.nearest(paths[2], "a woman", 4)] == [examples[n].answer for n in expected]
        assert len(images) == 4 and "man" not in {one.answer for one in pool.nearest(paths[2], "a man", 3)}
        with pytest.raises(InvalidRequest, match="at least 4 examples"):
            pool.nearest(paths[2], "a man", 4)
    words = Pool(EXAMPLES)
    assert [one.answer for one in words.nearest(None, "how many dogs", 1)] == ["2"]


def test_files_of_examples(tmp_path: Path) -> None:
    file = tmp_path / "e.jsonl"
    good = {"question": "Q\u2028?", "answers": ["a", "b"], "image": "x.png"}
    file.write_text(json.dumps(good, ensure_ascii=False) + "\n\n" + json.dumps(good | {"answer": "c"}) + "\n")
    assert [(one.answer, one.image) for one in read_examples(file)] == [(a, str(tmp_path / "x.png")) for a in "ac"]
    for line in ("[]", "{", '{"question": "q", "image": "x"}', '{"question": "q", "answer": "a"}'):
        file.write_text(json.dumps(good) + "\n" + line)
        with pytest.raises(InvalidRequest, match=r"e\.jsonl:2: "):
            read_examples(file)
    with pytest.raises(InvalidRequest, match="need a pool of examples"):
        Pica(tiny_model(), shots=2)
    with pytest.raises(InvalidRequest, match="ensemble: without examples"):
        Pica(tiny_model(), ensemble=2)


@pytest.mark.parametrize("same", [True, False])
def test_each_model_encodes_an_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(png(number))
    file = tmp_path / "clip.gguf"
    write_tiny(file, tiny=every()["clip_towers"].make(5))
    examples = [Example(f"Who {number}?", "x", str(path), "A.") for number, path in enumerate(paths)]
    encoded: list[str] = []
    encode = Model.encode
    monkeypatch.setattr(Model, "encode", lambda self, *a, **b: encoded.append(self.name) or encode(self, *a, **b))
    with load(file, threads=1) as clip, PictureIndex(tmp_path / "i", tiny_model() if same else clip) as index:
        index.update(paths)
        pica = Pica(tiny_model(), Pool(examples, index), shots=1, ensemble=2, tags=False)
        encoded.clear()
        first = pica.prompts(paths[0], "Who is it?")
        assert encoded == [tiny_model().name] + ([] if same else [clip.name])
        pica.prompts(paths[0], "Who else is it?")
        assert len(encoded) == (1 if same else 2)  # known from the question before
        encoded.clear()
        assert pica.prompts(paths[0].read_bytes(), "Who is it?") == first
        assert len(encoded) == (1 if same else 2)
