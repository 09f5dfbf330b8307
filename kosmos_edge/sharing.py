"""One caller at a time for an object that threads may share: a picture that loads itself, a file with its position.

Two keys stand for a file: the object, and the file of the system behind it, which other objects may read too.
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
        self.lock, self.users = threading.RLock(), 0  # again from within: a reader of the caller's may open a picture


_locks: dict[Key, _Lock] = {}  # of the objects that are in use: their ids cannot be taken by others
_guard = threading.Lock()


def _forget_all() -> None:
    """In a forked child: the threads that hold the locks are not here."""
    global _guard
    _locks.clear()
    _guard = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def object_key(thing: object) -> Key:
    """Of the object itself."""
    return "object", id(thing), 0


def file_keys(files: Iterable[Any]) -> set[Key]:
    """Of file objects (None and closed ones are no matter) and of what they read from."""
    keys: set[Key] = set()
    for file in files:
        for part in (file, _attribute(file, "fh")):  # PIL.ContainerIO: a part of another file
            if part is None:
                continue
            keys.add(object_key(part))
            try:
                status = os.fstat(part.fileno())
                keys.add(("file", status.st_dev, status.st_ino))
            except Exception:  # no file of the system, or closed; a caller's class may raise what it likes
                continue
    return keys


def _attribute(thing: object, name: str) -> Any:
    try:
        return getattr(thing, name, None)
    except Exception:
        return None


def files_of(image: object) -> list[Any]:
    """What a PIL image that is not loaded yet, or has further frames, reads from."""
    return [file for name in ("fp", "_fp") if (file := _attribute(image, name)) is not None]


@contextmanager
def exclusive(keys: Iterable[Key]) -> Iterator[None]:
    """Nobody else has one of these meanwhile. Whoever needs an image and its files takes the image's key first."""
    with ExitStack() as stack:
        for key in sorted(keys):  # everybody in the same order
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
