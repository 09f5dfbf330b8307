"""What a host process meets: Ctrl-C, fork, the interpreter's lock. Each is tried many times; exit status 1 on a miss.

python bench/host.py ctrl-c [--count 100]     # 100 in Python calls, 100 in the command line
python bench/host.py fork [--count 1000]      # children use the parent's model, then load their own
python bench/host.py gil                      # a counting thread beside open, caption, convert, here and elsewhere
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from kosmos_edge import Forked, load
from kosmos_edge.bench.workload import jpeg_bytes, synthetic_photo

CALLS = """
import sys, time
from kosmos_edge import load
photo, model = open(sys.argv[1], "rb").read(), load(sys.argv[2], threads=1)
want = model.caption(photo, logprobs=True).logprobs
print("ready", flush=True)
for line in sys.stdin:
    try:
        print("go", flush=True)
        while True:
            model.caption(photo, ground=True)
            list(model.batch([photo] * 3, batch_size=2))
            list(model.caption(photo, stream=True))
    except KeyboardInterrupt:
        at = time.time()
        print(at, model.caption(photo, logprobs=True).logprobs == want, flush=True)
"""


def ctrl_c_in_calls(model: str, photo: Path, count: int, chance: random.Random) -> tuple[int, list[float]]:
    """How often KeyboardInterrupt came and the next answer was right, and after how many seconds it came."""
    command = [sys.executable, "-c", CALLS, str(photo), model]
    times, right = [], 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(count):
            process.stdin.write("again\n")
            process.stdin.flush()
            assert process.stdout.readline() == "go\n"
            time.sleep(chance.uniform(0, 0.3))
            sent = time.time()
            process.send_signal(signal.SIGINT)
            at, same = process.stdout.readline().split()
            times.append(float(at) - sent)
            right += same == "True"
        process.stdin.close()
    return right, times


def ctrl_c_in_commands(model: str, photo: Path, count: int, chance: random.Random) -> int:
    """How often the command ended with 130, said so in a line, and left at most finished answers, in FILE.part."""
    right = 0
    for number in range(count):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "kosmos_edge", "batch", *[str(photo)] * 3000, "-m", model, "-t", "1", "-v"]
            command += ["-o", str(Path(folder) / "out.jsonl")]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                assert process.stderr is not None
                process.stderr.readline()
                time.sleep(chance.uniform(0, 1.0))
                process.send_signal(signal.SIGINT)
                rest = process.communicate()[1]
            left = {path.name: path.read_text() for path in Path(folder).iterdir()}
            good = process.returncode == 130 and "interrupted" in rest and "Traceback" not in rest
            good = good and finished_answers(left, said=rest)
            right += good
            if not good:
                print(f"command {number}: exit {process.returncode}, left {left}: {rest[-300:]}", file=sys.stderr)
    return right


def finished_answers(left: dict[str, str], said: str) -> bool:
    """Whether an interrupted batch left nothing, or only FILE.part with as many whole answers as it said."""
    if not left:
        return "finished answer" not in said
    text = left.get("out.jsonl.part", "")
    count = len([json.loads(line) for line in text.splitlines()])
    noun = "1 finished answer is" if count == 1 else f"{count} finished answers are"
    return list(left) == ["out.jsonl.part"] and count > 0 and text.endswith("\n") and f"{noun} in" in said


def forks(path: str, count: int) -> tuple[int, list[float]]:
    """How many children were told at once, could load their own model and ended with 0; and seconds until told."""
    model = load(path, threads=2)
    photo = jpeg_bytes(synthetic_photo(1))
    want = model.caption(photo, logprobs=True).logprobs
    busy = threading.Event()

    def work() -> None:
        while not busy.is_set():
            model.caption(photo, max_tokens=2)

    worker = threading.Thread(target=work)
    worker.start()
    right, times = 0, []
    try:
        for number in range(count):
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                start = time.perf_counter()
                try:
                    model.caption(photo)
                except Forked:
                    os.write(write, str(time.perf_counter() - start).encode())
                if number % 20 == 0:
                    with load(path, threads=2) as own:
                        if own.caption(photo, logprobs=True).logprobs != want:
                            os._exit(1)
                sys.exit(0)
            os.close(write)
            with os.fdopen(read) as pipe:
                told = pipe.read()
            right += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 and bool(told)
            times.append(float(told or "inf"))
    finally:
        busy.set()
        worker.join()
    if model.caption(photo, logprobs=True).logprobs != want:
        raise SystemExit("the parent's answers changed")
    return right, times


def counting(call: Callable[[], object], seconds: float) -> float:
    """How often per second another thread counts while the call is repeated for so long."""
    stop, count = threading.Event(), [0]

    def work() -> None:
        while not stop.is_set():
            for _ in range(1000):
                count[0] += 1

    thread = threading.Thread(target=work)
    thread.start()
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        call()
    end = time.perf_counter()
    stop.set()
    thread.join()
    return count[0] / (end - start)


def gil_calls(path: str) -> dict[str, Callable[[], object]]:
    """The calls that `gil` repeats, with one computing thread."""
    model = load(path, threads=1)
    photo = jpeg_bytes(synthetic_photo(1))
    from kosmos_edge import _core

    values = bytes(4 << 20)
    return {
        "open": lambda: load(path, threads=1).close(),
        "caption": lambda: model.caption(photo, max_tokens=64, logprobs=True, grammar=False),
        "convert": lambda: _core.quantize("Q6_K", values, "F32", 2048),
    }


def repeat_calls(path: str, orders: Connection) -> None:
    """In a process of its own: repeats the call whose name comes until the next order; None ends it."""
    calls = gil_calls(path)
    orders.send("ready")
    name = orders.recv()
    while name is not None:
        if name:
            calls[name]()
        if not name or orders.poll():
            name = orders.recv()


def gil(path: str) -> dict[str, tuple[float, float]]:
    """The counting rate beside each call over the rate alone: with the call in this process, and in another one.

    One thread computes, one counts: two cores are needed. The other process shares the machine but not the lock, so
    the quotient of the two figures is what the lock costs.
    """
    calls = gil_calls(path)
    context = multiprocessing.get_context("spawn")
    orders, theirs = context.Pipe()
    other = context.Process(target=repeat_calls, args=(path, theirs), daemon=True)
    other.start()
    orders.recv()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(9):
        for name, call in calls.items():
            alone = counting(lambda: time.sleep(0.5), 0.5)
            here = counting(call, 1)
            orders.send(name)
            elsewhere = counting(lambda: time.sleep(1), 1)
            orders.send("")
            found[name].append((here / alone, elsewhere / alone))
    orders.send(None)
    other.join()
    return {
        name: (statistics.median(here for here, _ in rows), statistics.median(elsewhere for _, elsewhere in rows))
        for name, rows in found.items()
    }


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["ctrl-c", "fork", "gil"])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a background job of a shell, and so are the children
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if given.what == "gil":
        rates = gil(given.model)
        for name, (here, elsewhere) in rates.items():
            print(
                f"{name}: {100 * here:.0f} % of the rate alone, {100 * elsewhere:.0f} % if another process does it: "
                f"the lock leaves {100 * here / elsewhere:.0f} %"
            )
        return 0 if all(here / elsewhere >= 0.9 for here, elsewhere in rates.values()) else 1
    if given.what == "fork":
        count = given.count or 1000
        right, times = forks(given.model, count)
        p99, most = sorted(times)[int(0.99 * (count - 1))] * 1e3, max(times) * 1e3
        print(f"{right}/{count} children were told and ended with 0; told after {p99:.2f} ms (p99), at most {most:.2f}")
        return 0 if right == count else 1
    count = given.count or 100
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.jpg"
        photo.write_bytes(jpeg_bytes(synthetic_photo(1)))
        right, times = ctrl_c_in_calls(given.model, photo, count, chance)
        p99, most = sorted(times)[int(0.99 * (count - 1))] * 1e3, max(times) * 1e3
        print(f"calls: {right}/{count} interrupted, the next answer right; p99 {p99:.0f} ms, at most {most:.0f}")
        commands = ctrl_c_in_commands(given.model, photo, count, chance)
        print(f"commands: {commands}/{count} ended with 130 and left finished answers only")
    return 0 if right == commands == count else 1


if __name__ == "__main__":
    sys.exit(main())
