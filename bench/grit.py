"""GRIT construction on nano's world, whose true boxes are known: precision and recall at IoU 0.5.

    python bench/grit.py figures [--scenes 1000] [--model nano] [--seed 900000000] [--context] [--json FILE]
    python bench/grit.py long [--scenes 10000] [--model nano] [--kills 5]

figures: paints held-out scenes of shapes with captions of true and of false phrases, runs `kosmos-edge grit build`
(spaCy, locate), and compares the noun chunks' boxes with the scene: a box is right if its phrase is true of an object
with which its IoU is at least 0.5, an object is found if a box of its phrase is right. A chunk that is none of the
caption's phrases (the parser's mistake) has only wrong boxes. For several thresholds.

long: one run over many scenes that is killed (SIGKILL) at random instants and resumed, against one that nobody
disturbed: all files must be the same bytes. Prints its memory and the bytes of the journal.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_edge.apps.grit import iou, read_records
from kosmos_edge.quality.nano_questions import name_of, phrase_of
from kosmos_edge.quality.nano_world import COLOR_NAMES, HELD_OUT_SEED, SHAPES, Scene, render, sample_scene

THRESHOLDS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
RIGHT = 0.5  # IoU
FORMS = ("{}", "a picture of {}", "{} on a background", "{} in the morning")


@dataclass(frozen=True, slots=True)
class Truth:
    """What a caption's phrases mean: phrase without article -> true boxes; none for a phrase that is false."""

    caption: str
    boxes: dict[str, list[tuple[float, float, float, float]]]


def write_caption(scene: Scene, noise: random.Random, *, lies: bool) -> Truth:
    """The scene's objects in a sentence; with lies one in three captions names something that is not there."""
    objects = [(o.shape, o.color, o.box) for o in scene.objects]
    boxes: dict[str, list[tuple[float, float, float, float]]] = {}
    phrases = []
    for one in objects:
        if name_of(one) not in boxes:
            phrases.append(phrase_of(one))
        boxes.setdefault(name_of(one), []).append(one[2])
    if lies and noise.random() < 1 / 3:
        while True:
            shape, color = noise.randrange(len(SHAPES)), noise.randrange(len(COLOR_NAMES))
            false = (shape, color, (0.0, 0.0, 1.0, 1.0))
            if name_of(false) not in boxes:
                break
        phrases.insert(noise.randrange(len(phrases) + 1), phrase_of(false))
        boxes[name_of(false)] = []
    joint = noise.choice((" and ", " next to ", " with "))
    sentence = phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + joint + phrases[-1]
    return Truth(noise.choice(FORMS).format(sentence), boxes)


def paint(folder: Path, count: int, seed: int, *, lies: bool = True) -> dict[str, Truth]:
    """Scenes with captions beside them; -> key -> what is true."""
    folder.mkdir(parents=True)
    truths = {}
    for number in range(count):
        scene = sample_scene(seed + number)
        truth = write_caption(scene, random.Random(f"caption {seed + number}"), lies=lies)
        render(scene, 224).save(folder / f"{number:06}.png", compress_level=1)
        (folder / f"{number:06}.txt").write_text(truth.caption + "\n", "utf-8")
        truths[f"{number:06}.png"] = truth
    return truths


def command(folder: Path, out: Path, model: str, *more: str) -> list[str]:
    """The run."""
    words = [sys.executable, "-P", "-m", "kosmos_edge", "grit", "build", str(folder), "-o", str(out), "-m", model]
    return [*words, "--records", "json", "-q", *more]


@dataclass(slots=True)
class Counts:
    """Boxes and objects over all scenes."""

    boxes: int = 0
    right: int = 0
    objects: int = 0
    found: int = 0
    lies: int = 0  # phrases that are false
    believed: int = 0  # of these: with a box

    def shares(self) -> dict[str, float | int]:
        """Precision of boxes, recall of objects, and the share of false phrases that got a box."""
        return {
            "boxes": self.boxes,
            "precision": round(self.right / max(1, self.boxes), 4),
            "objects": self.objects,
            "recall": round(self.found / max(1, self.objects), 4),
            "false_phrases": self.lies,
            "false_phrases_with_box": round(self.believed / max(1, self.lies), 4),
        }


def compare(records: list[dict[str, Any]], truths: dict[str, Truth], threshold: float, kind: str) -> Counts:
    """kind: noun_chunks or ref_exps. The thing that an expression is about is the one that it begins with."""
    counts = Counts()
    by_key = {record["key"]: record for record in records}
    for key, truth in truths.items():
        rows = [row for row in by_key.get(key, {kind: []})[kind] if row[6] >= threshold]
        said: dict[str, list[list[float]]] = {name: [] for name in truth.boxes}
        for row in rows:
            phrase = truth.caption[row[0] : row[1]]
            name = next((name for name in truth.boxes if phrase.split(" ", 1)[-1].startswith(name)), None)
            if name is None:
                counts.boxes += 1
            else:
                said[name].append(row[2:6])
        for name, boxes in said.items():
            true = truth.boxes[name]
            counts.boxes += len(boxes)
            counts.right += sum(any(iou(tuple(box), one) >= RIGHT for one in true) for box in boxes)
            counts.objects += len(true)
            counts.found += sum(any(iou(tuple(box), one) >= RIGHT for box in boxes) for one in true)
            counts.lies += not true
            counts.believed += not true and bool(boxes)
    return counts


def figures(args: argparse.Namespace) -> int:
    """Prints the table."""
    with tempfile.TemporaryDirectory(prefix="kosmos-edge-grit-") as name:
        work = Path(name)
        truths = paint(work / "in", args.scenes, args.seed)
        more = ["--context"] if args.context else []
        subprocess.run(
            command(work / "in", work / "out", args.model, "--threshold", "0", *more), check=True, timeout=36_000
        )
        facts = json.loads((work / "out" / "statistics.json").read_text("utf-8"))
        rows = []
        for threshold in THRESHOLDS:  # chosen before suppression, as the program does
            out = work / f"at-{threshold}"
            options = ["--threshold", str(threshold), "--contained", "keep", "--sheet", "0", "--resume", *more]
            journal = ["--journal", str(work / "out" / "journal.sqlite3")]
            subprocess.run(command(work / "in", out, args.model, *options, *journal), check=True, timeout=36_000)
            records = read_records(out / "records.jsonl")
            rows.append((threshold, compare(records, truths, threshold, "noun_chunks").shares()))
        print(f"{args.scenes} scenes from seed {args.seed}, model {args.model}, context {args.context}")
        print(f"parser {facts['parser']['name']} {facts['parser']['version']}, {facts['parser']['pipeline']}")
        print("| threshold | boxes | precision | recall | false phrases with a box |\n| --- | --- | --- | --- | --- |")
        for threshold, row in rows:
            shares = f"{row['precision']:.3f} | {row['recall']:.3f} | {row['false_phrases_with_box']:.3f}"
            print(f"| {threshold} | {row['boxes']} | {shares} |")
        print(f"{rows[0][1]['objects']} objects, {rows[0][1]['false_phrases']} false phrases")
        if args.json is not None:
            args.json.write_text(json.dumps({"statistics": facts, "rows": rows}, indent=1) + "\n", "utf-8")
    return 0


def resident(process: int) -> int:
    """RssAnon + VmSwap in bytes; 0 once the process has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    values = [int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "VmSwap"))]
    return 1024 * sum(values)


def watched(words: list[str], until: float | None) -> tuple[int, int]:
    """Runs; kills it after `until` seconds. -> (exit status, largest memory in bytes)"""
    process = subprocess.Popen(words)
    start, most = time.monotonic(), 0
    while process.poll() is None:
        most = max(most, resident(process.pid))
        if until is not None and time.monotonic() - start > until:
            process.send_signal(signal.SIGKILL)
            process.wait()
            break
        time.sleep(0.05)
    return process.returncode, most


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file but the journal."""
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("journal"):
            yield path.name, path.read_bytes()


def long(args: argparse.Namespace) -> int:
    """Kills and resumes; 1 if anything differs."""
    noise = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="kosmos-edge-grit-") as name:
        work = Path(name)
        paint(work / "in", args.scenes, args.seed)
        start = time.monotonic()
        code, most = watched(command(work / "in", work / "whole", args.model), None)
        seconds = time.monotonic() - start
        print(f"undisturbed: status {code}, {seconds:.0f} s, at most {most / 1e6:.1f} MB, ", end="")
        print(f"journal {(work / 'whole' / 'journal.sqlite3').stat().st_size / args.scenes:.0f} bytes an image")
        killed = 0
        while killed < args.kills:
            until = noise.uniform(0.1, 0.5) * seconds / max(1, args.kills) + 2
            code, _ = watched(command(work / "in", work / "out", args.model, "--resume"), until)
            if code == 0:
                break
            killed += 1
            parts = [path.name for path in (work / "out").iterdir() if path.name.endswith((".jsonl", ".html"))]
            if parts:
                print(f"a killed run left files with their names: {parts}")
                return 1
        code, _ = watched(command(work / "in", work / "out", args.model, "--resume"), None)
        same = dict(contents(work / "whole")) == dict(contents(work / "out"))
        facts = json.loads((work / "out" / "statistics.json").read_text("utf-8"))
        print(f"{killed} kills, then status {code}; the same bytes: {same}; {facts['pictures']} records")
        return 0 if same and code == 0 else 1


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for run, scenes in ((figures, 1000), (long, 10_000)):
        one = commands.add_parser(run.__name__)
        one.set_defaults(run=run)
        one.add_argument("--scenes", type=int, default=scenes)
        one.add_argument("--model", default="nano")
        one.add_argument("--seed", type=int, default=HELD_OUT_SEED)
        if run is figures:
            one.add_argument("--context", action="store_true")
            one.add_argument("--json", type=Path)
        else:
            one.add_argument("--kills", type=int, default=5)
    args = parser.parse_args()
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    sys.exit(main())
