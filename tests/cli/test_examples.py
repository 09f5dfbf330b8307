"""Every command of README.md and examples/README.md runs; answers about examples/ are what labels.json has."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.convert_checkpoint import convert_state, convert_write_hf
from PIL import Image, ImageChops, ImageStat

import kosmos_edge

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
if not (EXAMPLES / "labels.json").is_file():
    pytest.skip("examples/ is not beside the tests", allow_module_level=True)
LABELS: dict[str, Any] = {
    picture["file"]: picture for picture in json.loads((EXAMPLES / "labels.json").read_text())["pictures"]
}
NUMBERS = ("zero", "one", "two", "three", "four", "five")
# What the README's commands need besides: the network (tests/hub/test_pull.py), or what .ci/run does itself.
ELSEWHERE = (
    "kosmos-edge models pull kosmos-2",
    "pip install .",
    "pip install '.[test]' && pytest -n auto --dist loadfile",
)


def commands(page: str) -> list[str]:
    """The command lines of a page: those of indented blocks and of fences for a shell, comments cut off."""
    text = (ROOT / page).read_text(encoding="utf-8")
    fenced = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
    plain = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    lines = [line for block in fenced for line in block.splitlines()] + re.findall(r"^ {4}(\S.*)", plain, re.M)
    return [line.split("  #")[0].strip() for line in lines]


def snippets(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages' commands name: examples/, a photo, a folder of photos, a checkpoint."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "examples").mkdir()
    for path in EXAMPLES.glob("*.*"):
        (folder / "examples" / path.name).symlink_to(path)
    (folder / "examples" / "pages").symlink_to(EXAMPLES / "pages")
    (folder / "photos").mkdir()
    for number in range(3):
        with Image.open(EXAMPLES / f"scene-0000{number}.png") as picture:
            picture.convert("RGB").save(folder / "photos" / f"{number}.jpg", quality=95)
    (folder / "photo.jpg").symlink_to(folder / "photos" / "0.jpg")
    convert_write_hf(folder / "kosmos-2-patch14-224", convert_state())
    (folder / "bin").mkdir()
    program = folder / "bin" / "kosmos-edge"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m kosmos_edge "$@"\n')
    program.chmod(0o755)
    return folder


def run(place: Path, command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KOSMOS_EDGE_")}
    environment |= {"PATH": f"{place / 'bin'}:{environment['PATH']}", "KOSMOS_EDGE_CACHE": str(place / "cache")}
    return subprocess.run(["bash", "-c", command], cwd=place, env=environment, capture_output=True, text=True)


def bare(phrase: str) -> str:
    """A name without its article."""
    return re.sub(r"^(an?|the) ", "", phrase)


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / both


def check_boxes(lines: list[str], objects: list[dict[str, Any]], size: tuple[int, int]) -> None:
    """Lines of phrase, corners and scores: one for each labelled object, in order, at its place."""
    rows = [line.split("\t") for line in lines]
    assert [bare(row[0]) for row in rows] == [each["name"] for each in objects]
    for row, each in zip(rows, objects, strict=True):
        corners = [float(value) / size[i % 2] for i, value in enumerate(row[1].split())]
        assert overlap(tuple(corners), tuple(each["box"])) >= 0.5
        assert len(row) == 4 and all(0 < float(score) <= 1 for score in row[2:])


def check_answer(words: list[str], out: str) -> None:
    """The answer of `kosmos-edge WORDS` about an example against its labels."""
    verb, picture, given = words[1], LABELS[Path(words[2]).name], words[3:]
    with Image.open(EXAMPLES / picture["file"]) as opened:
        size = opened.size
    objects, lines = picture["objects"], out.splitlines()
    if verb in ("caption", "ground"):
        assert all(each["name"] in lines[0] for each in objects)
        check_boxes(lines[1:], objects, size)
    elif verb == "locate":
        check_boxes(lines, [each for each in objects if each["name"] == bare(given[0])], size)
    elif verb == "describe":
        corners = [float(value) / size[i % 2] for i, value in enumerate(given[given.index("--box") + 1].split(","))]
        assert bare(lines[0].strip(".")) == max(objects, key=lambda o: overlap(tuple(corners), tuple(o["box"])))["name"]
    else:
        assert verb == "ask"
        known = {each["question"]: each["answer"] for each in picture["questions"]}
        counted = re.fullmatch(r"How many (\w+) are there\?", given[0])
        if counted and given[0] not in known:
            number = sum(each["name"] in (counted[1], counted[1].removesuffix("s")) for each in objects)
            known[given[0]] = NUMBERS[number]
        assert lines == [known[given[0]]]


def test_the_pages_have_commands() -> None:
    assert len(commands("examples/README.md")) >= 6 and len(commands("README.md")) >= 8
    assert set(ELSEWHERE) <= set(commands("README.md"))
    assert len(snippets("README.md")) == 1


@pytest.mark.parametrize("command", commands("examples/README.md"))
def test_a_command_of_the_examples_answers_as_the_labels_say(place: Path, command: str) -> None:
    done = run(place, command)
    assert done.returncode == 0, done.stderr
    words = shlex.split(command)
    if words[1:3] != ["bench", "quality"]:
        check_answer(words, done.stdout)
        if "--draw" in words:
            with Image.open(place / words[words.index("--draw") + 1]) as drawn, Image.open(place / words[2]) as asked:
                assert drawn.size == asked.size
        return
    lines = done.stdout.splitlines()
    head = next(re.split(r"\s{2,}", line.strip()) for line in lines if line.startswith("type"))
    row = next(line.split() for line in lines if line.startswith("q4_k_m"))
    figures = dict(zip(head, row, strict=True))
    # every name, place, description and answer about the eight pictures, of the file that ships
    wanted = ("named", "IoU>=.5", "located", "described", "answers", "yes/no")
    assert {name: figures[name] for name in wanted} == dict.fromkeys(wanted, "1.0000")


@pytest.mark.parametrize("command", [c for c in commands("README.md") if c not in ELSEWHERE])
def test_a_command_of_the_readme_runs(place: Path, command: str) -> None:
    if "-m Kosmos" in command:  # what the command before it makes
        run(place, next(c for c in commands("README.md") if c.startswith("kosmos-edge convert")) + " --overwrite")
    done = run(place, command)
    assert done.returncode == 0, done.stderr
    words = shlex.split(command)
    if len(words) > 2 and Path(words[2]).name in LABELS:
        check_answer(words, done.stdout)
    if ">" in words:
        lines = (place / words[-1]).read_text().splitlines()
        texts = [json.loads(line)["text"] for line in lines]
        assert len(texts) == 3 and texts[0] == "a Christmas tree to the left of a truck."


@pytest.mark.parametrize("snippet", snippets("README.md"))
def test_the_readmes_python_runs(
    place: Path, snippet: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("KOSMOS_EDGE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KOSMOS_EDGE_CACHE", str(place / "cache"))
    monkeypatch.chdir(place)
    first, second = Path("photos/1.jpg"), Path("photos/2.jpg")
    wide = snippet.replace("(120, 80, 340, 400)", "(20, 30, 140, 260)")  # the photo here is smaller than the page's
    assert wide != snippet
    names: dict[str, Any] = {"first": first, "second": second, "paths": [first, second]}
    exec(compile(wide, "README.md", "exec"), names)
    assert "a Christmas tree to the left of a truck." in capsys.readouterr().out
    names["m"].close()


def test_the_readmes_picture_is_what_its_command_draws(place: Path) -> None:
    command = next(c for c in commands("README.md") if c.startswith("kosmos-edge ground examples/"))
    assert run(place, command + " --overwrite").returncode == 0
    shown = ROOT / re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))[0]
    with Image.open(place / shlex.split(command)[-1]) as drawn, Image.open(shown) as kept:
        difference = ImageChops.difference(drawn.convert("RGB"), kept.convert("RGB"))
    assert max(ImageStat.Stat(difference).mean) < 2  # without boxes: 7; fonts differ between versions of Pillow
    assert shown.stat().st_size < 60_000


def test_nano_names_what_is_in_the_examples_and_nothing_else() -> None:
    with kosmos_edge.load("nano") as nano:
        for file, picture in LABELS.items():
            found = nano.caption(EXAMPLES / file, ground=True)
            assert [bare(e.phrase) for e in found.entities] == [each["name"] for each in picture["objects"]], file
            assert found.notes == [], file
            for asked in picture["questions"]:
                assert nano.ask(EXAMPLES / file, asked["question"]).text == asked["answer"], file
