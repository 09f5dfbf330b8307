"""Drafts that earlier answers taught: fewer passes, and the same ids and log-probabilities bit for bit, however wrong
what was learned may be."""

import itertools
import struct
import threading

import pytest
from helpers.api_model import grounded_model, tiny_model
from PIL import Image, ImageDraw

from kosmos_edge import _core, load
from kosmos_edge.errors import InvalidRequest

GROUNDED = [("tags", "<grounding>"), ("text", "An image of")]
LOCATE = [("tags", "<grounding><phrase>"), ("text", "a red circle"), ("tags", "</phrase>")]
PLAIN = [("text", "An image of")]


def picture(number: int) -> bytes:
    """RGB of 100 x 80 pixels: something else for every number."""
    image = Image.new("RGB", (100, 80), (90, 100 + number * 7 % 90, 110))
    draw = ImageDraw.Draw(image)
    color = [(220, 40, 40), (40, 60, 220), (250, 220, 30)][number % 3]
    (draw.ellipse if number % 2 else draw.rectangle)((20 + number, 15, 60 + number, 55), fill=color)
    return image.tobytes()


def params(**fields) -> _core.GenerateParams:
    out = _core.GenerateParams()
    for name, value in {"max_tokens": 32, "logprobs": True, **fields}.items():
        setattr(out, name, value)
    return out


def answer(engine: _core.Engine, number: int, tail, **fields) -> _core.Generation:
    return engine.generate([("image", engine.encode_image(picture(number), 100, 80)), *tail], params(**fields))


def bits(g: _core.Generation):
    return g.token_ids, struct.pack(f"{len(g.logprobs)}f", *g.logprobs), g.finish_reason, g.stop_string


def engine_of(name: str, isa: str = "", mode: str = "fixed") -> _core.Engine:
    path = load(name, threads=1).path if name == "nano" else None
    if path is None:
        engine = (grounded_model() if name == "grounded" else tiny_model())._open.engine
        engine.drafts = mode
        return engine
    return _core.Engine(str(path), threads=1, isa=isa, drafts=mode)


FIELDS = [
    {},
    {"grammar": True},
    {"logprobs": False, "grammar": True},
    {"no_repeat_ngram_size": 3},
    {"repetition_penalty": 1.3},
    {"temperature": 0.7, "seed": 5},
    {"top_logprobs": 2, "hash_logits": True},
    {"stop": ["a"]},
    {"max_tokens": 5},
]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
@pytest.mark.parametrize("name", ["nano", "grounded"])
def test_answers_are_those_without_drafts(name: str, fields) -> None:
    engine = engine_of(name)
    tails = [GROUNDED, PLAIN, LOCATE] if "grammar" in fields else [PLAIN, GROUNDED]
    tried = 0
    for number, tail in itertools.product(range(4), tails):
        plain, drafted = (answer(engine, number, tail, draft=draft, **fields) for draft in (False, True))
        assert bits(drafted) == bits(plain) and drafted.logits_hash == plain.logits_hash
        assert drafted.top == plain.top
        assert (plain.drafted, plain.accepted, plain.passes) == (0, 0, len(plain.token_ids))
        assert drafted.passes + drafted.accepted <= len(drafted.token_ids) and drafted.accepted <= drafted.drafted
        tried += drafted.drafted
    assert tried > 0 or fields in ({"max_tokens": 5}, {"stop": ["a"]})


def test_what_was_said_once_takes_fewer_passes() -> None:
    engine = engine_of("nano")
    first, again, third = (answer(engine, 1, GROUNDED) for _ in range(3))
    assert bits(first) == bits(again) == bits(third)
    assert third.passes < again.passes + 1 <= first.passes and third.accepted > 0
    assert third.passes == len(third.token_ids) - third.accepted
    engine.drafts = "off"
    assert answer(engine, 1, GROUNDED).passes == len(first.token_ids)


@pytest.mark.parametrize("name", ["nano", "grounded"])
def test_wrong_teaching_changes_nothing(name: str) -> None:
    """Answers of high temperature teach nonsense, and ids given as a prompt teach what never comes."""
    engine = engine_of(name)
    wrong = 0
    plain = [answer(engine, number, GROUNDED, draft=False) for number in range(3)]
    for seed in range(12):
        answer(engine, seed % 3, GROUNDED, temperature=2.0, seed=seed)
        ids = plain[seed % 3].token_ids
        misled = [i for pair in zip(ids, reversed(ids), strict=True) for i in pair]
        engine.generate([("ids", misled)], params(max_tokens=2))
        drafted = answer(engine, seed % 3, GROUNDED)
        assert bits(drafted) == bits(plain[seed % 3])
        wrong += drafted.drafted - drafted.accepted
    assert wrong > 0


def test_kept_positions_hold_no_draft() -> None:
    """What an image keeps of an answer with drafts serves the next prompt as without them."""
    engine = engine_of("nano")
    for _ in range(3):
        answer(engine, 2, GROUNDED)
    kept, fresh = (engine.encode_image(picture(2), 100, 80, keep=keep) for keep in (True, False))
    told = engine.generate([("image", kept), *GROUNDED], params())
    assert told.accepted > 0
    go_on = [*GROUNDED, ("ids", told.token_ids[:-1]), ("text", " and")]
    again = engine.generate([("image", kept), *go_on], params())
    want = engine.generate([("image", fresh), *go_on], params(draft=False))
    assert again.reused >= len(told.prompt_ids) and bits(again) == bits(want)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_batches(size: int) -> None:
    engine = engine_of("nano")
    jobs = [(number, tail) for number in range(6) for tail in (GROUNDED, PLAIN)] * 2
    alone = [answer(engine, number, tail, draft=False) for number, tail in jobs]
    batch, found, waiting = _core.Batch(engine, size), {}, list(jobs)
    while waiting or batch.open:
        if waiting and batch.open < size:
            number, tail = waiting.pop(0)
            batch.add([("image", engine.encode_image(picture(number), 100, 80)), *tail], params())
        for finished in batch.step():
            found[finished.key] = finished.result()
    assert [bits(found[key]) for key in range(len(jobs))] == [bits(g) for g in alone]
    assert sum(g.accepted for g in found.values()) > 0
    assert sum(g.passes for g in found.values()) < sum(len(g.token_ids) for g in alone)


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512vnni"])
def test_every_instruction_set(isa: str) -> None:
    try:
        engine = engine_of("nano", isa)
    except _core.KosmosError as error:
        pytest.skip(str(error))
    for _ in range(3):
        drafted = answer(engine, 1, GROUNDED)
    assert drafted.accepted > 0 and bits(drafted) == bits(answer(engine, 1, GROUNDED, draft=False))


def test_threads_share_what_is_learned() -> None:
    engine = engine_of("nano", mode="auto")
    want = [bits(answer(engine, number, GROUNDED, draft=False)) for number in range(4)]
    found: dict[int, list] = {number: [] for number in range(4)}

    def work(number: int) -> None:
        for _ in range(5):
            found[number].append(bits(answer(engine, number, GROUNDED)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(4)] == [[w] * 5 for w in want]


def test_the_callback_sees_each_token_once_and_may_end_the_answer() -> None:
    engine = engine_of("nano")
    whole = [answer(engine, 1, GROUNDED) for _ in range(3)][-1].token_ids
    image = engine.encode_image(picture(1), 100, 80)
    for most in range(1, len(whole)):
        seen: list[int] = []

        def until(token_id: int, logprob: float, seen=seen, most=most) -> bool:
            seen.append(token_id)
            return len(seen) < most

        stopped = engine.generate([("image", image), *GROUNDED], params(), until)
        assert seen == stopped.token_ids == whole[:most]


def test_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of("nano", mode="")
    assert engine.drafts == "auto"
    monkeypatch.setenv("KOSMOS_EDGE_DRAFTS", "off")
    assert engine_of("nano", mode="").drafts == "off" and engine_of("nano", mode="fixed").drafts == "fixed"
    monkeypatch.setenv("KOSMOS_EDGE_DRAFTS", "all")
    with pytest.raises(InvalidRequest, match="KOSMOS_EDGE_DRAFTS: expected auto, fixed or off, got"):
        engine_of("nano", mode="")
    with pytest.raises(InvalidRequest, match="drafts: expected"):
        engine.drafts = "some"


def test_results_count_passes_and_drafts() -> None:
    with load("nano", threads=1) as model:
        model._open.engine.drafts = "fixed"
        photo = Image.frombytes("RGB", (100, 80), picture(1))
        spent = [model.caption(photo).timings for _ in range(3)][-1]
        assert 0 < spent.accepted_tokens <= spent.drafted_tokens and 0 < spent.passes < spent.tokens
        assert spent.to_dict()["passes"] == spent.passes
        beams = model.caption(photo, num_beams=2).timings
        assert (beams.passes, beams.drafted_tokens) == (0, 0)
