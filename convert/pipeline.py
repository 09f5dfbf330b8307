"""Checkpoint in, GGUF file out: plan, stream, check, name.

Tensors are read in the order of the source (so that its SHA-256 costs no second pass) in chunks of whole rows,
encoded by a few threads, and written to their place, which is known beforehand. Memory is a few chunks, whatever the
size of the model.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest, KosmosError, KosmosIOError, ModelCorrupt

from . import writer
from .gguf import ALIGNMENT, Entry, TensorInfo, encode_header
from .mapping import map_tensors
from .models import find_model
from .recipe import DEFAULT, OUTPUT, Recipe, choose_type, find_recipe, wanted_type
from .sizing import Sample, Sizing, describe_plan, read_rows
from .sources.checkpoint import Checkpoint
from .sources.delta import add_base
from .sources.open import open_checkpoint
from .sources.tensor import FLOAT_BYTES, SourceTensor
from .writer import Cancellable, Piece, Progress, check_tensors, write_model


@dataclass(frozen=True)
class ConvertReport:
    """What a conversion did."""

    source: Path
    output: Path
    type: str
    source_bytes: int  # of the tensors that were read
    output_bytes: int  # of the file
    tensors: dict[str, int]  # stored type -> number of tensors
    fallbacks: list[str]  # one sentence per tensor that is not stored in the type of the recipe
    sha256: list[str]  # "file name:hex" of every source file
    plan: list[str] = field(default_factory=list)  # of a size: a line per tensor whose type was chosen


@dataclass(frozen=True)
class _Plan:
    """Everything that is known before the first tensor is read."""

    sources: list[SourceTensor]
    infos: list[TensorInfo]
    fallbacks: list[str]
    label: str  # of the type, in file names
    chosen: list[str]
    metadata: Callable[[list[str]], list[Entry]]  # of the source files' hashes


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    type: str | None = None,
    size: int | str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    cancel: Cancellable | None = None,
    expected_sha256: Mapping[str, str] | None = None,
    card: Mapping[str, Any] | None = None,
    base: str | os.PathLike[str] | None = None,
) -> ConvertReport:
    """Turns a published checkpoint into one GGUF file.

    source: a folder in Hugging Face's layout, a folder with fairseq's .pt, or a weights file of either.
    output: the file to write; a folder: the file gets its conventional name in it. type: see `recipe.RECIPES`;
    DEFAULT if neither it nor size is given. size: instead: bytes that the file may have, or a text such as 900MB; each
    tensor gets a type of its own (sizing.py).
    progress: called with (source bytes done, source bytes in all, tensor's name). tokenizer: tokenizer.json or
    sentencepiece model that is not beside the weights, or its folder. cancel: polled several times per second.
    expected_sha256: name of a source file -> hash that it must have. card: as kosmos_edge.json beside the weights,
    which has the last word. base: the folder of LLaMA's checkpoint, in Hugging Face's layout, where the source is the
    difference from it (LLaVA's first versions).
    Errors: InvalidRequest (type, size, output exists or is an input), ModelNotFound, ModelCorrupt (source),
    KosmosIOError (disk), Cancelled. After any error, and after a kill, the output is what it was before.
    """
    if type is not None and size is not None:
        raise InvalidRequest("expected a type or a size, and not both")
    recipe = find_recipe(DEFAULT if type is None else type)
    sizing = None if size is None else Sizing(size)
    source_path = Path(source)
    with open_checkpoint(source_path, None if tokenizer is None else Path(tokenizer)) as checkpoint:
        checkpoint.card = {**(card or {}), **checkpoint.card}
        if base is not None:
            add_base(checkpoint, Path(base))
        plan = _plan(checkpoint, recipe, sizing)
        target = Path(output)
        separators = tuple(filter(None, (os.sep, os.altsep)))
        if os.fspath(output).endswith(separators) and not os.path.isdir(target):
            raise KosmosIOError(f"there is no folder {target}")
        if os.path.isdir(target):
            target /= file_name(plan.metadata([]), plan.label)
        try:
            str(target).encode()
        except UnicodeEncodeError:
            raise InvalidRequest(f"{target!r} is not valid Unicode: choose another output") from None
        for file in checkpoint.files:
            if file.same_as(target):
                raise InvalidRequest(f"{target} is {file.path}, one of the files to convert: choose another output")
        blank = [f"{file.name}:{'0' * 64}" for file in checkpoint.files]
        sha256: list[str] = []

        def header(checksums: list[str]) -> bytes:
            sha256.extend(f"{file.name}:{file.sha256()}" for file in checkpoint.files)
            _check_sources(checkpoint, sha256, expected_sha256 or {})
            return _header(plan, sha256, checksums)

        source_bytes = sum(tensor.nbytes for tensor in plan.sources)
        output_bytes = write_model(
            target,
            plan.infos,
            _pieces(plan),
            header_bytes=len(_header(plan, blank, ["0" * 64] * len(plan.infos))),
            header=header,
            check=lambda path: _check(path, plan.infos),
            total=source_bytes,
            overwrite=overwrite,
            progress=progress,
            cancel=cancel,
        )
    return ConvertReport(
        source=source_path,
        output=target,
        type=recipe.name if sizing is None else sizing.label,
        source_bytes=source_bytes,
        output_bytes=output_bytes,
        tensors=dict(Counter(info.dtype for info in plan.infos)),
        fallbacks=plan.fallbacks,
        sha256=sha256,
        plan=plan.chosen,
    )


def file_name(metadata: list[Entry], label: str) -> str:
    """The name by GGUF's convention: BASENAME-1.6B-v1.0-Q4_K_M.gguf."""
    values = {key: value for key, _, value in metadata}
    parts = [values[f"general.{key}"] for key in ("basename", "size_label", "version")]
    return "-".join(part.replace(" ", "-").replace("/", "-") for part in [*parts, label]) + ".gguf"


def _plan(checkpoint: Checkpoint, recipe: Recipe, sizing: Sizing | None) -> _Plan:
    """Maps names, checks shapes, chooses types."""
    model = find_model(checkpoint.config)
    config = model.read_config(checkpoint.config)
    vocabulary = model.read_vocabulary(checkpoint)
    config = model.fit(checkpoint, config, vocabulary)
    mapped = map_tensors(checkpoint, model, config)
    tied = all(name != OUTPUT for name, _ in mapped)
    infos, fallbacks = [], []
    for name, tensor in mapped:
        kind = (recipe, name, tensor.shape, config.layers, tied)
        dtype, wanted = choose_type(*kind), wanted_type(*kind)
        infos.append(TensorInfo(name, dtype, tensor.shape))
        if dtype != wanted and sizing is None:
            fallbacks.append(f"{name}: stored as {dtype}, its rows of {tensor.shape[-1]} values do not fit {wanted}")
    converter = f"kosmos-edge {_version()}"

    def metadata_of(recipe: Recipe) -> Callable[[list[str]], list[Entry]]:
        extra = [] if sizing is None else sizing.entries
        return lambda sha256: [
            *model.metadata(checkpoint, config, vocabulary, recipe.file_type, sha256, converter),
            *extra,
        ]

    plan = _Plan([tensor for _, tensor in mapped], infos, fallbacks, recipe.label, [], metadata_of(recipe))
    if sizing is None:
        return plan
    blank = [f"{file.name}:{'0' * 64}" for file in checkpoint.files]
    header_bytes = len(_header(plan, blank, ["0" * 64] * len(infos)))
    sized = sizing.plan(infos, header_bytes, _sampler(mapped))
    return replace(
        plan, infos=sized.infos, label=sizing.label, chosen=describe_plan(sized), metadata=metadata_of(sized.recipe)
    )


def _sampler(mapped: list[tuple[str, SourceTensor]]) -> Sample:
    tensors = dict(mapped)

    def sample(name: str, rows: Sequence[int]) -> bytes:
        tensor = tensors[name]
        row = tensor.shape[-1]
        data = read_rows(tensor.read, row * FLOAT_BYTES[tensor.dtype], rows)
        return _core.dequantize(tensor.dtype, data, len(rows) * row)

    return sample


def _version() -> str:
    try:
        return version("kosmos-edge")
    except PackageNotFoundError:  # run from sources that were not installed
        return "unknown"


def _header(plan: _Plan, sha256: list[str], checksums: list[str]) -> bytes:
    entries = plan.metadata(sha256)
    architecture = next(value for key, _, value in entries if key == "general.architecture")
    extra: list[Entry] = [
        ("general.alignment", "u32", ALIGNMENT),
        (f"{architecture}.checksum.sha256", "[str]", checksums),
    ]
    return encode_header([*entries, *extra], plan.infos)


def _pieces(plan: _Plan) -> Iterator[Piece]:
    """Whole rows of all tensors, in the order of the source; reading them hashes the source in passing."""
    files = {id(tensor.file): i for i, tensor in enumerate(plan.sources)}
    order = sorted(range(len(plan.sources)), key=lambda i: (files[id(plan.sources[i].file)], plan.sources[i].offset, i))
    for i in order:
        tensor, info = plan.sources[i], plan.infos[i]
        where = f"{tensor.file.path}: tensor {tensor.name!r}"
        row = tensor.shape[-1] if tensor.shape else 1
        for start, count in _chunks(tensor, row):
            encode = partial(_encode, info.dtype, tensor.dtype, row)
            yield Piece(i, count, where, partial(_read, tensor, start, count), encode)


def _read(tensor: SourceTensor, start: int, count: int) -> bytearray:
    tensor.hash_up_to(start)
    return tensor.read(start, count)


def _encode(dtype: str, source: str, row: int, data: bytearray) -> bytes:
    return _core.quantize(dtype, data, source, row)


def _chunks(tensor: SourceTensor, row: int) -> list[tuple[int, int]]:
    """(start, bytes) of pieces of whole rows that cover the tensor."""
    row_bytes = row * FLOAT_BYTES[tensor.dtype]
    step = max(1, writer.CHUNK_BYTES // row_bytes) * row_bytes
    return [(start, min(step, tensor.nbytes - start)) for start in range(0, tensor.nbytes, step)]


def _check_sources(checkpoint: Checkpoint, sha256: list[str], expected: Mapping[str, str]) -> None:
    for file, entry in zip(checkpoint.files, sha256, strict=True):
        found = entry.rpartition(":")[2]
        if expected.get(file.name, found) != found:
            raise ModelCorrupt(f"{file.path}: SHA-256 is {found}, expected {expected[file.name]}")


def _check(path: Path, infos: list[TensorInfo]) -> None:
    """Opens the finished file as the engine will: what cannot be run is not given a name."""
    try:
        _core.model_info(str(path))
    except KosmosIOError:
        raise
    except KosmosError as error:
        raise ModelCorrupt(f"the converted file would not load: {error}") from error
    check_tensors(path, infos)


def describe(report: ConvertReport) -> list[str]:
    """The report as lines for people."""
    types = ", ".join(f"{count} {dtype}" for dtype, count in sorted(report.tensors.items()))
    lines = [f"{report.output}: {report.output_bytes / 1e6:.1f} MB from {report.source_bytes / 1e6:.1f} MB ({types})"]
    if report.fallbacks:
        lines.append(f"{len(report.fallbacks)} tensors are not in the type of {report.type}:")
        lines += [f"  {text}" for text in report.fallbacks]
    return lines
