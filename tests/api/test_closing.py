"""A closed model goes at once: no error of its calls, kept or not, holds its memory or its worker process."""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers.api_model import picture, png, tiny_file

from kosmos_edge import CancelToken, KosmosError, Model, load
from kosmos_edge.errors import Cancelled
from kosmos_edge.inference.running import without_frames

LONG: dict[str, Any] = {"max_tokens": 400, "choices": [("a dog " * 100).strip()], "logprobs": True}


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """What reference counts do not free stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def closing(model: Model) -> None:
    events = model.generate([picture(), "An image of"], stream=True, **LONG)
    next(events)
    events.close()  # type: ignore[attr-defined]


def broken() -> Iterator[bytes]:
    yield png()
    raise LookupError("of the caller's own")


def timed(kind: type) -> Any:
    """A cancel object that is set in a moment."""
    cancel = kind()
    threading.Timer(0.05, cancel.set if kind is threading.Event else cancel.cancel).start()
    return cancel


CALLS: dict[str, Callable[[Model], Any]] = {
    "closed stream": closing,
    "bad picture": lambda m: m.caption(b""),
    "bad picture of a stream": lambda m: list(m.caption(b"", stream=True)),
    "bad picture to encode": lambda m: m.encode(b""),
    "bad picture to score": lambda m: m.score(b"", ["a dog"]),
    "bad pictures of a batch": lambda m: [r.error for r in m.batch([b"", png(), b""], max_tokens=2, batch_size=2)],
    "batch that raises": lambda m: list(m.batch([png(), b""], max_tokens=2, on_error="raise")),
    "batch of a broken iterator": lambda m: list(m.batch(broken(), max_tokens=2)),
    "left batch": lambda m: next(m.batch([png()] * 9, max_tokens=2, batch_size=2)),
    "too long": lambda m: m.generate(["a dog " * 3000]),
    "bad option": lambda m: m.caption(png(), max_tokens=0),
}


def over(kind: type) -> Any:
    """A cancel object that is set already."""
    cancel = kind()
    cancel.set() if kind is threading.Event else cancel.cancel()
    return cancel


for kind in (threading.Event, CancelToken):
    CALLS |= {
        f"call that may not begin, {kind.__name__}": lambda m, k=kind: m.caption(png(), cancel=over(k)),
        f"stream that may not begin, {kind.__name__}": lambda m, k=kind: list(
            m.caption(picture(), cancel=over(k), stream=True)
        ),
        f"batch that may not begin, {kind.__name__}": lambda m, k=kind: list(
            m.batch([png(), png(1)], "ask", question="which?", cancel=over(k))
        ),
        f"score that may not begin, {kind.__name__}": lambda m, k=kind: m.score(png(), ["a dog"], cancel=over(k)),
        f"cancelled call, {kind.__name__}": lambda m, k=kind: m.generate([picture(), "An"], cancel=timed(k), **LONG),
        f"cancelled stream, {kind.__name__}": lambda m, k=kind: list(
            m.generate([picture(), "An"], cancel=timed(k), stream=True, **LONG)
        ),
        f"cancelled batch, {kind.__name__}": lambda m, k=kind: list(
            m.batch([png(), png(1)], "ask", batch_size=2, question="which?", cancel=timed(k), **LONG)
        ),
        f"cancelled score, {kind.__name__}": lambda m, k=kind: m.score(png(), ["a dog " * 99] * 99, cancel=timed(k)),
    }


def test_no_part_of_an_error_keeps_frames() -> None:
    def met(error: Exception) -> Exception:
        try:
            raise error
        except Exception:
            return error

    cause, context, below = met(ValueError("cause")), met(OSError("context")), met(KeyError("below"))
    error = Cancelled("never raised itself")
    error.__cause__, error.__context__, context.__context__ = cause, context, below
    below.__context__ = error  # a circle ends
    assert without_frames(error) is error
    assert [part.__traceback__ for part in (error, cause, context, below)] == [None] * 4
    other = met(LookupError("of the caller's own"))
    assert without_frames(other).__traceback__ is not None


@pytest.mark.parametrize(
    ("isolation", "where"), [("none", "main thread"), ("none", "another thread"), ("process", "main thread")]
)
@pytest.mark.parametrize("name", CALLS)
def test_nothing_holds_a_closed_model(name: str, isolation: Any, where: str) -> None:
    kept: list[Any] = []  # what a host notes down for later

    def use() -> None:
        try:
            kept.append(CALLS[name](model))
        except (KosmosError, LookupError) as error:
            kept.append(error)

    model = load(tiny_file(), threads=1, isolation=isolation)
    session = weakref.ref(model._open)
    if where == "main thread":
        use()
    else:
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    model.close()
    for _ in range(3000):  # a helper that was told to end may take a moment
        if session() is None:
            break
        time.sleep(0.01)
    assert session() is None
    assert kept and not [t for t in threading.enumerate() if t.name == "kosmos-edge worker" and t.is_alive()]
