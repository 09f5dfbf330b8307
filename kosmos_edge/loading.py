"""Loading a model: its file is found, checked and opened, in this process or in a worker."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from kosmos_edge._native import _core
from kosmos_edge.errors import InvalidRequest, KosmosIOError, ModelNotFound
from kosmos_edge.inference import running
from kosmos_edge.model import Model
from kosmos_edge.options import check_bool, check_cancel, check_int, limits

_log = logging.getLogger(__name__)
Progress: TypeAlias = Callable[[int, int, str], None]
KvType: TypeAlias = Literal["f16", "q8_0"]
KV_TYPES: tuple[KvType, ...] = get_args(KvType)
PREFIX_CACHE_MB = limits.DEFAULT_PREFIX_CACHE_MB


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    threads: int | None = None,
    mode: Literal["mmap", "copy"] = "mmap",
    offline: bool = False,
    prefix_cache_mb: int = PREFIX_CACHE_MB,
    isolation: Literal["none", "process"] = "none",
    cancel: Any = None,
    mmproj: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    kv_type: KvType = "f16",
    shared_weights: bool | str | os.PathLike[str] = False,
) -> Model:
    """Loads a model: a tag ("kosmos-2", "kosmos-2:q8_0", "nano"), a file's path, or "user/repo:TAG".

    mmproj: path of the vision encoder's file, where the model is a pair of files as llama.cpp has it (docs/pairs.md). A
    folder that holds one such pair is a model, too, without mmproj.

    model: None uses the variable KOSMOS_EDGE_MODEL, else a converted KOSMOS-2 in the cache, else the small model inside
    the package. Nothing is downloaded. device: "auto", "cpu", ...; a device requested by name is never replaced by
    another. threads: 1..1024; None: all that this process may use. mode: "mmap" maps the file, "copy" reads it into
    memory, for files that may change. offline: do not use the network.
    prefix_cache_mb: 0..1048576 MB for keys and values that the encoded images of Model.encode keep (see EncodedImage),
    and those of the last prompt without images; the least recently used are dropped first. 0: nothing is kept.
    kv_type: how keys and values of prompts and answers are kept. "f16": float16, or float32 where the file's weights
    are floats. "q8_0": 8 bits with a float16 scale per 32 values, about half the memory of a long answer; answers may
    differ a little (docs/reading.md). Model.kv_bytes_per_token says what a token takes.
    shared_weights: True, or a folder: weights in the processor's layout are mapped from a file there, which the first
    load makes, so that all processes of this machine that do so have them in memory once (docs/sharing.md). True: the
    folder "weights" of the cache (KOSMOS_EDGE_CACHE). Answers do not depend on it. Where the folder or the disk
    refuses, the load goes on without, and logs a warning; Model.shared_weights says how it went.
    isolation: "process" runs the model in a worker process. If it crashes, this process survives: calls in flight raise
    WorkerDied, and the next call starts a new worker (docs/isolation.md). cancel: as in GenerationOptions.
    progress: called during the load as progress(done, total, name): bytes of weights, and the file's name; at the end
    done is total. Perhaps on another thread; begins again if device="auto" tries another device. What it raises ends
    the load.
    Raises ModelNotFound, ModelCorrupt, DeviceUnavailable, OutOfMemory, KosmosIOError, InvalidRequest, Cancelled,
    WorkerDied.
    """
    if not isinstance(device, str) or not device:
        raise InvalidRequest(f"device: expected a name such as 'auto' or 'cpu', got {device!r}")
    if isolation not in ("none", "process"):
        raise InvalidRequest(f"isolation: expected 'none' or 'process', got {isolation!r}")
    if mode not in ("mmap", "copy"):
        raise InvalidRequest(f"mode: expected 'mmap' or 'copy', got {mode!r}")
    if kv_type not in KV_TYPES:
        raise InvalidRequest(f"kv_type: expected 'f16' or 'q8_0', got {kv_type!r}")
    count = 0 if threads is None else check_int("threads", threads, 1, limits.MAX_THREADS)
    kept = check_int("prefix_cache_mb", prefix_cache_mb, 0, limits.MAX_PREFIX_CACHE_MB) << 20
    sharing = _sharing_folder(shared_weights)
    path, second = find_files(model, mmproj, check_bool("offline", offline))
    name, vision = os.fspath(path), "" if second is None else os.fspath(second)
    for text in (name, vision):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ModelNotFound(
                f"{text!r}: the path of a model file must be valid Unicode; rename or link it"
            ) from None
    check_cancel(cancel)
    shown = f"{name} and {vision}" if vision else name
    _log.debug("loads %s: device %s, mode %s, isolation %s", shown, device, mode, isolation)
    report = None if progress is None else _Report(progress, path.name)
    if isolation == "process":
        if os.name != "posix":
            raise InvalidRequest(f"isolation: 'process' needs a POSIX system, this one is {os.name!r}")
        from kosmos_edge.isolation.process import Settings
        from kosmos_edge.isolation.session import RemoteSession

        settings = Settings(
            os.path.abspath(name),
            device,
            count,
            mode,
            kept,
            os.path.abspath(vision) if vision else "",
            kv_type,
            sharing,
        )
        loaded = Model(running.run(lambda token: RemoteSession(settings, token, report), cancel), path)
        if report is not None:
            report.end()
        return _loaded(loaded)

    def load_engine(token: _core.CancelToken) -> _core.Engine:
        return _core.Engine(
            name,
            device=device,
            threads=count,
            mode=mode,
            prefix_bytes=kept,
            cancel=token,
            mmproj=vision,
            progress=report,
            kv_type=kv_type,
            shared_weights=sharing,
        )

    loaded = Model(running.run(load_engine, cancel), path)
    if report is not None:
        report.end()
    return _loaded(loaded)


def _loaded(model: Model) -> Model:
    _log.debug("loaded %s on %s, context %d", model.name, model.description, model.context_length)
    if note := model.shared_weights["note"]:
        _log.log(logging.WARNING if model.device == "cpu" else logging.INFO, "shared weights: %s", note)
    return model


def _sharing_folder(given: bool | str | os.PathLike[str]) -> str:
    """The folder of files of shared weights; "" for none."""
    if given is False:
        return ""
    if given is True:
        from kosmos_edge import hub

        try:
            return os.path.abspath(hub.shared_weights_dir())
        except KosmosIOError as error:
            _log.warning("shared weights: %s", error)
            return ""
    folder = os.fspath(given) if isinstance(given, (str, os.PathLike)) else None
    if not isinstance(folder, str) or not folder or "\0" in folder:
        raise InvalidRequest(f"shared_weights: expected True, False or a folder, got {given!r}")
    try:
        folder.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"shared_weights: the path of a folder must be valid Unicode, got {folder!r}") from None
    return os.path.abspath(folder)


class _Report:
    """Calls the caller's progress, and at the end once more unless it knows: some tensors are never asked for."""

    def __init__(self, progress: Progress, name: str) -> None:
        if not callable(progress):
            raise InvalidRequest(f"progress: expected a function (done, total, name), got {progress!r}")
        self._progress, self._name = progress, name
        self._done = self._total = 0

    def __call__(self, done: int, total: int) -> None:
        self._done, self._total = done, total
        self._progress(done, total, self._name)

    def end(self) -> None:
        """The model is loaded."""
        if self._done < self._total:
            self(self._total, self._total)


def find_files(
    model: str | os.PathLike[str] | None, mmproj: str | os.PathLike[str] | None, offline: bool
) -> tuple[Path, Path | None]:
    """The file that load() opens, and that of the vision encoder where the model is a pair."""
    from kosmos_edge.pairs import pair_in

    if mmproj is None:
        name = os.fspath(model) if isinstance(model, (str, os.PathLike)) else None
        if isinstance(name, str) and "\0" not in name and os.path.isdir(name):
            found = pair_in(Path(name))
            if found is not None:
                return found
        return find_model(model, offline=offline), None
    given = os.fspath(mmproj) if isinstance(mmproj, (str, os.PathLike)) else mmproj
    if not isinstance(given, str) or not given or "\0" in given:
        raise InvalidRequest(f"mmproj: expected the path of a GGUF file, got {mmproj!r}")
    if model is None:
        raise InvalidRequest("mmproj: goes with a language model's file; name it as the model")
    return find_model(model, offline=offline), Path(given)


def find_model(model: str | os.PathLike[str] | None, *, offline: bool = False) -> Path:
    """The file that load(model) would open."""
    from kosmos_edge import hub  # imported here because drawing and reading results do not need it
    from kosmos_edge.pairs import pair_in

    if model is None:
        return Path(hub.resolve(hub.default_model()[0], offline=offline))
    spec = os.fspath(model) if isinstance(model, os.PathLike) else model
    if not isinstance(spec, str) or not spec or "\0" in spec:
        raise InvalidRequest(f"model: expected a tag or a path, got {model!r}")
    if isinstance(model, os.PathLike) and not os.path.dirname(spec):
        spec = os.path.join(os.curdir, spec)  # Path("nano") is a file, "nano" a tag
    if hub.split_tag(spec) is None and os.path.isdir(spec) and pair_in(Path(spec)) is not None:
        raise ModelNotFound(f"{spec} holds a pair of files from llama.cpp; expected one GGUF file")
    return Path(hub.resolve(spec, offline=offline))


__all__ = ["find_files", "find_model", "load"]
