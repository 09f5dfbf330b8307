"""BLIP-2: what the suite over all models does not ask. Where the image stands, how answers end, blanks behind the
image, the placeholder, heads and rows of unusual widths, a CUDA device."""

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
from models.blip2 import BOS, END, Blip2Reference
from models.description import described

OF = described()["blip2"]
IMAGE = OF.tiny.vocabulary.id("<image>")
ROWS = 8


def write(path: Path, dtype: str = "F32", **changes: tuple) -> tuple[Path, Blip2Reference]:
    """The tiny model with other metadata (keys behind "blip2.", dots as __), and its definition."""
    metadata = dict(OF.tiny.metadata)
    for key, entry in changes.items():
        metadata["blip2." + key.replace("__", ".")] = entry
    write_tiny(path, dtype, tiny=dataclasses.replace(OF.tiny, metadata=metadata))
    return path, Blip2Reference(metadata, OF.tiny.weights)


def encode(engine: _core.Engine, picture: np.ndarray) -> _core.ImageEmbedding:
    height, width, _ = picture.shape
    return engine.encode_image(picture.tobytes(), width, height)


def assert_asked(engine: _core.Engine, prompt: list, result: kosmos_edge.Result, max_tokens: int) -> None:
    """The result is the answer to that prompt."""
    params = _core.GenerateParams()
    params.max_tokens = max_tokens
    assert result.timings.prompt_tokens == len(engine.prompt_ids(prompt))
    assert result.token_ids == engine.generate(prompt, params).token_ids


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> kosmos_edge.Model:
    path, _ = write(tmp_path_factory.mktemp("blip2") / "tiny.gguf")
    return kosmos_edge.load(path, threads=1)


def test_the_image_stands_before_what_begins_the_text(model: kosmos_edge.Model) -> None:
    """Blip2Processor puts its ids in front of the tokenizer's, the first of which is the beginning."""
    engine = model._open.engine
    image, rows = ("image", encode(engine, make_picture(1, 60, 60))), [IMAGE] * ROWS
    words = engine.tokenizer.encode("It is")
    text = ("text", "It is")
    assert engine.prompt_ids([image]) == [*rows, BOS]
    assert engine.prompt_ids([image, text]) == [*rows, BOS, *words]
    assert engine.prompt_ids([("text", ""), image, text]) == [*rows, BOS, *words]
    assert engine.prompt_ids([image, image, text]) == [*rows, *rows, BOS, *words]
    assert engine.prompt_ids([text, image]) == [BOS, *words, *rows]
    assert engine.prompt_ids([text]) == [BOS, *words]
    assert engine.prompt_ids([image, ("ids", [9]), image]) == [*rows, BOS, 9, *rows]


def test_texts_begin_whatever_the_vocabulary_says(tmp_path: Path) -> None:
    """A tokenizer.json without its settings says nothing of the beginning; the model was trained with it."""
    metadata = dict(OF.tiny.metadata) | {"tokenizer.ggml.add_bos_token": ("bool", False)}
    path = tmp_path / "x.gguf"
    write_tiny(path, "F32", tiny=dataclasses.replace(OF.tiny, metadata=metadata))
    engine = _core.Engine(str(path), threads=1)
    assert engine.prompt_ids([("text", "It is")]) == [BOS, *engine.tokenizer.encode("It is")]


def test_an_answer_ends_at_a_line_feed(model: kosmos_edge.Model, tmp_path: Path) -> None:
    """Not at the token that begins and ends texts, which is as any other."""
    picture = make_picture(1, 60, 60)
    whole = model.caption(picture, max_tokens=8)
    assert whole.finish_reason == "length"
    third = whole.token_ids[2]
    assert third not in whole.token_ids[:2]
    path, _ = write(tmp_path / "end.gguf", generation__end_token_id=("u32", third))
    ended = kosmos_edge.load(path, threads=1)
    result = ended.caption(picture, max_tokens=8)
    assert (result.token_ids, result.finish_reason) == (whole.token_ids[:3], "stop")
    assert ended.model_info["eos"] == third and model.model_info["eos"] == END
    engine, shown = ended._open.engine, make_picture(4, 50, 50)
    result = ended.ask(picture, "why", examples=[(shown, "what", "red")], max_tokens=4)
    first, second = (("image", encode(engine, image)) for image in (shown, picture))
    words = [("text", f"Question: {text}") for text in ("what Answer: red", "why Answer:")]
    assert_asked(engine, [first, words[0], ("ids", [third]), second, words[1]], result, 4)


def test_the_end_and_the_placeholder_are_two_tokens(tmp_path: Path) -> None:
    path, _ = write(tmp_path / "x.gguf", generation__end_token_id=("u32", IMAGE))
    with pytest.raises(ModelCorrupt, match=rf"image.token_id is {IMAGE}, the end of an answer"):
        kosmos_edge.load(path)


def test_no_blank_right_behind_the_image(model: kosmos_edge.Model) -> None:
    """What goes on from an image alone is the beginning of a text; behind words it follows a blank."""
    engine, picture = model._open.engine, make_picture(2, 60, 60)
    row = model.score(picture, ["a cat"]).ranking[0]
    assert row.token_ids == engine.tokenizer.encode("a cat")
    row = model.score(picture, ["a cat"], template="It is {text}").ranking[0]
    assert row.token_ids == engine.tokenizer.encode(" a cat")
    shown = make_picture(4, 50, 50)
    result = model.caption(picture, examples=[(shown, "a dog")], max_tokens=4)
    first, second = (("image", encode(engine, image)) for image in (shown, picture))
    assert_asked(engine, [first, ("text", "a dog"), ("ids", [END]), second], result, 4)


def test_the_placeholder_is_never_generated(tmp_path: Path) -> None:
    """However likely it is: the next best token comes."""
    picture = make_picture(1, 60, 60)
    best = kosmos_edge.load(write(tmp_path / "a.gguf")[0], threads=1).caption(picture, max_tokens=1).token_ids[0]
    rows = OF.tiny.weights["token_embd.weight"].copy()
    rows[IMAGE] = 2 * rows[best]
    write_tiny(
        tmp_path / "b.gguf",
        tiny=dataclasses.replace(OF.tiny, weights={**OF.tiny.weights, "token_embd.weight": rows}),
    )
    result = kosmos_edge.load(tmp_path / "b.gguf", threads=1).caption(picture, max_tokens=1, logprobs=True)
    assert result.token_ids == [best] and result.logprobs[0] < np.log(0.5)  # another was likelier


@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_blocks_that_look_at_the_image(every: int, tmp_path: Path) -> None:
    """0, every, ...: the file must have these and no others."""
    metadata = {**OF.tiny.metadata, "blip2.qformer.cross_attention_every": ("u32", every)}
    looks = [i for i in range(3) if i % every == 0]
    weights = dict(OF.tiny.weights)
    for i in range(3):
        own = {n: w for n, w in OF.tiny.weights.items() if n.startswith("mm.blk.0.cross.")}
        for name, array in own.items():
            there = name.replace("blk.0", f"blk.{i}")
            weights.pop(there, None)
            if i in looks:
                weights[there] = array
    path = tmp_path / "x.gguf"
    write_tiny(path, tiny=dataclasses.replace(OF.tiny, metadata=metadata, weights=weights))
    picture, engine = make_picture(3, 90, 70), _core.Engine(str(path), threads=1)
    found = encode(engine, picture)
    rows = np.frombuffer(found.tobytes(), np.float32).reshape(found.shape)
    assert relative_error(rows, Blip2Reference(metadata, weights).encode_image(picture)) < 1e-4


def test_a_caption_in_the_file_of_small_blocks(tmp_path: Path) -> None:
    """Rows of the tower, 352 values, are no multiple of 256: stored in blocks of 32."""
    made = kosmos_edge.convert.requantize(write(tmp_path / "a.gguf")[0], tmp_path / "b.gguf", type="q4_k_m").output
    stored = {name: dtype for name, dtype, *_ in _core.GgufFile(str(made)).tensors()}
    assert stored["v.blk.0.attn_q.weight"] == "Q8_0" and stored["v.blk.0.ffn_down.weight"] == "Q6_K"
    assert stored["blk.0.attn_q.weight"] == "Q4_K" and stored["mm.blk.0.cross.attn_k.weight"] == "Q8_0"
    assert stored["mm.query"] == stored["position_embd.weight"] == "F32"


@pytest.mark.parametrize("dtype", sweep.some(["F32", "Q8_0"], 2, 1))
def test_on_a_cuda_device(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cuda(monkeypatch)
    path, _ = write(tmp_path / "x.gguf", dtype)
    picture, logits = make_picture(4, 90, 60), []
    for device in ("cpu", "cuda"):
        engine = _core.Engine(str(path), device=device)
        data, rows, vocab = engine.logits([("image", encode(engine, picture)), ("text", "It is a cat")])
        logits.append(np.frombuffer(data, np.float32).reshape(rows, vocab))
    assert np.isfinite(logits[1]).all()
    assert relative_error(logits[1], logits[0]) < {"F32": 1e-4, "Q8_0": 0.2}[dtype]
