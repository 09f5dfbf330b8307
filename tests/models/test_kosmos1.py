"""KOSMOS-1, a model without location tokens: a tiny random one against the numpy definition, and what it refuses."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import capi
from helpers.capi import CError, call, lib, make
from helpers.reference import Reference
from helpers.tiny import TinyVocabulary, make_picture, make_tiny, write_tiny
from PIL import Image

import kosmos_edge
from kosmos_edge import Box, _core, cli
from kosmos_edge.errors import InvalidRequest, ModelCorrupt

NO_TOKENS = "this model has no location tokens"
KOSMOS_2_ONLY = ("location_bins", "prompt.locate", "prompt.describe", "prompt.grounding")


def make_kosmos1() -> tuple:
    """(the tiny model, its numpy definition): the successor's vocabulary cut before <phrase>."""
    tiny = make_tiny(5)
    v, size = tiny.vocabulary, tiny.vocabulary.id("<phrase>")
    vocabulary = TinyVocabulary(v.pieces[:size], v.scores[:size], v.types[:size])
    weights = {**tiny.weights, "token_embd.weight": tiny.weights["token_embd.weight"][:size]}
    metadata = {
        **tiny.metadata,
        "kosmos2.vocab_size": ("u32", size),
        "tokenizer.ggml.tokens": ("[str]", vocabulary.pieces),
        "tokenizer.ggml.scores": ("[f32]", vocabulary.scores),
        "tokenizer.ggml.token_type": ("[i32]", vocabulary.types),
    }
    reference = Reference(metadata, weights)
    renamed = {
        key.replace("kosmos2.", "kosmos1."): ("str", "kosmos1") if entry == ("str", "kosmos2") else entry
        for key, entry in metadata.items()
        if key.removeprefix("kosmos2.") not in KOSMOS_2_ONLY
    }
    return dataclasses.replace(tiny, vocabulary=vocabulary, weights=weights, metadata=renamed), reference


TINY, REFERENCE = make_kosmos1()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("kosmos1") / "kosmos1.gguf"
    write_tiny(file, tiny=TINY)
    return file


@pytest.fixture(scope="module")
def model(path: Path) -> kosmos_edge.Model:
    return kosmos_edge.load(path, threads=1)


def image(seed: int) -> np.ndarray:
    return make_picture(seed, 100, 80)


def test_what_it_says_of_itself(path: Path, model: kosmos_edge.Model) -> None:
    info = model.model_info
    assert info == _core.model_info(str(path))
    assert info["architecture"] == "kosmos1" and info["grounding"] is None
    assert info["tasks"] == ["caption", "ask", "generate", "score"]
    assert info["vocabulary"] == len(TINY.vocabulary.pieces)


def test_a_missing_key_is_named_under_its_own_architecture(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    write_tiny(file, tiny=TINY, edit=lambda content: content.metadata.pop("kosmos1.prompt.question"))
    with pytest.raises(ModelCorrupt, match=r'key "kosmos1\.prompt\.question" is missing'):
        _core.model_info(str(file))
    with pytest.raises(ModelCorrupt, match=r'key "kosmos1\.prompt\.question" is missing'):
        kosmos_edge.load(file)


def test_logits_of_a_few_shot_prompt_with_two_images(model: kosmos_edge.Model) -> None:
    engine = model._open.engine
    encoded = [engine.encode_image(image(seed).tobytes(), 100, 80) for seed in (1, 2)]
    words = engine.tokenizer.encode("a cat on the table")
    data, rows, vocab = engine.logits(
        [("image", encoded[0]), ("ids", words), ("image", encoded[1]), ("text", "a dog in the house")]
    )
    vectors = [REFERENCE.encode_image(image(seed)) for seed in (1, 2)]
    prompt = REFERENCE.prompt([vectors[0], words, vectors[1], engine.tokenizer.encode("a dog in the house")])
    expected = REFERENCE.logits(prompt)
    assert prompt.ids.count(0) == 1 and (rows, vocab) == expected.shape  # one <s>, no </s> between the shots
    got = np.frombuffer(data, np.float32).reshape(rows, vocab)
    assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()


def test_answers_and_scores_are_those_of_the_definition(model: kosmos_edge.Model) -> None:
    result = model.ask(image(3), "what is this?", examples=[(image(4), "what color is it?", "red")], max_tokens=12)
    tokens = model._open.engine.tokenizer
    first, second = "Question: what color is it? Answer:", "Question: what is this? Answer:"
    shots = model.generate(
        [model.encode(image(4)), first, "red", model.encode(image(3)), second], max_tokens=12, no_repeat_ngram_size=3
    )
    assert shots.token_ids == result.token_ids
    vectors = [REFERENCE.encode_image(image(seed)) for seed in (4, 3)]
    prompt = REFERENCE.prompt(
        [vectors[0], tokens.encode(first), tokens.encode("red"), vectors[1], tokens.encode(second)]
    )
    assert REFERENCE.generate(prompt, 12, 3).ids == result.token_ids

    ranking = model.score(image(1), ["a cat", "a dog"])
    prompt = REFERENCE.prompt([REFERENCE.encode_image(image(1)), tokens.encode("An image of")])
    for row in ranking.ranking:
        expected = REFERENCE.score(prompt, tokens.encode(row.text))
        assert row.logprobs == pytest.approx(expected, abs=1e-3)


def test_text_is_left_as_the_model_writes_it(model: kosmos_edge.Model) -> None:
    """No tag is stripped, and the stream's pieces add up to the text."""
    written = "<b>x < y</b> <patch_index_0001> 1>0"
    result = model.generate([image(1), "It is"], choices=[written], max_tokens=60)
    assert result.text == written and result.entities == [] and result.to_hf() == (f"It is {written}", [])
    events = list(model.generate([image(1), "It is"], choices=[written], max_tokens=60, stream=True))
    deltas = [event.text for event in events if isinstance(event, kosmos_edge.TextDelta)]
    assert "".join(deltas) == written and len(deltas) > 3  # nothing waits for a '>'
    led = model.caption(image(1), lead_in=True, max_tokens=4)
    assert led.text.startswith("An image of")


def test_no_grammar_runs(model: kosmos_edge.Model) -> None:
    """Token 0, that a grammar without tags would ban, comes where it is the likeliest."""
    engine = model._open.engine
    params = _core.GenerateParams()
    params.grammar, params.max_tokens = True, 2
    with pytest.raises(InvalidRequest, match=f"grammar: {NO_TOKENS}"):
        engine.generate([("text", "a")], params)
    with pytest.raises(InvalidRequest, match=f"grammar: {NO_TOKENS}"):
        model.caption(image(1), grammar=True)
    assert model.caption(image(1), max_tokens=4).token_ids  # by default there is none


@pytest.mark.parametrize(
    "ask",
    [
        lambda m: m.ground(image(1)),
        lambda m: m.locate(image(1), "a cat"),
        lambda m: m.describe(image(1), (0, 0, 50, 50)),
        lambda m: m.describe(image(1), (0, 0, 50, 50), ground=False),
        lambda m: m.caption(image(1), ground=True),
        lambda m: m.ask(image(1), "what?", ground=True),
        lambda m: m.generate([image(1), Box.from_normalized(0, 0, 0.5, 0.5)]),
        lambda m: m._open.engine.prompt_ids([("boxes", [(0, 3)])]),
        lambda m: next(m.batch([image(1)], "locate", phrase="a cat")),
    ],
)
def test_boxes_are_refused(model: kosmos_edge.Model, ask) -> None:
    with pytest.raises(InvalidRequest, match=NO_TOKENS):
        ask(model)


def test_a_batch_gives_the_same_answers(model: kosmos_edge.Model) -> None:
    images = [image(seed) for seed in range(4)]
    alone = [model.caption(picture, max_tokens=8).token_ids for picture in images]
    assert [r.token_ids for r in model.batch(images, max_tokens=8, batch_size=3)] == alone


def test_isolation(path: Path, model: kosmos_edge.Model) -> None:
    with kosmos_edge.load(path, threads=1, isolation="process") as there:
        assert there.model_info == model.model_info
        encoded = there.encode(image(2))
        assert there.caption(encoded, max_tokens=6).token_ids == model.caption(image(2), max_tokens=6).token_ids
        with pytest.raises(InvalidRequest, match=NO_TOKENS):
            there.locate(encoded, "a cat")


def test_the_command_line(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(image(1)).save(photo)
    assert cli.run(["caption", str(photo), "-m", str(path), "-t", "1", "--max-tokens", "4", "-f", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["entities"] == []
    assert cli.run(["locate", str(photo), "a cat", "-m", str(path), "-t", "1"]) != 0
    assert NO_TOKENS in capsys.readouterr().err


def test_the_c_interface(path: Path, model: kosmos_edge.Model) -> None:
    handle = capi.load(path, threads=1)
    try:
        info = capi.ModelInfo()
        call("model_get", handle, capi.byref(info))
        assert (info.location_bins, info.architecture) == (0, b"kosmos1")
        assert [info.tasks[i].decode() for i in range(info.task_count)] == model.model_info["tasks"]
        picture = capi.encode(handle, image(1))
        options = capi.Options(max_tokens=6)
        said = capi.read(make("caption", handle, picture, capi.byref(options)))
        assert said["ids"] == model.caption(image(1), max_tokens=6).token_ids and said["entities"] == []
        region = capi.Region(x2=1.0, y2=1.0, unit=1)
        for name, *arguments in [("ground", None), ("locate", b"a cat"), ("describe", capi.byref(region))]:
            with pytest.raises(CError, match=NO_TOKENS):
                make(name, handle, picture, *arguments, None)
        for field in ("ground", "grammar"):
            with pytest.raises(CError, match=NO_TOKENS):
                make("caption", handle, picture, capi.byref(capi.Options(**{field: 1})))
    finally:
        lib().kosmos_model_free(handle)
