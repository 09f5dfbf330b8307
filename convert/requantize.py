"""GGUF file in, the same model in another storage type out.

Every tensor that changes its type is decoded to float32 and encoded again, in chunks of whole rows; one that keeps it
is copied. From a float32 file the result has the tensors that the checkpoint itself would have become; from a
quantized file it has that file's losses too. The metadata are copied as they stand but for the type and the checksums.
"""

import math
import os
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest

from . import writer
from .calibrated import CalibratedEncoder, Calibration, check_floats, is_of_calibration
from .gguf import ALIGNMENT, Entry, TensorInfo, encode_header
from .models import model_of
from .pipeline import ConvertReport
from .recipe import DEFAULT, OUTPUT, RECIPES, Recipe, choose_type, find_recipe, wanted_type
from .sizing import SIZE_KEYS, Sizing, describe_plan, sampler
from .sources.files import SourceFile
from .statistics import Floats, little
from .writer import Cancellable, Piece, Progress, check_tensors, write_model

_OWN = ("general.alignment", "general.file_type")
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # by GGUF value type
_STRING = 8
_FLOATS = ("F32", "F16", "BF16")


def stored_type(path: str | os.PathLike[str]) -> str | None:
    """The recipe that a GGUF file's tensors follow, by its general.file_type; None where it is none of ours, and where
    types were chosen for a size."""
    metadata = _core.GgufFile(os.fspath(path)).metadata()
    if any(key.startswith(SIZE_KEYS) for key in metadata):
        return None
    number = metadata.get("general.file_type")
    return next((recipe.name for recipe in RECIPES.values() if recipe.file_type == number), None)


def requantize(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    type: str | None = None,
    size: int | str | Sizing | None = None,
    types: Mapping[str, str] | None = None,
    factors: Mapping[str, Floats] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    cancel: Cancellable | None = None,
    calibration: Calibration | None = None,
) -> ConvertReport:
    """Writes the model of one GGUF file to another, stored as `type` (see `recipe.RECIPES`); memory is a few chunks.

    size: instead of type: bytes that the file may have, or a text such as 900MB; each tensor gets a type of its own
    (sizing.py). types: of single tensors, whatever `type` has in mind for them (of whole blocks, rows that fit).
    factors: of the columns of single tensors, or of a vector's values (folding.py), which are multiplied first; without
    calibration.
    progress: called with (source bytes done, source bytes in all, tensor's name). cancel: polled at every chunk.
    calibration: rounds by the inputs of the matrices (calibrated.py); for files of floats alone.
    Errors: InvalidRequest (type, size, output exists or is the source), ModelNotFound, ModelCorrupt (source),
    KosmosIOError (disk), Cancelled. After any error the output is what it was before.
    """
    if (type is None) == (size is None):
        raise InvalidRequest("expected a type or a size, and not both")
    recipe = find_recipe(DEFAULT if type is None else type)
    file = _core.GgufFile(os.fspath(source))
    settings = _core.model_info(os.fspath(source))
    tensors = file.tensors()
    model = model_of(settings["architecture"])
    model.check(os.fspath(source), settings, tensors)  # a file that the engine would refuse is refused here
    blocks = settings["decoder"]["layers"]
    tied = all(name != OUTPUT for name, *_ in tensors)
    infos = [TensorInfo(name, choose_type(recipe, name, shape, blocks, tied), shape) for name, _, shape, *_ in tensors]
    fallbacks = [
        f"{info.name}: stored as {info.dtype}, its rows of {info.shape[-1]} values do not fit {wanted}"
        for info in infos
        if size is None and info.dtype != (wanted := wanted_type(recipe, info.name, info.shape, blocks, tied))
    ]
    infos = [TensorInfo(info.name, (types or {}).get(info.name, info.dtype), info.shape) for info in infos]
    if calibration is not None:
        if factors:
            raise InvalidRequest("factors: expected no calibration, which is of the model that they make")
        check_floats(source, tensors)
    statistics = None if calibration is None else calibration.statistics
    sizing = size if size is None or isinstance(size, Sizing) else Sizing(size, statistics)
    checksum_key = f"{settings['architecture']}.checksum.sha256"
    target = Path(output)
    with SourceFile(Path(source)) as raw:
        if target.exists() and os.path.samefile(target, source):
            raise InvalidRequest(f"{target} is the file to convert: choose another output")
        kept = [
            entry
            for entry in read_entries(raw, min((offset for *_, offset, _ in tensors), default=raw.size))
            if entry[0] not in (*_OWN, checksum_key)
            and not entry[0].startswith(SIZE_KEYS)
            and (calibration is None or not is_of_calibration(entry[0]))
        ]
        if calibration is not None:  # what it says does not depend on which types of blocks there are
            kept += CalibratedEncoder(calibration, infos).entries()
        blank = ["0" * 64] * len(infos)
        plan = None
        if sizing is not None:
            kept += sizing.entries
            header_bytes = len(_header(kept, checksum_key, recipe, infos, blank))
            plan = sizing.plan(infos, header_bytes, sampler(raw, tensors))
            recipe, infos = plan.recipe, plan.infos
        encoder = None if calibration is None else CalibratedEncoder(calibration, infos)
        total = sum(nbytes for *_, nbytes in tensors)
        output_bytes = write_model(
            target,
            infos,
            _pieces(raw, tensors, infos, encoder, factors or {}),
            header_bytes=len(_header(kept, checksum_key, recipe, infos, blank)),
            header=lambda checksums: _header(kept, checksum_key, recipe, infos, checksums),
            check=lambda path: check_tensors(path, infos),
            total=total,
            overwrite=overwrite,
            progress=progress,
            cancel=cancel,
        )
    return ConvertReport(
        source=Path(source),
        output=target,
        type=recipe.name if sizing is None else sizing.label,
        source_bytes=total,
        output_bytes=output_bytes,
        tensors=dict(Counter(info.dtype for info in infos)),
        fallbacks=fallbacks,
        sha256=[],
        plan=[] if plan is None else describe_plan(plan),
    )


def _header(
    kept: list[Entry], checksum_key: str, recipe: Recipe, infos: list[TensorInfo], checksums: list[str]
) -> bytes:
    own: list[Entry] = [
        ("general.file_type", "u32", recipe.file_type),
        ("general.alignment", "u32", ALIGNMENT),
        (checksum_key, "[str]", checksums),
    ]
    return encode_header([*kept, *own], infos)


def _pieces(
    raw: SourceFile,
    tensors: list[tuple[str, str, tuple[int, ...], int, int]],
    infos: list[TensorInfo],
    encoder: CalibratedEncoder | None,
    factors: Mapping[str, Floats],
) -> Iterator[Piece]:
    """Whole rows of all tensors, of about CHUNK_BYTES as float32; in order, or in the encoder's."""
    index = {info.name: i for i, info in enumerate(infos)}
    for name in index if encoder is None else encoder.order():
        i = index[name]
        _, dtype, shape, offset, nbytes = tensors[i]
        row = shape[-1] if shape else 1
        rows = math.prod(shape) // row
        row_bytes = nbytes // rows
        step = max(1, writer.CHUNK_BYTES // (4 * row))
        where = f"{raw.path}: tensor {infos[i].name!r}"
        for first in range(0, rows, step):
            count = min(step, rows - first)
            read = partial(raw.read, offset + first * row_bytes, count * row_bytes)
            encode = None if encoder is None else encoder.encoding(infos[i], dtype, first, count * row)
            encode = encode or partial(_encode, dtype, infos[i], count * row, factors.get(infos[i].name))
            yield Piece(i, count * row_bytes, where, read, encode)


def _encode(dtype: str, info: TensorInfo, values: int, factors: "Floats | None", data: bytearray) -> bytes:
    if factors is not None:
        plain = bytes(data) if dtype == "F32" else _core.dequantize(dtype, data, values)
        data, dtype = bytearray(_core.multiply_columns(plain, little(factors))), "F32"
    if dtype == info.dtype:
        return bytes(data)
    source = dtype if dtype in _FLOATS else "F32"
    floats = data if dtype in _FLOATS else _core.dequantize(dtype, data, values)
    return _core.quantize(info.dtype, floats, source, info.shape[-1] if info.shape else 1)


# ---- metadata, as the bytes they are


def read_entries(raw: SourceFile, data_at: int) -> list[Entry]:
    """Every key of a file that GgufFile has checked, with its value's bytes: (key, "raw", bytes)."""
    head = bytes(raw.read(0, data_at))
    at = 24  # after magic, version, numbers of tensors and keys
    entries: list[Entry] = []
    for _ in range(_count(head, 16)):
        length = _count(head, at)
        key = head[at + 8 : at + 8 + length].decode()
        start = at + 8 + length
        (kind,) = struct.unpack_from("<I", head, start)
        at = _skip(head, start + 4, kind)
        entries.append((key, "raw", head[start:at]))
    return entries


def _skip(head: bytes, at: int, kind: int) -> int:
    """The end of a value."""
    if kind in _SCALAR_BYTES:
        return at + _SCALAR_BYTES[kind]
    if kind == _STRING:
        return at + 8 + _count(head, at)
    (inner,) = struct.unpack_from("<I", head, at)
    count = _count(head, at + 4)
    at += 12
    if inner in _SCALAR_BYTES:
        return at + count * _SCALAR_BYTES[inner]
    for _ in range(count):
        at = _skip(head, at, inner)
    return at


def _count(head: bytes, at: int) -> int:
    return int.from_bytes(head[at : at + 8], "little")
