"""Which of two model files decodes faster, on this machine: two loaded processes, in turn.

    python bench/two_files.py A.gguf B.gguf [--threads 1,2] [--pairs 5] [--seconds 13] [--tokens 12]

Each pair of processes is new, as where memory happens to lie decides as much as the files do; every other pair is
loaded in the other order. A turn is one answer of each, without drafts. Prints for each pair the medians of tokens a
second and what B makes more than A, and then the middle: the geometric mean of the medians of the two orders.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

from kosmos_edge import Model
from kosmos_edge._native import _core
from kosmos_edge.bench.workload import synthetic_photo


def serve(model_file: str, threads: int, tokens: int) -> None:
    """Answers once per line of standard input; prints tokens a second."""
    # Answers repeat themselves: drafts would measure that.
    model = Model(_core.Engine(model_file, device="cpu", threads=threads, drafts="off"), Path(model_file))
    image = model.encode(synthetic_photo(1, (224, 224)))

    def rate() -> float:
        timings = model.ask(image, "What is it?", max_tokens=tokens).timings
        if timings.tokens < 2:
            raise SystemExit(f"{model_file}: an answer ended after its first token: there is nothing to time")
        return 1000 * (timings.tokens - 1) / timings.decode_ms

    for _ in range(3):
        rate()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(rate(), flush=True)


class Host:
    """One process with one file."""

    def __init__(self, model_file: str, threads: int, tokens: int) -> None:
        command = [sys.executable, __file__, model_file, "--serve", "--threads", str(threads), "--tokens", str(tokens)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.rates: list[float] = []
        self.model_file = model_file
        self.read()  # it is ready

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:  # it has said why
            raise SystemExit(f"{self.model_file}: its process ended")
        return line

    def turn(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.rates.append(float(self.read()))

    def end(self) -> float:
        """The median of its rates."""
        self.process.communicate()
        return statistics.median(self.rates)


def pair(files: list[str], first: int, threads: int, tokens: int, seconds: float) -> list[float]:
    """Tokens a second of both, in the order of `files`; files[first] is loaded first."""
    hosts = {i: Host(files[i], threads, tokens) for i in (first, 1 - first)}
    end, turn = time.monotonic() + seconds, 0
    while turn < 2 or time.monotonic() < end:
        for i in (turn % 2, 1 - turn % 2):
            hosts[i].turn()
        turn += 1
    return [hosts[i].end() for i in (0, 1)]


def counts(text: str) -> list[int]:
    """Numbers of threads from "1,2"."""
    found = [int(word) if word.isdecimal() else 0 for word in text.split(",")]
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"expected numbers of threads like 1,2, got {text!r}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--threads", type=counts, default="1,2")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=13)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args.files[0], args.threads[0], args.tokens)
    if len(args.files) != 2 or args.pairs < 2:
        parser.error(f"expected two files and at least two pairs, got {len(args.files)} and {args.pairs}")
    for threads in args.threads:
        ratios: tuple[list[float], list[float]] = ([], [])
        for i in range(args.pairs):
            a, b = pair(args.files, i % 2, threads, args.tokens, args.seconds)
            ratios[i % 2].append(b / a)
            print(
                f"{threads} threads, {'AB'[i % 2]} first: A {a:.1f}, B {b:.1f} tokens/s, B / A {b / a:.3f}", flush=True
            )
        middle = math.exp(statistics.mean(math.log(statistics.median(of_order)) for of_order in ratios))
        print(f"{threads} threads, middle: B / A {middle:.3f}", flush=True)


if __name__ == "__main__":
    main()
