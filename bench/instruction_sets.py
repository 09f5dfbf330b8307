"""Is any phase faster with an instruction set that is not chosen? Every one this machine has, and the choice itself.

    python bench/instruction_sets.py [--model FILE] [--threads N,N] [--rounds 5] [--format json]

Each round measures every instruction set (KOSMOS_EDGE_ISA) and then the free choice, each in a process of its own; so
what the machine does meanwhile meets all. The ratios are of one round; the table has their medians and their quartiles.
Exit status 1 if some forced instruction set is faster than the free choice in a phase by more than the noise: the
lower quartile of its ratios is above 1.02.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

from kosmos_edge import _core

PHASES = ("encode", "prefill", "decode")
FREE = "chosen"
MARGIN = 1.02


def measure(isa: str, model: str, threads: int) -> dict[str, Any]:
    """One report of `kosmos-edge bench`."""
    env = {name: value for name, value in os.environ.items() if name != "KOSMOS_EDGE_ISA"}
    if isa != FREE:
        env["KOSMOS_EDGE_ISA"] = isa
    command = [sys.executable, "-m", "kosmos_edge", "bench", "-m", model, "-t", str(threads), "--rounds", "2"]
    command += ["--phases", ",".join(PHASES), "--tokens", "48", "--format", "json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"bench failed with {isa}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def speed(report: dict[str, Any], phase: str) -> float:
    """Of a phase: larger is faster."""
    found = report["phases"][phase]
    return found["tokens_per_s"]["median"] if phase == "decode" else 1000 / found["ms"]["median"]


def summary(ratios: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return {"median": middle, "low": low, "high": high}


def compare(model: str, threads: int, rounds: int, isas: list[str]) -> dict[str, Any]:
    """Speeds of the free choice, and every forced set's speed over it."""
    speeds: dict[str, dict[str, list[float]]] = {isa: {phase: [] for phase in PHASES} for isa in [*isas, FREE]}
    choices: list[Any] = []
    for number in range(rounds):
        for isa in [*isas, FREE]:
            report = measure(isa, model, threads)
            if isa == FREE:
                choices = report["one_row"]
            for phase in PHASES:
                speeds[isa][phase].append(speed(report, phase))
        print(f"{threads} threads: round {number + 1} of {rounds}", file=sys.stderr)
    phases = {}
    for phase in PHASES:
        free = speeds[FREE][phase]
        over = {isa: summary([a / b for a, b in zip(speeds[isa][phase], free, strict=True)]) for isa in isas}
        phases[phase] = {FREE: statistics.median(free), "ratios": over}
    return {"threads": threads, "rounds": rounds, "phases": phases, "one_row": choices}


def lost(result: dict[str, Any]) -> list[str]:
    """Where a forced instruction set is faster than the choice."""
    return [
        f"{result['threads']} threads, {phase}: {isa} is {ratio['median']:.2f} x the choice"
        for phase, found in result["phases"].items()
        for isa, ratio in found["ratios"].items()
        if ratio["low"] > MARGIN
    ]


def table(results: list[dict[str, Any]], isas: list[str]) -> str:
    """Markdown: of each phase the free choice's speed, and every set's speed over it (median, quartiles)."""
    lines = ["| threads | phase | chosen | " + " | ".join(isas) + " |", "| --- " * (3 + len(isas)) + "|"]
    for result in results:
        for phase, found in result["phases"].items():
            free = found[FREE]
            cells = [
                str(result["threads"]),
                phase,
                f"{free:.1f} tokens/s" if phase == "decode" else f"{1 / free:.3f} s",
            ]
            for ratio in (found["ratios"][isa] for isa in isas):
                cells.append(f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--isas", default=",".join(isa for isa in _core.available_isas() if isa != "scalar"))
    parser.add_argument("--format", choices=["text", "json"], default="text")
    args = parser.parse_args()
    isas = args.isas.split(",")
    results = [compare(args.model, int(n), args.rounds, isas) for n in args.threads.split(",")]
    losses = [line for result in results for line in lost(result)]
    if args.format == "json":
        print(json.dumps({"results": results, "faster_than_the_choice": losses}, indent=2))
    else:
        print(table(results, isas))
        for result in results:
            for choice in result["one_row"]:
                rates = ", ".join(f"{name} {rate / 1e9:.1f}" for name, rate in choice["bytes_per_s"].items())
                print(
                    f"{result['threads']} threads, one row, {choice['types']} {choice['out']} x {choice['in']}: "
                    f"{choice['chosen'] or 'undecided'} (GB/s: {rates})"
                )
        print("\n".join(losses) or "No instruction set is faster than the choice by more than the noise.")
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main())
