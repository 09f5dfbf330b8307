"""The files that `bench quality` compares: one model in several storage types; missing ones are made.

A type is a recipe of the converter (f32, f16, q8_0, q6_k, q5_k, q4_k_m, q4_0, iq4_xs, q3_k_m, q2_k, bf16), or a
recipe with ":float": the weights rounded to that type, then kept as float32, so that the engine computes with float
activations.
The difference between q4_k_m and q4_k_m:float is what 8-bit activations alone cost.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from kosmos_edge.errors import InvalidRequest, KosmosError, KosmosIOError
from kosmos_edge.hub import split_tag

FLOAT = ":float"
FLOAT_TYPES = ("f32", "f16", "bf16")


def _conversion() -> Any:
    return import_module("kosmos_edge.convert")


def parse_types(text: str) -> list[str]:
    """The types of a comma-separated list, in its order. InvalidRequest for an unknown or repeated one."""
    known = list(_conversion().RECIPES)
    types: list[str] = []
    for word in text.split(","):
        name = word.strip().lower()
        base = name.removesuffix(FLOAT)
        base = "q5_k" if base == "q5_k_m" else base
        if base not in known or (name.endswith(FLOAT) and base in FLOAT_TYPES):
            raise InvalidRequest(
                f"--types: {word.strip()!r} is not one of {', '.join(known)}, or a quantized one of them with {FLOAT!r}"
            )
        name = base + (FLOAT if name.endswith(FLOAT) else "")
        if name in types:
            raise InvalidRequest(f"--types: {name} is given twice")
        types.append(name)
    return types


def _is_checkpoint(model: str) -> bool:
    """Whether it is a path to something other than a GGUF file; a model's name is not a path, even if a file has it."""
    if split_tag(model) is not None or not os.path.exists(model):
        return False
    if os.path.isdir(model):
        return True
    try:
        with open(model, "rb") as file:
            return file.read(4) != b"GGUF"
    except OSError as error:
        raise KosmosIOError(f"cannot read {model}: {error.strerror}") from error


class Source:
    """What the types are made from: a published checkpoint, or a GGUF file of any type."""

    def __init__(self, model: str | None, offline: bool) -> None:
        """model: a folder or weights file of a checkpoint, or what `load` takes."""
        from kosmos_edge.loading import find_model

        self.is_checkpoint = model is not None and _is_checkpoint(model)
        self.path = Path(model) if model is not None and self.is_checkpoint else find_model(model, offline=offline)
        self.type: str | None = None  # of a GGUF file; None for a checkpoint, and for a file of no recipe
        if not self.is_checkpoint:
            self.type = _conversion().stored_type(self.path)

    @property
    def label(self) -> str:
        """The source's type for people."""
        return "checkpoint" if self.is_checkpoint else self.type or "other"

    @property
    def is_quantized(self) -> bool:
        """Whether float types made from it are the values of rounded weights."""
        return not self.is_checkpoint and self.type not in FLOAT_TYPES

    @contextmanager
    def file(self, type: str, folder: str | None, cancel: Any = None) -> Iterator[Path]:
        """A GGUF file of a type; files made for it in `folder` are removed afterwards."""
        if type == self.type:
            yield self.path
            return
        with tempfile.TemporaryDirectory(prefix="kosmos-edge-quality-", dir=folder) as name:
            yield self._make(type, Path(name), cancel)

    def _make(self, type: str, folder: Path, cancel: Any) -> Path:
        convert = _conversion()
        base = type.removesuffix(FLOAT)
        output = folder / f"{base}.gguf"
        try:
            if base == self.type:
                output = self.path
            elif self.is_checkpoint:
                convert.convert(self.path, output, type=base, cancel=cancel)
            else:
                convert.requantize(self.path, output, type=base, cancel=cancel)
            if base != type:
                rounded, output = output, folder / f"{base}-float.gguf"
                convert.requantize(rounded, output, type="f32", cancel=cancel)
        except KosmosError as error:
            error.add_note(f"while storing the model as {type}")
            raise
        return output
