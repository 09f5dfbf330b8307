"""Long runs: does memory stay flat over many captions, models opened and closed, and cancelled requests?

    python bench/soak.py captions [--model FILE] [--threads N] [--count 10000] [--warm-up 500] [--as-is]
    python bench/soak.py cycles --count 1000      # load, caption, close
    python bench/soak.py cancels --count 5000     # requests cancelled at random instants
    python bench/soak.py batches --count 20       # batches of 16: what is held while they run, and afterwards
    python bench/soak.py pages --model READER     # pages of one PDF (pypdfium2), read by a model that reads

Memory is RssAnon + VmSwap of this process (mapped files are the page cache's, and not counted). The pictures are all
different, of many sizes, as files; every fourth caption is a stream, every eighth a batch of 4, every sixteenth a
question about an encoded picture that is then dropped. malloc has one heap here and gives back what is free before
memory is measured, for what it keeps at hand for many threads goes up and down by more than a small model takes;
--as-is measures that too. Growth: the median of the last tenth against the median of the first tenth after the
warm-up; slope: least squares over all samples, with R^2. Exit status 1 where memory grew by 1 % or more, or file
descriptors, threads or mappings of files are left over.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kosmos_edge import Cancelled, Model, load
from kosmos_edge.bench.workload import jpeg_bytes, synthetic_photo

SAMPLE_EVERY = 10
LIBC = ctypes.CDLL(None)


def held_bytes() -> int:
    """RssAnon + VmSwap."""
    total = 0
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "VmSwap"):
            total += int(value.split()[0]) * 1024
    return total


def one_heap() -> None:
    """From now on malloc has one heap for all threads: what others keep free cannot be given back (glibc only)."""
    if hasattr(LIBC, "malloc_trim"):
        LIBC.mallopt(-8, 1)  # M_ARENA_MAX


def give_back() -> None:
    """What is free goes back to the system: garbage, and what malloc keeps for the next request (glibc only)."""
    gc.collect()
    if hasattr(LIBC, "malloc_trim"):
        LIBC.malloc_trim(0)


def resources() -> dict[str, int]:
    """File descriptors, threads of the system, mappings of files (the system joins and splits anonymous ones)."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    tasks = len(os.listdir("/proc/self/task"))
    return {"fds": len(os.listdir("/proc/self/fd")), "threads": tasks, "mappings": sum("/" in line for line in maps)}


def photo(number: int) -> bytes:
    """A picture file of its own size and content."""
    chance = random.Random(number)
    return jpeg_bytes(synthetic_photo(number, (chance.randint(16, 900), chance.randint(16, 900))))


def captions(model: Model, tokens: int) -> Callable[[int], None]:
    """One request of a mixed kind."""

    def one(number: int) -> None:
        if number % 16 == 15:
            encoded = model.encode(photo(number))
            model.ask(encoded, "What is this?", max_tokens=tokens)
            model.ask(encoded, "How many?", max_tokens=tokens)
        elif number % 8 == 7:
            list(model.batch([photo(number + k * 100_000) for k in range(4)], batch_size=4, max_tokens=tokens))
        elif number % 4 == 3:
            list(model.caption(photo(number), stream=True, ground=True, max_tokens=tokens))
        else:
            model.caption(photo(number), ground=True, max_tokens=tokens)

    return one


def cycles(path: str, threads: int) -> Callable[[int], None]:
    """A model's whole life."""

    def one(number: int) -> None:
        with load(path, threads=threads) as model:
            model.caption(photo(number), max_tokens=4)

    return one


def cancels(model: Model) -> Callable[[int], None]:
    """A request that is cancelled somewhere: while the picture is decoded or encoded, in the prompt, in the answer."""
    start = time.perf_counter()
    model.caption(photo(1), max_tokens=64, logprobs=True)
    length = time.perf_counter() - start

    def one(number: int) -> None:
        flag = threading.Event()
        timer = threading.Timer(random.Random(number).uniform(0, length), flag.set)
        timer.start()
        try:
            if number % 4 == 3:
                list(model.batch([photo(number), photo(number + 1)], batch_size=2, cancel=flag, max_tokens=64))
            elif number % 4 == 2:
                list(model.caption(photo(number), stream=True, cancel=flag, max_tokens=64))
            else:
                model.caption(photo(number), cancel=flag, max_tokens=64, logprobs=True)
        except Cancelled:
            pass
        finally:
            timer.cancel()
            timer.join()

    return one


def pages(model: Model, tokens: int | None, count: int) -> Callable[[int], None]:
    """One page after the other of a PDF of `count` pages, each with its picture, as `kosmos-edge read` opens it."""
    from io import BytesIO

    from PIL import Image

    from kosmos_edge.documents import open_document, read_page

    pictures = [Image.open(BytesIO(photo(number))) for number in range(count)]
    pdf = BytesIO()
    pictures[0].save(pdf, "PDF", save_all=True, append_images=pictures[1:])
    document = open_document(pdf.getvalue(), dpi=72)
    limit = {} if tokens is None else {"max_tokens": tokens}

    def one(number: int) -> None:
        read_page(model, document.page(number % count + 1), markdown=number % 8 == 7, **limit)

    return one


def slope(values: list[tuple[int, int]]) -> tuple[float, float]:
    """Least squares: bytes per request, R^2."""
    n = len(values)
    mean_x, mean_y = sum(x for x, _ in values) / n, sum(y for _, y in values) / n
    xx = sum((x - mean_x) ** 2 for x, _ in values)
    xy = sum((x - mean_x) * (y - mean_y) for x, y in values)
    yy = sum((y - mean_y) ** 2 for _, y in values)
    return xy / xx, (xy * xy / (xx * yy) if yy else 0.0)


def soak(one: Callable[[int], None], count: int, warm_up: int, trim: bool) -> dict[str, Any]:
    """Runs it; the figures. trim: free memory is given back before it is measured."""
    for number in range(warm_up):
        one(number)
    give_back()
    before, start = resources(), time.perf_counter()
    values: list[tuple[int, int]] = [(0, held_bytes())]
    for number in range(warm_up, warm_up + count):
        one(number)
        done = number - warm_up + 1
        if done % SAMPLE_EVERY == 0:
            if trim:
                give_back()
            values.append((done, held_bytes()))
        if done % max(1, count // 20) == 0:
            seconds = time.perf_counter() - start
            print(f"{done} in {seconds:.0f} s, {values[-1][1] / 1e6:.2f} MB", file=sys.stderr, flush=True)
    give_back()
    after = resources()
    tenth = max(1, len(values) // 10)
    first, last = (statistics.median(v for _, v in part) for part in (values[:tenth], values[-tenth:]))
    per_request, r2 = slope(values)
    return {
        "requests": count,
        "warm_up": warm_up,
        "seconds": time.perf_counter() - start,
        "first_bytes": first,
        "last_bytes": last,
        "growth": last / first - 1,
        "slope_bytes": per_request,
        "r2": r2,
        "left": {name: after[name] - before[name] for name in before},
    }


def batches(model: Model, count: int) -> dict[str, Any]:
    """Memory before, during and after batches of 16."""
    model.caption(photo(0), max_tokens=32)
    before, most = held_bytes(), 0
    after = []
    for number in range(count):
        for _ in model.batch([photo(number * 32 + k) for k in range(32)], batch_size=16, max_tokens=32):
            most = max(most, held_bytes())
        gc.collect()
        after.append(held_bytes())
    return {"before_bytes": before, "most_bytes": most, "after_bytes": after, "kept": after[-1] / before - 1}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["captions", "cycles", "cancels", "batches", "pages"])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", type=int)
    parser.add_argument("--warm-up", type=int)
    parser.add_argument("--max-tokens", type=int, help="of an answer; default: 24, pages as long as they are")
    parser.add_argument("--as-is", action="store_true", help="malloc as every program has it")
    parser.add_argument("--format", choices=["text", "json"], default="text")
    given = parser.parse_args()
    counts = {"captions": 10_000, "cycles": 1_000, "cancels": 5_000, "batches": 10, "pages": 500}
    count = given.count or counts[given.what]
    warm_up = given.warm_up if given.warm_up is not None else min(500, max(20, count // 20))
    report: dict[str, Any] = {"what": given.what, "model": given.model, "threads": given.threads}
    if not given.as_is:
        one_heap()
    if given.what == "cycles":
        report |= soak(cycles(given.model, given.threads), count, warm_up, not given.as_is)
    else:
        with load(given.model, threads=given.threads) as model:
            report["model"] = model.name
            if given.what == "batches":
                report |= batches(model, count)
            else:
                one = {
                    "captions": lambda: captions(model, given.max_tokens or 24),
                    "cancels": lambda: cancels(model),
                    "pages": lambda: pages(model, given.max_tokens, count),
                }[given.what]()
                report |= soak(one, count, warm_up, not given.as_is)
    if given.format == "json":
        print(json.dumps(report, indent=2))
    elif given.what == "batches":
        after = ", ".join(f"{value / 1e6:.1f}" for value in report["after_bytes"])
        print(
            f"MB: {report['before_bytes'] / 1e6:.1f} before, at most {report['most_bytes'] / 1e6:.1f}, after: {after}"
        )
    else:
        print(
            f"{report['what']}, {report['model']}: {count} after {warm_up}, {report['first_bytes'] / 1e6:.2f} -> "
            f"{report['last_bytes'] / 1e6:.2f} MB ({100 * report['growth']:+.2f} %), slope "
            f"{report['slope_bytes']:+.1f} bytes each (R^2 {report['r2']:.2f}), left over {report['left']}"
        )
    flat = report.get("growth", 0.0) < 0.01
    return 0 if flat and not any(value > 0 for value in report.get("left", {}).values()) else 1


if __name__ == "__main__":
    sys.exit(main())
