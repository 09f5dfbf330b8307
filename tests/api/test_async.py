"""The verbs for asyncio: results, events, order, cancelling, errors; in this process and in a worker."""

import asyncio
import gc
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import aclosing

import pytest
from helpers.api_model import grounded_file, long_file, picture, tiny_file

from kosmos_edge import CancelToken, Done, Model, Result, TextDelta, load
from kosmos_edge.errors import Cancelled, InvalidRequest

ENDLESS = {
    "max_tokens": 15000,
    "choices": [("a dog " * 7000).strip()],
    "logprobs": True,
}  # takes many seconds; never run to its end
ISOLATIONS = ["none"] + (["process"] if os.name == "posix" else [])


@pytest.fixture(scope="module", params=ISOLATIONS)
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    with load(grounded_file(), threads=1, isolation=request.param) as found:
        yield found


@pytest.fixture(scope="module", params=ISOLATIONS)
def endless(request: pytest.FixtureRequest) -> Iterator[Model]:
    with load(long_file(), threads=1, isolation=request.param) as found:
        yield found


def same(a: Result, b: Result) -> bool:
    return (a.text, a.entities, a.token_ids, a.finish_reason) == (b.text, b.entities, b.token_ids, b.finish_reason)


def test_every_verb_gives_what_it_gives_without_a(model: Model) -> None:
    image, few = picture(1), {"max_tokens": 12}
    calls = [
        ("caption", (image, "long"), {"ground": True, "examples": [(picture(2), "a dog")], **few}),
        ("ground", (image, "the dog"), {"lead_in": True, **few}),
        ("locate", (image, "a dog"), few),
        ("describe", (image, (0.1, 0.1, 0.9, 0.9)), {"normalized": True, "ground": False, **few}),
        ("ask", (image, "Who?"), {"choices": ["a dog", "the man"]}),
        ("generate", ([image, "An image of"],), {"raw": True, **few}),
    ]

    async def main() -> None:
        for verb, arguments, options in calls:
            want = getattr(model, verb)(*arguments, **options)
            assert same(await getattr(model, "a" + verb)(*arguments, **options), want), verb
            events = [event async for event in getattr(model, "a" + verb)(*arguments, **options)]
            assert isinstance(events[-1], Done) and same(events[-1].result, want), verb
            assert "".join(event.text for event in events if isinstance(event, TextDelta)) == want.text, verb
        encoded = await model.aencode(image)
        assert encoded.tobytes() == model.encode(image).tobytes()
        ranking = await model.ascore(encoded, ["a dog", "the man"], normalize="mean")
        assert [s.text for s in ranking.ranking] == [
            s.text for s in model.score(encoded, ["a dog", "the man"], normalize="mean").ranking
        ]
        behind = await model.ascore_segments([encoded, "It is "], ["a dog", "the man"])
        assert behind.ranking == model.score_segments([encoded, "It is "], ["a dog", "the man"]).ranking

    asyncio.run(main())


def test_abilities_give_what_they_give_without_a(model: Model) -> None:
    image, labels = picture(1), ["a dog", "the man"]
    pool = [(picture(2), "a dog")]

    async def main() -> None:
        for options in ({"prompt": "It is"}, {"question": "Who?", "examples": pool}, {"category": "thing"}):
            ranking = await model.aclassify(image, labels, normalize="mean", **options)
            assert ranking.ranking == model.classify(image, labels, normalize="mean", **options).ranking
        chosen = await model.aclassify(image, labels, by="choices", max_tokens=9)
        assert same(chosen, model.classify(image, labels, by="choices", max_tokens=9))
        told = {"rationale_prompt": "An image of", "rationale_tokens": 3, "choices": labels}
        reasoned, wanted = await model.areason(image, "Who?", **told), model.reason(image, "Who?", **told)
        assert same(reasoned, wanted) and (reasoned.rationale, reasoned.scores) == (wanted.rationale, wanted.scores)
        cells = [picture(n) for n in (1, 2, 3)]
        answered, right = await model.aiq(cells, cells), model.iq(cells, cells)
        assert answered.candidates == right.candidates and answered.best == right.best
        page = {"html": "<p>A <b>dog</b></p>", "max_tokens": 3}
        assert same(await model.awebqa(image, "Who?", **page), model.webqa(image, "Who?", **page))
        with pytest.raises(InvalidRequest, match="labels"):
            await model.aclassify(image, [])
        stopped = asyncio.create_task(model.areason(image, "Who?", rationale_tokens=100))
        await asyncio.sleep(0)
        stopped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopped
        assert (await model.aclassify(image, labels, prompt="It is")).best.text in labels

    asyncio.run(main())


def test_pages_are_read() -> None:
    """aread has the arguments of read: a model that cannot read says so as it does without a."""
    with load(tiny_file(), threads=1) as model:
        with pytest.raises(InvalidRequest) as plain:
            model.read(picture(), markdown=True)
        with pytest.raises(InvalidRequest) as awaited:
            asyncio.run(asyncio.wait_for(model.aread(picture(), markdown=True), 60))
    assert str(awaited.value) == str(plain.value)


def test_calls_run_one_after_another_in_their_order(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    running, most, begun = [], [], []
    real = model.caption

    def caption(**arguments: object) -> object:
        running.append(1)
        most.append(len(running))
        begun.append(arguments["max_tokens"])
        try:
            return real(**arguments)  # type: ignore[call-overload]
        finally:
            running.pop()

    monkeypatch.setattr(model, "caption", caption)

    async def main() -> list[Result]:
        return await asyncio.gather(*(model.acaption(picture(3), max_tokens=n) for n in range(1, 9)))

    results = asyncio.run(main())
    assert [len(result.token_ids) for result in results] == begun == list(range(1, 9))
    assert set(most) == {1}


def test_the_loop_goes_on_meanwhile(endless: Model) -> None:
    async def main() -> int:
        ticks = 0
        call = asyncio.ensure_future(endless.aask(picture(), "Who?", **ENDLESS))
        for _ in range(20):
            await asyncio.sleep(0.005)
            ticks += not call.done()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return ticks

    assert asyncio.run(main()) == 20


def test_a_cancelled_task_ends_its_call_and_those_behind_it_run(endless: Model) -> None:
    async def main() -> None:
        first = asyncio.create_task(endless.aask(picture(), "Who?", **ENDLESS))
        queued = asyncio.create_task(endless.aask(picture(), "Who?", **ENDLESS))
        never = asyncio.create_task(endless.aask(picture(), "Who?", **ENDLESS))
        never.cancel()  # before its first step
        last = asyncio.create_task(endless.acaption(picture(), max_tokens=1))
        await asyncio.sleep(0.05)
        queued.cancel()  # not begun: never begins
        first.cancel()
        assert len((await last).token_ids) == 1
        for task in (first, queued, never):
            with pytest.raises(asyncio.CancelledError):
                await task

    start = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - start < 30  # each endless answer takes longer


def test_a_timeout_ends_the_call(endless: Model) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await endless.aask(picture(), "Who?", **ENDLESS)
        assert len((await endless.acaption(picture(), max_tokens=1)).token_ids) == 1

    asyncio.run(main())


def test_a_stream_that_is_left_ends(endless: Model) -> None:
    async def main() -> None:
        async with aclosing(endless.aask(picture(), "Who?", **ENDLESS)) as events:
            async for event in events:
                assert isinstance(event, TextDelta)
                break
        assert len((await endless.acaption(picture(), max_tokens=1)).token_ids) == 1
        async for _ in endless.aask(picture(), "Who?", **ENDLESS):
            break  # dropped: the loop closes it
        start = time.monotonic()
        assert len((await endless.acaption(picture(), max_tokens=1)).token_ids) == 1
        assert time.monotonic() - start < 5  # the endless answer takes 10 and more

    asyncio.run(main())


def test_the_callers_own_cancel_object(endless: Model) -> None:
    token, event = CancelToken(), threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, token.cancel)
        with pytest.raises(Cancelled):
            await endless.aask(picture(), "Who?", cancel=token, **ENDLESS)
        loop.call_later(0.05, event.set)
        with pytest.raises(Cancelled):
            async for _ in endless.aask(picture(), "Who?", cancel=event, **ENDLESS):
                pass

    asyncio.run(main())


def test_a_stream_computes_ahead_and_its_reader_may_await_others(model: Model) -> None:
    async def main() -> None:
        seen = 0
        async for _ in model.aground(picture(), max_tokens=20):
            seen += 1
            if seen == 1:
                assert len((await model.acaption(picture(), max_tokens=1)).token_ids) == 1
        assert seen > 1

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_batch(model: Model) -> None:
    pictures = [picture(n) for n in range(5)]
    want = list(model.batch(pictures, max_tokens=3, batch_size=2))

    async def main() -> None:
        found = []
        async for result in model.abatch(iter(pictures), max_tokens=3, batch_size=2):
            found.append(result)
            await model.acaption(picture(), max_tokens=1)  # an awaited call within
        assert [r.token_ids for r in found] == [r.token_ids for r in want]  # type: ignore[union-attr]
        with pytest.raises(InvalidRequest, match="task"):
            async for _ in model.abatch(pictures, "paint"):  # type: ignore[arg-type]
                pass

    asyncio.run(main())


def test_a_batch_that_is_left_or_cancelled_ends(endless: Model) -> None:
    def forever() -> Iterator[object]:
        number = 0
        while True:
            number += 1
            yield picture(number % 7)

    async def main() -> None:
        async with aclosing(endless.abatch(forever(), max_tokens=1, batch_size=2)) as results:
            async for _ in results:
                break

        async def consume() -> None:
            async for _ in endless.abatch([picture()] * 3, "ask", question="Who?", **ENDLESS):
                raise AssertionError("an endless answer ended")

        task = asyncio.create_task(consume())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(main(), 60))


def test_errors_are_those_of_the_verb(model: Model) -> None:
    async def main() -> None:
        with pytest.raises(InvalidRequest, match="max_tokens"):
            await model.acaption(picture(), max_tokens=0)
        with pytest.raises(InvalidRequest, match="unknown option tokens"):
            async for _ in model.acaption(picture(), tokens=3):  # type: ignore[call-arg]
                pass
        with pytest.raises(InvalidRequest, match="`async for`"):
            await model.acaption(picture(), stream=True)  # type: ignore[call-arg]
        answer = model.acaption(picture(), max_tokens=1)
        await answer
        with pytest.raises(InvalidRequest, match="once"):
            await answer

    asyncio.run(main())


def test_a_model_serves_several_loops() -> None:
    """One after the other, and at the same time in two threads; then it is closed, and nothing is left."""
    before = set(threading.enumerate())
    model = load(tiny_file(), threads=1)

    def once(model: Model = model) -> int:
        async def main() -> int:
            return len((await model.agenerate([picture(), "a dog"], max_tokens=3)).token_ids)

        return asyncio.run(main())

    counts: list[int] = []
    threads = [threading.Thread(target=lambda once=once: counts.append(once())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [once(), *counts] == [3, 3, 3]
    model.close()
    with pytest.raises(InvalidRequest, match="closed"):
        once()
    gone = weakref.ref(model)
    del model, once, threads, thread
    gc.collect()
    assert gone() is None
    for _ in range(200):
        if set(threading.enumerate()) <= before:
            break
        time.sleep(0.01)
    else:
        raise AssertionError("the thread of a closed model is still there")


def test_a_conversation(model: Model) -> None:
    few = {"max_tokens": 6}
    plain = model.chat(picture(1))
    want = [plain.ask("What is this?", **few), plain.ask("Why?", choices=["a dog", "the man"])]
    chat = model.chat(picture(1))

    async def main() -> None:
        assert same(await chat.aask("What is this?", **few), want[0])
        events = [event async for event in chat.aask("Why?", choices=["a dog", "the man"])]
        assert isinstance(events[-1], Done) and same(events[-1].result, want[1])

    asyncio.run(main())
    assert [(turn.question, turn.answer) for turn in chat.turns] == [
        (turn.question, turn.answer) for turn in plain.turns
    ]


def test_two_models_in_one_loop_run_side_by_side() -> None:
    async def main(models: list[Model]) -> list[Result]:
        return await asyncio.gather(*(model.acaption(picture(), max_tokens=4) for model in models))

    with load(tiny_file(), threads=1) as one, load(tiny_file(), threads=1) as two:
        first, second = asyncio.run(main([one, two]))
    assert first.token_ids == second.token_ids
