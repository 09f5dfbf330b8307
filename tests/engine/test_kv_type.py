"""Models with keys and values of 8 bits: near the float answers, the same bits in every way that an answer can be
computed, half the memory; and how the choice reaches the engine."""

import functools
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.api_model import long_file, picture, tiny_file
from helpers.tiny import TinyConfig, write_tiny

from kosmos_edge import InvalidRequest, Model, _core, load

NANO = Path(__file__).resolve().parents[2] / "kosmos_edge" / "data" / "nano-q4_k_m.gguf"
FILES = {"tiny": tiny_file, "nano": lambda: NANO}
SHORT = {"max_tokens": 8, "logprobs": True}


@functools.cache
def model_of(name: str, kv_type: str = "q8_0") -> Model:
    return load(FILES[name](), threads=1, kv_type=kv_type)


@pytest.fixture(params=FILES)
def model(request: pytest.FixtureRequest) -> Model:
    return model_of(request.param)


def bits(generation: _core.Generation) -> tuple:
    return generation.token_ids, struct.pack(f"{len(generation.logprobs)}f", *generation.logprobs)


def params(**fields) -> _core.GenerateParams:
    out = _core.GenerateParams()
    for name, value in {"max_tokens": 8, "logprobs": True, **fields}.items():
        setattr(out, name, value)
    return out


def logits_of(engine: _core.Engine, prompt: list) -> np.ndarray:
    values, rows, vocab = engine.logits(prompt)
    return np.frombuffer(values, np.float32).reshape(rows, vocab)


# ---- what it costs in accuracy, what it saves


@pytest.mark.parametrize("name,bound", [("tiny", 0.08), ("nano", 0.03)])
def test_logits_are_near_those_of_float_keys_and_values(name: str, bound: float) -> None:
    """Largest difference over largest magnitude per row, all rows of a prompt with a picture."""
    text = ("text", "Question: how many red circles are there on the table near the window? Answer: two")
    found = []
    for kv_type in ("f16", "q8_0"):
        engine = model_of(name, kv_type)._open.engine
        image = engine.encode_image(picture().tobytes(), 100, 80)
        found.append(logits_of(engine, [("image", image), text]))
    errors = np.abs(found[1] - found[0]).max(axis=1) / np.abs(found[0]).max(axis=1)
    assert 1e-5 < errors.max() < bound


@pytest.mark.parametrize("heads", [2, 4, 8])
def test_they_cost_less_than_weights_of_8_bits(tmp_path: Path, heads: int) -> None:
    """A small preset, heads of 128, 64, 32: root mean squares over all logits, against float weights and float32 keys
    and values. Random weights amplify what is rounded; measured 0.041 to 0.050 for keys and values, 0.092 to 0.109 for
    weights."""
    config = TinyConfig(layers=4, width=256, ff_width=512, heads=heads, vision_layers=1, context=256)
    ids = [("ids", [5 + i * 7 % 300 for i in range(120)])]
    for dtype in ("F32", "Q8_0"):
        write_tiny(tmp_path / f"{dtype}.gguf", dtype, seed=heads, config=config)

    def logits(dtype: str, kv_type: str) -> np.ndarray:
        return logits_of(_core.Engine(str(tmp_path / f"{dtype}.gguf"), threads=1, kv_type=kv_type), ids)

    exact = logits("F32", "f16")

    def error(found: np.ndarray) -> float:
        return float(np.sqrt(((found - exact) ** 2).mean() / (exact**2).mean()))

    kept, weights, both = error(logits("F32", "q8_0")), error(logits("Q8_0", "f16")), error(logits("Q8_0", "q8_0"))
    assert 1e-4 < kept < 0.08 and kept < 0.7 * weights and both < 1.3 * weights


def test_what_a_token_takes() -> None:
    tiny = {kv_type: model_of("tiny", kv_type) for kv_type in ("f16", "q8_0")}
    assert (tiny["f16"].kv_type, tiny["q8_0"].kv_type) == ("f32", "q8_0")  # a file of floats
    assert tiny["f16"].kv_bytes_per_token == 2 * 2 * 256 * 4  # layers, keys and values, width
    assert tiny["q8_0"].kv_bytes_per_token == 2 * 2 * (256 + 256 // 32 * 2)
    assert model_of("nano", "f16").kv_type == "f16"
    assert model_of("nano").kv_bytes_per_token * 32 == model_of("nano", "f16").kv_bytes_per_token * 17


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
@pytest.mark.skipif("KOSMOS_EDGE_SANITIZE" in os.environ, reason="a sanitizer keeps memory that was freed")
def test_an_answer_of_4_000_tokens() -> None:
    """It runs to its end, and what the process grows by is what the tokens take, not the whole context's."""
    code = """
import resource, sys
from kosmos_edge import _core
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
engine = _core.Engine(sys.argv[1], threads=1, kv_type=sys.argv[2], prefix_bytes=0)
p = _core.GenerateParams()
p.no_repeat_ngram_size, p.grammar, most = 0, False, 0
def run(tokens):
    global most
    p.max_tokens = tokens
    def seen(*_):
        global most
        most = max(most, resident())
    return engine.generate([("ids", [5])], p, seen)
run(20)
before, most = resident(), 0
answer = run(4000)
print(len(answer.token_ids), engine.kv_position_bytes, most - before)
"""
    grown = {}
    for kv_type in ("f16", "q8_0"):
        command = [sys.executable, "-c", code, str(long_file()), kv_type]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        tokens, each, grown[kv_type] = map(int, out.split())
        assert tokens == 4000 and 3700 * each <= grown[kv_type] <= 4300 * each + (4 << 20), (kv_type, grown)
    assert grown["q8_0"] < 0.5 * grown["f16"]  # float32 there: 0.27 of it, and what the rest of an answer takes


# ---- the same bits, however it is computed


def test_an_answer_has_the_same_bits_in_a_batch(model: Model) -> None:
    engine = model._open.engine
    images = [engine.encode_image(picture(seed).tobytes(), 100, 80) for seed in range(2)]
    words = ["a dog", "an image of", "Question: how many? Answer:", "It is", "two red circles and"]
    given = [
        ([("image", images[i % 2])] * (i % 3 > 0) + [("text", text)], params(max_tokens=4 + 5 * i))
        for i, text in enumerate(words)
    ]
    alone = [bits(engine.generate(*request)) for request in given]
    batch = _core.Batch(engine, 3)  # smaller than the requests: caches are used again
    waiting, out = list(given), {}
    while waiting or batch.open:
        if waiting and batch.open < batch.size:
            batch.add(*waiting.pop(0))
        for finished in batch.step():
            out[finished.key] = bits(finished.result())
    assert [answer for _, answer in sorted(out.items())] == alone


def test_kept_positions_change_no_bit(model: Model) -> None:
    """Questions about one encoded picture, a chat, few-shot examples."""
    encoded = model.encode(picture())
    for question in ("How many circles are there?", "How many squares?", "How many circles are there?"):
        fresh, again = (model.ask(image, question, **SHORT) for image in (picture(), encoded))
        assert fresh.token_ids == again.token_ids
        assert np.array(fresh.logprobs).tobytes() == np.array(again.logprobs).tobytes()
    assert again.timings.reused_tokens > model.image_tokens
    assert encoded.kept_bytes >= encoded.kept_positions * model.kv_bytes_per_token
    chat = model.chat(picture())
    first, second = chat.ask("How many?", **SHORT), chat.ask("Which colour?", **SHORT)
    again = model.chat(picture())
    assert again.ask("How many?", **SHORT).token_ids == first.token_ids
    assert again.ask("Which colour?", **SHORT).token_ids == second.token_ids
    shots = [(picture(2), "two circles."), (picture(3), "a dog.")]
    one, two = (model.caption(picture(), examples=shots, **SHORT) for _ in range(2))
    assert one.token_ids == two.token_ids


def test_beams_and_scores_copy_caches(model: Model) -> None:
    """One beam is greedy decoding; a ranking agrees with the log-probabilities of what was said."""
    engine = model._open.engine
    prompt = [("ids", [5, 6, 7, 8, 9])]
    said = engine.generate(prompt, params(max_tokens=6, no_repeat_ngram_size=0))
    scored = engine.score(prompt, [[("ids", said.token_ids)], [("ids", [9, 8, 7])]])
    assert np.allclose(scored.continuations[0].logprobs, said.logprobs, atol=1e-6)
    assert scored.continuations[0].greedy
    beams = engine.generate(prompt, params(max_tokens=6, num_beams=3))
    again = engine.score(prompt, [[("ids", beams.token_ids)]]).continuations[0]
    assert np.allclose(again.logprobs, beams.logprobs, atol=1e-5)
    assert bits(engine.generate(prompt, params(max_tokens=6, num_beams=3))) == bits(beams)


# ---- the option


@pytest.mark.parametrize("bad", ["Q8_0", "f32", "", "q8", "int8", None, 8, b"q8_0", ["q8_0"]])
def test_load_refuses_what_is_no_type(bad: object) -> None:
    with pytest.raises(InvalidRequest, match=r"kv_type: expected 'f16' or 'q8_0', got"):
        load(tiny_file(), kv_type=bad)


def test_the_engine_refuses_what_is_no_type() -> None:
    with pytest.raises(InvalidRequest, match=r'kv_type: expected f16 or q8_0, got "q8_0\\x01"'):
        _core.Engine(str(tiny_file()), kv_type="q8_0\x01")


def test_the_default_is_f16() -> None:
    engine = _core.Engine(str(NANO), threads=1)
    assert engine.kv_type == "f16" and load(NANO, threads=1).kv_type == "f16"
