"""Folders as people have them: what is no picture file is one failed input; nothing hangs, nothing is left out."""

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click import UsageError
from click.testing import CliRunner
from helpers.api_model import grounded_file, png

from kosmos_edge import Cancelled, ImageDecodeError, InvalidRequest, KosmosIOError, load
from kosmos_edge.cli import cli
from kosmos_edge.cli.inputs import expand_inputs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and links are other things there")
MODEL = ("--model", str(grounded_file()), "--threads", "1", "--max-tokens", "3")
SHORT: dict[str, Any] = {"max_tokens": 3}


class Outcome:
    """A command's answers by path, None where there is one and else the error; its exit code."""

    def __init__(self, *arguments: object, given: bytes = b"") -> None:
        words = [str(a) for a in arguments]
        done = CliRunner().invoke(cli, [*words, "-f", "jsonl", *MODEL], input=given, standalone_mode=False)
        if isinstance(done.exception, UsageError):
            raise done.exception
        if done.exception is not None:
            raise done.exception
        self.code, self.stderr = done.return_value, done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        self.order = [row["path"] for row in rows]
        self.errors = {row["path"]: row["error"] for row in rows}


def forbid(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Folders that may not be listed, also by root."""
    scan = os.scandir

    def scandir(path: Any = ".") -> Any:
        if path in map(str, folders):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)


def make_odd(folder: Path) -> dict[str, str | None]:
    """A folder with one of everything; -> by name what the error of the entry says, None for a picture."""
    (folder / "a.png").write_bytes(png())
    os.mkfifo(folder / "b.png")
    (folder / "c.PNG").symlink_to("a.png")
    (folder / "d.png").symlink_to("nowhere.png")
    (folder / "e.png").symlink_to("e.png")
    (folder / "f.png").symlink_to("/dev/zero")
    here = os.getcwd()
    os.chdir(folder)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("g.png")
    os.chdir(here)
    (folder / "h.png").touch()
    (folder / "i.png").write_bytes(png(1))
    os.mkfifo(folder / "no picture")
    (folder / "notes.txt").write_text("notes")
    (folder / "up").symlink_to(".")
    (folder / "up.png").symlink_to(".")
    return {
        "a.png": None,
        "b.png": "is a pipe",
        "c.PNG": None,
        "d.png": "link to nowhere.png",
        "e.png": os.strerror(errno.ELOOP),
        "f.png": "is a device",
        "g.png": "is a socket",
        "h.png": "is empty",
        "i.png": None,
    }


def check(errors: dict[str, str | None], folder: Path, expected: dict[str, str | None]) -> None:
    assert {os.path.relpath(path, folder) for path in errors} == set(expected)
    for name, what in expected.items():
        error = errors[str(folder / name)]
        assert (error is None) == (what is None) and (what or "") in (error or ""), (name, error)


# ---- folders


@pytest.mark.parametrize("command", ["batch", "caption", "locate"])
def test_one_of_everything_in_a_folder(tmp_path: Path, command: str) -> None:
    expected = make_odd(tmp_path)
    done = Outcome(command, tmp_path, *(["a dog"] if command == "locate" else []))
    check(done.errors, tmp_path, expected)
    assert done.order == sorted(done.order) and done.code == 1
    for name, what in expected.items():  # one line on stderr for each that failed
        lines = [line for line in done.stderr.splitlines() if line.startswith(f"{tmp_path / name}: ")]
        assert len(lines) == (what is not None), name


def test_folders_inside_and_links_to_folders(tmp_path: Path) -> None:
    inside = tmp_path / "x" / "y"
    inside.mkdir(parents=True)
    expected: dict[str, str | None] = {f"x/y/{name}": what for name, what in make_odd(inside).items()}
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to("x")
    (inside / "top").symlink_to(tmp_path)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "z.png").write_bytes(png(3))
    done = Outcome("batch", tmp_path, "-r")
    check(done.errors, tmp_path, {**expected, "folder.png/z.png": None})
    linked = Outcome("batch", tmp_path / "loop", "-r")  # one that is named is followed
    assert len(linked.order) == len(expected)


def test_a_folder_inside_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(png())
    forbid(monkeypatch, tmp_path / "b")
    done = Outcome("batch", tmp_path, "-r")
    check(done.errors, tmp_path, {"a/1.png": None, "b": "Permission denied", "c/1.png": None})
    assert done.code == 1
    alone = Outcome("batch", tmp_path / "b")
    assert alone.code == 1 and "Permission denied" in alone.errors[str(tmp_path / "b")]


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
def test_real_permissions(tmp_path: Path) -> None:
    for name, mode in (("listed", 0o400), ("closed", 0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(png())
        (tmp_path / name).chmod(mode)
    done = Outcome("batch", tmp_path, "-r")
    for name in ("listed", "closed"):
        (tmp_path / name).chmod(0o700)
    check(done.errors, tmp_path, {"listed/1.png": "Permission denied", "closed": "Permission denied"})


def test_a_folder_that_vanishes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(png())
    scan = os.scandir

    def scandir(path: Any = ".") -> Any:
        if path == str(tmp_path / "a"):
            shutil.rmtree(tmp_path / "b")
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    check(Outcome("batch", tmp_path, "-r").errors, tmp_path, {"a/1.png": None, "b": os.strerror(errno.ENOENT)})


def test_a_file_that_vanishes_meanwhile(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(png())
    inputs, _ = expand_inputs([str(tmp_path)], False)
    (tmp_path / "b.png").unlink()
    with load(grounded_file(), threads=1) as model:
        results = list(model.batch((item.source() for item in inputs), **SHORT))
    assert [result.ok for result in results] == [True, False]
    assert isinstance(results[1].error, KosmosIOError) and results[1].error.errno == errno.ENOENT


def test_empty_folders_lists_and_globs(tmp_path: Path) -> None:
    picture, empty = tmp_path / "a.png", tmp_path / "empty"
    picture.write_bytes(png())
    empty.mkdir()
    (tmp_path / "list").touch()
    nothing = {
        str(empty): "no images in this folder",
        f"{tmp_path}/*.gif": "matches no file",
        f"@{tmp_path}/list": "the list is empty",
        f"@{tmp_path}/missing": os.strerror(errno.ENOENT),
        f"@{empty}": os.strerror(errno.EISDIR),
        str(tmp_path / "missing.png"): os.strerror(errno.ENOENT),
    }
    done = Outcome("batch", *nothing, picture)  # among others: a failed one
    assert done.code == 1 and done.order == [*nothing, str(picture)] and done.errors[str(picture)] is None
    for name, what in nothing.items():
        assert what in (done.errors[name] or ""), name
        if not name.endswith("missing.png"):
            with pytest.raises(UsageError, match=re.escape(what)):  # alone: nothing to do
                Outcome("batch", name)


# ---- globs and lists


def test_a_glob_over_everything(tmp_path: Path) -> None:
    expected = make_odd(tmp_path)
    done = Outcome("batch", f"{tmp_path}/*.[pP]*")
    check(done.errors, tmp_path, expected)
    assert done.code == 1


def test_globs_match_as_those_of_the_shell(tmp_path: Path) -> None:
    for name in ("a.png", "b/1.png", "b/2.jpg", "b/c/3.png", ".hidden/4.png", "b/.5.png", "d/c/6.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png())
    import glob

    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        patterns = ["*", "*.png", "*/*.png", "**/*.png", "**", "*/c/*", "b/**/*.png", "[ab]*", "b/?.*", ".h*/*", "*/c"]
        for pattern in [*patterns, f"{tmp_path}/**/*.png", "./*/*.jpg", "b//*.png", "**/c/*.png", "*/.*", "b/../b/*"]:
            wanted = sorted(os.path.normpath(p) for p in glob.glob(pattern, recursive=True) if not os.path.isdir(p))
            try:
                found = [os.path.normpath(item.name) for item in expand_inputs([pattern], False)[0]]
            except UsageError:
                found = []
            assert found == wanted, pattern
    finally:
        os.chdir(here)


def test_a_glob_through_loops_and_closed_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in" / "closed").mkdir(parents=True)
    (tmp_path / "in" / "a.png").write_bytes(png())
    for name in "xyz":  # three ways round: 3 ** 40 paths for who follows them
        (tmp_path / "in" / name).symlink_to("..")
    forbid(monkeypatch, tmp_path / "in" / "closed")
    done = Outcome("batch", f"{tmp_path}/**/*.png")
    check(done.errors, tmp_path, {"in/a.png": None, "in/closed": "Permission denied"})


def test_a_list_of_everything(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    expected = make_odd(folder)
    extra = {str(folder): "is a directory", "https://example.org/a.png": "URLs are not fetched", "\0": "NUL"}
    lines = [*(str(folder / name) for name in expected), *extra]
    (tmp_path / "list").write_text("\n".join(lines))
    done = Outcome("batch", f"@{tmp_path}/list")
    assert done.order == lines and done.code == 1
    for name, what in extra.items():
        assert what in (done.errors.pop(name) or ""), name
    check(done.errors, folder, expected)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a.png?b=[1]",
        "http://a/b.jpg",
        "file:///tmp/a.png",
        "s3://x/y.png",
        "data:image/png;base64,iV",
    ],
)
def test_urls_are_not_fetched(url: str) -> None:
    done = Outcome("batch", url)
    assert done.code == 1 and "URLs are not fetched" in (done.errors[url] or "")
    with pytest.raises(InvalidRequest, match="URLs are not fetched"):
        Outcome("generate", "--image", url)


# ---- a pipe that is named


def written(path: Path, data: bytes) -> threading.Thread:
    thread = threading.Thread(target=path.write_bytes, args=(data,))
    thread.start()
    return thread


@pytest.mark.parametrize("drawn", [False, True])
def test_a_named_pipe_is_read_when_somebody_writes(tmp_path: Path, drawn: bool) -> None:
    pipe, picture = tmp_path / "pipe.png", tmp_path / "a.png"
    os.mkfifo(pipe)
    picture.write_bytes(png())
    writer = written(pipe, png(1))
    done = Outcome("batch", picture, pipe, *(["--draw", tmp_path / "drawn"] if drawn else []))
    writer.join()
    assert done.errors == {str(picture): None, str(pipe): None} and done.code == 0
    if drawn:
        assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == ["a.boxes.png", "pipe.boxes.png"]
    writer = written(pipe, b"no picture")
    done = Outcome("caption", pipe)
    writer.join()
    assert done.code == 1 and "not an image" in (done.errors[str(pipe)] or "")
    writer = written(pipe, png(1))
    assert Outcome("generate", "--image", pipe, "--text", "An image of").code == 0
    writer.join()


def test_a_named_socket_and_a_device(tmp_path: Path) -> None:
    make_odd(tmp_path)
    done = Outcome("batch", tmp_path / "g.png", "/dev/null")
    assert "is a socket" in (done.errors[str(tmp_path / "g.png")] or "") and "is empty" in (
        done.errors["/dev/null"] or ""
    )


def test_what_the_system_refuses_is_said_in_one_plain_line(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    gone = tmp_path / "go\nne.png"
    done = Outcome("batch", gone, tmp_path / "a.png")
    lines = [line for line in done.stderr.splitlines() if "ne.png" in line]
    assert lines == [f"{tmp_path}/go ne.png: No such file or directory"]


def test_stdin_that_is_closed_is_a_failed_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(png())
    assert Outcome("batch", "-", tmp_path / "a.png", given=png(1)).code == 0
    monkeypatch.setattr(sys, "stdin", None)
    inputs, _ = expand_inputs(["-", str(tmp_path / "a.png")], False)
    with load(grounded_file(), threads=1) as model:
        results = list(model.batch((item.source() for item in inputs), **SHORT))
    assert [result.ok for result in results] == [False, True] and "closed" in str(results[0].error)


# ---- Ctrl-C


def interrupted(process: "subprocess.Popen[str]", ready: Callable[[str], bool]) -> tuple[int, float, str]:
    """Sends Ctrl-C soon after a line for which ready() holds -> exit code, seconds that it took, all lines."""
    assert process.stderr is not None
    lines: list[str] = []
    while not lines or not ready(lines[-1]):
        line = process.stderr.readline()
        assert line, lines
        lines.append(line)
    time.sleep(0.5)
    assert process.poll() is None, lines
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    try:
        code = process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"still there 20 s after Ctrl-C: {lines}")
    return code, time.monotonic() - start, "".join(lines) + process.stderr.read()


@pytest.mark.parametrize(
    "arguments",
    [
        ["caption", "PIPE"],
        ["batch", "PICTURE", "PIPE", "PICTURE"],
        ["batch", "PIPE", "--isolation", "process"],
        ["score", "PIPE", "a dog"],
        ["caption", "PICTURE", "--shot", "PIPE::a dog"],
        ["caption", "PICTURE", "--shot", "PIPE::a dog", "--allow-truncated"],
        ["caption", "PIPE", "--draw", "drawn.png"],
        ["caption", "-"],
    ],
)
def test_ctrl_c_ends_a_command_that_waits_for_a_picture(tmp_path: Path, arguments: list[str]) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "a.png").write_bytes(png())
    places = {"PIPE": str(tmp_path / "pipe.png"), "PICTURE": str(tmp_path / "a.png")}
    words = [re.sub("PIPE|PICTURE", lambda found: places[found[0]], word) for word in arguments]
    command = [sys.executable, "-m", "kosmos_edge", *words, "-v", "--model", str(grounded_file())]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        code, seconds, said = interrupted(process, lambda line: "loaded in" in line)
    assert code == 130 and seconds < 5 and "Traceback" not in said, (code, seconds, said)


PROGRAM = """
import os, sys
from kosmos_edge import load
model = load({model!r}, threads=1, isolation={isolation!r})
reading, writing = os.pipe()
file, path = open(reading, "rb"), {path!r}
print("ready", file=sys.stderr, flush=True)
try:
    {call}
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr, flush=True)
"""


@pytest.mark.parametrize(
    ("call", "isolation"),
    [
        ("model.caption(path)", "none"),
        ("model.caption(path)", "process"),
        ("model.caption(file)", "none"),
        ("model.caption(file)", "process"),
        ("model.encode(path)", "none"),
        ("list(model.caption(path, stream=True))", "none"),
        ("list(model.batch([file]))", "none"),
        ("list(model.batch([file]))", "process"),
        ("list(model.batch([], task='caption', examples=[(path, 'a dog')])) or model.score(path, ['a'])", "none"),
    ],
)
def test_ctrl_c_ends_a_program_that_waits_for_a_picture(tmp_path: Path, call: str, isolation: str) -> None:
    path = tmp_path / "pipe.png"
    os.mkfifo(path)
    text = PROGRAM.format(model=str(grounded_file()), isolation=isolation, path=str(path), call=call)
    with subprocess.Popen([sys.executable, "-P", "-c", text], stderr=subprocess.PIPE, text=True) as process:
        code, seconds, said = interrupted(process, lambda line: line == "ready\n")
    assert code == 0 and seconds < 5 and said.endswith("interrupted\n"), (code, seconds, said)


# ---- the Python interface


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_a_batch_of_everything(tmp_path: Path, isolation: Any) -> None:
    expected = make_odd(tmp_path)
    with load(grounded_file(), threads=1, isolation=isolation) as model:
        paths = [*(tmp_path / name for name in expected), tmp_path, tmp_path / "missing.png", "http://a/b.png"]
        results = list(model.batch(paths, **SHORT))
    assert [result.source for result in results] == [str(path) for path in paths]
    errors = {str(result.source): None if result.ok else str(result.error) for result in results}
    assert "URLs are not fetched" in (errors.pop("http://a/b.png") or "")
    assert "is a directory" in (errors.pop(str(tmp_path)) or "")
    assert os.strerror(errno.ENOENT) in (errors.pop(str(tmp_path / "missing.png")) or "")
    check(errors, tmp_path, expected)
    assert isinstance(results[1].error, ImageDecodeError) and "pass the opened file" in str(results[1].error)


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_a_pipe_without_a_writer_can_be_cancelled(tmp_path: Path, isolation: Any) -> None:
    path = tmp_path / "pipe.png"
    os.mkfifo(path)
    with load(grounded_file(), threads=1, isolation=isolation) as model:
        for call in (model.caption, lambda path, cancel: model.encode(path, cancel=cancel)):
            cancel = threading.Event()
            threading.Timer(0.2, cancel.set).start()
            start = time.monotonic()
            with pytest.raises(Cancelled):
                call(path, cancel=cancel)
            assert time.monotonic() - start < 5
        assert model.caption(png(), **SHORT).ok
    with open(os.open(path, os.O_RDWR), "wb"):  # who still waits in open() goes
        pass
