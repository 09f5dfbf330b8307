"""Do the tests fail when they should? Plants one defect after another into a copy and runs the tests named with it.

    python tests/planted/run.py FOLDER [WORD ...]

FOLDER keeps the copy and its build. WORDs: only defects whose name or file has one of them. Prints a line per defect,
"caught" or "MISSED", then how many; exits with 1 unless all but one are caught. Needs cmake, ninja, nanobind and the
package's test extra; compiles one instruction set (KOSMOS_EDGE_PLANTED_CMAKE: other arguments for cmake). A defect that
does not compile is an error of the list. Before the defects, all tests named are run once: they must pass.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from defects import DEFECTS, Defect

ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = ["CMakeLists.txt", "cmake", "convert", "csrc", "examples", "include", "kosmos_edge", "pyproject.toml", "tests"]


class Copy:
    """A copy of the sources with its build and the package made from both."""

    def __init__(self, folder: Path) -> None:
        self.source, self.build, self.site = folder / ROOT.name, folder / f"build-{ROOT.name}", folder / "site"
        for name in COPIED:
            target = self.source / name
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns(
                    "*.so", "__pycache__", "lib", "convert" if name == "kosmos_edge" else ""
                )
                _sync(ROOT / name, target, ignored)
            else:
                self.source.mkdir(parents=True, exist_ok=True)
                _write(target, (ROOT / name).read_bytes())
        if not (self.build / "build.ninja").exists():
            nanobind = subprocess.run(
                [sys.executable, "-m", "nanobind", "--cmake_dir"], capture_output=True, text=True, check=True
            ).stdout.strip()
            quick = "-DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS=-O1 -DKOSMOS_EDGE_ISAS=avx2"
            command = ["cmake", "-G", "Ninja", "-S", self.source, "-B", self.build, f"-Dnanobind_DIR={nanobind}",
                       f"-DPython_EXECUTABLE={sys.executable}",
                       *os.environ.get("KOSMOS_EDGE_PLANTED_CMAKE", quick).split()]  # fmt: skip
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def make(self) -> str:
        """Compiles and puts the package together; -> what the compiler said, "" when all went well."""
        done = subprocess.run(["cmake", "--build", self.build], capture_output=True, text=True)
        if done.returncode != 0:
            return done.stdout[-2000:]
        package = self.site / "kosmos_edge"
        _sync(self.source / "kosmos_edge", package, shutil.ignore_patterns("__pycache__"))
        _sync(self.source / "convert", package / "convert", shutil.ignore_patterns("__pycache__"))
        for module in self.build.glob("_core*.so"):
            _write(package / module.name, module.read_bytes())
        return ""

    def test(self, tests: str) -> tuple[bool, str]:
        """Runs test files; -> whether they pass, and the line that says what failed."""
        files = [file for name in tests.split() for file in (self.source / "tests").glob(f"*/{name}")]
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", *files]
        environment = os.environ | {
            "PYTHONPATH": str(self.site),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONSAFEPATH": "1",  # the sources have a folder of the same name
            "KOSMOS_EDGE_LIBRARY": str(self.build / "libkosmos_edge.so"),
        }
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, cwd=self.source, timeout=900, errors="replace"
            )
        except subprocess.TimeoutExpired:
            return False, "a test did not end"
        failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return done.returncode == 0, failed[0] if failed else f"exit status {done.returncode}"


def _write(path: Path, data: bytes) -> None:
    """Leaves a file alone that has these bytes: its time decides what is compiled."""
    if not path.exists() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _sync(source: Path, target: Path, ignore: object) -> None:
    shutil.copytree(source, target, ignore=ignore, dirs_exist_ok=True, copy_function=_copy)  # type: ignore[arg-type]


def _copy(source: str, target: str) -> None:
    _write(Path(target), Path(source).read_bytes())


def plant(copy: Copy, defect: Defect) -> bool:
    """-> whether a test fails."""
    path = copy.source / defect.file
    text = path.read_text(encoding="utf-8")
    if text.count(defect.old) != 1:
        raise SystemExit(f"{defect.file}: expected {defect.old!r} once, found it {text.count(defect.old)} times")
    path.write_text(text.replace(defect.old, defect.new), encoding="utf-8")
    start = time.monotonic()
    try:
        if said := copy.make():
            raise SystemExit(f"{defect.name}: does not compile\n{said}")
        passed, why = copy.test(defect.tests)
    finally:
        path.write_text(text, encoding="utf-8")
    print(
        f"{'MISSED' if passed else 'caught'}  {defect.name} ({defect.file}, {time.monotonic() - start:.0f} s)",
        flush=True,
    )
    if not passed:
        print(f"        {why[:160]}", flush=True)
    return not passed


def main(arguments: list[str]) -> int:
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    words = arguments[1:]
    chosen = [d for d in DEFECTS if not words or any(word in d.name or word in d.file for word in words)]
    copy = Copy(Path(arguments[0]).resolve())
    if said := copy.make():
        raise SystemExit(said)
    passed, why = copy.test(" ".join(sorted({name for d in chosen for name in d.tests.split()})))
    if not passed:
        raise SystemExit(f"the tests fail without a defect: {why}")
    caught = sum([plant(copy, defect) for defect in chosen])
    copy.make()
    print(f"{caught} of {len(chosen)} defects were caught")
    return 0 if caught >= len(chosen) - 1 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
