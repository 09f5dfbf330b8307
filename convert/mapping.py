"""Tensors of a checkpoint or of a GGUF file against the table of a model: names, shapes, tied heads."""

from collections.abc import Iterable
from typing import Any

from kosmos_edge.errors import ModelCorrupt

from .model import Model, Table
from .sources.checkpoint import Checkpoint
from .sources.tensor import FLOAT_BYTES, SourceTensor

_LISTED = 20  # of the tensors that do not fit


def map_tensors(checkpoint: Checkpoint, model: Model, config: Any) -> list[tuple[str, SourceTensor]]:
    """(GGUF name, tensor) in the order of the file; missing, unexpected or misshapen tensors are one error that lists
    them."""
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if not name.endswith(model.IGNORED)}
    table = list(model.tensor_table(config))
    asked = {source for source, _, _ in table}
    heads = {name: tensors.pop(name) for name in model.TIED if name in tensors and name not in asked}
    result, wrong = [], []
    misfits: list[SourceTensor] = []
    by_source: dict[str, SourceTensor] = {}
    for source, name, shape in table:
        tensor = tensors.pop(source, None)
        if tensor is None:
            wrong.append(f"{source} {shape} is missing")
        elif tensor.shape != shape:
            wrong.append(f"{source} has the shape {tensor.shape}, expected {shape}")
            misfits.append(tensor)
        elif tensor.dtype not in FLOAT_BYTES:
            wrong.append(f"{source} is {tensor.dtype}, expected one of {', '.join(FLOAT_BYTES)}")
            misfits.append(tensor)
        else:
            result.append((name, tensor))
            by_source[source] = tensor
    misfits += [tensor for _, tensor in sorted(tensors.items())]
    wrong += [f"{name} {tensor.shape} is not a tensor of {model.NAME}" for name, tensor in sorted(tensors.items())]
    if wrong:
        paths = {tensor.file.path for tensor in misfits}  # a checkpoint may have several files, in several folders
        where = ", ".join(map(str, sorted(paths))) or checkpoint.files[0].path
        rest = f"\n  ... and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
        raise ModelCorrupt(
            f"{where}: {len(wrong)} tensors do not fit the settings:\n  " + "\n  ".join(wrong[:_LISTED]) + rest
        )
    for name, head in heads.items():
        if not equal_tensors(head, by_source[model.TIED[name]]):
            raise ModelCorrupt(
                f"{checkpoint.files[0].path}: {name} differs from the embedding; only tied heads are supported here"
            )
    return result


def check_tensors_of(where: str, table: Table, tensors: Iterable[tuple[str, str, tuple[int, ...], int, int]]) -> None:
    """Whether a GGUF file's tensors (what _core.GgufFile.tensors gave) are those of the table.

    ModelCorrupt names the first that is missing, misshapen or no part of the model.
    """
    found = {name: tuple(shape) for name, _, shape, *_ in tensors}
    for _, name, shape in table:
        if found.get(name) != shape:
            got = f"has shape {found[name]}" if name in found else "is missing"
            raise ModelCorrupt(f"{where}: tensor {name} {got}; expected shape {shape}")
        del found[name]
    if found:
        raise ModelCorrupt(f"{where}: {len(found)} tensors are no part of this model: {', '.join(list(found)[:5])}")


def equal_tensors(a: SourceTensor, b: SourceTensor) -> bool:
    """Whether two tensors have the same type, shape and bytes."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    if a.file is b.file and a.offset == b.offset:
        return True
    step = 1 << 22
    return all(
        a.read(at, min(step, a.nbytes - at)) == b.read(at, min(step, a.nbytes - at)) for at in range(0, a.nbytes, step)
    )
