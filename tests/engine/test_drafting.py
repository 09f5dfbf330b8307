"""Tokens that are tried ahead of their turn: fewer passes, the same ids and the same log-probabilities bit for bit."""

import struct
from itertools import pairwise

import pytest
from helpers.api_model import grounded_model
from PIL import Image, ImageDraw

from kosmos_edge import _core, load

GROUNDED = [("tags", "<grounding>"), ("text", "An image of")]
LOCATE = [("tags", "<grounding><phrase>"), ("text", "a red circle"), ("tags", "</phrase>")]


def picture() -> bytes:
    """RGB of 100 x 80 pixels with what is asked for."""
    image = Image.new("RGB", (100, 80), (90, 100, 110))
    ImageDraw.Draw(image).ellipse((30, 15, 75, 60), fill=(220, 40, 40))
    return image.tobytes()


@pytest.fixture(scope="module", params=["grounded", "nano"])
def engine(request) -> _core.Engine:
    return (grounded_model() if request.param == "grounded" else load("nano", threads=2))._open.engine


def answer(engine: _core.Engine, tail, draft: bool, on_token=None, **fields) -> _core.Generation:
    params = _core.GenerateParams()
    for name, value in {"max_tokens": 40, "logprobs": True, "grammar": True, "draft": draft, **fields}.items():
        setattr(params, name, value)
    embedding = engine.encode_image(picture(), 100, 80)
    return engine.generate([("image", embedding), *tail], params, on_token)


def bits(generation: _core.Generation):
    logprobs = struct.pack(f"{len(generation.logprobs)}f", *generation.logprobs)
    return generation.token_ids, logprobs, generation.finish_reason, generation.stop_string


@pytest.mark.parametrize("tail", [GROUNDED, LOCATE], ids=["caption", "locate"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"logprobs": False},
        {"no_repeat_ngram_size": 3},
        {"temperature": 0.8, "seed": 2},
        {"temperature": 3.0, "seed": 3},
        {"stop": ["</object>"]},
        {"stop": ["<object>"]},
    ],
)
def test_drafting_changes_nothing_but_the_number_of_passes(engine, tail, fields) -> None:
    plain, drafted = answer(engine, tail, False, **fields), answer(engine, tail, True, **fields)
    assert bits(drafted) == bits(plain)
    assert plain.passes == len(plain.token_ids) >= drafted.passes
    if not fields:
        assert drafted.passes < plain.passes


def test_the_answer_may_end_at_any_token(engine) -> None:
    whole = answer(engine, LOCATE, False)
    for most in range(1, len(whole.token_ids) + 1):
        cut = answer(engine, LOCATE, True, max_tokens=most)
        assert bits(cut)[:2] == (whole.token_ids[:most], bits(whole)[1][: 4 * most])
        seen = []

        def until(token_id: int, logprob: float, most=most, seen=seen) -> bool:
            seen.append(token_id)
            return len(seen) < most

        stopped = answer(engine, LOCATE, True, until)
        assert seen == stopped.token_ids == whole.token_ids[:most]


def test_wrong_drafts_are_forgotten() -> None:
    """A sampled answer departs from what is likely: tokens come alone there, and what follows is as without drafts."""
    engine = grounded_model()._open.engine
    tokenizer = engine.tokenizer
    wrong = 0
    for seed in range(12):
        fields = {"temperature": 2.5, "seed": seed, "max_tokens": 60}
        plain, drafted = answer(engine, GROUNDED, False, **fields), answer(engine, GROUNDED, True, **fields)
        assert bits(drafted) == bits(plain)
        ids = [*plain.prompt_ids, *plain.token_ids]
        phrase_end, object_begin = tokenizer.find("</phrase>"), tokenizer.find("<object>")
        wrong += sum(a == phrase_end and b != object_begin for a, b in pairwise(ids))
    assert wrong > 0


def test_the_rest_of_a_choice_is_one_pass(engine) -> None:
    choices = ["a red circle on a black square", "two"]
    fields = {"grammar": False, "choices": choices[:1]}
    plain = answer(engine, GROUNDED, False, **fields)
    drafted = answer(engine, GROUNDED, True, **fields)
    assert bits(drafted) == bits(plain) and plain.finish_reason == "choice"
    assert drafted.passes <= 1 + len(plain.token_ids) // 8 < len(plain.token_ids)
    both = {**fields, "choices": choices}
    assert bits(answer(engine, GROUNDED, True, **both)) == bits(answer(engine, GROUNDED, False, **both))


@pytest.mark.parametrize("size", [1, 3, 8])
def test_drafts_in_a_batch(engine, size) -> None:
    embedding = engine.encode_image(picture(), 100, 80)
    tails = [GROUNDED, LOCATE, [("text", "Question: what? Answer:")]] * 3
    alone = [answer(engine, tail, False) for tail in tails]
    batch, out, waiting, passes = _core.Batch(engine, size), {}, list(tails), 0
    while waiting or batch.open:
        if waiting and batch.open < size:
            params = _core.GenerateParams()
            params.max_tokens, params.logprobs, params.grammar = 40, True, True
            batch.add([("image", embedding), *waiting.pop(0)], params)
        for finished in batch.step():
            generation = finished.result()
            out[finished.key] = bits(generation)
            passes += generation.passes
    assert [out[key] for key in range(len(tails))] == [bits(generation) for generation in alone]
    assert passes < sum(len(generation.token_ids) for generation in alone)
