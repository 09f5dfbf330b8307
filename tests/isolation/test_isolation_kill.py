"""The worker process is killed, the host killed, forked or interrupted: who lives, who is told what, what is left."""

import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.api_model import picture, png, tiny_file

from kosmos_edge import ModelCorrupt, ModelNotFound, WorkerDied, load
from kosmos_edge.isolation import process as isolation_process
from kosmos_edge.isolation.session import RemoteSession

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes through /proc")

NANO = Path(__file__).parents[2] / "kosmos_edge" / "data" / "nano-q4_k_m.gguf"
TESTS = str(Path(__file__).parents[1])


def worker_of(model: Any) -> int:
    session = model._open
    assert isinstance(session, RemoteSession) and session.process_id is not None
    return session.process_id


def running(process: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def wait_until_gone(process: int) -> None:
    """Fails by the test runner's own patience; asks no clock."""
    while running(process):
        time.sleep(0.01)


def children() -> set[str]:
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found.update((task / "children").read_text().split())
    return found


def held() -> tuple[int, int]:
    """File descriptors and threads of this process, without those of workers that others left to end by themselves."""
    gc.collect()
    for worker in list(isolation_process._workers):
        if worker.ended:
            worker.join(60)
    return len(os.listdir("/proc/self/fd")), threading.active_count()


def test_killed_at_random_instants() -> None:
    """Every call gets its answer or WorkerDied; every further call works; nothing is left behind."""
    chance = random.Random(5)
    with load("nano", threads=1, isolation="process") as model:
        image = model.encode(png(1))
        alone, asked = model.caption(png()).token_ids, model.ask(image, "what is there?").token_ids
        before = held()
        died = 0
        for round in range(16):
            number = [signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGTERM][round % 4]
            timer = threading.Timer(chance.random() * 0.03, os.kill, (worker_of(model), number))
            timer.start()
            while timer.is_alive():
                try:
                    answers = [r for r in model.batch([png()] * 3, batch_size=2)] if round % 3 == 2 else []
                    if round % 3 == 1:
                        model.caption(png(), stream=True).send(None)
                    assert all(r.token_ids == alone or isinstance(r.error, WorkerDied) for r in answers)  # type: ignore
                    assert model.caption(png()).token_ids == alone
                except WorkerDied as error:
                    died += 1
                    assert "the next call starts another one" in str(error)
            timer.join()
            while True:  # the kill may have come behind the last call
                try:
                    assert model.caption(png()).token_ids == alone
                    break
                except WorkerDied:
                    died += 1
            assert model.ask(image, "what is there?").token_ids == asked  # encoded pictures outlive their worker
        assert died > 0
        assert len(children()) == 1 and children() == {str(worker_of(model))}
        assert held() == before


def test_all_threads_are_told() -> None:
    with load(tiny_file(), threads=1, isolation="process") as model:
        told: list[BaseException] = []

        def work() -> None:
            try:
                while True:
                    model.caption(picture(), max_tokens=100)
            except WorkerDied as error:
                told.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        process = worker_of(model)
        os.kill(process, signal.SIGSTOP)  # so that all of them wait for an answer, or will
        time.sleep(0.2)
        os.kill(process, signal.SIGKILL)
        for thread in threads:
            thread.join()
        assert len(told) == 4 and all("SIGKILL" in str(error) for error in told)
        assert model.caption(picture(), max_tokens=5).ok


def test_a_batch_goes_on_in_the_next_worker() -> None:
    with load("nano", threads=1, isolation="process") as model:
        want = model.caption(png()).token_ids

        def images() -> Any:
            for number in range(30):
                if number == 10:
                    os.kill(worker_of(model), signal.SIGKILL)
                yield png()

        results: list[Any] = list(model.batch(images(), batch_size=2))
        assert len(results) == 30
        assert all(r.token_ids == want if r.ok else isinstance(r.error, WorkerDied) for r in results)
        assert results[0].ok and results[-1].ok and 1 <= sum(not r.ok for r in results) <= 2 * 2 + 1


def test_a_model_file_cut_under_the_worker(tmp_path: Path) -> None:
    """What no process survives, a page of a mapped file that is gone, is an error here."""
    path = tmp_path / "model.gguf"
    content = NANO.read_bytes()
    path.write_bytes(content)
    with load(path, threads=1, isolation="process") as model:
        want = model.caption(png()).token_ids
        os.truncate(path, 4096)
        with pytest.raises(WorkerDied, match="SIGBUS"):
            model.caption(png())
        with pytest.raises(ModelCorrupt):
            model.caption(png())
        path.unlink()
        with pytest.raises(ModelNotFound):
            model.caption(png())
        path.write_bytes(tiny_file().read_bytes())
        with pytest.raises(ModelCorrupt, match="another model"):
            model.caption(png())
        path.write_bytes(content)
        assert model.caption(png()).token_ids == want


def test_loading_in_a_thread_that_ends() -> None:
    """The system ends a worker with the thread that started it: that must not be the caller's."""
    models: list[Any] = []
    thread = threading.Thread(target=lambda: models.append(load(tiny_file(), threads=1, isolation="process")))
    thread.start()
    thread.join()
    with models[0] as model:
        process = worker_of(model)
        assert model.caption(picture(), max_tokens=3).ok and worker_of(model) == process


HOST = """
import os, signal, sys, threading, time
sys.path.insert(0, {tests!r})
from helpers.api_model import picture
from kosmos_edge import Forked, KosmosError, load
model = load({model!r}, threads=1, isolation="process")
worker = model._open.process_id
print(worker, flush=True)
{then}
"""


def host(then: str) -> subprocess.Popen[str]:
    program = HOST.format(tests=TESTS, model=str(tiny_file()), then=then)
    return subprocess.Popen(
        [sys.executable, "-P", "-W", "error", "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("busy", [False, True])
def test_the_worker_dies_with_its_host(busy: bool) -> None:
    call = "threading.Thread(target=lambda: [model.caption(picture()) for _ in range(10**6)]).start()\n" if busy else ""
    with host(call + "time.sleep(1000)") as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        time.sleep(0.1)
        assert running(worker)
        process.kill()
    wait_until_gone(worker)


def test_the_worker_ends_when_its_host_ends_in_order() -> None:
    with host("print(model.caption(picture(), max_tokens=2).ok)") as process:
        assert process.stdout is not None
        worker, rest = int(process.stdout.readline()), process.stdout.read()
    assert rest == "True\n" and process.returncode == 0
    wait_until_gone(worker)


def test_a_forked_child_is_told_and_takes_nothing_along() -> None:
    then = """
stream = model.caption(picture(), stream=True)
next(stream)
answers = model.batch([picture()] * 9, batch_size=2)
next(answers)
for _ in range(20):
    child = os.fork()
    if child == 0:
        told = 0
        for call in (lambda: model.caption(picture()), lambda: next(stream), lambda: next(answers)):
            try:
                call()
            except Forked:
                told += 1
        with load({model!r}, threads=1, isolation="process") as own:
            told += own.caption(picture(), max_tokens=2).ok
        sys.exit(0 if told == 4 else 10 + told)  # in order: what is registered for the end runs
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert model.caption(picture(), max_tokens=2).ok and model._open.process_id == worker
print(len(list(answers)), len(list(stream)) >= 0)
""".replace("{model!r}", repr(str(tiny_file()))).replace("range(20)", "range(5)")
    with host(then) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process.stdout.read() == "8 True\n"
    assert process.returncode == 0


def test_ctrl_c_is_for_the_host() -> None:
    """As a terminal sends it: to every process of the foreground group. The worker goes on to serve."""
    then = """
long = dict(max_tokens=400, choices=[("a dog " * 100).strip()], logprobs=True)
for number in range(5):
    try:
        threading.Timer(0.05, os.killpg, (os.getpgrp(), signal.SIGINT)).start()
        while True:
            model.generate([picture(), "An image of"], **long)
    except KeyboardInterrupt:
        print(model.caption(picture(), max_tokens=2).ok, model._open.process_id == worker)
"""
    program = HOST.format(tests=TESTS, model=str(tiny_file()), then="os.setpgrp()\n" + then)
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[1:] == ["True True"] * 5, done.stderr


def in_a_process_of_its_own(path: str) -> None:
    with load(path, threads=1, isolation="process") as model:
        assert model.caption(picture(), max_tokens=2).ok


def test_a_spawned_process_may_have_a_worker() -> None:
    import multiprocessing

    process = multiprocessing.get_context("spawn").Process(target=in_a_process_of_its_own, args=(str(tiny_file()),))
    process.start()
    process.join()
    assert process.exitcode == 0
