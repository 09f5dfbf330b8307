"""Drafts: how many passes of the decoder a folder of pictures needs, with what earlier answers teach and without.

    python bench/drafts.py count [--pictures 200]             # nano and nano-read: passes, drafts, bytes of a token
    python bench/drafts.py time --model FILE [--rounds 5]     # the same folders, modes in turn: times
    python bench/drafts.py rows --model FILE [--threads 2]    # what a pass of 1, 2, .. 16 rows takes

count: pictures of nano's world that no training saw (kosmos_edge.quality.nano_world), and pages of one line to four
that are painted here, for nano-read. Ids and log-probabilities must be the same bits in all modes, else it fails.
Nothing is timed: mode "fixed" asks by a rule whether a draft pays, so the counts are the same on every machine. Bytes
of a token: all weights that a pass reads, by the file's sizes, over the tokens that a pass gives; keys and values are
not counted, and of a batch nothing is said, whose answers share their passes.

time: modes take turns within each round, each on an engine that has learned nothing yet; medians of the rounds. rows:
answers in batches, without drafts; medians of the passes in which so many answers have a row each.
"""

from __future__ import annotations

import argparse
import random
import statistics
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from kosmos_edge import Model, hub, load
from kosmos_edge._native import _core
from kosmos_edge.bench.cost import Cost
from kosmos_edge.quality.nano_world import HELD_OUT_SEED, render, sample_scene

WORDS = (
    "the shop opens monday to friday from nine coffee tea water bread milk total price room door please keep this open "
    "closed exit north south street station ticket summer winter morning evening paper letter number name date"
)
FOLDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "captions with boxes": ("nano", {"task": "caption", "ground": True}),
    "captions": ("nano", {"task": "caption", "ground": False}),
    "long captions with boxes": ("nano", {"task": "caption", "length": "long", "ground": True}),
    "pages": ("nano-read", {"task": "read"}),
}
MODES = ("off", "fixed", "auto")


def page(number: int) -> Image.Image:
    """One line to four of words and amounts, black on white; another one for every number."""
    noise = random.Random(number)
    picture = Image.new("RGB", (320, 40 + 40 * (number % 4 + 1)), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(24)
    for line in range(number % 4 + 1):
        words = noise.sample(WORDS.split(), noise.randint(1, 3))
        if noise.random() < 0.3:
            words.append(f"{noise.randint(1, 40)}.{noise.randint(0, 99):02}")
        draw.text((20, 20 + 40 * line), " ".join(words), "black", font)
    return picture


def pictures(name: str, count: int) -> list[Image.Image]:
    """A folder for the model of that name."""
    if name == "nano-read":
        return [page(number) for number in range(count)]
    return [render(sample_scene(HELD_OUT_SEED + number)) for number in range(count)]


@dataclass
class Answers:
    """What a folder gave: its bits, and what it took."""

    bits: list[tuple[tuple[int, ...], bytes]]
    tokens: int = 0
    passes: int = 0
    drafted: int = 0
    accepted: int = 0
    decode_ms: float = 0
    wall_ms: float = 0


def answer(model: Model, images: list[Image.Image], what: dict[str, Any], batch_size: int, mode: str) -> Answers:
    """The folder's answers. Passes of a batch are counted for each answer in them."""
    model._open.engine.drafts = mode
    out = Answers([])
    start = time.perf_counter()
    for result in model.batch(images, batch_size=batch_size, on_error="raise", logprobs=True, **what):
        spent = result.timings
        out.bits.append((tuple(result.token_ids), struct.pack(f"{len(result.logprobs)}f", *result.logprobs)))
        out.tokens += spent.tokens
        out.passes += spent.passes
        out.drafted += spent.drafted_tokens
        out.accepted += spent.accepted_tokens
        out.decode_ms += spent.decode_ms
    out.wall_ms = (time.perf_counter() - start) * 1e3
    return out


def count(arguments: argparse.Namespace) -> None:
    """The table of docs/batching.md."""
    print("| folder | answers at a time | drafts | tokens | passes | tried | came | tokens a pass | bytes of a token |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for folder, (name, what) in FOLDERS.items():
        path = Path(hub.resolve(name))
        weights = Cost.of(str(path)).weight_bytes
        images = pictures(name, arguments.pictures)
        for size in (1, 8):
            bits = None
            for mode in ("off", "fixed"):
                with load(path, threads=arguments.threads) as model:
                    found = answer(model, images, what, size, mode)
                if bits not in (None, found.bits):
                    raise SystemExit(f"{folder}: answers differ with drafts")
                bits = found.bits
                rate = found.tokens / found.passes
                read = f"{weights / rate / 1e6:.2f} MB" if size == 1 else ""
                print(
                    f"| {folder} | {size} | {'tags' if mode == 'off' else 'learned'} | {found.tokens} | {found.passes} "
                    f"| {found.drafted} | {found.accepted} | {rate:.2f} | {read} |",
                    flush=True,
                )


def timed(arguments: argparse.Namespace) -> None:
    """Milliseconds of decoding, and of the whole folder, by mode."""
    path = Path(hub.resolve(arguments.model))
    for folder, (name, what) in FOLDERS.items():
        with load(path, threads=arguments.threads) as model:
            task = "read" if what["task"] == "read" else "caption"
            if task not in model.model_info["tasks"] or (what.get("ground") and not model.model_info["grounding"]):
                continue
        images = pictures(name, arguments.pictures)
        for size in (1, 8):
            spent: dict[str, list[Answers]] = {mode: [] for mode in MODES}
            for number in range(arguments.rounds + 1):
                for mode in MODES:
                    with load(path, threads=arguments.threads) as model:
                        found = answer(model, images, what, size, mode)
                    if number:  # the first round warms up
                        spent[mode].append(found)
            if len({tuple(run.bits) for runs in spent.values() for run in runs}) > 1:
                raise SystemExit(f"{folder}: answers differ with drafts")
            for mode, runs in spent.items():
                decode = statistics.median(run.decode_ms / run.tokens for run in runs)
                wall = statistics.median(run.wall_ms / len(images) for run in runs)
                rate = statistics.median(run.tokens / run.passes for run in runs)
                print(
                    f"{folder:26}{size:3} at a time  {mode:6}{decode * 1e3:10.0f} us of decoding a token"
                    f"{wall:10.2f} ms a picture{rate:8.2f} tokens a pass",
                    flush=True,
                )


def steps(engine: _core.Engine, size: int, found: dict[int, list[float]]) -> None:
    """Adds the milliseconds of passes in which so many answers take a token each."""
    batch = _core.Batch(engine, size)
    for number in range(size):
        params = _core.GenerateParams()
        params.max_tokens, params.temperature, params.seed, params.draft = size + 24, 3.0, number, False
        batch.add([("ids", list(range(4, 68)))], params)
    for _ in range(size):  # their prompts, one a pass
        batch.step()
    while batch.open:
        count, start = batch.open, time.perf_counter()
        batch.step()
        found[count].append((time.perf_counter() - start) * 1e3)


def rows(arguments: argparse.Namespace) -> None:
    """What a further row takes, against a pass of one row: by this a draft must pay."""
    engine = _core.Engine(str(hub.resolve(arguments.model)), threads=arguments.threads)
    sizes = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16)
    found: dict[int, list[float]] = {size: [] for size in range(1, max(sizes) + 1)}
    for _ in range(arguments.rounds):
        for size in sizes:
            steps(engine, size, found)
    one = statistics.median(found[1])
    for size in sizes:
        if found[size]:
            ms = statistics.median(found[size])
            further = (ms / one - 1) / (size - 1) if size > 1 else 0
            print(f"{size:3} rows {ms:9.2f} ms  {ms / one:6.2f} times one row; a further row {further:5.2f}")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    runs: dict[str, Callable[[argparse.Namespace], None]] = {"count": count, "time": timed, "rows": rows}
    parser.add_argument("what", choices=runs)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    runs[arguments.what](arguments)


if __name__ == "__main__":
    main()
