"""One caller at a time for an object that threads may share: an image that loads lazily, a file with its position.

A file has two keys: the object, and the system's file, which other objects may read, too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

Key: TypeAlias = "tuple[str, int, int]"


class _Lock:
    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock, self.users = threading.RLock(), 0  # reentrant: the caller's read() may open an image


_locks: dict[Key, _Lock] = {}  # of objects in use, so their ids are not reused
_guard = threading.Lock()


def _forget_all() -> None:
    """In a forked child: the threads that held the locks do not exist."""
    global _guard
    _locks.clear()
    _guard = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def object_key(thing: object) -> Key:
    """The key of the object itself."""
    return "object", id(thing), 0


def file_keys(files: Iterable[Any]) -> set[Key]:
    """The keys of file objects (None and closed ones are ignored) and of the files that they read."""
    keys: set[Key] = set()
    for file in files:
        for part in (file, _attribute(file, "fh")):  # PIL.ContainerIO: a part of another file
            if part is None:
                continue
            keys.add(object_key(part))
            try:
                status = os.fstat(part.fileno())
                keys.add(("file", status.st_dev, status.st_ino))
            except Exception:  # not a system file, or closed; a caller's class may raise anything
                continue
    return keys


def _attribute(thing: object, name: str) -> Any:
    try:
        return getattr(thing, name, None)
    except Exception:
        return None


def files_of(image: object) -> list[Any]:
    """The files that a PIL image reads, if it is not loaded yet or has further frames."""
    return [file for name in ("fp", "_fp") if (file := _attribute(image, name)) is not None]


@contextmanager
def exclusive(keys: Iterable[Key]) -> Iterator[None]:
    """Holds the locks of these keys. To lock an image and its files, lock the image first."""
    with ExitStack() as stack:
        for key in sorted(keys):  # always in the same order
            stack.enter_context(_held(key))
        yield


@contextmanager
def _held(key: Key) -> Iterator[None]:
    with _guard:
        entry = _locks.setdefault(key, _Lock())
        entry.users += 1
    try:
        with entry.lock:
            yield
    finally:
        with _guard:
            entry.users -= 1
            if not entry.users and _locks.get(key) is entry:
                del _locks[key]
