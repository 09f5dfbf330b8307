"""mPLUG-Owl: what the suite over all models does not ask. The abstractor's last row, how answers and turns stand in a
conversation, the placeholder, and the CUDA backend."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers import sweep
from helpers.cuda_emulated import use_cuda
from helpers.golden_cases import relative_error
from helpers.tiny import make_picture, write_tiny

import kosmos_edge
from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt
from models.description import described
from models.llava import EOS
from models.mplug_owl import BEGIN, CAPTION, SYSTEM, MplugOwlReference, turn

OF = described()["mplug_owl"]
BLANK = OF.tiny.vocabulary.id("▁")


def write(path: Path, dtype: str = "F32", **changes: tuple | None) -> tuple[Path, MplugOwlReference]:
    """The tiny model with other metadata (keys behind "mplug_owl.", dots as __; None takes one out), and its
    definition."""
    metadata = dict(OF.tiny.metadata)
    for key, entry in changes.items():
        name = "mplug_owl." + key.replace("__", ".")
        if entry is None:
            del metadata[name]
        else:
            metadata[name] = entry
    write_tiny(path, dtype, tiny=dataclasses.replace(OF.tiny, metadata=metadata))
    return path, MplugOwlReference(metadata, dict(OF.tiny.weights))


def encode(engine: _core.Engine, picture: np.ndarray) -> _core.ImageEmbedding:
    height, width, _ = picture.shape
    return engine.encode_image(picture.tobytes(), width, height)


def rows(image: _core.ImageEmbedding) -> np.ndarray:
    return np.frombuffer(image.tobytes(), np.float32).reshape(image.shape)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> kosmos_edge.Model:
    path, _ = write(tmp_path_factory.mktemp("mplug_owl") / "tiny.gguf")
    return kosmos_edge.load(path, threads=1)


def test_a_row_of_its_own_ends_every_image(model: kosmos_edge.Model) -> None:
    found = [rows(encode(model._open.engine, make_picture(seed, 90, 60))) for seed in (1, 2)]
    assert {len(image) for image in found} == {9} and model.image_tokens == 9
    for image in found:
        assert (image[-1] == OF.tiny.weights["mm.end"]).all()
    assert not np.allclose(found[0][:-1], found[1][:-1], atol=1e-3)


@pytest.mark.parametrize("key", ["attention__layer_norm_epsilon", "feed_forward_norm_epsilon"])
def test_norms_have_two_epsilons(key: str, tmp_path: Path) -> None:
    """That inside of the feed-forward, and that of the others."""
    path, definition = write(tmp_path / "x.gguf", **{f"abstractor__{key}": ("f32", 0.1)})
    picture = make_picture(3, 70, 50)
    found = rows(encode(_core.Engine(str(path), threads=1), picture))
    assert relative_error(found, definition.encode_image(picture)) < 1e-4
    assert relative_error(found, OF.definition.encode_image(picture)) > 1e-3


def test_prompts_are_encoded_around_images(model: kosmos_edge.Model) -> None:
    """The text in front is one with the system's; every text begins with a blank; a format's last blank is a token."""
    engine = model._open.engine
    picture = encode(engine, make_picture(1, 60, 40))
    ids = engine.prompt_ids([(kind, picture if kind == "image" else v) for kind, v in BEGIN + turn(0, "what is it?")])
    before, after = (engine.tokenizer.encode(t) for t in (SYSTEM + "\nHuman: ", "\nHuman: what is it?\nAI: "))
    assert ids == [1, *before, *[0] * 9, *after]
    assert before[-1] == after[-1] == after[0] == BLANK


def test_the_words_of_a_conversation(model: kosmos_edge.Model) -> None:
    """An answer is a text of its own behind the blank, as it was generated, and ended; the next question has a line
    without an image."""
    engine, picture = model._open.engine, make_picture(2, 60, 40)
    chat = model.chat(picture)
    first = chat.ask("what is it?", max_tokens=6)
    second = chat.ask("where?", max_tokens=6)
    said = [("ids", []), ("text", first.text), ("ids", [EOS]), ("text", "\nHuman: where?\nAI: ")]
    prompt = [*BEGIN, *turn(0, "what is it?"), *said]
    segments = [(kind, encode(engine, picture) if kind == "image" else v) for kind, v in prompt]
    params = _core.GenerateParams()
    params.max_tokens = 6
    assert second.timings.prompt_tokens == len(engine.prompt_ids(segments))
    assert second.token_ids == engine.generate(segments, params).token_ids
    assert second.timings.reused_tokens >= first.timings.prompt_tokens - 1
    alone = model.chat().ask("where?", max_tokens=6)
    assert alone.token_ids == engine.generate([("text", SYSTEM + "\nHuman: where?\nAI: ")], params).token_ids


def test_a_question_without_an_image_is_its_own_or_that_without_the_place(tmp_path: Path) -> None:
    path, _ = write(tmp_path / "x.gguf", prompt__follow_up=None)
    with kosmos_edge.load(path, threads=1) as model:
        assert "follow_up" not in model.model_info["prompts"]
        engine, params = model._open.engine, _core.GenerateParams()
        params.max_tokens = 4
        words = SYSTEM + "\nHuman: Human: where?\nAI: "
        assert (
            model.chat().ask("where?", max_tokens=4).token_ids == engine.generate([("text", words)], params).token_ids
        )
        mine = model.chat(template="Q: {image}\n{question} A:").ask("where?", max_tokens=4)
        expected = engine.generate([("text", SYSTEM + "Q: where? A:")], params)
        assert mine.token_ids == expected.token_ids


@pytest.mark.parametrize("text", ["", "no place", "{image} {question}"])
def test_a_follow_up_asks(text: str, tmp_path: Path) -> None:
    path, _ = write(tmp_path / "x.gguf", prompt__follow_up=("str", text))
    with pytest.raises(ModelCorrupt, match=r"mplug_owl\.prompt\.follow_up is .*; expected \{question\} in it, and no"):
        _core.Engine(str(path), threads=1)


def test_scores_are_of_texts_behind_the_blank(model: kosmos_edge.Model) -> None:
    """As an answer would follow; the words of a template keep all but their last blank."""
    engine, picture = model._open.engine, make_picture(4, 60, 40)
    row = model.score(picture, ["a cat"]).ranking[0]
    ids = engine.tokenizer.encode("a cat")
    assert row.token_ids == ids
    prompt = [(kind, encode(engine, picture) if kind == "image" else v) for kind, v in BEGIN + turn(0, CAPTION)]
    expected = engine.score(prompt, [[("ids", ids)]]).continuations[0]
    assert row.logprobs == pytest.approx(list(expected.logprobs), abs=1e-5)


def test_the_placeholder_is_never_generated(tmp_path: Path) -> None:
    """However likely it is."""
    weights = dict(OF.tiny.weights)
    weights["output.weight"] = weights["output.weight"].copy()
    weights["output.weight"][0] = 0
    weights["output.weight"][0, 0], weights["output_norm.weight"] = 1e4, np.abs(weights["output_norm.weight"])
    path = tmp_path / "x.gguf"
    write_tiny(path, tiny=dataclasses.replace(OF.tiny, weights=weights))
    with kosmos_edge.load(path, threads=1) as model:
        for seed in range(3):
            assert 0 not in model.caption(make_picture(seed, 60, 40), max_tokens=8).token_ids


@pytest.mark.parametrize("dtype", sweep.some(["F32", "Q8_0"], 2, 1))
def test_on_a_cuda_device(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = write(tmp_path / "x.gguf", dtype)
    picture = make_picture(5, 80, 50)
    on_cpu = _core.Engine(str(path), threads=1)
    use_cuda(monkeypatch)
    on_cuda = _core.Engine(str(path), device="cuda")
    found, expected = (rows(encode(engine, picture)) for engine in (on_cuda, on_cpu))
    assert relative_error(found, expected) < {"F32": 1e-4, "Q8_0": 0.1}[dtype]
