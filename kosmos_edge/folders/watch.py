"""A hot folder: the pictures that come into it, with watchdog: pip install 'kosmos-edge[watch]'."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Generator, Iterator

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import picture_suffixes

_LOOK_SECONDS = 0.1  # between two looks at files that are still being written


def is_picture(path: str) -> bool:
    """Whether the name is that of a picture: not hidden, with a suffix of a format that can be read."""
    name = os.path.basename(path)
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in picture_suffixes()


def check_folder(folder: str) -> None:
    """InvalidRequest if there is no folder of that name."""
    if not os.path.isdir(folder):
        raise InvalidRequest(f"{folder}: expected a folder to watch")


def incoming(
    folder: str,
    *,
    recursive: bool = False,
    settle: float = 1.0,
    poll: bool = False,
    stop: threading.Event | None = None,
) -> Generator[list[str], None, None]:
    """The pictures in the folder, then those that come, are renamed or changed, as lists of at least one path.

    A file counts when its size and time have not changed for `settle` seconds: it is whole then, as far as can be seen.
    poll: for folders whose system reports no changes (network drives). Ends when `stop` is set. Raises InvalidRequest
    without watchdog, or if the folder is none.
    """
    try:
        from watchdog.events import FileSystemEvent, FileSystemEventHandler
        from watchdog.observers import Observer
        from watchdog.observers.polling import PollingObserver
    except ImportError:
        raise InvalidRequest("watching a folder needs watchdog: pip install 'kosmos-edge[watch]'") from None
    check_folder(folder)
    found: queue.SimpleQueue[str] = queue.SimpleQueue()

    class Handler(FileSystemEventHandler):  # type: ignore[misc]
        def on_any_event(self, event: FileSystemEvent) -> None:
            if event.is_directory or event.event_type in ("deleted", "opened", "closed_no_write"):
                return
            path = os.fsdecode(event.dest_path if event.event_type == "moved" else event.src_path)
            if is_picture(path):
                found.put(path)

    observer = PollingObserver() if poll else Observer()
    observer.schedule(Handler(), folder, recursive=recursive)
    observer.start()
    try:
        for path in _there(folder, recursive):
            found.put(path)
        yield from _settled(found, settle, stop or threading.Event())
    finally:
        observer.stop()
        observer.join()


def _there(folder: str, recursive: bool) -> Iterator[str]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        yield from (os.path.join(root, name) for name in sorted(names) if is_picture(name))
        if not recursive:
            return


def _settled(found: queue.SimpleQueue[str], settle: float, stop: threading.Event) -> Iterator[list[str]]:
    waiting: dict[str, tuple[object, float]] = {}  # path -> (size and time, since when)
    given: dict[str, object] = {}  # path -> size and time; a late event about what was given changes nothing
    while not stop.is_set():
        try:
            waiting.setdefault(found.get(timeout=_LOOK_SECONDS), (None, 0.0))
            continue
        except queue.Empty:
            pass
        now, ready = time.monotonic(), []
        for path, (before, since) in list(waiting.items()):
            try:
                info = os.stat(path)
            except OSError:  # removed or renamed meanwhile
                del waiting[path]
                continue
            state = info.st_size, info.st_mtime_ns
            if state != before:
                waiting[path] = state, now
            elif now - since >= settle:
                if given.get(path) != state:
                    ready.append(path)
                given[path] = state
                del waiting[path]
        if ready:
            yield ready
