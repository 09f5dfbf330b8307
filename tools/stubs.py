"""Writes kosmos_edge/_core.pyi, the types of the native module, from the module itself (nanobind's stubgen).

    python tools/stubs.py           # in an environment with kosmos-edge, nanobind and ruff: ./dev stubs
    python tools/stubs.py --check   # status 1 if the file is not what would be written

stubs.pat holds what stubgen cannot know.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from kosmos_edge import _core

ROOT = Path(__file__).resolve().parent.parent
STUB = ROOT / "kosmos_edge" / "_core.pyi"
PATTERNS = ROOT / "tools" / "stubs.pat"
SUBMODULE = re.compile(r"^from kosmos_edge\._core import (\w+) as \1\n", re.M)


def constants(name: str) -> str:
    """A submodule of numbers as a class: a stub in one file has no submodules."""
    module = getattr(_core, name)
    assert isinstance(module, ModuleType), name
    values = {k: v for k, v in vars(module).items() if not k.startswith("_")}
    assert values and all(type(v) in (int, float, str) for v in values.values()), f"{name} holds more than constants"
    return "\n".join([f"\nclass {name}:", *(f"    {k}: {type(v).__name__}" for k, v in values.items()), ""])


def ruff(text: str, *arguments: str) -> str:
    """The text after a command of ruff, with the project's settings."""
    command = [sys.executable, "-m", "ruff", *arguments, "--quiet", "--stdin-filename", str(STUB), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def generate() -> str:
    """The stub of the installed native module, in the project's format."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "_core.pyi"
        stubgen = [sys.executable, "-P", "-m", "nanobind.stubgen", "--quiet", "--exclude-docstrings"]
        subprocess.run([*stubgen, "-p", PATTERNS, "-m", "kosmos_edge._core", "-o", made], check=True, cwd=folder)
        text = made.read_text(encoding="utf-8")
    submodules = SUBMODULE.findall(text)
    text = SUBMODULE.sub("", text) + "".join(map(constants, submodules))
    return ruff(ruff(text, "check", "--select", "I", "--fix"), "format")


def main() -> int:
    """Writes or checks the file."""
    text = generate()
    if "--check" not in sys.argv[1:]:
        STUB.write_text(text, encoding="utf-8")
        return 0
    if text == STUB.read_text(encoding="utf-8"):
        return 0
    print(f"{STUB.relative_to(ROOT)} is not what the native module gives: run ./dev stubs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
