"""--kv-type of every command that loads a model, in the config file and in the environment."""

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from helpers.api_model import png, tiny_file
from test_cli import Runner, photo, run  # noqa: F401  (fixtures)

from kosmos_edge import cli, load
from kosmos_edge.cli.config import config_path

Q8_0 = ("--kv-type", "q8_0")


def commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    with click.Context(group) as ctx:
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            assert command is not None
            yield " ".join((*words, name)), command
            if isinstance(command, click.Group):
                yield from commands(command, (*words, name))


def test_every_command_that_loads_a_model_has_it() -> None:
    found = {}
    for name, command in commands(cli.cli):
        options = {word for param in command.params for word in param.opts}
        if "--device" in options:
            found[name] = "--kv-type" in options
    some = {"caption", "read", "batch", "serve", "mcp", "watch", "chat", "bench", "bench quality", "eval ocr"}
    assert some <= set(found)
    assert all(found.values()), found


def test_a_command_uses_it(run: Runner, photo: Path) -> None:  # noqa: F811
    plain = run("generate", "-p", "An image of", "-n", 3, "-v", "-m", tiny_file(), model=False)
    kept = run("generate", "-p", "An image of", "-n", 3, "-v", "-m", tiny_file(), *Q8_0, model=False)
    assert plain.code == kept.code == 0
    assert "keys and values: f32, 4096 bytes for each token" in plain.err
    assert "keys and values: q8_0, 1088 bytes for each token" in kept.err
    with load(tiny_file(), threads=1, kv_type="q8_0") as model:
        told = model.caption(photo, max_tokens=8).token_ids
    for isolation in ("none", "process"):
        done = run(
            "caption", photo, "-n", 8, "-m", tiny_file(), "-f", "json", "--isolation", isolation, *Q8_0, model=False
        )
        assert json.loads(done.out)["token_ids"] == told


def test_a_batch_uses_it(run: Runner, tmp_path: Path) -> None:  # noqa: F811
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    done = run("batch", tmp_path, "-n", 6, "-m", tiny_file(), *Q8_0, model=False)
    with load(tiny_file(), threads=1, kv_type="q8_0") as model:
        told = [model.caption(tmp_path / f"{number}.png", max_tokens=6).token_ids for number in range(3)]
    assert [json.loads(line)["token_ids"] for line in done.out.splitlines()] == told


def test_a_journal_does_not_answer_for_the_other_type(run: Runner, tmp_path: Path) -> None:  # noqa: F811
    """--resume takes known answers, but not those of float keys and values for 8 bits."""
    (tmp_path / "a.png").write_bytes(png())
    words = ("batch", tmp_path / "a.png", "-n", 20, "--logprobs", "-m", tiny_file())
    known = ("--resume", "--journal", tmp_path / "journal.sqlite3")

    def logprobs(*more: object) -> list[float]:
        return json.loads(run(*words, *more, model=False).out)["logprobs"]

    plain, kept = logprobs(), logprobs(*Q8_0)
    assert plain != kept
    assert logprobs(*known) == plain and logprobs(*known, *Q8_0) == kept
    assert logprobs(*known) == plain and logprobs(*known, *Q8_0) == kept


@pytest.mark.parametrize("bad", ["q4_0", "F16", "", "q8_0 "])
def test_other_types_are_refused(run: Runner, photo: Path, bad: str) -> None:  # noqa: F811
    done = run("caption", photo, "--kv-type", bad)
    assert done.code == 2 and "--kv-type" in done.err and "'f16', 'q8_0'" in done.err


def test_config_file_and_variable(
    run: Runner,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.setenv("HOME", str(tmp_path))
    path = config_path()
    assert path is not None
    path.parent.mkdir(parents=True)
    path.write_text('kv-type = "q8_0"\n')
    words = ("generate", "-p", "It", "-n", 2, "-v", "-m", tiny_file())
    assert "keys and values: q8_0" in run(*words, model=False).err
    assert "keys and values: f32" in run(*words, "--kv-type", "f16", model=False).err
    monkeypatch.setenv("KOSMOS_EDGE_KV_TYPE", "f16")
    assert "keys and values: f32" in run(*words, model=False).err
    assert "kv-type = 'q8_0'" in run("doctor", model=False).out
