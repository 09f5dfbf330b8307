"""isolation="process" in figures: 200 kills at random instants, and what the worker process costs.

    python bench/isolation.py [--model FILE] [--threads N] [--kills 200] [--captions 200] [--format json]

Kills: SIGKILL, SIGSEGV, SIGBUS and SIGTERM in turn, at a random instant while calls run without a pause (captions,
streams, batches, questions about an encoded picture). Latency of an error: from the kill to WorkerDied in the caller.
Restart: the first call after it, which starts a worker and loads the model. Afterwards every answer must be that of
before, and no process, file descriptor or thread may be left.
Overhead: captions of one picture in this process and in a worker, in turn; the median difference, for a file's path
and for pixels of 12 million points.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from kosmos_edge import Model, WorkerDied, load
from kosmos_edge.bench.workload import jpeg_bytes, synthetic_photo
from kosmos_edge.images import open_image

SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGTERM)


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Milliseconds."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return {"median_ms": statistics.median(ordered) * 1e3, "p99_ms": p99 * 1e3, "max_ms": ordered[-1] * 1e3}


def kills(model: Model, count: int, chance: random.Random) -> dict[str, Any]:
    """That many kills; see above."""
    session: Any = model._open
    photo = jpeg_bytes(synthetic_photo(1))
    encoded = model.encode(jpeg_bytes(synthetic_photo(2)))
    calls = (
        lambda: model.caption(photo, ground=True, logprobs=True),
        lambda: list(model.caption(photo, stream=True, ground=True, logprobs=True))[-1].result,
        lambda: model.ask(encoded, "What is this?", logprobs=True),
        lambda: list(model.batch([photo] * 3, batch_size=2, on_error="raise", ground=True, logprobs=True))[-1],
    )
    want = []
    longest = 0.0
    for call in calls:
        start = time.perf_counter()
        answer = call()
        longest = max(longest, time.perf_counter() - start)
        want.append((answer.token_ids, answer.logprobs))
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    told: list[float] = []
    restarts: list[float] = []
    right = 0
    for number in range(count):
        killed = [0.0]

        def kill(at: list[float] = killed, which: int = number) -> None:
            at[0] = time.perf_counter()
            os.kill(session.process_id, SIGNALS[which % len(SIGNALS)])

        timer = threading.Timer(chance.uniform(0, longest), kill)
        timer.start()
        at = number % len(calls)
        while True:
            try:
                answer = calls[at]()
                right += (answer.token_ids, answer.logprobs) == want[at]
            except WorkerDied:
                told.append(time.perf_counter() - killed[0])
                break
            if killed[0] and not timer.is_alive():  # between two calls: nobody had to be told
                break
        timer.join()
        start = time.perf_counter()
        while True:
            try:
                answer = calls[at]()
                break
            except WorkerDied:  # the signal came behind the last answer
                told.append(time.perf_counter() - killed[0])
                start = time.perf_counter()
        restarts.append(time.perf_counter() - start)
        if (answer.token_ids, answer.logprobs) != want[at]:
            raise SystemExit(f"kill {number}: expected the answer {want[at]}, got {answer.token_ids} {answer.logprobs}")
        if number % 20 == 19:
            print(f"{number + 1} kills, {len(told)} calls were told", file=sys.stderr, flush=True)
    after = len(os.listdir("/proc/self/fd")), threading.active_count()
    children = [c for t in Path("/proc/self/task").iterdir() for c in (t / "children").read_text().split()]
    return {
        "kills": count,
        "host_alive": count,
        "calls_told": len(told),
        "error": quantiles(told),
        "next_call": quantiles(restarts),
        "left_fds": after[0] - before[0],
        "left_threads": after[1] - before[1],
        "children": len(children),
    }


def overhead(here: Model, there: Model, captions: int) -> dict[str, Any]:
    """Milliseconds that a caption costs more in a worker."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        path.write_bytes(jpeg_bytes(synthetic_photo(1)))
        pixels = open_image(jpeg_bytes(synthetic_photo(1, (4000, 3000))))
        for name, image in (("path", path), ("pixels, 36 MB", pixels)):
            times: dict[str, list[float]] = {"here": [], "there": []}
            for number in range(captions + 3):
                for place, model in (("here", here), ("there", there)):
                    start = time.perf_counter()
                    model.caption(image, max_tokens=16)
                    if number >= 3:
                        times[place].append(time.perf_counter() - start)
            medians = {place: statistics.median(values) * 1e3 for place, values in times.items()}
            pairs = [(b - a) * 1e3 for a, b in zip(times["here"], times["there"], strict=True)]
            found[name] = {**medians, "more": statistics.median(pairs)}
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--captions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--format", choices=["text", "json"], default="text")
    given = parser.parse_args()
    start = time.perf_counter()
    there = load(given.model, threads=given.threads, isolation="process")
    start_ms = (time.perf_counter() - start) * 1e3
    start = time.perf_counter()
    here = load(given.model, threads=given.threads)
    report: dict[str, Any] = {"model": here.name, "device": here.description, "load_worker_ms": start_ms}
    report["load_here_ms"] = (time.perf_counter() - start) * 1e3
    report["overhead"] = overhead(here, there, given.captions)
    here.close()
    report["kills"] = kills(there, given.kills, random.Random(given.seed))
    there.close()
    if given.format == "json":
        print(json.dumps(report, indent=2))
        return
    print(f"{report['model']}, {report['device']}")
    print(f"load: {report['load_here_ms']:.0f} ms here, {start_ms:.0f} ms with a worker process")
    for name, row in report["overhead"].items():
        print(f"caption of {name}: {row['here']:.2f} ms here, {row['there']:.2f} in a worker, {row['more']:+.2f} ms")
    row = report["kills"]
    print(f"{row['kills']} kills: host alive {row['host_alive']}, {row['calls_told']} calls told")
    for name, words in (("error", "from the kill to the error"), ("next_call", "the next call, answered")):
        q = row[name]
        print(f"  {words}: median {q['median_ms']:.1f}, p99 {q['p99_ms']:.1f}, max {q['max_ms']:.1f} ms")
    left = f"{row['left_fds']} file descriptors, {row['left_threads']} threads, {row['children'] - 1} processes"
    print(f"  left behind: {left}")


if __name__ == "__main__":
    main()
