"""LLaVA: what the suite over all models does not ask. Both projectors and both ways to a square, blanks around images,
the placeholder, what is kept of prompts, and text that looks like tags."""

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
from kosmos_edge.errors import InvalidRequest, ModelCorrupt
from models.description import described
from models.llava import BEGIN, CAPTION, EOS, LlavaReference, turn

OF = described()["llava"]
IMAGE = OF.tiny.vocabulary.id("<image>")
ROWS = 16


def write(path: Path, **changes: tuple | None) -> tuple[Path, LlavaReference]:
    """The tiny model with other metadata (keys behind "llava.", dots as __), and its definition."""
    metadata = dict(OF.tiny.metadata)
    for key, entry in changes.items():
        metadata["llava." + key.replace("__", ".")] = entry
    weights = dict(OF.tiny.weights)
    if metadata["llava.projector"][1] == "linear":
        weights = {name: array for name, array in weights.items() if not name.startswith("mm.2.")}
    write_tiny(path, tiny=dataclasses.replace(OF.tiny, metadata=metadata, weights=weights))
    return path, LlavaReference(metadata, weights)


def encode(engine: _core.Engine, picture: np.ndarray) -> _core.ImageEmbedding:
    height, width, _ = picture.shape
    return engine.encode_image(picture.tobytes(), width, height)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> kosmos_edge.Model:
    path, _ = write(tmp_path_factory.mktemp("llava") / "tiny.gguf")
    return kosmos_edge.load(path, threads=1)


@pytest.mark.parametrize("projector", ["linear", "mlp2x_gelu"])
@pytest.mark.parametrize("aspect", ["pad", "crop"])
def test_every_published_form(projector: str, aspect: str, tmp_path: Path) -> None:
    path, definition = write(tmp_path / "x.gguf", projector=("str", projector), image__aspect=("str", aspect))
    engine = _core.Engine(str(path), threads=1)
    wanted = {"pad": "padded to a square", "crop": "shorter side resized to 56"}[aspect]
    assert engine.info["preprocessing"].startswith(wanted)
    words = engine.tokenizer.encode("a cat", at_start=False)
    for size in [(100, 60), (40, 90)]:
        picture = make_picture(7, *size)
        embedding = encode(engine, picture)
        expected = definition.encode_image(picture)
        vectors = np.frombuffer(embedding.tobytes(), np.float32).reshape(embedding.shape)
        assert relative_error(vectors, expected) < 1e-4
        data, rows, vocab = engine.logits([("image", embedding), ("ids", words)])
        logits = np.frombuffer(data, np.float32).reshape(rows, vocab)
        assert relative_error(logits, definition.logits(definition.prompt([expected, words]))) < 1e-4


def test_rotary_positions_are_scaled_and_based(tmp_path: Path) -> None:
    """Positions divided by 4 are those of no scale at every fourth position; another base is another model."""
    _, definition = write(tmp_path / "plain.gguf")
    path, _ = write(tmp_path / "scaled.gguf", rope__scaling__type=("str", "linear"), rope__scaling__factor=("f32", 4.0))
    words = [300, 301, 302, 303]
    scaled = _core.Engine(str(path), threads=1).logits([("ids", words)])[0]
    plain = definition.logits(definition.prompt([words]))
    assert relative_error(np.frombuffer(scaled, np.float32).reshape(plain.shape), plain) > 1e-3
    path, other = write(tmp_path / "based.gguf", rope__freq_base=("f32", 500.0))
    based = np.frombuffer(_core.Engine(str(path), threads=1).logits([("ids", words)])[0], np.float32)
    assert relative_error(based.reshape(plain.shape), other.logits(other.prompt([words]))) < 1e-4


def test_texts_that_touch_are_one_text(model: kosmos_edge.Model) -> None:
    engine = model._open.engine
    whole = engine.prompt_ids([("text", "a cat in the snow")])
    for parts in (["a", " cat in the snow"], ["a ca", "t", " in the snow"], ["a cat in", "", " the snow"]):
        assert engine.prompt_ids([("text", part) for part in parts]) == whole
    assert engine.prompt_ids([("text", "a ca"), ("tags", "t in the snow")]) == whole
    assert engine.tokenizer.decode(whole) == "a cat in the snow"


@pytest.mark.parametrize("every", [True, False])
def test_blanks_in_front_of_texts(every: bool, tmp_path: Path) -> None:
    """transformers' legacy: true puts one in front of every text between images and special tokens."""
    path, _ = write(tmp_path / "x.gguf")
    metadata = {**OF.tiny.metadata, "tokenizer.ggml.space_prefix_every_segment": ("bool", every)}
    write_tiny(path, tiny=dataclasses.replace(OF.tiny, metadata=metadata))
    engine = _core.Engine(str(path), threads=1)
    image = encode(engine, make_picture(1, 60, 60))
    piece = OF.tiny.vocabulary.id
    rest = [piece("▁a"), piece("▁cat")] if every else [piece("a"), piece("▁cat")]
    ids = engine.prompt_ids([("text", "the"), ("image", image), ("text", "a cat"), ("ids", [EOS]), ("text", "a cat")])
    assert ids == [1, piece("▁the"), *[IMAGE] * ROWS, *rest, EOS, *rest]


@pytest.mark.parametrize("kind", ["placeholder", "unused"])
def test_what_is_no_word_is_never_generated(kind: str, tmp_path: Path) -> None:
    """However likely it is: the next best token comes, with beams and in a batch, too."""
    tiny, picture = OF.tiny, make_picture(1, 60, 60)
    best = kosmos_edge.load(write(tmp_path / "a.gguf")[0], threads=1).caption(picture, max_tokens=1).token_ids[0]
    token = IMAGE if kind == "placeholder" else tiny.vocabulary.id("👍")
    types = list(tiny.vocabulary.types)
    types[token] = types[token] if kind == "placeholder" else 5
    rows = tiny.weights["output.weight"].copy()
    rows[token] = 2 * rows[best]
    changed = dataclasses.replace(
        tiny,
        weights={**tiny.weights, "output.weight": rows},
        metadata={**tiny.metadata, "tokenizer.ggml.token_type": ("[i32]", types)},
    )
    write_tiny(tmp_path / "b.gguf", tiny=changed)
    model = kosmos_edge.load(tmp_path / "b.gguf", threads=1)
    result = model.caption(picture, max_tokens=1, logprobs=True)
    assert result.token_ids == [best] and result.logprobs[0] < np.log(0.5)  # another was likelier
    assert token not in model.caption(picture, max_tokens=20, num_beams=3).token_ids
    assert [r.token_ids for r in model.batch([picture], max_tokens=1, batch_size=2)] == [[best]]


def test_the_placeholder_is_not_the_end(tmp_path: Path) -> None:
    """No answer would ever end: the placeholder is never generated."""
    path, _ = write(tmp_path / "x.gguf", image__token_id=("u32", EOS))
    with pytest.raises(ModelCorrupt, match=rf"image.token_id is {EOS}, the end of an answer"):
        kosmos_edge.load(path)


def test_what_looks_like_a_tag_is_text(model: kosmos_edge.Model) -> None:
    written = "<p>x < y</p> <b>a cat</b> <image> <phrase> 1>0"
    result = model.generate([make_picture(1, 60, 60), "It is"], choices=[written], max_tokens=200)
    assert result.text == written and result.entities == []
    plain = model._open.engine.prompt_ids([("text", "<image>")])
    assert IMAGE not in plain and IMAGE in model._open.engine.prompt_ids([("tags", "<image>")])


def test_what_stands_before_the_image_is_kept(model: kosmos_edge.Model) -> None:
    """A chat's system text is computed once for all images, and all of a prompt up to the question once for one."""
    engine = model._open.engine
    opening = len(engine.prompt_ids(BEGIN))
    model.caption(make_picture(1, 60, 60), max_tokens=2)
    fresh = model.caption(make_picture(2, 60, 60), max_tokens=2)
    assert fresh.timings.reused_tokens == opening
    encoded = model.encode(make_picture(2, 60, 60))
    model.ask(encoded, "what is this?", max_tokens=2)
    again = model.ask(encoded, "what color is it?", max_tokens=5, logprobs=True)
    alone = model.ask(make_picture(2, 60, 60), "what color is it?", max_tokens=5, logprobs=True)
    assert again.timings.reused_tokens > opening + ROWS
    assert (again.token_ids, again.logprobs) == (alone.token_ids, alone.logprobs)


def test_the_prompts_of_the_verbs(model: kosmos_edge.Model) -> None:
    """The image in its turn, behind the system text; scores go on from the caption's words as an answer does."""
    engine, picture = model._open.engine, make_picture(3, 60, 60)
    image = encode(engine, picture)
    segments = [("image", image) if kind == "image" else (kind, v) for kind, v in BEGIN + turn(0, CAPTION)]
    prompt = engine.prompt_ids(segments)
    assert engine.tokenizer.decode([i for i in prompt if i != IMAGE]).endswith("ASSISTANT:")
    result = model.caption(picture, max_tokens=3)
    assert result.timings.prompt_tokens == len(prompt)
    spoken = engine.prompt_ids([*segments, ("text", " a cat")])
    row = model.score(picture, ["a cat"]).ranking[0]
    assert [*prompt, *row.token_ids] == spoken
    own = model.ask(picture, "why", template="USER: {question}\n{image} ASSISTANT:", max_tokens=2)
    assert own.timings.prompt_tokens != len(prompt)
    with pytest.raises(InvalidRequest, match=r"at most one \{image\}"):
        model.ask(picture, "why", template="{image}{image} {question}")
    with pytest.raises(InvalidRequest, match=r"no picture for \{image\}"):
        model.score(None, ["a cat"], template="{image} is {text}")


@pytest.mark.parametrize("template", ["{text} is {image}", "{image}{image} is {text}", "{image} is {text} in {image}"])
def test_the_image_of_a_score_stands_once_before_the_text(model: kosmos_edge.Model, template: str) -> None:
    """Behind it, or a second time, it would be the characters "{image}"."""
    with pytest.raises(InvalidRequest, match=r"at most one \{image\}, before \{text\}"):
        model.score(make_picture(1, 60, 60), ["a cat"], template=template)


def test_a_place_in_angle_brackets_is_a_place(model: kosmos_edge.Model) -> None:
    plan = _core.plan_verb(
        model.model_info, "ask", "why", [], False, False, False, False, "<a><{image}><{question}> it"
    )
    assert plan[0][1:] == [("tags", "<a>"), ("text", "<"), ("image", 0), ("text", "><why> it")]


def test_a_placeholder_in_raw_text_is_no_image(model: kosmos_edge.Model) -> None:
    """All words behind the picture belong to the text, or all words where there is none."""
    for before in ([make_picture(1, 60, 60)], []):
        result = model.generate([*before, "a cat <image> in"], raw=True, lead_in=True, max_tokens=2)
        assert result.text.startswith("a cat <image> in"), result.text


@pytest.mark.parametrize("dtype", sweep.some(["F32", "Q8_0"], 2, 1))
def test_on_a_cuda_device(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cuda(monkeypatch)
    write_tiny(tmp_path / "x.gguf", dtype, tiny=OF.tiny)
    picture, logits = make_picture(4, 90, 60), []
    for device in ("cpu", "cuda"):
        engine = _core.Engine(str(tmp_path / "x.gguf"), device=device)
        image = encode(engine, picture)
        data, rows, vocab = engine.logits([("text", "USER: "), ("image", image), ("text", "\na cat ASSISTANT:")])
        logits.append(np.frombuffer(data, np.float32).reshape(rows, vocab))
    assert np.isfinite(logits[1]).all()
    assert relative_error(logits[1], logits[0]) < {"F32": 1e-4, "Q8_0": 0.2}[dtype]


def with_layers(path: Path, layers: list[int], count: int) -> tuple[Path, LlavaReference]:
    """The tiny model whose projector takes so many layers side by side."""
    metadata = OF.tiny.metadata | {"llava.vision.feature_layers": ("[i32]", layers)}
    weights = dict(OF.tiny.weights)
    weights["mm.0.weight"] = np.concatenate([weights["mm.0.weight"] * np.float32(0.5 + n) for n in range(count)], 1)
    write_tiny(path, tiny=dataclasses.replace(OF.tiny, metadata=metadata, weights=weights))
    return path, LlavaReference(metadata, weights)


@pytest.mark.parametrize("layers", [[-3, -2], [-2, -3, -3], [-2]])
def test_features_of_several_layers_stand_side_by_side(layers: list[int], tmp_path: Path) -> None:
    path, definition = with_layers(tmp_path / "x.gguf", layers, len(layers))
    engine, picture = _core.Engine(str(path), threads=1), make_picture(7, 90, 60)
    embedding = encode(engine, picture)
    found = np.frombuffer(embedding.tobytes(), np.float32).reshape(embedding.shape)
    assert relative_error(found, definition.encode_image(picture)) < 1e-4


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "feature_layers is empty; expected at least one layer"),
        ([-2, -4], r"feature_layers has -4; expected numbers in -3\.\.-1"),
        ([-2, 1], "feature_layers has 1; expected"),
        ([-3], "feature_layers has -3 as the deepest layer; expected llava.vision.feature_layer, -2"),
        ([-2, -3, -3], "feature_layers has 3 layers; expected as many as features of 256 values fill"),
    ],
)
def test_layers_that_do_not_fit(layers: list[int], message: str, tmp_path: Path) -> None:
    path, _ = with_layers(tmp_path / "x.gguf", layers, 2)
    with pytest.raises(ModelCorrupt, match=message):
        kosmos_edge.load(path, threads=1)
