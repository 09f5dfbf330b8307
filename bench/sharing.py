"""Does an engine keep its share of a busy machine? Decode speed alone, beside other engines and beside other work.

    python bench/sharing.py --model FILE [--threads N] [--seconds S] [--format json]

Every engine has N threads (default: all the cores). `fair` is what the kernel's scheduler owes the engines together, as
a part of one undisturbed engine's speed; memory bandwidth, which decoding is bound by, may give more. An engine whose
threads wait for one another by spinning falls far below that; one whose callers also compute, and that sleeps where
it waits, stays near it.
"""

import argparse
import json
import multiprocessing
import statistics
import time

import kosmos_edge
from kosmos_edge import _core

TOKENS = 24  # per request: long enough that decoding rules, short enough for several in a window


def decode_speeds(model: kosmos_edge.Model, until: float) -> list[float]:
    """Tokens a second of each request begun before `until` (time.monotonic)."""
    speeds = []
    while time.monotonic() < until:
        r = model.generate(["An image of"], max_tokens=TOKENS)
        speeds.append((len(r.token_ids) - 1) / (r.timings.decode_ms / 1e3))
    return speeds


def engine(path: str, threads: int, seconds: float, ready, go, found) -> None:
    """A process with one engine: load, wait for the others, decode for a while."""
    model = kosmos_edge.load(path, device="cpu", threads=threads)
    decode_speeds(model, time.monotonic() + 0.5)
    ready.release()
    go.wait()
    found.put(statistics.median(decode_speeds(model, time.monotonic() + seconds)))


def spinner(ready, stop) -> None:
    """A process that computes and never sleeps."""
    ready.release()
    while not stop.is_set():
        sum(range(10000))


def scenario(path: str, engines: int, busy: int, threads: int, seconds: float) -> list[float]:
    """Median decode speed of every engine while `engines` engines and `busy` spinning processes run at once."""
    context = multiprocessing.get_context("spawn")
    ready, go, stop, found = context.Semaphore(0), context.Event(), context.Event(), context.Queue()
    workers = [context.Process(target=engine, args=(path, threads, seconds, ready, go, found)) for _ in range(engines)]
    others = [context.Process(target=spinner, args=(ready, stop)) for _ in range(busy)]
    for p in workers:
        p.start()
        ready.acquire()  # one after the other: loading is not what is measured
    for p in others:
        p.start()
    for _ in others:
        ready.acquire()
    go.set()
    speeds = [found.get() for _ in workers]
    stop.set()
    for p in workers + others:
        p.join()
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="a GGUF file or a tag")
    parser.add_argument("--threads", type=int, default=_core.default_threads(), help="of every engine")
    parser.add_argument("--seconds", type=float, default=6.0, help="of every scenario")
    parser.add_argument("--format", choices=["text", "json"], default="text")
    args = parser.parse_args()
    cores, n = _core.default_threads(), args.threads
    rows, alone = [], scenario(args.model, 1, 0, n, args.seconds)
    for engines, busy in [(2, 0), (3, 0), (1, 1), (1, cores)]:
        speeds = scenario(args.model, engines, busy, n, args.seconds)
        alone += scenario(args.model, 1, 0, n, args.seconds)  # before and after: machines drift
        wanted = engines * n + busy  # runnable threads
        # The part of a single undisturbed engine's cores that the scheduler owes the engines together.
        fair = min(engines * n * min(1.0, cores / wanted), cores) / min(n, cores)
        rows.append({"engines": engines, "busy_processes": busy, "tokens_per_s": speeds, "fair": fair})
        rows[-1]["of_alone"] = sum(speeds) / statistics.mean(alone[-2:])
    if args.format == "json":
        print(json.dumps({"threads": n, "cores": cores, "alone": alone, "rows": rows}, indent=1))
        return
    spread = f"{min(alone):.1f} to {max(alone):.1f}"
    print(f"{n} threads an engine, {cores} cores. Alone, before and after every line: {spread} tokens/s")
    for row in rows:
        each = " + ".join(f"{s:.1f}" for s in row["tokens_per_s"])
        what = f"{row['engines']} engine(s) beside {row['busy_processes']} busy"
        print(f"{what}: {each:24} together {row['of_alone']:.2f} of alone; fair {row['fair']:.2f}")


if __name__ == "__main__":
    main()
