"""How long the parts of calibrated rounding take, by the width of a matrix.

    python bench/calibration_rates.py [--columns 1024,2048,4096] [--rows 512] [--rounds 3] [--type Q4_K]

Second moments, one thread: what `rows` inputs (a multiple of 128, as many are added at a time) add to them, and
cols (cols + 1) / 2 multiply-accumulates each. Factor, all threads: Cholesky and inverse of the second moments,
cols^3 / 3. Rounding, one thread: a matrix of `rows` rows with error feedback, rows cols^2 / 2. The quickest of the
rounds, on normal random numbers; docs/convert.md says what a whole model has of each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from kosmos_edge import _core

NAME = "w"


def quickest(rounds: int, work: Callable[[], object]) -> float:
    """Seconds of the quickest call."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def rates(cols: int, rows: int, rounds: int, dtype: str) -> tuple[list[float], list[float]]:
    """Seconds and thousand million multiply-accumulates a second of the three parts."""
    random = np.random.default_rng(cols)
    # More inputs than columns, or the second moments have no full rank.
    inputs = [random.standard_normal((rows, cols), np.float32).tobytes() for _ in range(-(-2 * cols // rows))]
    matrix = (0.02 * random.standard_normal((rows, cols), np.float32)).tobytes()
    recorder = _core.ActivationRecorder({NAME})
    for part in inputs:
        recorder.add([NAME], part, cols)
    sums = recorder.find(NAME)
    factor = _core.FeedbackFactor(sums, False, 0.01)
    seconds = [
        quickest(rounds, lambda: recorder.add([NAME], inputs[0], cols)),
        quickest(rounds, lambda: _core.FeedbackFactor(sums, False, 0.01)),
        quickest(rounds, lambda: _core.quantize_calibrated(dtype, matrix, cols, factor=factor)),
    ]
    products = [rows * cols * (cols + 1) / 2, cols**3 / 3, rows * cols**2 / 2]
    return seconds, [1e-9 * n / s for n, s in zip(products, seconds, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", default="1024,2048,4096")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--type", default="Q4_K")
    args = parser.parse_args()
    if args.rows % 128 or args.rows < 128:
        parser.error(f"--rows: expected a multiple of 128, got {args.rows}")
    print(f"| columns | second moments of {args.rows} rows | factor | {args.type} with feedback, {args.rows} rows |")
    print("|---|---|---|---|")
    for cols in map(int, args.columns.split(",")):
        seconds, each = rates(cols, args.rows, args.rounds, args.type)
        cells = [f"{s:.2f} s, {r:.1f} GMAC/s" for s, r in zip(seconds, each, strict=True)]
        print(f"| {cols} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
