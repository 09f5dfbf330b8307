"""A cost model: how long each phase should take on a machine of which only three rates are known.

A phase is a list of parts: multiply-accumulates of products by storage type, bytes of weights that one row reads,
float32 products, elements that pass a norm, an activation or the quantizer. Each part runs at one of the machine's
rates (what `kosmos-edge bench` measures as its roof) times an efficiency. Efficiencies belong to the kernels of an
instruction set, not to a machine (predict_kernels.py says where they were measured). Parts follow one another: nothing
is assumed to overlap but the memory traffic of products with many rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kosmos_edge._native import _core
from kosmos_edge.bench.cost import FLOAT_TYPES, Cost
from kosmos_edge.bench.predict_kernels import HOST_MS, KERNELS, Kernels
from kosmos_edge.errors import InvalidRequest


class NotModelled(InvalidRequest):
    """The cost model was fitted to no such model file, or to no such instruction set."""


PHASES = ("encode", "prefill", "decode", "caption")
TEXT_TOKENS = 10  # of a prompt, behind the image


def kernels_of(isa: str) -> Kernels:
    """Of an instruction set. Raises NotModelled for others than those that were fitted."""
    if isa not in KERNELS:
        raise NotModelled(f"isa: the cost model knows {', '.join(KERNELS)}, got {isa!r}")
    return KERNELS[isa]


@dataclass(frozen=True)
class Machine:
    """What a machine does at most with the threads in question: bytes it reads, multiply-accumulates, a second."""

    read: float
    int8: float
    float32: float
    kernels: Kernels

    @classmethod
    def of(cls, roof: Mapping[str, float], isa: str) -> Machine:
        """Of `kosmos-edge bench`'s roof. Raises InvalidRequest for rates that are none and unknown instruction sets."""
        kernels = kernels_of(isa)
        for name in ("read_bytes_per_s", "int8_macs_per_s", "float32_macs_per_s"):
            if not (roof[name] > 0 and math.isfinite(roof[name])):
                raise InvalidRequest(f"{name}: expected a rate above 0, got {roof[name]}")
        return cls(roof["read_bytes_per_s"], roof["int8_macs_per_s"], roof["float32_macs_per_s"], kernels)


@dataclass(frozen=True)
class Part:
    """Work of one kind. kind: "many" (multiply-accumulates, many rows), "one" (bytes, one row), "float32"
    (multiply-accumulates), "elements", "cache" (bytes). what: the storage type, or a word."""

    kind: str
    what: str
    amount: float

    def seconds(self, machine: Machine) -> float:
        """On that machine."""
        kernels = machine.kernels
        if self.kind == "many":
            return self.amount / (machine.int8 * kernels.many_of(self.what))
        if self.kind == "one":
            return self.amount / (machine.read * kernels.one_of(self.what))
        if self.kind == "float32":
            return self.amount / (machine.float32 * kernels.float32)
        if self.kind == "elements":
            return self.amount * kernels.element / machine.float32
        return self.amount / machine.read


@dataclass(frozen=True)
class Work:
    """A model file's parts of each phase. tensors: name, type, shape, bytes. prompt: positions. tokens: an answer's."""

    cost: Cost
    tensors: list[tuple[str, str, tuple[int, ...], int]]
    prompt: int
    tokens: int = 32

    @classmethod
    def of(cls, path: str, prompt: int | None = None, tokens: int = 32, kv_type: str = "f16") -> Work:
        """Of a GGUF file; prompt None: the image's tokens and ten of text. Raises NotModelled for models with other
        parts than KOSMOS-2's, to which the model was not fitted, and float files."""
        cost = Cost.of(path, kv_type)
        other = "latents" not in cost.config or "max_patches" in cost.config["vision"]
        if other or cost.looks is not None or not cost.quantized:
            raise NotModelled(f"{path}: the cost model knows quantized files of a ViT, a resampler and a decoder")
        tensors = [(name, dtype, shape, size) for name, dtype, shape, *_, size in _core.GgufFile(path).tensors()]
        return cls(cost, tensors, prompt or int(cost.config["latents"]) + TEXT_TOKENS, tokens)

    def parts(self, phase: str, kernels: Kernels) -> list[Part]:
        """Of encode, prefill, or one token of decode. (A caption is a sum of these: `predict`.)"""
        return {"encode": self._encode, "prefill": self._prefill, "decode": self._decode}[phase](kernels)

    def _products(self, prefix: str, rows: int, i8: bool) -> Iterator[Part]:
        """Of all matrices whose names begin so, each met by so many rows. i8: Q6_K is re-encoded to 8 bits."""
        macs: dict[str, float] = {}
        for name, dtype, shape, _ in self.tensors:
            if name.startswith(prefix) and len(shape) == 2:
                kind = "I8" if i8 and dtype == "Q6_K" else dtype
                macs[kind] = macs.get(kind, 0.0) + math.prod(shape) * rows
        for dtype, amount in macs.items():
            yield Part("float32" if dtype in FLOAT_TYPES else "many", dtype, amount)

    def _one_row(self, *prefixes: str) -> Iterator[Part]:
        """The bytes that one row reads of all matrices whose names begin so."""
        sizes: dict[str, float] = {}
        for name, dtype, shape, size in self.tensors:
            if name.startswith(prefixes) and len(shape) == 2:
                sizes[dtype] = sizes.get(dtype, 0.0) + size
        for dtype, amount in sizes.items():
            yield Part("one", dtype, amount)

    def _output(self) -> str:
        """The matrix of the logits."""
        found = any(name == "output.weight" for name, *_ in self.tensors)
        return "output.weight" if found else "token_embd.weight"

    def _encode(self, kernels: Kernels) -> list[Part]:
        v = self.cost.config["vision"]
        width, ff, layers = v["width"], v["ff_width"], v["layers"]
        rows = (v["image_size"] // v["patch_size"]) ** 2 + 1
        parts = list(self._products("v.blk.", rows, kernels.i8))
        attention = float(layers * rows * rows * width)  # of the scores, and again of the values
        rest = self.cost.encode_macs() - sum(p.amount for p in parts) - 2 * attention
        parts += [Part("many", "I8" if kernels.i8 else "Q8_0", attention), Part("float32", "values", attention)]
        parts.append(Part("float32", "resampler, patches", rest))
        each = 4 * width + ff + 3 * width + ff  # two norms, two residuals; GELU; quantizing what products read
        return [*parts, Part("elements", "", float(layers * rows * (each + v["heads"] * rows)))]

    def _prefill(self, kernels: Kernels) -> list[Part]:
        del kernels
        n, layers = self.prompt, self.cost.config["decoder"]["layers"]
        parts = [*self._products("blk.", n, False), *self._one_row(self._output())]
        width = self.cost.query_width or self.cost.config["decoder"]["width"]
        parts.append(Part("float32", "attention", float(layers * n * (n + 1) * width)))
        return [*parts, Part("elements", "", n * self._elements((n + 1) / 2))]

    def _decode(self, kernels: Kernels) -> list[Part]:
        del kernels
        seen = self.prompt + self.tokens / 2  # in the middle of the answer
        cache = Part("cache", "keys, values", self.cost.token_bytes() * seen)
        return [*self._one_row("blk.", self._output()), cache, Part("elements", "", self._elements(seen))]

    def _elements(self, seen: float) -> float:
        """Of one position that sees so many: three norms and two residuals of the width and a norm of the inner width;
        GELU; softmax; quantizing what products read."""
        text = self.cost.config["decoder"]
        each = 5 * text["width"] + 2 * text["ff_width"] + 3 * text["width"] + text["ff_width"]
        return float(text["layers"] * (each + text["heads"] * seen))


def predict(work: Work, machine: Machine) -> dict[str, dict[str, Any]]:
    """{phase: {"ms", "shares": {kind and type: part of the time}}}; of decode "tokens_per_s" too, its ms are of all
    tokens but the first, as `kosmos-edge bench` measures them."""
    found: dict[str, dict[str, Any]] = {}
    steps = work.tokens - 1
    for phase in ("encode", "prefill", "decode"):
        seconds = [(part, part.seconds(machine)) for part in work.parts(phase, machine.kernels)]
        total = sum(s for _, s in seconds)
        if phase == "decode":
            total += machine.kernels.step_s
        shares: dict[str, float] = {}
        for part, s in seconds:
            name = f"{part.kind} {part.what}".strip()
            shares[name] = shares.get(name, 0.0) + s / total
        found[phase] = {"ms": 1e3 * total * (steps if phase == "decode" else 1), "shares": shares}
    found["decode"]["tokens_per_s"] = 1e3 * steps / found["decode"]["ms"]
    times = {phase: found[phase]["ms"] for phase in ("encode", "prefill", "decode")} | {"photo": HOST_MS}
    total = sum(times.values())
    found["caption"] = {"ms": total, "shares": {name: ms / total for name, ms in times.items()}}
    return found


def compare(report: dict[str, Any], work: Work) -> None:
    """Add "predicted" to a report of `kosmos-edge bench`: what its roof predicts, and of each measured phase that over
    the median of its milliseconds ("of_measured"); of decode, whose answers may end early, over its rate."""
    predicted = predict(work, Machine.of(report["roof"], report["isa"]))
    for phase, entry in predicted.items():
        measured = report["phases"].get(phase)
        if measured and phase == "decode":
            entry["of_measured"] = measured["tokens_per_s"]["median"] / entry["tokens_per_s"]
        elif measured:
            entry["of_measured"] = entry["ms"] / measured["ms"]["median"]
    report["predicted"] = predicted


def table(predicted: Mapping[str, Mapping[str, Any]]) -> str:
    """For people: each phase's time, the ratio to what was measured, the largest shares."""
    lines = []
    for phase in PHASES:
        entry = predicted[phase]
        text = f"{phase:10}{entry['ms']:10.1f} ms predicted"
        if "tokens_per_s" in entry:
            text += f", {entry['tokens_per_s']:.1f} tokens/s"
        if "of_measured" in entry:
            text += f"; predicted / measured {entry['of_measured']:.2f}"
        largest = sorted(entry["shares"].items(), key=lambda item: -item[1])[:4]
        lines.append(text + "; " + ", ".join(f"{name} {100 * share:.0f} %" for name, share in largest))
    return "\n".join(lines)
