"""Time to load a model, and the memory of a process with it: measured in separate processes.

`python -m kosmos_edge.bench.loading FILE THREADS` loads a file, computes one token, and prints a line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def memory_now() -> dict[str, int]:
    """RssAnon, RssFile and VmHWM (the peak of both) of this process in bytes; empty without /proc."""
    found = {}
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if name in ("RssAnon", "RssFile", "VmHWM"):
                found[name] = int(value.split()[0]) * 1024
    except OSError:
        pass
    return found


def peak_resident() -> int:
    """The most memory this process has had, mapped files among it, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_fraction(path: str) -> float | None:
    """The part of a file that is in the page cache (mincore); None if it cannot be determined."""
    size = os.path.getsize(path)
    if not hasattr(os, "posix_fadvise") or size == 0:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    pages = -(-size // mmap.PAGESIZE)
    state = (ctypes.c_ubyte * pages)()
    with open(path, "rb") as file:
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    if address in (None, ctypes.c_void_p(-1).value):
        return None
    try:
        if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), state):
            return None
    finally:
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))
    return sum(page & 1 for page in state) / pages


def drop_from_cache(path: str) -> None:
    """Ask the system to forget a file's pages. It keeps those that some process has mapped."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def load_in_child(path: str, threads: int) -> dict[str, Any]:
    """{"load_ms", "first_token_ms", "peak_resident", "RssAnon"} of a fresh process."""
    command = [sys.executable, "-m", "kosmos_edge.bench.loading", path, str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def measure_cold(path: str, threads: int) -> dict[str, Any]:
    """Loading without any page of the file in memory: the file itself, or, if its pages are held, a fresh copy.

    "cached" says which part of the file was in memory all the same.
    """
    if not hasattr(os, "posix_fadvise"):
        return {"skipped": "this system cannot drop a file from its page cache"}
    drop_from_cache(path)
    cached = resident_fraction(path)
    if cached is not None and cached < 0.01:
        return load_in_child(path, threads) | {"how": "page cache of the file dropped", "cached": cached}
    size, room = os.path.getsize(path), shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free
    if room < 2 * size:
        return {"skipped": "another process holds the file in memory, and there is no room for a copy"}
    folder = os.path.dirname(os.path.abspath(path))
    if not os.access(folder, os.W_OK):
        folder = tempfile.gettempdir()
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".bench-", suffix=".gguf") as copy:
        with open(path, "rb") as file:
            shutil.copyfileobj(file, copy, 1 << 24)
        copy.flush()
        drop_from_cache(copy.name)
        cached = resident_fraction(copy.name)
        return load_in_child(copy.name, threads) | {
            "how": "a fresh copy, dropped from the page cache",
            "cached": cached,
        }


def main() -> None:
    """The child process."""
    from kosmos_edge._native import _core

    path, threads = sys.argv[1], int(sys.argv[2])
    start = time.perf_counter()
    engine = _core.Engine(path, threads=threads)
    loaded = time.perf_counter()
    params = _core.GenerateParams()
    params.max_tokens = 1
    engine.generate([("ids", [0])], params)
    end = time.perf_counter()
    found = {"load_ms": 1e3 * (loaded - start), "first_token_ms": 1e3 * (end - start)}
    print(json.dumps(found | {"peak_resident": peak_resident()} | memory_now()))


if __name__ == "__main__":
    main()
