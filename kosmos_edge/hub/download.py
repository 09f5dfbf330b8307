"""`models pull`: what to fetch from the hub, fetching it, checking it, converting it.

The published checkpoint's needed files only (safetensors rather than .bin, never both). Every file is checked against
the hub's metadata: SHA-256 and size of large files, git's blob id of small ones; the converter checks the hashes once
more while it reads. huggingface_hub is imported on the first use of the network.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kosmos_edge.errors import InvalidRequest, KosmosIOError, ModelCorrupt, ModelNotFound
from kosmos_edge.hub import models as hub
from kosmos_edge.hub.published import IN_PARTS, PUBLISHED, Published
from kosmos_edge.hub.transfer import Cancellable, Digest, download
from kosmos_edge.storage import TYPES
from kosmos_edge.targets import check_place

_SHARD = r"-\d{5}-of-\d{5}\."
# Sets of weights in order of preference: (what must be there, pattern of all files of the set).
_WEIGHTS = (
    ("model.safetensors", r"model\.safetensors"),
    ("model.safetensors.index.json", rf"model\.safetensors\.index\.json|model{_SHARD}safetensors"),
    ("pytorch_model.bin", r"pytorch_model\.bin"),
    ("pytorch_model.bin.index.json", rf"pytorch_model\.bin\.index\.json|pytorch_model{_SHARD}bin"),
)
_REQUIRED = ("config.json",)
Progress = Callable[[int, int, str], None]  # bytes done, bytes in all, file name


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository as the hub describes it."""

    name: str
    size: int
    digest: Digest
    cached: Path | None = None  # in huggingface_hub's cache

    @property
    def large(self) -> bool:
        """Whether it is a file of weights: those are stored apart from git and known by their SHA-256."""
        return self.digest.kind == "SHA-256"


@dataclass(frozen=True)
class Plan:
    """What a pull will do. Nothing is fetched when `ready` is set."""

    spec: str  # as it can be given to resolve()
    repo: str
    commit: str  # 40 hexadecimal digits
    type: str | None  # to convert to; None: a GGUF file is fetched as it is
    files: list[RemoteFile] = field(default_factory=list)
    folder: Path = field(default_factory=Path)  # of the finished file
    ready: Path | None = None  # the finished file, when it is here already
    output_bytes: int = 0  # of the finished file, estimated for a conversion
    card: Mapping[str, Any] = field(default_factory=dict)  # what a conversion calls the model

    @property
    def download_bytes(self) -> int:
        """Bytes that have to be fetched."""
        return sum(file.size for file in self.files if file.cached is None)

    @property
    def cached_bytes(self) -> int:
        """Bytes that huggingface_hub's cache has already."""
        return sum(file.size for file in self.files if file.cached is not None)


def describe_plan(plan: Plan) -> list[str]:
    """The plan as lines for people, sizes first, then the licence."""
    if plan.ready is not None:
        return [f"{plan.spec} is here: {plan.ready}"]
    lines = [f"{plan.repo} at {plan.commit[:12]}: {_megabytes(plan.download_bytes)} to download"]
    if plan.cached_bytes:
        lines[0] += f", {_megabytes(plan.cached_bytes)} are in the cache"
    known = [row.license for row in PUBLISHED.values() if row.repo == plan.repo]
    lines.append(f"licence: {known[0] if known else f'not known here, see the page of {plan.repo}'}")
    lines += [f"  {file.name}  {_megabytes(file.size)}" for file in plan.files if file.cached is None]
    if plan.type is not None:
        lines.append(f"to be converted to {plan.type}, about {_megabytes(plan.output_bytes)}, in {plan.folder}")
    return lines


def _megabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 10**9 else f"{size / 1e6:.1f} MB" if size >= 10**5 else f"{size} bytes"


# ---- the calls


def plan(
    tag: str, *, type: str | None = None, offline: bool | None = None, to: str | os.PathLike[str] | None = None
) -> Plan:
    """What `pull` would do, with sizes; asks the hub for names and sizes unless offline. `describe_plan` words it."""
    with hub.reading_cache(Path("the cache")):
        return _make_plan(tag, type, hub.is_offline(offline), None if to is None else Path(to))


def pull(
    tag: str,
    *,
    type: str | None = None,
    progress: Progress | None = None,
    offline: bool | None = None,
    to: str | os.PathLike[str] | None = None,
    keep_source: bool = False,
    cancel: Cancellable | None = None,
) -> Path:
    """Fetches a model and returns its file; one that is here already is returned without a request.

    tag: "kosmos-2[:TYPE]" or another of PUBLISHED (the published checkpoint is downloaded and converted), or
    "user/repo[:TYPE]" (a GGUF file).
    type: instead of a type in the tag. to: a folder for the file instead of the cache. offline: use only what was
    downloaded before. keep_source: keep the checkpoint that was downloaded for the conversion (6.7 GB for KOSMOS-2).
    progress: called with (bytes done, bytes in all, file name). An interrupted download is resumed by the next call.
    Errors: InvalidRequest, ModelNotFound, ModelCorrupt (what came is not what the hub announces), KosmosIOError,
    Cancelled.
    """
    made = plan(tag, type=type, offline=offline, to=to)
    try:
        return run_plan(made, progress, keep_source, cancel)
    except KosmosIOError:
        raise
    except OSError as error:
        raise KosmosIOError(f"cannot use {error.filename or made.folder}: {error.strerror or error}") from error


# ---- planning


def _make_plan(tag: str, type: str | None, offline: bool, to: Path | None) -> Plan:
    """The plan for a tag; the sizes come from the hub, or from the cache when offline."""
    ours, repo = hub.split_tag(tag), hub.split_repo(tag)
    named = ours[1] if ours else repo[1] if repo else None
    if type is not None and named is not None and type.lower() != named.lower():
        raise InvalidRequest(f"{tag} names the type {named}, but {type} was requested")
    if ours is not None and ours[0] in hub.PACKAGED:
        return Plan(ours[0], "", "", None, ready=hub.resolve(ours[0]))
    if ours is not None:
        return _plan_published(PUBLISHED[ours[0]], hub.check_type(type or named or TYPES[0]), offline, to)
    if repo is None:
        raise InvalidRequest(
            f"{tag!r} is not a tag; expected {', '.join(PUBLISHED)} (with :TYPE) or user/repo[:TYPE]. {IN_PARTS} are "
            "published in parts: convert them by hand (docs/convert.md)"
        )
    return _plan_gguf(repo[0], type or named, offline, to)


def _plan_published(row: Published, type: str, offline: bool, to: Path | None) -> Plan:
    spec, folder = f"{row.name}:{type}", to or hub.models_dir()
    ready = hub.converted_models(folder, row.name).get(type)
    if ready is not None:
        return Plan(spec, row.repo, "", type, folder=folder, ready=ready)
    size = converted_bytes(row, type)
    commit, files = _cached_repo(row) if offline else _remote_repo(row.repo)
    needed = _needed(files, row)
    return Plan(spec, row.repo, commit, type, needed, folder, output_bytes=size, card=row.card)


def converted_bytes(row: Published, type: str) -> int:
    """Size of the file that a published checkpoint becomes, estimated."""
    from kosmos_edge.convert.models import find_model
    from kosmos_edge.convert.recipe import estimate

    settings = {"model_type": row.model_type, **row.sizes}
    model = find_model(settings)
    sizes = model.read_config(settings)  # what a config.json leaves out has the published value
    return estimate([(name, shape) for _, name, shape in model.tensor_table(sizes)], type, sizes.layers)


def _needed(files: list[RemoteFile], row: Published) -> list[RemoteFile]:
    """The files that a conversion reads."""
    by_name = {file.name: file for file in files}
    chosen: list[RemoteFile] = []
    for first, pattern in _WEIGHTS:
        if first in by_name:
            chosen = [file for file in files if re.fullmatch(pattern, file.name)]
            break
    for group in row.settings:
        chosen += [by_name[name] for name in group if name in by_name][:1]
    missing = [name for name in _REQUIRED if name not in by_name]
    if not any(first in by_name for first, _ in _WEIGHTS):
        missing.append("weights")
    if not any(name in by_name for name in row.tokenizer[0]):
        missing.append("tokenizer")
    if missing:
        raise ModelNotFound(f"{row.repo} has no {', no '.join(missing)}")
    return chosen


def _plan_gguf(repo: str, type: str | None, offline: bool, to: Path | None) -> Plan:
    spec = repo if type is None else f"{repo}:{type}"
    if to is None:
        ready = hub.find_in_hf_cache(repo, type)
    else:
        name = hub.choose_gguf(sorted(os.listdir(to)), type) if os.path.isdir(to) and type is not None else None
        ready = to / name if name is not None else None
    if ready is not None:
        return Plan(spec, repo, "", None, ready=ready)
    if offline:
        raise ModelNotFound(f"{spec} has not been downloaded, and offline mode forbids it")
    commit, files = _remote_repo(repo)
    name = hub.choose_gguf([file.name for file in files], type)
    if name is None:
        ggufs = [file.name for file in files if file.name.endswith(".gguf")]
        raise ModelNotFound(
            f"{repo} has no GGUF file{f' of type {type}' if type else ''}; it has {ggufs[:10] or 'none at all'}"
        )
    file = next(file for file in files if file.name == name)
    return Plan(spec, repo, commit, None, [file], to or hub.hf_cache_dir(), output_bytes=file.size)


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


@contextlib.contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    """huggingface_hub's errors as ours."""
    from huggingface_hub import errors

    try:
        yield
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise ModelNotFound(
            f"{what} is not on {_endpoint()}, or needs a token (HF_TOKEN): {_first_line(error)}"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise ModelNotFound(f"{what}: offline mode (HF_HUB_OFFLINE) forbids access to {_endpoint()}") from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.FileMetadataError, OSError) as error:
        if isinstance(error, KosmosIOError):
            raise
        raise KosmosIOError(f"{what}: cannot download it from {_endpoint()}: {_first_line(error)}") from error
    except Exception as error:  # its HTTP client's own
        if type(error).__module__.partition(".")[0].startswith("http"):
            raise KosmosIOError(f"{what}: cannot reach {_endpoint()}: {_first_line(error)}") from error
        raise


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0][:300]


def _remote_repo(repo: str) -> tuple[str, list[RemoteFile]]:
    """-> (commit, files) of the main branch, as the hub describes them."""
    with _hub_errors(repo):
        from huggingface_hub import HfApi

        info = HfApi(endpoint=_endpoint()).model_info(repo, files_metadata=True)
    commit = info.sha or ""
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise ModelCorrupt(f"{repo}: the hub names the commit {commit!r}, expected 40 hexadecimal digits")
    snapshot = _repo_folder(repo) / "snapshots" / commit
    files = []
    for sibling in info.siblings or []:
        lfs: Any = sibling.lfs or {}
        name, size = sibling.rfilename, sibling.size
        sha256, git_id = str(lfs.get("sha256") or ""), str(sibling.blob_id or "")
        if not re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9._-]+", name):  # not a name that we ask for
            continue
        valid = re.fullmatch(r"[0-9a-f]{64}", sha256) if sha256 else re.fullmatch(r"[0-9a-f]{40}", git_id)
        if not isinstance(size, int) or size < 0 or not valid:
            raise ModelCorrupt(f"{repo}: the hub announces no valid size and hash of {name}")
        digest = Digest("SHA-256", sha256, size) if sha256 else Digest("git blob id", git_id, size)
        path = snapshot / name
        cached = path if path.is_file() and path.stat().st_size == size else None
        files.append(RemoteFile(name, size, digest, cached))
    return commit, files


def _cached_repo(row: Published) -> tuple[str, list[RemoteFile]]:
    """-> (commit, files) of the newest snapshot in huggingface_hub's cache that holds a whole checkpoint."""
    snapshots = _repo_folder(row.repo) / "snapshots"
    folders = [folder for folder in snapshots.iterdir() if folder.is_dir()] if snapshots.is_dir() else []
    for folder in sorted(folders, key=lambda f: (f.stat().st_mtime_ns, f.name), reverse=True):
        files = []
        for path in sorted([*folder.glob("*"), *folder.glob("*/*")]):
            if path.is_file():
                blob, size = path.resolve().name, path.stat().st_size  # huggingface_hub names blobs by their hash
                kind = "SHA-256" if re.fullmatch(r"[0-9a-f]{64}", blob) else "git blob id"
                name = path.relative_to(folder).as_posix()
                files.append(RemoteFile(name, size, Digest(kind, blob, size), path))
        with contextlib.suppress(ModelNotFound):
            _needed(files, row)
            return folder.name, files
    raise ModelNotFound(f"{row.repo} is not in {hub.hf_cache_dir()}, and offline mode forbids the download")


def _repo_folder(repo: str) -> Path:
    return hub.hf_cache_dir() / f"models--{repo.replace('/', '--')}"


# ---- doing it


def run_plan(plan: Plan, progress: Progress | None, keep_source: bool, cancel: Cancellable | None) -> Path:
    """Fetches and converts; -> the finished file."""
    if plan.ready is not None:
        return plan.ready
    _check_space(plan)
    if plan.type is not None or plan.folder != hub.hf_cache_dir():  # the library makes its cache itself
        check_place(str(plan.folder), "a model is pulled into a folder")
    weights = sum(file.size for file in plan.files if file.large) if plan.type is not None else 0
    total = plan.download_bytes + weights  # a conversion reads the weights once

    def say(done: int, name: str) -> None:
        if progress is not None:
            progress(min(done, total), total, name)

    paths: dict[str, Path] = {}
    fetched: list[RemoteFile] = []
    done = 0
    for file in plan.files:
        if file.cached is not None:
            paths[file.name] = file.cached
            continue

        def fetching(received: int, at: int = done, name: str = file.name) -> None:
            say(at + received, name)

        paths[file.name] = _fetch(plan, file, fetching, cancel)
        fetched.append(file)
        done += file.size
    if plan.type is None:
        return _finish_gguf(plan, paths[plan.files[0].name])

    def converting(at: int, of: int, name: str) -> None:
        say(done + at * weights // of, name)

    output = _convert(plan, paths, converting, cancel)
    if not keep_source:
        for file in fetched:
            if file.large:
                _discard(plan.repo, paths[file.name])
    return output


def _check_space(plan: Plan) -> None:
    """KosmosIOError when the download does not fit; the converter checks for its output itself."""
    folder = plan.folder if plan.type is None and plan.folder != hub.hf_cache_dir() else hub.hf_cache_dir()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if plan.download_bytes > free:
        raise KosmosIOError(f"{folder} has {free} bytes free, but the download needs {plan.download_bytes}")


def _fetch(plan: Plan, file: RemoteFile, progress: Callable[[int], None], cancel: Cancellable | None) -> Path:
    """Downloads one file into huggingface_hub's cache (or to the plan's folder), checked; -> its path."""
    with _hub_errors(f"{plan.repo}: {file.name}"):
        from huggingface_hub import hf_hub_download, hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        url = hf_hub_url(plan.repo, file.name, revision=plan.commit, endpoint=_endpoint())
        cache = hub.hf_cache_dir()
        direct = plan.type is None and plan.folder != cache
        blob = plan.folder / file.name if direct else _repo_folder(plan.repo) / "blobs" / file.digest.hex
        download(url, build_hf_headers(), blob, file.digest, progress, cancel)
        if direct:
            return blob
        # The content is where the library looks for it; only its bookkeeping is left to do.
        path = Path(hf_hub_download(plan.repo, file.name, revision=plan.commit, cache_dir=cache, endpoint=_endpoint()))
    if path.stat().st_size != file.size:
        raise ModelCorrupt(f"{path} has {path.stat().st_size} bytes, the hub announces {file.size}")
    return path


def _convert(plan: Plan, paths: dict[str, Path], progress: Progress, cancel: Cancellable | None) -> Path:
    """Converts the snapshot; a cached file that is damaged is removed so that the next pull fetches it again."""
    from kosmos_edge.convert import convert

    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KosmosIOError(f"cannot make {plan.folder}: {error.strerror}") from error
    expected = {file.name: file.digest.hex for file in plan.files if file.large}
    folder = paths["config.json"].parent
    try:
        report = convert(
            folder,
            plan.folder,
            type=plan.type or "",
            progress=progress,
            cancel=cancel,
            expected_sha256=expected,
            card=plan.card,
        )
    except ModelCorrupt:
        for file in plan.files:
            if not file.digest.matches(paths[file.name]):
                _discard(plan.repo, paths[file.name])
                raise ModelCorrupt(
                    f"{paths[file.name]} was damaged in the cache and has been removed; run again to download it"
                ) from None
        raise
    return report.output


def _finish_gguf(plan: Plan, path: Path) -> Path:
    """Checks that the engine will open the downloaded file, and notes it for `list_models`."""
    from kosmos_edge import _core

    _core.model_info(str(path))
    if plan.folder == hub.hf_cache_dir():
        hub.remember_pulled(plan.spec, path)
    return path


def _discard(repo: str, path: Path) -> None:
    """Removes a file from huggingface_hub's cache: its name in the snapshot, and its content if no other needs it."""
    blob = path.resolve()
    with contextlib.suppress(OSError):
        path.unlink()
        if blob.parent == (_repo_folder(repo) / "blobs").resolve() and not hub.is_linked(_repo_folder(repo), blob):
            blob.unlink()
