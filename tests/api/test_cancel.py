"""Cancelling, without a clock: a token that cancels at its n-th poll, for every n of every phase of the tiny model.

What is shown: a call ends at the very poll that cancels it, nothing of the call is left behind (the next answer has the
same bits), and polls are as dense as the engine promises: at least two for every layer of every pass.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.api_model import picture, tiny_file, tiny_model

from kosmos_edge import Cancelled, CancelToken, _core, load

Counted = _core.testing.CountedCancel
ENDLESS = 1 << 60
PHASES = ["load", "resize", "resize, columns first", "encode", "prefill", "decode", "grounded", "choices"]
PHASES += ["beams", "batch", "score"]
Call = Callable[[Any], object]


@pytest.fixture(scope="module")
def engine() -> _core.Engine:
    return tiny_model()._open.engine


def params(**fields: Any) -> _core.GenerateParams:
    out = _core.GenerateParams()
    out.max_tokens = 6
    for name, value in fields.items():
        setattr(out, name, value)
    return out


def phases(engine: _core.Engine) -> dict[str, Call]:
    pixels = np.ascontiguousarray(picture(1, 300, 200))
    image = ("image", engine.encode_image(picture(), 100, 80))
    prompt = [image, ("text", "An image of")]
    long = [image, ("text", "the dog and the man and " * 20)]

    def batch(cancel: Any) -> list[list[int]]:
        members = _core.Batch(engine, 3)
        for number in range(3):
            members.add([image, ("text", "a dog " * number + "An image of")], params(logprobs=True))
        found: dict[int, list[int]] = {}
        while members.open:
            found |= {f.key: f.result().token_ids for f in members.step(cancel)}
        return [found[key] for key in sorted(found)]

    def generated(prompt: list[Any], p: _core.GenerateParams) -> Call:
        def call(cancel: Any) -> object:
            answer = engine.generate(prompt, p, None, cancel)
            return answer.token_ids, np.array(answer.logprobs).tobytes()

        return call

    def scored(cancel: Any) -> object:
        rows = engine.score(prompt, [[("text", text)] for text in ("a dog", "the man and", "a")], cancel).continuations
        return [(row.token_ids, np.array(row.logprobs).tobytes()) for row in rows]

    return {
        "load": lambda cancel: _core.Engine(str(tiny_file()), threads=1, cancel=cancel).isa,
        "resize": lambda cancel: _core.resize_bicubic(pixels, 300, 200, 64, 48, cancel),
        "resize, columns first": lambda cancel: _core.resize_bicubic(pixels, 60, 1000, 50, 10, cancel),
        "encode": lambda cancel: engine.encode_image(pixels, 300, 200, cancel).tobytes(),
        "prefill": generated(long, params(max_tokens=1)),
        "decode": generated(prompt, params(logprobs=True)),
        "grounded": generated([image, ("tags", "<grounding>"), ("text", "An image of")], params(grammar=True)),
        "choices": generated(prompt, params(choices=["a dog", "a dog and a man"])),
        "beams": generated(prompt, params(num_beams=2)),
        "batch": batch,
        "score": scored,
    }


@pytest.mark.parametrize("name", PHASES)
def test_every_poll_can_be_the_last(engine: _core.Engine, name: str) -> None:
    call = phases(engine)[name]
    count = Counted(ENDLESS)
    want = call(count)
    assert count.polls > 1 and call(None) == want
    for allowed in range(0, count.polls, 11 if name == "load" else 1):
        cancel = Counted(allowed)
        with pytest.raises(Cancelled):
            call(cancel)
        assert cancel.polls == allowed + 1  # not one step more
        if allowed % 7 == 0:
            assert call(None) == want
    assert call(Counted(count.polls)) == want
    assert call(None) == want


def polls(call: Call) -> int:
    count = Counted(ENDLESS)
    call(count)
    return int(count.polls)


def test_polls_are_dense(engine: _core.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice in every layer of every pass, before every tensor of a load, every few rows of a resize."""
    calls = phases(engine)
    config = _core.model_info(str(tiny_file()))
    layers, vision = config["decoder"]["layers"], config["vision"]["layers"]
    assert polls(calls["load"]) >= len(_core.GgufFile(str(tiny_file())).tensors()) // 2
    assert polls(calls["encode"]) >= 2 * vision + 48  # and the resize
    assert polls(calls["resize"]) >= 48 + 200 // 16
    prompt = [("ids", [5] * 300)]
    passes = 2  # of at most 256 rows; the first has no logits to give and leaves the last layer early
    assert polls(lambda c: engine.generate(prompt, params(max_tokens=1), None, c)) == passes * 2 * layers - 1
    prompt = [("ids", [6] * 300)]  # another one: nothing but <s> is reused
    monkeypatch.setattr(engine, "drafts", "off")  # a pass for every token
    more = polls(lambda c: engine.generate(prompt, params(max_tokens=5, logprobs=True), None, c))
    answer = engine.generate(prompt, params(max_tokens=5, logprobs=True))
    assert more == (passes + len(answer.token_ids) - 1) * 2 * layers - 1
    assert polls(calls["beams"]) >= 2 * layers * 2 and polls(calls["score"]) >= 2 * layers * 2


class Stuck:
    """A file object whose read comes back only when it may."""

    def __init__(self) -> None:
        self.reading, self.may = threading.Event(), threading.Event()
        self.given_up = False

    def read(self, size: int = -1) -> bytes:
        self.reading.set()
        self.given_up = not self.may.wait(60)
        return b""


@pytest.mark.parametrize("how", ["encode", "caption", "batch"])
def test_the_caller_does_not_wait_for_what_cannot_be_told(how: str) -> None:
    """A library that decodes a picture, or a slow disk, knows no cancelling: the caller is free all the same."""
    model, file, cancel = tiny_model(), Stuck(), threading.Event()
    threading.Thread(target=lambda: file.reading.wait(60) and cancel.set()).start()
    with pytest.raises(Cancelled):
        if how == "batch":
            list(model.batch([file], cancel=cancel))
        else:
            getattr(model, how)(file, cancel=cancel)
    assert not file.given_up
    file.may.set()
    assert model.caption(picture(), max_tokens=2).ok


def test_a_load_can_be_cancelled() -> None:
    cancel = CancelToken()
    cancel.cancel()
    for isolation in ("none", "process"):
        with pytest.raises(Cancelled):
            load(tiny_file(), cancel=cancel, isolation=isolation)  # type: ignore[arg-type]
    assert load(tiny_file(), cancel=threading.Event()).caption(picture(), max_tokens=2).ok
