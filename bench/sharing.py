"""What shared weights cost and save: loading, decoding and memory, with private weights and with shared ones.

    python bench/sharing.py --model FILE [--threads 2] [--rounds 3] [--folder FOLDER] [--format json]

Each round starts a process with private weights and one with shared ones, in turn, so that both see the same machine.
Printed are the best times: to load the file (in the page cache), to make the file of shared weights (once), and to
decode a token of an answer to an encoded picture; and the memory of two processes that live at the same time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CHILD = """
import json, sys, time
import kosmos_edge
from kosmos_edge.bench.workload import jpeg_bytes, synthetic_photo
path, folder, threads, tokens, repeats = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
begun = time.perf_counter()
model = kosmos_edge.load(path, threads=threads, shared_weights=folder or False)
report = {"load_s": time.perf_counter() - begun, "made": model.shared_weights["made"], "token_ms": []}
image = model.encode(jpeg_bytes(synthetic_photo(1, (320, 240))))
for _ in range(repeats + 1):
    answer = model.caption(image, max_tokens=tokens)
    report["token_ms"].append(answer.timings.decode_ms / answer.timings.passes)
report["token_ms"] = min(report["token_ms"])
print(json.dumps(report), flush=True)
sys.stdin.readline()
"""


class Child:
    """A process that has loaded the model and measured; it lives until end()."""

    def __init__(self, given: argparse.Namespace, folder: str) -> None:
        sizes = [str(given.threads), str(given.tokens), str(given.repeats)]
        command = [sys.executable, "-P", "-c", CHILD, given.model, folder, *sizes]
        environment = os.environ | {"KOSMOS_EDGE_DRAFTS": "off"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        self.report: dict[str, Any] = json.loads(self.process.stdout.readline())

    def memory(self) -> dict[str, float]:
        """MB: its own, shared, and its fair share of all (PSS)."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        found = {name: int(kb) / 1e3 for name, kb in re.findall(r"^(\w+): +(\d+) kB", text, re.M)}
        own = found["Private_Clean"] + found["Private_Dirty"]
        return {"own": own, "shared": found["Shared_Clean"] + found["Shared_Dirty"], "fair_share": found["Pss"]}

    def end(self) -> None:
        """Ends it."""
        self.process.communicate("\n")


def main() -> int:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where the file of shared weights is made; default: that of temporary files")
    parser.add_argument("--format", choices=["text", "json"], default="text")
    given = parser.parse_args()
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        first = Child(given, folder)
        first.end()
        assert first.report["made"], "the file of shared weights could not be made"
        report["make_s"] = first.report["load_s"]
        reports: dict[str, list[dict[str, Any]]] = {"private": [], "shared": []}
        for _ in range(given.rounds):
            for name, where in (("private", ""), ("shared", folder)):
                child = Child(given, where)
                child.end()
                reports[name].append(child.report)
        for name, found in reports.items():
            report[name] = {key: min(r[key] for r in found) for key in ("load_s", "token_ms")}
        for name, where in (("private", ""), ("shared", folder)):
            pair = [Child(given, where) for _ in range(2)]
            report[name]["memory_mb"] = [child.memory() for child in pair]
            for child in pair:
                child.end()
    if given.format == "json":
        print(json.dumps(report, indent=2))
        return 0
    print(f"making the file: {report['make_s']:.2f} s")
    for name in ("private", "shared"):
        r = report[name]
        print(f"{name}: load {r['load_s']:.2f} s, {r['token_ms']:.2f} ms a pass")
        for number, m in enumerate(r["memory_mb"]):
            parts = ", ".join(f"{key.replace('_', ' ')} {value:.0f} MB" for key, value in m.items())
            print(f"  process {number} of 2: {parts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
