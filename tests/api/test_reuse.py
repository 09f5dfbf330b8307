"""Keys and values kept with an encoded image: the same bits as without, counted honestly, bounded, safe to share."""

import functools
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.api_model import grounded_file, picture, tiny_file

from kosmos_edge import Cancelled, InvalidRequest, Model, Result, load
from kosmos_edge._native import _core

NANO = Path(__file__).resolve().parents[2] / "kosmos_edge" / "data" / "nano-q4_k_m.gguf"
QUESTIONS = ["How many circles are there?", "What colour is the square?", "Is it a dog?", "How many", "What is it?"]
OPENING = 2  # <s><image>, computed once per model
SHORT = {"max_tokens": 6, "logprobs": True}


@functools.cache
def model_of(kind: str) -> Model:
    """float: the tiny model, float32 keys and values. quantized: nano, float16 keys and values, two threads."""
    return load(tiny_file(), threads=1) if kind == "float" else load(NANO, threads=2)


@pytest.fixture(params=["float", "quantized"])
def model(request: pytest.FixtureRequest) -> Model:
    return model_of(request.param)


def same(one: Result, other: Result) -> None:
    """Every token and every bit of its log-probability."""
    assert one.token_ids == other.token_ids and one.text == other.text
    assert np.array(one.logprobs).tobytes() == np.array(other.logprobs).tobytes()


def prompt_of(model: Model, embedding: _core.ImageEmbedding, question: str) -> list[int]:
    text = f"Question: {question} Answer:"
    return model._open.engine.prompt_ids([("image", embedding), ("text", text)])


def common(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def test_questions_about_one_picture_compute_only_what_is_new(model: Model) -> None:
    encoded = model.encode(picture())
    assert encoded.kept_positions == 0 and encoded.kept_bytes == 0
    kept: list[int] = []
    for question in QUESTIONS + QUESTIONS[:1]:
        fresh = model.ask(picture(), question, **SHORT)
        again = model.ask(encoded, question, **SHORT)
        same(fresh, again)
        prompt = prompt_of(model, encoded.embedding, question)
        assert fresh.timings.reused_tokens <= OPENING
        assert again.timings.reused_tokens == (min(common(kept, prompt), len(prompt) - 1) if kept else OPENING)
        assert again.timings.prompt_tokens == fresh.timings.prompt_tokens == len(prompt)
        assert not kept or again.timings.reused_tokens >= model.image_tokens + 3  # <s><image> ... </image>
        kept = [*prompt, *again.token_ids[:-1]]  # the last token was never fed to the decoder
        assert encoded.kept_positions == len(kept)
    encoded.forget()
    assert encoded.kept_positions == 0 and encoded.kept_bytes == 0
    again = model.ask(encoded, QUESTIONS[0], **SHORT)
    assert again.timings.reused_tokens == OPENING
    same(again, model.ask(picture(), QUESTIONS[0], **SHORT))


def test_every_verb_profits(model: Model) -> None:
    encoded, least = model.encode(picture()), model.image_tokens + 3
    model.caption(encoded, **SHORT)
    calls = [
        lambda image: model.caption(image, ground=True, **SHORT),
        lambda image: model.locate(image, "a dog", **SHORT),
        lambda image: model.describe(image, (0.1, 0.1, 0.6, 0.5), normalized=True, **SHORT),
        lambda image: model.caption(image, num_beams=3, **SHORT),
        lambda image: model.ask(image, "Is it?", choices=["yes", "no", "no dog"], **SHORT),
        lambda image: model.caption(image, temperature=1.5, seed=7, **SHORT),
        lambda image: list(model.caption(image, stream=True, **SHORT))[-1].result,
    ]
    for call in calls:
        fresh, again = call(picture()), call(encoded)
        same(fresh, again)
        assert fresh.timings.reused_tokens <= OPENING and again.timings.reused_tokens >= least
    fresh, again = (model.score(image, ["a dog", "two cats and a dog"]) for image in (picture(), encoded))
    assert [row.logprobs for row in fresh.ranking] == [row.logprobs for row in again.ranking]
    assert fresh.timings.reused_tokens == OPENING and again.timings.reused_tokens >= least
    assert again.timings.to_dict()["reused_tokens"] == again.timings.reused_tokens


def test_a_conversation_keeps_its_answers(model: Model) -> None:
    encoded = model.encode(picture())
    prompt: list[tuple[str, object]] = [("image", encoded.embedding)]
    fresh: list[tuple[str, object]] = [("image", model._open.engine.encode_image(picture(), 100, 80))]
    engine, params, fed = model._open.engine, _core.GenerateParams(), 0
    params.max_tokens, params.logprobs = 5, True
    for question in QUESTIONS:
        prompt.append(("text", question))
        fresh.append(("text", question))
        one, other = engine.generate(prompt, params), engine.generate(fresh, params)
        assert one.token_ids == other.token_ids and one.logprobs == other.logprobs
        assert other.reused <= OPENING and (one.reused == fed if fed else one.reused <= OPENING)
        fed = len(one.prompt_ids) + len(one.token_ids) - 1
        prompt.append(("ids", one.token_ids))
        fresh.append(("ids", one.token_ids))


def test_examples_are_computed_once_for_many_pictures(model: Model) -> None:
    shots = [(model.encode(picture(seed)), f"a dog {seed}") for seed in (1, 2)]
    plain = [(picture(seed), f"a dog {seed}") for seed in (1, 2)]
    for seed in (3, 4, 5):
        again = model.caption(picture(seed), examples=shots, **SHORT)
        same(again, model.caption(picture(seed), examples=plain, **SHORT))
        # Everything up to the last picture's first row: its <image> has the same id, its rows are others.
        if seed > 3:
            assert again.timings.reused_tokens == model_prefix(model, shots)
    assert shots[1][0].kept_positions == 0  # the first picture keeps for all


def model_prefix(model: Model, shots: list) -> int:
    """Positions before the rows of a picture that follows the examples."""
    segments: list[tuple[str, object]] = []
    for encoded, caption in shots:
        segments += [("image", encoded.embedding), ("text", f"An image of {caption}")]
    return len(model._open.engine.prompt_ids(segments)) + 1


def test_another_picture_is_never_taken_for_the_kept_one(model: Model) -> None:
    """Same ids everywhere, other rows: another picture, another encoding of the same one, tokens spelt like rows."""
    engine = model._open.engine
    params = _core.GenerateParams()
    params.max_tokens, params.logprobs = 4, True
    first = engine.encode_image(picture(), 100, 80, keep=True)
    second = [engine.encode_image(picture(seed), 100, 80, keep=True) for seed in (1, 2, 1)]
    tail = ("text", "An image of")
    ids = engine.prompt_ids([("image", first)])
    spelt = [("ids", ids[1:]), tail]
    prompts = [[("image", first), ("image", other), tail] for other in second]
    prompts += [[("image", first), *spelt], [("image", first), ("image", first), tail]]
    before = len(ids)
    for number, prompt in enumerate(prompts):
        got = engine.generate(prompt, params)
        fresh = engine.encode_image(picture(), 100, 80)
        want = engine.generate([(kind, fresh if value is first else value) for kind, value in prompt], params)
        assert got.token_ids == want.token_ids and got.logprobs == want.logprobs
        assert got.reused == before + 1 or number == 0  # the second <image> is still common
    del second, prompts, prompt
    fresh = engine.encode_image(picture(3), 100, 80)  # may lie where a freed one lay
    assert engine.generate([("image", first), ("image", fresh), tail], params).reused == before + 1


def test_threads_share_an_encoded_image(model: Model) -> None:
    want = [model.ask(picture(), question, **SHORT) for question in QUESTIONS]
    encoded, start = model.encode(picture()), threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for step in range(20):
            at = (number + step) % len(QUESTIONS)
            same(model.ask(encoded, QUESTIONS[at], **SHORT), want[at])
            if number == 0 and step % 8 == 0:
                encoded.forget()
            if number == 1 and step % 4 == 0:  # others join and leave the budget meanwhile
                same(model.ask(model.encode(picture()), QUESTIONS[at], **SHORT), want[at])

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, number) for number in range(8)]:
            done.result()


def test_a_call_that_fails_leaves_nothing_half_filled(model: Model) -> None:
    engine, params = model._open.engine, _core.GenerateParams()
    params.max_tokens, params.logprobs = 5, True
    embedding = engine.encode_image(picture(), 100, 80, keep=True)
    prompt = [("image", embedding), ("text", "An image of")]
    want = engine.generate([("image", engine.encode_image(picture(), 100, 80)), prompt[1]], params)
    token = _core.CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        engine.generate(prompt, params, None, token)
    assert embedding.kept_positions == 0

    def stop(_id: int, _logprob: float) -> bool:
        raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="own"):
        engine.generate(prompt, params, stop)
    assert embedding.kept_positions == len(want.prompt_ids)  # all of it was computed
    got = engine.generate(prompt, params)
    assert got.reused == len(want.prompt_ids) - 1
    assert got.token_ids == want.token_ids and got.logprobs == want.logprobs


def test_memory_is_bounded_and_the_oldest_gives_way() -> None:
    engine = _core.Engine(str(tiny_file()), threads=1)
    params = _core.GenerateParams()
    params.max_tokens = 1

    def use(engine: _core.Engine, embedding: _core.ImageEmbedding, words: str = "An image of") -> int:
        return engine.generate([("image", embedding), ("text", words)], params).reused

    one = engine.encode_image(picture(), 100, 80, keep=True)
    assert use(engine, one) == 0
    each, positions = one.kept_bytes, one.kept_positions
    assert each > 0 and positions > 0

    small = _core.Engine(str(tiny_file()), threads=1, prefix_bytes=2 * each)
    a, b, c = (small.encode_image(picture(seed), 100, 80, keep=True) for seed in range(3))
    for embedding in (a, b, a, c):
        use(small, embedding)
        assert sum(e.kept_bytes for e in (a, b, c)) <= 2 * each
    assert [e.kept_positions for e in (a, b, c)] == [positions, 0, positions]  # b was used longest ago
    assert use(small, a) == positions - 1 and use(small, b) == OPENING
    del a, c
    assert use(small, b) == positions - 1  # what is gone takes no part of the budget

    tight = _core.Engine(str(tiny_file()), threads=1, prefix_bytes=each // 2)
    part = tight.encode_image(picture(), 100, 80, keep=True)
    assert use(tight, part) == 0 and 0 < part.kept_positions < positions
    assert use(tight, part) == part.kept_positions
    none = _core.Engine(str(tiny_file()), threads=1, prefix_bytes=0)
    without = none.encode_image(picture(), 100, 80, keep=True)
    assert use(none, without) == use(none, without) == without.kept_bytes == 0


def test_only_encoded_images_keep_and_load_says_how_much() -> None:
    model = load(tiny_file(), threads=1, prefix_cache_mb=0)
    encoded = model.encode(picture())
    assert model.caption(encoded, **SHORT).timings.reused_tokens == 0 and encoded.kept_bytes == 0
    with pytest.raises(InvalidRequest, match="prefix_cache_mb"):
        load(tiny_file(), prefix_cache_mb=-1)
    engine = model_of("float")._open.engine
    plain = engine.encode_image(picture(), 100, 80)
    params = _core.GenerateParams()
    params.max_tokens = 1
    assert engine.generate([("image", plain)], params).reused <= OPENING and plain.kept_bytes == 0
    plain.forget()


def test_what_stands_before_a_picture_is_computed_once_for_all_pictures() -> None:
    sharing = _core.Engine(str(NANO), threads=2)
    plain = _core.Engine(str(NANO), threads=2, prefix_bytes=0)
    params = _core.GenerateParams()
    params.max_tokens, params.logprobs = 5, True
    lead = [("text", "Two dogs")]
    before = len(sharing.prompt_ids(lead)) + 1
    for number, (opening, words) in enumerate([([], 2), ([], 2), (lead, before), (lead, before), ([], 2), ([], 2)]):
        got, want = (
            engine.generate(
                [*opening, ("image", engine.encode_image(picture(number), 100, 80)), ("text", "An image of")], params
            )
            for engine in (sharing, plain)
        )
        assert got.token_ids == want.token_ids and got.logprobs == want.logprobs
        assert want.reused == 0
        assert got.reused == (0 if number == 0 else 1 if number in (2, 4) else words)  # <s> is always common
    assert sharing.generate([("text", "An image of")], params).reused == 0


@pytest.mark.parametrize("kind", ["float", "quantized"])
def test_prompts_without_images_compute_only_what_is_new(kind: str) -> None:
    """A system prompt and what is asked after it, a chat, beams, scores and batches: the bits of an engine that keeps
    nothing. Prompts with an image have no part in it."""
    file = str(tiny_file() if kind == "float" else NANO)
    keeping, plain = _core.Engine(file, threads=2), _core.Engine(file, threads=2, prefix_bytes=0)
    params, beams = _core.GenerateParams(), _core.GenerateParams()
    params.max_tokens, params.logprobs, params.hash_logits = 5, True, True
    beams.max_tokens, beams.logprobs, beams.num_beams = 4, True, 3
    system = "You look at pictures and say what is on them. "
    kept: list[int] = []

    def ask(segments: list[tuple[str, object]], how: _core.GenerateParams = params) -> _core.Generation:
        nonlocal kept
        got, want = (engine.generate(segments, how) for engine in (keeping, plain))
        assert got.token_ids == want.token_ids and np.array_equal(got.logprobs, want.logprobs)
        assert got.logits_hash == want.logits_hash and want.reused == 0
        assert got.reused == min(common(kept, got.prompt_ids), len(got.prompt_ids) - 1)
        kept = got.prompt_ids + (got.token_ids[:-1] if how.num_beams == 1 else [])
        return got

    for question in QUESTIONS:
        answer = ask([("text", system + question)])
    opening = common(answer.prompt_ids, keeping.prompt_ids([("text", system + QUESTIONS[0])]))
    assert answer.reused == opening > 8
    turn: list[tuple[str, object]] = [("text", system + QUESTIONS[-1]), ("ids", answer.token_ids), ("text", "Why?")]
    assert ask(turn).reused == len(answer.prompt_ids) + len(answer.token_ids) - 1
    assert ask([("text", system + "a dog")], beams).reused >= opening
    texts = [[("text", "a dog")], [("text", "two cats on a mat")]]
    got, want = (engine.score([("text", system)], texts) for engine in (keeping, plain))
    assert [c.logprobs for c in got.continuations] == [c.logprobs for c in want.continuations]
    assert got.reused > 8 and want.reused == 0

    batch = _core.Batch(keeping, 2)
    for question in QUESTIONS[:2]:
        batch.add([("text", system + question)], params)
    while batch.open:
        for finished in batch.step():
            got = finished.result()
            want = plain.generate([("text", system + QUESTIONS[finished.key])], params)
            assert got.token_ids == want.token_ids and got.logits_hash == want.logits_hash
            assert got.reused >= opening
    pictured = [("image", keeping.encode_image(picture(), 100, 80)), ("text", "An image of")]
    assert keeping.generate(pictured, params).reused <= OPENING


def test_a_prompt_without_images_shares_the_memory_of_encoded_images() -> None:
    params = _core.GenerateParams()
    params.max_tokens = 1
    words, about = [("text", "It is a dog on a mat. " * 2)], ("text", "An image of")

    def use(engine: _core.Engine, image: _core.ImageEmbedding) -> int:
        return engine.generate([("image", image), about], params).reused

    large = _core.Engine(str(tiny_file()), threads=1)
    image = large.encode_image(picture(), 100, 80, keep=True)
    use(large, image)
    each, every = image.kept_bytes, large.generate(words, params)
    assert large.generate(words, params).reused == len(every.prompt_ids) - 1
    assert use(large, image) == image.kept_positions - 1  # there is room for both

    small = _core.Engine(str(tiny_file()), threads=1, prefix_bytes=each)
    image = small.encode_image(picture(), 100, 80, keep=True)
    use(small, image)
    assert image.kept_bytes == each
    assert small.generate(words, params).reused == 0
    assert image.kept_bytes == 0  # it was used longest ago
    assert small.generate(words, params).reused == len(every.prompt_ids) - 1
    use(small, image)
    assert image.kept_bytes == each and small.generate(words, params).reused == 0

    tight = _core.Engine(str(tiny_file()), threads=1, prefix_bytes=each // 4)
    assert tight.generate(words, params).reused == 0
    assert 0 < tight.generate(words, params).reused < len(every.prompt_ids) - 1


def test_a_batch_profits_within_itself() -> None:
    model = model_of("quantized")
    shots = [(model.encode(picture(1)), "a dog")]
    want = [model.caption(picture(seed), examples=[(picture(1), "a dog")], **SHORT) for seed in (3, 4, 5)]
    engine, params = model._open.engine, _core.GenerateParams()
    params.max_tokens, params.logprobs, params.grammar = 6, True, True  # nano bans no repeats
    batch = _core.Batch(engine, 3)
    for seed in (3, 4, 5):
        batch.add(
            [
                ("image", shots[0][0].embedding),
                ("text", "An image of a dog"),
                ("image", engine.encode_image(picture(seed), 100, 80)),
                ("text", "An image of"),
            ],
            params,
        )
    got = {}
    while batch.open:
        for finished in batch.step():
            got[finished.key] = finished.result()
    assert [got[key].token_ids for key in range(3)] == [result.token_ids for result in want]
    assert [got[key].logprobs for key in range(3)] == [result.logprobs for result in want]
    assert [got[key].reused for key in (1, 2)] == [model_prefix(model, shots)] * 2


def test_tokens_that_are_forced_need_no_logits(model: Model) -> None:
    """Without log-probabilities they are taken as they are; the answer, its reason and what follows stay the same."""
    engine = model._open.engine
    embedding = engine.encode_image(picture(), 100, 80)
    prompt = [("image", embedding), ("text", "An image of")]
    texts = [
        ["a red circle"],
        ["a dog", "a dog on a mat", "the cat"],
        ["a a a a b", "a a a c"],
        ["is it", "it is", "a"],
    ]
    heard: list[int] = []
    for choices, temperature, limit in itertools.product(texts, (0.0, 5.0), (2, 12)):
        params, scored = _core.GenerateParams(), _core.GenerateParams()
        for p in (params, scored):
            p.choices, p.temperature, p.seed, p.max_tokens, p.no_repeat_ngram_size = choices, temperature, 3, limit, 2
        scored.logprobs = True
        heard.clear()
        got = engine.generate(prompt, params, lambda token, _: heard.append(token))
        want = engine.generate(prompt, scored)
        assert got.token_ids == want.token_ids == heard and got.finish_reason == want.finish_reason
    stopped = engine.generate(prompt, params, lambda token, _: False)
    assert stopped.finish_reason == ("callback" if len(got.token_ids) > 1 else "choice") and len(stopped.token_ids) == 1


def test_the_end_of_a_box_is_decided_by_the_tags_alone() -> None:
    """With log-probabilities all logits are computed, without them two where a box ends; the answers are the same."""
    model = load(grounded_file(), threads=2)
    ends = 0
    for seed, temperature in itertools.product(range(4), (0.0, 2.0)):
        options = {"max_tokens": 40, "temperature": temperature, "seed": seed}
        plain = model.caption(picture(seed), ground=True, **options)
        scored = model.caption(picture(seed), ground=True, logprobs=True, **options)
        assert plain.token_ids == scored.token_ids and plain.entities == scored.entities
        ends += sum(len(entity.boxes) for entity in plain.entities)
    assert ends > 8


def test_a_conversation_goes_on_after_forced_tokens(model: Model) -> None:
    """Their keys and values were not computed, so they are not kept either."""
    engine, params, plain = model._open.engine, _core.GenerateParams(), _core.GenerateParams()
    params.max_tokens, params.choices = 12, ["a red circle on a mat"]
    plain.max_tokens, plain.logprobs = 6, True
    embedding = engine.encode_image(picture(), 100, 80, keep=True)
    prompt = [("image", embedding), ("text", "What is it?")]
    first = engine.generate(prompt, params)
    assert embedding.kept_positions == len(first.prompt_ids)
    rest = [("ids", first.token_ids), ("text", "Is it?")]
    got = engine.generate(prompt + rest, plain)
    fresh = ("image", engine.encode_image(picture(), 100, 80))
    want = engine.generate([fresh, prompt[1], *rest], plain)
    assert got.reused == len(first.prompt_ids)
    assert got.token_ids == want.token_ids and got.logprobs == want.logprobs


def test_texts_scored_together_have_the_numbers_of_each_alone(model: Model) -> None:
    """More than fit one pass, long and short, some of one token; the same text twice."""
    texts = ["a", "a dog", "the cat " * 30, "two cats and a dog " * 9, "a dog", "is it", "cat", "a b c d e f g " * 7]
    texts = texts + texts[::-1]
    together = model.score(picture(), texts)
    assert [row.text for row in sorted(together.ranking, key=lambda r: texts.index(r.text))] == sorted(
        texts, key=texts.index
    )
    for row in together.ranking:
        (alone,) = model.score(picture(), [row.text]).ranking
        assert row.token_ids == alone.token_ids and row.logprobs == alone.logprobs
        assert len(row.logprobs) == len(row.token_ids)
