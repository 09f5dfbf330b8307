"""Rows of the caller's own in a prompt: the same as an image's where they are its rows; in Python, C and a worker."""

import ctypes
from ctypes import byref, c_size_t
from pathlib import Path

import numpy as np
import pytest
from helpers import capi
from helpers.api_model import picture, tiny_file
from helpers.capi import make
from helpers.tiny import write_tiny
from models.description import described

import kosmos_edge
from kosmos_edge.errors import InvalidRequest

LENGTH = {"max_tokens": 6, "logprobs": True}


IN_SEQUENCE = sorted(name for name, of in described().items() if of.looked_at is None)


@pytest.fixture(scope="module", params=IN_SEQUENCE)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> kosmos_edge.Model:
    path = tmp_path_factory.mktemp("rows") / "tiny.gguf"
    write_tiny(path, tiny=described()[request.param].tiny)
    return kosmos_edge.load(path, threads=1)


def rows_of(model: kosmos_edge.Model, image: np.ndarray) -> np.ndarray:
    encoded = model.encode(image)
    return np.frombuffer(encoded.tobytes(), np.float32).reshape(encoded.shape)


def test_an_images_own_rows_give_its_logits(model: kosmos_edge.Model) -> None:
    """Behind the same ids; a model's ids of rows may count up, which the decoder does not see."""
    engine, info = model._open.engine, model.model_info
    image = engine.encode_image(picture().tobytes(), 100, 80)
    around = info["image"]["before"], info["image"]["after"]
    for words in ("a", "what is it"):
        made = image if image.shape[1] == info["width"] else engine.read_image(image, words)
        rows = engine.given_rows(made.tobytes(), made.shape[0])
        wanted, _, _ = engine.logits([("image", image), ("text", words)])
        tags = [[("ids", ids)] if ids else [] for ids in around]
        got, _, _ = engine.logits([*tags[0], ("rows", rows), *tags[1], ("text", words)])
        if info.get("latents") and info["architecture"] == "kosmos2_5":
            continue  # its tags are of the image's segment, too
        assert got == wanted


def test_rows_between_texts(model: kosmos_edge.Model) -> None:
    width = model.model_info["width"]
    rows = np.random.default_rng(3).normal(0, 0.05, (5, width)).astype(np.float32)
    first = model.generate(["a", rows, "b", 2 * rows[:1], "it is"], **LENGTH)
    assert first.timings.prompt_tokens >= 6 and first.width is None
    for same in (rows.astype(np.float64), np.asfortranarray(rows)):
        again = model.generate(["a", same, "b", 2 * rows[:1], "it is"], **LENGTH)
        assert (again.token_ids, again.logprobs) == (first.token_ids, first.logprobs)
    other = model.generate(["a", -rows, "b", 2 * rows[:1], "it is"], **LENGTH)
    assert other.logprobs != first.logprobs
    events = list(model.generate(["a", rows, "b", 2 * rows[:1], "it is"], stream=True, **LENGTH))
    assert events[-1].result.token_ids == first.token_ids
    together = model.generate([picture(), rows, "it is"], **LENGTH)
    assert together.width == 100


def test_what_rows_must_be(model: kosmos_edge.Model) -> None:
    width = model.model_info["width"]
    with pytest.raises(
        InvalidRequest, match=rf"segments\[1\]: expected rows of {width} values each, got 2 x {width - 1}"
    ):
        model.generate(["a", np.zeros((2, width - 1), np.float32)])
    bad = np.zeros((2, width), np.float32)
    bad[1, 3] = np.inf
    with pytest.raises(InvalidRequest, match="finite"):
        model.generate(["a", bad])
    with pytest.raises(InvalidRequest, match="rows: expected 1"):
        model.generate(["a", np.zeros((0, width), np.float32)])


@pytest.mark.parametrize("name", sorted(set(described()) - set(IN_SEQUENCE)))
def test_models_that_look_at_images_refuse_them(name: str, tmp_path: Path) -> None:
    write_tiny(tmp_path / "tiny.gguf", tiny=described()[name].tiny)
    with kosmos_edge.load(tmp_path / "tiny.gguf", threads=1) as model:
        rows = np.zeros((2, model.model_info["width"]), np.float32)
        with pytest.raises(InvalidRequest, match="rows: this model looks at images by cross-attention"):
            model.generate(["a", rows])


def test_a_worker_process_takes_them() -> None:
    with (
        kosmos_edge.load(tiny_file(), threads=1) as here,
        kosmos_edge.load(tiny_file(), threads=1, isolation="process") as there,
    ):
        rows = np.random.default_rng(3).normal(0, 0.05, (5, here.model_info["width"])).astype(np.float32)
        answers = [model.generate([rows, "it is"], **LENGTH) for model in (here, there)]
    assert answers[0].token_ids == answers[1].token_ids and answers[0].logprobs == answers[1].logprobs


def test_in_c() -> None:
    with kosmos_edge.load(tiny_file(), threads=1) as model:
        width = model.model_info["width"]
        rows = np.random.default_rng(3).normal(0, 0.05, (5, width)).astype(np.float32)
        expected = model.generate([rows, "it is"], max_tokens=6)
    handle = capi.load(Path(tiny_file()), threads=1)
    info = capi.ModelInfo()
    capi.call("model_get", handle, byref(info))
    assert info.width == width
    data = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    segments = (capi.Segment * 2)(capi.Segment(kind=5, rows=data, row_count=5), capi.Segment(kind=1, text=b"it is"))
    options = capi.Options(max_tokens=6)
    c = capi.read(make("generate", handle, segments, c_size_t(2), byref(options)))
    assert c["ids"] == expected.token_ids and c["size"] == (0, 0)
    segments[0].row_count = 0
    with pytest.raises(capi.CError, match=r"segments\[0\].rows: expected 1"):
        make("generate", handle, segments, c_size_t(2), byref(options))
    segments[0].rows = None
    with pytest.raises(capi.CError, match=r"rows, got NULL"):
        make("generate", handle, segments, c_size_t(2), byref(options))
