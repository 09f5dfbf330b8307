"""The messages between a host and its worker: what goes in comes out, and nonsense is an error, never an object."""

import contextlib
import math
import random
import socket
import threading
from typing import Any

import pytest

from kosmos_edge import Box, Entity, KosmosIOError, Line, OutOfMemory, Result, Timings, errors
from kosmos_edge.isolation import wire


def through(message: Any) -> Any:
    """The message after its way through a socket."""
    left, right = socket.socketpair()
    with left, right:
        pieces = wire.encode(message)

        def send() -> None:
            for piece in pieces:
                left.sendall(piece)
            left.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            found = wire.read(right)
            assert wire.read(right) is None
            return found
        finally:
            thread.join()


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(2**70),
        1e-310,
        0.1,
        math.inf,
        "Ж\ud800\n\0",
        [1, [2, (3, (), [])]],
        {"a": 1, "tuple": (1,), "class": None, "": {"error": "x"}},
        [b"", b"\0" * 100_000, b"x"],
        Entity("a dog", (0, 5), (Box((0.0, 0.1, 1.0, 1.0), None, (1, 2), 0.25),), None),
        Result("x", token_ids=[1, 2], logprobs=[-0.5, -math.inf], timings=Timings(tokens=3), notes=["n"], box=None),
        Result("x", lines=[Line("x", Box((0.0, 0.1, 1.0, 1.0), (0.0, 1.0, 9.0, 9.0)), 0.5)]),
    ],
)
def test_what_goes_in_comes_out(value: Any) -> None:
    found = through(value)
    assert found == value and type(found) is type(value)


def test_not_a_number_keeps_its_place() -> None:
    assert [math.isnan(value) for value in through([math.nan, 1.0])] == [True, False]


@pytest.mark.parametrize("name", wire.ERRORS)
def test_errors_keep_their_class_and_words(name: str) -> None:
    error = through(wire.ERRORS[name]("what was expected"))
    assert type(error) is getattr(errors, name) and error.args == ("what was expected",)


def test_errors_of_the_system_keep_their_number_and_file() -> None:
    error = through(KosmosIOError(13, "Permission denied", "a.png"))
    assert (error.errno, error.filename, str(error)) == (13, "a.png", "[Errno 13] Permission denied: 'a.png'")
    assert type(through(MemoryError("x"))) is OutOfMemory
    assert str(through(ZeroDivisionError("x"))) == "in the worker process: ZeroDivisionError: x"


def test_nothing_else_can_be_sent() -> None:
    for value in (object(), threading.Event(), int, {1, 2}, len):
        with pytest.raises(TypeError):
            wire.encode(value)


NONSENSE: list[bytes] = [
    b'{"class":"Popen","fields":["ls"]}',
    b'{"class":"Result","fields":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19]}',
    b'{"error":"SystemExit","arguments":[1]}',
    b'{"error":"WorkerDied","arguments":5}',
    b'{"bytes":7}',
    b'{"tuple":5}',
    b"{}",
    b"[" * 100_000,
    b"\xff\xfe",
    b"",
]


@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):
        read(wire.HEAD.pack(len(text), 0) + text)


def read(data: bytes) -> Any:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(data)
        left.shutdown(socket.SHUT_WR)
        return wire.read(right, 1 << 20)


def test_lengths_are_bounded_before_memory_is_taken() -> None:
    for head in (wire.HEAD.pack(2**32 - 1, 0), wire.HEAD.pack(2, 2**32 - 1)):
        with pytest.raises(ValueError):
            read(head + bytes(100))
    with pytest.raises(ValueError):
        read(wire.HEAD.pack(2, 1) + wire.LENGTH.pack(2**40) + b"{}")


def test_damaged_messages_never_raise_anything_else() -> None:
    good = b"".join(wire.encode({"call": 1, "result": Result("x", token_ids=[1]), "b": [b"abc", b"de"]}))
    chance = random.Random(1)
    for _ in range(3000):
        bad = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        with contextlib.suppress(ValueError):
            read(bytes(bad[: chance.randint(0, len(bad))] if chance.random() < 0.3 else bad))
