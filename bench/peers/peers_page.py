"""The markdown page of what peers.py has measured: docs/benchmarks.md."""

import json
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING

import peers_report
from peers_get import VERSIONS

if TYPE_CHECKING:
    from peers import Bench

PACKAGES = {"llama.cpp": "llama-cpp-python", "ik_llama.cpp": "ik-llama-cpp-python"}
HEAD = """# kosmos-edge compared with other programs

`bench/peers.py` makes this page. All programs run on the CPU with the same number of threads, one at a time, in turn.
Figures are medians over rounds. A ratio is the median of the ratios within a pass, so a machine that changes its speed
between passes does not change it. "Spread" is half the interquartile range. "Ours is faster by" above 1 means that
kosmos-edge is faster.

What is measured:

- encode: one 224 x 224 image through the vision encoder
- prefill: a prompt of 74 tokens, 64 of them image tokens
- decode: 31 tokens after the first
- caption: a JPEG of 640 x 480 to 32 tokens
- folder: 16 such files through `Model.batch`, one or eight at a time

Every image is new, so no cache helps. Every token is computed in full except in the folder: forced tokens of boxes are
not skipped. Ours is a full-size KOSMOS-2 with random weights in the default `q4_k_m` file (4 to 6 bits, int8
activations); encoding includes the resampler.

Of the peers only transformers supports KOSMOS-2. The others run stand-ins with the same matrix sizes and random
weights, and what a stand-in lacks is mostly to the peer's advantage:

- llama.cpp and ik_llama.cpp: the decoder is a GPT-2 (one query-key-value matrix, tanh GELU, no norms inside the
  sub-layers), and decoding begins with an empty context; the vision tower has LLaVA's projector of two matrices on 256
  patches.
- onnxruntime: the vision tower alone, without projection or resampler.
- Composed captions are sums of a program's phases, without what joins them (decoding the JPEG, copying image tokens).
  transformers with int8 is timed by its own `generate`.

The roof is the most that this machine can do: all multiply-accumulates of the phase at the measured int8 peak of the
instruction set, or all bytes of the weights and the cache at the measured read bandwidth.

## How to repeat it

    python bench/peers.py --work DIR --prepare          # gets and builds the peers: 30-60 minutes on 2 cores, once
    python bench/peers.py --work DIR --threads 2        # 5 rounds of about 4 minutes, then the table
    python bench/peers.py --work DIR --threads 1        # 5 rounds of about 5 minutes
    python bench/peers.py --work DIR --write docs/benchmarks.md

Run it on an idle machine. `--rounds`, `--quick` and `--peers` shorten it; `--seconds 60` with `--resume` measures in
slices of a minute; `--avx2` builds and runs all programs without AVX-512. A peer that cannot be installed is listed
with the reason. Loading, memory and batches of other sizes come from `kosmos-edge bench`: after
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


def section(result: dict) -> str:
    """One number of threads."""
    facts = result["machine"]
    words = "1 thread" if facts["threads"] == 1 else f"{facts['threads']} threads"
    only = ", everybody held to AVX2" if facts["isa"] == "avx2" else ""
    text = f"\n## {words}{only}\n\n"
    if "read_bytes_per_s" in facts:
        text += (
            f"Measured with {words}: memory reads {facts['read_bytes_per_s'] / 1e9:.1f} GB/s, int8 products "
            f"{facts['int8_macs_per_s'] / 1e9:.0f} GMAC/s, float32 {facts['float32_macs_per_s'] / 1e9:.0f} GMAC/s. "
        )
    text += (
        f"{facts['rounds']} round{'s' * (facts['rounds'] != 1)}.\n\n"
        + peers_report.tables(result, markdown=True)
        + "\n"
    )
    ratios = {k: v for k, v in result["ratio_to_best_peer"].items() if v is not None}
    rows = [[name, f"{value:.2f}", result["best_peer"].get(name, "")] for name, value in ratios.items()]
    return text + peers_report.table(["ratio to the best peer", "", "which"], rows, markdown=True)


def write(path: Path, work: Path, bench: "Bench") -> None:
    """The page of every number of threads measured in the work folder."""
    from kosmos_edge.bench.speed import table

    text, sections, versions = HEAD, "", {}
    for log in sorted(work.glob("measured-*.jsonl")):
        threads, _, only = log.stem.removeprefix("measured-").partition("-")
        bench.threads, bench.avx2, bench.log = int(threads), only == "avx2", log
        result = bench.report()
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
