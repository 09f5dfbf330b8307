"""kosmos-edge batch, and --batch-size of the other commands."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.api_model import grounded_file, png

from kosmos_edge.cli import cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    for seed in range(5):
        (path / f"{seed}.png").write_bytes(png(seed, 50 + 10 * seed, 60))
    (path / "2b.jpg").write_bytes(b"no picture")
    return path


def run(*arguments: object, env: dict[str, str] | None = None):
    model = ["--model", grounded_file(), "--threads", "1", "--max-tokens", "20"]
    return CliRunner().invoke(cli, [str(a) for a in [*arguments, *model]], env=env, standalone_mode=False)


def records(output: str) -> list[dict]:
    out = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    for record in out:
        del record["timings"]
    return out


def test_a_line_per_picture_in_order_whatever_the_size(folder: Path) -> None:
    first = None
    for size in (1, 2, 8):
        done = run("batch", folder, "--batch-size", size, "--logprobs")
        assert done.return_value == 1 and "2b.jpg" in done.stderr
        lines = records(done.stdout)
        assert [Path(line["path"]).name for line in lines] == ["0.png", "1.png", "2.png", "2b.jpg", "3.png", "4.png"]
        assert [line["error"] is None for line in lines] == [True, True, True, False, True, True]
        first = first or lines
        assert lines == first
    env = run("batch", folder, "--logprobs", env={"KOSMOS_EDGE_BATCH_SIZE": "3"})
    assert records(env.stdout) == first
    assert run("batch", folder, env={"KOSMOS_EDGE_BATCH_SIZE": "0"}).exception is not None
    caption = run("caption", folder, "--batch-size", 4, "--logprobs", "--format", "jsonl")
    assert records(caption.stdout) == first


@pytest.mark.parametrize(
    "arguments",
    [
        ("ground", "--prompt", "There is"),
        ("locate", "--phrase", "a dog"),
        ("describe", "--box", "1,1,40,40", "--no-boxes"),
        ("ask", "--question", "which?", "--choice", "a dog", "--choice", "a cat"),
    ],
)
def test_every_task_as_its_own_command(folder: Path, arguments: tuple[str, ...]) -> None:
    task, *options = arguments
    done = run("batch", folder, "--task", task, *options)
    assert done.return_value == 1, done.output
    one = [value for value in options if value not in ("--phrase", "--question")]  # arguments there, options here
    alone = run(task, folder / "1.png", *one, "--format", "jsonl")
    assert alone.return_value == 0, alone.output
    assert records(done.stdout)[1] == records(alone.stdout)[0]


def test_scores(folder: Path) -> None:
    model = ["--model", str(grounded_file())]
    arguments = ["batch", str(folder), "--task", "score", "--text", "a dog", "--text", "a cat", *model]
    done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert [len(line["ranking"]) for line in records(done.stdout)] == [2, 2, 2, 0, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--phrase", "a dog"), "--phrase: not an option of the task caption"),
        (("--task", "locate"), "the task locate needs --phrase"),
        (("--task", "score", "--text", "a dog"), "--max-tokens: not an option of the task score"),
        (("--task", "ask", "--question", "?", "--box", "1,1,2,2"), "--box: not an option of the task ask"),
    ],
)
def test_options_of_other_tasks_are_refused(folder: Path, arguments: tuple[str, ...], what: str) -> None:
    done = run("batch", folder, *arguments)
    assert what in str(getattr(done.exception, "message", done.exception))


def test_drawings_and_fail_fast(folder: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn"
    done = run("batch", folder, "--draw", drawn, "--fail-fast")
    assert done.return_value == 1 and len(records(done.stdout)) == 4
    assert sorted(p.name for p in drawn.iterdir()) == ["0.boxes.png", "1.boxes.png", "2.boxes.png"]


def test_reason_and_classify(folder: Path, tmp_path: Path) -> None:
    asked = ["--task", "reason", "--question", "which?", "--rationale-tokens", "4"]
    answers = records(run("batch", folder, *asked).stdout)
    alone = run("reason", folder / "1.png", "which?", "--rationale-tokens", "4", "--format", "json")
    assert answers[1]["rationale"] == json.loads(alone.stdout)["rationale"] and "rationale" not in answers[3]
    chosen = run("batch", folder / "1.png", *asked, "--choice", "a dog", "--choice", "a cat", "--format", "json")
    assert chosen.exception is not None  # --max-tokens: a choice is its own end
    first = records(run("batch", folder, *asked, "--journal", tmp_path / "j.sqlite", "--resume").stdout)
    again = records(run("batch", folder, *asked, "--journal", tmp_path / "j.sqlite", "--resume").stdout)
    assert first == again == answers
    model = ["--model", str(grounded_file()), "--threads", "1"]
    words = ["--label", "a dog", "--label", "a cat", "--prompt", "It is"]
    ranked = CliRunner().invoke(
        cli, ["batch", str(folder), "--task", "classify", *words, *model], standalone_mode=False
    )
    own = CliRunner().invoke(cli, ["classify", str(folder), *words, *model, "-f", "jsonl"], standalone_mode=False)
    assert records(ranked.stdout) == records(own.stdout) and len(records(own.stdout)) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "classify"), "the task classify needs --label"),
        (("--task", "classify", "--label", "a"), "--max-tokens: not an option of the task classify"),
        (("--task", "reason"), "the task reason needs --question"),
        (("--task", "caption", "--rationale-tokens", "3"), "--rationale-tokens: not an option of the task caption"),
        (("--task", "iq"), "iq needs all the images of one matrix: use kosmos-edge iq, once for each matrix"),
        (("--task", "webqa"), "webqa needs the text of each page beside its screenshot: use kosmos-edge webqa"),
    ],
)
def test_options_of_reason_and_classify(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in str(run("batch", folder, *arguments).exception)
