"""Pictures with captions: folders, COCO's captions, tars, tables; and what is wrong with some."""

import io
import json
import tarfile

import pytest
from PIL import Image

from kosmos_edge.apps.grit import read_pairs
from kosmos_edge.apps.grit.sources import plain_caption
from kosmos_edge.errors import ImageDecodeError, InvalidRequest, KosmosIOError


def png(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def listed(pairs):
    """(key, caption, or why there is none)"""
    return [(p.key, p.dropped or (type(p.error).__name__ if p.error else p.caption)) for p in pairs]


def tar(path, members):
    with tarfile.open(path, "w") as out:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))


def test_a_folder(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("a.png", "b/c.png", "z.png", ".hidden/x.png", "bad.png"):
        (tmp_path / name).write_bytes(png())
    (tmp_path / "a.txt").write_text("﻿ a dog \n in  a\tfield\n", encoding="utf-8")
    (tmp_path / "b/c.txt").write_text("一只狗", encoding="utf-8")
    (tmp_path / "gone.txt").write_text("a cat")
    (tmp_path / "bad.txt").write_bytes(b"caf\xe9")
    pairs = list(read_pairs([str(tmp_path)]))
    assert listed(pairs) == [
        ("a.png", "a dog in a field"),
        ("bad.png", "InvalidRequest"),
        ("z.png", "no_caption"),
        ("gone.txt", "ImageDecodeError"),
        ("b/c.png", "一只狗"),
    ]
    assert "expected UTF-8" in str(pairs[1].error) and "no picture of this name" in str(pairs[3].error)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", 7, None])
def test_what_is_no_caption(text):
    with pytest.raises(InvalidRequest):
        plain_caption(text)


def test_inputs_that_are_none(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(InvalidRequest, match="expected a folder"):
        read_pairs([str(tmp_path / "a.zip")])
    with pytest.raises(KosmosIOError, match="nothing"):
        read_pairs([str(tmp_path / "nothing")])
    with pytest.raises(InvalidRequest, match="no pictures"):
        read_pairs([str(tmp_path)])
    with pytest.raises(InvalidRequest, match="one folder"):
        read_pairs([str(tmp_path), str(tmp_path)], "captions.json")


def coco(tmp_path, record):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(record) if not isinstance(record, str) else record)
    return path


def test_cocos_captions(tmp_path):
    record = {
        "images": [
            {"id": 9, "file_name": "a.png", "coco_url": "http://x/a.png"},
            {"id": 3, "file_name": "../etc/b.png"},
            {"id": 4, "file_name": "none.png"},
        ],
        "annotations": [
            {"id": 1, "image_id": 3, "caption": "out"},
            {"id": 2, "image_id": 9, "caption": "a dog\n"},
            {"id": 5, "image_id": 77, "caption": "of no picture"},
            {"id": 6, "image_id": 9, "caption": "a cat"},
            {"id": 7, "image_id": 9},
            "x",
        ],
    }
    pairs = list(read_pairs([str(tmp_path)], str(coco(tmp_path, record))))
    assert listed(pairs) == [
        ("captions.json#annotations[2]", "InvalidRequest"),
        ("captions.json#annotations[5]", "InvalidRequest"),
        ("a.png#2", "a dog"),
        ("a.png#6", "a cat"),
        ("a.png#7", "InvalidRequest"),
        ("../etc/b.png#1", "InvalidRequest"),
        ("none.png", "no_caption"),
    ]
    assert pairs[2].facts == {"id": 2, "url": "http://x/a.png"}
    assert "leads out of the folder" in str(pairs[5].error)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ('{"images": [', "no JSON"),
        ("[]", "expected COCO's captions"),
        ({"images": [{"id": 1}], "annotations": []}, r"images\[0\]"),
        ({"images": [{"id": 1, "file_name": "a"}] * 2, "annotations": []}, "there twice"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_broken_captions(tmp_path, record, says):
    with pytest.raises(InvalidRequest, match=says):
        read_pairs([str(tmp_path)], str(coco(tmp_path, record)))


def test_a_tar(tmp_path):
    facts = {"key": "000000007", "url": "http://x", "clip_similarity_vitb32": 0.25, "id": 5, "caption": "from json"}
    tar(
        tmp_path / "a.tar",
        [
            ("000.jpg", png()),
            ("000.json", json.dumps(facts).encode()),
            ("000.txt", b"a dog"),
            ("001.png", png()),
            ("001.json", b'{"caption": "a cat", "clip_similarity_vitl14": NaN}'),
            ("002.png", png()),
            ("003.png", png()),
            ("003.json", b"{broken"),
            ("003.txt", b"a cow"),
            ("004.png", png()),
            ("004.json", b'{"id": "seven"}'),
            ("004.txt", b"a hen"),
        ],
    )
    pairs = list(read_pairs([str(tmp_path / "a.tar")]))
    assert listed(pairs) == [
        ("000000007", "a dog"),
        ("001", "a cat"),
        ("002", "no_caption"),
        ("003", "InvalidRequest"),
        ("004", "InvalidRequest"),
    ]
    assert pairs[0].facts == {"id": 5, "url": "http://x", "clip_similarity_vitb32": 0.25} and pairs[1].facts == {}


def test_a_damaged_tar_ends_with_an_error(tmp_path):
    tar(tmp_path / "whole.tar", [("000.png", png()), ("000.txt", b"a dog"), ("001.png", png()), ("001.txt", b"a cat")])
    (tmp_path / "cut.tar").write_bytes((tmp_path / "whole.tar").read_bytes()[:2570])
    pairs = list(read_pairs([str(tmp_path / "cut.tar")]))
    assert isinstance(pairs[-1].error, ImageDecodeError) and "damaged" in str(pairs[-1].error)


def test_a_table_of_img2dataset(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet

    rows = {
        "jpg": [png(), None, png(), png()],
        "caption": ["a dog", "a cat", None, "a\ncow"],
        "url": ["http://x", "http://y", None, None],
        "key": ["000000000", "000000001", "000000002", "000000003"],
        "status": ["success", "failed_to_download", "success", "success"],
        "clip_similarity_vitl14": [0.5, None, None, float("nan")],
    }
    pyarrow.parquet.write_table(arrow.table(rows), tmp_path / "a.parquet")
    path = str(tmp_path / "a.parquet")
    pairs = list(read_pairs([path]))
    assert listed(pairs) == [
        ("000000000", "a dog"),
        ("000000001", "not_downloaded"),
        ("000000002", "no_caption"),
        ("000000003", "a cow"),
    ]
    assert pairs[0].facts == {"url": "http://x", "clip_similarity_vitl14": 0.5} and pairs[3].facts == {}
    assert pairs[0].entry.load() == png()
    with pytest.raises(InvalidRequest, match="no column 'text'; it has jpg, caption"):
        read_pairs([path], caption_column="text")
    with pytest.raises(InvalidRequest, match="no column 'x'"):
        read_pairs([path], column="x")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ImageDecodeError, match="damaged"):
        read_pairs([str(tmp_path / "b.parquet")])


def test_halves_of_surrogate_pairs_are_told(tmp_path):
    record = {
        "images": [
            {"id": 1, "file_name": "\ud800.png"},
            {"id": 2, "file_name": "a.png", "coco_url": "http://\ud83d"},
            {"id": 3, "file_name": "b.png"},
            {"id": 4, "file_name": "\udc00.png"},
        ],
        "annotations": [{"id": f"\ud801{n}", "image_id": n, "caption": "a dog"} for n in (1, 2, 3)],
    }
    pairs = list(read_pairs([str(tmp_path)], str(coco(tmp_path, record))))
    assert listed(pairs) == [
        (r"\ud800.png#\ud8011", "InvalidRequest"),
        (r"a.png#\ud8012", "InvalidRequest"),
        (r"b.png#\ud8013", "a dog"),
        (r"\udc00.png", "no_caption"),
    ]
    assert "is no text" in str(pairs[0].error) and "url: expected text" in str(pairs[1].error)
    facts = json.dumps({"key": "\ud800k", "caption": "a dog"}).encode()
    tar(tmp_path / "a.tar", [("0.png", png()), ("0.json", facts)])
    assert listed(read_pairs([str(tmp_path / "a.tar")])) == [(r"\ud800k", "a dog")]


def test_numbers_that_are_not_finite(tmp_path):
    members = [("0.png", png()), ("0.txt", b"a dog"), ("0.json", b'{"clip_similarity_vitb32": 1e999}')]
    tar(tmp_path / "a.tar", members)
    (pair,) = read_pairs([str(tmp_path / "a.tar")])
    assert "expected a finite number, got inf" in str(pair.error)


def test_samples_without_a_picture_are_counted(tmp_path):
    members = [("0.txt", b"a dog"), ("1.png", png()), ("1.txt", b"a cat"), ("2.json", b"{}"), ("2.txt", b"a cow")]
    tar(tmp_path / "a.tar", members)
    expected = [("0", "no_picture"), ("1", "a cat"), ("2", "no_picture")]
    assert listed(read_pairs([str(tmp_path / "a.tar")])) == expected


def test_a_picture_that_is_a_link_fails(tmp_path):
    (tmp_path / "0.png").write_bytes(png())
    (tmp_path / "1.png").hardlink_to(tmp_path / "0.png")
    with tarfile.open(tmp_path / "a.tar", "w") as out:
        for name in ("0.png", "1.png"):
            out.add(tmp_path / name, name)
        info = tarfile.TarInfo("1.txt")
        info.size = 5
        out.addfile(info, io.BytesIO(b"a dog"))
    pairs = list(read_pairs([str(tmp_path / "a.tar")]))
    assert listed(pairs) == [("0", "no_caption"), ("1", "a dog")]
    with pytest.raises(ImageDecodeError, match=r"1\.png: is a link in the tar file"):
        pairs[1].entry.load()


def test_two_columns_of_one_name(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet

    table = arrow.table([arrow.array([png()]), arrow.array(["a"]), arrow.array(["b"])], ["jpg", "caption", "caption"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InvalidRequest, match="2 columns 'caption'; it has jpg, caption, caption"):
        list(read_pairs([str(tmp_path / "a.parquet")]))
