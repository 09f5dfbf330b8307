"""The pages of docs/tasks show what the model that ships answers."""

import math
import os
import re
import shlex
from pathlib import Path

import pytest

from kosmos_edge import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "tasks").glob("*.md"))
if not PAGES:
    pytest.skip("the documentation is not beside the tests", allow_module_level=True)


def examples(page: Path) -> list[tuple[str, list[str]]]:
    """(command, lines of its output) of the console blocks."""
    out: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                out.append((line[2:], []))
            else:
                out[-1][1].append(line)
    return out


def same(shown: str, found: str) -> bool:
    """Words exactly, numbers roughly: kernels of other machines round differently."""
    parts = list(zip(shown.split("\t"), found.split("\t"), strict=False))
    if shown.count("\t") != found.count("\t"):
        return False
    number = re.compile(r"-?\d+\.\d+(e-?\d+)?")
    return all(
        math.isclose(float(a), float(b), rel_tol=0.2, abs_tol=0.05)
        if number.fullmatch(a) and number.fullmatch(b)
        else a == b
        for a, b in parts
    )


def test_every_page_has_an_example() -> None:
    assert all(examples(page) for page in PAGES) and len(PAGES) >= 6
    assert same("1.50\t0.1\ta b", "1.52\t0.1\ta b") and not same("1.50\ta", "2.50\ta") and not same("a", "b")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_page_shows_what_nano_answers(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("KOSMOS_EDGE_")]:
        monkeypatch.delenv(name)
    for command, shown in examples(page):
        place, _, rest = command.rpartition(" && ")
        monkeypatch.chdir(ROOT / place.removeprefix("cd "))
        assert cli.run([*shlex.split(rest)[1:], "-m", "nano", "-t", "1", "-q"]) == 0
        found = capsys.readouterr().out.splitlines()
        if " iq " in rest:  # noise decides their order
            found, shown = (sorted(lines, key=lambda line: line.split("\t")[-1]) for lines in (found, shown))
        assert len(found) == len(shown) and all(map(same, shown, found)), (command, found)
