"""Hot folders."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click import UsageError
from helpers.api_model import grounded_file, png
from test_sidecars import Done, cache  # noqa: F401  (fixture)

from kosmos_edge import InvalidRequest

pytest.importorskip("watchdog", reason="watchdog is not installed")
MODEL = ["--model", str(grounded_file()), "--threads", "1", "--max-tokens", "4", "--no-boxes"]


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("poll", [False, True])
def test_pictures_that_come(tmp_path: Path, poll: bool) -> None:
    from kosmos_edge.folders.watch import incoming

    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "sub").mkdir()
    stop, seen = threading.Event(), list[str]()

    def collect() -> None:
        for paths in incoming(str(tmp_path), recursive=True, settle=0.3, poll=poll, stop=stop):
            seen.extend(paths)

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        wait_for(lambda: len(seen) == 1)
        growing = tmp_path / "sub" / "b.png"
        with growing.open("wb") as file:  # for longer than a file needs to settle
            for byte in range(12):
                file.write(bytes([byte]))
                file.flush()
                time.sleep(0.1)
                assert str(growing) not in seen
        (tmp_path / "c.png.download").write_bytes(png())
        (tmp_path / ".hidden.png").write_bytes(png())
        (tmp_path / "c.png.download").rename(tmp_path / "c.png")
        wait_for(lambda: len(seen) == 3)
    finally:
        stop.set()
        thread.join()
    assert sorted(seen) == [str(tmp_path / "a.png"), str(tmp_path / "c.png"), str(growing)]


def test_the_command(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "a.png").write_bytes(png(1))
    (inbox / "b.png").write_bytes(png(2))
    (inbox / "b.txt").write_text("by hand")
    words = ["watch", str(inbox), "--sidecar", "txt", "--settle", "0.1", "--full-stop", *MODEL]
    once = Done(*words, "--once", model=[])
    assert [Path(row["path"]).name for row in once.rows] == ["a.png"] and (inbox / "b.txt").read_text() == "by hand"
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "kosmos_edge", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        wait_for(lambda: b"watching" in os.read(running.stderr.fileno(), 1000))  # type: ignore[union-attr]
        (inbox / "c.png").write_bytes(png(3))
        line = running.stdout.readline()  # type: ignore[union-attr]
        running.send_signal(signal.SIGTERM)
        out, _ = running.communicate()
    assert running.returncode == 128 + signal.SIGTERM and b"c.png" in line and out == b""
    assert (inbox / "c.txt").read_text().endswith(".\n")


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs --sidecar"):
        Done("watch", tmp_path, model=MODEL)
    with pytest.raises(InvalidRequest, match="expected a folder"):
        Done("watch", tmp_path / "none", "--sidecar", "txt", model=MODEL)
    with pytest.raises(InvalidRequest, match="expected a folder"):  # before a model is looked for
        Done("watch", tmp_path / "none", "--sidecar", "txt", model=["--model", str(tmp_path / "none.gguf")])
