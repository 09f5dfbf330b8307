"""Checkpoints that are published as the difference from another one, as LLaVA's first versions from LLaMA: base +
difference, tensor by tensor, as their authors' apply_delta.py adds them."""

from dataclasses import dataclass
from pathlib import Path

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt, ModelNotFound

from .checkpoint import Checkpoint
from .files import Folder, brief
from .hf import open_hf
from .tensor import FLOAT_BYTES, SourceTensor, floats

_GROWN = ("model.embed_tokens.weight", "lm_head.weight")  # may have rows of added tokens behind the base's
_OWN = ("model.mm_projector.", "model.vision_tower.")  # are whole, and no part of the base
_BUFFERS = ".rotary_emb.inv_freq"


@dataclass(frozen=True)
class _Sum(SourceTensor):
    """difference + base; rows behind the base's stay as they are. file and offset are the difference's."""

    difference: SourceTensor
    base: SourceTensor

    def read(self, start: int, count: int) -> bytearray:
        width = FLOAT_BYTES[self.dtype]
        first, number = start // width, count // width
        values = floats(self.difference, first, number)
        shared = min(number, max(0, self.base.elements - first))
        if shared > 0:
            values = _core.add_floats(values[: 4 * shared], floats(self.base, first, shared)) + values[4 * shared :]
        return bytearray(_core.quantize(self.dtype, values) if self.dtype != "F32" else values)

    def hash_up_to(self, start: int) -> None:
        width, own = FLOAT_BYTES[self.dtype], FLOAT_BYTES[self.difference.dtype]
        self.difference.hash_up_to(start // width * own)


def add_base(checkpoint: Checkpoint, base: Path) -> None:
    """Turns the tensors of LLaMA's names into sums with those of the checkpoint in the folder `base`.

    ModelNotFound, ModelCorrupt where it is none that the difference goes with.
    """
    if not base.is_dir():
        raise ModelNotFound(f"base: no folder {base}")
    if not any(name.startswith("model.mm_projector.") for name in checkpoint.tensors):
        raise ModelCorrupt(f"{checkpoint.folder.path}: base is for differences of LLaVA in its authors' layout alone")
    with open_hf(Folder(base), None) as part:
        if part.config.get("model_type", "llama") != "llama":
            kind = brief(part.config.get("model_type"))
            raise ModelCorrupt(f"{base}: model_type is {kind}; expected the 'llama' that the difference goes with")
        checkpoint.tensors = _sums(checkpoint, base, part)
        checkpoint.files.extend(part.files)
        part.files = []  # the checkpoint closes them


def _sums(checkpoint: Checkpoint, base: Path, part: Checkpoint) -> dict[str, SourceTensor]:
    bases = {name: tensor for name, tensor in part.tensors.items() if not name.endswith(_BUFFERS)}
    sums: dict[str, SourceTensor] = {}
    for name, tensor in checkpoint.tensors.items():
        if name.startswith(_OWN) or name.endswith(_BUFFERS):
            sums[name] = tensor
        elif name in bases:
            sums[name] = _sum(name, tensor, bases.pop(name))
        else:
            raise ModelCorrupt(f"{base}: there is no {name}, which {tensor.file.path} differs from")
    if bases:
        raise ModelCorrupt(f"{checkpoint.folder.path}: there is no {next(iter(bases))}, which {base} has")
    return sums


def _sum(name: str, difference: SourceTensor, base: SourceTensor) -> SourceTensor:
    rows = (
        name in _GROWN
        and len(base.shape) == len(difference.shape) == 2
        and base.shape[0] < difference.shape[0]
        and base.shape[1] == difference.shape[1]
    )
    if base.shape != difference.shape and not rows:
        hint = (
            ": the base has another size" if name not in _GROWN else ", or fewer rows: the base has another vocabulary"
        )
        raise ModelCorrupt(f"{base.file.path}: {name} has the shape {base.shape}, expected {difference.shape}{hint}")
    for tensor in (base, difference):
        if tensor.dtype not in FLOAT_BYTES:
            raise ModelCorrupt(
                f"{tensor.file.path}: {name} is {tensor.dtype}, expected one of {', '.join(FLOAT_BYTES)}"
            )
    dtype = difference.dtype if difference.dtype == base.dtype else "F32"
    return _Sum(name, dtype, difference.shape, difference.file, difference.offset, difference, base)
