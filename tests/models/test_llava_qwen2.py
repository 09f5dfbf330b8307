"""LLaVA with SigLIP and Qwen2: what the suite over all models does not ask. Both projectors and ways to a square, an
inner layer, marks of the chat in templates, and the CUDA backend."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import sweep
from helpers.cuda_emulated import use_cuda
from helpers.golden_cases import relative_error
from helpers.tiny import make_picture, write_tiny
from PIL import Image

import kosmos_edge
from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt
from models.description import described
from models.llava_qwen2 import CAPTION, EOS, LlavaQwen2Reference, turn

OF = described()["llava_qwen2"]


def write(path: Path, **changes: tuple[str, Any]) -> tuple[Path, LlavaQwen2Reference]:
    """The tiny model with other metadata (keys behind "llava_qwen2.", dots as __), and its definition."""
    metadata = dict(OF.tiny.metadata)
    metadata |= {"llava_qwen2." + key.replace("__", "."): entry for key, entry in changes.items()}
    weights = dict(OF.tiny.weights)
    if metadata["llava_qwen2.projector"][1] == "linear":
        weights = {name: array for name, array in weights.items() if not name.startswith("mm.2.")}
    if metadata["llava_qwen2.vision.feature_layer"][1] == -2:
        weights = {name: array for name, array in weights.items() if not name.startswith("v.blk.1.")}
    write_tiny(path, tiny=dataclasses.replace(OF.tiny, metadata=metadata, weights=weights))
    return path, LlavaQwen2Reference(metadata, weights)


def encode(engine: _core.Engine, picture: np.ndarray) -> _core.ImageEmbedding:
    height, width, _ = picture.shape
    return engine.encode_image(picture.tobytes(), width, height)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> kosmos_edge.Model:
    path, _ = write(tmp_path_factory.mktemp("llava_qwen2") / "tiny.gguf")
    return kosmos_edge.load(path, threads=1)


@pytest.mark.parametrize("layer", [-1, -2])
@pytest.mark.parametrize("projector", ["linear", "mlp2x_gelu"])
def test_every_form_of_tower_and_projector(projector: str, layer: int, tmp_path: Path) -> None:
    path, definition = write(tmp_path / "x.gguf", projector=("str", projector), vision__feature_layer=("i32", layer))
    engine = _core.Engine(str(path), threads=1)
    assert engine.info["preprocessing"].startswith("resized to 60 x 60, aspect not kept")
    words = engine.tokenizer.encode("a cat")
    picture = make_picture(7, 100, 60)
    embedding = encode(engine, picture)
    expected = definition.encode_image(picture)
    vectors = np.frombuffer(embedding.tobytes(), np.float32).reshape(embedding.shape)
    assert relative_error(vectors, expected) < 1e-4
    data, rows, vocab = engine.logits([("image", embedding), ("ids", words)])
    logits = np.frombuffer(data, np.float32).reshape(rows, vocab)
    assert relative_error(logits, definition.logits(definition.prompt([expected, words]))) < 1e-4


def test_padded_pictures(tmp_path: Path) -> None:
    """On a square of the mean's colour, 127."""
    path, definition = write(tmp_path / "x.gguf", image__aspect=("str", "pad"))
    engine = _core.Engine(str(path), threads=1)
    picture = make_picture(8, 90, 40)
    square = Image.new("RGB", (90, 90), (127, 127, 127))
    square.paste(Image.fromarray(picture), (0, 25))
    embedding = encode(engine, picture)
    vectors = np.frombuffer(embedding.tobytes(), np.float32).reshape(embedding.shape)
    assert relative_error(vectors, definition.encode_image(np.asarray(square))) < 1e-4


def test_a_head_of_its_own_is_there_or_is_not(tmp_path: Path) -> None:
    """The file says whether the embedding is the output matrix, too."""
    metadata = OF.tiny.metadata | {"llava_qwen2.output.tied": ("bool", False)}
    weights = OF.tiny.weights | {"output.weight": OF.tiny.weights["token_embd.weight"][::-1].copy()}
    path = tmp_path / "own.gguf"
    write_tiny(path, tiny=dataclasses.replace(OF.tiny, metadata=metadata, weights=weights))
    definition = LlavaQwen2Reference(metadata, weights)
    definition.output = "output"
    data, rows, vocab = _core.Engine(str(path), threads=1).logits([("ids", [300, 301])])
    logits = np.frombuffer(data, np.float32).reshape(rows, vocab)
    assert relative_error(logits, definition.logits(definition.prompt([[300, 301]]))) < 1e-4
    write_tiny(path, tiny=dataclasses.replace(OF.tiny, weights=weights))
    with pytest.raises(ModelCorrupt, match=r"output.tied is true; expected false, for there is a tensor"):
        _core.Engine(str(path))


def test_marks_of_the_chat_in_templates(model: kosmos_edge.Model) -> None:
    """In templates of answers and scores they are tokens; what is scored goes on behind the line feed."""
    engine, picture = model._open.engine, make_picture(3, 60, 60)
    image = encode(engine, picture)
    segments = [("image", image) if kind == "image" else (kind, v) for kind, v in turn(0, CAPTION)]
    prompt = engine.prompt_ids(segments)
    template = f"<|im_start|>user {{image}}\n{CAPTION}<|im_end|><|im_start|>assistant\n"
    row = model.score(picture, ["a cat"], template=template + "{text}").ranking[0]
    assert row.token_ids == engine.tokenizer.encode("a cat")
    assert row.logprobs == model.score(picture, ["a cat"]).ranking[0].logprobs
    spoken = engine.prompt_ids([*segments[:-1], ("text", "assistant\na cat")])
    assert [*prompt, *row.token_ids] == spoken
    asked = model.ask(picture, CAPTION, max_tokens=3)
    assert (
        asked.timings.prompt_tokens == len(prompt) and asked.token_ids == model.caption(picture, max_tokens=3).token_ids
    )
    assert EOS not in asked.token_ids and prompt.count(EOS) == 1


def test_an_answer_ends_without_its_end(tmp_path: Path) -> None:
    """<|im_end|> is a tag, which stands in formats of prompts; no answer shows it."""
    picture, output = make_picture(3, 60, 60), "token_embd.weight"  # which is the output matrix, too
    write_tiny(tmp_path / "a.gguf", tiny=OF.tiny)
    first = kosmos_edge.load(tmp_path / "a.gguf", threads=1).caption(picture, max_tokens=3)
    rows = OF.tiny.weights[output].copy()
    rows[EOS] = 2 * rows[first.token_ids[2]]  # it comes early
    write_tiny(tmp_path / "b.gguf", tiny=dataclasses.replace(OF.tiny, weights={**OF.tiny.weights, output: rows}))
    ended = kosmos_edge.load(tmp_path / "b.gguf", threads=1).caption(picture, max_tokens=3)
    assert (ended.finish_reason, ended.token_ids[-1]) == ("stop", EOS) and "<|" not in ended.text


@pytest.mark.parametrize("dtype", sweep.some(["F32", "Q8_0"], 2, 1))
def test_on_a_cuda_device(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cuda(monkeypatch)
    write_tiny(tmp_path / "x.gguf", dtype, tiny=OF.tiny)
    picture, logits = make_picture(4, 90, 60), []
    for device in ("cpu", "cuda"):
        engine = _core.Engine(str(tmp_path / "x.gguf"), device=device)
        data, rows, vocab = engine.logits([("text", "a"), ("image", encode(engine, picture)), ("text", "\na cat")])
        logits.append(np.frombuffer(data, np.float32).reshape(rows, vocab))
    assert np.isfinite(logits[1]).all()
    if dtype == "F32":
        assert relative_error(logits[1], logits[0]) < 1e-4
    else:  # either device rounds activations in its own way
        assert np.median([np.corrcoef(a, b)[0, 1] for a, b in zip(*logits, strict=True)]) > 0.99
