"""How many machines, hours and bytes a number of pictures takes: arithmetic, not a measurement (docs/distributed.md).

python bench/sizing.py [--pictures 1e8] [--rate 1.58] [--workers 1] [--days 30] ...
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

RATE = 1.58  # images/s of one worker: docs/speed.md, folder, 8 at a time, q4_k_m, EPYC, 2 cores and 2 threads
PARALLEL = 0.9  # of the sum that the workers of a machine reach together: the goal, not a measurement
MEAN_PICTURE, ROW = 100_000, 600  # bytes of a picture, and of a row in a part: assumptions
TASK = 32  # pictures that a worker loses when it dies
START_SECONDS = 30.0  # of a worker that replaces a dead one: assumption
MACHINE_DEATHS_PER_HOUR = 1 / 1000  # assumption: one in six weeks
SKEW = 0.05  # share of the time in which machines wait for the slowest shards: assumption


@dataclass(frozen=True)
class Sizing:
    """What a run takes."""

    pictures: float
    core_hours: float  # of workers at work, without losses
    retries: float  # pictures computed again
    machines: int
    hours: float
    read_bytes: float
    written_bytes: float
    read_per_second: float


def size(
    pictures: float, *, rate: float = RATE, workers: int = 16, cores: int = 2, days: float = 30.0, spot: float = 1.0
) -> Sizing:
    """rate: of one worker with `cores` cores; workers: of a machine; days: in which it shall be done; spot: how many
    times as often machines die."""
    worker_seconds = pictures / rate / PARALLEL
    deaths = worker_seconds / 3600 / workers * MACHINE_DEATHS_PER_HOUR * spot  # of machines, with all their workers
    retries = deaths * workers * TASK
    lost_seconds = deaths * workers * (TASK / rate + START_SECONDS)
    busy = (worker_seconds + lost_seconds) * (1 + SKEW)
    machines = math.ceil(busy / workers / (days * 86400))
    hours = busy / workers / machines / 3600
    read = (pictures + retries) * MEAN_PICTURE
    return Sizing(
        pictures, worker_seconds * cores / 3600, retries, machines, hours, read, pictures * ROW, read / hours / 3600
    )


def line(found: Sizing) -> str:
    """A row of the table in docs/distributed.md."""
    return (
        f"| {found.pictures:,.0f} | {found.core_hours:,.0f} | {found.machines:,} | {found.hours:,.0f} | "
        f"{found.read_bytes / 1e12:,.1f} | {found.written_bytes / 1e9:,.0f} | "
        f"{found.read_per_second / 1e6:,.0f} | {found.retries:,.0f} |"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=float, action="append", help="default: 1e8 and 5e9")
    parser.add_argument("--rate", type=float, default=RATE, help="images/s of a worker, from kosmos-edge bench")
    parser.add_argument("--cores", type=int, default=2, help="of a worker")
    parser.add_argument("--workers", type=int, default=16, help="of a machine")
    parser.add_argument("--days", type=float, default=30.0, help="in which it shall be done")
    parser.add_argument("--spot", type=float, default=1.0, help="how many times as often machines die")
    given = parser.parse_args()
    for pictures in given.pictures or [1e8, 5e9]:
        more = {"workers": given.workers, "cores": given.cores, "days": given.days, "spot": given.spot}
        print(line(size(pictures, rate=given.rate, **more)))


if __name__ == "__main__":
    main()
