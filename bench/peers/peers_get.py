"""Getting the peers: Python packages into an environment, engines from their source packages with CMake and Ninja.

Everything lands in the work folder and is kept. What cannot be had is an Unavailable with the reason.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGES = ("torch", "transformers", "onnxruntime", "onnx", "numpy")
VERSIONS = {"llama-cpp-python": "0.3.36", "ik-llama-cpp-python": "0.1.5"}  # the ones whose build is known here
AVX2_ONLY = ("-DGGML_NATIVE=OFF", "-DGGML_AVX2=ON", "-DGGML_FMA=ON", "-DGGML_F16C=ON")


class Unavailable(Exception):
    """A peer that cannot be had, with the reason."""


def run(command: Sequence[str | Path], log: Path, **settings: object) -> None:
    """Run a step; its output goes to the end of a file. Raises Unavailable with the last lines."""
    print("+", " ".join(map(str, command)), file=sys.stderr, flush=True)
    with log.open("ab") as out:
        try:
            code = subprocess.run(list(map(str, command)), stdout=out, stderr=out, **settings).returncode
        except OSError as error:
            raise Unavailable(f"{command[0]}: {error.strerror}") from None
    if code:
        lines = log.read_text(errors="replace").splitlines()
        wrong = [line for line in lines[-60:] if "error" in line.lower()] or lines[-1:]
        raise Unavailable(f"{Path(command[0]).name} ended with status {code}: {' '.join(wrong[-1:])[:200]}; see {log}")


def has_modules(python: Path | str, modules: Sequence[str]) -> bool:
    """Whether an interpreter finds the modules."""
    code = "import importlib.util, sys; sys.exit(any(not importlib.util.find_spec(m) for m in sys.argv[1:]))"
    return subprocess.run([python, "-c", code, *modules], env=clean_environment()).returncode == 0


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without PYTHONPATH, which is meant for this interpreter only."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | more


def find_python(work: Path, given: str | None) -> Path:
    """An interpreter with torch, transformers and onnxruntime: the given one, this one, or one made in the folder."""
    for python in filter(None, (given, sys.executable)):
        if has_modules(python, PACKAGES):
            return Path(python)
    if given:
        raise Unavailable(f"{given} lacks one of {', '.join(PACKAGES)}")
    folder = work / "venv"
    python = folder / "bin" / "python"
    if not (python.exists() and has_modules(python, PACKAGES)):
        run([sys.executable, "-m", "venv", folder], work / "pip.log")
        run([python, "-m", "pip", "install", *PACKAGES], work / "pip.log", env=clean_environment())
    return python


def source(work: Path, package: str, engine: str) -> Path:
    """The engine's source in the unpacked source package."""
    version = VERSIONS[package]
    folder = work / f"{package.replace('-', '_')}-{version}"
    if not (folder / "vendor" / engine).exists():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", package]
        run([*command, f"{package}=={version}", "-d", work], work / "pip.log")
        archive = work / f"{folder.name}.tar.gz"
        with tarfile.open(archive) as tar:
            tar.extractall(work, filter="data")
    return folder / "vendor" / engine


def find_tool(work: Path, name: str) -> Path:
    """cmake or ninja: the one on the PATH, else the Python package of that name in an environment of its own."""
    found = shutil.which(name)
    if found:
        return Path(found)
    folder = work / "tools"
    tool = folder / "bin" / name
    if not tool.exists():
        run([sys.executable, "-m", "venv", folder], work / "pip.log")
        run([folder / "bin" / "python", "-m", "pip", "install", name], work / "pip.log", env=clean_environment())
    return tool


def build(work: Path, source_folder: Path, name: str, targets: Sequence[str], options: Sequence[str]) -> Path:
    """Configure and compile -> the folder of binaries. Takes 10 to 60 minutes on 2 cores the first time."""
    folder, log = work / name, work / f"{name}.log"
    binaries = folder / "bin"
    done = folder / "complete"
    if done.exists() and done.read_text() == " ".join([*targets, *options]):
        return binaries
    cmake, ninja = find_tool(work, "cmake"), find_tool(work, "ninja")
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", "-DCMAKE_BUILD_TYPE=Release"]
    run([cmake, *generator, "-S", source_folder, "-B", folder, *options], log)
    run([ninja, "-C", folder, *targets], log)
    done.write_text(" ".join([*targets, *options]))
    return binaries


def amend(path: Path, before: str, insert: str) -> None:
    """Insert a line into a source file, once."""
    text = path.read_text()
    if insert not in text:
        path.write_text(text.replace(before, insert + before, 1))


# GCC 12 takes the writes of the tiles' sizes for unused, so that AMX products end with an illegal instruction.
AMX_FIX = ("    _tile_loadconfig(&tc);\n", '    asm volatile("" : : "r"(&tc) : "memory");\n')


def build_llama(work: Path, avx2: bool) -> Path:
    """llama.cpp's llama-bench, and our timing program for its vision tower."""
    folder = source(work, "llama-cpp-python", "llama.cpp")
    amend(folder / "ggml" / "src" / "ggml-cpu" / "amx" / "mmq.cpp", *AMX_FIX)
    options = ["-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_TESTS=OFF"]
    options += ["-DLLAMA_BUILD_EXAMPLES=OFF", *(AVX2_ONLY if avx2 else ["-DGGML_NATIVE=ON"])]
    name = "llama-avx2" if avx2 else "llama"
    binaries = build(work, folder, name, ["llama-bench", "mtmd"], options)
    compile_mtmd(folder, binaries, work / f"{name}.log")
    return binaries


def build_llama_cuda(work: Path, folder: Path) -> Path:
    """The same with the CUDA backend (needs nvcc and cuBLAS), from a source folder, and llama-batched-bench."""
    options = ["-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_TESTS=OFF"]
    options += ["-DLLAMA_BUILD_EXAMPLES=OFF", "-DGGML_NATIVE=ON", "-DGGML_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=native"]
    binaries = build(work, folder, "llama-cuda", ["llama-bench", "llama-batched-bench", "mtmd"], options)
    compile_mtmd(folder, binaries, work / "llama-cuda.log")
    return binaries


def compile_mtmd(folder: Path, binaries: Path, log: Path) -> None:
    """Our timing program for the vision tower, against the libraries that were built."""
    program, code = binaries / "mtmd_encode", HERE / "mtmd_encode.cpp"
    if not program.exists() or program.stat().st_mtime < code.stat().st_mtime:
        includes = [f"-I{folder / part}" for part in ("include", "ggml/include", "tools/mtmd")]
        libraries = [f"-L{binaries}", "-lmtmd", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{binaries}"]
        compiler = os.environ.get("CXX", "c++")
        run([compiler, "-O2", "-std=c++17", code, *includes, *libraries, "-o", program], log)


BUILD_INFO = """# The source package lacks this file: what the build writes about itself.
set(BUILD_NUMBER 0)
set(BUILD_COMMIT sdist)
set(BUILD_COMPILER unknown)
set(BUILD_TARGET unknown)
configure_file(common/build-info.cpp.in ${CMAKE_CURRENT_BINARY_DIR}/common/build-info.cpp @ONLY)
"""


# Its GPT-2 graph ends in an RMS norm whose epsilon nobody sets, and zero aborts.
IK_FIX = ("case LLM_ARCH_GPT2:\n            {\n", "                hparams.f_norm_rms_eps = 1e-5f;\n")


def build_ik(work: Path, avx2: bool) -> Path:
    """ik_llama.cpp's llama-bench."""
    folder = source(work, "ik-llama-cpp-python", "ik_llama.cpp")
    stub = folder / "common" / "cmake" / "build-info-gen-cpp.cmake"
    if not stub.exists():
        stub.parent.mkdir(exist_ok=True)
        stub.write_text(BUILD_INFO)
    parameters = folder / "src" / "llama-hparams.cpp"
    text = parameters.read_text()
    if "".join(IK_FIX) not in text:
        parameters.write_text(text.replace(IK_FIX[0], "".join(IK_FIX), 1))
    options = ["-DGGML_IQK_FA_ALL_QUANTS=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_TESTS=OFF"]
    options += AVX2_ONLY if avx2 else ["-DGGML_NATIVE=ON"]
    return build(work, folder, "ik-avx2" if avx2 else "ik", ["llama-bench"], options)
