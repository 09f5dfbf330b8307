"""Pictures in other files: videos, tar files, tables."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click import UsageError
from helpers.api_model import grounded_file, png
from helpers.tar_files import make_tar
from PIL import Image
from test_sidecars import Done, cache, opened  # noqa: F401  (fixtures)

from kosmos_edge import ImageDecodeError, InvalidRequest
from kosmos_edge.folders import Journal
from kosmos_edge.folders.tables import table_entries
from kosmos_edge.folders.tars import split_name, tar_entries
from kosmos_edge.folders.video import Video, parse_interval, video_entries

MODEL = ["--model", str(grounded_file()), "--threads", "1", "--max-tokens", "6"]


MEMBERS = {
    "a/0.png": png(1, 40, 50),
    "a/0.cls": b"3",
    "a/0.txt": b"their caption",
    "b.notes.txt": b"no picture",
    "1.v2.png": png(2, 50, 50),
    "1.mask.png": png(3, 50, 50),
    "2.jpg": b"damaged",
}


@pytest.mark.parametrize(("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz")])
def test_a_tar_file_is_read_as_samples(tmp_path: Path, suffix: str, mode: str) -> None:
    path = make_tar(tmp_path / f"shard{suffix}", MEMBERS, mode)
    entries = list(tar_entries(str(path)))
    assert [entry.name for entry in entries] == [f"{path}/{name}" for name in ("a/0.png", "1.v2.png", "2.jpg")]
    assert entries[0].about.files == [("cls", b"3"), ("txt", b"their caption")]
    assert split_name("a.b/c.d.e") == ("a.b/c", "d.e")
    done = Done("batch", path, model=MODEL)
    assert [row["error"] is None for row in done.rows] == [True, True, False] and done.code == 1
    assert f"{path}: 1 file has no image, such as b.notes.txt: " in done.stderr


def test_files_that_do_not_stand_beside_their_image_are_told(tmp_path: Path) -> None:
    members = {"a.txt": b"1", "b.png": png(1, 20, 20), "a.png": png(2, 20, 20), "b.cls": b"2"}
    path = make_tar(tmp_path / "mixed.tar", members)
    told: list[str] = []
    assert [entry.about.files for entry in tar_entries(str(path), told.append)] == [[], []]
    assert len(told) == 1 and "2 files have no image, such as a.txt: " in told[0] and "tar --sort=name" in told[0]
    told.clear()
    path = make_tar(tmp_path / "sorted.tar", dict(sorted(members.items())))
    assert len(list(tar_entries(str(path), told.append))) == 2 and not told


def test_a_tar_file_is_written(tmp_path: Path, opened: list[str]) -> None:  # noqa: F811
    path = make_tar(tmp_path / "in.tar", MEMBERS)
    (tmp_path / "c.png").write_bytes(png(4, 30, 30))
    out = tmp_path / "out.tar"
    words = ("batch", path, tmp_path / "c.png", "-o", out, "--capital", "--overwrite")
    Done(*words, model=MODEL)
    with tarfile.open(out) as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert list(found) == [
        "a/0.png", "a/0.cls", "a/0.txt", "a/0.kosmos.txt", "a/0.json",
        "1.v2.png", "1.mask.png", "1.txt", "1.json", "c.png", "c.txt", "c.json",
    ]  # fmt: skip
    assert {name: found[name] for name in MEMBERS if name in found} == {
        name: content for name, content in MEMBERS.items() if name in found
    }
    for key, text in (("a/0", "a/0.kosmos.txt"), ("1", "1.txt"), ("c", "c.txt")):
        record = json.loads(found[f"{key}.json"])
        assert record["caption"].encode() == found[text] and record["__key__"] == key
    count = len(opened)
    Done(*words, "--resume", model=MODEL)
    assert len(opened) == count + 1  # the damaged one


def test_a_damaged_tar_file_is_one_failed_picture(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "cut.tar", MEMBERS)
    path.write_bytes(path.read_bytes()[:2000])
    (tmp_path / "no.tar").write_bytes(b"no tar file at all" * 100)
    (tmp_path / "c.png").write_bytes(png(4))
    done = Done("batch", path, tmp_path / "no.tar", tmp_path / "none.tar", tmp_path / "c.png", model=MODEL)
    failed = [Path(row["path"]).name for row in done.rows if row["error"] is not None]
    assert failed == ["cut.tar", "no.tar", "none.tar"] and done.rows[-1]["error"] is None
    assert "No such file" in done.stderr


def test_what_has_no_file_of_its_own_has_no_sidecar(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "in.tar", MEMBERS)
    for words in (("--sidecar", "txt"), ("--draw", tmp_path / "drawn")):
        with pytest.raises(UsageError, match="have no files of their own"):
            Done("batch", path, *words, model=MODEL)


def test_shards_of_a_tar_file(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "in.tar", {f"{i}.png": png(i, 20, 20) for i in range(6)})
    parts = [Done("batch", path, "--shard", f"{i}/2", model=MODEL).rows for i in (1, 2)]
    assert sorted(row["path"] for part in parts for row in part) == [f"{path}/{i}.png" for i in range(6)]


def test_tables(tmp_path: Path, opened: list[str]) -> None:  # noqa: F811
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet as parquet

    (tmp_path / "b.png").write_bytes(png(2, 40, 50))
    path = tmp_path / "in.parquet"
    columns = {
        "image": [{"bytes": png(1, 40, 50), "path": None}, {"bytes": None, "path": "b.png"}, None],
        "raw": [png(1, 40, 50), png(2, 40, 50), b"damaged"],
        "file": ["b.png", str(tmp_path / "b.png"), "none.png"],
    }
    parquet.write_table(arrow.table(columns), path)
    first = Done("batch", path, model=MODEL)
    assert [row["path"] for row in first.rows] == [f"{path}#{i}" for i in range(3)]
    assert "expected bytes or a path" in first.rows[2]["error"]
    raw = Done("batch", path, "--image-column", "raw", "--resume", model=MODEL)
    assert [row["text"] for row in raw.rows[:2]] == [row["text"] for row in first.rows[:2]]
    out = tmp_path / "out.parquet"
    Done("batch", path, "--image-column", "file", "-o", out, "--full-stop", model=MODEL)
    rows = parquet.read_table(out).to_pylist()
    assert [row["text"] for row in rows[:2]] == [first.rows[1]["text"]] * 2 and rows[0]["caption"].endswith(".")
    assert rows[0]["width"] == 40 and rows[2]["error"] is not None and rows[2]["caption"] == ""
    for entity, kept in zip(first.rows[1]["entities"], rows[0]["entities"], strict=True):
        assert (kept["phrase"], [kept["start"], kept["end"]]) == (entity["phrase"], entity["span"])
        boxes = [box["pixels"] for box in entity["boxes"] if box["valid"]]
        assert all(a == pytest.approx(b, rel=1e-6) for a, b in zip(kept["boxes"], boxes, strict=True))
    with pytest.raises(InvalidRequest, match=r"no column 'x'; it has image, raw, file"):
        list(table_entries(str(path), "x"))
    path.write_bytes(b"PAR1 damaged")
    with pytest.raises(ImageDecodeError, match="damaged Parquet"):
        list(table_entries(str(path)))


def test_intervals() -> None:
    assert [parse_interval(text) for text in ("2s", "500ms", "1.5", "2m", ".5 s", "1h")] == [
        2,
        0.5,
        1.5,
        120,
        0.5,
        3600,
    ]
    for text in ("0", "-1s", "2 days", "", "s", "0.1ms", "nan"):
        with pytest.raises(InvalidRequest, match="every"):
            parse_interval(text)


COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250), (250, 0, 250)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds, ten pictures a second, another colour every two seconds."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(120):
            image = Image.new("RGB", (64, 48), COLOURS[number // 20])
            for packet in stream.encode(av.VideoFrame.from_image(image)):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return path


def colour(image: Any) -> int:
    """The number of the nearest colour."""
    found = image.convert("RGB").getpixel((30, 20))
    distances = [sum(abs(a - b) for a, b in zip(found, one, strict=True)) for one in COLOURS]
    return distances.index(min(distances))


def test_pictures_of_a_video(clip: Path, tmp_path: Path) -> None:
    entries = list(video_entries(str(clip), 2.0))
    assert [entry.name for entry in entries] == [f"{clip}#t={time}.000" for time in (0, 2, 4, 6, 8, 10)]
    assert [colour(entry.load()) for entry in video_entries(str(clip), 2.0)] == list(range(6))
    assert [colour(entry.reload()) for entry in entries] == list(range(6))
    video = Video(str(clip))
    assert [colour(video.picture_at(time)) for time in (1.95, 2.0, 11.9, 3.9, 0.0, 99.0)] == [0, 1, 5, 1, 0, 5]
    video.close()
    with Journal(tmp_path / "journal") as journal:
        assert len({entry.digest(journal) for entry in entries}) == 6


@pytest.mark.parametrize(("turn", "corner"), [(0, (0, 0)), (-90, (3, 0)), (90, (0, 5)), (180, (3, 5))])
def test_pictures_are_upright(clip: Path, turn: int, corner: tuple[int, int]) -> None:
    """The file says by how many degrees, counterclockwise, a player turns it: -90 for a phone held upright."""
    stored = Image.new("RGB", (6, 4) if turn in (90, -90) else (4, 6))
    stored.putpixel((0, 0), (255, 255, 255))

    class Frame:
        rotation, time = turn, 0.0

        def to_image(self) -> Image.Image:
            return stored

    video = Video(str(clip))
    video._shown, video._ended = Frame(), True
    upright = video.picture_at(0.0)
    video.close()
    assert upright.size == (4, 6)
    assert upright.getbbox() == (*corner, corner[0] + 1, corner[1] + 1)


def test_a_video_as_a_run(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.jsonl"
    words = ("batch", clip.parent, "--every", "4s", "--resume", "-o", out)
    done = Done(*words, model=MODEL)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["path"] for row in rows] == [f"{clip}#t={time}.000" for time in (0, 4, 8)] and done.code == 0
    assert {(row["width"], row["height"]) for row in rows} == {(64, 48)}
    Done("batch", clip, "--every", "4s", "--format", "yolo", "-o", tmp_path / "set", model=MODEL)
    images = sorted((tmp_path / "set" / "images").iterdir())
    assert [colour(Image.open(path)) for path in images] == [0, 2, 4]
    monkeypatch.setattr(Video, "picture_at", lambda *_: pytest.fail("what is known is not decoded"))
    again = Done(*words, "--overwrite", model=MODEL)
    assert "3 answered before" in again.stderr


def test_what_is_no_video(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 100)
    (tmp_path / "a.png").write_bytes(png())
    done = Done("batch", tmp_path, "--every", "1s", model=MODEL)
    assert [row["error"] is None for row in done.rows] == [True, False] and "bad.mp4" in done.stderr
