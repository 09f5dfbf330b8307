"""Whether TSan sees every barrier of the CUDA kernels: deletes them one at a time and runs the emulated kernels.

    python tests/helpers/cuda_barriers.py FOLDER     # about 15 s of processor time for each of some 25; a line each

Run by hand, with kosmos-edge installed; docs/cuda.md has what came of it. A barrier whose deletion nothing finds is
one too many, or one whose need no test shows.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BARRIER = re.compile(r"^\s*(__syncthreads|__syncwarp)\(\);", re.MULTILINE)
# Header of kernels: the sources that have them, and tests that use them.
KERNELS = {
    "attention.cuh": (["attention.cu"], "test_attention and (17-65-3-64 or 3-33-1-136 or 9-1-160-True-True)"),
    "gemv_quantized.cuh": (["gemv_quantized.cu"], "test_products and (3-33-512-Q4_K or 2-17-2048-Q6_K)"),
    "gemm_quantized.cuh": (["gemm_quantized.cu"], "test_products and (37-90-512-Q4_K or 9-40-1024-Q6_K)"),
    "rows.cuh": (
        ["rows.cu", "gemv_quantized.cu", "gemm_quantized.cu", "attention.cu", "gemm_float.cu"],
        "row_operations and (64 or 1029) or test_products and (3-33-512-Q4_K or 9-40-1024-Q4_K)",
    ),
    "sample.cuh": (["sample.cu"], "test_a_draw or test_the_best and 5000 or test_any_rule and 1029"),
}
FILES = ("test_cuda_emulated.py", "test_cuda_choice.py")


def library_of(gcc_name: str) -> str:
    """Path of a runtime library of the compiler."""
    asked = [os.environ.get("CXX", "g++"), f"-print-file-name={gcc_name}"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def verdict(library: Path, tests: str) -> str:
    """What the tests find in a library: nothing, a race, a wrong value, or the scheduler threads that never meet."""
    environment = os.environ | {
        "KOSMOS_EDGE_CUDA_EMULATED": str(library),
        "TSAN_OPTIONS": "exitcode=66",
        "LD_PRELOAD": f"{library_of('libtsan.so')} {library_of('libstdc++.so.6')}",
        "PYTHONSAFEPATH": "1",
    }
    command = ["setarch", "-R", sys.executable, "-m", "pytest", "-x", "-q", "--capture=sys"]
    command += ["-p", "no:cacheprovider", *(str(ROOT / "tests" / f) for f in FILES), "-k", tests]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    said = done.stdout + done.stderr
    if done.returncode == 66 or "data race" in said:
        return "a race"
    if "divergent threads" in said:
        return "the scheduler"
    if done.returncode == 1:
        return "a wrong value"
    if done.returncode != 0 or " passed" not in said:
        sys.exit(f"the tests did not run: status {done.returncode}\n{said[-2000:]}")
    return "nothing"


def main() -> int:
    """Prints a line per barrier; status 1 if the whole kernels are found fault with or a deletion is not found."""
    folder = Path(sys.argv[1]).resolve()
    tree, built = folder / "tree", folder / "built"
    for part in ("csrc", "tests"):
        shutil.copytree(ROOT / part, tree / part, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    sys.path.insert(0, str(tree / "tests"))
    from helpers import cuda_emulated

    flags = ["-g1", "-fsanitize=thread"]
    library = cuda_emulated.build_library(built, flags)
    right = True
    for tests in (tests for _, tests in KERNELS.values()):
        found = verdict(library, tests)
        right = right and found == "nothing"
        print(f"nothing deleted, {tests}: {found} found", flush=True)
    for header, (sources, tests) in KERNELS.items():
        path = cuda_emulated.CSRC / "cuda" / header
        whole = path.read_text()
        for barrier in BARRIER.finditer(whole):
            path.write_text(whole[: barrier.start()] + "\n" * barrier.group().count("\n") + whole[barrier.end() :])
            cuda_emulated.build_objects(built, [cuda_emulated.CSRC / "cuda" / s for s in sources], flags)
            objects = [str(o) for o in built.glob("*.o")]
            subprocess.run([os.environ.get("CXX", "g++"), "-shared", *flags, *objects, "-o", str(library)], check=True)
            found = verdict(library, tests)
            right = right and found != "nothing"
            line = whole.count("\n", 0, barrier.start(1)) + 1
            print(f"{header}:{line} {barrier.group(1)} deleted: {found} found", flush=True)
        path.write_text(whole)
        cuda_emulated.build_objects(built, [cuda_emulated.CSRC / "cuda" / s for s in sources], flags)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
