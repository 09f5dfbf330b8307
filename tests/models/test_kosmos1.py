"""KOSMOS-1, a model without location tokens: what that means for texts, the grammar and boxes in prompts.

What it computes, and its answers through every interface: tests/models/.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers import capi
from helpers.capi import CError, lib, make
from helpers.tiny import make_picture, write_tiny

import kosmos_edge
from kosmos_edge import Box, _core
from kosmos_edge.errors import InvalidRequest, ModelCorrupt
from models.description import described

NO_TOKENS = "this model has no location tokens"
TINY = described()["kosmos1"].tiny


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


def test_a_missing_key_is_named_under_its_own_architecture(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    write_tiny(file, tiny=TINY, edit=lambda content: content.metadata.pop("kosmos1.prompt.question"))
    with pytest.raises(ModelCorrupt, match=r'key "kosmos1\.prompt\.question" is missing'):
        _core.model_info(str(file))
    with pytest.raises(ModelCorrupt, match=r'key "kosmos1\.prompt\.question" is missing'):
        kosmos_edge.load(file)


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
        lambda m: m.describe(image(1), (0, 0, 50, 50), ground=False),
        lambda m: m.caption(image(1), ground=True),
        lambda m: m.ask(image(1), "what?", ground=True),
        lambda m: m.generate([image(1), Box.from_normalized(0, 0, 0.5, 0.5)]),
        lambda m: m._open.engine.prompt_ids([("boxes", [(0, 3)])]),
    ],
)
def test_boxes_are_refused(model: kosmos_edge.Model, ask) -> None:
    with pytest.raises(InvalidRequest, match=NO_TOKENS):
        ask(model)


def test_the_c_library_refuses_boxes(path: Path) -> None:
    handle = capi.load(path, threads=1)
    picture = capi.encode(handle, image(1))
    for field in ("ground", "grammar"):
        with pytest.raises(CError, match=NO_TOKENS):
            make("caption", handle, picture, capi.byref(capi.Options(**{field: 1})))
    lib().kosmos_image_free(picture)
    lib().kosmos_model_free(handle)


def test_without_words_of_its_own_a_verb_needs_the_callers(tmp_path: Path) -> None:
    file = tmp_path / "wordless.gguf"
    metadata = TINY.metadata | {"kosmos1.prompt.caption": ("str", "")}
    write_tiny(file, tiny=dataclasses.replace(TINY, metadata=metadata))
    model = kosmos_edge.load(file, threads=1)
    assert model.model_info["tasks"] == ["ask", "generate", "score"]
    with pytest.raises(InvalidRequest, match="caption: this model has no prompt for it"):
        model.caption(image(1))
    assert model.caption(image(1), length="long", max_tokens=2).token_ids
    assert model.caption(image(1), template="A picture of", max_tokens=2).token_ids
    beside = model.score(image(1), ["a cat"])  # right behind the image
    assert beside.ranking[0].logprobs == model.score(image(1), ["a cat"], template="{image}{text}").ranking[0].logprobs
