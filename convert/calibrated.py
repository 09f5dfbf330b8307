"""Rounding by what matrices are multiplied with: importance, error feedback, corrected biases.

Each matrix that has statistics is rounded so that the error of its products is small and not that of its values:
squared errors are weighted by the inputs' mean squares (importance), errors are made up for by later values of the row
(feedback, csrc/quant/feedback.h), and what is left of the mean error goes into the bias, if there is one.
"""

import array
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest, KosmosError

from .gguf import Entry, TensorInfo
from .recipe import TYPES
from .statistics import Inputs, Statistics, big_array, little

FEEDBACK_BYTES = 2 << 30  # of second moments that are collected in one pass
DAMPING = 0.01  # of a mean square, added to the diagonal of the second moments
FLOATS = ("F32", "F16", "BF16")
METHOD = "quantize.calibration.method"
_OURS = ("quantize.imatrix.", "quantize.calibration.")

# Runs the model over the calibration set again, recording the products of the inputs of these matrices.
Collect = Callable[[set[str]], _core.ActivationRecorder]


@dataclass(frozen=True)
class Calibration:
    """What a conversion is told of the inputs of matrices. collect: for feedback; None: none is made."""

    statistics: Statistics
    where: str = "the calibration"  # names the statistics in errors
    collect: Collect | None = None
    feedback_bytes: int = FEEDBACK_BYTES
    folds: bool = False  # whether scales were folded into norms before (folding.py)


def is_of_calibration(key: str) -> bool:
    """Whether a key of a model's file speaks of an earlier calibration."""
    return key.startswith(_OURS)


def check_floats(source: str | os.PathLike[str], tensors: Sequence[tuple[str, str, tuple[int, ...], int, int]]) -> None:
    """InvalidRequest for a file that is rounded already: its inputs are not those of the model that was trained."""
    rounded = [f"{name} ({dtype})" for name, dtype, *_ in tensors if dtype not in FLOATS]
    if rounded:
        raise InvalidRequest(
            f"{os.fspath(source)}: {len(rounded)} of its tensors are rounded already, such as {rounded[0]}; "
            "calibration needs the checkpoint, or a file of type f32, f16 or bf16"
        )


@dataclass
class _Correction:
    """Of a bias: what its matrix's products fall short in the mean, once all rows are rounded."""

    rows: int
    values: "array.array[float]" = field(init=False)
    ready: threading.Event = field(default_factory=threading.Event)
    failed: bool = False

    def __post_init__(self) -> None:
        self.values = array.array("f", bytes(4 * self.rows))
        self._missing, self._lock = self.rows, threading.Lock()

    def put(self, first: int, found: "array.array[float]") -> None:
        with self._lock:
            self.values[first : first + len(found)] = found
            self._missing -= len(found)
            if self._missing == 0:
                self.ready.set()

    def give_up(self) -> None:
        self.failed = True
        self.ready.set()


class CalibratedEncoder:
    """The order in which tensors are encoded, and how."""

    def __init__(self, calibration: Calibration, infos: list[TensorInfo]) -> None:
        """infos: of the file to write. InvalidRequest for statistics of another model."""
        self._calibration = calibration
        self._infos = {info.name: info for info in infos}
        calibration.statistics.check(calibration.where, {info.name: info.shape for info in infos})
        self._corrections: dict[str, _Correction] = {}  # by bias
        for name, inputs in calibration.statistics.inputs.items():
            bias = name.removesuffix(".weight") + ".bias"
            rounded = TYPES[self._infos[name].dtype][1] > 1
            if rounded and inputs.sum is not None and bias in self._infos and bias != name:
                self._corrections[bias] = _Correction(self._infos[name].shape[0])
        self._factor: _Lazy | None = None  # of the tensor that `order` is at

    def entries(self) -> list[Entry]:
        """For the file's metadata."""
        method = "importance" + (", error feedback" if self._calibration.collect else "")
        method += ", bias correction" if self._corrections else ""
        method += ", scales folded into norms" if self._calibration.folds else ""
        return [*self._calibration.statistics.entries(), (METHOD, "str", method)]

    def order(self) -> Iterator[str]:
        """All tensors: those without feedback, those with it as their second moments are collected, and biases
        behind their matrices."""
        inputs = self._calibration.statistics.inputs
        rounded = [name for name, info in self._infos.items() if name in inputs and TYPES[info.dtype][1] > 1]
        fed = [name for name in rounded if self._calibration.collect is not None and not self._is_table(name)]
        yield from (name for name in self._infos if name not in set(fed) and name not in self._corrections)
        for group in self._groups(fed):
            assert self._calibration.collect is not None
            recorder = self._calibration.collect(set(group))
            last, factor = (b"", False), None
            for name in group:  # matrices with one input follow each other and share its factor
                key = (little(inputs[name].squares), self._has_correction(name))
                if factor is None or key != last:
                    last, factor = key, _Lazy(partial(_factor, recorder, name, inputs[name], key[1]))
                self._factor = factor
                yield name
            self._factor = None
            del recorder, factor
        yield from self._corrections

    def _is_table(self, name: str) -> bool:
        """The embedding is read row by row, too, where feedback would make it worse."""
        return name == "token_embd.weight"

    def _has_correction(self, name: str) -> bool:
        return name.removesuffix(".weight") + ".bias" in self._corrections

    def _groups(self, names: list[str]) -> Iterator[list[str]]:
        """Consecutive ones whose second moments fit into memory together; at least one matrix each."""
        inputs = self._calibration.statistics.inputs
        group: list[str] = []
        seen: set[bytes] = set()
        for name in names:
            key = little(inputs[name].squares)
            size = sum(len(k) ** 2 // 4 for k in seen | {key})
            if group and size > self._calibration.feedback_bytes:
                yield group
                group, seen = [], set()
            group.append(name)
            seen.add(key)
        if group:
            yield group

    def encoding(self, info: TensorInfo, source: str, first: int, values: int) -> Callable[[bytearray], bytes] | None:
        """What encodes rows of the tensor that `order` is at, from row `first` on, `values` in all, stored as `source`,
        on any thread. None for a tensor that the statistics do not concern."""
        if info.name in self._corrections:
            return partial(_corrected, self._corrections[info.name], info, source, values)
        if info.name not in self._calibration.statistics.inputs or TYPES[info.dtype][1] == 1:
            return None
        return partial(self._rounded, info, source, first, values, self._factor)

    def _rounded(
        self, info: TensorInfo, source: str, first: int, values: int, factor: "_Lazy | None", data: bytearray
    ) -> bytes:
        correction = self._corrections.get(info.name.removesuffix(".weight") + ".bias")
        try:
            inputs = self._calibration.statistics.inputs[info.name]
            stored, missing = _core.quantize_calibrated(
                info.dtype,
                data if source == "F32" else _core.dequantize(source, data, values),
                info.shape[-1],
                _importance(inputs),
                None if factor is None else factor(),
                inputs.mean() if correction else None,
            )
            if correction:
                correction.put(first, big_array("f", missing))
            return stored
        except BaseException:
            if correction:
                correction.give_up()
            raise


def _corrected(correction: _Correction, info: TensorInfo, source: str, values: int, data: bytearray) -> bytes:
    """A whole bias; waits for its matrix, whose pieces come before."""
    correction.ready.wait()
    if correction.failed:
        raise KosmosError(f"{info.name}: its matrix could not be rounded")
    plain = big_array("f", bytes(data) if source == "F32" else _core.dequantize(source, data, values))
    moved = array.array("f", (a + b for a, b in zip(plain, correction.values, strict=True)))
    return _core.quantize(info.dtype, little(moved), "F32", len(moved))


class _Lazy:
    """A factor that the first thread to need it makes."""

    def __init__(self, make: Callable[[], _core.FeedbackFactor]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._made: _core.FeedbackFactor | None = None

    def __call__(self) -> _core.FeedbackFactor:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made


def _factor(recorder: _core.ActivationRecorder, name: str, inputs: Inputs, centred: bool) -> _core.FeedbackFactor:
    sums = recorder.find(name)
    if sums.rows != inputs.count:
        raise InvalidRequest(
            f"{name}: the statistics count {inputs.count} inputs, the calibration set gives {sums.rows}: they do not "
            "belong together"
        )
    try:
        return _core.FeedbackFactor(sums, centred, DAMPING)
    except KosmosError as error:
        raise InvalidRequest(f"{name}: {error}") from None


def _importance(inputs: Inputs) -> bytes | None:
    """None where all inputs were 0: nothing is known then."""
    return inputs.importance() if any(inputs.squares) else None
