"""A run over scripted workers, and the folder of parts: every image once, whatever dies."""

import io
import os
import pickle
import tarfile
from collections import Counter, deque
from pathlib import Path
from typing import Any

import pytest
from helpers.api_model import grounded_file, png
from helpers.tar_files import make_tar

from kosmos_edge import ImageDecodeError, InvalidRequest, KosmosIOError, WorkerDied
from kosmos_edge.distributed import Captioner, dispatch
from kosmos_edge.distributed.dispatch import Reply, Run, Task
from kosmos_edge.distributed.items import Columns, Item, items_of, open_items
from kosmos_edge.distributed.rows import RowMaker
from kosmos_edge.folders import Wording
from kosmos_edge.folders.tars import tar_entries, tar_places
from kosmos_edge.images import Unusable


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch.time, "sleep", lambda seconds: None)


def row(item: Item, error: str | None = None) -> dict[str, Any]:
    """A row as RowMaker makes it."""
    text = "" if error else f"about {item.name}"
    values = {"path": item.name, "caption": text, "text": text, "entities": [], "width": 1, "height": 1, "model": "m"}
    return values | {"error": error, "key": item.key, "copy": item.copy, "finish_reason": "stop"}


class Scripted:
    """Workers that answer the newest task first, and die of some images."""

    def __init__(self, count: int = 3, poison: tuple[str, ...] = (), bad: tuple[str, ...] = ()) -> None:
        self.count, self.poison, self.bad = count, poison, bad
        self.tasks: list[list[Task]] = [[] for _ in range(count)]
        self.computed: Counter[str] = Counter()
        self.turn = 0
        self.interrupt_after = -1
        self.lose = deque[int]()  # workers that die once, at this many calls

    def send(self, task: Task) -> None:
        min(self.tasks, key=len).append(task)

    def receive(self) -> list[Reply]:
        self.turn += 1
        if self.turn == self.interrupt_after:
            raise KeyboardInterrupt
        mine = next(tasks for tasks in reversed(self.tasks) if tasks)
        names = {item.name for item in mine[0].items}
        lost = bool(self.lose) and self.lose[0] == self.turn
        if lost or names & set(self.poison):
            if lost:
                self.lose.popleft()
            taken = mine[:]
            mine.clear()
            return [Reply(task, None, suspect=place == 0) for place, task in enumerate(taken)]
        task = mine.pop(0)
        self.computed.update(names)
        return [Reply(task, [row(item, "broken" if item.name in self.bad else None) for item in task.items])]

    def failed_row(self, item: Item, error: Exception) -> dict[str, Any]:
        return row(item, str(error))


class Kept:
    """Parts in memory."""

    def __init__(self) -> None:
        self.done: set[tuple[str, int]] = set()
        self.failed: dict[tuple[str, int], str] = {}
        self.parts: dict[str, list[dict[str, Any]]] = {}

    def write(self, number: int, rows: list[dict[str, Any]]) -> str:
        name, more = f"{number:03d}", 0
        while name in self.parts:
            more += 1
            name = f"{number:03d}-{more}"
        self.parts[name] = list(rows)
        return name

    def mend(self, name: str, rows: list[dict[str, Any]]) -> None:
        new = {(one["path"], one["copy"]): one for one in rows}
        self.parts[name] = [new.get((one["path"], one["copy"]), one) for one in self.parts[name]]

    def again(self) -> "Kept":
        """What the next run finds."""
        other = Kept()
        other.parts = {name: list(rows) for name, rows in self.parts.items()}
        for name, rows in other.parts.items():
            for one in rows:
                if one["error"] is None:
                    other.done.add((one["path"], one["copy"]))
                else:
                    other.failed[one["path"], one["copy"]] = name
        return other

    @property
    def names(self) -> list[str]:
        return [one["path"] for name in sorted(self.parts) for one in self.parts[name]]


NAMES = [f"{i:03d}.png" for i in range(100)]


def images(names: list[str] = NAMES) -> list[Item]:
    return list(items_of([(name, name, "") for name in names], Columns()))


def run(workers: Any, parts: Any, names: list[str] = NAMES, **more: Any) -> Run:
    settings = {"task_rows": 4, "part_rows": 10, **more}
    return Run(workers, parts, lambda one: None, **settings)


def test_every_image_once_and_in_order() -> None:
    workers, parts = Scripted(), Kept()
    counts = run(workers, parts).run(images())
    assert parts.names == NAMES and len(parts.parts) == 10
    assert (counts.done, counts.failed, counts.known, counts.deaths) == (100, 0, 0, 0)


def test_a_worker_that_dies_loses_and_doubles_nothing() -> None:
    workers, parts = Scripted(), Kept()
    workers.lose.extend([2, 3, 9, 20])
    counts = run(workers, parts).run(images())
    assert parts.names == NAMES and counts.deaths == 4 and counts.failed == 0
    assert set(workers.computed.values()) == {1}


def test_an_image_that_kills_its_worker_is_a_row_with_an_error() -> None:
    workers, parts = Scripted(poison=("017.png", "018.png", "090.png")), Kept()
    counts = run(workers, parts).run(images())
    assert parts.names == NAMES and counts.failed == 3
    errors = {one["path"]: one["error"] for rows in parts.parts.values() for one in rows if one["error"]}
    assert set(errors) == {"017.png", "018.png", "090.png"} and "the worker died" in errors["017.png"]


def test_workers_that_only_die_end_the_run() -> None:
    parts = Kept()
    with pytest.raises(WorkerDied, match="none has answered"):
        run(Scripted(poison=tuple(NAMES)), parts).run(images())
    assert sum(len(rows) for rows in parts.parts.values()) <= 12


def test_what_was_computed_is_kept_when_the_run_is_interrupted() -> None:
    workers, parts = Scripted(), Kept()
    workers.interrupt_after = 8
    with pytest.raises(KeyboardInterrupt):
        run(workers, parts).run(images())
    assert sorted(parts.names) == sorted(workers.computed) and 0 < len(parts.names) < 100
    second, resumed = Scripted(), parts.again()
    counts = run(second, resumed).run(images())
    assert counts.known == len(parts.names) and sorted(resumed.names) == NAMES
    assert not set(second.computed) & set(workers.computed)
    third = Scripted()
    assert run(third, resumed.again()).run(images()).known == 100 and not third.computed


def test_images_that_failed_are_computed_again_in_their_part() -> None:
    parts = Kept()
    run(Scripted(bad=("003.png", "044.png")), parts).run(images())
    resumed, second = parts.again(), Scripted(bad=("044.png",))
    counts = run(second, resumed).run(images())
    assert resumed.names == NAMES and set(second.computed) == {"003.png", "044.png"}
    assert (counts.known, counts.failed) == (98, 1)
    assert [one["path"] for rows in resumed.parts.values() for one in rows if one["error"]] == ["044.png"]


def test_new_images_and_another_size_of_parts_when_it_resumes() -> None:
    parts = Kept()
    run(Scripted(), parts).run(images(NAMES[::2]))
    resumed = parts.again()
    run(Scripted(), resumed, part_rows=7).run(images())
    assert sorted(resumed.names) == NAMES


def test_the_same_name_twice_is_two_rows() -> None:
    names = ["a.png", "b.png", "a.png", "a.png"]
    items = images(names)
    assert [item.identity for item in items] == [("a.png", 0), ("b.png", 0), ("a.png", 1), ("a.png", 2)]
    parts = Kept()
    run(Scripted(), parts).run(items[:3])
    resumed = parts.again()
    assert run(Scripted(), resumed).run(images(names)).known == 3
    assert sorted(resumed.names) == sorted(names)


# ---- images in other files


MEMBERS = {
    "a/0.png": png(1, 40, 50),
    "a/0.cls": b"3",
    "b.notes.txt": b"no picture",
    "1.v2.png": png(2, 50, 50),
    "1.mask.png": png(3, 50, 50),
    "2.jpg": b"damaged",
}


def test_the_places_of_a_tar_file_are_its_entries(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "shard.tar", MEMBERS)
    entries = list(tar_entries(str(path)))
    places = list(tar_places(str(path)))
    assert [name for name, *_ in places] == [entry.name for entry in entries]
    data = path.read_bytes()
    assert [data[at : at + size] for _, _, at, size in places] == [entry.load() for entry in entries]
    assert [key for _, key, *_ in places] == ["a/0", "1", "2"]


@pytest.mark.parametrize(("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz")])
def test_tar_files_in_a_worker(tmp_path: Path, suffix: str, mode: str) -> None:
    path = make_tar(tmp_path / f"shard{suffix}", MEMBERS, mode)
    items = pickle.loads(pickle.dumps(list(items_of([(str(path), str(path), "")], Columns()))))
    assert [(item.key, image) for item in items for _, image in open_items([item], Columns())] == [
        ("a/0", MEMBERS["a/0.png"]),
        ("1", MEMBERS["1.v2.png"]),
        ("2", b"damaged"),
    ]
    maker = RowMaker(Captioner(grounded_file(), threads=1, max_tokens=4), Columns(), Wording(trigger="sks"))
    rows = maker.answer(items)
    assert [one["path"] for one in rows] == [f"{path}/{name}" for name in ("a/0.png", "1.v2.png", "2.jpg")]
    assert [one["error"] is None for one in rows] == [True, True, False]
    assert rows[0]["caption"].startswith("sks, ") and rows[2]["caption"] == "" and rows[2]["finish_reason"] == "error"


def test_damage_is_a_row_behind_what_came_before(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "cut.tar", MEMBERS)
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        member = tar.getmember("1.v2.png")
    path.write_bytes(whole[: member.offset_data + 10])
    names = [(str(path), str(path), ""), ("none.tar", str(tmp_path / "none.tar"), ""), ("gone.png", None, "refused")]
    items = list(items_of(names, Columns()))
    assert [bool(item.problem) for item in items] == [False, True, True, True]
    assert "damaged tar file" in items[1].problem and "No such file" in items[2].problem
    assert isinstance(next(open_items(items[3:], Columns()))[1], Unusable)
    make_tar(path, {"a/0.png": b"x"})  # and between plan and run
    at = Item("x", "x", str(path), offset=len(whole), size=5)
    with pytest.raises(ImageDecodeError, match="has become shorter"):
        raise next(open_items([at], Columns()))[1].error


@pytest.mark.parametrize(("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz")])
def test_a_link_in_a_tar_file_is_a_row_with_an_error(tmp_path: Path, suffix: str, mode: Any) -> None:
    (tmp_path / "0.png").write_bytes(png(1, 40, 50))
    (tmp_path / "1.png").hardlink_to(tmp_path / "0.png")
    (tmp_path / "2.png").symlink_to("0.png")
    path = tmp_path / f"links{suffix}"
    with tarfile.open(path, mode) as tar:
        for name in ("0.png", "1.png", "2.png"):
            tar.add(tmp_path / name, name)
    items = list(items_of([(str(path), str(path), "")], Columns()))
    assert [item.name for item in items] == [f"{path}/{n}.png" for n in range(3)]
    assert [bool(item.problem) for item in items] == [False, True, True]
    images = [image for _, image in open_items(items, Columns())]
    assert images[0] == (tmp_path / "0.png").read_bytes() and "is a link" in str(images[1].error)


@pytest.mark.parametrize(("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz")])
def test_the_same_name_again_in_a_tar_file_is_another_image(tmp_path: Path, suffix: str, mode: Any) -> None:
    path = tmp_path / f"twice{suffix}"
    with tarfile.open(path, mode) as tar:
        for number, name in enumerate(("0.png", "0.txt", "0.png", "0.txt", "0.mask.png")):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(bytes([number])))
    entries = list(tar_entries(str(path)))
    assert [(entry.load(), entry.about.files[0]) for entry in entries] == [
        (b"\0", ("txt", b"\1")),
        (b"\2", ("txt", b"\3")),
    ]
    items = list(items_of([(str(path), str(path), "")], Columns()))
    assert [(item.key, item.copy) for item in items] == [("0", 0), ("0", 1)]
    assert [image for _, image in open_items(items, Columns())] == [b"\0", b"\2"]


# ---- with pyarrow


def test_rows_of_tables_in_a_worker(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet as parquet

    (tmp_path / "b.png").write_bytes(png(2, 40, 50))
    path = tmp_path / "in.parquet"
    cells = [{"bytes": bytes([i]), "path": None} for i in range(100)]
    cells[7], cells[8] = {"bytes": None, "path": "b.png"}, None
    table = arrow.table(
        {"image": cells, "id": [None if i == 66 else f"k{i}" for i in range(100)], "n": list(range(100))}
    )
    parquet.write_table(table, path, row_group_size=33)
    given = [(str(path), str(path), "")]
    items = list(items_of(given, Columns("image", "id")))
    assert [item.name for item in items] == [f"{path}#{i}" for i in range(100)]
    some = [items[i] for i in (99, 7, 8, 33, 32, 66, 7)]
    found = list(open_items(some, Columns("image", "id")))
    assert [key for key, _ in found] == ["k99", "k7", "k8", "k33", "k32", None, "k7"]
    assert [image for _, image in found[3:6]] == [b"\x21", b"\x20", b"\x42"]
    assert found[1][1] == str(tmp_path / "b.png") and isinstance(found[2][1], Unusable)
    assert next(open_items(items[5:6], Columns("image", "n")))[0] == "5"
    assert next(iter(items_of(given, Columns()))).key == "0"
    with pytest.raises(InvalidRequest, match=r"no column 'picture'; it has image, id, n \(--image-column\)"):
        list(items_of(given, Columns("picture")))
    with pytest.raises(InvalidRequest, match=r"no column 'key'.*--key-column"):
        list(items_of(given, Columns("image", "key")))
    parquet.write_table(table.slice(0, 0), path)
    assert list(items_of(given, Columns())) == []
    assert "shorter" in str(next(open_items(items[5:6], Columns()))[1].error)
    path.unlink()
    assert "cannot be read" in str(next(open_items(items[5:6], Columns()))[1].error)


def test_a_text_that_is_not_utf8_fails_its_row(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet as parquet

    places, text = arrow.py_buffer(bytes([0, 0, 0, 0, 3, 0, 0, 0, 6, 0, 0, 0])), arrow.py_buffer(b"abc\xff\xfe\xfd")
    keys = arrow.Array.from_buffers(arrow.string(), 2, [None, places, text])
    path = tmp_path / "in.parquet"
    parquet.write_table(arrow.table({"image": [b"0", b"1"], "key": keys}), path)
    columns = Columns("image", "key")
    found = list(open_items(items_of([(str(path), str(path), "")], columns), columns))
    assert found[0] == ("abc", b"0") and found[1][0] is None and "not UTF-8" in str(found[1][1].error)
    parquet.write_table(arrow.table([arrow.array([b"0"])] * 2, ["image", "image"]), path)
    with pytest.raises(InvalidRequest, match=r"2 columns 'image'.*--image-column"):
        list(items_of([(str(path), str(path), "")], Columns()))


REQUEST = {"task": "caption", "model": "m", "version": "1"}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    return str(tmp_path / "deep" / "out")


def parts_of(folder: str, request: dict[str, Any] | None = None, **more: Any) -> Any:
    from kosmos_edge.distributed.parts import Parts

    return Parts(folder, "caption", request or REQUEST, **more)


def read(folder: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as parquet

    return parquet.read_table(folder).to_pylist()  # type: ignore[no-any-return]


def test_parts_are_whole_and_readers_see_nothing_else(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with parts_of(folder) as parts:
        run(Scripted(bad=("005.png",)), parts).run(images())
    assert [one["path"] for one in read(folder)] == NAMES
    assert sorted(name for name in os.listdir(folder) if not name.startswith(".")) == [
        f"part-{i:06d}.parquet" for i in range(10)
    ]
    before = read(folder)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(KosmosIOError, match="No space left"), parts_of(folder, resume=True) as parts:
        run(Scripted(), parts).run(images([*NAMES, "new.png"]))
    assert read(folder) == before and not [name for name in os.listdir(folder) if name.endswith(".tmp")]


def test_a_run_that_resumes(folder: str) -> None:
    workers = Scripted(bad=("001.png",))
    workers.interrupt_after = 9
    with pytest.raises(KeyboardInterrupt), parts_of(folder) as parts:
        run(workers, parts).run(images())
    Path(folder, ".part-000099.parquet.tmp").write_bytes(b"half a par")
    with pytest.raises(InvalidRequest, match="--resume"), parts_of(folder):
        pass
    second = Scripted()
    with parts_of(folder, {**REQUEST, "version": "2"}, resume=True) as parts:
        run(second, parts).run(images())
    assert sorted(one["path"] for one in read(folder)) == NAMES and not any(one["error"] for one in read(folder))
    assert set(second.computed) & set(workers.computed) <= {"001.png"}
    assert not Path(folder, ".part-000099.parquet.tmp").exists()
    with parts_of(folder, overwrite=True) as parts:
        run(Scripted(), parts).run(images(NAMES[:5]))
    assert [one["path"] for one in read(folder)] == NAMES[:5]


def test_parts_that_do_not_belong_to_the_run_are_refused(folder: str) -> None:
    with parts_of(folder) as parts:
        run(Scripted(), parts).run(images())
        with pytest.raises(KosmosIOError, match="another run is writing"), parts_of(folder, resume=True):
            pass
    other = {**REQUEST, "model": "other"}
    with pytest.raises(InvalidRequest, match="was made with model 'm', now it is 'other'"):
        parts_of(folder, other, resume=True).__enter__()
    with pytest.raises(InvalidRequest, match="a run without shards, and this run is of 4"):
        parts_of(folder, shard=(1, 4), resume=True).__enter__()
    part = Path(folder, "part-000003.parquet")
    whole = part.read_bytes()
    part.write_bytes(whole[:-20])
    with pytest.raises(InvalidRequest, match=r"part-000003\.parquet: a damaged part"):
        parts_of(folder, resume=True).__enter__()
    part.write_bytes(whole)
    Path(folder, "part-000003-1.parquet").write_bytes(whole)
    with pytest.raises(InvalidRequest, match=r"has 030\.png, as another part has"):
        parts_of(folder, resume=True).__enter__()
    import pyarrow
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.table({"a": [1]}), Path(folder, "part-000003-1.parquet"))
    with pytest.raises(InvalidRequest, match="not a part of such a run"):
        parts_of(folder, resume=True).__enter__()


def test_shards_share_a_folder(folder: str) -> None:
    for shard in ((1, 2), (2, 2)):
        with parts_of(folder, shard=shard) as parts:
            run(Scripted(), parts).run(images(NAMES[shard[0] - 1 :: 2]))
    assert sorted(one["path"] for one in read(folder)) == NAMES
    with parts_of(folder, shard=(2, 2), overwrite=True):
        pass
    assert sorted(one["path"] for one in read(folder)) == NAMES[::2]
    with pytest.raises(InvalidRequest, match="parts of 2 shards, and this run is of 3"):
        parts_of(folder, shard=(1, 3)).__enter__()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(folder: str) -> None:
    Path(folder).mkdir(parents=True)
    Path(folder).chmod(0o555)
    with pytest.raises(KosmosIOError, match="not writable"):
        parts_of(folder).__enter__()


def test_a_ray_that_does_not_start_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from kosmos_edge.distributed import ray_workers

    class Slow:
        """The package, on a machine that has too much to do."""

        ended = 0

        def is_initialized(self) -> bool:
            return False

        def init(self, *_: Any, **__: Any) -> None:
            raise Exception("The current node timed out during startup.\nAnd more.")

        def shutdown(self) -> None:
            self.ended += 1

    slow = Slow()
    monkeypatch.setattr(ray_workers, "load_ray", lambda: slow)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(WorkerDied, match=r"Ray did not start on this machine: .* timed out during startup\.$"),
        ray_workers.connected(None),
    ):
        pass
    assert slow.ended == 1
