"""What every model computes: held to recorded answers on every instruction set, and to its definition in NumPy."""

import functools
from pathlib import Path

import numpy as np
import pytest
from helpers import sweep
from helpers.golden_cases import relative_error
from helpers.tiny import make_picture, write_tiny

import kosmos_edge
from kosmos_edge import _core
from kosmos_edge.convert import convert, requantize, verify
from kosmos_edge.convert.models import MODELS
from models import recorded
from models.description import CASES, TEXTS, Case, Described, arguments_of, every, options_of

TOLERANCE = 1e-4  # of the largest magnitude in each row
TOLD_BY_THE_FILE = ("general.", "tokenizer.ggml.precompiled_charsmap")  # what a converter says of itself


def test_every_row_of_the_registries_has_a_description_here() -> None:
    """A model that is added without one fails."""
    rows = set(_core.testing.model_schemas())
    assert set(every()) == rows
    assert {model.ARCHITECTURE for model in MODELS.values()} == rows


def test_the_description_is_complete(of: Described) -> None:
    assert {case.name for case in of.cases} | {"score"} <= set(of.prompts)
    assert {case.task for case in of.cases} | {"score"} == set(of.tasks)
    assert set(recorded.load(of)["answers"]) == {case.name for case in of.cases}
    assert {case.task for case in CASES.values()} | {"score"} >= set(of.tasks)


def test_what_it_says_of_itself(of: Described, path: Path, model: kosmos_edge.Model) -> None:
    info = model.model_info
    assert info == _core.model_info(str(path)) == model._open.engine.info
    assert info["architecture"] == of.architecture and info["tasks"] == of.tasks
    assert info["vocabulary"] == len(of.tiny.vocabulary.pieces)
    assert (info["grounding"] is None) == ("locate" not in of.tasks)
    assert model.metadata["general.architecture"] == of.architecture


def encode(engine: _core.Engine, picture: np.ndarray) -> _core.ImageEmbedding:
    """A picture, (height, width, 3) uint8."""
    height, width, _ = picture.shape
    return engine.encode_image(picture.tobytes(), width, height)


@functools.cache
def on(isa: str, path: Path) -> kosmos_edge.Model:
    model = kosmos_edge.Model(_core.Engine(str(path), threads=1, isa=isa))
    assert model.isa == isa
    return model


def test_recorded_answers(of: Described, case: Case, path: Path) -> None:
    """The verb's prompt, ids, and the log-probability of every token: each case on the set that is chosen, the plain
    one on every set."""
    for isa in _core.available_isas() if sweep.WHOLE or case is of.plain else [_core.isa()]:
        check_recorded(of, case, path, isa)


def check_recorded(of: Described, case: Case, path: Path, isa: str) -> None:
    model, golden = on(isa, path), recorded.load(of)["answers"][case.name]
    positional, named = arguments_of(case, recorded.pictures_of(golden))
    result = getattr(model, case.task)(*positional, **named, **options_of(case), logprobs=True)
    assert result.token_ids == golden["ids"], isa
    assert result.timings.prompt_tokens == len(golden["prompt_ids"])
    largest = np.abs(np.array(golden["logprobs"])).max()
    assert result.logprobs == pytest.approx(golden["logprobs"], abs=2e-3 * max(1.0, largest)), isa
    engine, pictures = model._open.engine, recorded.pictures_of(golden)
    segments = [(kind, encode(engine, pictures[v]) if kind == "image" else v) for kind, v in of.prompts[case.name]]
    assert engine.prompt_ids(segments) == golden["prompt_ids"]


def test_recorded_scores(of: Described, path: Path) -> None:
    golden = recorded.load(of)["score"]
    for isa in _core.available_isas():
        ranking = on(isa, path).score(*recorded.pictures_of(golden), TEXTS)
        assert sorted(row.text for row in ranking.ranking) == sorted(TEXTS)
        for row in ranking.ranking:
            assert row.logprobs == pytest.approx(golden["logprobs"][TEXTS.index(row.text)], abs=5e-3), isa


def logits_of(engine: _core.Engine, segments: list) -> np.ndarray:
    """(positions, vocabulary)."""
    data, rows, vocab = engine.logits(segments)
    return np.frombuffer(data, np.float32).reshape(rows, vocab)


def test_every_position_of_two_pictures_is_that_of_the_definition(of: Described, model: kosmos_edge.Model) -> None:
    engine, pictures = model._open.engine, [make_picture(seed, 100, 80) for seed in (1, 2)]
    encoded = [encode(engine, picture) for picture in pictures]
    for picture, embedding in zip(pictures, encoded, strict=True):
        vectors = np.frombuffer(embedding.tobytes(), np.float32).reshape(embedding.shape)
        assert relative_error(vectors, of.definition.encode_image(picture)) < TOLERANCE
    name = "generate from two pictures"
    segments = [(kind, encoded[v] if kind == "image" else v) for kind, v in of.prompts[name]]
    prompt = of.prompt(name, engine.tokenizer, pictures)
    assert engine.prompt_ids(segments) == prompt.ids
    assert relative_error(logits_of(engine, segments), of.definition.logits(prompt)) < TOLERANCE


def test_requantizing(of: Described, path: Path, tmp_path: Path) -> None:
    """The file is whole, smaller, of the same model, and its logits are near those of the definition; of f16 and q8_0,
    which change no name and no layout, each model takes one."""
    for type in sweep.some(["f16", "q8_0", "q4_k_m"], 2, sorted(every()).index(of.architecture)):
        check_requantized(of, path, tmp_path, type)


def check_requantized(of: Described, path: Path, tmp_path: Path, type: str) -> None:
    made = requantize(path, tmp_path / f"{type}.gguf", type=type).output
    assert verify(made) == [] and made.stat().st_size < path.stat().st_size
    assert {name for name, *_ in _core.GgufFile(str(made)).tensors()} == set(of.tiny.weights)
    stored = {dtype for _, dtype, *_ in _core.GgufFile(str(made)).tensors()}
    assert stored & {{"f16": "F16", "q8_0": "Q8_0", "q4_k_m": "Q4_K"}[type]}
    engine, picture = _core.Engine(str(made), threads=1), make_picture(3, 100, 80)
    assert engine.info == _core.model_info(str(path))
    embedding = encode(engine, picture)
    segments = [(kind, embedding if kind == "image" else v) for kind, v in of.prompts["generate"]]
    got = logits_of(engine, segments)
    expected = of.definition.logits(of.prompt("generate", engine.tokenizer, [picture]))
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(got, expected, strict=True)]
    assert np.median(correlation) > {"f16": 0.9999, "q8_0": 0.99, "q4_k_m": 0.7}[type]


def test_stored_types_are_those_of_the_definition_on_the_decoded_weights(of: Described, tmp_path: Path) -> None:
    """float16 with every other model, 8 bits with the rest."""
    for dtype in ["F16", "Q8_0"] if sweep.WHOLE else [("F16", "Q8_0")[sorted(every()).index(of.architecture) % 2]]:
        check_stored(of, tmp_path / f"{dtype}.gguf", dtype)


def check_stored(of: Described, path: Path, dtype: str) -> None:
    write_tiny(path, dtype, tiny=of.tiny)
    file, weights = _core.GgufFile(str(path)), {}
    for name, stored, shape, *_ in file.tensors():
        data = _core.dequantize(stored, file.tensor_data(name), int(np.prod(shape)))
        weights[name] = np.frombuffer(data, np.float32).reshape(shape)
    definition, engine, picture = of.define(of.tiny.metadata, weights), _core.Engine(str(path)), make_picture(5, 90, 40)
    embedding = encode(engine, picture)
    got = np.frombuffer(embedding.tobytes(), np.float32).reshape(embedding.shape)
    # Quantized types may round activations to 8 bits: 1/254 of the largest per block of 32 and product.
    assert relative_error(got, definition.encode_image(picture)) < (0.05 if dtype.startswith("Q") else TOLERANCE)


def test_the_converter_makes_the_file_that_the_engine_reads(of: Described, path: Path, tmp_path: Path) -> None:
    """From a checkpoint in its own layout: the same tensors, the same metadata, the same answer."""
    made = convert(of.write_checkpoint(tmp_path / "checkpoint"), tmp_path / "made.gguf", type="f32").output
    assert verify(made) == []
    ours, theirs = _core.GgufFile(str(path)), _core.GgufFile(str(made))
    shapes = {name: shape for name, _, shape, *_ in ours.tensors()}
    assert {name: shape for name, _, shape, *_ in theirs.tensors()} == shapes
    for name, dtype, *_ in theirs.tensors():
        if dtype == "F32":
            assert theirs.tensor_data(name) == ours.tensor_data(name), name
    expected, found = ours.metadata(), theirs.metadata()
    for key in _core.testing.model_schemas()[of.architecture]:
        key = key["key"]
        if key in expected and not key.startswith(TOLD_BY_THE_FILE) and not key.endswith(".checksum.sha256"):
            assert found[key] == expected[key], key
    picture = make_picture(4, 100, 80)
    positional, named = arguments_of(of.plain, [picture])
    models = [kosmos_edge.load(file, threads=1) for file in (path, made)]
    answers = [getattr(model, of.plain.task)(*positional, **named, max_tokens=6).token_ids for model in models]
    assert answers[0] == answers[1]
