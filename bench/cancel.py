"""How soon a call ends once it is cancelled, phase by phase, and whether the model is as good as before afterwards.

    python bench/cancel.py --model FILE --threads 1 --cancels 150        # of each phase; --format json
    python bench/cancel.py --model FILE --convert CHECKPOINT             # the phase "convert" too
    python bench/cancel.py --model FILE --phases encode,prefill,decode --native encode   # some of the phases

A cancel comes at a random instant of the phase (a share of how long the phase takes, measured first). The latency is
the time from setting the cancel object to the moment at which the caller has the exception, the polling of the object
included; for the phases "native" to the moment at which the engine itself has stopped, and "work" is how much processor
time it still spent, which other programs on the machine do not change. After every fifth cancel an answer must have the
bits of the first one (conversions are not followed by one). Calls that were done before their cancel came do not count.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kosmos_edge import Cancelled, Model, _core, load
from kosmos_edge.bench.workload import jpeg_bytes, synthetic_photo
from kosmos_edge.images import open_image

CHECK_EVERY = 5
PHASES = ("load", "image", "big png", "encode", "prefill", "decode", "beams", "batch", "score")
NATIVE = ("load", "resize", "encode", "prefill", "decode", "beams", "score")
Call = Callable[[Any], object]  # of the Flag


def big_jpeg(megapixels: int) -> bytes:
    """A photo of so many millions of pixels."""
    side = int((megapixels * 1e6) ** 0.5)
    return jpeg_bytes(synthetic_photo(1, (side, side)))


def big_png(megapixels: int) -> bytes:
    """The same as PNG."""
    side, out = int((megapixels * 1e6) ** 0.5), io.BytesIO()
    synthetic_photo(2, (side, side)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def calls(model: Model, path: str, threads: int) -> dict[str, Call]:
    """What is cancelled, by phase. Pictures that are not the phase are encoded before."""
    photo = open_image(jpeg_bytes(synthetic_photo(3)))
    encoded = model.encode(photo)
    jpeg, png = big_jpeg(24), big_png(24)
    words = "the quick brown fox jumps over the lazy dog and " * 26
    pictures = [jpeg_bytes(synthetic_photo(n)) for n in range(4)]
    free: dict[str, Any] = {"grammar": False, "temperature": 1.0, "logprobs": True}

    def many(cancel: Any) -> object:
        return list(model.batch(pictures, batch_size=4, max_tokens=8, cancel=cancel, **free))

    def prefill(cancel: Any) -> object:
        encoded.forget()
        return model.generate([encoded, words], max_tokens=1, cancel=cancel)

    return {
        "load": lambda cancel: load(path, threads=threads, cancel=cancel),
        "image": lambda cancel: model.encode(jpeg, cancel=cancel),
        "big png": lambda cancel: model.encode(png, cancel=cancel),
        "encode": lambda cancel: model.encode(photo, cancel=cancel),
        "prefill": prefill,
        "decode": lambda cancel: model.generate([encoded, "An image of"], max_tokens=32, cancel=cancel, **free),
        "beams": lambda cancel: model.generate([encoded, "It is"], num_beams=4, max_tokens=12, cancel=cancel),
        "batch": many,
        "score": lambda cancel: model.score(encoded, [words[:n] for n in range(100, 600, 40)], cancel=cancel),
    }


def conversion(source: str, folder: str) -> Call:
    """The conversion of a checkpoint."""
    from kosmos_edge.convert import convert

    return lambda cancel: convert(source, Path(folder) / "out.gguf", overwrite=True, cancel=cancel)


def native_calls(model: Model, path: str, threads: int) -> dict[str, Call]:
    """The same inside the engine alone: how long it goes on computing, whatever its caller waits for."""
    engine = model._open.engine
    photo = open_image(jpeg_bytes(synthetic_photo(3)))
    image = ("image", engine.encode_image(photo.rgb, photo.width, photo.height))
    big = open_image(big_jpeg(24))
    words = "the quick brown fox jumps over the lazy dog and " * 26
    sentence, text = [image, ("text", "An image of")], [image, ("text", words)]

    def generate(segments: list[Any], cancel: Flag, **fields: Any) -> object:
        params = _core.GenerateParams()
        for name, value in fields.items():
            setattr(params, name, value)
        return engine.generate(segments, params, None, cancel.token)

    texts = [[("text", words[:n])] for n in range(100, 600, 40)]
    return {
        "load": lambda c: _core.Engine(path, threads=threads, cancel=c.token),
        "resize": lambda c: _core.resize_bicubic(big.rgb, big.width, big.height, 224, 224, c.token),
        "encode": lambda c: engine.encode_image(photo.rgb, photo.width, photo.height, c.token),
        "prefill": lambda c: generate(text, c, max_tokens=1),
        "decode": lambda c: generate(sentence, c, max_tokens=32, temperature=1.0, logprobs=True),
        "beams": lambda c: generate(sentence, c, max_tokens=12, num_beams=4),
        "score": lambda c: engine.score(sentence, texts, c.token),
    }


class Flag(threading.Event):
    """A cancel object that notes when it was set; conversions read `cancelled`, the engine the token."""

    def __init__(self) -> None:
        super().__init__()
        self.token = _core.CancelToken()
        self.at = self.worked = 0.0
        self.clock = time.pthread_getcpuclockid(threading.get_ident())  # of the calling thread

    def set(self) -> None:
        """Now."""
        self.at = time.perf_counter()
        self.worked = time.clock_gettime(self.clock)
        self.token.cancel()
        super().set()

    @property
    def cancelled(self) -> bool:
        """The same as is_set."""
        return self.is_set()


def latency(call: Call, after: float) -> tuple[float, float] | None:
    """Seconds from the cancel, which comes after `after`, to the exception, and of work of the calling thread.

    None where the call was done before.
    """
    flag = Flag()
    timer = threading.Timer(after, flag.set)
    timer.start()
    try:
        call(flag)
    except Cancelled:
        return time.perf_counter() - flag.at, time.thread_time() - flag.worked
    finally:
        timer.cancel()
        timer.join()
    return None


def measure(name: str, call: Call, cancels: int, chance: random.Random, check: Callable[[], bool]) -> dict[str, Any]:
    """Milliseconds of one phase."""
    start = time.perf_counter()
    call(Flag())
    length = time.perf_counter() - start
    found: list[float] = []
    work: list[float] = []
    same = checked = 0
    while len(found) < cancels:
        seconds = latency(call, chance.uniform(0, 0.95) * length)
        if seconds is None:
            length *= 0.9  # the first one was the slowest
            continue
        found.append(seconds[0] * 1e3)
        work.append(seconds[1] * 1e3)
        if len(found) % CHECK_EVERY == 0 or len(found) == cancels:
            same, checked = same + check(), checked + 1
    found.sort()
    row = {"phase": name, "phase_ms": length * 1e3, "cancels": cancels, "checked": checked, "identical_after": same}
    row |= {"p50_ms": statistics.median(found), "p99_ms": found[int(0.99 * (len(found) - 1))], "max_ms": found[-1]}
    if name.startswith("native"):
        work.sort()
        row |= {"work_p99_ms": work[int(0.99 * (len(work) - 1))], "work_max_ms": work[-1]}
    row["times_ms"] = [round(ms, 1) for ms in found]
    print(line(row), file=sys.stderr, flush=True)
    return row


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    work = [f"{row[name]:7.1f}" if name in row else " " * 7 for name in ("work_p99_ms", "work_max_ms")]
    times = [f"{row[name]:7.1f}" for name in ("p50_ms", "p99_ms", "max_ms")]
    cells = [f"{row['phase']:14}", f"{row['phase_ms']:8.0f}", f"{row['cancels']:5}", *times, *work]
    return f"| {' | '.join(cells)} | {row['identical_after']}/{row['checked']} |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cancels", type=int, default=150, help="of each phase")
    parser.add_argument("--phases", default=",".join(PHASES), help="through the API")
    parser.add_argument("--native", default=",".join(NATIVE), help="inside the engine")
    parser.add_argument("--convert", metavar="CHECKPOINT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--format", choices=["text", "json"], default="text")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    model = load(given.model, threads=given.threads)
    photo = model.encode(open_image(jpeg_bytes(synthetic_photo(9))))

    def answer() -> tuple[list[int], list[float] | None]:
        photo.forget()
        said = model.generate([photo, "It is"], max_tokens=2, logprobs=True)
        return said.token_ids, said.logprobs

    want = answer()
    rows = []
    kinds = (("", given.phases, calls), ("native ", given.native, native_calls))
    for prefix, names, make in kinds:
        found = make(model, str(model.path), given.threads) if names else {}
        for name in filter(None, names.split(",")):
            rows.append(measure(prefix + name, found[name], given.cancels, chance, lambda: answer() == want))
    if given.convert:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure("convert", conversion(given.convert, folder), given.cancels, chance, lambda: True))
    every = sorted(ms for row in rows for ms in row.pop("times_ms"))
    total = {"phase": "all", "phase_ms": 0.0, "cancels": len(every), "p50_ms": statistics.median(every)}
    total |= {"p99_ms": every[int(0.99 * (len(every) - 1))], "max_ms": every[-1]}
    for name in ("checked", "identical_after"):
        total[name] = sum(row[name] for row in rows)
    rows.append(total)
    if given.format == "json":
        print(json.dumps({"model": model.name, "device": model.description, "rows": rows}, indent=2))
        return
    print(f"{model.name}, {model.description}; milliseconds\n")
    print("| phase | takes | times | p50 | p99 | max | work p99 | work max | same after |\n|" + " --- |" * 9)
    print("\n".join(line(row) for row in rows))


if __name__ == "__main__":
    main()
