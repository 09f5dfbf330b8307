"""The comparison of two files: both orders of loading, and an error for a file that is none."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "kosmos_edge" / "data" / "nano-q4_k_m.gguf"


def run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "bench" / "two_files.py"), *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_runs_on_nano() -> None:
    done = run(str(NANO), str(NANO), "--threads", "1", "--pairs", "2", "--seconds", "0")
    assert done.returncode == 0, done.stderr
    first, second, middle = done.stdout.splitlines()
    assert first.startswith("1 threads, A first: A ") and second.startswith("1 threads, B first: A ")
    assert float(middle.removeprefix("1 threads, middle: B / A ")) > 0


def test_what_it_refuses(tmp_path: Path) -> None:
    assert "expected two files" in run(str(NANO)).stderr
    done = run(str(NANO), str(tmp_path / "none.gguf"), "--threads", "1", "--seconds", "0")
    assert done.returncode != 0 and "none.gguf" in done.stderr
