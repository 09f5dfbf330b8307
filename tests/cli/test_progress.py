"""The line that says how far a run has come."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.api_model import grounded_file, png

from kosmos_edge.cli.progress import Progress, duration


def test_durations() -> None:
    assert [duration(s) for s in (0, 3.4, 59.6, 3599, 3723)] == ["0:00", "0:03", "1:00", "59:59", "1:02:03"]


def test_rate_and_time_left_are_of_what_was_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    line = Progress(100, shown=True, clock=lambda: now[0])
    for _ in range(40):
        line.advance(worked=False)  # known already: no rate
    assert line.text() == "40/100 images"
    for _ in range(10):
        now[0] += 0.5
        line.advance()
    assert line.text() == "50/100 images, 2.0/s, 0:25 left"
    line.clear()
    assert stderr.getvalue().endswith("\r\033[K") and "50/100 images, 2.0/s, 0:25 left" in stderr.getvalue()
    for _ in range(40):  # slower now: the rate is of the last half minute
        now[0] += 4.0
        line.advance()
    assert line.text() == "90/100 images, 4.0 s each, 0:40 left"
    unknown = Progress(None, shown=True, clock=lambda: now[0])
    now[0] += 1
    unknown.advance()
    assert unknown.text() == "1 images, 1.0/s"


def test_nothing_is_written_if_it_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    line = Progress(3, shown=False)
    line.advance()
    line.clear()
    assert stderr.getvalue() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_results_and_line_share_a_terminal(tmp_path: Path) -> None:
    """What stays on the screen is the results, whole."""
    for seed in range(4):
        (tmp_path / f"{seed}.png").write_bytes(png(seed))
    ours, theirs = os.openpty()
    words = ["batch", str(tmp_path), "-f", "text", "-m", str(grounded_file()), "-n", "3", "-t", "1", "--no-boxes"]
    done = subprocess.Popen([sys.executable, "-P", "-m", "kosmos_edge", *words], stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            block = os.read(ours, 4096)
        except OSError:
            break
        if not block:
            break
        shown += block
    os.close(ours)
    assert done.wait() == 0
    text = shown.decode().replace("\r\n", "\n")
    assert re.search(r"\r\x1b\[K1/4 images", text)
    kept = re.sub(r"\r\x1b\[K[^\n\r]*(?=\r\x1b\[K)", "", text).replace("\r\x1b[K", "")
    lines = [line for line in kept.splitlines() if line]
    assert [line.split(":")[0] for line in lines] == [str(tmp_path / f"{seed}.png") for seed in range(4)]
