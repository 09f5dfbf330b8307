"""The engine in float32 gives what transformers gave: image embeddings, logits of every step, ids; on every ISA.

The goldens are recorded (make_goldens.py); a second seed is held to the numpy reference, which is held to the goldens.
"""

import numpy as np
import pytest
from helpers.golden_cases import load_arrays, load_json, relative_error
from helpers.reference import Prompt, Reference
from helpers.tiny import make_picture, make_tiny, write_tiny

from kosmos_edge import _core

TOLERANCE = 1e-4  # of the largest magnitude in each row (golden_cases.relative_error): the project's promise

ANSWERS = load_json("answers")["cases"]
ARRAYS = load_arrays()


@pytest.fixture(scope="module", params=_core.available_isas())
def engine(request, tmp_path_factory) -> _core.Engine:
    """The tiny model of the goldens, in float32, on one instruction set."""
    path = tmp_path_factory.mktemp("goldens") / "tiny.gguf"
    write_tiny(path, "F32", seed=0)
    engine = _core.Engine(str(path), isa=request.param)
    assert engine.isa == request.param
    return engine


def encode(engine: _core.Engine, seed: int, width: int, height: int) -> _core.ImageEmbedding:
    """Encode a test picture."""
    return engine.encode_image(make_picture(seed, width, height).tobytes(), width, height)


def segments_of(engine: _core.Engine, record: dict) -> list[tuple[str, object]]:
    """The golden's segments with encoded pictures."""
    images = [encode(engine, *p) for p in record["pictures"]]
    as_engine = {"image": lambda v: images[v], "boxes": lambda v: [tuple(c) for c in v], "tags": lambda v: v}
    return [(kind, as_engine[kind](value)) for kind, value in record["segments"]]


def params_of(record: dict) -> _core.GenerateParams:
    """The golden's decoding parameters."""
    params = _core.GenerateParams()
    params.max_tokens = record["max_tokens"]
    params.no_repeat_ngram_size = record["ngram"]
    params.num_beams = record["beams"]
    params.length_penalty = record["length_penalty"]
    params.logprobs = True
    return params


def logits_of(engine: _core.Engine, segments: list[tuple[str, object]]) -> np.ndarray:
    """(positions, vocab)."""
    data, rows, vocab = engine.logits(segments)
    return np.frombuffer(data, np.float32).reshape(rows, vocab)


def test_image_embeddings(engine: _core.Engine) -> None:
    """Picture vectors equal transformers'."""
    for name in (n for n in ARRAYS if n.startswith("embedding/")):
        _, seed, size = name.split("/")
        embedding = encode(engine, int(seed), *(int(v) for v in size.split("x")))
        got = np.frombuffer(embedding.tobytes(), np.float32).reshape(embedding.shape)
        assert relative_error(got, ARRAYS[name]) < TOLERANCE, name


@pytest.mark.parametrize("record", ANSWERS, ids=lambda r: r["name"])
def test_answers(engine: _core.Engine, record: dict) -> None:
    """Prompt ids, generated ids, log-probability of every step, and logits of the whole sequence."""
    segments = segments_of(engine, record)
    made = engine.generate(segments, params_of(record))
    assert made.prompt_ids == record["prompt_ids"]
    assert made.token_ids == record["ids"]
    assert made.finish_reason == ("stop" if record["ids"][-1] == 2 else "length")
    expected = ARRAYS[f"logits/{record['name']}"]
    # A log-probability is a difference of two numbers of the size of a logit.
    assert np.abs(np.array(made.logprobs) - record["logprobs"]).max() < 2 * TOLERANCE * np.abs(expected).max()
    logits = logits_of(engine, [*segments, ("ids", record["ids"][:-1])])
    assert relative_error(logits[record["logit_rows"]], expected) < TOLERANCE


def test_second_seed_equals_the_numpy_reference(tmp_path) -> None:
    """Other weights and dimensions: 5 layers of unequal widths, 16 latents, a 70-pixel picture of 10-pixel patches."""
    from helpers.tiny import TinyConfig

    config = TinyConfig(
        layers=3, width=192, ff_width=320, heads=6, latents=16, vision_layers=4, vision_width=128, vision_ff_width=160,
        vision_heads=2, image_size=70, patch_size=10, context=128,
    )  # fmt: skip
    tiny = write_tiny(tmp_path / "other.gguf", "F32", seed=11, config=config)
    engine = _core.Engine(str(tmp_path / "other.gguf"))
    reference = Reference(tiny.metadata, tiny.weights)
    picture = make_picture(5, 90, 40)
    expected = reference.encode_image(picture)
    embedding = engine.encode_image(picture.tobytes(), 90, 40)
    got = np.frombuffer(embedding.tobytes(), np.float32).reshape(embedding.shape)
    assert relative_error(got, expected) < TOLERANCE
    tail = [tiny.vocabulary.id(p) for p in ("<grounding>", "▁An", "▁image", "▁of")]
    prompt = reference.prompt([expected, tail, expected, tail])
    answer = reference.generate(prompt, max_tokens=64, no_repeat_ngram_size=3)
    assert answer.margin > 1e-3, "choose another seed: rounding could change this answer"
    segments = [("image", embedding), ("ids", tail)] * 2
    params = _core.GenerateParams()
    params.max_tokens, params.no_repeat_ngram_size, params.logprobs = 64, 3, True
    made = engine.generate(segments, params)
    assert made.prompt_ids == prompt.ids
    assert made.token_ids == answer.ids
    full = reference.logits(Prompt(prompt.ids + answer.ids, prompt.vectors))
    assert relative_error(logits_of(engine, [*segments, ("ids", answer.ids)]), full) < TOLERANCE


@pytest.mark.parametrize("dtype", ["F16", "BF16", "Q8_0", "Q6_K", "Q4_K"])
def test_stored_types_equal_the_reference_on_the_decoded_weights(tmp_path, dtype: str) -> None:
    """A file of type X answers as the reference with X's decoded weights, up to the rounding of activations."""
    path = tmp_path / f"{dtype}.gguf"
    write_tiny(path, dtype, seed=0)
    engine = _core.Engine(str(path))
    reference = Reference.from_gguf(str(path))
    picture = make_picture(5, 90, 40)
    expected = reference.encode_image(picture)
    embedding = engine.encode_image(picture.tobytes(), 90, 40)
    got = np.frombuffer(embedding.tobytes(), np.float32).reshape(embedding.shape)
    # Float types are computed in float32. Quantized ones may round activations to 8 bits: 1/254 of the largest per
    # block of 32 and product, which these few layers amplify; the correlation bound below catches a wrong layer.
    quantized = dtype.startswith("Q")
    assert relative_error(got, expected) < (0.05 if quantized else TOLERANCE)
    prompt = reference.prompt([expected, [5, 6, 7, 8, 300]])
    want = reference.logits(prompt)
    have = logits_of(engine, [("image", embedding), ("ids", [5, 6, 7, 8, 300])])
    if quantized:
        correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(have, want, strict=True)]
        assert min(correlation) > 0.98
    else:
        assert relative_error(have, want) < TOLERANCE


def test_scores_equal_the_reference(engine: _core.Engine) -> None:
    """Log-probabilities of given continuations after a picture."""
    tiny = make_tiny(seed=0)
    reference = Reference(tiny.metadata, tiny.weights)
    picture = make_picture(8, 50, 50)
    question = [5, 6, 300]
    prompt = reference.prompt([reference.encode_image(picture), question])
    continuations = [[20, 21], [22], [301, 302, 303, 5]]
    segments = [("image", engine.encode_image(picture.tobytes(), 50, 50)), ("ids", question)]
    scored = engine.score(segments, [[("ids", c)] for c in continuations])
    for continuation, row in zip(continuations, scored.continuations, strict=True):
        assert row.token_ids == continuation
        assert np.allclose(row.logprobs, reference.score(prompt, continuation), atol=5e-3)
