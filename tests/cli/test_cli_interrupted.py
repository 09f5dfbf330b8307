"""Runs that end early: signals, kills, a full disk. What is finished stays, and nothing half-written looks whole."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.api_model import png, tiny_file
from test_cli import Runner, photo, run  # noqa: F401  (fixtures)

from kosmos_edge import cli, targets

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits are otherwise there")
COUNT = 20_000  # far more pictures than are answered before the signal comes


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list that names one picture many times."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "a.png").write_bytes(png())
    (folder / "list.txt").write_text(f"{folder / 'a.png'}\n" * COUNT)
    return folder / "list.txt"


def command(listed: Path, target: Path, *more: str) -> list[str]:
    words = [sys.executable, "-P", "-m", "kosmos_edge", "batch", f"@{listed}", "-n", "3", "--no-boxes", "-t", "1", "-q"]
    return [*words, "-m", str(tiny_file()), "-o", str(target), *more]


def heeds_signals() -> None:
    """These tests may run under nohup, whose children ignore SIGHUP."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def end_it(words: list[str], part: Path, how: Callable[[subprocess.Popen[str]], None]) -> tuple[int, str]:
    """Starts the command, waits for some answers in the part, ends it; -> exit status, stderr."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, text=True, preexec_fn=heeds_signals, **pipes) as running:
        deadline = time.monotonic() + 60
        while not part.exists() or part.stat().st_size < 3000:
            assert running.poll() is None and time.monotonic() < deadline, running.communicate()
            time.sleep(0.01)
        how(running)
        out, err = running.communicate(timeout=60)
    assert out == ""
    return running.returncode, err


def whole_lines(part: Path) -> list[dict]:
    text = part.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def twice(number: int) -> Callable[[subprocess.Popen[str]], None]:
    def send(running: subprocess.Popen[str]) -> None:
        for _ in range(2):  # as `timeout` does: the second one must not disturb the cleaning up
            running.send_signal(number)
            time.sleep(0.002)

    return send


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_leaves_every_finished_line(listed: Path, tmp_path: Path, name: str) -> None:
    target, part = tmp_path / "o.jsonl", tmp_path / "o.jsonl.part"
    number = getattr(signal, name)
    send = twice(number) if name != "SIGINT" else lambda running: running.send_signal(number)
    code, err = end_it(command(listed, target), part, send)
    assert code == 128 + number and [path.name for path in tmp_path.iterdir()] == [part.name]
    records = whole_lines(part)
    what = "interrupted" if name == "SIGINT" else f"ended by {name}"
    assert err == f"kosmos-edge: {what}; {len(records)} finished answers are in {part}\n"
    # The next run neither destroys them nor goes on silently.
    before = part.read_bytes()
    again = subprocess.run(command(listed, target), capture_output=True, text=True, check=False, timeout=60)
    assert again.returncode == 2 and str(part) in again.stderr and len(again.stderr.splitlines()) == 1
    assert part.read_bytes() == before and not target.exists()


def test_a_kill_leaves_every_finished_line_and_the_old_file(listed: Path, tmp_path: Path) -> None:
    target, part = tmp_path / "o.jsonl", tmp_path / "o.jsonl.part"
    target.write_text("the old answers\n")
    code, err = end_it(command(listed, target, "--overwrite"), part, subprocess.Popen.kill)
    assert code == -signal.SIGKILL and err == ""
    assert target.read_text() == "the old answers\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [target.name, part.name]
    text = part.read_text()
    lines = text[: text.rindex("\n")].split("\n")
    assert len([json.loads(line) for line in lines]) >= 3
    few = listed.parent / "few.txt"
    few.write_text(f"{listed.parent / 'a.png'}\n" * 3)
    words = [word for word in command(few, target, "--overwrite") if word != "-q"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 and f"{part}, the answers of a run that ended early, is replaced" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [target.name] and len(whole_lines(target)) == 3


@pytest.mark.parametrize("form", ["json", "csv", "text"])
def test_the_other_formats(listed: Path, tmp_path: Path, form: str) -> None:
    target, part = tmp_path / "o", tmp_path / "o.part"
    code, err = end_it(command(listed, target, "-f", form), part, subprocess.Popen.terminate)
    assert code == 143 and not target.exists()
    text = part.read_text()
    count = int(err.split("; ")[1].split()[0])
    if form == "json":
        with pytest.raises(ValueError):
            json.loads(text)  # it does not look whole
        assert len(json.loads(text + "]")) == count
    elif form == "csv":
        assert text.endswith("\n") and len(list(csv.DictReader(text.splitlines()))) == count
    else:
        assert text.endswith("\n") and len(text.splitlines()) == count


def test_a_limit_of_the_size_of_files(listed: Path, tmp_path: Path) -> None:
    target, part = tmp_path / "o.jsonl", tmp_path / "o.jsonl.part"
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "bash", *command(listed, target)]
    done = subprocess.run(limited, capture_output=True, text=True, check=False, timeout=60)
    records = whole_lines(part)
    assert done.returncode == 1 and len(records) >= 3 and part.stat().st_size <= 8192
    assert done.stderr == (
        f"kosmos-edge: error: {target}: cannot write: File too large; {len(records)} finished answers are in {part}\n"
    )


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """os.write takes `room` more bytes, the last of them in a short write, then there is no space."""
    real, left = os.write, [room]

    def write(descriptor: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = real(descriptor, bytes(data[: left[0]]))
        left[0] -= taken
        return taken

    monkeypatch.setattr(targets.os, "write", write)


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "text"])
def test_a_full_disk(
    run: Runner,  # noqa: F811
    photo: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    target, part = tmp_path / "o", tmp_path / "o.part"
    arguments = ["batch", *[photo] * 9, "-n", 4, "--no-boxes", "-f", form]
    whole = run(*arguments).out.encode()
    if form == "json":
        whole = whole.rstrip(b"]\n")
    fill_the_disk(monkeypatch, len(whole) // 2)
    target.write_text("the old file")
    done = run(*arguments, "-o", target, "--overwrite")
    assert done.code == 1 and len(done.err.splitlines()) == 1 and "No space left on device; 4 finished" in done.err
    assert target.read_text() == "the old file"
    text = part.read_text()
    if form == "json":
        assert len(json.loads(text + "]")) == 4
    else:
        assert text.endswith("\n") and len(text.splitlines()) == (5 if form == "csv" else 4)


def test_a_disk_that_is_full_from_the_start(
    run: Runner,  # noqa: F811
    photo: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill_the_disk(monkeypatch, 10)
    done = run("caption", photo, "-n", 4, "-o", tmp_path / "o.jsonl", "--draw", tmp_path / "d.png")
    assert done.code == 1 and done.err == f"kosmos-edge: error: {tmp_path / 'o.jsonl'}: cannot write: " + (
        os.strerror(errno.ENOSPC) + "\n"
    )
    fill_the_disk(monkeypatch, 10)
    done = run("caption", photo, "-n", 4, "--draw", tmp_path / "d.png")
    assert done.code == 1 and "d.png: cannot write: No space" in done.err and len(done.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [photo.name]


def test_a_name_that_cannot_be_given_leaves_the_answers(
    run: Runner,  # noqa: F811
    photo: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A quota or a network's disk may speak at the end only, and a file may have come there meanwhile."""
    target, part = tmp_path / "o.jsonl", tmp_path / "o.jsonl.part"

    def full(_: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patched:
        patched.setattr(targets.os, "fsync", full)
        done = run("caption", photo, "-n", 4, "-o", target)
    assert done.code == 1 and "quota" in done.err and f"1 finished answer is in {part}" in done.err
    assert len(whole_lines(part)) == 1 and not target.exists()
    part.unlink()
    real = os.fsync
    monkeypatch.setattr(targets.os, "fsync", lambda fd: (target.write_text("another's"), real(fd))[1])
    done = run("caption", photo, "-n", 4, "-o", target)
    assert done.code == 2 and "meanwhile" in done.err and f"1 finished answer is in {part}" in done.err
    assert target.read_text() == "another's" and len(whole_lines(part)) == 1


def test_the_lines_of_an_ended_run_stay_until_there_are_new_ones(
    run: Runner,  # noqa: F811
    photo: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    target, part = tmp_path / "o.jsonl", tmp_path / "o.jsonl.part"
    part.write_text("finished\n")
    done = run("caption", photo, "-n", 4, "-o", target)
    assert done.code == 2 and str(part) in done.err and part.read_text() == "finished\n"
    missing = run("caption", photo, "-m", "nothing.gguf", "--offline", "-o", target, "--overwrite", model=False)
    assert missing.code == 1 and part.read_text() == "finished\n" and not target.exists()
    assert run("caption", photo, "-n", 4, "-o", target, "--overwrite").code == 0
    assert not part.exists() and len(whole_lines(target)) == 1
    part.write_text("")  # killed before the first answer: nothing that could be lost
    target.unlink()
    assert run("caption", photo, "-n", 4, "-o", target).code == 0 and not part.exists()


def test_two_runs_into_one_file(
    run: Runner,  # noqa: F811
    photo: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    target = tmp_path / "o.jsonl"
    with targets.Part(targets.find_target(target, overwrite=False), ".part", wait=False) as other:
        done = run("caption", photo, "-n", 4, "-o", target, "--overwrite")
        assert done.code == 1 and "another process is writing it" in done.err and not target.exists()
        other.remove()
    assert run("caption", photo, "-n", 4, "-o", target).code == 0


def test_fail_fast_is_no_whole_file(
    run: Runner,  # noqa: F811
    photo: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    bad, target, part = tmp_path / "bad.png", tmp_path / "o.jsonl", tmp_path / "o.jsonl.part"
    bad.write_bytes(b"nothing")
    done = run("batch", photo, bad, photo, "-n", 4, "--fail-fast", "-o", target)
    assert done.code == 1 and f"2 finished answers are in {part}" in done.err and not target.exists()
    assert [record["error"] is None for record in whole_lines(part)] == [True, False]
    part.unlink()
    assert run("batch", photo, bad, "-n", 4, "--fail-fast", "-o", target).code == 1  # all had their turn
    assert len(whole_lines(target)) == 2 and not part.exists()


def test_an_array_on_stdout_is_not_closed_where_a_run_breaks_off(
    run: Runner,  # noqa: F811
    photo: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kosmos_edge.cli import tasks as cli_tasks

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_tasks, "report", broken)
    done = run("caption", photo, photo, "-n", 4, "-f", "json")
    assert done.code == 130 and done.out.startswith("[\n{") and not done.out.rstrip().endswith("]")


def test_a_conversion_ended_by_a_signal_leaves_nothing(tmp_path: Path) -> None:
    from helpers.tiny import make_tiny
    from helpers.tiny_hf import write_hf_folder

    folder = write_hf_folder(tmp_path / "hf", make_tiny(0))
    (tmp_path / "out").mkdir()
    program = (
        "import sys, time, kosmos_edge.convert.atomic as p\n"
        "p.AtomicFile.commit = lambda *a: (print('here', flush=True, file=sys.__stdout__), time.sleep(30))\n"
    )
    for module in ("from kosmos_edge.cli import main", "from kosmos_edge.convert.__main__ import main"):
        words = ["convert"] if "cli" in module else []
        words += [str(folder), "-o", str(tmp_path / "out" / "x.gguf")]
        text = f"{program}{module}\nsys.exit(main({words!r}))"
        with subprocess.Popen([sys.executable, "-P", "-c", text], stdout=-1, stderr=-1, text=True) as running:
            assert running.stdout is not None and running.stderr is not None
            assert running.stdout.readline() == "here\n"
            running.terminate()
            err = running.stderr.read()
        assert running.returncode == 143 and err.splitlines()[-1].endswith("ended by SIGTERM")
        assert list((tmp_path / "out").iterdir()) == []


def test_nohup_stays_nohup() -> None:
    program = (
        "import os, signal, sys\nfrom kosmos_edge import cli\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "cli._invoke = lambda args: os.kill(os.getpid(), signal.SIGHUP) or 0\n"
        "assert cli.run([]) == 0 and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN\n"
        "cli._invoke = lambda args: os.kill(os.getpid(), signal.SIGTERM) or 0\n"
        "assert cli.run([]) == 143\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN\n"  # it ends with this status, whatever else comes
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == "kosmos-edge: ended by SIGTERM\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded", "x.bin"), 1, "error: x.bin: Disk quota exceeded"),
        (PermissionError(errno.EACCES, "Permission denied", b"\xff"), 1, "error: \\udcff: Permission denied"),
        (OSError("odd\ntext"), 1, "error: odd text"),
        (MemoryError(), 1, "error: out of memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    run: Runner,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    said: str,
) -> None:
    def refuse(_: object) -> int:
        raise error

    monkeypatch.setattr(cli, "_invoke", refuse)
    done = run("caption", model=False)
    assert (done.code, done.err, done.out) == (code, f"kosmos-edge: {said}\n", "")
