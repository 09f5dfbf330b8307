"""What a host process does to a model that lives in it: forks, and threads of its own beside every long call."""

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
from helpers.api_model import picture, tiny_file
from test_api_stream import counts_during

from kosmos_edge import _core

FORKING = """
import multiprocessing, os, sys, threading, warnings
sys.path.insert(0, {tests!r})
from helpers.api_model import picture
from kosmos_edge import Forked, load
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is what is tried
model = load({model!r}, threads=3)
image = model.encode(picture())
want = model.caption(picture(), logprobs=True).logprobs
stop = threading.Event()
def work():
    while not stop.is_set():
        model.caption(picture(), max_tokens=3)
busy = [threading.Thread(target=work) for _ in range(2)]
for thread in busy:
    thread.start()
stream = model.caption(picture(), stream=True)
next(stream)
answers = model.batch([picture()] * 9, batch_size=2)
next(answers)
calls = (
    lambda: model.caption(picture()),
    lambda: model.score(picture(), ["a dog"]),
    lambda: model.encode(picture()),
    lambda: model.ask(image, "what?"),
    lambda: model.batch([picture()]),
    lambda: model.device,
    lambda: next(stream),
    lambda: next(answers),
)

def use_it():
    told = 0
    for call in calls:
        try:
            call()
        except Forked as error:
            told += "load it again" in str(error)
    with load({model!r}, threads=2) as own:
        told += own.caption(picture(), logprobs=True).logprobs == want
    repr(model), model.name, image.shape
    return told

right = 0
for number in range(24):
    child = os.fork()
    if child == 0:
        code = 0 if number % 3 or use_it() == len(calls) + 1 else 1
        sys.exit(code)  # in order: destructors and what is registered for the end run
    right += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(use_it()))
process.start()
process.join()
stop.set()
for thread in busy:
    thread.join()
print(right, process.exitcode, model.caption(picture(), logprobs=True).logprobs == want, len(list(answers)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_told_and_the_parent_notices_nothing(tmp_path: Path) -> None:
    """While other threads of the parent compute, stream and batch."""
    program = FORKING.format(tests=str(Path(__file__).parents[1]), model=str(tiny_file()))
    command = [sys.executable, "-P", "-W", "error::ResourceWarning", "-c", program]
    out, said = tmp_path / "out", tmp_path / "said"  # no pipes: a child that hangs would hold them open
    with out.open("w") as stdout, said.open("w") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, start_new_session=True)
        try:
            code = process.wait(240)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    assert (code, out.read_text(), said.read_text()) == (0, "24 9 True 8\n", "")


@pytest.mark.parametrize("what", ["quantize", "dequantize", "resize", "GgufFile"])
def test_the_gil_is_free_while_a_converter_works(what: str) -> None:
    """As test_api_stream.py for the engine: with the lock held, the counting thread would not get on at all."""
    values = np.linspace(-1, 1, 1 << 20, dtype=np.float32)
    blocks = _core.quantize("Q6_K", values, "F32", 2048)
    pixels = np.ascontiguousarray(np.tile(picture(0, 100, 100), (20, 20, 1)))
    calls: dict[str, Callable[[], object]] = {
        "quantize": lambda: _core.quantize("Q4_K", values, "F32", 2048),
        "dequantize": lambda: [_core.dequantize("Q6_K", blocks, 1 << 20) for _ in range(4)],
        "resize": lambda: _core.resize_bicubic(pixels, 2000, 2000, 224, 224),
        "GgufFile": lambda: [_core.GgufFile(str(tiny_file())) for _ in range(40)],
    }
    assert counts_during(calls[what]) > 0


def test_two_models_in_two_threads_open_and_close() -> None:
    """Loading, answering and closing in several threads at once leaves nothing behind."""
    from kosmos_edge import load

    want = load(tiny_file(), threads=1).caption(picture(), logprobs=True).logprobs
    wrong: list[object] = []

    def work() -> None:
        for _ in range(5):
            with load(tiny_file(), threads=2) as model:
                if model.caption(picture(), logprobs=True).logprobs != want:
                    wrong.append(1)

    work()
    before = len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 0
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    while before and len(os.listdir("/proc/self/task")) > before:  # a thread ends a little after it is joined
        time.sleep(0.01)
