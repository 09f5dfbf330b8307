"""One verdict everywhere: mutants of model files go through the C++ library, Python in both modes of loading, and the
command line; what they say must agree.

agree.py DRIVER SEED FIRST COUNT [every Nth through the command line, default 50]
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from kosmos_edge import _core
from kosmos_edge.errors import KosmosError

PICTURE = Path(__file__).resolve().parent.parent.parent / "examples"
# Errors of a caption with a model that was accepted: weights that give no finite scores, a context of a few positions.
OF_THE_CAPTION = ("not a finite number", "the prompt has ")
CODES = {"1": "ModelNotFound", "2": "ModelCorrupt", "5": "OutOfMemory"}  # csrc/base/error.h


def by_python(path: Path, mode: str) -> str:
    """ "accepted", or the error as the driver writes it."""
    try:
        _core.Engine(str(path), threads=1, mode=mode)
        return "accepted"
    except KosmosError as error:
        return f"{type(error).__name__}: {error}".replace(str(path), "FILE")


def by_command(path: Path) -> str:
    """The same by the command line: its exit code and the error that it prints."""
    picture = sorted(PICTURE.glob("*.png"))[0]
    words = [
        sys.executable,
        "-m",
        "kosmos_edge",
        "caption",
        str(picture),
        "-m",
        str(path),
        "--offline",
        "--max-tokens",
        "1",
    ]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}  # the installed package, not the checkout's folder of its name
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", env=environment, check=False)
    return "accepted" if done.returncode == 0 else done.stderr.replace(str(path), "FILE")


def main(driver: str, seed: str, first: str, count: str, nth: str = "50") -> int:
    differ = accepted = commanded = 0
    with tempfile.TemporaryDirectory(prefix="kosmos-edge-agree-") as folder:
        environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
        subprocess.run([driver, "gguf", seed, first, count, folder], check=True, stdout=sys.stderr, env=environment)
        for line in Path(folder, "verdicts.txt").read_text(errors="replace").splitlines():
            number, tab, said = line.partition("\t")
            if not tab or not number.isdigit():
                continue  # the rest of a message of several lines
            path = Path(folder, f"{number}.bin")
            code, colon, text = said.partition(": ")
            native = f"{CODES.get(code, code)}: {text}" if colon else said
            file = text.split(": ")[0]
            native = native.replace(file, "FILE") if file.startswith("/proc/self/fd/") else native
            told = {mode: by_python(path, mode) for mode in ("mmap", "copy")}
            accepted += said == "accepted"
            if set(told.values()) != {native}:
                differ += 1
                print(f"case {number}: the library says {native!r}, Python {told}", file=sys.stderr)
            if int(number) % int(nth) == 0:
                commanded += 1
                shown = by_command(path)
                if said == "accepted":
                    agrees = shown == "accepted" or any(text in shown for text in OF_THE_CAPTION)
                else:
                    agrees = native.partition(": ")[2][:60] in shown
                if not agrees:
                    differ += 1
                    print(f"case {number}: the library says {native!r}, the command line {shown!r}", file=sys.stderr)
            path.unlink()
    print(f"{count} mutants ({accepted} accepted), {commanded} through the command line: {differ} disagreements")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
