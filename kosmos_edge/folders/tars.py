"""Tar files in the layout of webdataset: files of one key, one after another, are one sample."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, cast

from kosmos_edge.errors import ImageDecodeError
from kosmos_edge.folders.running import Entry, bytes_entry
from kosmos_edge.images import picture_suffixes
from kosmos_edge.json_text import to_json

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_MOST = 1 << 30  # bytes of one member
LINK = "is a link in the tar file, expected the image itself (GNU tar: --dereference, --hard-dereference)"


@dataclass(slots=True)
class Sample:
    """The files of one key."""

    key: str  # path in the tar file up to the first dot of the name
    files: list[tuple[str, bytes]] = field(default_factory=list)  # (extension, content), without the picture
    extension: str = ""  # of the picture
    picture: bytes = b""
    problem: str = ""  # why there is no picture, although there is a member for it


def tar_entries(
    path: str,
    say: Callable[[str], object] = lambda text: None,
    lone: Callable[[Sample], object] = lambda sample: None,
) -> Iterator[Entry]:
    """The pictures of a tar file, read as a stream; names are PATH/MEMBER, Entry.about is the Sample.

    A sample without a picture is left out: `lone` gets it, and `say` tells of all at the end; one with several gives
    its first. The same name again begins another sample. A picture that is a link is an entry that fails. Raises
    ImageDecodeError for a damaged file.
    """
    left_out: list[str] = []
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            sample: Sample | None = None
            seen: set[str] = set()  # extensions of the sample
            for member in tar:
                if not (member.isfile() or _is_linked_picture(member)):
                    continue
                key, extension = split_name(member.name)
                if sample is None or sample.key != key or extension in seen:
                    if sample is not None:
                        yield from _entries(path, sample, left_out, lone)
                    sample, seen = Sample(key), set()
                seen.add(extension)
                if not member.isfile():
                    if not sample.extension:
                        sample.extension, sample.problem = extension, LINK
                    continue
                if member.size > _MOST:
                    raise ImageDecodeError(f"{path}: {member.name} has {member.size} bytes, expected at most {_MOST}")
                content = cast(IO[bytes], tar.extractfile(member)).read()
                if not sample.extension and _is_picture(extension):
                    sample.extension, sample.picture = extension, content
                else:
                    sample.files.append((extension, content))
            if sample is not None:
                yield from _entries(path, sample, left_out, lone)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ImageDecodeError(f"{path}: damaged tar file ({error})") from error
    if left_out:
        files = "file has" if len(left_out) == 1 else "files have"
        reason = "the files of a sample must stand one behind the other (tar --sort=name)"
        say(f"{path}: {len(left_out)} {files} no image, such as {left_out[0]}: {reason}")


def _is_picture(extension: str) -> bool:
    return "." + extension.rpartition(".")[2].lower() in picture_suffixes()


def _is_linked_picture(member: tarfile.TarInfo) -> bool:
    return (member.islnk() or member.issym()) and _is_picture(split_name(member.name)[1])


def _entries(path: str, sample: Sample, left_out: list[str], lone: Callable[[Sample], object]) -> Iterator[Entry]:
    """The sample's picture; without one its names go to `left_out`."""
    name = f"{path}/{sample.key}.{sample.extension}"

    def fail(*_: Any) -> Any:
        raise ImageDecodeError(f"{name}: {sample.problem}")

    if sample.problem:
        yield Entry(name, None, fail, fail, sample)
    elif sample.extension:
        yield bytes_entry(name, sample.picture, sample)
    else:
        left_out += [f"{sample.key}.{extension}" for extension, _ in sample.files]
        lone(sample)


def tar_places(path: str) -> Iterator[tuple[str, str, int, int]]:
    """(name, key, offset, bytes) of the pictures of an uncompressed tar file, which are those of tar_entries.

    Only headers are read: whoever reads the pictures does so at the offset, perhaps on another machine. A picture that
    is a link has the offset -1. Raises ImageDecodeError for a damaged file, and for members that are stored with holes.
    """
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            end = os.fstat(file.fileno()).st_size
            last: str | None = None
            found, seen = False, set[str]()
            for member in tar:
                if not (member.isfile() or _is_linked_picture(member)):
                    continue
                key, extension = split_name(member.name)
                if last != key or extension in seen:
                    last, found, seen = key, False, set()
                seen.add(extension)
                if found or not _is_picture(extension):
                    continue
                if not member.isfile():
                    found = True
                    yield f"{path}/{key}.{extension}", key, -1, 0
                    continue
                if member.issparse() or member.size > _MOST:
                    what = "has holes" if member.issparse() else f"has {member.size} bytes, expected at most {_MOST}"
                    raise ImageDecodeError(f"{path}: {member.name} {what}")
                if member.offset_data + member.size > end:
                    raise ImageDecodeError(f"{path}: damaged tar file ({member.name} ends behind the file's end)")
                found = True
                yield f"{path}/{key}.{extension}", key, member.offset_data, member.size
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ImageDecodeError(f"{path}: damaged tar file ({error})") from error


def split_name(name: str) -> tuple[str, str]:
    """ "a/b.seg.png" -> ("a/b", "seg.png"): the extension begins at the first dot of the last part."""
    folder, _, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return (f"{folder}/{stem}" if folder else stem), extension


class TarExport:
    """Samples with their picture, KEY.txt (the caption), KEY.json (the record), and what else was in the sample.

    Where a sample has such a file already, ours is KEY.kosmos.txt or KEY.kosmos.json.
    """

    def __init__(self, put: Callable[[bytes], None]) -> None:
        """put: takes the bytes of the tar file."""
        self._sink = Sink(put)
        self._tar = tarfile.open(fileobj=cast(IO[bytes], self._sink), mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._keys: dict[str, int] = {}

    def add(self, entry: Entry, picture: bytes, caption: str, record: dict[str, Any]) -> None:
        """The next sample."""
        sample = entry.about if isinstance(entry.about, Sample) else None
        if sample is None:
            key, extension = split_name(os.path.basename(entry.name))
            sample = Sample(key, [], extension.rpartition(".")[2] or "png", picture)
        number = self._keys[sample.key] = self._keys.get(sample.key, 0) + 1
        key = sample.key if number == 1 else f"{sample.key}-{number}"
        taken = {extension for extension, _ in sample.files}
        self._add(f"{key}.{sample.extension}", sample.picture)
        for extension, content in sample.files:
            self._add(f"{key}.{extension}", content)
        ours = {"txt": caption, "json": to_json({**record, "__key__": key})}
        for extension, text in ours.items():
            name = f"kosmos.{extension}" if extension in taken else extension
            self._add(f"{key}.{name}", text.encode("utf-8", "surrogateescape"))

    def _add(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), 0o644
        self._tar.addfile(member, io.BytesIO(content))

    def finish(self) -> None:
        """Writes the end."""
        self._tar.close()

    def close(self) -> None:
        """Releases what is held; writes nothing more."""
        self._sink.end()
        self._tar.close()


class Sink(io.RawIOBase):
    """A file object that passes on what is written."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        self._put: Callable[[bytes], None] | None = put
        self._size = 0

    def end(self) -> None:
        """From now on nothing is passed on: writers that were not finished write when they are closed."""
        self._put = None

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Any) -> int:
        """Passes the bytes on."""
        content = bytes(data)
        if self._put is not None:
            self._put(content)
        self._size += len(content)
        return len(content)

    def tell(self) -> int:
        """Bytes so far."""
        return self._size
