"""How many machine hours and bytes a collection takes, from a figure that you measured on one machine.

    python examples/cluster/sizing.py --images 100e6 --rate 1.58 [--machines 100] [--image-bytes 200e3]
        [--row-bytes 400] [--deaths-per-hour 0.001] [--task-images 32] [--slowest 1.3] [--start-seconds 20]

rate: images per second of one whole machine (`kosmos-edge bench --phases folder`, or a shard that has run). Printed:
hours of one machine, the hours until `machines` are done, bytes read, written and fetched per second.

The arithmetic: hours = images / rate / 3600. A machine that dies loses at most the tasks that it was given (two per
worker) and the time to start again: deaths * (2 * task_images / rate + start_seconds). With shards cut by a hash, the
slowest of them ends the run: a shard has images / machines pictures, give or take three times the square root of that,
and its machine may be `slowest` times as slow as the average one; with --engine ray, workers take tasks as they can,
and only the last task is waited for.
"""

from __future__ import annotations

import argparse
import json
import math
import sys


def size(
    images: float,
    rate: float,
    machines: int = 1,
    image_bytes: float = 200e3,
    row_bytes: float = 400,
    deaths_per_hour: float = 0.001,
    task_images: int = 32,
    slowest: float = 1.3,
    start_seconds: float = 20,
) -> dict[str, float]:
    """The figures, by name; times in hours, amounts in bytes."""
    for name, value in (("images", images), ("rate", rate), ("machines", machines)):
        if not value > 0:
            raise ValueError(f"{name}: expected a number above 0, got {value}")
    hours = images / rate / 3600
    lost = hours * deaths_per_hour * (2 * task_images / rate + start_seconds) / 3600
    share = images / machines
    shard = (share + 3 * math.sqrt(share)) / rate / 3600 * slowest
    last = 2 * task_images * slowest / rate / 3600
    return {
        "machine_hours": hours + lost,
        "lost_to_deaths": lost,
        "hours_with_ray": (hours + lost) / machines + last,
        "hours_with_shards": shard + lost / machines,
        "bytes_read": images * image_bytes,
        "bytes_written": images * row_bytes,
        "bytes_read_per_second": machines * rate * image_bytes,
    }


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=float, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--machines", type=int, default=1)
    for name, default in (("image-bytes", 200e3), ("row-bytes", 400), ("deaths-per-hour", 0.001), ("slowest", 1.3)):
        parser.add_argument(f"--{name}", type=float, default=default)
    parser.add_argument("--task-images", type=int, default=32)
    parser.add_argument("--start-seconds", type=float, default=20)
    given = vars(parser.parse_args())
    try:
        print(json.dumps({name: float(f"{value:.4g}") for name, value in size(**given).items()}, indent=2))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
