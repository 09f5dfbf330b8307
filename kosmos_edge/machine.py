"""The machine that this process runs on."""

import ctypes
import os
import platform
import sys

_M_ARENA_MAX = -8  # of glibc's malloc.h


def keep_one_heap() -> bool:
    """Lets glibc's malloc keep one heap for all threads; whether it does. For a program of our own, at its start.

    Otherwise each thread gets a heap of its own, in which free memory piles up over a long run, in steps. The variable
    MALLOC_ARENA_MAX goes first; other systems have no such setting.
    """
    if sys.platform != "linux" or "MALLOC_ARENA_MAX" in os.environ:
        return False
    try:
        ctypes.CDLL(None).gnu_get_libc_version  # noqa: B018  # another libc has no such function
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1))
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
