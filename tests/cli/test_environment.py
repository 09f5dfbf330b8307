"""Users without a home, folders that may not be read, switches in the environment: nano answers, the rest is a line."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.api_model import png, tiny_file

from kosmos_edge import cli, hub
from kosmos_edge.errors import InvalidRequest, KosmosError, KosmosIOError

NAMES = ("HOME", "KOSMOS_EDGE_", "HF_", "HUGGINGFACE_", "XDG_", "TRANSFORMERS_")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="user ids and modes of POSIX")
# What a process of an unknown user does: command lines, then the Python interface; a line of JSON.
PROGRAM = """
import contextlib, io, json, os, sys
import kosmos_edge
from kosmos_edge import cli
from kosmos_edge import hub

def run(*args):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run(args)
    return [code, out.getvalue(), err.getvalue()]

def error(call):
    try:
        call()
    except kosmos_edge.KosmosError as e:
        return [type(e).__name__, str(e)]

picture = sys.argv[1]
done = {
    "caption": run("caption", picture, "-q"),
    "list": run("models", "list", "-f", "json"),
    "doctor": run("doctor", "-f", "json"),
    "path": run("models", "path", "kosmos-2"),
    "repo": run("models", "path", "some/repo"),
    "rm": run("models", "rm", "kosmos-2"),
    "pull": run("models", "pull", "kosmos-2", "--offline"),
    "pull repo": run("models", "pull", "some/repo", "--offline"),
    "pull to": run("models", "pull", "some/repo:q8_0", "--offline", "--to", sys.argv[2]),
    "load": kosmos_edge.load().caption(picture).text,
    "default": hub.default_model(),
    "errors": [error(lambda: kosmos_edge.load(name)) for name in ("kosmos-2", "some/repo", "~/x.gguf", "~nobody/x")],
}
if os.access(sys.executable, os.X_OK):  # not where the interpreter lies in root's home
    with kosmos_edge.load(isolation="process") as model:
        done["isolated"] = model.caption(picture).text
print(json.dumps(done))
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that every user may enter (pytest's own are for one user), with a picture and homes of all kinds."""
    folder = Path(tempfile.mkdtemp(prefix="kosmos-edge-environment-"))
    folder.chmod(0o755)
    (folder / "a.png").write_bytes(png())
    (folder / "file").write_text("not a folder")
    for name, mode in {"closed": 0o000, "unlisted": 0o311, "unsearched": 0o444}.items():
        models = folder / name / "models"
        models.mkdir(parents=True)
        shutil.copy(tiny_file(), models / "Kosmos-2-1.6B-v1.0-Q8_0.gguf")
        snapshots = folder / name / "hub" / "models--some--repo" / "snapshots"
        (snapshots / "x").mkdir(parents=True)
        for target in (models, snapshots, folder / name / "hub"):
            target.chmod(mode)
    for path in folder.rglob("*.png"):
        path.chmod(0o644)
    yield folder
    for pattern in ("*/*", "*/hub/*/*"):
        for path in folder.glob(pattern):
            path.chmod(0o755)
    shutil.rmtree(folder)


def stranger() -> list[str]:
    """The beginning of a command line that runs as a user whom nobody knows, or as this one where that is not root."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    command = [setpriv or "", "--reuid", "54321", "--regid", "54321", "--clear-groups"]
    if setpriv is None or subprocess.run([*command, sys.executable, "-Pc", "import kosmos_edge"]).returncode:
        pytest.skip("root cannot become a user who may read this checkout")
    return command


@pytest.mark.parametrize(
    ("variables", "blamed"),
    [
        ({}, "HOME"),
        ({"HOME": "/nonexistent/home"}, ""),
        ({"HOME": "{}/file"}, ""),
        ({"HOME": ""}, ""),
        ({"KOSMOS_EDGE_CACHE": "{}/closed", "HF_HOME": "{}/closed"}, "{}/closed"),
        ({"KOSMOS_EDGE_CACHE": "{}/unlisted", "HF_HOME": "{}/unlisted"}, "{}/unlisted"),
        ({"KOSMOS_EDGE_CACHE": "{}/unsearched", "HF_HOME": "{}/unsearched"}, "{}/unsearched"),
        ({"KOSMOS_EDGE_CACHE": "{}/file", "HF_HOME": "{}/file"}, ""),
    ],
    ids=["unknown", "missing", "file", "empty", "closed", "unlisted", "unsearched", "cache is a file"],
)
def test_nano_answers_whoever_asks(place: Path, variables: dict[str, str], blamed: str) -> None:
    if not hub.nano_path().is_file():
        pytest.skip("this checkout has no packaged model")
    if not variables and os.geteuid() != 0:
        pytest.skip("this user is known to the system")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NAMES)}
    given = {name: value.format(place) for name, value in variables.items()}
    command = [*stranger(), sys.executable, "-P", "-c", PROGRAM, str(place / "a.png"), str(place / "closed" / "hub")]
    run = subprocess.run(command, env=kept | given, cwd="/", capture_output=True, text=True)
    assert run.returncode == 0 and run.stderr == "", run.stderr
    done = json.loads(run.stdout)
    code, out, err = done["caption"]
    assert code == 0 and out.splitlines()[0] == done["load"] == done.get("isolated", done["load"]) and not err
    code, out, err = done["list"]
    assert code == 0 and [model["tag"] for model in json.loads(out)] == ["nano", "nano-read"] and not err
    code, out, _ = done["doctor"]
    report = json.loads(out)["models"]
    assert code == 0 and report["default"] == "nano" and "error" not in report
    where = blamed.format(place)
    assert where in report["cache"] and (not where or where in report["default_why"])
    assert done["default"][0] == "nano"
    for name in ("path", "repo", "rm", "pull", "pull repo", "pull to"):
        code, out, err = done[name]
        assert code == 1 and out == "" and len(err.splitlines()) == 1, (name, code, err)
        assert err.startswith("kosmos-edge: error: "), (name, err)
        assert name == "pull to" or where in err, (name, err)
    for error in done["errors"][:3]:
        assert error and error[0] in ("KosmosIOError", "ModelNotFound") and "\n" not in error[1]
    assert "~nobody" in done["errors"][3][1] or "no such file" in done["errors"][3][1]


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No HOME, and a system that does not know the user."""
    import pwd

    def unknown(uid: object) -> None:
        raise KeyError(f"uid not found: {uid}")

    for name in [name for name in os.environ if name.startswith(NAMES)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    return monkeypatch


def test_without_a_home_each_place_says_what_to_set(homeless: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for place, variable in ((hub.cache_dir, "KOSMOS_EDGE_CACHE"), (hub.hf_cache_dir, "HF_HOME")):
        with pytest.raises(KosmosIOError, match=rf"HOME is not set.*{variable}"):
            place()
        homeless.setenv(variable, str(tmp_path))
        assert tmp_path in (place(), place().parent)
        homeless.delenv(variable)
    homeless.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert hub.cache_dir() == tmp_path / "kosmos-edge" and hub.hf_cache_dir() == tmp_path / "huggingface" / "hub"
    homeless.setenv("HF_HOME", "~/hf")
    with pytest.raises(KosmosIOError, match="~/hf"):
        hub.hf_cache_dir()


def test_a_pull_without_a_home_makes_no_folder_called_tilde(
    homeless: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    homeless.chdir(tmp_path)
    homeless.setenv("HF_HUB_OFFLINE", "1")
    for spec in ("kosmos-2", "some/repo"):
        assert cli.run(["models", "pull", spec]) == 1
        assert "HOME is not set" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["1", "true", "T", "yes", "y", "ON", " 1 "])
def test_offline_by_every_word_of_the_command_line(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KOSMOS_EDGE_OFFLINE", value)
    assert hub.is_offline()


@pytest.mark.parametrize("value", ["", "0", "false", "No", "off"])
def test_not_offline(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KOSMOS_EDGE_OFFLINE", value)
    assert not hub.is_offline() and hub.is_offline(True)


def test_offline_by_no_word_opens_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOSMOS_EDGE_OFFLINE", "maybe")
    with pytest.raises(InvalidRequest, match="KOSMOS_EDGE_OFFLINE: expected 1 or 0, got 'maybe'"):
        hub.pull("kosmos-2")


def test_an_unwritable_cache_is_a_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was pulled is noted in the cache; a file in its place cannot be written into."""
    monkeypatch.setenv("KOSMOS_EDGE_CACHE", str(place / "file"))
    with pytest.raises(KosmosError, match=f"{place}/file"):
        hub.remember_pulled("some/repo", place / "a.gguf")
