"""An index of pictures: what it finds, what an update does, what it refuses, and what a kill leaves."""

import hashlib
import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.api_model import png, tiny_file, tiny_model
from helpers.tiny import write_tiny
from models.description import every

import kosmos_edge
from kosmos_edge import cli
from kosmos_edge.apps.index import IndexDamaged, PictureIndex, neighbours, read_maker
from kosmos_edge.apps.index.store import Store
from kosmos_edge.apps.index.updating import Update
from kosmos_edge.apps.words import Words
from kosmos_edge.errors import InvalidRequest, KosmosIOError

Run = Callable[..., SimpleNamespace]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in [name for name in os.environ if name.startswith("KOSMOS_EDGE_")]:
        monkeypatch.delenv(name)

    def call(*words: object) -> SimpleNamespace:
        code = cli.run([str(word) for word in words])
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return call


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five pictures, one of them below, and a text; old enough for their times to be trusted."""
    root = tmp_path / "photos"
    (root / "inner").mkdir(parents=True)
    for number in range(4):
        write(root / f"{number}.png", png(number))
    write(root / "inner" / "4.png", png(4))
    (root / "notes.txt").write_text("no picture")
    return root


def write(path: Path, data: bytes, seconds: float = 100.0) -> Path:
    path.write_bytes(data)
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> kosmos_edge.Model:
    file = tmp_path_factory.mktemp("clip") / "clip.gguf"
    write_tiny(file, tiny=every()["clip_towers"].make(5))
    return kosmos_edge.load(file, threads=1)


def pictures(root: Path) -> list[Path]:
    return sorted(root.rglob("*.png"))


def counts(done: Update) -> tuple[int, int, int, int, int, int]:
    return done.added, done.changed, done.unchanged, done.reused, done.removed, len(done.failed)


def mean_vector(model: kosmos_edge.Model, path: Path) -> np.ndarray:
    encoded = model.encode(path)
    mean = np.frombuffer(encoded.tobytes(), "<f4").reshape(encoded.shape).astype(np.float64).mean(axis=0)
    return mean / np.linalg.norm(mean)


# ---- searching


def test_images_are_ordered_by_the_cosine_of_their_mean_vectors(photos: Path, tmp_path: Path) -> None:
    model, query = tiny_model(), write(tmp_path / "query.png", png(77))
    with PictureIndex(tmp_path / "i", model) as index:
        assert counts(index.update(pictures(photos))) == (5, 0, 0, 0, 0, 0)
        found = index.search_image(query, 10)
        expected = {str(path): float(mean_vector(model, path) @ mean_vector(model, query)) for path in pictures(photos)}
        assert [hit.path for hit in found.hits] == sorted(expected, key=lambda path: -expected[path])
        assert [hit.score for hit in found.hits] == pytest.approx(sorted(expected.values(), reverse=True), abs=1e-5)
        assert (found.by, found.pictures, found.compared, found.notes) == ("cosine", 5, 5, [])
        assert [hit.path for hit in index.search_image(query, 2).hits] == [hit.path for hit in found.hits[:2]]
        assert index.vectors([photos / "3.png"])[0] == pytest.approx(mean_vector(model, photos / "3.png"), abs=1e-6)


def test_identical_images_are_both_found_and_can_be_left_out(photos: Path, tmp_path: Path) -> None:
    copy = write(photos / "copy of 2.png", (photos / "2.png").read_bytes())
    with PictureIndex(tmp_path / "i", tiny_model()) as index:
        assert counts(index.update(pictures(photos))) == (5, 0, 0, 1, 0, 0)
        best = index.search_image(copy, 3).hits
        assert {best[0].path, best[1].path} == {str(copy), str(photos / "2.png")}
        assert [hit.score for hit in best[:2]] == pytest.approx([1, 1], abs=1e-5) and best[2].score < 1 - 1e-5
        others = index.search_image(copy, 3, others=True).hits
        assert len(others) == 3 and others[0] == best[2]
        assert {hit.path for hit in others}.isdisjoint({str(copy), str(photos / "2.png")})
        with pytest.raises(InvalidRequest, match="others: expected the image as a path or bytes"):
            index.search_image(tiny_model().encode(copy), others=True)


def test_a_joint_space_compares_texts_directly(clip: kosmos_edge.Model, photos: Path, tmp_path: Path) -> None:
    with PictureIndex(tmp_path / "i", clip) as index:
        index.update(pictures(photos))
        found = index.search_text("a cat on a table", 5)
        wanted = clip.similarity(pictures(photos), "a cat on a table")
        expected = {str(path): row[0] for path, row in zip(pictures(photos), wanted.cosines, strict=True)}
        assert [hit.path for hit in found.hits] == sorted(expected, key=lambda path: -expected[path])
        assert [hit.score for hit in found.hits] == pytest.approx(sorted(expected.values(), reverse=True), abs=1e-5)
        assert found.by == "cosine" and index.info()["kind"] == "joint"
        with pytest.raises(InvalidRequest, match="captions: this model writes no text"):
            index.update(pictures(photos), captions=True)
        with pytest.raises(InvalidRequest, match="template: expected with a model that writes text"):
            index.search_text("a cat", template="An image of {text}")


def test_texts_rank_images_by_likelihood(photos: Path, tmp_path: Path) -> None:
    model = tiny_model()
    with PictureIndex(tmp_path / "i", model) as index:
        index.update(pictures(photos))
        found = index.search_text("blue yes", 5)
        expected = {str(path): model.score(path, ["blue yes"]).best.logprob_sum for path in pictures(photos)}
        assert [hit.path for hit in found.hits] == sorted(expected, key=lambda path: -expected[path])
        assert [hit.score for hit in found.hits] == pytest.approx(sorted(expected.values(), reverse=True))
        assert (found.by, found.compared) == ("likelihood", 5)
        with pytest.raises(InvalidRequest, match="5 pictures and no captions to choose 2 candidates by"):
            index.search_text("blue", candidates=2)
        with pytest.raises(InvalidRequest, match="template"):
            index.search_text("blue", template="without a place")
        for empty in ("", " \n"):
            with pytest.raises(InvalidRequest, match="text: expected"):
                index.search_text(empty)
        write(photos / "0.png", png(99))
        write(photos / "1.png", b"damaged")
        (photos / "2.png").unlink()
        found = index.search_text("blue yes", 5)
        assert {Path(hit.path).name for hit in found.hits} == {"3.png", "4.png"}
        assert [note.split("; ")[-1] for note in found.notes] == ["not ranked"] * 3


def test_captions_choose_the_candidates(photos: Path, tmp_path: Path) -> None:
    model = tiny_model()
    with PictureIndex(tmp_path / "i", model) as index:
        assert counts(index.update(pictures(photos)[:4])) == (4, 0, 0, 0, 0, 0)
        assert counts(index.update(pictures(photos)[:4], captions=True)) == (0, 0, 4, 0, 0, 0)
        index.update(pictures(photos))
        captions = {path: model.caption(path).text.strip() for path in pictures(photos)[:4]}
        assert {path: index.caption_of(path) for path in captions} == captions
        assert index.caption_of(pictures(photos)[4]) is None
        told = ["a red hat", "blue yes", "a dog", "yes, a blue hat"]
        for path, caption in zip(captions, told, strict=True):
            row = index._store.row(str(path))
            assert row is not None
            index._store.refresh(row.id, row.size, row.time, caption)
        found = index.search_text("blue yes", 5, candidates=2)
        assert {hit.path for hit in found.hits} == {str(photos / "1.png"), str(photos / "3.png")}
        assert found.notes == [
            "the 2 of 5 pictures whose captions are nearest to the text were ranked",
            "1 pictures have no caption in the index and were left out",
        ]


def test_likeness_by_words_is_that_of_its_formula() -> None:
    texts = ["a red red hat", "a dog", "Red, DOG!"]
    idf = {w: math.log(4 / (1 + n)) + 1 for w, n in {"a": 2, "red": 2, "hat": 1, "dog": 2, "zebra": 0}.items()}

    def vector(counts: dict[str, int]) -> dict[str, float]:
        raw = {w: (1 + math.log(n)) * idf[w] for w, n in counts.items()}
        length = math.sqrt(sum(v * v for v in raw.values()))
        return {w: v / length for w, v in raw.items()}

    rows = [vector({"a": 1, "red": 2, "hat": 1}), vector({"a": 1, "dog": 1}), vector({"red": 1, "dog": 1})]
    query = vector({"red": 1, "zebra": 1})
    expected = [sum(row.get(w, 0) * v for w, v in query.items()) for row in rows]
    assert Words(texts).likeness("zebra_red") == pytest.approx(expected)
    assert Words(texts).likeness("...") == [0, 0, 0] and Words([]).likeness("a") == []


# ---- updates


def test_an_update_follows_the_folder(photos: Path, tmp_path: Path) -> None:
    with PictureIndex(tmp_path / "i", tiny_model()) as index:
        index.update(pictures(photos), folders=[photos])
        assert counts(index.update(pictures(photos), folders=[photos])) == (0, 0, 5, 0, 0, 0)
        before = {path.name: index.vectors([path])[0].tobytes() for path in pictures(photos)}
        write(photos / "0.png", png(50), 50)  # changed
        (photos / "1.png").rename(photos / "renamed.png")
        (photos / "2.png").unlink()
        os.utime(photos / "3.png", (1, 1))  # only its time
        write(photos / "new.png", png(51))
        assert counts(index.update(pictures(photos), folders=[photos])) == (1, 1, 2, 1, 2, 0)
        assert sorted(Path(row.path).name for row in index._store.rows()) == [
            "0.png", "3.png", "4.png", "new.png", "renamed.png",
        ]  # fmt: skip
        assert index.vectors([photos / "renamed.png"])[0].tobytes() == before["1.png"]
        assert index.vectors([photos / "0.png"])[0] == pytest.approx(
            mean_vector(tiny_model(), photos / "0.png"), abs=1e-6
        )
        with pytest.raises(InvalidRequest, match=r"2\.png: not in the index"):
            index.vectors([photos / "2.png"])


def test_unchanged_images_are_not_read(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PictureIndex(tmp_path / "i", tiny_model()) as index:
        index.update(pictures(photos))
        recent = write(photos / "recent.png", png(9), seconds=0)  # may change again without a new time
        index.update([recent])
        read = []
        from kosmos_edge.apps.index import updating

        real = updating._read
        monkeypatch.setattr(updating, "_read", lambda path: (read.append(path), real(path))[1])
        index.update(pictures(photos))
        assert read == [str(recent)]


def test_a_changed_image_that_fails_leaves_the_index_and_comes_back(photos: Path, tmp_path: Path) -> None:
    with PictureIndex(tmp_path / "i", tiny_model()) as index:
        index.update(pictures(photos))
        write(photos / "1.png", b"\x89PNG\r\n\x1a\n damaged", 50)
        (photos / "folder.png").mkdir()
        given = [*pictures(photos), photos / "absent.png"]
        done = index.update(given)
        assert counts(done) == (0, 0, 4, 0, 0, 3) and len(index) == 4
        assert all(str(error).startswith(path) or path in str(error) for path, error in done.failed)
        assert {Path(path).name for path, _ in done.failed} == {"1.png", "folder.png", "absent.png"}
        write(photos / "1.png", png(1), 40)
        assert counts(index.update([photos / "1.png"])) == (1, 0, 0, 0, 0, 0)


def test_other_folders_and_empty_ones_are_left_alone(photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "photos2"
    other.mkdir()
    write(other / "x.png", png(60))
    with PictureIndex(tmp_path / "i", tiny_model()) as index:
        index.update([*pictures(photos), other / "x.png"])
        (other / "x.png").unlink()
        assert counts(index.update(pictures(photos), folders=[photos])) == (0, 0, 5, 0, 0, 0)
        assert len(index) == 6
        done = index.update(pictures(photos), folders=[photos, other])  # as if a disk were not mounted
        assert done.removed == 0 and "none of its 1 pictures is there any more" in done.notes[0] and len(index) == 6


def test_names_of_all_kinds(tmp_path: Path, run: Run) -> None:
    root = tmp_path / "Bilder ü 日本 %20 ?#"
    root.mkdir()
    names = ["ä.png", "日本 語.png", "new\nline.png", "-dash.png", "100%#?.png", "🐈.png"]
    if sys.platform == "linux":
        names.append(os.fsdecode(b"latin-\xe4.png"))
    for number, name in enumerate(names):
        write(root / name, png(number))
    index = root / "ü %41 ?.index"
    done = run("index", "build", root, "-o", index, "-m", tiny_file(), "-f", "json")
    assert done.code == 0 and json.loads(done.out)["added"] == len(names)
    for name in names:
        done = run("index", "search", index, root / name, "-k", 1, "-f", "json")
        assert done.code == 0 and json.loads(done.out)["hits"][0]["path"] == str(root / name)


# ---- whose vectors


def test_another_model_is_refused(photos: Path, tmp_path: Path, run: Run) -> None:
    index, other = tmp_path / "i", tmp_path / "other.gguf"
    assert run("index", "build", photos, "-o", index, "-m", tiny_file()).code == 0
    digest = hashlib.sha256(tiny_file().read_bytes()).hexdigest()
    facts = json.loads(run("index", "info", index, "-f", "json").out)
    assert facts["sha256"] == digest and facts["pictures"] == 4 and facts["kind"] == "pooled" and facts["complete"]
    write_tiny(other, tiny=every()["clip_towers"].make(5))
    for words in (("build", photos, "-o", index), ("search", index, photos / "0.png")):
        done = run("index", *words, "-m", other)
        assert done.code == 2 and digest[:16] in done.err and "use that model, or another index" in done.err
    moved = tmp_path / "moved.gguf"  # the same content under another name
    shutil.copy(tiny_file(), moved)
    assert run("index", "search", index, photos / "0.png", "-m", moved).code == 0
    assert run("index", "build", photos, "-o", index, "-m", moved).code == 0
    assert read_maker(index).path == str(moved)  # type: ignore[union-attr]
    moved.unlink()
    done = run("index", "search", index, photos / "0.png")
    assert done.code == 1 and "is not there; name its file with --model" in done.err


def test_a_changed_model_file_is_noticed(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    shutil.copy(tiny_file(), file)
    with kosmos_edge.load(file, threads=1) as model, PictureIndex(tmp_path / "i", model) as index:
        index.update(pictures(photos))
    write_tiny(file, tiny=every()["clip_towers"].make(5))
    with kosmos_edge.load(file, threads=1) as model, pytest.raises(InvalidRequest, match="has the vectors of"):
        PictureIndex(tmp_path / "i", model)


def test_a_default_model_of_the_environment_gives_way(
    photos: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("index", "build", photos, "-o", tmp_path / "i", "-m", tiny_file()).code == 0
    monkeypatch.setenv("KOSMOS_EDGE_MODEL", "nano")
    assert run("index", "search", tmp_path / "i", photos / "0.png").code == 0


def test_defaults_of_other_commands_are_set_aside(
    photos: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = tmp_path / "clip.gguf"
    write_tiny(clip, tiny=every()["clip_towers"].make(5))
    for name, model in (("joint", clip), ("pooled", tiny_file())):
        assert run("index", "build", photos, "-o", tmp_path / name, "-m", model).code == 0
    for name, value in {"TEMPLATE": "An image of {text}", "OTHERS": "1", "MMPROJ": "no.gguf"}.items():
        monkeypatch.setenv(f"KOSMOS_EDGE_{name}", value)
    for name, query in (("joint", "a cat"), ("joint", photos / "0.png"), ("pooled", "a cat")):
        done = run("index", "search", tmp_path / name, query)
        assert done.code == 0, (name, query, done.err)
    done = run("index", "search", tmp_path / "joint", photos / "0.png", "--template", "{text}")
    assert done.code == 2 and "expected with a text" in done.err
    assert run("index", "search", tmp_path / "joint", "a cat", "--template", "{text}").code == 2


def test_characters_that_the_model_does_not_know_are_told(photos: Path, tmp_path: Path, run: Run) -> None:
    index = tmp_path / "i"
    assert run("index", "build", photos, "-o", index, "-m", "nano", "-t", "1").code == 0
    for text, unknown in (("赤い丸", True), ("a red 円", True), ("a red circle", False)):
        done = run("index", "search", index, text, "-t", "1")
        assert done.code == 0 and ("no token for some characters" in done.err) == unknown, text


# ---- two at once


def test_two_processes_may_make_the_same_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both find the file without tables before one makes them."""
    both, create, failed = threading.Barrier(2, timeout=30), Store._create, []

    def together(self: Store) -> None:
        both.wait()
        create(self)

    def work() -> None:
        try:
            Store(tmp_path / "i", "write").close()
        except Exception as error:
            failed.append(error)

    monkeypatch.setattr(Store, "_create", together)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with Store(tmp_path / "i", "read") as store:
        assert len(store) == 0


# ---- damage


def test_files_that_are_no_index(photos: Path, tmp_path: Path, run: Run) -> None:
    picture = tmp_path / "p.png"
    picture.write_bytes(png(3))
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as base:
        base.execute("CREATE TABLE t(x)")
    base.close()
    for file in (picture, foreign):
        content = file.read_bytes()
        for words in (("build", photos, "-o", file, "-m", tiny_file()), ("info", file), ("search", file, picture)):
            done = run("index", *words)
            assert done.code == 2 and "this file is no index of pictures" in done.err, words
        assert file.read_bytes() == content
    assert run("index", "info", photos).code == 2
    assert "no such index" in run("index", "info", tmp_path / "absent").err
    assert not (tmp_path / "absent").exists()
    done = run("index", "build", photos, "-o", tmp_path / "no" / "i", "-m", tiny_file())
    assert done.code == 1 and "its folder does not exist" in done.err
    empty = tmp_path / "empty"
    empty.mkdir()
    done = run("index", "build", empty, "-o", tmp_path / "i", "-m", tiny_file())
    assert done.code == 2 and "no images in this folder" in done.err and not (tmp_path / "i").exists()


def test_a_truncated_index_is_an_error(photos: Path, tmp_path: Path, run: Run) -> None:
    index = tmp_path / "i"
    run("index", "build", photos, "-o", index, "-r", "-m", tiny_file())
    whole = index.read_bytes()
    for size in sorted({1, 50, 100, 4096, *range(8192, len(whole), 4096), len(whole) - 1}):
        index.write_bytes(whole[:size])
        for words in (("search", index, photos / "0.png"), ("build", photos, "-o", index, "-m", tiny_file())):
            done = run("index", *words)
            assert done.code in (1, 2) and "Traceback" not in done.err and str(index) in done.err, (size, done)
            index.write_bytes(whole[:size])
    index.write_bytes(b"")  # as a kill before the first commit leaves it
    assert run("index", "search", index, photos / "0.png").code == 2
    assert run("index", "build", photos, "-o", index, "-m", tiny_file()).code == 0


def test_a_vector_of_another_length_is_no_vector(photos: Path, tmp_path: Path) -> None:
    with PictureIndex(tmp_path / "i", tiny_model()) as index:
        index.update(pictures(photos))
    base = sqlite3.connect(tmp_path / "i")
    base.execute("UPDATE pictures SET vector=x'00000000' WHERE id=3")
    base.commit()
    base.close()
    with PictureIndex(tmp_path / "i", tiny_model()) as index, pytest.raises(IndexDamaged, match="row 3 has 4 bytes"):
        index.search_image(photos / "0.png")


KILLED = """
import sys
from kosmos_edge import load
from kosmos_edge.apps import index
from kosmos_edge.apps.index import updating
updating._COMMIT_SECONDS = 0.0
import time
def on_picture(path, outcome, error):
    print(outcome, flush=True)
    time.sleep(0.05)
with index.PictureIndex(sys.argv[1], load(sys.argv[2], threads=1)) as photos:
    photos.update(sys.argv[3:], on_picture=on_picture)
"""


@pytest.mark.skipif(os.name != "posix", reason="kills by a signal")
def test_a_killed_build_keeps_what_it_had_and_goes_on(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{number}.png", png(number)) for number in range(12)]
    words = [sys.executable, "-c", KILLED, tmp_path / "i", tiny_file(), *paths]
    with subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(5):
            assert child.stdout.readline() == "added\n"
        child.send_signal(signal.SIGKILL)
    with PictureIndex(tmp_path / "i", tiny_model(), read_only=True) as index:
        kept = len(index)
        assert 4 <= kept < 12
        assert any("ended early" in note for note in index.search_image(paths[0]).notes)
    with PictureIndex(tmp_path / "i", tiny_model()) as index:
        assert counts(index.update(paths)) == (12 - kept, 0, kept, 0, 0, 0)
        assert index.search_image(paths[0]).notes == [] and len(index) == 12


def test_an_interrupted_update_keeps_what_it_had(photos: Path, tmp_path: Path) -> None:
    def interrupt(path: str, outcome: str, error: object) -> None:
        if path.endswith("2.png"):
            raise KeyboardInterrupt

    with PictureIndex(tmp_path / "i", tiny_model()) as index:
        with pytest.raises(KeyboardInterrupt):
            index.update(pictures(photos), on_picture=interrupt)
        assert len(index) == 3
        assert counts(index.update(pictures(photos))) == (2, 0, 3, 0, 0, 0)


def test_a_search_does_not_write(photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with PictureIndex(place / "i", tiny_model()) as index:
        index.update(pictures(photos))
    before = (place / "i").read_bytes()
    with PictureIndex(place / "i", tiny_model(), read_only=True) as index:
        assert len(index.search_image(photos / "0.png").hits) == 5
    assert (place / "i").read_bytes() == before and os.listdir(place) == ["i"]
    with pytest.raises(KosmosIOError, match="no such index"):
        PictureIndex(place / "absent", tiny_model(), read_only=True)
    assert os.listdir(place) == ["i"]


# ---- many


def test_equal_cosines_are_ordered_by_age() -> None:
    values = np.zeros((5, 4), np.float32)
    values[:, 0] = [1, 0.5, 1, 0.5, 0.5]
    query = np.array([1, 0, 0, 0], np.float32)
    ids = np.array([9, 8, 7, 6, 5])
    assert neighbours.nearest(ids, values, query, 4) == [(7, 1.0), (9, 1.0), (5, 0.5), (6, 0.5)]
    assert neighbours.nearest(ids, values, query, 3) == [(7, 1.0), (9, 1.0), (5, 0.5)]
    assert len(neighbours.nearest(ids, values, query, 99)) == 5


def fill(index: PictureIndex, count: int, width: int, seed: int) -> np.ndarray:
    """Rows without files, as many as a test wants."""
    values = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    index._store.begin()
    for row in values:
        digest = hashlib.sha256(row.tobytes()).digest()
        index._store.put(f"/none/{digest.hex()}.png", 1, 1, digest, row.tobytes(), None)
    index._store.commit()
    return values


def test_a_graph_finds_what_comparing_all_finds(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("usearch", reason="usearch is not installed (the extra index)")
    graph = tmp_path / "i.hnsw"
    with PictureIndex(tmp_path / "i", tiny_model(), graph_from=1000) as index:
        index.update(pictures(photos))
        assert not graph.exists()
        fill(index, 2000, int(index.info()["width"]), 1)
        index.update(pictures(photos))
        assert graph.exists() and "of 2005 pictures" in index.info()["graph"]
        found = index.search_image(photos / "0.png", 5)
        assert found.notes == [neighbours.APPROXIMATE]
    with PictureIndex(tmp_path / "i", tiny_model()) as index:  # compares all
        exact = index.search_image(photos / "0.png", 5)
    assert exact.notes == [] and [h.path for h in found.hits] == [h.path for h in exact.hits]
    assert [h.score for h in found.hits] == pytest.approx([h.score for h in exact.hits], abs=1e-6)
    # A graph of an earlier state, or a damaged one, is not used, and the next build mends it.
    write(photos / "0.png", png(80), 50)
    content = graph.read_bytes()
    with PictureIndex(tmp_path / "i", tiny_model()) as index:  # another limit: removes nothing that is of use
        index._store.remove(index._store.row(str(photos / "1.png")).id)  # type: ignore[union-attr]
    with PictureIndex(tmp_path / "i", tiny_model(), graph_from=1000) as index:
        assert "of an earlier state" in index.search_image(photos / "2.png", 1).notes[0]
        assert counts(index.update(pictures(photos))) == (1, 1, 3, 0, 0, 0)
        assert index.search_image(photos / "0.png", 1).hits[0].path == str(photos / "0.png")
        assert index.search_image(photos / "0.png", 1).notes == [neighbours.APPROXIMATE]
    assert graph.read_bytes() != content
    graph.write_bytes(content[: len(content) // 2])
    with PictureIndex(tmp_path / "i", tiny_model(), graph_from=1000) as index:
        found = index.search_image(photos / "0.png", 1)
        assert "the graph is missing" in found.notes[0] and found.hits[0].path == str(photos / "0.png")
        index.update(pictures(photos))
        assert index.search_image(photos / "0.png", 1).notes == [neighbours.APPROXIMATE]
        index._store.keep_fact("graph", {"digest": "0", "count": 0, "last": 0})
    with PictureIndex(tmp_path / "i", tiny_model(), graph_from=10**6) as index:
        index.update(pictures(photos))
    assert not graph.exists()


def test_without_usearch_all_are_compared(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with PictureIndex(tmp_path / "i", tiny_model(), graph_from=2) as index:
        index.update(pictures(photos))
        found = index.search_image(photos / "2.png", 1)
        assert found.hits[0].path == str(photos / "2.png") and "pip install 'kosmos-edge[index]'" in found.notes[0]


# ---- the command


def test_the_command_says_what_it_did(photos: Path, tmp_path: Path, run: Run) -> None:
    index = tmp_path / "i"
    write(photos / "bad.png", b"no picture")
    done = run("index", "build", photos, "-r", "-o", index, "-m", tiny_file(), "--with-captions")
    assert done.code == 1 and "bad.png: not an image" in done.err
    assert done.out == (
        f"{index}: 5 images of {tiny_model().name}; 5 added, 0 changed, 0 copies or renamed, 0 unchanged, 0 removed, "
        "1 failed\n"
    )
    (photos / "bad.png").unlink()
    (photos / "inner" / "4.png").unlink()
    done = run("index", "build", photos, "-o", index, "-f", "json")
    answer = json.loads(done.out)
    assert done.code == 0 and (answer["unchanged"], answer["removed"], answer["failed"]) == (4, 1, [])
    lines = run("index", "search", index, photos / "1.png", "-k", 2).out.splitlines()
    assert len(lines) == 2 and lines[0] == f"1.0000\t{photos / '1.png'}"
    found = json.loads(run("index", "search", index, "blue", "-f", "json").out)
    assert found["by"] == "likelihood" and len(found["hits"]) == 4
    assert found["hits"][0]["caption"] == tiny_model().caption(found["hits"][0]["path"]).text.strip()
    done = run("index", "search", index, "nowhere.png")
    assert done.code == 1 and "nowhere.png: No such file" in done.err
    assert json.loads(run("index", "search", index, "nowhere.png", "--query-is", "text", "-f", "json").out)["hits"]
    assert run("index", "search", index, "blue", "--others").code == 2
    assert run("index", "build", "-", "-o", index).code == 2
    facts = dict(line.split("\t") for line in run("index", "info", index).out.splitlines())
    assert facts["captions"] == "4" and facts["graph"] == "none: all vectors are compared"
