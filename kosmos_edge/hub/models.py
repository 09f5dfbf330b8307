"""The models on this machine: names, folders, files. Nothing here uses the network."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_edge.errors import InvalidRequest, KosmosIOError, ModelNotFound
from kosmos_edge.hub.published import PUBLISHED
from kosmos_edge.storage import TYPES, label

NANO, NANO_READ = "nano", "nano-read"
PACKAGED = {NANO: "nano-q4_k_m.gguf", NANO_READ: "nano-read-q4_k_m.gguf"}  # in the package, each in one type
KOSMOS2 = "kosmos-2"
KOSMOS2_REPO = PUBLISHED[KOSMOS2].repo
_TAGS = f"{', '.join([*PACKAGED, *PUBLISHED])} (with :TYPE, but for {' and '.join(PACKAGED)})"  # for messages
_LABELS = {type: label(type) for type in TYPES}
_YES = ("1", "true", "t", "yes", "y", "on")
_NO = ("0", "false", "f", "no", "n", "off")
_REPO = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?::(?P<type>[A-Za-z0-9_]{1,16}))?")
# Behind a basename; a digit first, so that a longer basename is no model of this one.
_PUBLISHED = r"-\d[\w.]*-v[\w.]+-(?P<label>[A-Z0-9_]+)\.gguf"


@dataclass(frozen=True)
class LocalModel:
    """A model on this machine."""

    tag: str
    path: Path
    bytes: int


# ---- places


def _home(instead: str) -> Path:
    """The user's home folder; KosmosIOError if there is none (no HOME, and a user id without an entry)."""
    try:
        return Path.home()
    except (RuntimeError, KeyError):
        raise KosmosIOError(
            f"HOME is not set and this user has no home folder; set HOME, or {instead} to a folder"
        ) from None


def cache_dir() -> Path:
    """The cache folder: KOSMOS_EDGE_CACHE, else kosmos-edge in the platform's folder for caches.

    KosmosIOError where the user has no home folder.
    """
    own = os.environ.get("KOSMOS_EDGE_CACHE")
    if own:
        return Path(own)
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA") or _home("KOSMOS_EDGE_CACHE") / "AppData" / "Local"
        return Path(local) / "kosmos-edge" / "Cache"
    if sys.platform == "darwin":
        return _home("KOSMOS_EDGE_CACHE") / "Library" / "Caches" / "kosmos-edge"
    return Path(os.environ.get("XDG_CACHE_HOME") or _home("KOSMOS_EDGE_CACHE") / ".cache") / "kosmos-edge"


def models_dir() -> Path:
    """The folder of converted files."""
    return cache_dir() / "models"


def shared_weights_dir() -> Path:
    """The folder of weights that processes share (docs/sharing.md)."""
    return cache_dir() / "weights"


def hf_cache_dir() -> Path:
    """huggingface_hub's cache, by its rules: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub.

    KosmosIOError where the user has no home folder.
    """
    own = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if own:
        return _expand(os.path.expandvars(own))
    if home := os.environ.get("HF_HOME"):
        return _expand(os.path.expandvars(home)) / "hub"
    return _expand(os.environ.get("XDG_CACHE_HOME") or _home("HF_HOME") / ".cache") / "huggingface" / "hub"


def _expand(path: str | Path) -> Path:
    """The path with ~ replaced; KosmosIOError if that is impossible."""
    try:
        return Path(path).expanduser()
    except (RuntimeError, KeyError):
        raise KosmosIOError(f"{path}: there is no such home folder; write the full path") from None


def is_offline(offline: bool | None = None) -> bool:
    """Whether the network is forbidden: by argument, or by KOSMOS_EDGE_OFFLINE, HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE.

    InvalidRequest if KOSMOS_EDGE_OFFLINE is neither yes nor no, so that a typo does not allow the network.
    """
    ours = os.environ.get("KOSMOS_EDGE_OFFLINE", "").strip().lower()
    if ours not in ("", *_YES, *_NO):
        raise InvalidRequest(f"KOSMOS_EDGE_OFFLINE: expected 1 or 0, got {ours!r}")
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    theirs = any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in names)
    return bool(offline) or ours in _YES or theirs


def packaged_path(name: str) -> Path:
    """The file of a model inside the package."""
    return Path(__file__).resolve().parent.parent / "data" / PACKAGED[name]


def nano_path() -> Path:
    """The packaged model that answers by default."""
    return packaged_path(NANO)


# ---- names


def check_type(type: str) -> str:
    """The canonical name of a stored type; InvalidRequest for an unknown one."""
    key = type.lower()
    key = "q5_k" if key == "q5_k_m" else key
    if key not in TYPES:
        raise InvalidRequest(f"unknown type {type!r}; expected one of {', '.join(TYPES)}")
    return key


def split_tag(spec: str) -> tuple[str, str | None] | None:
    """(name, its type or None) when `spec` is a tag of ours: a packaged or a published model; else None."""
    name, colon, type = spec.partition(":")
    if name.lower() not in (*PACKAGED, *PUBLISHED):
        return None
    if not colon:
        return name.lower(), None
    if name.lower() in PACKAGED:
        raise InvalidRequest(f"{spec!r}: {name.lower()} comes in one type; expected {name.lower()!r}")
    return name.lower(), check_type(type)


def split_repo(spec: str) -> tuple[str, str | None] | None:
    """("user/repo", type or None) when `spec` has that form, else None."""
    match = _REPO.fullmatch(spec)
    return (match["repo"], match["type"]) if match and ".." not in spec else None


def _is_path(spec: str) -> bool:
    return os.path.exists(spec) or spec.endswith(".gguf") or os.path.isabs(spec) or spec.startswith((".", "~"))


def resolve(spec: str, *, offline: bool = False) -> Path:
    """The file that a tag, a path or "user/repo:TYPE" names; never downloads, whatever `offline` is.

    ModelNotFound says what was looked for and which command gets it.
    """
    tag = split_tag(spec)
    if tag is not None:
        return _resolve_packaged(tag[0]) if tag[0] in PACKAGED else _resolve_published(*tag)
    if _is_path(spec):
        return _resolve_path(spec)
    repo = split_repo(spec)
    if repo is not None:
        found = find_in_hf_cache(*repo)
        if found is None:
            raise ModelNotFound(f"{spec} has not been downloaded; `kosmos-edge models pull {spec}` downloads it")
        return found
    raise ModelNotFound(f"no model {spec!r}; expected {_TAGS}, a path, or user/repo[:TYPE]")


def path(tag: str) -> Path:
    """The file of a model that is on this machine: what `kosmos-edge models path` prints."""
    return resolve(tag)


def _resolve_packaged(name: str) -> Path:
    file = packaged_path(name)
    if not file.is_file():
        raise ModelNotFound(f"{file} is missing: this installation of kosmos-edge lacks its small model")
    return file


def _resolve_published(name: str, type: str | None) -> Path:
    here = converted_models(name=name)
    for candidate in TYPES if type is None else (type,):
        if candidate in here:
            return here[candidate]
    tag = name if type is None else f"{name}:{type}"
    others = f" (here is {', '.join(f'{name}:{t}' for t in TYPES if t in here)})" if here else ""
    raise ModelNotFound(
        f"{tag} is not in {models_dir()}{others}; `kosmos-edge models pull {tag}` downloads and converts it, "
        "`kosmos-edge convert FOLDER -o FILE.gguf` takes a checkpoint that you have"
    )


def _resolve_path(spec: str) -> Path:
    found = _expand(spec)
    if os.path.isdir(found):
        raise ModelNotFound(
            f"{found} is a folder, not a GGUF file; `kosmos-edge convert {found} -o FILE.gguf` converts a checkpoint"
        )
    if not os.path.exists(found):
        raise ModelNotFound(f"no such file: {found}")
    return found


def converted_models(folder: Path | None = None, name: str = KOSMOS2) -> dict[str, Path]:
    """Type -> file, of the converted files of a published model in a folder (the cache).

    KosmosIOError if it cannot be read.
    """
    folder = folder or models_dir()
    pattern = re.compile(re.escape(PUBLISHED[name].basename) + _PUBLISHED)
    types = {label: type for type, label in _LABELS.items()}
    found: dict[str, Path] = {}
    with reading_cache(folder):
        for file in _names_in(folder):
            match = pattern.fullmatch(file)
            if match and match["label"] in types and (folder / file).is_file():
                found.setdefault(types[match["label"]], folder / file)
    return found


@contextlib.contextmanager
def reading_cache(folder: Path) -> Iterator[None]:
    """Raises the system's errors as KosmosIOError, in one line."""
    try:
        yield
    except KosmosIOError:
        raise
    except OSError as error:
        raise KosmosIOError(f"cannot read {error.filename or folder}: {error.strerror or error}") from error


def _names_in(folder: Path) -> list[str]:
    """Sorted; empty if there is no such folder."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def matches_type(name: str, type: str | None) -> bool:
    """Whether a GGUF file's name ends in the type (Q4_K_M in any case), or is any GGUF file for None."""
    if not name.lower().endswith(".gguf") or type is None:
        return name.lower().endswith(".gguf")
    return re.split(r"[-.]", name.lower()[:-5])[-1] == _LABELS.get(type.lower(), type).lower()


def choose_gguf(names: list[str], type: str | None) -> str | None:
    """The file of that type; without a type the one of the default type, or the only one. None: there is none.

    InvalidRequest when several would fit.
    """
    fitting = [name for name in names if matches_type(name, type)]
    if type is None and len(fitting) > 1:
        fitting = [name for name in fitting if matches_type(name, TYPES[0])] or fitting
    if len(fitting) > 1:
        raise InvalidRequest(
            f"several files fit: {', '.join(sorted(fitting)[:10])}; name the type, as in user/repo:q8_0"
        )
    return fitting[0] if fitting else None


def find_in_hf_cache(repo: str, type: str | None) -> Path | None:
    """The GGUF file of a repository in huggingface_hub's cache, of the newest snapshot that has one.

    KosmosIOError if the cache cannot be read.
    """
    snapshots = hf_cache_dir() / f"models--{repo.replace('/', '--')}" / "snapshots"
    with reading_cache(snapshots):
        folders = [snapshots / name for name in _names_in(snapshots) if (snapshots / name).is_dir()]
        for folder in sorted(folders, key=lambda f: (f.stat().st_mtime_ns, f.name), reverse=True):
            name = choose_gguf([entry.name for entry in folder.iterdir() if entry.is_file()], type)
            if name is not None:
                return folder / name
    return None


# ---- the models on this machine


def list_models() -> list[LocalModel]:
    """Those of the package, the converted files in the cache, and what was pulled from other repositories.

    What cannot be read is left out; cache_trouble() says why.
    """
    found = [(name, packaged_path(name)) for name in PACKAGED]
    with contextlib.suppress(KosmosIOError):
        for name in PUBLISHED:
            converted = converted_models(name=name)
            found += [(f"{name}:{type}", converted[type]) for type in TYPES if type in converted]
    found += sorted((spec, Path(file)) for spec, file in _pulled().items())
    return [LocalModel(tag, file, file.stat().st_size) for tag, file in found if os.path.isfile(file)]


def cache_trouble() -> str | None:
    """Why the cache of converted models cannot be used, in one line; None if it can, or does not exist yet."""
    try:
        converted_models()
    except KosmosIOError as error:
        return str(error)
    return None


def default_model() -> tuple[str, str]:
    """-> (the model that runs by default, why)."""
    spec = os.environ.get("KOSMOS_EDGE_MODEL")
    if spec:
        return spec, "KOSMOS_EDGE_MODEL says so"
    try:
        here = converted_models()
    except KosmosIOError as error:
        return NANO, f"the cache of models cannot be used: {error}"
    for type in TYPES:
        if type in here:
            return f"{KOSMOS2}:{type}", "a converted KOSMOS-2 is in the cache"
    return NANO, f"no KOSMOS-2 is here (`kosmos-edge models pull {KOSMOS2}` gets it)"


READER = "kosmos-2.5"


def default_reader() -> tuple[str, str]:
    """-> (the model that reads pages by default, why)."""
    spec = os.environ.get("KOSMOS_EDGE_MODEL")
    return (spec, "KOSMOS_EDGE_MODEL says so") if spec else reader_here()


def reader_here() -> tuple[str, str]:
    """-> (the best model here that reads pages, why); as default_reader, but without KOSMOS_EDGE_MODEL."""
    try:
        here = converted_models(name=READER)
    except KosmosIOError as error:
        return NANO_READ, f"the cache of models cannot be used: {error}"
    for type in TYPES:
        if type in here:
            return f"{READER}:{type}", f"a converted {READER} is in the cache"
    return NANO_READ, f"no {READER} is here (`kosmos-edge models pull {READER}` gets it)"


COMPARERS = ("clip-vit-large-patch14", "clip-vit-base-patch16", "clip-vit-base-patch32")


def default_comparer() -> tuple[str, str]:
    """-> (the model that compares images and texts by default, why). ModelNotFound where none is here."""
    spec = os.environ.get("KOSMOS_EDGE_MODEL")
    if spec:
        return spec, "KOSMOS_EDGE_MODEL says so"
    for name in COMPARERS:
        here = converted_models(name=name)
        for type in TYPES:
            if type in here:
                return f"{name}:{type}", f"a converted {name} is in the cache"
    raise ModelNotFound(
        f"no model that compares images and texts is here; `kosmos-edge models pull {COMPARERS[0]}` gets one, "
        "or name a file with --model"
    )


def remove(tag: str) -> Path:
    """Removes a model's file from the cache and returns its path. Other files are left alone."""
    ours, repo = split_tag(tag), split_repo(tag)
    if ours is not None and ours[0] in PACKAGED:
        raise InvalidRequest(f"{ours[0]} is a part of the package and cannot be removed")
    if ours is not None:
        here = converted_models(name=ours[0])
        if ours[1] is None and len(here) > 1:
            raise InvalidRequest(
                f"several types exist: {', '.join(f'{ours[0]}:{t}' for t in TYPES if t in here)}; name one"
            )
        file = _resolve_published(*ours)
        _unlink(file)
        return file
    if repo is None or _is_path(tag):
        raise InvalidRequest(f"{tag!r} is not a tag; expected {_TAGS} or user/repo[:TYPE]")
    file = resolve(tag)
    blob = file.resolve()
    _unlink(file)
    repo_folder = file.parent.parent.parent
    if blob.parent == (repo_folder / "blobs").resolve() and not is_linked(repo_folder, blob):
        _unlink(blob)
    pulled = _pulled()
    _write_pulled({spec: name for spec, name in pulled.items() if name != str(file)})
    return file


def is_linked(repo_folder: Path, blob: Path) -> bool:
    """Whether a snapshot still uses the blob."""
    return any(entry.resolve() == blob for entry in (repo_folder / "snapshots").rglob("*"))


def _unlink(file: Path) -> None:
    try:
        file.unlink()
    except OSError as error:
        raise KosmosIOError(f"cannot remove {file}: {error.strerror}") from error


def _pulled() -> dict[str, str]:
    """user/repo:TYPE -> file, of files that `pull` put into huggingface_hub's cache."""
    try:
        value: Any = json.loads((cache_dir() / "pulled.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in value.items() if isinstance(v, str)} if isinstance(value, dict) else {}


def remember_pulled(spec: str, file: Path) -> None:
    """Lets `list_models` show a file that was pulled from a repository of GGUF files."""
    _write_pulled({**_pulled(), spec: str(file)})


def _write_pulled(pulled: dict[str, str]) -> None:
    from kosmos_edge.targets import find_target, make_folder, write_whole

    target = cache_dir() / "pulled.json"
    make_folder(str(target.parent), "the cache is a folder")
    data = json.dumps(pulled, indent=1, sort_keys=True).encode()
    write_whole(find_target(target, overwrite=True), data)
