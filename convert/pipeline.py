"""Checkpoint in, GGUF file out: plan, stream, check, name.

Tensors are read in the order of the source (so that its SHA-256 costs no second pass) in chunks of whole rows,
encoded by a few threads, and written to their place, which is known beforehand. Memory is a few chunks, whatever the
size of the model.
"""

import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

from kosmos_edge import _core
from kosmos_edge.errors import Cancelled, InvalidRequest, KosmosError, KosmosIOError, ModelCorrupt

from .atomic import AtomicFile
from .gguf import ALIGNMENT, Entry, TensorInfo, data_offsets, encode_header
from .models import kosmos2
from .recipe import DEFAULT, Recipe, choose_type, find_recipe, wanted_type
from .sources.checkpoint import Checkpoint
from .sources.files import brief
from .sources.open import open_checkpoint
from .sources.tensor import FLOAT_BYTES, SourceTensor

CHUNK_BYTES = 1 << 22  # of source values per piece of work
WORKERS = 2
MODELS = {"kosmos-2": kosmos2}  # config.json's model_type -> the module that knows the model
Progress = Callable[[int, int, str], None]


class Cancellable(Protocol):
    """What `cancel` must look like: _core.CancelToken does."""

    @property
    def cancelled(self) -> bool: ...


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


@dataclass(frozen=True)
class _Plan:
    """Everything that is known before the first tensor is read."""

    sources: list[SourceTensor]
    infos: list[TensorInfo]
    fallbacks: list[str]
    metadata: Callable[[list[str]], list[Entry]]  # of the source files' hashes


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    type: str = DEFAULT,
    overwrite: bool = False,
    progress: Progress | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    cancel: Cancellable | None = None,
    expected_sha256: Mapping[str, str] | None = None,
) -> ConvertReport:
    """Turns a published checkpoint into one GGUF file.

    source: a folder in Hugging Face's layout, a folder with unilm's kosmos-2.pt, or a weights file of either.
    output: the file to write; a folder: the file gets its conventional name in it. type: see `recipe.RECIPES`.
    progress: called with (source bytes done, source bytes in all, tensor's name). tokenizer: tokenizer.json or
    sentencepiece model that is not beside the weights, or its folder. cancel: polled several times per second.
    expected_sha256: name of a source file -> hash that it must have.
    Errors: InvalidRequest (type, output exists or is an input), ModelNotFound, ModelCorrupt (source), KosmosIOError
    (disk), Cancelled. After any error, and after a kill, the output is what it was before.
    """
    recipe = find_recipe(type)
    source_path = Path(source)
    with open_checkpoint(source_path, None if tokenizer is None else Path(tokenizer)) as checkpoint:
        plan = _plan(checkpoint, recipe)
        target = Path(output)
        separators = tuple(filter(None, (os.sep, os.altsep)))
        if os.fspath(output).endswith(separators) and not os.path.isdir(target):
            raise KosmosIOError(f"there is no folder {target}")
        if os.path.isdir(target):
            target /= file_name(plan.metadata([]), recipe)
        try:
            str(target).encode()
        except UnicodeEncodeError:
            raise InvalidRequest(f"{target!r} is not valid Unicode: choose another output") from None
        for file in checkpoint.files:
            if file.same_as(target):
                raise InvalidRequest(f"{target} is {file.path}, one of the files to convert: choose another output")
        blank = [f"{file.name}:{'0' * 64}" for file in checkpoint.files]
        offsets, data_bytes = data_offsets(plan.infos)
        data_at = len(_header(plan, blank, ["0" * 64] * len(plan.infos)))
        with AtomicFile(target, data_at + data_bytes, overwrite) as out:
            checksums = _stream(plan, [data_at + offset for offset in offsets], out, progress, cancel)
            if data_bytes:  # padding after the last tensor
                end = offsets[-1] + plan.infos[-1].nbytes
                out.write(data_at + end, bytes(data_bytes - end))
            sha256 = [f"{file.name}:{file.sha256()}" for file in checkpoint.files]
            _check_sources(checkpoint, sha256, expected_sha256 or {})
            out.write(0, _header(plan, sha256, checksums))
            out.commit(lambda path: _check(path, plan.infos))
    return ConvertReport(
        source=source_path,
        output=target,
        type=recipe.name,
        source_bytes=sum(tensor.nbytes for tensor in plan.sources),
        output_bytes=data_at + data_bytes,
        tensors=dict(Counter(info.dtype for info in plan.infos)),
        fallbacks=plan.fallbacks,
        sha256=sha256,
    )


def file_name(metadata: list[Entry], recipe: Recipe) -> str:
    """The name by GGUF's convention: Kosmos-2-1.6B-v1.0-Q4_K_M.gguf."""
    values = {key: value for key, _, value in metadata}
    parts = [values[f"general.{key}"] for key in ("basename", "size_label", "version")]
    return "-".join(part.replace(" ", "-").replace("/", "-") for part in [*parts, recipe.label]) + ".gguf"


def _plan(checkpoint: Checkpoint, recipe: Recipe) -> _Plan:
    """Maps names, checks shapes, chooses types."""
    kind = checkpoint.config.get("model_type")
    model = MODELS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise ModelCorrupt(f"config.json: model_type is {brief(kind)}; expected one of {', '.join(MODELS)}")
    config = model.read_config(checkpoint.config)
    mapped = model.map_tensors(checkpoint, config)
    infos, fallbacks = [], []
    for name, tensor in mapped:
        dtype, wanted = (choose(recipe, name, tensor.shape, config.layers) for choose in (choose_type, wanted_type))
        infos.append(TensorInfo(name, dtype, tensor.shape))
        if dtype != wanted:
            fallbacks.append(f"{name}: stored as {dtype}, its rows of {tensor.shape[-1]} values do not fit {wanted}")
    converter = f"kosmos-edge {_version()}"

    def metadata(sha256: list[str]) -> list[Entry]:
        entries: list[Entry] = model.metadata(checkpoint, config, recipe.file_type, sha256, converter)
        return entries

    return _Plan([tensor for _, tensor in mapped], infos, fallbacks, metadata)


def _version() -> str:
    try:
        return version("kosmos-edge")
    except PackageNotFoundError:  # run from sources that were not installed
        return "unknown"


def _header(plan: _Plan, sha256: list[str], checksums: list[str]) -> bytes:
    extra: list[Entry] = [
        ("general.alignment", "u32", ALIGNMENT),
        ("kosmos2.checksum.sha256", "[str]", checksums),
    ]
    return encode_header([*plan.metadata(sha256), *extra], plan.infos)


def _stream(
    plan: _Plan, places: list[int], out: AtomicFile, progress: Progress | None, cancel: Cancellable | None
) -> list[str]:
    """Reads, encodes and writes all tensors; -> the SHA-256 of each one's stored bytes, in the order of the file."""
    hashes = [hashlib.sha256() for _ in plan.infos]
    written = [0] * len(plan.infos)
    total = sum(tensor.nbytes for tensor in plan.sources)
    done = 0
    files = {id(tensor.file): i for i, tensor in enumerate(plan.sources)}
    order = sorted(range(len(plan.sources)), key=lambda i: (files[id(plan.sources[i].file)], plan.sources[i].offset, i))
    pending: deque[tuple[int, int, Future[bytes]]] = deque()

    def finish_one() -> None:
        nonlocal done
        i, source_bytes, future = pending.popleft()
        try:
            data = future.result()
        except KosmosError as error:  # a value that the type cannot hold
            raise ModelCorrupt(f"{plan.sources[i].file.path}: tensor {plan.sources[i].name!r}: {error}") from error
        out.write(places[i] + written[i], data)
        hashes[i].update(data)
        written[i] += len(data)
        done += source_bytes
        if progress is not None:
            progress(done, total, plan.infos[i].name)

    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="kosmos-convert")
    try:
        for i in order:
            tensor, info = plan.sources[i], plan.infos[i]
            for start, count in _chunks(tensor):
                if cancel is not None and cancel.cancelled:
                    raise Cancelled(f"conversion cancelled after {done} of {total} bytes")
                tensor.file.hash_up_to(tensor.offset + start)
                data = tensor.read(start, count)
                job = pool.submit(
                    _core.quantize, info.dtype, data, tensor.dtype, tensor.shape[-1] if tensor.shape else 1
                )
                pending.append((i, count, job))
                if len(pending) > 2 * WORKERS:
                    finish_one()
        while pending:
            finish_one()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    for info, size in zip(plan.infos, written, strict=True):
        if size != info.nbytes:
            raise KosmosError(f"internal: {info.name} became {size} bytes of {info.dtype}, expected {info.nbytes}")
    return [h.hexdigest() for h in hashes]


def _chunks(tensor: SourceTensor) -> list[tuple[int, int]]:
    """(start, bytes) of pieces of whole rows that cover the tensor."""
    row = (tensor.shape[-1] if tensor.shape else 1) * FLOAT_BYTES[tensor.dtype]
    step = max(1, CHUNK_BYTES // row) * row
    return [(start, min(step, tensor.nbytes - start)) for start in range(0, tensor.nbytes, step)]


def _check_sources(checkpoint: Checkpoint, sha256: list[str], expected: Mapping[str, str]) -> None:
    for file, entry in zip(checkpoint.files, sha256, strict=True):
        found = entry.rpartition(":")[2]
        if expected.get(file.name, found) != found:
            raise ModelCorrupt(f"{file.path}: SHA-256 is {found}, expected {expected[file.name]}")


def _check(path: Path, infos: list[TensorInfo]) -> None:
    """Opens the finished file as the engine will: what cannot be run is not given a name."""
    try:
        found = [(name, dtype, tuple(shape)) for name, dtype, shape, *_ in _core.GgufFile(str(path)).tensors()]
        _core.read_config(str(path))
    except KosmosIOError:
        raise
    except KosmosError as error:
        raise ModelCorrupt(f"the converted file would not load: {error}") from error
    if found != [(info.name, info.dtype, info.shape) for info in infos]:
        raise KosmosError("internal: the tensors of the written file are not those that were to be written")


def describe(report: ConvertReport) -> list[str]:
    """The report as lines for people."""
    types = ", ".join(f"{count} {dtype}" for dtype, count in sorted(report.tensors.items()))
    lines = [f"{report.output}: {report.output_bytes / 1e6:.1f} MB from {report.source_bytes / 1e6:.1f} MB ({types})"]
    if report.fallbacks:
        lines.append(f"{len(report.fallbacks)} tensors are not in the type of {report.type}:")
        lines += [f"  {text}" for text in report.fallbacks]
    return lines
