"""Commands that run for long keep one heap for all threads, so that their memory stays flat."""

import json
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


MAPPED = """
import ctypes, sys
from kosmos_edge.machine import keep_large_apart
if sys.argv[1] == "apart":
    assert keep_large_apart()
class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.mallinfo2.restype = Info
libc.free(libc.malloc(16 << 20))  # after which glibc would keep blocks up to this size in its heap
before = libc.mallinfo2().hblks
block = libc.malloc(200 << 10)
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_large_blocks_stay_out_of_the_heap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)

    def mapped(how: str) -> int:
        done = subprocess.run([sys.executable, "-P", "-c", MAPPED, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert (mapped("apart"), mapped("usual")) == (1, 0)


def test_bodies_are_read_by_one_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    from kosmos_edge.server import fields

    def another(*args: object, **kwargs: object) -> None:
        raise AssertionError("a decoder for one body")

    monkeypatch.setattr(json, "JSONDecoder", another)
    assert fields.parse_json(b'{"a": [1, "\\u00e9"]}') == {"a": [1, "\u00e9"]}


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
