"""Runs all targets, one process per core, and keeps count: long_run.py DRIVER LOG [options]

DRIVER is kosmos_edge_fuzz (built with the sanitizers), LOG a file of one JSON line per finished batch. A run that is
started again with the same LOG goes on where it stopped: the next numbers of the same seed. Any bug ends the run with
the line that replays it. --cases N: so many in all, split by the shares below; --seconds S: so long, in turns, each
target by its share of time. Prints the totals per target.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
# target -> (cases of 10,000, cases per batch): the cheap ones get many, whole models and checkpoints few.
NATIVE = {"header": (500, 2000), "gguf": (120, 500), "tokenizer": (2000, 10_000), "image": (150, 1000)}
PYTHON = {
    "safetensors": (2700, 10_000), "torch": (1400, 5000), "torch-state": (500, 5000), "index": (500, 5000),
    "tokenizer-json": (130, 1000), "sentencepiece": (820, 5000), "checkpoint": (50, 250), "picture": (950, 5000),
    "bpe": (130, 1000), "requantize": (50, 250),
}  # fmt: skip
SHARES = {**NATIVE, **PYTHON}
# Allocations that a small input has no reason for end the case; Python's targets have a cap of their own.
ASAN = "max_allocation_size_mb=1024:hard_rss_limit_mb=3000:detect_leaks=1:malloc_context_size=8"


def command(driver: str, target: str, seed: int, first: int, count: int) -> list[str]:
    """What runs these cases."""
    numbers = [target, str(seed), str(first), str(count)]
    return [driver, *numbers] if target in NATIVE else [sys.executable, str(HERE / "python_driver.py"), *numbers]


class Run:
    """The totals so far, from the log and since."""

    def __init__(self, driver: str, log: Path, seed: int) -> None:
        self.driver, self.log, self.seed = driver, log, seed
        self.done: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.captioned: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()  # of processor time
        for line in log.read_text().splitlines() if log.exists() else []:
            self.count(json.loads(line))

    def count(self, entry: dict) -> None:
        """Adds a batch."""
        if entry["seed"] == self.seed:
            name = entry["target"]
            self.done[name] += entry["cases"]
            self.accepted[name] += entry["accepted"]
            self.captioned[name] += entry["captioned"]
            self.seconds[name] += entry["cases"] / max(entry["rate"], 1)

    def batch(self, target: str, first: int, count: int) -> dict:
        """Runs one; SystemExit with its last lines when it finds a bug."""
        environment = {**os.environ, "ASAN_OPTIONS": ASAN, "UBSAN_OPTIONS": "print_stacktrace=1"}
        done = subprocess.run(
            command(self.driver, target, self.seed, first, count),
            capture_output=True, text=True, errors="replace", env=environment, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise SystemExit("\n".join([f"{target}: exit code {done.returncode}", *done.stderr.splitlines()[-60:]]))
        words = done.stdout.splitlines()[-1].replace(",", "").split()
        numbers = {after: int(word) for word, after in itertools.pairwise(words) if word.isdigit()}
        return {
            "target": target, "seed": self.seed, "first": first, "cases": count, "accepted": numbers["accepted"],
            "captioned": numbers["captioned"], "rate": numbers["per"],
        }  # fmt: skip

    def finish(self, entry: dict) -> None:
        """Notes a batch that found nothing."""
        self.count(entry)
        with self.log.open("a") as log:
            log.write(json.dumps(entry) + "\n")

    def totals(self) -> str:
        """A table."""
        rows = [f"{'target':15}{'cases':>12}{'accepted':>12}{'captioned':>12}{'per CPU second':>16}"]
        for name in [*SHARES, "all"]:
            names = list(SHARES) if name == "all" else [name]
            done, accepted, captioned, seconds = (
                sum(part[n] for n in names) for part in (self.done, self.accepted, self.captioned, self.seconds)
            )
            rows.append(f"{name:15}{done:12,}{accepted:12,}{captioned:12,}{done / max(seconds, 1e-9):16,.0f}")
        return "\n".join([*rows, "0 bad"])


def plan(run: Run, cases: int) -> list[tuple[str, int, int]]:
    """(target, first, count) of the batches that bring every target to its share of `cases`; the slow ones first."""
    whole = sum(share for share, _ in SHARES.values())
    out = []
    for target, (share, size) in SHARES.items():
        wanted = -(-cases * share // whole)
        out += [(target, first, min(size, wanted - first)) for first in range(run.done[target], wanted, size)]
    return sorted(out, key=lambda batch: (batch[0] in PYTHON, batch[0] != "gguf", batch[0]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("driver")
    parser.add_argument("log", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    run = Run(options.driver, options.log, options.seed)
    with ThreadPoolExecutor(options.jobs) as pool:
        if options.cases:
            for entry in pool.map(lambda batch: run.batch(*batch), plan(run, options.cases)):
                run.finish(entry)
        until = time.monotonic() + options.seconds
        goal = sum(run.done.values())
        while time.monotonic() < until:  # in steps, so that what is done is always near the shares
            goal += 100_000
            for entry in pool.map(lambda batch: run.batch(*batch), plan(run, goal)):
                run.finish(entry)
                if time.monotonic() > until:
                    pool.shutdown(cancel_futures=True)
                    break
    print(run.totals())
    return 0


if __name__ == "__main__":
    sys.exit(main())
