"""Builds the CUDA backend to run on the processor (tests/emulate), for tests: a C++ compiler is all it needs."""

import ctypes
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.shared import once

CARD = os.environ.get("KOSMOS_EDGE_CUDA_CARD")  # the library for real devices: the same tests on a card
LIBRARY = "libkosmos_edge_cuda_emulated.so"
ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
EMULATE = ROOT / "tests" / "emulate"
# What the scheduler does with its own memory is no access of the program under emulation (tests/emulate/group.cpp).
SCHEDULER = sorted(EMULATE.glob("*.cpp"))
RUNTIME = EMULATE / "cuda" / "runtime.cpp"
SOURCES = [
    *sorted(CSRC.glob("cuda/*.cpp")),
    *sorted(CSRC.glob("cuda/*.cu")),
    RUNTIME,
    *(path for path in sorted(CSRC.glob("quant/*.cpp")) if path.stem not in ("feedback", "triangular")),  # cuda.cmake
    *(CSRC / "backend" / name for name in ("fused.cpp", "sampling.cpp", "logits.cpp")),
    *SCHEDULER,
]
# tests/emulate comes before csrc: its cuda/runtime.h and cuda/device.cuh take the place of those for a card.
FLAGS = [
    "-std=c++20", "-O1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror",
    "-ftls-model=initial-exec",  # every thread of a kernel asks which one it is
    "-Wno-unknown-pragmas", f"-I{EMULATE}", f"-I{CSRC}", f"-I{EMULATE.parent}",
]  # fmt: skip


def fused() -> list[str]:
    """Flags for fused multiply-adds as instructions, where the processor has them; the library's give the same bits."""
    cpuinfo = Path("/proc/cpuinfo")
    return ["-mfma"] if cpuinfo.exists() and " fma " in cpuinfo.read_text() else []


def build_objects(folder: Path, sources: list[Path], flags: list[str]) -> list[str]:
    """Compile each source; those of the scheduler without TSan."""
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        pytest.skip(f"there is no C++ compiler {compiler}")
    folder.mkdir(parents=True, exist_ok=True)
    tsan = "-fsanitize=thread" in flags

    def compile_one(source: Path) -> str:
        own = [f for f in flags if not (source in SCHEDULER and f == "-fsanitize=thread")]
        target = folder / (source.relative_to(ROOT).as_posix().replace("/", "_") + ".o")
        language = ["-x", "c++"] if source.suffix == ".cu" else []
        if any(f.startswith("-fsanitize") for f in flags):
            own.append("-Wno-maybe-uninitialized")  # GCC takes instrumented code for uses
        if tsan:
            own.append("-DKE_EMULATE_TSAN")
        subprocess.run([compiler, *FLAGS, *fused(), *own, *language, "-c", str(source), "-o", str(target)], check=True)
        return str(target)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(compile_one, sources))


def build_library(folder: Path, flags: list[str] | None = None) -> Path:
    """The backend as a shared library."""
    flags = flags or []
    library = folder / LIBRARY
    objects = build_objects(folder, SOURCES, flags)
    # A card's library may lack no symbol either; a sanitizer's come with the program.
    whole = [] if any(f.startswith("-fsanitize") for f in flags) else ["-Wl,-z,defs"]
    linker = [os.environ.get("CXX", "g++"), "-shared", *flags, *whole]
    subprocess.run([*linker, *objects, "-o", str(library), "-lpthread", "-ldl"], check=True)
    return library


@functools.cache
def emulated_library() -> Path:
    """The backend, built once per test run; KOSMOS_EDGE_CUDA_EMULATED names one that is built already."""
    if built := os.environ.get("KOSMOS_EDGE_CUDA_EMULATED"):
        return Path(built)
    return once("cuda-emulated", build_library) / LIBRARY


class EmulatedDevice:
    """What tests do to the emulated device."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.kosmos_edge_emulated_seed.argtypes = [ctypes.c_uint64]
        self._library.kosmos_edge_emulated_bytes.restype = ctypes.c_size_t
        self._library.kosmos_edge_emulated_bytes_read.restype = ctypes.c_size_t
        self._library.kosmos_edge_emulated_allocations.restype = ctypes.c_long
        self._library.kosmos_edge_emulated_launches.restype = ctypes.c_long
        self._library.kosmos_edge_emulated_graphs.restype = ctypes.c_long
        self._library.kosmos_edge_emulated_handles.restype = ctypes.c_size_t
        self._library.kosmos_edge_emulated_calls.restype = ctypes.c_long
        self._library.kosmos_edge_emulated_fail_allocation.argtypes = [ctypes.c_long]
        self._library.kosmos_edge_emulated_fail_call.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_int]

    def fail_allocation(self, n: int) -> None:
        """Device allocation n from now on fails (0: the next); -1: none does."""
        self._library.kosmos_edge_emulated_fail_allocation(n)

    def allocations(self) -> int:
        """Since the last fail_allocation()."""
        return self._library.kosmos_edge_emulated_allocations()

    def devices(self, count: int, error: int = 0) -> None:
        """How many devices there are; with an error code of CUDA none, for that reason."""
        self._library.kosmos_edge_emulated_devices(count, error)

    def fail_call(self, n: int, error: int = 0, loses: bool = False) -> None:
        """Call n of the runtime from now on fails (0: the next), and every one after it if the device is lost with it;
        -1: none does. Calls that only give something back are not counted."""
        self._library.kosmos_edge_emulated_fail_call(n, error, int(loses))

    def calls(self) -> int:
        """Since the last fail_call()."""
        return self._library.kosmos_edge_emulated_calls()

    def driver(self, version: int) -> None:
        """The version of CUDA that the driver supports, as 13000; 0: there is no driver."""
        self._library.kosmos_edge_emulated_driver(version)

    def architecture(self, capability: int, no_kernel: int = 0) -> None:
        """Compute capability, as 90, and the error code with which kernels cannot be started."""
        self._library.kosmos_edge_emulated_architecture(capability, no_kernel)

    def lose(self, error: int) -> None:
        """As after an illegal access or a reset: every call fails with this code; 0: as before."""
        self._library.kosmos_edge_emulated_lose(error)

    def compute(self, compute: bool) -> None:
        """False: launches do nothing and what is read back is made up, for counting what a large model asks for."""
        self._library.kosmos_edge_emulated_compute(int(compute))

    def restore(self) -> None:
        """As it was in the beginning."""
        self.seed(0)
        self.compute(True)
        self.lose(0)
        self.devices(1)
        self.driver(13000)
        self.architecture(90)
        self.fail_call(-1)
        self.fail_allocation(-1)

    def handles(self) -> int:
        """Streams and graphs that nobody gave back."""
        return self._library.kosmos_edge_emulated_handles()

    def seed(self, seed: int) -> None:
        """Shuffle the blocks and threads of every launch to come; 0: in order."""
        self._library.kosmos_edge_emulated_seed(seed)

    def bytes(self, most: bool = False) -> int:
        """Of device memory in use, or the most there ever was."""
        return self._library.kosmos_edge_emulated_bytes(int(most))

    def launches(self) -> int:
        """Kernels run so far."""
        return self._library.kosmos_edge_emulated_launches()

    def graphs(self) -> int:
        """Graphs started so far."""
        return self._library.kosmos_edge_emulated_graphs()

    def bytes_read(self) -> int:
        """Copied to the host so far."""
        return self._library.kosmos_edge_emulated_bytes_read()


def use_cuda(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The library, as the CUDA backend of this process for as long as the test runs."""
    from kosmos_edge import _core  # here: building the library needs no package

    library = Path(CARD) if CARD else emulated_library()
    monkeypatch.setenv("KOSMOS_EDGE_CUDA_LIBRARY", str(library))
    if why := dict(_core.devices())["cuda"]:
        pytest.fail(why)
    return library


def lend_device(library: Path) -> Iterator[EmulatedDevice]:
    """The emulated device, to do things to; as it was afterwards."""
    if CARD:
        pytest.skip("this is done to the emulated device only")
    emulated = EmulatedDevice(library)
    emulated.restore()
    yield emulated
    emulated.restore()
