"""The markdown page of what peers.py has measured: docs/benchmarks.md."""

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import peers_report
import peers_stats
from peers_get import VERSIONS

if TYPE_CHECKING:
    from peers import Bench

PACKAGES = {"llama.cpp": "llama-cpp-python", "ik_llama.cpp": "ik-llama-cpp-python"}
HEAD = """# kosmos-edge compared with other programs

`bench/peers.py` makes this page. All programs run on the CPU with the same number of threads, one at a time, in turn. A
round has a turn of each phase; in a turn all programs that have the phase are measured once or twice, A B C, and the
next round begins with another one, B C A. So what the machine does meanwhile meets all alike. Programs stay loaded
between their turns but are stopped (SIGSTOP), except llama-bench, which loads and warms up anew.

Figures are medians. "Ours is faster by" is the median over rounds of the ratio within a round; above 1 kosmos-edge is
faster. In brackets is the 95 % interval of that median, between the k-th smallest and the k-th largest ratio (the
order-statistic interval, which assumes no form of distribution: David and Nagaraja, Order Statistics, 2003, section
7.1); six rounds are the fewest that give one. **Where it holds 1, the difference is within the noise, and the two are
called equal.** "Spread" is half the interquartile range of the figures themselves.

What is measured:

- encode: one 224 x 224 image through the vision encoder
- prefill: a prompt of 74 tokens, 64 of them image tokens
- decode: 31 tokens after the first
- caption: a JPEG of 640 x 480 to 32 tokens; an answer that ends early is not counted
- folder: 16 such files through `Model.batch`, one or eight at a time; such an answer counts by its share of 32 tokens

Every image is new, so no cache helps. Every token is computed in full except in the folder: forced tokens of boxes are
not skipped. Ours is a full-size KOSMOS-2 with random weights in the default `q4_k_m` file (4 to 6 bits, int8
activations); encoding includes the resampler.

Of the peers only transformers supports KOSMOS-2. The others run stand-ins with the same matrix sizes and random
weights, and what a stand-in lacks is mostly to the peer's advantage:

- llama.cpp and ik_llama.cpp: the decoder is a GPT-2 (one query-key-value matrix, tanh GELU, no norms inside the
  sub-layers), and decoding begins with an empty context; the vision tower has LLaVA's projector of two matrices on 256
  patches.
- onnxruntime: the vision tower alone, without projection or resampler.
- Composed captions are sums of a program's phases of one round, without what joins them (decoding the JPEG, copying
  image tokens). transformers with int8 is timed by its own `generate`.

The roof is the most that this machine can do: all multiply-accumulates of the phase at the measured int8 peak of the
instruction set, or all bytes of the weights and the cache at the measured read bandwidth.

## How to repeat it

    python bench/peers.py --work DIR --also-avx2 --write docs/benchmarks.md

From an empty folder this gets and builds the peers (30 to 60 minutes on 2 cores, once; `--prepare` does only that),
measures 6 rounds at 1 thread and 6 at all cores, with what the machine has and then held to AVX2, and writes this page.

Run it on an idle machine. `--rounds`, `--quick`, `--threads` and `--peers` shorten it; `--seconds 90` with `--resume`
measures in slices, each of whole turns; `--report --write FILE` writes the page of what is there. A peer that cannot be
had is listed with the reason. Loading, memory and batches of other sizes come from `kosmos-edge bench`: after
`kosmos-edge bench -m DIR/kosmos-2-q4_k_m.gguf -t 2 -f json > DIR/bench-2.json` the page shows them, too.
"""


def machine() -> dict:
    """Where this runs."""
    from kosmos_edge.machine import cpu_name

    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": total,
        "system": platform.system(),
    }


def threads_of(result: dict) -> str:
    """In words."""
    return "1 thread" if result["machine"]["threads"] == 1 else f"{result['machine']['threads']} threads"


def title(result: dict) -> str:
    """Of a section."""
    return threads_of(result) + (", everybody held to AVX2" if result["machine"]["isa"] == "avx2" else "")


def section(result: dict) -> str:
    """One number of threads."""
    facts, words = result["machine"], threads_of(result)
    text = f"\n## {title(result)}\n\n"
    if "read_bytes_per_s" in facts:
        text += (
            f"Measured with {words}: memory reads {facts['read_bytes_per_s'] / 1e9:.1f} GB/s, int8 products "
            f"{facts['int8_macs_per_s'] / 1e9:.0f} GMAC/s, float32 {facts['float32_macs_per_s'] / 1e9:.0f} GMAC/s. "
        )
    text += (
        f"{facts['rounds']} round{'s' * (facts['rounds'] != 1)}{covers(facts['rounds'])}.\n\n"
        + held(result)
        + peers_report.tables(result, markdown=True)
        + "\n"
    )
    rows = []
    for name, value in result["ratio_to_best_peer"].items():
        compared = result["compared_to_best_peer"].get(name)
        words = peers_stats.words(compared) if compared else f"{value:.2f}" if value is not None else ""
        if words:
            rows.append([name, words, result["best_peer"].get(name, "")])
    return text + peers_report.table(["ratio to the best peer", "", "which"], rows, markdown=True)


def covers(rounds: int) -> str:
    """What the intervals of so few rounds are worth, where that is less than 95 %."""
    if rounds >= peers_stats.ENOUGH or rounds < 2:
        return ""
    return f"; so few give ranges, which hold the median with {100 * peers_stats.coverage(rounds, 1):.0f} %, not 95 %"


def held(result: dict) -> str:
    """How each program is known to be held to AVX2."""
    if not result["held"]:
        return ""
    lines = [f"- {tool}: {how}" for tool, how in result["held"].items()]
    return "\n".join(["- kosmos-edge: `KOSMOS_EDGE_ISA=avx2`", *lines]) + "\n\n"


def write(path: Path, work: Path, make: Callable[[int, bool], "Bench"]) -> None:
    """The page of every number of threads measured in the work folder."""
    from kosmos_edge.bench.speed import table

    text, sections, versions = HEAD, "", {}
    for log in sorted(work.glob("measured-*.jsonl")):
        threads, _, only = log.stem.removeprefix("measured-").partition("-")
        if not threads.isdecimal():
            continue
        result = make(int(threads), only == "avx2").report()
        versions |= result["machine"]["versions"]
        sections += section(result)
    facts = machine()
    known = {tool: v for tool, v in versions.items() if tool in PACKAGES}
    words = {f"{tool} {v} (source package {PACKAGES[tool]} {VERSIONS[PACKAGES[tool]]})" for tool, v in known.items()}
    words |= {str(v) for tool, v in versions.items() if tool not in known and tool != "ours"}
    text += (
        f"\n{facts['cpu']}, {facts['cores']} cores, {facts['memory_bytes'] / 1e9:.0f} GB, {facts['system']}, "
        f"{time.strftime('%Y-%m-%d')}. Versions: " + "; ".join(sorted(words)) + ".\n"
    )
    for number, file in enumerate(sorted(work.glob("bench-*.json"))):
        sections += "" if number else "\n## kosmos-edge bench\n"
        sections += f"\n```\n{table(json.loads(file.read_text()))}\n```\n"
    path.write_text(text + sections)
    print(path)
