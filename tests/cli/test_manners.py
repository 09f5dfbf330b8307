"""Config file, URLs, clipboard, streams, logs, completion, manual page."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.api_model import grounded_file, png, tiny_file
from test_cli import Runner, photo, run  # noqa: F401  (fixtures)

from kosmos_edge import cli, urls
from kosmos_edge.cli import COMMANDS
from kosmos_edge.cli.config import config_path

# ---- config file


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Runner) -> Path:  # noqa: F811
    """The path of the config file, which is not there yet. After `run`, which clears the variables."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.setenv("HOME", str(tmp_path))
    path = config_path()
    assert path is not None and path.name == "config.toml" and tmp_path in path.parents
    path.parent.mkdir(parents=True)
    return path


def test_defaults_of_options(run: Runner, photo: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    config.write_text('max-tokens = 3\nformat = "json"\n[caption]\nlead_in = true\nmax-tokens = 5\n')

    def record(*words: object) -> dict:
        return json.loads(run(*words, "-m", grounded_file(), model=False).out)

    def tokens(*words: object) -> int:
        return len(record(*words)["token_ids"])

    assert record("caption", photo)["text"].startswith("An image of")
    assert tokens("caption", photo) == 5
    assert tokens("ground", photo) == 3  # the table is another command's
    assert tokens("caption", photo, "-n", 2) == 2  # the command line goes first
    monkeypatch.setenv("KOSMOS_EDGE_MAX_TOKENS", "4")
    assert tokens("caption", photo) == 4 and tokens("caption", photo, "-n", 2) == 2  # then the environment
    monkeypatch.setenv("KOSMOS_EDGE_CONFIG", "none")
    assert run("caption", photo, "--format", "text").out
    monkeypatch.setenv("KOSMOS_EDGE_CONFIG", str(config.parent / "other.toml"))
    done = run("caption", photo)
    assert done.code == 2 and "no such file" in done.err and "KOSMOS_EDGE_CONFIG" in done.err


def test_switches_lists_and_counts(run: Runner, photo: Path, config: Path) -> None:  # noqa: F811
    config.write_text('boxes = false\nverbose = 1\nstop = ["zzz", "a text, with a comma"]\n')
    done = run("caption", photo, "-n", 3)
    assert done.code == 0 and len(done.out.splitlines()) == 1 and "loaded in" in done.err
    config.write_text("verbose = true\n")
    assert "loaded in" in run("caption", photo, "-n", 3).err
    config.write_text('[ask]\nchoice = ["a dog", "the man"]\n')
    assert run("ask", photo, "Who?").out.strip() in ("a dog", "the man")


def test_what_a_command_cannot_use_is_ignored(run: Runner, photo: Path, config: Path) -> None:  # noqa: F811
    config.write_text('format = "hocr"\ntop-k = 3\nmax-tokens = 3\n')
    done = run("caption", photo, "-v")
    assert done.code == 0 and done.out
    for key in ("format", "top-k"):
        assert f"ignored {key} in {config}" in done.err
    assert run("caption", photo, "--top-k", 3).code == 2  # typed it is an error


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("max-token = 3", "max-token is not an option; did you mean max-tokens?"),
        ("[capton]\nlength = 'long'", "[capton] is not a command; did you mean caption?"),
        ("[caption]\nphrase = 'x'", "caption.phrase is not an option of caption"),
        ("[models.pul]\ntype = 'q8_0'", "[models.pul] is not a command; did you mean pull?"),
        ("[models.pull]\ntyp = 'q8_0'", "models.pull.typ is not an option of models pull; did you mean type?"),
        ("[generate]\nimage = 'a.png'", "generate.image is not an option of generate"),  # its place matters
        ("length = 'medium'", "length in {path}"),
        ("[caption]\nlength = 3", "caption.length in {path}"),
        ("boxes = 'no'", "boxes in {path}: expected true or false, got 'no'"),
        ("max-tokens = true", "max-tokens in {path}: expected a text or a number, got True"),
        ("max-tokens = [1]", "max-tokens in {path}: expected a text or a number, got [1]"),
        ("stop = [[1]]", "stop in {path}: expected a text, a number or a list of them"),
        ("max-tokens = 3\nmax_tokens = 4", "max-tokens is there twice"),
        ("max-tokens = ", "not valid TOML"),
    ],
)
def test_mistakes_are_told(run: Runner, photo: Path, config: Path, text: str, why: str) -> None:  # noqa: F811
    config.write_text(text)
    done = run("caption", photo)
    assert done.code == 2 and done.out == ""
    assert str(config) in done.err and why.format(path=config) in done.err
    doctor = run("doctor", "-f", "json", model=False)  # works, and reports it, too, where it concerns all commands
    report = json.loads(doctor.out)["config"]
    if " in {path}" not in why:
        assert doctor.code == 1 and why in report["error"]


def test_doctor_shows_the_config(run: Runner, config: Path) -> None:  # noqa: F811
    report = json.loads(run("doctor", "-f", "json", model=False).out)["config"]
    assert report == {"path": str(config), "exists": False, "sets": []}
    config.write_text("max-tokens = 3\n[models.pull]\ntype = 'q8_0'\n")
    report = json.loads(run("doctor", "-f", "json", model=False).out)["config"]
    assert report == {"path": str(config), "exists": True, "sets": ["max-tokens = 3", "models.pull.type = 'q8_0'"]}


def test_bytes_that_are_no_text(run: Runner, photo: Path, config: Path) -> None:  # noqa: F811
    config.write_bytes(b"model = '\xff'")
    done = run("caption", photo)
    assert done.code == 2 and f"{config}: not valid TOML" in done.err


# ---- URLs


@pytest.mark.parametrize("words", [["caption"], ["batch", "--format", "text"], ["generate", "-p", "a", "--image"]])
def test_urls_are_fetched_if_allowed(
    run: Runner,  # noqa: F811
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    fetched: list[str] = []

    def fetch(url: str) -> bytes:
        fetched.append(url)
        return png()

    url = "https://example.org/a.png?b=[1]"
    refused = run(*words, url, "-n", 2)
    assert refused.code != 0 and "URLs are not fetched without --allow-urls" in refused.err
    monkeypatch.setattr(urls, "fetch", fetch)
    done = run(*words, url, "-n", 2, "--allow-urls")
    assert done.code == 0 and fetched == [url]
    if words[0] != "generate":
        (tmp_path / "list").write_text(f"{url}\n{url}\n")
        assert run(*words, f"@{tmp_path}/list", "-n", 2, "--allow-urls").code == 0 and fetched == [url] * 3
        assert run(*words, url, "-n", 2, "--allow-urls", "--draw", tmp_path / "x.png").code == 0
        assert (tmp_path / "x.png").exists() or words[0] == "batch"
    assert run(*words, url, "-n", 2).code != 0  # the next run has not allowed it


@pytest.mark.parametrize("option", ["--shot", "--shots"])
def test_urls_of_examples(
    run: Runner,  # noqa: F811
    photo: Path,  # noqa: F811
    option: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    url = "https://example.org/a.png"
    (tmp_path / "b.png").write_bytes(png(5))
    listed = tmp_path / "shots.jsonl"
    listed.write_text(json.dumps({"image": url, "text": "a house."}) + "\n")
    given = f"{url}::a house." if option == "--shot" else listed
    one = ("--shot-count", 1) if option == "--shots" else ()
    words = ("caption", photo, "-n", 4, "--no-boxes", option, given, *one)
    refused = run(*words)
    assert refused.code != 0 and "URLs are not fetched without --allow-urls" in refused.err
    monkeypatch.setattr(urls, "fetch", lambda found: png(5) if found == url else b"")
    done = run(*words, "--allow-urls")
    assert done.code == 0
    assert done.out == run("caption", photo, "-n", 4, "--no-boxes", "--shot", f"{tmp_path / 'b.png'}::a house.").out


def test_this_machine_is_not_public(run: Runner) -> None:  # noqa: F811
    done = run("caption", "http://127.0.0.1:1/a.png", "--allow-urls")
    assert done.code == 1 and "127.0.0.1, which is not a public address" in done.err


# ---- clipboard


@pytest.fixture
def display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A display with a program xclip, which writes what it gets to a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    copied = tmp_path / "copied"
    (folder / "xclip").write_text(f'#!/bin/sh\necho "$@" > {copied}.words\nexec cat > {copied}\n')
    (folder / "xclip").chmod(stat.S_IRWXU)
    for name in ("WAYLAND_DISPLAY", "WSL_DISTRO_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", ":7")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return copied


@pytest.mark.skipif(sys.platform != "linux", reason="the programs of Linux")
def test_clipboard(run: Runner, photo: Path, display: Path) -> None:  # noqa: F811
    done = run("caption", photo, "-n", 6, "--clipboard")
    assert done.code == 0 and display.read_text() == done.out.splitlines()[0].strip("\n")
    assert display.with_suffix(".words").read_text().split() == ["-selection", "clipboard"]
    done = run("ground", photo, photo, "-n", 6, "--clipboard", "-f", "jsonl")
    assert display.read_text() == "\n".join(json.loads(line)["text"] for line in done.out.splitlines())
    done = run("score", photo, "a dog", "a cat", "--clipboard")
    assert display.read_text() + "\n" == done.out


@pytest.mark.skipif(sys.platform != "linux", reason="the programs of Linux")
def test_without_a_clipboard(run: Runner, photo: Path, display: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("kosmos_edge.cli.tasks.take_model", lambda *_, **__: pytest.fail("a model was loaded"))
    monkeypatch.setenv("PATH", "/nowhere")
    done = run("caption", photo, "--clipboard")
    assert done.code == 2 and "needs the program xclip or xsel" in done.err
    monkeypatch.delenv("DISPLAY")
    done = run("caption", photo, "--clipboard")
    assert done.code == 2 and "there is no display" in done.err


@pytest.mark.skipif(sys.platform != "linux", reason="the programs of Linux")
def test_a_clipboard_that_fails(run: Runner, photo: Path, display: Path) -> None:  # noqa: F811
    (display.parent / "bin" / "xclip").write_text("#!/bin/sh\nexit 3\n")
    done = run("caption", photo, "-n", 2, "--clipboard")
    assert done.code == 1 and "xclip: it ended with status 3" in done.err and done.out


# ---- streams


@pytest.mark.parametrize("words", [["caption", "{}"], ["ground", "{}"], ["ask", "{}", "Who?", "--boxes"]])
def test_a_stream_prints_the_same(run: Runner, photo: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    words = [word.format(photo) for word in words]
    more = ["-n", 40, "-m", grounded_file(), "-t", 1]
    whole = run(*words, *more, model=False)
    parts: list[str] = []
    real = sys.stdout.write
    monkeypatch.setattr(sys.stdout, "write", lambda text: parts.append(text) or real(text))
    streamed = run(*words, *more, "--stream", model=False)
    assert streamed.code == 0 and streamed.out == whole.out
    assert len([part for part in parts if part]) > 3  # came in pieces


def test_a_stream_is_for_one_image_and_text(run: Runner, photo: Path, tmp_path: Path) -> None:  # noqa: F811
    for words, what in (([photo, "-f", "json"], "json"), ([photo, photo], "several")):
        done = run("caption", *words, "--stream")
        assert done.code == 2 and f"got {what}" in done.err
    assert run("caption", photo, "--stream", "-n", 0).code == 2
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = run("caption", tmp_path / "bad.png", "--stream")
    assert done.code == 1 and done.out == "" and "bad.png" in done.err
    target = tmp_path / "out.txt"
    assert run("caption", photo, "--stream", "-n", 6, "--no-boxes", "-o", target).code == 0
    assert target.read_text() == run("caption", photo, "-n", 6, "--no-boxes").out


# ---- logs


def test_logs(run: Runner, photo: Path) -> None:  # noqa: F811
    assert "loads" not in run("caption", photo, "-n", 2, "-v").err
    done = run("caption", photo, "-n", 2, "-vv")
    assert f"kosmos_edge.loading: loads {tiny_file()}: device auto, mode mmap, isolation none" in done.err
    assert "loaded in" in done.err
    assert done.err.count("kosmos_edge.loading: loaded") == 1
    assert run("caption", photo, "-n", 2, "-vvq").err == ""
    assert "kosmos_edge.loading" not in run("caption", photo, "-n", 2).err  # nothing is left of it


# ---- completion and manual page


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(run: Runner, shell: str, tmp_path: Path) -> None:  # noqa: F811
    done = run("completion", shell, model=False)
    assert done.code == 0 and "_KOSMOS_EDGE_COMPLETE" in done.out
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n", "/dev/stdin"], input=done.out, text=True, check=True)


def test_completions_that_a_shell_asks_for() -> None:
    environment = {**os.environ, "_KOSMOS_EDGE_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    asked = environment | {"COMP_WORDS": "kosmos-edge caption --max-t"}
    out = subprocess.run([sys.executable, "-m", "kosmos_edge"], env=asked, capture_output=True, text=True, timeout=60)
    assert out.stdout.split() == ["plain,--max-tokens"]


def test_manual_page(run: Runner) -> None:  # noqa: F811
    done = run("man", model=False)
    assert done.code == 0 and done.out.startswith(".TH ")
    for name in COMMANDS:
        assert f"\n.SS {name}\n" in done.out
    assert "\n.SS models pull\n" in done.out and "\\-\\-max\\-tokens" in done.out
    assert not [line for line in done.out.splitlines() if re.match(r"\.(?!TH|SH|SS|TP|PP|B |nf|fi)", line)]
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    shown = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww"], input=done.out, capture_output=True, text=True, check=True
    )
    assert shown.stderr == "" and "--max-tokens" in shown.stdout


def test_every_command_has_a_line_of_help() -> None:
    assert all(cli.cli.get_command(None, name) is not None and line for name, (_, line) in COMMANDS.items())  # type: ignore[arg-type]


# ---- words of errors


def test_an_error_names_the_option_that_was_given(run: Runner, photo: Path) -> None:  # noqa: F811
    for words in (("ask", photo, "What?"), ("batch", photo, "--task", "ask", "--question", "What?")):
        done = run(*words, "--boxes", "-m", "nano-read", model=False)
        assert done.code == 2 and "error: --boxes: this model has no location tokens" in done.err
    done = run("ground", photo, "-m", "nano-read", model=False)
    assert done.code == 2 and "error: ground: this model has no location tokens" in done.err
