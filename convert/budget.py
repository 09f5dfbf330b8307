"""The size that a file may have, and the choice of one option per tensor that costs least within it.

The choice is the well-known one for separable costs under one constraint (Shoham and Gersho, 1988): of each tensor only
the options on the lower convex hull of cost over bytes, taken in the order of what a byte saves, over all tensors.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from kosmos_edge.errors import InvalidRequest

_UNITS: dict[str, int] = {
    "": 1,
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate(("K", "M", "G"), 1)},
    **{f"{prefix}IB": 1024**power for power, prefix in enumerate(("K", "M", "G"), 1)},
}
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)")
LARGEST = 1 << 50


@dataclass(frozen=True)
class Option:
    """One way to store a tensor. nbytes: in the file, with padding. cost: what it adds to the whole; not negative."""

    dtype: str
    nbytes: int
    cost: float


def parse_size(size: int | str) -> int:
    """Bytes of `900MB`, `1.2GB`, `858MiB` or a number. InvalidRequest."""
    found = _SIZE.fullmatch(size.strip()) if isinstance(size, str) else None
    if isinstance(size, str) and (found is None or found[2].upper() not in _UNITS):
        raise InvalidRequest(f"--size is {size!r}; expected a number and a unit, such as 900MB, 1.2GB or 858MiB")
    if isinstance(size, str):
        assert found is not None
        whole, _, fraction = found[1].partition(".")
        unit = _UNITS[found[2].upper()]
        value: int = int(whole) * unit + int(fraction or 0) * unit // 10 ** len(fraction)
    else:
        value = size
    if not 0 < value <= LARGEST:
        raise InvalidRequest(f"--size is {size!r}; expected 1 byte to {LARGEST}")
    return value


def shown(nbytes: int) -> str:
    """As file names say it: 900MB, or 900.25MB, rounded up to 10 kB."""
    tens = -(-nbytes // 10_000)
    return f"{tens / 100:g}MB"


def smallest(options: Mapping[str, Sequence[Option]]) -> int:
    """Bytes that no choice can go below."""
    return sum(min(option.nbytes for option in row) for row in options.values())


def choose(options: Mapping[str, Sequence[Option]], room: int) -> dict[str, Option]:
    """For each tensor one of its options, together at most `room` bytes; room: at least smallest(options).

    Optimal but for what the last steps leave of the room. Ties go to the earlier tensor, so that it is deterministic.
    """
    hulls = {name: _hull(row) for name, row in options.items()}
    chosen = {name: hull[0] for name, hull in hulls.items()}
    left = room - sum(option.nbytes for option in chosen.values())
    steps = [
        (-(low.cost - high.cost) / (high.nbytes - low.nbytes), order, at, name)
        for order, (name, hull) in enumerate(hulls.items())
        for at, (low, high) in enumerate(pairwise(hull))
    ]
    for _, _, at, name in sorted(steps):  # of one tensor in its order: a hull is convex
        low, high = hulls[name][at : at + 2]
        if chosen[name] is low and high.nbytes - low.nbytes <= left:
            chosen[name] = high
            left -= high.nbytes - low.nbytes
    return _fill(options, chosen, left)


def _hull(row: Sequence[Option]) -> list[Option]:
    """From the smallest to the best option, each step saving less per byte than the one before."""
    hull: list[Option] = []
    for option in sorted(row, key=lambda o: (o.nbytes, o.cost, o.dtype)):
        if hull and option.cost >= hull[-1].cost:
            continue
        while len(hull) > 1 and _cross(hull[-2], hull[-1], option) <= 0:
            hull.pop()
        hull.append(option)
    return hull


def _cross(a: Option, b: Option, c: Option) -> float:
    """Above 0 where b lies below the line from a to c."""
    return (a.cost - b.cost) * (c.nbytes - a.nbytes) - (a.cost - c.cost) * (b.nbytes - a.nbytes)


def _fill(options: Mapping[str, Sequence[Option]], chosen: dict[str, Option], left: int) -> dict[str, Option]:
    """Uses what is left of the room: the step that saves most and fits, on the hull or not, until there is none."""
    while True:
        best: tuple[float, str, Option] | None = None
        for name, row in options.items():
            for option in row:
                saved = chosen[name].cost - option.cost
                if option.nbytes - chosen[name].nbytes <= left and saved > (best[0] if best else 0):
                    best = (saved, name, option)
        if best is None:
            return chosen
        _, name, option = best
        left -= option.nbytes - chosen[name].nbytes
        chosen[name] = option
