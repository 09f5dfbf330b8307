"""kosmos-edge eval: options, files, reports. What a model reads is made up here."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_cli import Runner

from kosmos_edge import hub, loading
from kosmos_edge.results import Result


class Reader:
    """Reads the truth beside each picture, without its letters e."""

    name = "reader"
    model_info: dict[str, Any] = {"prompts": {}}  # noqa: RUF012
    metadata: dict[str, Any] = {}  # noqa: RUF012
    loaded: list[tuple[Path, dict[str, Any]]]

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def batch(self, images: Iterable[str], task: str, *, batch_size: int, **arguments: Any) -> Iterator[Result]:
        assert task == "read"
        for image in images:
            yield Result(Path(image).with_suffix(".txt").read_text().replace("e", "")[: arguments.get("max_tokens")])


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    for name in [name for name in os.environ if name.startswith("KOSMOS_EDGE_")]:
        monkeypatch.delenv(name)
    return Runner(capsys)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    made = Reader()
    made.loaded = []

    def load(path: Path, **options: Any) -> Reader:
        made.loaded.append((Path(path), options))
        return made

    monkeypatch.setattr(loading, "load", load)
    monkeypatch.setattr(hub, "default_reader", lambda: ("nano", "a file that is here"))
    return made


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(5):
        Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"line e{number}")
    return folder


def test_a_report_beside_the_published_figures(run: Runner, reader: Reader, data: Path) -> None:
    done = run("eval", "ocr", "--data", data, "-t", "2", model=False)
    assert (done.code, done.err) == (0, ""), done.err
    lines = done.out.splitlines()
    assert lines[0] == "# ocr: 5 items, reader"
    row = next(line for line in lines if line.startswith("| cer"))
    assert [cell.strip() for cell in row.split("|")[2:4]] == ["28.6 [28.6, 28.6]", "-"]  # 2 of 7
    assert "published: Receipt" in done.out and "OCREval" in done.out
    ((path, options),) = reader.loaded
    assert path.name == "nano-q4_k_m.gguf" and options == {
        "device": "auto",
        "threads": 2,
        "kv_type": "f16",
        "mmproj": None,
    }


def test_json_of_a_subset(run: Runner, reader: Reader, data: Path) -> None:
    done = run("eval", "ocr", "--data", data, "--limit", "3", "--seed", "7", "-n", "6", "-f", "json", model=False)
    record = json.loads(done.out)
    assert done.code == 0
    assert {"task", "n", "metrics", "published", "model", "type", "prompt", "seconds"} <= set(record)
    assert (record["task"], record["n"], record["subset_of"], record["type"]) == ("ocr", 3, 5, "q4_k_m")
    assert record["metrics"]["cer"]["value"] == pytest.approx(2 / 7) and len(record["metrics"]["cer"]["ci95"]) == 2
    assert record["settings"]["arguments"] == {"max_tokens": 6}


def test_items_are_written_and_taken_up_again(run: Runner, reader: Reader, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    words = ("eval", "ocr", "--data", data, "--items", path, "-f", "json", "-v")
    first = run(*words, model=False)
    assert first.code == 0 and len(path.read_text().splitlines()) == 6
    assert "q4_k_m: 5 of 5, about 0 s left" in first.err
    again = run(*words, model=False)
    assert again.code == 2 and "--resume" in again.err and len(again.err.splitlines()) == 1
    resumed = run(*words, "--resume", model=False)
    assert resumed.code == 0 and json.loads(resumed.out)["computed"] == 0
    assert json.loads(resumed.out)["metrics"] == json.loads(first.out)["metrics"]


def test_an_interrupted_run_says_how_to_go_on(
    run: Runner, reader: Reader, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = tmp_path / "items.jsonl", reader.batch

    def interrupted(*args: Any, **options: Any) -> Iterator[Result]:
        for number, answer in enumerate(whole(*args, **options)):
            if number == 2:
                raise KeyboardInterrupt
            yield answer

    monkeypatch.setattr(reader, "batch", interrupted)
    done = run("eval", "ocr", "--data", data, "--items", path, model=False)
    assert done.code == 130 and done.out == "" and len(path.read_text().splitlines()) == 3
    assert done.err == f"kosmos-edge: interrupted; finished items are in {path}; --resume goes on with them\n"
    monkeypatch.setattr(reader, "batch", whole)
    resumed = run("eval", "ocr", "--data", data, "--items", path, "--resume", "-f", "json", model=False)
    assert json.loads(resumed.out)["computed"] == 3


def test_several_types(run: Runner, reader: Reader, data: Path, tmp_path: Path) -> None:
    """The packaged model is stored as q4_k_m; q8_0 is made of it and removed again."""
    words = ("eval", "ocr", "--data", data, "--types", "q4_k_m,q8_0", "--work", tmp_path, "-f", "json")
    done = run(*words, model=False)
    record = json.loads(done.out)
    assert done.code == 0 and [one["type"] for one in record["types"]] == ["q4_k_m", "q8_0"]
    assert record["differences"][0]["metrics"]["cer"] == {"value": 0, "ci95": [0, 0], "p": 1}
    made = [path for path, _ in reader.loaded]
    assert made[0].name == "nano-q4_k_m.gguf" and made[1].is_relative_to(tmp_path) and not made[1].exists()


def test_list(run: Runner) -> None:
    done = run("eval", "list", model=False)
    assert done.code == 0 and done.out.startswith("ocr\t") and "FUNSD" in done.out and "\nmarkdown\t" in done.out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["ocr"], "Missing option '--data'"),
        (["vqa", "--data", "DATA"], "No such command 'vqa'"),
        (["ocr", "--data", "DATA/nothing"], "is not a folder"),
        (["relative-size", "--data", "DATA/nothing"], "is not a folder"),
        (["relative-size", "--data", "DATA/0.txt"], "is not a folder"),
        (["markdown", "--data", "DATA"], "there is no 0.md beside it"),
        (["ocr", "--data", "DATA", "--limit", "0"], "--limit"),
        (["ocr", "--data", "DATA", "--resume"], "--resume needs the --items"),
        (["ocr", "--data", "DATA", "--types", "q4_k_m,q9"], "'q9' is not one of"),
        (["ocr", "--data", "DATA", "-f", "csv"], "'csv' is not one of 'md', 'json'"),
        (["ocr", "--data", "DATA", "-m", "DATA"], "--types says how to store it"),
    ],
)
def test_wrong_usage(run: Runner, reader: Reader, data: Path, words: list[str], reason: str) -> None:
    done = run("eval", *(word.replace("DATA", str(data)) for word in words), model=False)
    assert done.code == 2 and reason in " ".join(done.err.split()) and done.out == ""
    assert reader.loaded == []
