"""Folder runs that are killed, and folder runs that are long.

    python bench/folder_runs.py kills [--kills 200] [--pictures 300] [--model nano]
    python bench/folder_runs.py memory [--count 100000] [--model nano]

kills: `batch --sidecar --resume` is killed (SIGKILL) at random instants, again and again, until so many kills have met
a running process. After each kill every sidecar that is there must be complete, and what a person wrote must be
untouched. After the last one the run is finished and compared with one that nobody disturbed: every picture once in the
results, in order; every sidecar the same bytes; no temporary file left.

memory: one run over many different tiny pictures, with a sidecar each; the process's RssAnon + VmSwap over time.
Growth: the median of the last tenth against the median of the first tenth after the warm-up. Exit status 1 on any
fault.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

BY_HAND = b"written by hand, not to be touched\n"
TEMPORARY = ".kosmos-edge.part"


def make_pictures(folder: Path, count: int, *, by_hand: int = 7) -> None:
    """Different pictures of 8 x 8, lossless; every `by_hand`-th has a sidecar already, none if it is 0."""
    folder.mkdir(parents=True)
    noise = random.Random(1)
    for number in range(count):
        Image.frombytes("RGB", (8, 8), noise.randbytes(192)).save(folder / f"{number:06}.png")
        if by_hand and number % by_hand == by_hand - 1:
            (folder / f"{number:06}.txt").write_bytes(BY_HAND)


def command(folder: Path, work: Path, model: str) -> list[str]:
    """The run, whose journal and results are in `work`."""
    words = [sys.executable, "-P", "-m", "kosmos_edge", "batch", str(folder), "--sidecar", "txt", "--skip", "--resume"]
    words += ["--journal", str(work / "journal"), "-o", str(work / "all.jsonl"), "--whole-sentences", "--capital"]
    return [*words, "-m", model, "-t", "1", "-n", "4", "--no-boxes", "-q"]


@dataclass
class Kills:
    """What the kills did."""

    kills: int = 0  # of a running process
    rounds: int = 0  # complete runs
    temporary: int = 0  # kills that left a temporary file
    done_before: list[int] = field(default_factory=list)  # sidecars that were there at each kill
    faults: list[str] = field(default_factory=list)


def sidecars_of(folder: Path) -> dict[str, bytes]:
    """By name."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.txt"))}


def texts_of(results: Path) -> list[tuple[str, str]]:
    """(picture's name, text), one line after another."""
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    return [(Path(row["path"]).name, row["text"]) for row in rows]


def kill_runs(work: Path, *, kills: int, pictures: int, model: str, seed: int = 1) -> Kills:
    """Kills runs until so many kills have met a process at work; then finishes and compares."""
    chance, found = random.Random(seed), Kills()
    whole = work / "undisturbed"
    make_pictures(whole / "photos", pictures)
    start = time.monotonic()
    subprocess.run(command(whole / "photos", whole, model), check=True)
    usual = time.monotonic() - start
    expected, texts = sidecars_of(whole / "photos"), texts_of(whole / "all.jsonl")
    while found.kills < kills:
        place = work / f"round-{found.rounds}"
        make_pictures(place / "photos", pictures)
        run_round(place, expected, found, chance, usual, kills, model)
        compare(place, expected, texts, found)
        found.rounds += 1
        print(f"{found.kills} kills, {found.rounds} runs, {len(found.faults)} faults", file=sys.stderr, flush=True)
        shutil.rmtree(place)
    return found


def run_round(
    place: Path, expected: dict[str, bytes], found: Kills, chance: random.Random, usual: float, kills: int, model: str
) -> None:
    """Runs until one comes to its end by itself; kills those before."""
    while True:
        with subprocess.Popen(command(place / "photos", place, model), stderr=subprocess.PIPE) as running:
            if found.kills < kills:
                try:
                    running.wait(chance.uniform(0, usual))
                except subprocess.TimeoutExpired:
                    running.kill()
            _, message = running.communicate()
        if running.returncode == 0:
            return
        if running.returncode != -signal.SIGKILL:
            found.faults.append(f"status {running.returncode}: {message.decode()}")
            return
        found.kills += 1
        there = sidecars_of(place / "photos")
        found.done_before.append(len(there))
        found.temporary += any((place / "photos").glob(f"*{TEMPORARY}"))
        found.faults += [
            f"after kill {found.kills}: {name} has {content!r}"
            for name, content in there.items()
            if content != expected[name]
        ]
        if (place / "all.jsonl").exists():  # killed after its last act: there is nothing to resume
            return


def compare(place: Path, expected: dict[str, bytes], texts: list[tuple[str, str]], found: Kills) -> None:
    """A finished run against the undisturbed one."""
    if sidecars_of(place / "photos") != expected:
        found.faults.append(f"round {found.rounds}: the sidecars differ")
    if texts_of(place / "all.jsonl") != texts:
        found.faults.append(f"round {found.rounds}: the results differ")
    known = {".png", ".txt"}
    found.faults += [
        f"round {found.rounds}: {p} is left" for p in (place / "photos").iterdir() if p.suffix not in known
    ]
    if (place / "all.jsonl.part").exists():
        found.faults.append(f"round {found.rounds}: the unfinished results are left")


def held_bytes(process: int) -> int:
    """RssAnon + VmSwap; 0 if it has ended."""
    total = 0
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "VmSwap"):
            total += int(value.split()[0]) * 1024
    return total


def long_run(work: Path, *, count: int, model: str) -> tuple[list[tuple[int, int]], list[str]]:
    """-> (answers so far, bytes held) once a second, faults"""
    folder = work / "photos"
    make_pictures(folder, count, by_hand=0)
    samples: list[tuple[int, int]] = []
    results = work / "all.jsonl.part"
    with subprocess.Popen(command(folder, work, model)) as running:
        done = offset = 0
        while running.poll() is None:
            time.sleep(1)
            if results.exists():
                with results.open("rb") as file:
                    file.seek(offset)
                    text = file.read()
                done, offset = done + text.count(b"\n"), offset + len(text)
            held = held_bytes(running.pid)
            if held and done:
                samples.append((done, held))
                if len(samples) % 60 == 0:
                    print(f"{done} pictures, {held / 1e6:.1f} MB", file=sys.stderr, flush=True)
    faults = [] if running.returncode == 0 else [f"status {running.returncode}"]
    texts = texts_of(work / "all.jsonl")
    if [name for name, _ in texts] != [f"{number:06}.png" for number in range(count)]:
        faults.append("the results are not each picture once, in order")
    wrong = sum((folder / name).with_suffix(".txt").stat().st_size < 1 for name, _ in texts)
    return samples, faults + ([f"{wrong} empty sidecars"] if wrong else [])


def growth(samples: list[tuple[int, int]], count: int) -> tuple[float, float]:
    """Medians of the first tenth after the warm-up (a tenth) and of the last tenth, in MB."""
    first = [held for done, held in samples if 0.1 * count <= done < 0.2 * count]
    last = [held for done, held in samples if done >= 0.9 * count]
    return statistics.median(first) / 1e6, statistics.median(last) / 1e6


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "memory"])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", default="nano")
    values = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kosmos-edge-folders-") as name:
        work = Path(name)
        if values.what == "kills":
            found = kill_runs(work, kills=values.kills, pictures=values.pictures, model=values.model, seed=values.seed)
            middle = statistics.median(found.done_before)
            print(
                f"{found.kills} kills in {found.rounds} runs of {values.pictures} pictures: {len(found.faults)} faults"
            )
            print(
                f"sidecars there at a kill: median {middle:.0f}; a temporary file was left by {found.temporary} kills"
            )
            faults = found.faults
        else:
            samples, faults = long_run(work, count=values.count, model=values.model)
            before, after = growth(samples, values.count)
            change = 100 * (after / before - 1)
            print(f"{values.count} pictures: {before:.1f} MB -> {after:.1f} MB ({change:+.1f} %), {len(faults)} faults")
            if change >= 1:
                faults.append("memory grew")
    for fault in faults[:20]:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
