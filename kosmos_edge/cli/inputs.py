"""Expands arguments into images: files, folders, globs, @lists and stdin.

An argument that turns out not to name an image is a failed input: the run reports it and continues.
"""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import click

from kosmos_edge.errors import ImageDecodeError, InvalidRequest, KosmosError, KosmosIOError


@dataclass(frozen=True, slots=True)
class Input:
    """One image."""

    name: str  # as it is printed
    path: str | None  # None: the bytes of stdin
    found: bool = False  # in a folder, by a glob or in a list: must be a regular file
    error: KosmosError | None = None  # known before the file is opened

    def source(self, *, read: bool = False) -> Any:
        """An argument for Opening.open. read: return bytes for a pipe or a device named by its path, too."""
        from kosmos_edge import files
        from kosmos_edge.images import Unusable

        if self.error is not None:
            return Unusable(self.error)
        try:
            if self.path is None:
                return files.read_stdin(sys.stdin)
            if self.path[:8].lower().startswith(("http://", "https://")) and files.url_problem(self.path):
                return _fetch(self.path)
            what = None if not (self.found or read) else _irregular(self.path)
            if what is None:
                return self.path
            if self.found:
                hint = "; name it by itself to read what comes" if "pipe" in what or "device" in what else ""
                return Unusable(ImageDecodeError(f"{self.path}: {what}{hint}"))
            with files.open_file(self.path, pipes=True) as file:
                return files.read_stream(file, self.path)
        except KosmosError as error:
            return Unusable(error)


def _fetch(url: str) -> bytes:
    """The image, with --allow-urls."""
    from kosmos_edge.cli.common import URLS
    from kosmos_edge.urls import fetch, shorten

    ctx = click.get_current_context(silent=True)
    if ctx is None or not ctx.find_root().meta.get(URLS):
        raise InvalidRequest(f"{shorten(url)}: URLs are not fetched without --allow-urls")
    return fetch(url)


def _irregular(path: str) -> str | None:
    """What an irregular file is; None for a regular one, and if it cannot be determined: opening it then says why."""
    from kosmos_edge import files

    try:
        return files.irregular(os.stat(path).st_mode)
    except (OSError, ValueError):
        return None


def expand_inputs(
    arguments: Iterable[str], recursive: bool, more: frozenset[str] = frozenset()
) -> tuple[list[Input], bool]:
    """The images in order, and whether the arguments could name several (which decides the output's form).

    A folder gives its images sorted by name; a glob its matches (the shell of Windows does not expand globs);
    @list.txt one path per line; - the bytes of stdin. Links to folders are not followed, so there are no loops. An
    argument that names nothing is a failed input; UsageError if it is the only argument. more: suffixes of other files
    that are taken from folders.
    """
    given = list(arguments)
    several = len(given) != 1
    inputs: list[Input] = []
    for argument in given:
        if argument == "-":
            if any(known.path is None for known in inputs):
                raise click.UsageError("stdin (-) can be read only once")
            inputs.append(Input("-", None))
            continue
        found = _expand(argument, recursive, more)
        if found is None:
            inputs.append(Input(argument, argument))
            continue
        several = True
        if isinstance(found, str):
            if len(given) == 1:
                raise click.UsageError(f"{argument}: {found}")
            found = [_failed(argument, ImageDecodeError(f"{argument}: {found}"))]
        inputs += found
    if not inputs:
        raise click.UsageError("no images were named")
    return inputs, several


def _failed(name: str, error: KosmosError) -> Input:
    return Input(name, name, error=error)


def _refused(path: str, error: OSError) -> Input:
    """A folder or file that the operating system refuses to read."""
    return _failed(path, KosmosIOError(error.errno or errno.EIO, error.strerror or str(error), path))


def _expand(argument: str, recursive: bool, more: frozenset[str]) -> list[Input] | str | None:
    """The images of a list, folder or glob, or why there are none; None if the argument is the image itself."""
    from kosmos_edge import files

    if argument.startswith("@") and len(argument) > 1:
        return _read_list(argument[1:])
    if os.path.isdir(argument):
        hint = "" if recursive else "; -r searches its subfolders"
        kinds = " or ".join(["images", *sorted(more)])
        return list(_pictures_in(argument, recursive, more)) or f"no {kinds} in this folder{hint}"
    if not glob.has_magic(argument) or os.path.lexists(argument) or files.url_problem(argument):
        return None
    return list(_matches(argument)) or "matches no file"


def _read_list(path: str) -> list[Input] | str:
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = [line.rstrip("\r\n") for line in file]
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:  # a NUL in the name
        return str(error)
    return [Input(line, line, found=True) for line in lines if line.strip()] or "the list is empty"


# ---- folders


def _scan(folder: str) -> list[os.DirEntry[str]]:
    """Sorted by name; raises OSError."""
    with os.scandir(folder or os.curdir) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """A folder itself, not a link to one."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _pictures_in(folder: str, recursive: bool, more: frozenset[str]) -> Iterator[Input]:
    from kosmos_edge.images import picture_suffixes

    suffixes = picture_suffixes() | more
    waiting = [folder]
    while waiting:
        root = waiting.pop()
        try:
            entries = _scan(root)
        except OSError as error:
            yield _refused(root, error)
            continue
        folders = []
        for entry in entries:
            path = os.path.join(root, entry.name)
            if _is_folder(entry):
                folders.append(path)
            elif entry.name.startswith(".") or os.path.splitext(entry.name)[1].lower() not in suffixes:
                continue
            elif not os.path.isdir(path):  # a link to a folder
                yield Input(path, path, found=True)
        if recursive:
            waiting += reversed(folders)


# ---- globs


def _matches(pattern: str) -> Iterator[Input]:
    """As glob.glob, sorted, but ** follows no links, and an unreadable folder is a failed input."""
    drive, rest = os.path.splitdrive(pattern)
    parts = re.split(r"[/\\]+" if os.sep == "\\" else "/+", rest)
    root = drive
    if parts[0] == "" and len(parts) > 1:
        root, parts = drive + os.sep, parts[1:]
    found = sorted(_matching(root, parts), key=lambda item: item.name)
    for index, item in enumerate(found):
        if (not index or found[index - 1].name != item.name) and (
            item.error is not None or not os.path.isdir(item.name)
        ):
            yield item


def _matching(folder: str, parts: list[str]) -> Iterator[Input]:
    part, rest = parts[0], parts[1:]
    if not glob.has_magic(part):
        path = os.path.join(folder, part)
        if rest:
            yield from _matching(path, rest)
            return
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            yield _refused(path, error)
            return
        yield Input(path, path, found=True)
        return
    try:
        entries = _scan(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        yield _refused(folder, error)
        return
    hidden = part.startswith(".")
    visible = [entry for entry in entries if hidden or not entry.name.startswith(".")]
    if part == "**":
        yield from _matching(folder, rest or ["*"])
        for entry in visible:
            if _is_folder(entry):
                yield from _matching(os.path.join(folder, entry.name), parts)
        return
    names = set(fnmatch.filter([entry.name for entry in visible], part))
    for entry in visible:
        if entry.name in names:
            path = os.path.join(folder, entry.name)
            if not rest:
                yield Input(path, path, found=True)
            elif os.path.isdir(path):
                yield from _matching(path, rest)
