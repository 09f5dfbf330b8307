"""The journal: answers come back as they were; a digest is not computed again without need."""

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.api_model import grounded_file, png

from kosmos_edge import InvalidRequest, KosmosIOError, load
from kosmos_edge.folders import Journal
from kosmos_edge.folders.journal import JournalError, answer_key, digest_bytes, request_digest
from kosmos_edge.folders.running import in_shard, parse_shard
from kosmos_edge.folders.stored import pack, unpack
from kosmos_edge.results import Box, Line


@pytest.mark.parametrize(
    ("task", "more"),
    [
        ("caption", {"ground": True, "logprobs": True, "top_logprobs": 2}),
        ("describe", {"box": (1, 2, 30, 40)}),
        ("locate", {"phrase": "a dog"}),
        ("score", {"texts": ["a dog", "a cat"]}),
    ],
)
def test_answers_come_back_equal(task: str, more: dict) -> None:
    model = load(grounded_file(), threads=1)
    more = {**more, "max_tokens": 12} if task != "score" else more
    for answer in model.batch([png(1), png(2)], task, **more):
        again = unpack(pack(answer))
        assert again == answer and again.to_json() == answer.to_json()
        if task != "score":
            assert again.to_hf() == answer.to_hf() and again.box == answer.box
            lines = replace(answer, lines=[Line("text", Box((0.1, 0.2, 0.5, 0.6), (1, 2, 5, 6), None), 0.5)])
            assert unpack(pack(lines)) == lines
        answer.error = InvalidRequest("no")
        with pytest.raises(InvalidRequest, match="without an error"):
            pack(answer)


def test_answers_of_earlier_runs_count_if_asked_for(tmp_path: Path) -> None:
    path, key = tmp_path / "new" / "journal", b"k" * 32
    with Journal(path) as journal:
        journal.keep(key, "one")
        assert journal.answer(key, earlier=False) == "one"
    with Journal(path) as journal:
        assert journal.answer(key, earlier=False) is None and journal.answer(key, earlier=True) == "one"
        journal.keep(key, "two", [("/a/b\udcff.txt", None, b"after")])
        assert journal.answer(key, earlier=False) == "two"
        written = journal.written("/a/b\udcff.txt")
        assert written is not None and (written.before, written.after, written.done) == (None, b"after", False)
        journal.finish("/a/b\udcff.txt")
    with Journal(path) as journal:
        written = journal.written("/a/b\udcff.txt")
        assert written is not None and written.done
    with Journal(None) as journal:
        assert journal.answer(key, earlier=True) is None


def test_a_key_is_of_content_model_and_request() -> None:
    one = request_digest({"task": "caption", "arguments": {"box": (1, 2), "x": None}})
    assert one == request_digest({"arguments": {"x": None, "box": [1, 2]}, "task": "caption"})
    assert one != request_digest({"task": "caption", "arguments": {"box": (1, 3), "x": None}})
    assert answer_key(b"a" * 32, one) != answer_key(b"b" * 32, one)


def test_a_file_is_read_once_while_it_is_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    with Journal(tmp_path / "journal") as journal:
        assert journal.file_digest(file) == digest_bytes(b"one")
        file.write_bytes(b"two")  # the same size, perhaps the same time: it is too young to be believed
        assert journal.file_digest(file) == digest_bytes(b"two")
        os.utime(file, (1000, 1000))
        assert journal.file_digest(file) == digest_bytes(b"two")
        file.write_bytes(b"six")
        os.utime(file, (1000, 1000))
        assert journal.file_digest(file) == digest_bytes(b"two")  # not read: nothing says that it changed
        os.utime(file, (1001, 1001))
        assert journal.file_digest(file) == digest_bytes(b"six")


def test_other_files_are_no_journals(tmp_path: Path) -> None:
    other = tmp_path / "other"
    with sqlite3.connect(other) as base:
        base.execute("CREATE TABLE photos(a)")
    base.close()
    with pytest.raises(InvalidRequest, match="not a journal"):
        Journal(other)
    (tmp_path / "text").write_text("no data base " * 100)
    with pytest.raises(JournalError, match="the journal cannot be used"):
        Journal(tmp_path / "text")
    with pytest.raises(KosmosIOError):
        Journal(tmp_path / "text" / "below")


def test_shards_are_parts_of_the_whole() -> None:
    names = [f"photos/{number}.jpg" for number in range(200)]
    parts = [[name for name in names if in_shard(name, (i, 3))] for i in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == sorted(names) and min(map(len, parts)) > 40
    assert parse_shard("2/8") == (2, 8)
    for text in ("0/3", "4/3", "1", "a/b", "1/", "-1/3", "1/3/5"):
        with pytest.raises(InvalidRequest, match="shard"):
            parse_shard(text)
