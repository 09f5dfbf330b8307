"""Scales folded into norms: what a matrix reads gets channels of more equal size, and its columns the inverse factors.

A channel behind a norm can be multiplied by any factor, in the norm's weight and bias, if the columns that read it are
divided by it: the function stays the same. Rounding does not: a large channel makes its column's errors count more, and
takes bits from the activations that share its 8-bit scale. So channel and column get the same size, the root of the
product of both, as in SmoothQuant (Xiao et al., 2022) and near to AWQ (Lin et al., 2023). Factors are powers of two: in
float32 every product keeps its bits.
"""

import array
import math
import operator
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from kosmos_edge import _core

from .models import model_of
from .sizing import Sample, sampled_rows, sampler
from .sources.files import SourceFile
from .statistics import Floats, Inputs, Statistics, big_array

MOST = 12  # octaves, either way

_QKV, _UP = ("attn_q", "attn_k", "attn_v"), ("ffn_gate", "ffn_up")
_READERS = {
    "attn_norm": _QKV,
    "attn_sub_norm": ("attn_output",),
    "ffn_norm": _UP,
    "ffn_sub_norm": ("ffn_down",),
    "ln1": _QKV,
    "ln2": _UP,
}
_NORM = re.compile(r"((?:v\.)?blk\.\d+\.)(\w+)\.weight")

# By tensor: the factor of each column, or of each value of a vector.
Factors = dict[str, Floats]


def factors_of(path: str | os.PathLike[str], statistics: Statistics) -> Factors:
    """What to multiply norms and matrices of a GGUF file of floats with; empty where its model's module does
    not say FOLDS."""
    found: Factors = {}
    if not getattr(model_of(_core.model_info(os.fspath(path))["architecture"]), "FOLDS", False):
        return found
    tensors = _core.GgufFile(os.fspath(path)).tensors()
    shapes = {name: tuple(shape) for name, _, shape, *_ in tensors}
    with SourceFile(Path(path)) as raw:
        sample = sampler(raw, tensors)
        for name in shapes:
            readers = _readers(name, shapes, statistics)
            if readers:
                columns = _columns(statistics.inputs[readers[0]], _energy(readers, shapes, sample))
                inverse = array.array("f", (1 / value for value in columns))
                found |= dict.fromkeys(readers, columns)
                found |= {norm: inverse for norm in (name, name.removesuffix("weight") + "bias") if norm in shapes}
    return found


def _readers(name: str, shapes: Mapping[str, tuple[int, ...]], statistics: Statistics) -> list[str]:
    """The matrices that read what the norm gives; none unless that is known of all of them."""
    match = _NORM.fullmatch(name)
    if match is None or match[2] not in _READERS:
        return []
    readers = [f"{match[1]}{part}.weight" for part in _READERS[match[2]]]
    readers = [reader for reader in readers if reader in shapes]
    inputs = [statistics.inputs.get(reader) for reader in readers]
    first = inputs[0] if inputs else None
    return [] if first is None or any(row is None or row.squares != first.squares for row in inputs) else readers


def _energy(readers: list[str], shapes: Mapping[str, tuple[int, ...]], sample: Sample) -> list[float]:
    """Of each column, over all readers: sums of squares over evenly spaced rows."""
    sums = [0.0] * shapes[readers[0]][-1]
    for reader in readers:
        values = big_array("f", sample(reader, sampled_rows(shapes[reader])))
        for first in range(0, len(values), len(sums)):
            sums = [total + value * value for total, value in zip(sums, values[first : first + len(sums)], strict=True)]
    return sums


def _columns(inputs: Inputs, energy: Sequence[float]) -> Floats:
    """2^n near the root of each channel's rms over its column's, relative to the geometric mean; 1 for a channel or a
    column that is 0."""
    octaves = [
        math.log2(square) / 4 - math.log2(weight) / 4 if square > 0 and weight > 0 else None
        for square, weight in zip(inputs.squares, energy, strict=True)
    ]
    known = [value for value in octaves if value is not None]
    mean = math.fsum(known) / len(known) if known else 0.0
    steps = (0 if value is None else round(value - mean) for value in octaves)
    return array.array("f", (2.0 ** max(-MOST, min(MOST, step)) for step in steps))


def folded(statistics: Statistics, factors: Factors) -> Statistics:
    """The statistics of the model after folding. sha256 stays: it says what was recorded."""
    inputs = {}
    for name, row in statistics.inputs.items():
        columns = factors.get(name)
        if columns is not None:
            squares = array.array("f", (v / (f * f) for v, f in zip(row.squares, columns, strict=True)))
            sums = None if row.sum is None else array.array("f", map(operator.truediv, row.sum, columns))
            row = Inputs(row.count, squares, sums)
        inputs[name] = row
    out = Statistics(inputs, statistics.datasets, statistics.chunks, statistics.chunk_size)
    object.__setattr__(out, "sha256", statistics.sha256)
    return out
