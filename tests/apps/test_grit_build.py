"""Runs: records, statistics, resuming, shards, failures; with hand-made trees and a scripted detector."""

import json
import os

import pytest
from helpers.grit_trees import CATS, FIELD, Parsed, Scripted, tree
from PIL import Image

from kosmos_edge.apps.grit import Builder, Found, Pair, read_pairs, read_records
from kosmos_edge.apps.grit.output import FAILED, LINES, SHEET, STATISTICS, TABLE, Folder
from kosmos_edge.apps.grit.sheet import Sheet
from kosmos_edge.errors import ImageDecodeError, InvalidRequest, KosmosIOError
from kosmos_edge.folders import Journal
from kosmos_edge.folders.running import file_entry

NOTHING = tree("love>0:ROOT", "0-1")
SCRIPT = {
    "a dog": [((0.1, 0.1, 0.5, 0.9), 0.9)],
    "a field": [((0.0, 0.5, 1.0, 1.0), 0.8), ((0.0, 0.5, 0.98, 1.0), 0.7)],
    "two cats": [((0.0, 0.0, 0.4, 0.4), 0.9), ((0.6, 0.0, 1.0, 0.4), 0.6), ((0.6, 0.0, 0.6, 0.4), 0.9)],
    "flowers": [((0.0, 0.0, 0.1, 0.1), 0.1)],
}


@pytest.fixture
def folder(tmp_path):
    """Six pictures, one of which is none."""
    root = tmp_path / "in"
    root.mkdir()
    for number, text in enumerate([FIELD.text, CATS.text, NOTHING.text, "", FIELD.text, CATS.text]):
        Image.new("RGB", (40, 30), (number, 0, 0)).save(root / f"{number}.png")
        (root / f"{number}.txt").write_text(text)
    (root / "5.png").write_bytes(b"no picture")
    return root


def build(folder, out, journal, detector=None, **settings):
    """-> (what is in statistics.json, the detector)"""
    detector = detector or Scripted(SCRIPT)
    sheet = Sheet(settings.pop("sheet", 10))
    records = settings.pop("records", "json")
    with Folder(str(out), records, sheet, replace=settings.get("resume", False)) as target, Journal(journal) as base:
        target.start({"parser": {"name": "hand-made"}})
        builder = Builder(Parsed(FIELD, CATS, NOTHING), detector, base, pictures=sheet.wants, **settings)
        for made in builder.build(read_pairs([str(folder)])):
            target.add(made)
        return target.finish(builder), detector


def files(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_records_statistics_failures_and_sheet(folder, tmp_path):
    facts, detector = build(folder, tmp_path / "out", tmp_path / "j")
    records = read_records(tmp_path / "out" / LINES)
    assert [record["key"] for record in records] == ["0.png", "1.png", "4.png"]
    assert records[0] == {
        "key": "0.png",
        "id": None,
        "url": None,
        "caption": "a dog in a field of flowers",
        "clip_similarity_vitb32": None,
        "clip_similarity_vitl14": None,
        "width": 40,
        "height": 30,
        "noun_chunks": [[0, 5, 0.1, 0.1, 0.5, 0.9, 0.9], [9, 16, 0.0, 0.5, 1.0, 1.0, 0.8]],
        "ref_exps": [[0, 27, 0.1, 0.1, 0.5, 0.9, 0.9]],
    }
    assert records[1]["ref_exps"] == [
        [0, 8, 0.0, 0.0, 0.4, 0.4, 0.9],
        [0, 8, 0.6, 0.0, 1.0, 0.4, 0.6],
        [13, 18, 0.1, 0.1, 0.5, 0.9, 0.9],
    ]
    assert facts == json.loads((tmp_path / "out" / STATISTICS).read_text())
    expected = {
        "pairs": 6,
        "pictures": 3,
        "text_spans": 4,
        "boxes": 5,
        "mean_words": (7 + 2 + 2 + 7) / 4,
        "failed": 1,
        "dropped": {"caption_empty": 1, "no_nouns": 1},
        "noun_chunks": {
            "kept": 10,
            "abstract": 1,
            "pronouns": 0,
            "markup": 0,
            "expanded": 4,
            "with_boxes": 6,
            "asked_without_context": 0,
        },
        "detected_boxes": {"kept": 7, "degenerate": 1, "uncertain": 2, "suppressed": 2, "clipped": 0},
    }
    assert {name: facts[name] for name in expected} == expected
    (failed,) = (json.loads(line) for line in (tmp_path / "out" / FAILED).read_text().splitlines())
    assert failed["key"] == "5.png" and "ImageDecodeError" in failed["error"]
    page = (tmp_path / "out" / SHEET).read_text()
    assert page.count("<figure>") == 3 and ">a dog in a field of flowers</span>" in page and "<script" not in page
    assert detector.asked == [["a dog", "a field", "flowers"], ["two cats", "a dog"], ["a dog", "a field", "flowers"]]


def test_a_resumed_run_computes_nothing_again_and_ends_the_same(folder, tmp_path):
    """Stopped after the second pair."""
    build(folder, tmp_path / "whole", tmp_path / "j1")

    class Dies(Scripted):
        def detect(self, asked):
            if len(self.asked) == 2:
                raise KosmosIOError(5, "unplugged")
            return super().detect(asked)

    with pytest.raises(KosmosIOError, match="unplugged"):
        build(folder, tmp_path / "out", tmp_path / "j2", Dies(SCRIPT), batch=1)
    assert list((tmp_path / "out").iterdir()) == []  # no part of a file, and nothing with its name
    _, detector = build(folder, tmp_path / "out", tmp_path / "j2", resume=True, batch=3)
    assert detector.asked == [["a dog", "a field", "flowers"]]
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    _, detector = build(folder, tmp_path / "out", tmp_path / "j2", resume=True)  # once more: nothing is asked
    assert detector.asked == [] and files(tmp_path / "out") == files(tmp_path / "whole")
    _, detector = build(folder, tmp_path / "new", tmp_path / "j2")  # earlier boxes do not count without resume
    assert len(detector.asked) == 3


def test_the_batch_does_not_matter(folder, tmp_path):
    for batch in (1, 2, 50):
        build(folder, tmp_path / f"out{batch}", tmp_path / f"j{batch}", batch=batch)
    assert files(tmp_path / "out1") == files(tmp_path / "out2") == files(tmp_path / "out50")


@pytest.mark.parametrize("change", ["caption", "picture", "detector"])
def test_what_has_changed_is_asked_again(folder, tmp_path, change):
    build(folder, tmp_path / "a", tmp_path / "j")
    detector = Scripted(SCRIPT, version=2 if change == "detector" else 1)
    if change == "caption":
        (folder / "0.txt").write_text(CATS.text)
    if change == "picture":
        Image.new("RGB", (40, 30), (99, 0, 0)).save(folder / "0.png")
    build(folder, tmp_path / "b", tmp_path / "j", detector, resume=True)
    assert len(detector.asked) == (3 if change == "detector" else 1)


def test_rules_are_applied_to_known_boxes(folder, tmp_path):
    """Another threshold needs no detector."""
    from kosmos_edge.apps.grit import Rules

    build(folder, tmp_path / "a", tmp_path / "j")
    facts, detector = build(folder, tmp_path / "b", tmp_path / "j", resume=True, rules=Rules(threshold=0.85))
    assert detector.asked == [] and facts["detected_boxes"]["kept"] == 4


def test_shards_part_the_pairs(folder, tmp_path):
    keys, pairs = [], 0
    for i in (1, 2, 3):
        facts, _ = build(folder, tmp_path / f"out{i}", tmp_path / "j", shard=(i, 3))
        keys += [record["key"] for record in read_records(tmp_path / f"out{i}" / LINES)]
        pairs += facts["pairs"]
    assert sorted(keys) == ["0.png", "1.png", "4.png"] and pairs == 6


def test_a_picture_that_the_detector_refuses_fails_alone(folder, tmp_path):
    class Refuses(Scripted):
        def detect(self, asked):
            found = super().detect(asked)
            dark = ImageDecodeError("too dark")
            return [dark if "two cats" in one.texts else boxes for one, boxes in zip(asked, found, strict=True)]

    facts, _ = build(folder, tmp_path / "out", tmp_path / "j", Refuses(SCRIPT))
    assert (facts["pictures"], facts["failed"]) == (2, 2)
    facts, _ = build(folder, tmp_path / "again", tmp_path / "j", resume=True)  # and it is tried again
    assert (facts["pictures"], facts["failed"]) == (3, 1)


def test_long_captions_and_expressions_inside_of_others(folder, tmp_path):
    facts, _ = build(folder, tmp_path / "a", tmp_path / "j1", max_caption=20)
    assert facts["dropped"]["caption_too_long"] == 2
    build(folder, tmp_path / "b", tmp_path / "j2", contained=True)
    assert [row[:2] for row in read_records(tmp_path / "b" / LINES)[0]["ref_exps"]] == [[0, 27], [9, 27]]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_not_waited_for(folder, tmp_path):
    (folder / "0.png").unlink()
    os.mkfifo(folder / "0.png")
    facts, _ = build(folder, tmp_path / "out", tmp_path / "j")
    assert (facts["pictures"], facts["failed"]) == (2, 2)
    assert "is a pipe" in (tmp_path / "out" / FAILED).read_text()


def test_a_detector_that_finds_nothing(folder, tmp_path):
    facts, _ = build(folder, tmp_path / "out", tmp_path / "j", Scripted({}))
    assert facts["dropped"] == {"caption_empty": 1, "no_boxes": 3, "no_nouns": 1} and facts["mean_words"] is None
    assert (tmp_path / "out" / LINES).read_bytes() == b""


def test_the_sheet_takes_the_same_pictures_in_any_order(folder, tmp_path):
    build(folder, tmp_path / "a", tmp_path / "j1", sheet=2)
    build(folder, tmp_path / "b", tmp_path / "j1", sheet=2, resume=True)
    page = (tmp_path / "a" / SHEET).read_bytes()
    assert page == (tmp_path / "b" / SHEET).read_bytes() and page.count(b"<figure>") == 2
    sheets = [Sheet(2), Sheet(2)]
    record = read_records(tmp_path / "a" / LINES)[0]
    from kosmos_edge import open_image

    picture = open_image(folder / "0.png")
    for sheet, keys in zip(sheets, ("abcd", "dbca"), strict=True):
        for key in keys:
            if sheet.wants(key):
                sheet.add(record | {"key": key}, picture)
    assert sheets[0].page({"pictures": 4}) == sheets[1].page({"pictures": 4})


def test_keys_and_captions_are_escaped_on_the_sheet():
    from kosmos_edge import open_image

    sheet = Sheet()
    picture = open_image(Image.new("RGB", (8, 8)))
    rows = [[0, 8, 0.0, 0.0, 1.0, 1.0, 0.5]]
    record = {"key": "<b>&", "caption": "<script>alert(1)</script>", "width": 8, "height": 8, "ref_exps": rows}
    sheet.add(record, picture)
    page = sheet.page({"pictures": 1})
    assert "<script>" not in page and "&lt;b&gt;&amp;" in page and "&lt;script&gt;" in page


def test_an_earlier_run_is_not_replaced_unasked(folder, tmp_path):
    build(folder, tmp_path / "out", tmp_path / "j")
    with pytest.raises(InvalidRequest, match="--resume"):
        build(folder, tmp_path / "out", tmp_path / "j")


def test_two_runs_cannot_write_one_folder(folder, tmp_path):
    with Folder(str(tmp_path / "out"), "json", Sheet()) as first, Folder(str(tmp_path / "out"), "json", Sheet()) as two:
        first.start({})
        with pytest.raises(KosmosIOError, match="another process"):
            two.start({})


def test_tables_have_the_published_columns(folder, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet

    build(folder, tmp_path / "out", tmp_path / "j", records="both")
    table = pyarrow.parquet.read_table(tmp_path / "out" / TABLE)
    assert table.to_pylist() == read_records(tmp_path / "out" / LINES)
    kinds = {name: str(table.schema.field(name).type) for name in table.schema.names}
    assert kinds["id"] == "int64" and kinds["clip_similarity_vitb32"] == "double"
    assert kinds["ref_exps"].startswith("list<") and kinds["ref_exps"].count("list<") == 2
    assert json.loads(table.schema.metadata[b"kosmos-edge"]) == {"parser": {"name": "hand-made"}}
    build(folder, tmp_path / "out", tmp_path / "j", records="json", resume=True)
    assert not (tmp_path / "out" / TABLE).exists()  # it would be of another run


def test_answers_of_another_length_are_a_mistake_of_the_detector(folder, tmp_path):
    class Short(Scripted):
        def detect(self, asked):
            return [Found([]) for _ in asked]

    with pytest.raises(AssertionError, match="every phrase"):
        build(folder, tmp_path / "out", tmp_path / "j", Short(SCRIPT))


def test_names_that_are_not_unicode_fail_by_themselves(folder, tmp_path):
    bad = os.path.join(os.fsencode(folder), b"\xff")
    try:
        with open(bad + b".png", "wb") as file:
            file.write(b"no picture")
    except OSError:
        pytest.skip("this file system has Unicode names alone")
    with open(bad + b".txt", "w") as file:
        file.write(FIELD.text)
    facts, _ = build(folder, tmp_path / "out", tmp_path / "j")
    assert (facts["pictures"], facts["failed"]) == (3, 2)
    failed = [json.loads(line) for line in (tmp_path / "out" / FAILED).read_text("utf-8").splitlines()]
    assert failed[-1]["key"] == r"\xff.png" and r"\xff.png: not an image" in failed[-1]["error"]


def test_a_path_with_a_nul_fails_by_itself(folder, tmp_path):
    entry = file_entry("a\0b.png", "t.parquet#3")
    with Folder(str(tmp_path / "out"), "json", Sheet(1)) as target, Journal(tmp_path / "j") as base:
        target.start({"parser": {"name": "hand-made"}})
        builder = Builder(Parsed(FIELD), Scripted(SCRIPT), base)
        (made,) = builder.build([Pair("k", entry, FIELD.text)])
    assert isinstance(made.error, ImageDecodeError) and "t.parquet#3: expected a path" in str(made.error)
