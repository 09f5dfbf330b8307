"""IDEFICS: what the suite over all models does not ask. Which image a token looks at, marks around images, ends of
documents and of turns, the base model beside the instructed one, norms of heads, a CUDA device."""

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
from models.idefics import END, IMAGE, MARK, A, IdeficsReference

OF = described()[A]
IMAGE_ID, MARK_ID, DOCUMENT_END = OF.tiny.vocabulary.id(IMAGE), OF.tiny.vocabulary.id(MARK), 2
PICTURES = [make_picture(seed, 90 - 10 * seed, 60) for seed in range(3)]
BASE = {
    "caption": "{image}", "caption_detailed": "User:{image}Describe this image in detail.\nAssistant:",
    "question": "{image}Question: {question} Answer:",
}  # fmt: skip


def write(path: Path, dtype: str = "F32", **changes: tuple) -> tuple[Path, IdeficsReference]:
    """The tiny model with other metadata (keys behind "idefics.", dots as __), and its definition."""
    metadata = dict(OF.tiny.metadata)
    for key, entry in changes.items():
        metadata[f"{A}." + key.replace("__", ".")] = entry
    write_tiny(path, dtype, tiny=dataclasses.replace(OF.tiny, metadata=metadata))
    return path, IdeficsReference(metadata, OF.tiny.weights)


def write_base(path: Path) -> Path:
    """The model that was not instructed: its answers end where documents do."""
    prompts = {f"prompt__{key}": ("str", text) for key, text in BASE.items()}
    return write(path, generation__end_token_id=("u32", DOCUMENT_END), **prompts)[0]


def encode(engine: _core.Engine, picture: np.ndarray) -> _core.ImageEmbedding:
    height, width, _ = picture.shape
    return engine.encode_image(picture.tobytes(), width, height)


def segments_of(engine: _core.Engine, parts: list[Any]) -> list[tuple[str, Any]]:
    """Numbers are pictures, lists ids."""
    kinds: dict[type, Any] = {int: lambda p: ("image", encode(engine, PICTURES[p])), str: lambda p: ("text", p)}
    return [kinds.get(type(part), lambda p: ("ids", p))(part) for part in parts]


def logits_of(engine: _core.Engine, parts: list[Any]) -> np.ndarray:
    data, rows, vocab = engine.logits(segments_of(engine, parts))
    return np.frombuffer(data, np.float32).reshape(rows, vocab)


def defined(definition: IdeficsReference, engine: _core.Engine, parts: list[Any]) -> Any:
    """The definition's prompt of the same."""
    made = {
        int: lambda p: definition.encode_image(PICTURES[p]),
        str: lambda p: engine.tokenizer.encode(p, at_start=False),
        list: list,
    }
    return definition.prompt([made[type(part)](part) for part in parts])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> kosmos_edge.Model:
    path, _ = write(tmp_path_factory.mktemp("idefics") / "tiny.gguf")
    return kosmos_edge.load(path, threads=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> kosmos_edge.Model:
    return kosmos_edge.load(write_base(tmp_path_factory.mktemp("idefics") / "base.gguf"), threads=1)


# ---- which image a token looks at


def test_neighbours_share_the_mark_between_them(model: kosmos_edge.Model) -> None:
    """As IdeficsProcessor writes them. One token is an image's place, however many rows it is looked at through."""
    engine = model._open.engine
    words = engine.tokenizer.encode("a cat", at_start=False)
    one, two = [IMAGE_ID, MARK_ID], [IMAGE_ID, MARK_ID] * 2
    ids = lambda *parts: engine.prompt_ids(segments_of(engine, list(parts)))  # noqa: E731
    assert ids(0) == [1, MARK_ID, *one] and ids(0, 1) == [1, MARK_ID, *two]
    assert ids("a cat", 0, "a cat") == [1, *words, MARK_ID, *one, *words]
    assert ids(0, "a cat", 1) == [1, MARK_ID, *one, *words, MARK_ID, *one]
    assert ids(0, "", 1) == [1, MARK_ID, *two]
    assert ids([MARK_ID], 0) == [1, MARK_ID, MARK_ID, *one]
    assert model.model_info["image_tokens"] == 0 and model.image_tokens == 0


PROMPTS: dict[str, list[Any]] = {
    "text before": ["the house", 0, "a cat", 1, "a dog"],
    "neighbours": ["the house", 0, 1, 2, "It is"],
    "no image": ["the house"],
    "ends of documents": [0, "a cat", [DOCUMENT_END], "unseen", 1, "a dog", [DOCUMENT_END, DOCUMENT_END], "unseen"],
    "an end before any image": [[DOCUMENT_END], "a", 0, "b"],
}


@pytest.mark.parametrize("name", PROMPTS)
def test_every_row_is_the_definitions(name: str, model: kosmos_edge.Model) -> None:
    engine = model._open.engine
    prompt = defined(OF.definition, engine, PROMPTS[name])
    assert engine.prompt_ids(segments_of(engine, PROMPTS[name])) == prompt.ids
    assert relative_error(logits_of(engine, PROMPTS[name]), OF.definition.logits(prompt)) < 1e-4


def test_a_token_sees_the_last_image_alone(model: kosmos_edge.Model) -> None:
    """<image> its own, the mark in front the one before; what another image changes comes through earlier tokens."""
    engine = model._open.engine
    with_image, other = (logits_of(engine, ["the house", n, "a cat"]) for n in (0, 1))
    first = 1 + len(engine.tokenizer.encode("the house", at_start=False)) + 1
    np.testing.assert_array_equal(with_image[:first], other[:first])
    assert (np.abs(with_image[first:] - other[first:]).max(-1) > 1e-3).all()
    text = logits_of(engine, ["the house", [MARK_ID]])
    np.testing.assert_allclose(with_image[:first], text, rtol=1e-5, atol=1e-5)


def test_nothing_is_seen_behind_the_end_of_a_document(model: kosmos_edge.Model) -> None:
    """The end itself sees the image; so do tokens of an answer, which goes on as the prompt's last row does."""
    engine = model._open.engine
    params = _core.GenerateParams()
    params.max_tokens, params.logprobs = 6, True
    parts = [0, "a cat", [DOCUMENT_END], "the house"]
    got = engine.generate(segments_of(engine, parts), params)
    want = OF.definition.generate(defined(OF.definition, engine, parts), 6)
    assert got.token_ids == want.ids and got.logprobs == pytest.approx(want.logprobs, abs=1e-3)
    rows = logits_of(engine, [*parts, got.token_ids])
    shifted = rows[-7:-1] - rows[-7:-1].max(-1, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    scored = engine.score(segments_of(engine, parts), [[("ids", got.token_ids)]]).continuations[0]
    picked = [log[i, token] for i, token in enumerate(got.token_ids)]
    assert scored.logprobs == pytest.approx(picked, abs=1e-4)
    assert got.logprobs == pytest.approx(picked, abs=1e-4)


def test_what_stands_behind_another_end_is_not_reused(tmp_path: Path) -> None:
    """What is kept of a prompt was computed with the same ends and images."""
    path, _ = write(tmp_path / "x.gguf")
    engine, fresh = _core.Engine(str(path), threads=1), _core.Engine(str(path), threads=1, prefix_bytes=0)
    params = _core.GenerateParams()
    params.max_tokens, params.hash_logits = 3, True
    kept = engine.encode_image(PICTURES[0].tobytes(), *PICTURES[0].shape[1::-1], keep=True)
    reused = []
    for middle in ([DOCUMENT_END], [7], [DOCUMENT_END]):
        again = engine.generate([("image", kept), ("ids", middle), ("text", "a dog")], params)
        alone = fresh.generate(segments_of(fresh, [0, middle, "a dog"]), params)
        assert (again.token_ids, again.logits_hash) == (alone.token_ids, alone.logits_hash)
        reused.append(again.reused)
    assert reused == [0, 4, 4]  # <s> and the image's three tokens


# ---- prompts


def test_a_text_is_never_the_first(model: kosmos_edge.Model) -> None:
    """<s> is a part of the processor's text, so that no blank is put in front of what follows it; a continuation
    begins a word."""
    engine = model._open.engine
    piece = OF.tiny.vocabulary.id
    assert engine.prompt_ids([("text", "the cat")]) == [1, *engine.tokenizer.encode("the cat", at_start=False)]
    assert engine.prompt_ids([("text", "the cat")])[1] != piece("▁the")
    row = model.score(PICTURES[0], ["a cat"]).ranking[0]
    assert row.token_ids == [piece("▁a"), piece("▁cat")]


def asked(model: kosmos_edge.Model, parts: list[Any], result: kosmos_edge.Result, max_tokens: int) -> None:
    """The result is the answer to that prompt."""
    engine, params = model._open.engine, _core.GenerateParams()
    params.max_tokens = max_tokens
    segments = segments_of(engine, parts)
    assert result.timings.prompt_tokens == len(engine.prompt_ids(segments))
    assert result.token_ids == engine.generate(segments, params).token_ids


def test_a_turn_of_the_instructed_model_ends_with_its_token_and_a_line(model: kosmos_edge.Model) -> None:
    result = model.ask(PICTURES[1], "why", examples=[(PICTURES[0], "what", "red")], max_tokens=4)
    first = ["User:", 0, "what", [END], "\nAssistant: red", [END]]
    asked(model, [*first, "\nUser:", 1, "why", [END], "\nAssistant:"], result, 4)
    chat = model.chat(PICTURES[0])
    one = chat.ask("what", max_tokens=4)
    asked(model, ["User:", 0, "what", [END], "\nAssistant:"], one, 4)
    two = chat.ask("why", max_tokens=4)
    said = f"\nAssistant: {one.text}"
    asked(model, ["User:", 0, "what", [END], said, [END], "\nUser:why", [END], "\nAssistant:"], two, 4)
    assert two.timings.reused_tokens >= one.timings.prompt_tokens
    three = chat.ask("that", image=PICTURES[2], max_tokens=4)
    said_again = [f"\nAssistant: {two.text}", [END], "\nUser:", 2, "that", [END], "\nAssistant:"]
    asked(model, ["User:", 0, "what", [END], said, [END], "\nUser:why", [END], *said_again], three, 4)


def test_a_turn_of_the_base_model_ends_with_a_line(base: kosmos_edge.Model) -> None:
    """Examples follow each other in one document: no end of one stands between them."""
    result = base.ask(PICTURES[1], "why", examples=[(PICTURES[0], "what", "red")], max_tokens=4)
    asked(base, [0, "Question: what Answer: red\n", 1, "Question: why Answer:"], result, 4)
    result = base.caption(PICTURES[1], examples=[(PICTURES[0], "a cat")], max_tokens=4)
    asked(base, [0, "a cat\n", 1], result, 4)
    assert base.model_info["eos"] == DOCUMENT_END


def test_the_images_tokens_are_never_generated(tmp_path: Path) -> None:
    """However likely they are: the next best token comes."""
    best = kosmos_edge.load(write(tmp_path / "a.gguf")[0], threads=1).caption(PICTURES[0], max_tokens=1).token_ids[0]
    rows = OF.tiny.weights["output.weight"].copy()
    rows[IMAGE_ID] = rows[MARK_ID] = 2 * rows[best]
    weights = {**OF.tiny.weights, "output.weight": rows}
    write_tiny(tmp_path / "b.gguf", tiny=dataclasses.replace(OF.tiny, weights=weights))
    model = kosmos_edge.load(tmp_path / "b.gguf", threads=1)
    result = model.caption(PICTURES[0], max_tokens=1, logprobs=True)
    assert result.token_ids == [best] and result.logprobs[0] < np.log(0.5)  # others were likelier
    assert not {IMAGE_ID, MARK_ID} & set(model.caption(PICTURES[0], max_tokens=12, num_beams=3).token_ids)


def test_an_answer_ends_without_its_end(tmp_path: Path) -> None:
    """The token that ends it is a tag, which no answer shows: neither whole nor streamed."""
    first = kosmos_edge.load(write(tmp_path / "a.gguf")[0], threads=1).caption(PICTURES[0], max_tokens=3)
    rows = OF.tiny.weights["output.weight"].copy()
    rows[END] = 2 * rows[first.token_ids[2]]  # it comes early
    weights = {**OF.tiny.weights, "output.weight": rows}
    write_tiny(tmp_path / "b.gguf", tiny=dataclasses.replace(OF.tiny, weights=weights))
    model = kosmos_edge.load(tmp_path / "b.gguf", threads=1)
    ended = model.caption(PICTURES[0], max_tokens=3)
    assert ended.finish_reason == "stop" and ended.token_ids[-1] == END and "<end" not in ended.text
    *events, done = model.caption(PICTURES[0], max_tokens=3, stream=True)
    assert "".join(e.text for e in events if isinstance(e, kosmos_edge.TextDelta)) == done.result.text == ended.text


@pytest.mark.parametrize("key, value, message", [
    ("image__token_id", END, "image.token_id is .*, which is also the mark around images or an end"),
    ("image__token_id", MARK_ID, "image.token_id is .*, which is also the mark around images or an end"),
    ("image__mark_token_id", DOCUMENT_END, "image.mark_token_id is 2, which is also an end"),
    ("image__mark_token_id", END, "image.mark_token_id is .*, which is also an end"),
])  # fmt: skip
def test_the_images_tokens_have_no_other_use(key: str, value: int, message: str, tmp_path: Path) -> None:
    path, _ = write(tmp_path / "x.gguf", **{key: ("u32", value)})
    with pytest.raises(ModelCorrupt, match=message):
        kosmos_edge.load(path)


def test_rows_of_ones_own_have_no_place(model: kosmos_edge.Model) -> None:
    with pytest.raises(InvalidRequest, match="looks at images by cross-attention"):
        model.generate([np.zeros((2, 256), np.float32), "It is"], max_tokens=2)


# ---- parts


@pytest.mark.parametrize("part, key", [
    ("blk.", "cross_attention.head_norms"), ("mm.blk.", "perceiver.attention.head_norms"),
])  # fmt: skip
def test_norms_of_heads_may_be_absent(part: str, key: str, tmp_path: Path) -> None:
    metadata = {**OF.tiny.metadata, f"{A}.{key}": ("bool", False)}
    of_heads = ("attn_q_norm", "attn_k_norm")
    weights = {
        name: w
        for name, w in OF.tiny.weights.items()
        if not (name.startswith(part) and name.split(".")[-2] in of_heads)
    }
    assert len(weights) < len(OF.tiny.weights)
    path = tmp_path / "x.gguf"
    write_tiny(path, tiny=dataclasses.replace(OF.tiny, metadata=metadata, weights=weights))
    engine, definition = _core.Engine(str(path), threads=1), IdeficsReference(metadata, weights)
    parts = [0, "a cat", 1, "It is"]
    assert relative_error(logits_of(engine, parts), definition.logits(defined(definition, engine, parts))) < 1e-4
    write_tiny(path, tiny=dataclasses.replace(OF.tiny, metadata=metadata))
    with pytest.raises(ModelCorrupt, match=rf"{key} is false, tensor .* is there; expected both or neither"):
        kosmos_edge.load(path)


@pytest.mark.parametrize("every", [1, 4])
def test_the_blocks_that_look_at_images(every: int, tmp_path: Path) -> None:
    """0, every, ...: the file must have these and no others."""
    metadata = {**OF.tiny.metadata, f"{A}.cross_attention.every": ("u32", every)}
    own = {name: w for name, w in OF.tiny.weights.items() if name.startswith("blk.0.cross.")}
    weights = {name: w for name, w in OF.tiny.weights.items() if ".cross." not in name}
    for i in range(0, 4, every):
        weights |= {name.replace("blk.0", f"blk.{i}"): w for name, w in own.items()}
    path = tmp_path / "x.gguf"
    write_tiny(path, tiny=dataclasses.replace(OF.tiny, metadata=metadata, weights=weights))
    engine, definition = _core.Engine(str(path), threads=1), IdeficsReference(metadata, weights)
    parts = ["It is", 2, "a cat"]
    assert relative_error(logits_of(engine, parts), definition.logits(defined(definition, engine, parts))) < 1e-4


def test_small_files(tmp_path: Path) -> None:
    """The perceiver's heads, 192 values here and 1536 as published, are stored in blocks of 32."""
    made = kosmos_edge.convert.requantize(write(tmp_path / "a.gguf")[0], tmp_path / "b.gguf", type="q4_k_m").output
    stored = {name: dtype for name, dtype, *_ in _core.GgufFile(str(made)).tensors()}
    assert stored["mm.blk.0.attn_output.weight"] == "Q8_0" and stored["mm.query"] == "F32"
    assert stored["blk.0.cross.attn_q.weight"] == "Q4_K" and stored["blk.0.cross.attn_alpha"] == "F32"


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
