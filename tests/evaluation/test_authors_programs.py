"""Metrics as their authors' programs compute them, where these do what one would not expect, and programs that fail."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kosmos_edge.evaluation.metrics import chair, java, pope
from kosmos_edge.evaluation.statistics import Part


@pytest.mark.parametrize(
    ("said", "yes"),
    [("No, there is not.", False), ("no", False), ("It is not there", False), ("NO", True), ("no!", True),
     ("There isn't", True), ("Not sure", True), ("nothing", True), ("Yes. No", True), (" No", False), ("", True)],
)  # fmt: skip
def test_pope_reads_answers_as_the_authors_program(said: str, yes: bool) -> None:
    assert pope.says_yes(said) == yes


def test_chair_takes_two_words_for_one_as_the_authors_program() -> None:
    names = chair.read_names(
        "person, baby, passenger\ntrain\nbear\nteddy bear\nchair, seat\ntoilet\ndog\nbowl, plate\ntie, bow tie\n"
        "laptop, computer\n"
    )
    for said, objects in (
        ("Train tracks and a train", ["train"]),
        ("a baby bear and an adult dog", ["bear", "dog"]),
        ("a passenger train with passengers", ["train", "person"]),
        ("The seat of the toilet, on a chair", ["toilet", "chair"]),
        ("A toilet seat", ["toilet"]),
        ("a plate on home plate", ["bowl"]),
        ("two teddy bears, a bow tie", ["teddy bear", "tie"]),
        ("the dog's seat", ["dog", "chair"]),
        ("a laptop computer", []),  # the list has not the two words together
    ):
        assert chair.mentions(said, names) == objects, said


class Spice:
    """pycocoevalcap's class, with a program that does what it is told to."""

    found: Any = None

    def compute_score(self, true: Any, said: Any) -> Any:
        print("noise")
        if self.found is None:
            raise subprocess.CalledProcessError(1, ["java"])
        return 0.0, [{"All": {"f": value}} for value in self.found]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (None, r"SPICE failed: Command '\['java'\]' returned non-zero exit status 1\."),
        ([0.5], "SPICE failed: got 1 of 2 figures"),
        ([0.5, float("nan")], "SPICE failed: got 1 of 2 figures"),
        ([0.5, 0.25], None),
    ],
)
def test_a_program_that_fails_is_a_reason_and_not_the_end_of_a_run(
    found: Any, reason: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hours of answers are behind it. SPICE needs both of CoreNLP's files."""
    module = ModuleType("pycocoevalcap.spice.spice")
    module.__file__ = str(tmp_path / "spice.py")
    module.Spice = type("Told", (Spice,), {"found": found})  # type: ignore[attr-defined]
    for name in ("pycocoevalcap", "pycocoevalcap.spice", "pycocoevalcap.spice.spice"):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(java.shutil, "which", lambda name: "/usr/bin/java")
    (tmp_path / "lib").mkdir()
    for name in ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
        assert f"{name} is not in {tmp_path / 'lib'}" in java.why_not("spice")
        (tmp_path / "lib" / name).touch()
    assert java.why_not("spice") == ""
    parts: list[dict[str, Part]] = [{}, {}]
    reasons = java.add(parts, ["a dog", "a cat"], [["a dog"], ["a dog"]], ("spice",))
    if reason is None:
        assert reasons == {} and parts == [{"spice": (0.5, 1.0)}, {"spice": (0.25, 1.0)}]
    else:
        assert parts == [{}, {}] and re.fullmatch(reason, reasons["spice"])
    assert capsys.readouterr().out == ""
