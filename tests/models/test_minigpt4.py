"""MiniGPT-4: what the suite over all models does not ask. Turns that a text parts, the marks around an image, the text
that ends an answer, the tower's last norm, a CUDA device."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers import capi, sweep
from helpers.cuda_emulated import use_cuda
from helpers.golden_cases import relative_error
from helpers.tiny import make_picture, write_tiny

import kosmos_edge
from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt
from models.description import described
from models.minigpt4 import STOP, SYSTEM

OF = described()["minigpt4"]
FIRST = SYSTEM + "###Human: <Img>"


def write(path: Path, dtype: str = "F32", **changes: tuple) -> Path:
    """The tiny model with other metadata: keys behind "minigpt4.", dots as __."""
    metadata = dict(OF.tiny.metadata)
    for key, entry in changes.items():
        metadata["minigpt4." + key.replace("__", ".")] = entry
    write_tiny(path, dtype, tiny=dataclasses.replace(OF.tiny, metadata=metadata))
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("minigpt4") / "tiny.gguf")


@pytest.fixture(scope="module")
def model(path: Path) -> kosmos_edge.Model:
    return kosmos_edge.load(path, threads=1)


def encode(engine: _core.Engine, picture: np.ndarray) -> _core.ImageEmbedding:
    height, width, _ = picture.shape
    return engine.encode_image(picture.tobytes(), width, height)


def assert_asked(engine: _core.Engine, prompt: list, result: kosmos_edge.Result, max_tokens: int) -> None:
    """The result is the answer to that prompt."""
    params = _core.GenerateParams()
    params.max_tokens, params.repetition_penalty = (
        max_tokens,
        OF.tiny.metadata["minigpt4.generation.repetition_penalty"][1],
    )
    assert result.timings.prompt_tokens == len(engine.prompt_ids(prompt))
    assert result.token_ids == engine.generate(prompt, params).token_ids


def test_turns_are_parted_by_the_text_alone(model: kosmos_edge.Model) -> None:
    """No end token stands between them, and a turn without an image has no marks of one."""
    engine, picture = model._open.engine, make_picture(1, 80, 60)
    chat = model.chat(picture)
    first = chat.ask("what is this?", max_tokens=5)
    second = chat.ask("is it red?", max_tokens=5)
    image = ("image", encode(engine, picture))
    behind = "</Img> what is this?###Assistant: "
    assert_asked(engine, [("text", FIRST), image, ("text", behind)], first, 5)
    behind += f"{first.text}###Human: is it red?###Assistant: "
    assert_asked(engine, [("text", FIRST), image, ("text", behind)], second, 5)
    assert second.timings.reused_tokens > 8  # the image is not looked at again
    other = make_picture(2, 80, 60)
    third = chat.ask("and here?", image=other, max_tokens=5)
    behind += f"{second.text}###Human: <Img>"
    last = [("image", encode(engine, other)), ("text", "</Img> and here?###Assistant: ")]
    assert_asked(engine, [("text", FIRST), image, ("text", behind), *last], third, 5)


def test_a_conversation_without_an_image(model: kosmos_edge.Model) -> None:
    result = model.chat().ask("what is it?", max_tokens=4)
    prompt = [("text", SYSTEM + "###Human: what is it?###Assistant: ")]
    assert_asked(model._open.engine, prompt, result, 4)


def with_stop(model: kosmos_edge.Model, folder: Path) -> tuple[kosmos_edge.Model, str, list[int], int]:
    """A model whose answers end where the second word of this one's caption begins; the caption, how many tokens it
    takes to see that."""
    whole = model.caption(make_picture(3, 80, 60), max_tokens=12)
    texts = [model._open.engine.tokenizer.decode(whole.token_ids[:n]) for n in range(1, 13)]
    stop = texts[5][len(texts[3]) :].strip()
    assert stop and stop not in texts[3]
    seen = next(n for n, text in enumerate(texts, 1) if stop in text)
    made = kosmos_edge.load(write(folder / "x.gguf", generation__stop=("str", stop)), threads=1)
    return made, stop, whole.token_ids, seen


def test_a_text_ends_an_answer_everywhere(model: kosmos_edge.Model, tmp_path: Path) -> None:
    """It is none of the answer; a caller's own stop texts are looked for, too."""
    ended, stop, ids, seen = with_stop(model, tmp_path)
    picture = make_picture(3, 80, 60)
    result = ended.caption(picture, max_tokens=12)
    assert (result.token_ids, result.finish_reason) == (ids[:seen], "stop_string") and stop not in result.text
    *events, done = ended.caption(picture, max_tokens=12, stream=True)
    assert done.result.text == result.text == "".join(e.text for e in events if isinstance(e, kosmos_edge.TextDelta))
    assert [r.text for r in ended.batch([picture] * 3, "caption", max_tokens=12)] == [result.text] * 3
    with kosmos_edge.load(tmp_path / "x.gguf", threads=1, isolation="process") as worker:
        assert worker.caption(picture, max_tokens=12).text == result.text
    handle = capi.load(tmp_path / "x.gguf", threads=1)
    image = capi.encode(handle, picture)
    said = capi.read(capi.make("caption", handle, image, capi.byref(capi.Options(max_tokens=12, grammar=-1))))
    assert (said["ids"], said["text"]) == (result.token_ids, result.text)
    capi.lib().kosmos_image_free(image)
    capi.lib().kosmos_model_free(handle)
    own = result.text.split()[0]
    assert ended.caption(picture, max_tokens=12, stop=[own]).text == ""


def test_what_the_model_says_of_it(model: kosmos_edge.Model) -> None:
    assert model.model_info["stop"] == [STOP] and model.model_info["prompts"]["system"] == SYSTEM


@pytest.mark.parametrize(
    ("key", "entry", "message"),
    [
        ("image__token_id", ("u32", 2), "image.token_id is 2, the end of an answer"),
        ("vision__post_norm_epsilon", ("f32", 0.5), "post_norm_epsilon is 0.5; expected"),
    ],
)
def test_what_contradicts_itself_is_refused(key: str, entry: tuple, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match=message):
        kosmos_edge.load(write(tmp_path / "x.gguf", **{key: entry}))


def test_the_last_norm_has_an_epsilon_of_its_own(path: Path, tmp_path: Path) -> None:
    """It shows: another one gives other rows."""
    picture, found = make_picture(4, 80, 60), []
    metadata = OF.tiny.metadata | {"minigpt4.vision.post_norm_epsilon": ("f32", 0.1)}
    for file in (path, write(tmp_path / "x.gguf", vision__post_norm_epsilon=("f32", 0.1))):
        embedding = encode(_core.Engine(str(file), threads=1), picture)
        found.append(np.frombuffer(embedding.tobytes(), np.float32).reshape(embedding.shape))
    assert relative_error(found[0], OF.definition.encode_image(picture)) < 1e-4
    assert relative_error(found[1], OF.define(metadata, OF.tiny.weights).encode_image(picture)) < 1e-4
    assert relative_error(found[0], found[1]) > 1e-3


def test_without_a_text_that_ends_answers(tmp_path: Path) -> None:
    """Then the end token parts turns, as in other chats."""
    plain = kosmos_edge.load(write(tmp_path / "x.gguf", generation__stop=("str", "")), threads=1)
    assert "stop" not in plain.model_info
    chat = plain.chat()
    first = chat.ask("a", max_tokens=3)
    words = [
        ("text", f"{SYSTEM}###Human: a###Assistant: "),
        ("ids", []),
        ("text", first.text),
        ("ids", [2]),
        ("text", "###Human: b###Assistant: "),
    ]
    assert_asked(plain._open.engine, words, chat.ask("b", max_tokens=3), 3)


@pytest.mark.parametrize("dtype", sweep.some(["F32", "Q8_0"], 2, 1))
def test_on_a_cuda_device(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cuda(monkeypatch)
    file = write(tmp_path / "x.gguf", dtype)
    picture, logits = make_picture(4, 90, 60), []
    for device in ("cpu", "cuda"):
        engine = _core.Engine(str(file), device=device)
        data, rows, vocab = engine.logits([("image", encode(engine, picture)), ("text", "It is a cat")])
        logits.append(np.frombuffer(data, np.float32).reshape(rows, vocab))
    assert np.isfinite(logits[1]).all()
    assert relative_error(logits[1], logits[0]) < {"F32": 1e-4, "Q8_0": 0.2}[dtype]
