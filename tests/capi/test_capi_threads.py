"""The C interface under threads, callbacks, cancelling and fork."""

import os
import subprocess
import sys
import threading
from ctypes import byref, c_size_t
from pathlib import Path

import pytest
from helpers import capi
from helpers.api_model import long_file, picture, tiny_file
from helpers.capi import CError, call, lib, make
from helpers.tiny import TinyConfig


@pytest.fixture(scope="module")
def model():
    handle = capi.load(tiny_file(), threads=2)
    yield handle
    lib().kosmos_model_free(handle)


@pytest.fixture(scope="module")
def long_model():
    handle = capi.load(long_file(), threads=1)
    yield handle
    lib().kosmos_model_free(handle)


@pytest.fixture(scope="module")
def long_image(long_model):
    return capi.encode(long_model, picture())


def endless(**values) -> capi.Options:
    """An answer that takes seconds (no n-gram rule, so that random weights rarely end it)."""
    return capi.Options(**{"max_tokens": 16000, "no_repeat_ngram_size": -1, "grammar": -1} | values)


def code_of(name: str, *arguments) -> int:
    with pytest.raises(CError) as error:
        make(name, *arguments)
    return error.value.code


def test_cancel_from_another_thread(long_model, long_image):
    for _ in range(5):
        cancel = make("cancel_create")
        begun = threading.Event()

        @capi.Abort
        def polled(user, begun=begun):
            begun.set()
            return 0

        def work(cancel=cancel, begun=begun):
            assert begun.wait(30)
            call("cancel_set", cancel)

        other = threading.Thread(target=work)
        other.start()
        options = endless(cancel=cancel, on_abort=polled)
        assert code_of("caption", long_model, long_image, byref(options)) == capi.CANCELLED
        other.join()
        assert code_of("caption", long_model, long_image, byref(endless(cancel=cancel))) == capi.CANCELLED
        lib().kosmos_cancel_free(cancel)


@pytest.mark.parametrize("after", [0, 1, 2])  # polls that go well
def test_an_abort_callback_ends_every_call(model, after):
    def abort():
        left = [after]

        @capi.Abort
        def polled(user):
            left[0] -= 1
            return int(left[0] < 0)

        return polled

    image = capi.encode(model, picture())
    polled = abort()
    with pytest.raises(CError) as error:
        capi.encode(model, picture(), on_abort=polled)
    assert error.value.code == capi.CANCELLED
    assert code_of("caption", model, image, byref(capi.Options(on_abort=abort()))) == capi.CANCELLED
    options = capi.ScoreOptions(on_abort=abort())
    words = capi.texts("one", "two three")
    assert code_of("score", model, image, words, c_size_t(2), byref(options)) == capi.CANCELLED
    assert capi.read(make("caption", model, image, None))["ids"]  # nothing is left behind
    lib().kosmos_image_free(image)


def test_every_layer_asks_whether_to_go_on(model):
    polls = []

    @capi.Abort
    def polled(user):
        polls.append(None)
        return 0

    side = TinyConfig().image_size  # a picture of this size is not resized, which asks too
    image = capi.encode(model, picture(0, side, side), on_abort=polled)
    assert len(polls) > 2 * TinyConfig().vision_layers  # before attention and before the feed-forward part of each
    polls.clear()
    answer = capi.read(make("caption", model, image, byref(capi.Options(max_tokens=4, on_abort=polled))))
    assert len(polls) > 2 * TinyConfig().layers * len(answer["ids"])
    lib().kosmos_image_free(image)


def test_progress_and_log():
    seen, lines = [], []

    @capi.Progress
    def progress(done, total, user):
        seen.append((done, total, user))
        return 0

    @capi.Log
    def log(level, message, user):
        lines.append((level, message.decode(), user))

    handle = capi.load(tiny_file(), threads=1, on_progress=progress, on_log=log, user=42)
    total = seen[0][1]
    assert seen[0] == (0, total, 42) and seen[-1] == (total, total, 42) and len(seen) > 10
    assert [s[0] for s in seen] == sorted(s[0] for s in seen)
    assert total == pytest.approx(tiny_file().stat().st_size, rel=0.5)
    image = capi.encode(handle, picture())
    capi.read(make("caption", handle, image, byref(capi.Options(max_tokens=3))))
    kinds = [line[1].split()[0] for line in lines]
    assert kinds[0] == "loaded" and kinds[-2:] == ["encoded", "answered"] and {line[2] for line in lines} == {42}
    lib().kosmos_model_free(handle)


@pytest.mark.parametrize("at", [1, 2, 20])
def test_a_progress_callback_ends_the_load(at):
    seen = []

    @capi.Progress
    def progress(done, total, user):
        seen.append(done)
        return int(len(seen) == at)

    with pytest.raises(CError) as error:
        capi.load(tiny_file(), threads=1, on_progress=progress)
    assert error.value.code == capi.CANCELLED and len(seen) == at


def test_a_cancel_flag_ends_the_load():
    cancel = make("cancel_create")
    call("cancel_set", cancel)
    with pytest.raises(CError) as error:
        capi.load(tiny_file(), threads=1, cancel=cancel)
    assert error.value.code == capi.CANCELLED
    lib().kosmos_cancel_free(cancel)


def test_eight_threads_share_one_model_and_give_the_serial_answers(model):
    pictures = [picture(seed) for seed in range(8)]

    def answer(array) -> list[int]:
        image = capi.encode(model, array)
        result = capi.read(make("caption", model, image, byref(capi.Options(max_tokens=16, ground=1))))
        lib().kosmos_image_free(image)
        return result["ids"]

    serial = [answer(p) for p in pictures]
    found: dict[int, list] = {}

    def work(number: int) -> None:
        found[number] = [answer(pictures[(number + i) % 8]) for i in range(4)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for number in range(8):
        assert found[number] == [serial[(number + i) % 8] for i in range(4)]


def test_eight_threads_share_one_image_and_one_picture(model):
    pixels = picture()
    image = capi.encode(model, pixels)
    options = byref(capi.Options(max_tokens=8))

    def answer(number: int) -> list[int]:
        """The verb of that number, of the image that all share or of one made of the pixels that all share."""
        used = image if number % 2 else capi.encode(model, pixels)
        verb, words = [("caption", ()), ("ground", (None,)), ("locate", (b"a dog",)), ("ask", (b"what?",))][number // 2]
        ids = capi.read(make(verb, model, used, *words, options))["ids"]
        if not number % 2:
            lib().kosmos_image_free(used)
        return ids

    serial = [answer(number) for number in range(8)]
    found: dict[int, list] = {}
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        found[number] = [answer((number + i) % 8) for i in range(8)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    lib().kosmos_image_free(image)
    assert serial[0] == serial[1] and serial[6] == serial[7]
    for number in range(8):
        assert found[number] == [serial[(number + i) % 8] for i in range(8)]


def test_handles_may_be_freed_while_others_use_them():
    model = capi.load(long_file(), threads=1)
    image = capi.encode(model, picture())
    begun = threading.Event()

    @capi.OnEvent
    def on_event(event, user):
        begun.set()
        return int(not lib().kosmos_ranking_count(None) and freed.is_set())

    freed = threading.Event()

    def work():
        assert begun.wait(30)
        lib().kosmos_model_free(model)
        lib().kosmos_image_free(image)
        freed.set()

    other = threading.Thread(target=work)
    other.start()
    result = capi.read(make("caption", model, image, byref(endless(on_event=on_event))))
    other.join()
    assert result["finish"] == "callback" and result["ids"]
    with pytest.raises(CError, match="not a live handle"):
        make("caption", model, image, None)


def test_a_freed_handle_stays_dead_when_its_place_is_taken():
    def place(handle) -> int:
        return handle.value >> 5 & (1 << 28) - 1  # csrc/capi/handles.cpp

    old = make("cancel_create")
    lib().kosmos_cancel_free(old)
    others = []
    while not others or place(others[-1]) != place(old):
        others.append(make("cancel_create"))
        assert len(others) < 100_000
    assert others[-1].value != old.value
    with pytest.raises(CError, match="not a live handle"):
        call("cancel_set", old)
    for other in others:
        lib().kosmos_cancel_free(other)


def test_a_callback_may_call_the_library(model):
    image = capi.encode(model, picture())
    inner = []

    @capi.OnEvent
    def on_event(event, user):
        if len(inner) < 3:
            inner.append(capi.read(make("caption", model, image, byref(capi.Options(max_tokens=4))))["ids"])
        return 0

    outer = capi.read(make("caption", model, image, byref(capi.Options(max_tokens=4, on_event=on_event))))["ids"]
    assert inner == [outer] * len(inner) and inner
    lib().kosmos_image_free(image)


FORK = """
import ctypes, os, sys
sys.path.insert(0, {tests!r})
from helpers import capi
from helpers.api_model import picture
from helpers.capi import CError, lib, make
from ctypes import byref
model = capi.load({model!r}, threads=2)
image = capi.encode(model, picture())
options = byref(capi.Options(max_tokens=4))
before = capi.read(make("caption", model, image, options))["ids"]
child = os.fork()
if child == 0:
    code = 3
    try:
        make("caption", model, image, options)
    except CError as error:
        if error.code == capi.FORKED:
            lib().kosmos_model_free(model)
            own = capi.load({model!r}, threads=2)
            same = capi.read(make("caption", own, capi.encode(own, picture()), options))["ids"] == before
            lib().kosmos_model_free(own)
            code = 0 if same else 4
    os._exit(code)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
after = capi.read(make("caption", model, image, options))["ids"]
print(status, after == before)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_told_and_may_load_its_own():
    lib()  # skips where it is not built, which the other process cannot
    code = FORK.format(tests=str(Path(__file__).parents[1]), model=str(tiny_file()))
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert out.stdout.split() == ["0", "True"], out.stderr


def test_nothing_is_printed():
    lib()
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from helpers import capi
from helpers.capi import CError, lib, make
try:
    capi.load("/nowhere")
except CError:
    pass
model = capi.load({str(tiny_file())!r}, threads=2)
from helpers.api_model import picture
capi.read(make("caption", model, capi.encode(model, picture()), None))
lib().kosmos_model_free(model)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert (out.returncode, out.stdout, out.stderr) == (0, b"", b"")


def test_models_come_and_go_cleanly():
    def counts() -> tuple[int, int]:
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

    if not Path("/proc/self/task").exists():
        pytest.skip("no /proc here")
    lib().kosmos_model_free(capi.load(tiny_file(), threads=3))
    before = counts()
    for _ in range(20):
        handle = capi.load(tiny_file(), threads=3)
        lib().kosmos_image_free(capi.encode(handle, picture()))
        lib().kosmos_model_free(handle)
    assert counts() == before
