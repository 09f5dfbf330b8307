"""Streaming, cancelling, Ctrl-C, and that Python goes on while the engine computes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.api_model import grounded_model, long_file, long_model, picture, tiny_model

from kosmos_edge import CancelToken, Done, EntityEvent, Model, TextDelta, _core
from kosmos_edge.errors import Cancelled, ContextTooLong, ImageDecodeError, InvalidRequest
from kosmos_edge.inference import running

LONG = {
    "max_tokens": 15000,
    "choices": [("a dog " * 7000).strip()],
    "logprobs": True,
}  # takes many seconds; never run to its end


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


@pytest.fixture(scope="module", params=[tiny_model, grounded_model], ids=["tiny", "grounded"])
def any_model(request: pytest.FixtureRequest) -> Model:
    return request.param()


def thread_names() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("kosmos-edge")]


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("caption", {}),
        ("caption", {"ground": True}),
        ("caption", {"lead_in": True, "ground": True}),
        ("ground", {"prompt": "the dog"}),
        ("ground", {"temperature": 2.0, "seed": 5}),
        ("ground", {"temperature": 2.0, "seed": 6, "grammar": False}),
        ("locate", {"phrase": "a dog"}),
        ("describe", {"box": (0, 0, 50, 50)}),
        ("ask", {"question": "is 3 < 4 > 2 here?", "lead_in": True}),
        ("ask", {"question": "Who?", "choices": ["a dog", "the man"]}),
        ("caption", {"num_beams": 2}),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_stream_is_the_whole_answer_in_pieces(any_model: Model, verb: str, arguments: dict, seed: int) -> None:
    model = any_model
    arguments = {"max_tokens": 60, **arguments}
    whole = getattr(model, verb)(picture(seed), **arguments)
    events = list(getattr(model, verb)(picture(seed), stream=True, **arguments))
    assert isinstance(events[-1], Done) and sum(isinstance(event, Done) for event in events) == 1
    assert {**events[-1].result.to_dict(), "timings": None} == {**whole.to_dict(), "timings": None}
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == whole.text
    assert [event.entity for event in events if isinstance(event, EntityEvent)] == whole.entities
    text = ""
    for event in events[:-1]:
        if isinstance(event, TextDelta):
            assert event.text
            text += event.text
        else:
            assert len(text) >= event.entity.span[1]  # the phrase was given before its boxes


def test_boxes_come_while_the_answer_goes_on() -> None:
    """An entity is given when its box closes, not at the end."""
    model = grounded_model()
    events = list(model.ground(picture(), stream=True, max_tokens=80))
    kinds = [type(event) for event in events]
    assert kinds.count(EntityEvent) == len(events[-1].result.entities) >= 3
    first = kinds.index(EntityEvent)
    assert TextDelta in kinds[:first] and TextDelta in kinds[first:]


@pytest.mark.parametrize("seed", range(6))
def test_a_stream_that_stops_in_the_middle_of_boxes(seed: int) -> None:
    model = grounded_model()
    text = model.ground(picture(seed), max_tokens=80).text
    words = [text[at : at + 7] for at in range(3, len(text) - 10, 9)]
    for word in words:
        whole = model.ground(picture(seed), max_tokens=80, stop=word)
        events = list(model.ground(picture(seed), max_tokens=80, stop=word, stream=True))
        assert whole.finish_reason == "stop_string" and whole.text == text[: text.find(word)].rstrip()
        assert "".join(event.text for event in events if isinstance(event, TextDelta)) == whole.text
        assert [event.entity for event in events if isinstance(event, EntityEvent)] == whole.entities


def test_a_stop_string_never_shows_in_a_stream(model: Model) -> None:
    text = model.generate([picture(), "An image of"], max_tokens=40).text
    word = next(w for w in text.split() if text.find(w) > 2)
    events = list(model.generate([picture(), "An image of"], max_tokens=40, stop=[word, "zzz"], stream=True))
    streamed = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert word not in streamed and streamed == events[-1].result.text


def test_text_comes_before_the_end() -> None:
    events = long_model().generate([picture(), "An image of"], stream=True, **LONG)
    first = next(events)
    assert isinstance(first, TextDelta)
    events.close()
    assert thread_names() == []


def test_dropping_a_stream_ends_it() -> None:
    events = long_model().generate([picture(), "An image of"], stream=True, **LONG)
    next(events)
    assert thread_names() == ["kosmos-edge stream"]
    del events
    assert thread_names() == []


def test_errors_come_out_of_the_stream(model: Model) -> None:
    with pytest.raises(ImageDecodeError):
        list(model.caption(b"no picture", stream=True))
    with pytest.raises(ContextTooLong):
        list(model.caption(picture(), stream=True, max_tokens=512))
    with pytest.raises(InvalidRequest):
        model.caption(picture(), stream=True, max_tokens=0)  # at once
    with pytest.raises(InvalidRequest, match="stream"):
        model.caption(picture(), stream=1)


# ---- cancelling


@pytest.mark.parametrize("kind", [threading.Event, CancelToken])
def test_cancelling_from_another_thread(kind: type) -> None:
    cancel = kind()
    end = cancel.set if kind is threading.Event else cancel.cancel
    timer = threading.Timer(0.1, end)
    timer.start()
    with pytest.raises(Cancelled):
        long_model().generate([picture(), "An image of"], cancel=cancel, **LONG)
    timer.join()
    with pytest.raises(Cancelled):
        long_model().caption(picture(), cancel=cancel)  # set already: nothing is begun


def test_cancelling_works_in_a_worker_thread() -> None:
    cancel = threading.Event()
    caught: list[BaseException] = []

    def work() -> None:
        try:
            long_model().generate([picture(), "An image of"], cancel=cancel, **LONG)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    cancel.set()
    thread.join()
    assert len(caught) == 1 and isinstance(caught[0], Cancelled)


def test_cancelling_a_stream() -> None:
    cancel = threading.Event()
    events = long_model().generate([picture(), "An image of"], stream=True, cancel=cancel, **LONG)
    next(events)
    cancel.set()
    with pytest.raises(Cancelled):
        for _ in events:
            pass
    assert thread_names() == []


def test_the_model_is_as_good_as_before_after_a_cancel() -> None:
    model = long_model()
    before = model.caption(picture(), max_tokens=20).token_ids
    cancel = threading.Event()
    threading.Timer(0.05, cancel.set).start()
    with pytest.raises(Cancelled):
        model.generate([picture(), "An image of"], cancel=cancel, **LONG)
    assert model.caption(picture(), max_tokens=20).token_ids == before


def test_encode_and_score_can_be_cancelled(model: Model) -> None:
    cancel = threading.Event()
    cancel.set()
    for call in (lambda: model.encode(picture(), cancel=cancel), lambda: model.score(picture(), ["a"], cancel=cancel)):
        with pytest.raises(Cancelled):
            call()
    with pytest.raises(InvalidRequest, match="cancel"):
        model.encode(picture(), cancel=5)


# ---- the interpreter goes on


def counts_during(call: Callable[[], object]) -> int:
    """How far another thread counts while the call runs.

    With an endless switch interval Python never takes the GIL away: only a call that gives it up lets others run.
    """
    stop, started = threading.Event(), threading.Event()
    count = 0

    def counting() -> None:
        nonlocal count
        started.set()
        while not stop.is_set():
            count += 1
            time.sleep(0.0002)  # gives the GIL up

    thread = threading.Thread(target=counting)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        thread.start()
        started.wait()
        before = count
        call()
        return count - before
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("call", ["generate", "encode", "score", "load"])
def test_the_gil_is_free_while_the_engine_computes(call: str) -> None:
    engine = long_model()._open.engine
    embedding = engine.encode_image(picture(), 100, 80)
    prompt = [("image", embedding), ("text", "An image of")]
    params = _core.GenerateParams()
    params.max_tokens, params.choices, params.logprobs = 400, ["a dog " * 150], True
    big = np.tile(picture(0, 100, 100), (30, 30, 1))
    calls = {
        "generate": lambda: engine.generate(prompt, params),
        "encode": lambda: engine.encode_image(big, 3000, 3000),
        "score": lambda: engine.score(prompt, [[("text", "a dog " * 100)]]),
        "load": lambda: _core.Engine(str(long_file()), threads=1),
    }
    assert counts_during(lambda: sum(range(1_000_000))) == 0  # a call that keeps the GIL
    assert counts_during(calls[call]) > 0


INTERRUPTED = """
import sys, signal
sys.path.insert(0, {tests!r})
from helpers.api_model import picture
from kosmos_edge import load
model = load({model!r}, threads=1)
LONG = {long!r}
try:
    print("ready", flush=True)
    {call}
except KeyboardInterrupt:
    print("interrupted", flush=True)
    result = model.caption(picture(), max_tokens=5)
    print("again", result.ok, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
@pytest.mark.parametrize(
    "call",
    [
        "model.generate([picture(), 'An image of'], **LONG)",
        "list(model.generate([picture(), 'An image of'], **LONG, stream=True))",
        "model.score(picture(), ['a dog ' * 2000] * 20)",
    ],
)
def test_ctrl_c_raises_keyboard_interrupt_in_the_middle_of_a_call(call: str) -> None:
    program = INTERRUPTED.format(tests=str(Path(__file__).parents[1]), model=str(long_file()), call=call, long=LONG)
    process = subprocess.Popen([sys.executable, "-P", "-c", program], stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "ready\n"
        threading.Event().wait(0.3)
        process.send_signal(signal.SIGINT)
        output = process.stdout.read()
    assert output == "interrupted\nagain True\n", output
    assert process.returncode == 0


def test_ctrl_c_while_a_stream_is_left_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come while the stream waits for its thread: then it is raised, not swallowed."""
    join = threading.Thread.join

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        join(self, timeout)
        if self.name == "kosmos-edge stream":
            raise KeyboardInterrupt

    events = running.stream(lambda token, emit: None)
    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(events)
