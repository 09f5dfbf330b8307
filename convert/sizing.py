"""A type for each tensor, so that the file has at most so many bytes and its answers change least.

What a type costs a tensor is the relative error of its matrix: of the products, where the inputs are known
(sum w (x' - x)^2 / sum w x^2, w the mean squares of the inputs), else of the values (w = 1). Costs of different tensors
are comparable once they are multiplied with what an error of that tensor does to the answers, which a calibration
measures (Probe). Without it all count alike, and vision and projector keep FLOOR_BITS: boxes suffer first there.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest

from .budget import Option, choose, parse_size, shown, smallest
from .gguf import Entry, TensorInfo, pad
from .recipe import RECIPES, TYPES, Recipe, find_recipe
from .sources.files import SourceFile
from .statistics import Statistics

SAMPLE_VALUES = 1 << 17  # of a matrix, whole rows evenly spaced, on which errors are measured
FLOOR_BITS = 6.0  # per value, of vision and projector where nothing was measured
PROBE_TYPES = ("Q4_K", "Q4_0")  # a group is rounded to the first that fits, to see what that does
SIZE_KEYS = "quantize.size."
_WORKERS = 2

# Float32 values of the rows of a tensor that are asked for.
Sample = Callable[[str, Sequence[int]], bytes]
Errors = dict[str, float]  # type -> relative error


# Rounds tensors to these types, one group at a time -> (group, what that adds to the KL of the answers).
Probe = Callable[[Mapping[str, str]], list[tuple[list[str], float]]]


@dataclass(frozen=True)
class Row:
    """Of the plan, for people."""

    name: str
    dtype: str
    nbytes: int
    error: float  # relative
    cost: float


@dataclass(frozen=True)
class Plan:
    """The types, and the rest of what is said of them. entries: for the metadata, of a length known beforehand."""

    infos: list[TensorInfo]
    rows: list[Row]
    recipe: Recipe  # with the type of most of the decoder
    entries: list[Entry]


class Sizing:
    """A budget, and what is known of the model's inputs and of what errors do to its answers."""

    def __init__(self, size: int | str, statistics: Statistics | None = None) -> None:
        """size: of the whole file, bytes or text. InvalidRequest."""
        self.bytes = parse_size(size)
        self.label = shown(self.bytes)
        self.statistics = statistics
        self.probe: Probe | None = None

    @property
    def entries(self) -> list[Entry]:
        """For the file's metadata."""
        method = "relative error of " + ("products" if self.statistics else "values")
        method += " times measured KL" if self.probe else f", at least {FLOOR_BITS:g} bits for vision and projector"
        return [(SIZE_KEYS + "bytes", "u64", self.bytes), (SIZE_KEYS + "method", "str", method)]

    def plan(self, fixed: Sequence[TensorInfo], header_bytes: int, sample: Sample) -> Plan:
        """fixed: tensors as a recipe has them: those of one value per block keep their type. header_bytes: of the file.

        InvalidRequest for a budget that cannot be kept, with the smallest size that can.
        """
        types = {info.name: possible(info, floor=self.probe is None) for info in fixed}
        by_bytes = {
            info.name: [
                Option(dtype, pad(TensorInfo(info.name, dtype, info.shape).nbytes), 0) for dtype in types[info.name]
            ]
            for info in fixed
        }
        room, least = self.bytes - header_bytes, smallest(by_bytes)
        if least > room:
            raise InvalidRequest(
                f"--size: no choice of types makes the file {self.bytes} bytes; the smallest has "
                f"{least + header_bytes} ({shown(least + header_bytes)})"
            )
        errors = self._errors([info for info in fixed if len(types[info.name]) > 1], types, sample)
        weights = self._weights(errors)
        options = {
            name: [
                Option(o.dtype, o.nbytes, weights[name] * errors[name][o.dtype] if name in errors else 0) for o in row
            ]
            for name, row in by_bytes.items()
        }
        chosen = choose(options, room)
        infos = [TensorInfo(info.name, chosen[info.name].dtype, info.shape) for info in fixed]
        rows = [
            Row(name, chosen[name].dtype, chosen[name].nbytes, errors[name][chosen[name].dtype], chosen[name].cost)
            for name in errors
        ]
        return Plan(infos, rows, _recipe_like(infos), self.entries)

    def _errors(self, infos: Sequence[TensorInfo], types: Mapping[str, list[str]], sample: Sample) -> dict[str, Errors]:
        known = {} if self.statistics is None else self.statistics.inputs
        lock = Lock()  # files are read at one place at a time

        def measure(info: TensorInfo) -> Errors:
            inputs = known.get(info.name)
            weights = inputs.importance() if inputs is not None and any(inputs.squares) else None
            with lock:
                data = sample(info.name, sampled_rows(info.shape))
            found = {}
            for dtype in types[info.name]:
                error, energy = _core.rounding_error(dtype, data, info.shape[-1], weights)
                found[dtype] = error / energy if energy > 0 else 0.0
            return found

        with ThreadPoolExecutor(_WORKERS) as pool:
            return dict(zip((info.name for info in infos), pool.map(measure, infos), strict=True))

    def _weights(self, errors: Mapping[str, Errors]) -> dict[str, float]:
        """Cost per relative error."""
        if self.probe is None:
            return dict.fromkeys(errors, 1.0)
        types = {name: next((t for t in PROBE_TYPES if t in row), min(row)) for name, row in errors.items()}
        weights: dict[str, float] = {}
        for group, kl in self.probe(types):
            error = math.fsum(errors[name][types[name]] for name in group)
            weights |= dict.fromkeys(group, kl / error if error > 0 else 0.0)
        return weights


def possible(info: TensorInfo, floor: bool) -> list[str]:
    """The types that a tensor may have; its own where that has no blocks."""
    if TYPES[info.dtype][1] == 1:
        return [info.dtype]
    fitting = [dtype for dtype, (_, block, _) in TYPES.items() if block > 1 and info.shape[-1] % block == 0]
    if floor and info.name.startswith(("v.", "mm.")):
        return [dtype for dtype in fitting if 8 * TYPES[dtype][2] / TYPES[dtype][1] >= FLOOR_BITS]
    return fitting


def sampled_rows(shape: tuple[int, ...]) -> list[int]:
    """Evenly spaced ones, of about SAMPLE_VALUES values."""
    rows = math.prod(shape) // shape[-1]
    count = min(rows, max(1, SAMPLE_VALUES // shape[-1]))
    return [i * rows // count for i in range(count)]


def read_rows(read: Callable[[int, int], bytes | bytearray], row_bytes: int, rows: Iterable[int]) -> bytes:
    """Rows of a tensor. read: (first byte, bytes)."""
    return b"".join(bytes(read(row * row_bytes, row_bytes)) for row in rows)


def sampler(raw: SourceFile, tensors: list[tuple[str, str, tuple[int, ...], int, int]]) -> Sample:
    """Rows of the tensors of a file, which stays open."""
    places = {name: (dtype, shape, offset, nbytes) for name, dtype, shape, offset, nbytes in tensors}

    def sample(name: str, rows: Sequence[int]) -> bytes:
        dtype, shape, offset, nbytes = places[name]
        row_bytes = nbytes * shape[-1] // math.prod(shape)
        data = read_rows(lambda at, count: raw.read(offset + at, count), row_bytes, rows)
        return _core.dequantize(dtype, data, len(rows) * shape[-1])

    return sample


def _recipe_like(infos: Sequence[TensorInfo]) -> Recipe:
    """The recipe whose decoder has the type that most of this decoder's values have."""
    values: Counter[str] = Counter()
    for info in infos:
        if TYPES[info.dtype][1] > 1 and not info.name.startswith(("v.", "mm.")):
            values["IQ4_XS" if info.dtype == "IQ4_NL" else info.dtype] += math.prod(info.shape)
    for dtype, _ in values.most_common():
        for recipe in RECIPES.values():
            if recipe.decoder == dtype:
                return recipe
    return find_recipe("f32")


def describe_plan(plan: Plan) -> list[str]:
    """A table for people: what each tensor is stored as, and what that costs."""
    width = max((len(row.name) for row in plan.rows), default=0)
    lines = [f"{'tensor':{width}}  type        bytes  relative error        cost"]
    lines += [
        f"{row.name:{width}}  {row.dtype:6} {row.nbytes:10}  {math.sqrt(row.error):14.4f}  {row.cost:10.3e}"
        for row in plan.rows
    ]
    return lines
