"""OpenFlamingo: what the suite over all models does not ask. Which blocks look at images and what a token sees, the
ends of examples, the placeholder, rotary positions in a part of a head, a CUDA device."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import sweep
from helpers.cuda_emulated import use_cuda
from helpers.golden_cases import relative_error
from helpers.tiny import make_picture, write_tiny

import kosmos_edge
from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest, ModelCorrupt
from models.description import described
from models.openflamingo import END, IMAGE_ID, A, OpenFlamingoReference

OF = described()[A]
PICTURES = [make_picture(seed, 90 - 10 * seed, 60) for seed in range(3)]


def write(path: Path, dtype: str = "F32", **changes: tuple) -> tuple[Path, OpenFlamingoReference]:
    """The tiny model with other metadata (keys behind "openflamingo.", dots as __), and its definition."""
    metadata = dict(OF.tiny.metadata)
    for key, entry in changes.items():
        metadata[f"{A}." + key.replace("__", ".")] = entry
    write_tiny(path, dtype, tiny=dataclasses.replace(OF.tiny, metadata=metadata))
    return path, OpenFlamingoReference(metadata, OF.tiny.weights)


def segments_of(engine: _core.Engine, parts: list[Any]) -> list[tuple[str, Any]]:
    """Numbers are pictures, lists ids."""

    def encode(number: int) -> _core.ImageEmbedding:
        picture = PICTURES[number]
        return engine.encode_image(picture.tobytes(), *picture.shape[1::-1])

    kinds: dict[type, Any] = {int: lambda p: ("image", encode(p)), str: lambda p: ("text", p)}
    return [kinds.get(type(part), lambda p: ("ids", p))(part) for part in parts]


def logits_of(engine: _core.Engine, parts: list[Any]) -> np.ndarray:
    data, rows, vocab = engine.logits(segments_of(engine, parts))
    return np.frombuffer(data, np.float32).reshape(rows, vocab)


def defined(definition: OpenFlamingoReference, engine: _core.Engine, parts: list[Any]) -> Any:
    """The definition's prompt of the same."""
    made = {int: lambda p: definition.encode_image(PICTURES[p]), str: engine.tokenizer.encode, list: list}
    return definition.prompt([made[type(part)](part) for part in parts])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> kosmos_edge.Model:
    return kosmos_edge.load(write(tmp_path_factory.mktemp("openflamingo") / "tiny.gguf")[0], threads=1)


def test_an_image_is_one_token_and_nothing_begins_a_prompt(model: kosmos_edge.Model) -> None:
    engine = model._open.engine
    words = engine.tokenizer.encode("a cat")
    ids = lambda *parts: engine.prompt_ids(segments_of(engine, list(parts)))  # noqa: E731
    assert ids(0) == [IMAGE_ID] and ids(0, 1) == [IMAGE_ID, IMAGE_ID] and ids("a cat") == words
    assert ids("a cat", 0, "a cat") == [*words, IMAGE_ID, *words]
    assert model.image_tokens == 0 and model.model_info["eos"] == END


PROMPTS: dict[str, list[Any]] = {
    "text before": ["the house", 0, "a cat", [END], 1, "a dog"],
    "neighbours": ["the house", 0, 1, 2, "It is"],
    "no image": ["the house"],
    "the end of a text changes nothing": [0, "a cat", [0], "the house"],
}


@pytest.mark.parametrize("name", PROMPTS)
def test_every_row_is_the_definitions(name: str, model: kosmos_edge.Model) -> None:
    """What stands before the first image sees nothing, but goes through the second half of the gated blocks."""
    engine = model._open.engine
    prompt = defined(OF.definition, engine, PROMPTS[name])
    assert engine.prompt_ids(segments_of(engine, PROMPTS[name])) == prompt.ids
    assert relative_error(logits_of(engine, PROMPTS[name]), OF.definition.logits(prompt)) < 1e-4


@pytest.mark.parametrize("every", [1, 3, 4])
def test_the_blocks_that_look_at_images(every: int, tmp_path: Path) -> None:
    """every - 1, 2 every - 1, ...: the file must have these and no others."""
    metadata = {**OF.tiny.metadata, f"{A}.cross_attention.every": ("u32", every)}
    own = {name: w for name, w in OF.tiny.weights.items() if name.startswith("blk.1.cross.")}
    weights = {name: w for name, w in OF.tiny.weights.items() if ".cross." not in name}
    for i in range(every - 1, 4, every):
        weights |= {name.replace("blk.1", f"blk.{i}"): w for name, w in own.items()}
    path = tmp_path / "x.gguf"
    write_tiny(path, tiny=dataclasses.replace(OF.tiny, metadata=metadata, weights=weights))
    engine, definition = _core.Engine(str(path), threads=1), OpenFlamingoReference(metadata, weights)
    parts = ["It is", 2, "a cat"]
    assert relative_error(logits_of(engine, parts), definition.logits(defined(definition, engine, parts))) < 1e-4


@pytest.mark.parametrize("dims", [2, 32, 64])
def test_positions_turn_a_part_of_every_head(dims: int, tmp_path: Path) -> None:
    path, definition = write(tmp_path / "x.gguf", rope__dimension_count=("u32", dims))
    engine, parts = _core.Engine(str(path), threads=1), ["It is", 0, "a cat in the house"]
    assert relative_error(logits_of(engine, parts), definition.logits(defined(definition, engine, parts))) < 1e-4


@pytest.mark.parametrize("key, value, message", [
    ("rope__dimension_count", 15, "rope.dimension_count is 15; expected an even number"),
    ("rope__dimension_count", 66, "at most the width of a head, 64"),
    ("cross_attention__every", 5, "cross_attention.every is 5; expected at most openflamingo.block_count, 4"),
    ("cross_attention__key_length", 63, "cross_attention.key_length is 63; expected a multiple of 8"),
    ("image__token_id", END, "image.token_id is .*, the end of an answer"),
])  # fmt: skip
def test_numbers_that_contradict_each_other(key: str, value: int, message: str, tmp_path: Path) -> None:
    path, _ = write(tmp_path / "x.gguf", **{key: ("u32", value)})
    with pytest.raises(ModelCorrupt, match=message):
        kosmos_edge.load(path)


def asked(model: kosmos_edge.Model, parts: list[Any], result: kosmos_edge.Result, max_tokens: int) -> None:
    """The result is the answer to that prompt."""
    engine, params = model._open.engine, _core.GenerateParams()
    params.max_tokens = max_tokens
    segments = segments_of(engine, parts)
    assert result.timings.prompt_tokens == len(engine.prompt_ids(segments))
    assert result.token_ids == engine.generate(segments, params).token_ids


def test_examples_end_with_their_token_and_no_blank_leads_to_an_answer(model: kosmos_edge.Model) -> None:
    result = model.caption(PICTURES[1], examples=[(PICTURES[0], "a cat")], max_tokens=4)
    asked(model, [0, "Output:a cat", [END], 1, "Output:"], result, 4)
    result = model.ask(PICTURES[1], "why", examples=[(PICTURES[0], "what", "red")], max_tokens=4)
    asked(model, [0, "Question:what Short answer:red", [END], 1, "Question:why Short answer:"], result, 4)
    row = model.score(PICTURES[0], ["a cat"]).ranking[0]
    assert row.token_ids == model._open.engine.tokenizer.encode("a cat")


def test_an_answer_ends_without_its_end(tmp_path: Path) -> None:
    """The token that ends it is a tag, which no answer shows."""
    path, _ = write(tmp_path / "a.gguf")
    first = kosmos_edge.load(path, threads=1).caption(PICTURES[0], max_tokens=3)
    rows = OF.tiny.weights["output.weight"].copy()
    rows[END] = 2 * rows[first.token_ids[2]]  # it comes third
    weights = {**OF.tiny.weights, "output.weight": rows}
    write_tiny(tmp_path / "b.gguf", tiny=dataclasses.replace(OF.tiny, weights=weights))
    ended = kosmos_edge.load(tmp_path / "b.gguf", threads=1).caption(PICTURES[0], max_tokens=3)
    assert ended.finish_reason == "stop" and ended.token_ids[-1] == END and "<|" not in ended.text


def test_the_placeholder_is_never_generated(tmp_path: Path) -> None:
    best = kosmos_edge.load(write(tmp_path / "a.gguf")[0], threads=1).caption(PICTURES[0], max_tokens=1).token_ids[0]
    rows = OF.tiny.weights["output.weight"].copy()
    rows[IMAGE_ID] = 2 * rows[best]
    weights = {**OF.tiny.weights, "output.weight": rows}
    write_tiny(tmp_path / "b.gguf", tiny=dataclasses.replace(OF.tiny, weights=weights))
    result = kosmos_edge.load(tmp_path / "b.gguf", threads=1).caption(PICTURES[0], max_tokens=1, logprobs=True)
    assert result.token_ids == [best] and result.logprobs[0] < np.log(0.5)  # another was likelier


def test_rows_of_ones_own_have_no_place(model: kosmos_edge.Model) -> None:
    with pytest.raises(InvalidRequest, match="looks at images by cross-attention"):
        model.generate([np.zeros((2, 256), np.float32), "It is"], max_tokens=2)


@pytest.mark.parametrize("dtype", sweep.some(["F32", "Q8_0"], 2, 1))
def test_on_a_cuda_device(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cuda(monkeypatch)
    path, _ = write(tmp_path / "x.gguf", dtype)
    logits = [
        logits_of(_core.Engine(str(path), device=device), ["the house", 0, "a cat", 1, "It is"])
        for device in ("cpu", "cuda")
    ]
    assert np.isfinite(logits[1]).all()
    assert relative_error(logits[1], logits[0]) < {"F32": 1e-4, "Q8_0": 0.2}[dtype]
