"""Runs that are killed at random instants and resumed; bench/folder_runs.py does this 200 times."""

import os
import sys
from pathlib import Path

import pytest
from folder_runs import BY_HAND, kill_runs, make_pictures, sidecars_of
from helpers.api_model import grounded_file, png
from test_sidecars import Done

from kosmos_edge import KosmosIOError
from kosmos_edge.folders import sidecars

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are otherwise there")


class Killed(BaseException):
    """No code handles it."""


def test_every_picture_once_and_no_partial_sidecar(tmp_path: Path) -> None:
    found = kill_runs(tmp_path, kills=3, pictures=30, model=str(grounded_file()), seed=3)
    assert found.kills == 3 and found.faults == []


def test_what_a_person_wrote_stays(tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", 8, by_hand=2)
    assert list(sidecars_of(tmp_path / "photos").values()) == [BY_HAND] * 4


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("policy", [(), ("--append",), ("--overwrite",)])
def test_a_kill_around_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, policy: tuple[str, ...]
) -> None:
    """The process ends before or after the sidecar got its name: it is written once."""
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(png(1))
    if policy:
        (photos / "a.txt").write_text("tag\n")
    write = sidecars.Planned.write

    def ends(self: sidecars.Planned) -> None:
        if when == "after":
            write(self)
        raise Killed

    model = ("--model", grounded_file(), "--threads", "1", "--max-tokens", "4", "--no-boxes")
    words = ("batch", photos, "--sidecar", "txt", "--resume", "--journal", tmp_path / "journal", *policy, *model)
    with monkeypatch.context() as patch:
        patch.setattr(sidecars.Planned, "write", ends)
        with pytest.raises(Killed):
            Done(*words, model=[])
    (row,) = Done(*words, model=[]).rows
    expected = f"tag, {row['text']}\n" if policy == ("--append",) else f"{row['text']}\n"
    assert (photos / "a.txt").read_text() == expected
    Done(*words, model=[])
    assert (photos / "a.txt").read_text() == expected


def test_a_full_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(png(ord(name)))
    words = (
        "batch",
        tmp_path,
        "--sidecar",
        "txt",
        "--journal",
        tmp_path / "journal",
        "--model",
        grounded_file(),
        "-n",
        3,
    )

    def fails(number: int) -> None:
        def write(self: sidecars.Planned) -> None:
            raise KosmosIOError(number, os.strerror(number), self.path)

        monkeypatch.setattr(sidecars.Planned, "write", write)

    fails(errno.EACCES)  # one file's trouble
    assert [row["error"] is None for row in Done(*words, model=[]).rows] == [False, False]
    fails(errno.ENOSPC)
    with pytest.raises(KosmosIOError, match="No space"):
        Done(*words, model=[])
