"""Where the tokenizer's files of a checkpoint are. A model says which it wants and how they are read."""

import os
from pathlib import Path

from kosmos_edge.errors import ModelNotFound

from .files import Folder, SourceFile


class TokenizerFiles:
    """Opens files beside the weights, or those that the caller named instead."""

    def __init__(self, folder: Folder, given: Path | None, opened: list[SourceFile]) -> None:
        """given: a file or a folder that takes the place of `folder`. opened: gets every file that is opened."""
        self._file = None if given is None or os.path.isdir(given) else given
        self._folder = folder if given is None else Folder(given if self._file is None else given.parent)
        self._opened = opened

    @property
    def folder(self) -> Path:
        """Where they are, for messages."""
        return self._folder.path

    def first(self, *names: str) -> SourceFile:
        """The first of these files that is there; where the caller named a file, that one, whatever its name."""
        if self._file is not None:
            return self._add(SourceFile(self._file))
        for name in names:
            if self._folder.has(name):
                return self._add(self._folder.open(name))
        raise ModelNotFound(f"no {' and no '.join(names)} in {self._folder.path}")

    def find(self, *names: str) -> str | None:
        """The name of the file that `first` would open."""
        if self._file is not None:
            return self._file.name
        return next((name for name in names if self._folder.has(name)), None)

    def optional(self, name: str) -> SourceFile | None:
        """The file of that name in the same folder, if it is there."""
        return self._add(self._folder.open(name)) if self._folder.has(name) else None

    def _add(self, file: SourceFile) -> SourceFile:
        self._opened.append(file)
        return file
