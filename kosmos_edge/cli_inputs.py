"""Arguments that name pictures -> the pictures: files, folders, globs, @lists and stdin."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Input:
    """One picture to answer about."""

    name: str  # as it is printed
    path: str | None  # None: the bytes of stdin

    def source(self) -> Any:
        """What open_image takes."""
        return self.path if self.path is not None else sys.stdin.buffer.read()


def expand_inputs(arguments: Iterable[str], recursive: bool) -> tuple[list[Input], bool]:
    """The pictures in order, and whether the arguments could have named several (which decides the output's form).

    A folder gives its pictures by name, sorted; a glob what it matches (the shell of Windows leaves that to us);
    @list.txt one path per line; - the bytes of stdin. UsageError where an argument names nothing.
    """
    given = list(arguments)
    several = len(given) != 1
    inputs: list[Input] = []
    for argument in given:
        if argument == "-":
            if any(known.path is None for known in inputs):
                raise click.UsageError("stdin (-) can be read only once")
            inputs.append(Input("-", None))
        elif argument.startswith("@") and len(argument) > 1:
            several = True
            inputs += [Input(line, line) for line in _read_list(argument[1:])]
        elif os.path.isdir(argument):
            several = True
            found = list(_pictures_in(argument, recursive))
            if not found:
                hint = "" if recursive else "; -r looks into its folders"
                raise click.UsageError(f"{argument}: no pictures in this folder{hint}")
            inputs += [Input(path, path) for path in found]
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            several = True
            found = sorted(path for path in glob.glob(argument, recursive=True) if not os.path.isdir(path))
            if not found:
                raise click.UsageError(f"{argument}: matches no file")
            inputs += [Input(path, path) for path in found]
        else:
            inputs.append(Input(argument, argument))
    if not inputs:
        raise click.UsageError("no pictures were named")
    return inputs, several


def _read_list(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = [line.rstrip("\r\n") for line in file]
    except OSError as error:
        raise click.UsageError(f"@{path}: {error.strerror or error}") from error
    paths = [line for line in lines if line.strip()]
    if not paths:
        raise click.UsageError(f"@{path}: the list is empty")
    return paths


def _pictures_in(folder: str, recursive: bool) -> Iterator[str]:
    suffixes = _suffixes()
    for root, folders, files in os.walk(folder):
        folders.sort()
        if not recursive:
            folders.clear()
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in suffixes and not name.startswith("."):
                yield os.path.join(root, name)


def _suffixes() -> set[str]:
    """Of the formats that are decoded; .heic also without its decoder, so that the error says what is missing."""
    from PIL import Image

    from kosmos_edge.images import allowed_formats

    formats = set(allowed_formats())
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in formats}
    return (known | {".heic", ".heif"}) - {".mpg", ".mpeg", ".im", ".h5"}
