"""Standard streams that are closed, full or gone: one line and the exit status by the table, for every command."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import sweep
from helpers.api_model import png, tiny_file, tiny_model
from helpers.convert_checkpoint import convert_state, convert_write_hf
from helpers.reciting import write_reader
from helpers.tiny import write_tiny
from models.description import every

from kosmos_edge.apps.index import PictureIndex
from kosmos_edge.cli import COMMANDS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell closes the streams")
SHELL = {
    "stdout closed": ">&-",
    "stdout full": ">/dev/full",
    "stdin closed": "<&-",
    "stderr closed": "2>&-",
    "stderr full": "2>/dev/full",
    "stdin and stderr closed": "<&- 2>&-",
    "all closed": "<&- >&- 2>&-",
}
EVERY_WAY = {"caption", "convert", "models list"}  # an answer, a file, a report; other commands take the ways in turn
ANSWERING = {  # with -o
    "caption": ["caption", "PHOTO", "-n", "2", "MODEL"],
    "ground": ["ground", "PHOTO", "-n", "2", "MODEL"],
    "locate": ["locate", "PHOTO", "a dog", "-f", "json", "MODEL"],
    "describe": ["describe", "PHOTO", "--box", "10,10,50,60", "-n", "2", "MODEL"],
    "ask": ["ask", "PHOTO", "Who?", "-n", "2", "MODEL"],
    "score": ["score", "PHOTO", "a dog", "a cat", "MODEL"],
    "classify": ["classify", "PHOTO", "--label", "a dog", "--label", "a cat", "MODEL"],
    "reason": ["reason", "PHOTO", "Who?", "--rationale-tokens", "2", "-n", "2", "MODEL"],
    "webqa": ["webqa", "PHOTO", "Who?", "-n", "2", "MODEL"],
    "batch": ["batch", "PHOTO", "-n", "2", "MODEL"],
    "read": ["read", "PHOTO", "READER"],
    "generate": ["generate", "-i", "PHOTO", "-p", "An image of", "-n", "2", "MODEL"],
}
OTHERS = {
    "chat": ["chat", "PHOTO", "--ask", "Who?", "-n", "2", "MODEL"],
    "similarity": ["similarity", "PHOTO", "a cat", "a dog", "CLIP"],
    "pica": ["pica", "PHOTO", "Who?", "--show-prompt", "--no-tags", "MODEL"],
    "index build": ["index", "build", "PHOTO", "-o", "INDEX", "-f", "json", "MODEL"],
    "index search": ["index", "search", "INDEX", "PHOTO", "MODEL"],
    "index info": ["index", "info", "INDEX"],
    "iq": ["iq", "PHOTO", "PHOTO", "-c", "PHOTO", "-c", "PHOTO", "MODEL"],
    "models list": ["models", "list", "-f", "json"],
    "models path": ["models", "path", "nano"],
    "models pull": ["models", "pull", "nano", "-q"],
    "models verify": ["models", "verify", "TINY", "-q"],
    "models rm": ["models", "rm", "kosmos-2:q8_0", "-q"],
    "convert": ["convert", "CHECKPOINT", "-o", "GGUF", "--overwrite", "-q"],
    "bench": ["bench", "--phases", "load", "--rounds", "1", "-f", "json", "MODEL"],
    "bench quality": ["bench", "quality", "--types", "f32", "-n", "1", "-f", "json", "MODEL"],
    "eval list": ["eval", "list"],
    "completion": ["completion", "bash"],
    "man": ["man"],
    "doctor": ["doctor", "-q", "-f", "json"],
    "help": ["--help"],
    "version": ["--version"],
    "devices": ["--list-devices"],
}
Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("streams")
    (folder / "photo.png").write_bytes(png())
    write_tiny(folder / "clip.gguf", tiny=every()["clip_towers"].make(5))
    with PictureIndex(folder / "photos.index", tiny_model()) as index:
        index.update([folder / "photo.png"])
    names = {
        "CLIP": ["-m", folder / "clip.gguf", "-t", "1", "-q"],
        "PHOTO": [folder / "photo.png"],
        "MODEL": ["-m", tiny_file(), "-t", "1", "-q"],
        "READER": ["-m", write_reader(folder / "reader.gguf", [((1, 1, 9, 9), "a line")]), "-t", "1", "-q"],
        "TINY": [tiny_file()],
        "GGUF": [folder / "out.gguf"],
        "INDEX": [folder / "photos.index"],
        "CHECKPOINT": [convert_write_hf(folder / "hf", convert_state())],
    }
    env = {name: value for name, value in os.environ.items() if not name.startswith("KOSMOS_EDGE_")}
    env["KOSMOS_EDGE_CACHE"] = str(folder / "cache")

    def go(words: list[str], redirection: str = "", stdout: int = subprocess.PIPE) -> Done:
        arguments = [str(part) for word in words for part in names.get(word, [word])]
        command = ["bash", "-c", f'exec "$@" {redirection}', "bash", sys.executable, "-P", "-m", "kosmos_edge"]
        return subprocess.run(
            [*command, *arguments], stdout=stdout, stderr=subprocess.PIPE, text=True, env=env, timeout=120
        )

    return go


@pytest.fixture(scope="module")
def usual(run: Run) -> Callable[[str], Done]:
    """What a command does when all streams are as usual; it runs once."""
    return functools.cache(lambda name: run((ANSWERING | OTHERS)[name]))


def said(done: Done) -> list[str]:
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    return done.stderr.splitlines()


def plain(text: str) -> str:
    """stdout without what differs from run to run."""
    if not text.startswith(("{", "[")):
        return text
    record = json.loads(text.splitlines()[0] if text.count("\n{") else text)
    if isinstance(record, dict):
        record.pop("timings", None)
        record = record if "entities" in record or "ranking" in record else sorted(record)
    return json.dumps(record)  # of a measurement or a report its keys


def test_every_command_is_here() -> None:
    """All but those that end when they are told to: the servers (tests/server) and watch (tests/folders); grit, which
    writes a folder, and agent, which needs an endpoint (tests/apps)."""
    here = {words[0] for words in [*ANSWERING.values(), *OTHERS.values()] if words[0][0] != "-"}
    assert here == set(COMMANDS) - {"serve", "mcp", "watch", "grit", "agent"}


@pytest.mark.parametrize("name", [*ANSWERING, *OTHERS])
def test_broken_streams(run: Run, usual: Callable[[str], Done], name: str) -> None:
    words, whole = (ANSWERING | OTHERS)[name], usual(name)
    assert whole.returncode == (1 if name == "models rm" else 0), whole.stderr
    every, turn = sweep.WHOLE or name in EVERY_WAY, [*ANSWERING, *OTHERS].index(name)
    for broken in ("stdin closed", "stderr closed", "stderr full") if every else ("stdin and stderr closed",):
        done = run(words, SHELL[broken])
        assert (done.returncode, plain(done.stdout)) == (whole.returncode, plain(whole.stdout)), broken
        if broken == "stdin closed":
            assert said(done) == said(whole)
    if name == "models rm":  # says nothing on stdout
        return
    ways = [("stdout closed", "closed"), ("stdout full", "No space left on device")]
    for broken, reason in ways if every else ways[turn % 3 : turn % 3 + 1]:
        done = run(words, SHELL[broken])
        if name == "convert" and broken == "stdout closed":  # its result is the file
            assert done.returncode == 0 and said(done) == []
            continue
        assert done.returncode == 1 and done.stdout == "", (broken, done)
        assert len(said(done)) == 1 and "stdout" in done.stderr and reason in done.stderr, (broken, done.stderr)
    if not every and turn % 3 < 2:
        return
    reader, writer = os.pipe()
    os.close(reader)
    done = run(words, stdout=writer)
    os.close(writer)
    assert done.returncode == 1 and len(said(done)) == 1 and "stdout: Broken pipe" in done.stderr


@pytest.mark.parametrize("name", ANSWERING)
def test_with_an_output_file_no_stdout_is_needed(
    run: Run, usual: Callable[[str], Done], name: str, tmp_path: Path
) -> None:
    whole = usual(name)
    ways = ("stdout closed", "stdout full", "all closed") if sweep.WHOLE or name in EVERY_WAY else ("all closed",)
    for broken in ways:
        target = tmp_path / broken
        done = run([*ANSWERING[name], "-o", str(target)], SHELL[broken])
        assert done.returncode == 0 and said(done) == []
        assert plain(target.read_text()) == plain(whole.stdout)
    assert len(list(tmp_path.iterdir())) == len(ways)


def test_stdin_that_is_closed_is_no_picture(run: Run) -> None:
    done = run(["caption", "-", "MODEL"], "<&-")
    assert done.returncode == 1 and done.stdout == "" and len(said(done)) == 1 and "stdin" in done.stderr


def test_no_file_gets_the_number_of_a_closed_stream(run: Run, tmp_path: Path) -> None:
    """Else a message to stderr would go into the results, and -o /dev/stdout into whatever has the number 1."""
    target = tmp_path / "out.txt"
    done = run(["caption", "PHOTO", "-v", "-n", "2", "-m", "nothing.gguf", "--offline", "-o", str(target)], "2>&-")
    assert done.returncode == 1 and not target.exists()
    link = tmp_path / "stdout"
    link.symlink_to("/proc/self/fd/1" if sys.platform == "linux" else "/dev/fd/1")
    done = run(["caption", "PHOTO", "MODEL", "-o", str(link)], ">&-")
    assert done.returncode == 1 and len(said(done)) == 1 and link.is_symlink()


def test_a_shell_can_ask_for_completions() -> None:
    command = [sys.executable, "-P", "-c", "from kosmos_edge.cli import main; main()"]
    env = os.environ | {"_KOSMOS_EDGE_COMPLETE": "bash_complete", "COMP_WORDS": "kosmos-edge capt", "COMP_CWORD": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "plain,caption\n", "")


def test_a_worker_process_with_all_streams_closed(run: Run, usual: Callable[[str], Done], tmp_path: Path) -> None:
    target = tmp_path / "o.txt"
    done = run([*ANSWERING["caption"], "--isolation", "process", "-o", str(target)], SHELL["all closed"])
    assert done.returncode == 0 and target.read_text() == usual("caption").stdout


def test_a_file_size_limit_leaves_no_cut_bytecode(tmp_path: Path) -> None:
    """Else every later start would end with a traceback, until somebody removes the files."""
    (tmp_path / "photo.png").write_bytes(png())
    cached = tmp_path / "cache"
    words = ["batch", tmp_path / "photo.png", "-n", "2", "-m", tiny_file(), "-t", "1", "-q", "--isolation", "process"]
    command = [sys.executable, "-P", "-m", "kosmos_edge", *map(str, words)]
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(cached)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    for start in (["bash", "-c", 'ulimit -f 5; exec "$@"', "bash"], []):
        done = subprocess.run([*start, *command], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0 and json.loads(done.stdout)["error"] is None, done.stderr
        if start:
            sizes = [path.stat().st_size for path in cached.rglob("*.pyc")]
            assert sizes and 5 * 1024 not in sizes
