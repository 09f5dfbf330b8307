"""Builds the CUDA backend to run on the processor (csrc/cuda/emulate), for tests: a C++ compiler is all it needs."""

import ctypes
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
# What the scheduler does with its own memory is no access of the program under emulation (csrc/emulate/group.cpp).
SCHEDULER = sorted(CSRC.glob("emulate/*.cpp"))
SOURCES = [
    *sorted(CSRC.glob("cuda/*.cpp")),
    *sorted(CSRC.glob("cuda/*.cu")),
    *sorted(CSRC.glob("cuda/emulate/*.cpp")),
    *sorted(CSRC.glob("quant/*.cpp")),
    CSRC / "backend" / "fused.cpp",
    *SCHEDULER,
]
FLAGS = [
    "-std=c++20", "-O1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-DKE_CUDA_EMULATED", "-Wall", "-Wextra",
    "-Werror", "-Wno-unknown-pragmas", f"-I{CSRC}",
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
    library = folder / "libkosmos_edge_cuda_emulated.so"
    objects = build_objects(folder, SOURCES, flags)
    subprocess.run([os.environ.get("CXX", "g++"), "-shared", *flags, *objects, "-o", str(library)], check=True)
    return library


class EmulatedDevice:
    """What tests do to the emulated device."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.kosmos_edge_emulated_seed.argtypes = [ctypes.c_uint64]
        self._library.kosmos_edge_emulated_bytes.restype = ctypes.c_size_t
        self._library.kosmos_edge_emulated_allocations.restype = ctypes.c_long
        self._library.kosmos_edge_emulated_launches.restype = ctypes.c_long
        self._library.kosmos_edge_emulated_graphs.restype = ctypes.c_long
        self._library.kosmos_edge_emulated_fail_allocation.argtypes = [ctypes.c_long]

    def fail_allocation(self, n: int) -> None:
        """Device allocation n from now on fails (0: the next); -1: none does."""
        self._library.kosmos_edge_emulated_fail_allocation(n)

    def allocations(self) -> int:
        """Since the last fail_allocation()."""
        return self._library.kosmos_edge_emulated_allocations()

    def devices(self, count: int, error: int = 0) -> None:
        """How many devices there are; with an error code of CUDA none, for that reason."""
        self._library.kosmos_edge_emulated_devices(count, error)

    def lose(self, lost: bool) -> None:
        """As after an illegal access or a reset: every call fails."""
        self._library.kosmos_edge_emulated_lose(int(lost))

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
