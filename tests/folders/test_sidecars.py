"""batch --sidecar: what is written, what is left alone, what is computed again."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click import UsageError
from click.testing import CliRunner
from helpers.api_model import grounded_file, png

from kosmos_edge import InvalidRequest, Model
from kosmos_edge.cli import cli
from kosmos_edge.inference import batch_worker

MODEL = ["--model", str(grounded_file()), "--threads", "1", "--max-tokens", "6", "--no-boxes"]


class Done:
    """A run in a folder with a journal of its own."""

    def __init__(self, *arguments: object, model: list[str] | None = None, env: dict[str, str] | None = None) -> None:
        words = [str(a) for a in arguments] + (MODEL if model is None else model)
        result = CliRunner().invoke(cli, words, standalone_mode=False, env=env)
        if result.exception is not None:
            raise result.exception
        self.code, self.stderr, self.stdout = result.return_value, result.stderr, result.stdout

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KOSMOS_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(4):
        (folder / f"{seed}.png").write_bytes(png(seed, 40 + 10 * seed, 50))
    return folder


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures that are decoded."""
    names: list[str] = []
    prepare = batch_worker.BatchWorker._prepare

    def counting(self: Any, source: Any) -> Any:
        names.append(os.path.basename(str(source)))
        return prepare(self, source)

    monkeypatch.setattr(batch_worker.BatchWorker, "_prepare", counting)
    return names


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_text_beside_each_picture(photos: Path) -> None:
    before = contents(photos)
    done = Done("batch", photos, "--sidecar", "txt", "--trigger", "sks", "--capital", "--full-stop")
    assert done.code == 0
    after = contents(photos)
    assert {name: after.pop(name) for name in before} == before
    assert sorted(after) == ["0.txt", "1.txt", "2.txt", "3.txt"]
    for row in done.rows:
        caption = after[Path(row["path"]).stem + ".txt"].decode()
        assert caption == row["caption"] + "\n" and caption.startswith("sks, ") and caption.endswith(".\n")
        assert row["text"].strip(" ;").lower() in caption.lower()


@pytest.mark.parametrize("kind", ["caption", "json", "xmp"])
def test_other_kinds_and_names(photos: Path, kind: str) -> None:
    done = Done("batch", photos / "0.png", "--sidecar", kind, "--sidecar-names", "full")
    text = (photos / f"0.png.{kind}").read_text()
    if kind == "json":
        assert json.loads(text) == done.rows[0]
    else:
        assert done.rows[0]["text"] in text
    default = Done("batch", photos / "0.png", "--sidecar", kind, *(["--skip"] if kind == "xmp" else []))
    assert (photos / f"0.{kind}").exists() == (kind != "xmp")
    assert len(default.rows) == (0 if kind == "xmp" else 1)


def test_existing_sidecars_are_refused_kept_replaced_or_added_to(photos: Path, opened: list[str]) -> None:
    (photos / "1.txt").write_text("1girl, solo\n")
    with pytest.raises(InvalidRequest, match=r"1 sidecar exists already .*1\.txt.*--skip"):
        Done("batch", photos, "--sidecar", "txt")
    assert not (photos / "0.txt").exists() and opened == []
    skipped = Done("batch", photos, "--sidecar", "txt", "--skip")
    assert [Path(row["path"]).name for row in skipped.rows] == ["0.png", "2.png", "3.png"]
    assert sorted(opened) == ["0.png", "2.png", "3.png"] and "1 left out" in skipped.stderr
    assert (photos / "1.txt").read_text() == "1girl, solo\n"
    one = Done("batch", photos / "1.png", "--sidecar", "txt", "--append").rows[0]["text"]
    assert (photos / "1.txt").read_text() == f"1girl, solo, {one}\n"
    Done("batch", photos, "--sidecar", "txt", "--overwrite")
    assert (photos / "1.txt").read_text() == f"{one}\n"


def test_a_run_is_continued(photos: Path, opened: list[str], tmp_path: Path) -> None:
    (photos / "2.png").rename(tmp_path / "2.png")
    Done("batch", photos, "--sidecar", "txt")
    (tmp_path / "2.png").rename(photos / "2.png")
    (photos / "3.txt").write_text("edited by hand")
    (photos / "0.txt").unlink()
    opened.clear()
    out = tmp_path / "all.jsonl"
    done = Done("batch", photos, "--sidecar", "txt", "--resume", "-o", out)
    assert opened == ["2.png"] and "3 answered before" in done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [Path(row["path"]).name for row in rows] == ["0.png", "1.png", "2.png", "3.png"]
    for row in rows[:3]:
        assert (photos / row["path"]).with_suffix(".txt").read_text() == row["text"] + "\n"
    assert (photos / "3.txt").read_text() == "edited by hand"
    # Another request is another answer, and what is there is not its.
    with pytest.raises(InvalidRequest, match="exists"):
        Done("batch", photos / "0.png", "--sidecar", "json", "--resume", "-o", out)
    opened.clear()
    again = Done("batch", photos / "0.png", "--resume", "--length", "long")
    assert opened == ["0.png"] and len(again.rows) == 1
    opened.clear()
    assert Done("batch", photos / "0.png", "--resume", "--length", "long").rows == again.rows and opened == []
    (photos / "0.png").rename(photos / "renamed.png")
    (renamed,) = Done("batch", photos / "renamed.png", "--resume", "--length", "long").rows
    assert opened == [] and renamed == {**again.rows[0], "path": str(photos / "renamed.png")}


def test_equal_pictures_are_computed_once(photos: Path, opened: list[str]) -> None:
    (photos / "1b.png").write_bytes((photos / "1.png").read_bytes())
    (photos / "9.png").write_bytes((photos / "0.png").read_bytes())
    (photos / "bad.png").write_bytes(b"no picture")
    (photos / "bad2.png").write_bytes(b"no picture")
    done = Done("batch", photos, "--sidecar", "txt", "--sidecar-names", "full")
    assert sorted(opened) == ["0.png", "1.png", "2.png", "3.png", "bad.png"] and done.code == 1
    texts = {Path(row["path"]).name: row["text"] for row in done.rows}
    assert texts["1b.png"] == texts["1.png"] and texts["9.png"] == texts["0.png"]
    assert (photos / "1b.png.txt").read_bytes() == (photos / "1.png.txt").read_bytes()
    assert "which failed" in done.rows[-1]["error"] and not (photos / "bad2.png.txt").exists()
    left = Done("batch", photos, "--dedupe")
    assert [Path(row["path"]).name for row in left.rows] == ["0.png", "1.png", "2.png", "3.png", "bad.png"]
    assert "3 left out" in left.stderr


def test_shards_make_the_whole(photos: Path) -> None:
    parts = [Done("batch", photos, "--shard", f"{i}/3").rows for i in (1, 2, 3)]
    names = [row["path"] for part in parts for row in part]
    assert sorted(names) == [str(photos / f"{i}.png") for i in range(4)]


def test_what_makes_no_sense_is_refused(photos: Path) -> None:
    (photos / "0.jpg").write_bytes(b"")
    with pytest.raises(InvalidRequest, match="would share the sidecar"):
        Done("batch", photos, "--sidecar", "txt")
    with pytest.raises(InvalidRequest, match="append: goes with"):
        Done("batch", photos, "--sidecar", "json", "--append")
    with pytest.raises(InvalidRequest, match="its answers are boxes"):
        Done("batch", photos, "--task", "locate", "--phrase", "a dog", "--sidecar", "txt", model=MODEL[:-1])
    for words, what in [
        (("--skip",), "--skip: needs --sidecar"),
        (("--sidecar", "txt", "--skip", "--append"), "exclude each other"),
        (("--sidecar", "txt", "--keywords"), "--keywords: goes with"),
    ]:
        with pytest.raises(UsageError, match=what):
            Done("batch", photos, *words)
    with pytest.raises(UsageError, match="no place beside stdin"):
        Done("batch", "-", "--sidecar", "txt")
    assert Done("batch", photos / "1.png", env={"KOSMOS_EDGE_SKIP": "1", "KOSMOS_EDGE_KEYWORDS": "1"}).code == 0


def test_the_journal_is_where_it_was_asked_for(photos: Path, tmp_path: Path, cache: Path) -> None:
    Done("batch", photos / "0.png", "--capital")  # words alone need no journal
    assert not cache.exists()
    Done("batch", photos / "0.png", "--journal", tmp_path / "own.sqlite3")
    assert (tmp_path / "own.sqlite3").exists() and not cache.exists()
    Done("batch", photos / "0.png", "--sidecar", "txt")
    assert (cache / "journal.sqlite3").exists()


def test_drawings_and_ranked_texts(photos: Path, tmp_path: Path) -> None:
    ranked = ["--model", str(grounded_file())]
    words = ("batch", photos, "--task", "score", "--text", "a dog", "--text", "a cat", "--sidecar", "txt")
    best = [row["ranking"][0]["text"] for row in Done(*words, model=ranked).rows]
    assert [(photos / f"{i}.txt").read_text().strip() for i in range(4)] == best
    Done("batch", photos, "--resume", "--draw", tmp_path / "drawn", model=MODEL[:-1])
    assert len(list((tmp_path / "drawn").iterdir())) == 4


def test_from_python(photos: Path, tmp_path: Path) -> None:
    import kosmos_edge
    from kosmos_edge.folders import FolderRun, Journal, Sidecars, Wording, file_entry

    model: Model = kosmos_edge.load(grounded_file(), threads=1)
    sidecars = Sidecars("txt", wording=Wording(full_stop=True))
    with Journal(tmp_path / "journal") as journal:
        run = FolderRun(model, "caption", {"max_tokens": 3}, journal, (str(model.path),), "1", sidecars=sidecars)
        found = list(run.outcomes(file_entry(path) for path in sorted(photos.iterdir())))
    assert [outcome.sidecar for outcome in found] == [str(photos / f"{i}.txt") for i in range(4)]
    assert all((photos / f"{i}.txt").read_text().endswith(".\n") for i in range(4))


def test_a_file_that_changes_while_it_is_read_has_failed(photos: Path, tmp_path: Path) -> None:
    """Its answer would be kept under the content that it had before, and be given to copies of that."""
    import kosmos_edge
    from kosmos_edge.folders import Entry, FolderRun, Journal, Sidecars, file_entry

    model: Model = kosmos_edge.load(grounded_file(), threads=1)
    path = photos / "1.png"
    before = path.read_bytes()
    plain = file_entry(path)

    def changes() -> str:
        path.write_bytes(png(77))
        return str(path)

    def outcomes(entry: Entry, resume: bool) -> list[Any]:
        arguments = {"max_tokens": 3}
        run = FolderRun(model, "caption", arguments, journal, (str(model.path),), "1", resume, Sidecars("txt"))
        return list(run.outcomes([entry]))

    with Journal(tmp_path / "journal") as journal:
        (found,) = outcomes(Entry(plain.name, plain.path, changes, plain.digest), resume=False)
        assert found.answer is not None and "has changed while it was read" in str(found.answer.error)
        assert not (photos / "1.txt").exists()
        path.write_bytes(before)
        (found,) = outcomes(plain, resume=True)
        assert not found.known and found.answer is not None and found.answer.error is None
        (found,) = outcomes(plain, resume=True)
        assert found.known
