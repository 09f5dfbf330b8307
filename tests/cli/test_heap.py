"""Commands that run for long keep one heap for all threads, so that their memory stays flat."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from kosmos_edge import cli
from kosmos_edge.cli import batch, serve, watch

COUNT = """
import ctypes, os, sys, threading
if sys.argv[1] == "one":
    from kosmos_edge.machine import keep_one_heap
    assert keep_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.fdopen.restype = ctypes.c_void_p, ctypes.c_void_p
libc.fdopen.argtypes, libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_char_p], [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]
all_here = threading.Barrier(4)
def work():
    all_here.wait()
    libc.malloc(1000)
    all_here.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
out = libc.fdopen(os.dup(1), b"w")
libc.malloc_info(0, out)
libc.fclose(out)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_one_heap_for_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)

    def heaps(how: str) -> int:
        done = subprocess.run([sys.executable, "-P", "-c", COUNT, how], capture_output=True, text=True, check=True)
        return done.stdout.count("<heap nr=")

    assert heaps("one") == 1 < heaps("usual")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (batch, ["batch", "{}", "--sidecar", "txt"]),
        (watch, ["watch", "{}", "--sidecar", "txt", "--once"]),
        (serve, ["serve"]),
    ],
    ids=["batch", "watch", "serve"],
)
def test_who_keeps_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: object, words: list[str]) -> None:
    if module is serve:
        pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
        pytest.importorskip("prometheus_client", reason="the extra `server` is not installed")

    class Reached(Exception):
        pass

    def reached() -> None:
        raise Reached

    monkeypatch.setattr(module, "keep_one_heap", reached)
    with pytest.raises(Reached):
        cli.run([word.format(tmp_path) for word in words])
