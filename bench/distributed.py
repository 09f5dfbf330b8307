"""Do several workers of Ray caption as fast as the sum of single ones, and do they share the model's memory?

    python bench/distributed.py --model FILE [--workers 2] [--count 200] [--rounds 3] [--private] [--format json]

Each round captions `count` pictures with one worker, with `workers` of them, and with `workers` processes that know
nothing of each other and start together, which is what the machine can do without an engine between them. Printed are
the medians of images per second, without the start of workers, and the workers' memory: what is their own, and what
they share. Needs kosmos-edge[ray].
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import kosmos_edge
from kosmos_edge.bench.workload import jpeg_bytes, synthetic_photo
from kosmos_edge.distributed import Captioner
from kosmos_edge.distributed.dispatch import Run
from kosmos_edge.distributed.items import Columns, items_of
from kosmos_edge.distributed.parts import Parts
from kosmos_edge.distributed.ray_workers import RayWorkers, connected
from kosmos_edge.distributed.rows import RowMaker
from kosmos_edge.folders import Wording


def make_pictures(folder: Path, count: int) -> list[Path]:
    """Photographs, each another one."""
    paths = []
    for number in range(count):
        paths.append(folder / f"{number:06}.jpg")
        paths[-1].write_bytes(jpeg_bytes(synthetic_photo(number, (320, 240))))
    return paths


def memory(pid: int) -> dict[str, int]:
    """Bytes of a process: its own, those it shares, its fair share of all."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = {name: int(kb) * 1024 for name, kb in re.findall(r"^(\w+): +(\d+) kB", text, re.M)}
    own = found["Private_Clean"] + found["Private_Dirty"]
    return {"own": own, "shared": found["Shared_Clean"] + found["Shared_Dirty"], "fair_share": found["Pss"]}


def on_ray(
    ray: Any, model: str, workers: int, paths: list[Path], tokens: int, shared: bool
) -> tuple[float, list[dict[str, int]]]:
    """(images per second, memory of the workers)."""
    maker = RowMaker(
        Captioner(model, threads=1, max_tokens=tokens, load={"shared_weights": shared}), Columns(), Wording()
    )
    names = [(path.name, str(path), "") for path in paths]
    with (
        tempfile.TemporaryDirectory() as out,
        Parts(out, "caption", {}) as parts,
        RayWorkers(ray, maker, count=workers, threads=1) as actors,
    ):
        while actors.count < workers:
            actors.receive()
        begun = time.perf_counter()
        counts = Run(actors, parts, lambda row: None).run(items_of(names, Columns()))
        spent = time.perf_counter() - begun
        assert counts.failed == counts.deaths == 0, counts
        return len(paths) / spent, [memory(pid) for pid in actors.pids()]


def alone(model: str, paths: list[Path], tokens: int, ready: Any, go: Any, spent: Any) -> None:
    """A process of its own."""
    with kosmos_edge.load(model, threads=1) as m:
        ready.release()
        go.wait()
        begun = time.perf_counter()
        for answer in m.batch(paths, max_tokens=tokens, ground=m.model_info["grounding"] is not None):
            assert answer.error is None
        spent.put(time.perf_counter() - begun)


def apart(model: str, workers: int, paths: list[Path], tokens: int) -> float:
    """Images per second of processes that know nothing of each other, summed."""
    context = multiprocessing.get_context("spawn")
    ready, go, spent = context.Semaphore(0), context.Event(), context.Queue()
    shares = [paths[number::workers] for number in range(workers)]
    processes = [
        context.Process(target=alone, args=(model, share, tokens, ready, go, spent), daemon=True) for share in shares
    ]
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    go.set()
    times = [spent.get() for _ in processes]
    for process in processes:
        process.join()
    return sum(len(paths) / workers / seconds for seconds in times)


def main() -> int:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(kosmos_edge.load().path))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--private", action="store_true", help="each worker keeps the weights in memory of its own")
    parser.add_argument("--format", choices=["text", "json"], default="text")
    given = parser.parse_args()
    rates: dict[str, list[float]] = {"one": [], "ray": [], "apart": []}
    with tempfile.TemporaryDirectory() as folder, connected(None) as ray:
        paths = make_pictures(Path(folder), given.count)
        for _ in range(given.rounds):
            rates["one"].append(on_ray(ray, given.model, 1, paths, given.tokens, not given.private)[0])
            rate, held = on_ray(ray, given.model, given.workers, paths, given.tokens, not given.private)
            rates["ray"].append(rate)
            rates["apart"].append(apart(given.model, given.workers, paths, given.tokens))
    report: dict[str, Any] = {name: statistics.median(values) for name, values in rates.items()}
    report["of_apart"] = statistics.median([a / b for a, b in zip(rates["ray"], rates["apart"], strict=True)])
    report |= {"workers": given.workers, "file": Path(given.model).stat().st_size, "memory": held}
    if given.format == "json":
        print(json.dumps(report, indent=2))
        return 0
    print(f"one worker {report['one']:.2f} images/s; {given.workers} workers {report['ray']:.2f}")
    print(f"{given.workers} processes apart {report['apart']:.2f}; the workers reach {report['of_apart']:.2f} of that")
    for number, found in enumerate(held):
        parts = ", ".join(f"{name.replace('_', ' ')} {value / 1e6:.0f} MB" for name, value in found.items())
        print(f"worker {number}: {parts}; the file has {report['file'] / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
