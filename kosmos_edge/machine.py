"""The machine that this process runs on."""

import ctypes
import os
import platform
import sys

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's malloc.h
_LARGE = 128 << 10  # bytes; glibc's own limit before it adapts it


def keep_one_heap() -> bool:
    """Lets glibc's malloc keep one heap for all threads; whether it does. For a program of our own, at its start.

    Otherwise each thread gets a heap of its own, in which free memory piles up over a long run, in steps. The variable
    MALLOC_ARENA_MAX goes first; other systems have no such setting.
    """
    return _set_malloc("MALLOC_ARENA_MAX", _M_ARENA_MAX, 1)


def keep_large_apart() -> bool:
    """Lets glibc's malloc give each block of 128 KiB or more back when it is freed; whether it does. For a server.

    Otherwise glibc raises that limit, up to 32 MiB, when such a block is freed. Bodies and images then share the heap
    with small blocks that stay, and its free pieces grow for as long as new sizes come. The variable
    MALLOC_MMAP_THRESHOLD_ goes first; other systems have no such setting.
    """
    return _set_malloc("MALLOC_MMAP_THRESHOLD_", _M_MMAP_THRESHOLD, _LARGE)


def _set_malloc(variable: str, parameter: int, value: int) -> bool:
    if sys.platform != "linux" or variable in os.environ:
        return False
    try:
        ctypes.CDLL(None).gnu_get_libc_version  # noqa: B018  # another libc has no such function
        return bool(ctypes.CDLL(None).mallopt(parameter, value))
    except (AttributeError, OSError):
        return False


def cpu_name() -> str:
    """The system's name for the CPU."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
