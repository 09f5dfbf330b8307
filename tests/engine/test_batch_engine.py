"""_core.Batch: every answer of a batch has the bits that it has alone, whatever happens to its neighbours."""

import random
import struct

import numpy as np
import pytest
from helpers.api_model import grounded_model, tiny_model

from kosmos_edge import Cancelled, InvalidRequest, _core

PICTURES = 3


@pytest.fixture(scope="module", params=["tiny", "grounded"])
def engine(request) -> _core.Engine:
    return (tiny_model() if request.param == "tiny" else grounded_model())._open.engine


def params(**fields) -> _core.GenerateParams:
    out = _core.GenerateParams()
    for name, value in {"max_tokens": 12, "logprobs": True, **fields}.items():
        setattr(out, name, value)
    return out


def requests(engine: _core.Engine, count: int = 14):
    """Prompts of many lengths, with and without pictures, and parameters of every kind."""
    rng = random.Random(7)
    images = [
        engine.encode_image(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8), 50, 40)
        for seed in range(PICTURES)
    ]
    kinds = [
        {"grammar": True},
        {},
        {"temperature": 0.9, "seed": 3},
        {"temperature": 1.5, "seed": 4, "top_k": 5, "grammar": True},
        {"choices": ["a dog", "a dog on a mat", "cat"]},
        {"max_tokens": 1},
        {"max_tokens": 30, "no_repeat_ngram_size": 2, "logprobs": False},
        {"stop": ["e"]},
    ]
    out = []
    for number in range(count):
        words = " ".join(rng.choice(["an", "image", "of", "dog", "Question:"]) for _ in range(rng.randrange(1, 9)))
        prompt = [("image", images[number % PICTURES])] if number % 4 else []
        if number % 5 == 1:
            prompt += [("image", images[(number + 1) % PICTURES])]
        out.append(([*prompt, ("tags", "<grounding>"), ("text", words)], params(**kinds[number % len(kinds)])))
    return out


def bits(generation: _core.Generation):
    logprobs = struct.pack(f"{len(generation.logprobs)}f", *generation.logprobs)
    return generation.token_ids, logprobs, generation.finish_reason, generation.stop_string, generation.prompt_ids


def run(batch: _core.Batch, given) -> dict:
    """Adds as long as there is room, one a step; the answers' bits, or exceptions, by key."""
    waiting, out = list(given), {}
    while waiting or batch.open:
        if waiting and batch.open < batch.size:
            batch.add(*waiting.pop(0))
        for finished in batch.step():
            try:
                out[finished.key] = bits(finished.result())
            except Exception as error:
                out[finished.key] = error
    return out


@pytest.mark.parametrize("size", [1, 2, 3, 8, 16])
def test_an_answer_has_the_same_bits_in_a_batch(engine, size):
    given = requests(engine)
    alone = [bits(engine.generate(*request)) for request in given]
    assert len({len(a[0]) for a in alone}) > 3  # mixed lengths, or this says little
    batch = _core.Batch(engine, size)
    assert [answer for _, answer in sorted(run(batch, given).items())] == alone
    again = run(batch, given)  # in the caches of the first round
    assert [answer for _, answer in sorted(again.items())] == alone and min(again) == len(given)


def test_all_prompts_at_once(engine):
    given = requests(engine, 6)
    batch = _core.Batch(engine, 6)
    for request in given:
        batch.add(*request)
    assert [a for _, a in sorted(run(batch, []).items())] == [bits(engine.generate(*r)) for r in given]


def test_an_error_of_one_leaves_the_others(engine):
    given = requests(engine, 8)
    alone = [bits(engine.generate(*request)) for request in given]
    token = _core.CancelToken()
    seen = []

    def fails(token_id, logprob):
        raise ZeroDivisionError("of the callback")

    def cancels(token_id, logprob):
        token.cancel()

    given[1] = (*given[1], fails)
    given[3] = (*given[3], cancels, token)
    given[6] = (*given[6], lambda token_id, logprob: seen.append(token_id))
    out = run(_core.Batch(engine, 4), given)
    assert isinstance(out[1], ZeroDivisionError) and isinstance(out[3], Cancelled)
    assert [out[k] for k in (0, 2, 4, 5, 6, 7)] == [alone[k] for k in (0, 2, 4, 5, 6, 7)]
    assert seen == alone[6][0]


def test_a_callback_ends_its_own_answer(engine):
    (prompt, options), *rest = requests(engine, 3)
    out = run(_core.Batch(engine, 3), [(prompt, options, lambda *_: False), *rest])
    assert out[0][0] == bits(engine.generate(prompt, options))[0][:1] and out[0][2] == "callback"
    assert [out[1], out[2]] == [bits(engine.generate(*request)) for request in rest]


def test_a_cancelled_step_empties_the_batch(engine):
    given = requests(engine, 3)
    batch = _core.Batch(engine, 3)
    for request in given:
        batch.add(*request)
    batch.step()
    token = _core.CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        batch.step(token)
    assert batch.open == 0
    assert [a for _, a in sorted(run(batch, given).items())] == [bits(engine.generate(*r)) for r in given]


def test_refusals(engine):
    for size in (0, -1, 257):
        with pytest.raises(InvalidRequest, match=f"1..256, got {size}"):
            _core.Batch(engine, size)
    batch = _core.Batch(engine, 1)
    with pytest.raises(InvalidRequest, match="empty"):
        batch.step()
    prompt = [("text", "an image of")]
    with pytest.raises(InvalidRequest, match="num_beams 1, got 2"):
        batch.add(prompt, params(num_beams=2))
    with pytest.raises(InvalidRequest, match="max_tokens"):
        batch.add(prompt, params(max_tokens=0))
    batch.add(prompt, params())
    with pytest.raises(InvalidRequest, match="room for 1"):
        batch.add(prompt, params())
    assert batch.open == 1
    batch.clear()
    assert batch.open == 0 and run(batch, [(prompt, params())])[1] == bits(engine.generate(prompt, params()))
