"""Device memory that the model takes: lines of JSON as bench/cuda/cuda_checks.py prints.

    python bench/cuda/cuda_memory.py --model FILE.gguf [--device cuda]      # on a card, by the driver's count
    python bench/cuda/cuda_memory.py --model FILE.gguf --emulated LIBRARY   # without one: what the backend asks for

LIBRARY is what tests/helpers/cuda_emulated.py builds; the emulated device counts, and computes nothing.
"Above the weights" is what is in use at the most while a picture is captioned, less the file's tensors. The driver's
count is that of the whole card, which must be idle otherwise; what the driver takes for a process that has only said
hello is stated by itself.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MOST_ABOVE = 300e6
TOKENS = 40


def tensor_bytes(path: Path) -> int:
    """Of a file's weights."""
    from kosmos_edge import _core

    return sum(size for *_, size in _core.GgufFile(str(path)).tensors())


def of_the_card(number: int) -> int:
    """Bytes in use on a card, by nvidia-smi."""
    command = ["nvidia-smi", "-i", str(number), "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) << 20


@contextmanager
def watched(count: Callable[[], int]) -> Iterator[list[int]]:
    """The most that `count` says, in a list of one, while the body runs."""
    most, over = [count()], threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            most[0] = max(most[0], count())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()
        most[0] = max(most[0], count())


def caption(model: Any, batch: int) -> None:
    """`batch` photos side by side: they are encoded before, so that none is through when the last one begins."""
    from kosmos_edge.bench.workload import synthetic_photo

    photos = [model.encode(synthetic_photo(n)) for n in range(batch)]
    options = {"max_tokens": TOKENS, "temperature": 1.0, "batch_size": batch, "on_error": "raise"}  # no early end
    list(model.batch(photos, task="caption", **options))


def on_a_card(path: Path, device: str) -> Iterator[tuple[str, int]]:
    """(what, bytes)"""
    from kosmos_edge import _core, load

    number = int(device.partition(":")[2] or 0)
    before = of_the_card(number)
    backend = _core.testing.make_backend(device, 1, "")
    context = of_the_card(number) - before
    yield "the driver's for a process", context
    with load(path, device=device, prefix_cache_mb=0) as model:
        del backend
        yield "loaded", of_the_card(number) - before - context
        for batch in (1, 64):
            with watched(lambda: of_the_card(number)) as most:
                caption(model, batch)
            yield f"at batch {batch}", most[0] - before - context


def emulated(path: Path, library: Path) -> Iterator[tuple[str, int]]:
    """(what, bytes)"""
    os.environ["KOSMOS_EDGE_CUDA_LIBRARY"] = str(library)
    sys.path.append(str(HERE.parents[1] / "tests"))
    from helpers.cuda_emulated import EmulatedDevice

    from kosmos_edge import load

    device = EmulatedDevice(library)
    device.compute(False)
    with load(path, device="cuda", prefix_cache_mb=0) as model:
        yield "loaded", device.bytes()
        for batch in (1, 64):
            caption(model, batch)
            yield f"at batch {batch}", device.bytes(most=True)


def lines(weights: int, found: Iterator[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    """Each as a line of the result; the one at batch 1 has a limit."""
    for what, size in found:
        if "driver" in what:
            yield {
                "check": f"memory: {what}",
                "value": size,
                "wanted": "",
                "holds": True,
                "said": f"{size / 1e6:.0f} MB",
            }
            continue
        above = size - weights
        limit = what == "at batch 1"
        said = f"{size / 1e6:.0f} MB, weights {weights / 1e6:.0f} MB, above them {above / 1e6:.0f} MB"
        wanted = f"<= {MOST_ABOVE / 1e6:.0f} MB above the weights" if limit else ""
        yield {
            "check": f"memory: {what}", "value": above, "wanted": wanted, "holds": not limit or above <= MOST_ABOVE,
            "said": said,
        }  # fmt: skip


def main() -> int:
    """Command line; status 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--emulated", type=Path, metavar="LIBRARY")
    options = parser.parse_args()
    held = True
    found = emulated(options.model, options.emulated) if options.emulated else on_a_card(options.model, options.device)
    for line in lines(tensor_bytes(options.model), found):
        print(json.dumps(line), flush=True)
        held = held and line["holds"]
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
