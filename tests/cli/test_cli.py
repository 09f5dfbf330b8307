"""The command line: exit codes, what goes to stdout and what to stderr, forms, environment twins, inputs."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.api_model import grounded_file, grounded_model, long_file, picture, png, tiny_file, tiny_model
from PIL import Image

from kosmos_edge import __version__, cli
from kosmos_edge.cli import COMMANDS


class Runner:
    """Runs a command in this process with the tiny model."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *args: object, model: bool = True) -> SimpleNamespace:
        words = [str(arg) for arg in args]
        code = cli.run([*words, "-m", str(tiny_file()), "-t", "1"] if model else words)
        captured = self._capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    for name in [name for name in os.environ if name.startswith("KOSMOS_EDGE_")]:
        monkeypatch.delenv(name)
    return Runner(capsys)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a photo.png"
    path.write_bytes(png())
    return path


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Three pictures, one of them in a folder inside, one damaged one, one text."""
    root = tmp_path / "album"
    (root / "inner").mkdir(parents=True)
    (root / "a.png").write_bytes(png(1))
    (root / "b.jpg").write_bytes(b"\xff\xd8\xff damaged")
    (root / "c.PNG").write_bytes(png(2))
    (root / "notes.txt").write_text("no picture")
    (root / ".hidden.png").write_bytes(png(3))
    (root / "inner" / "d.png").write_bytes(png(4))
    return root


def process(*args: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-P", "-m", "kosmos_edge", *(str(arg) for arg in args)]
    return subprocess.run(command, capture_output=True, check=False, **options)  # type: ignore[call-overload]


# ---- help and usage


def test_help_and_version(run: Runner) -> None:
    done = run("--help", model=False)
    assert done.code == 0 and all(name in done.out for name in COMMANDS) and done.err == ""
    assert run("--version", model=False).out == f"kosmos-edge {__version__}\n"
    for name in COMMANDS:
        done = run(name, "--help", model=False)
        assert done.code == 0 and done.out.startswith(f"Usage: kosmos-edge {name}")


def test_every_command_has_the_help_line_of_the_list() -> None:
    for name in COMMANDS:
        command = cli.cli.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None and command.help


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from kosmos_edge.cli import run; run(['--help'])\n"
        "heavy = {'PIL', 'huggingface_hub', 'numpy', 'kosmos_edge._core'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["frobnicate"],
        ["caption"],
        ["caption", "--no-such-option", "x.png"],
        ["caption", "x.png", "--format", "xml"],
        ["caption", "x.png", "-n", "many"],
        ["locate", "x.png"],
        ["describe", "x.png"],
        ["describe", "x.png", "--box", "1,2,3"],
        ["describe", "x.png", "--box", "a,b,c,d"],
        ["generate"],
        ["generate", "--box", "1,2"],
        ["score", "x.png"],
        ["caption", "@missing.txt"],
        ["caption", "no*such.png"],
        ["caption", "-", "-"],
        ["caption", "x.png", "--shot", "only-one-part"],
    ],
)
def test_wrong_usage_is_exit_2(run: Runner, args: list[str]) -> None:
    done = run(*args, model=False)
    assert done.code == 2, done
    if args:
        assert done.out == "" and "rror" in done.err


@pytest.mark.parametrize(
    "args",
    [
        ["-n", "0"],
        ["-n", "513"],
        ["--temperature", "-1"],
        ["--top-p", "0.5"],
        ["--num-beams", "9"],
        ["--device", "tpu"],
        ["-t", "0"],
        ["--no-repeat-ngram-size", "-1"],
        ["--seed", "-5"],
    ],
)
def test_absurd_values_are_exit_2_with_the_name(run: Runner, photo: Path, args: list[str]) -> None:
    done = run("caption", photo, "-m", tiny_file(), *args, model=False)
    assert done.code == 2 and done.out == ""
    assert args[0].strip("-").replace("-", "_") in done.err or args[1] in done.err


def test_a_missing_model_is_exit_1(run: Runner, photo: Path) -> None:
    done = run("caption", photo, "-m", "nothing.gguf", "--offline", model=False)
    assert done.code == 1 and done.out == "" and "nothing.gguf" in done.err


# ---- the verbs


def test_caption(run: Runner, photo: Path) -> None:
    expected = tiny_model().caption(photo, ground=True, max_tokens=20)
    done = run("caption", photo, "-n", 20)
    assert done.code == 0 and done.out.splitlines()[0] == expected.text.strip("\n")
    assert len(done.out.splitlines()) == 1 + len(expected.boxes)
    plain = run("caption", photo, "-n", 20, "--no-boxes", "--lead-in")
    assert plain.out == tiny_model().caption(photo, lead_in=True, max_tokens=20).text + "\n"
    long = run("caption", photo, "-n", 9, "--length", "long", "-f", "json")
    assert json.loads(long.out)["token_ids"] == tiny_model().caption(photo, "long", ground=True, max_tokens=9).token_ids


def test_boxes_are_printed_with_tabs(run: Runner, photo: Path) -> None:
    expected = grounded_model().ground(photo, max_tokens=80)
    done = run("ground", photo, "-n", 80, "-m", grounded_file(), model=False)
    lines = done.out.splitlines()
    assert lines[0] == expected.text and len(lines) == 1 + len(expected.boxes) > 2
    phrase, corners, score, words = lines[1].split("\t")
    assert float(words) == pytest.approx(expected.entities[0].phrase_score, abs=1e-3)
    assert phrase == expected.entities[0].phrase and float(score) == pytest.approx(expected.boxes[0].score, abs=1e-3)
    assert [int(v) for v in corners.split()] == [round(v) for v in expected.boxes[0].pixels]
    many = run("ground", photo, photo, "-n", 80, "-m", grounded_file(), model=False).out.splitlines()
    assert many == [f"{photo}: {line}" for line in lines] * 2
    located = run("locate", photo, "a dog", "-m", grounded_file(), model=False).out.splitlines()
    assert located and all(line.startswith("a dog\t") for line in located)
    assert run("caption", photo, "-n", 80, "-m", grounded_file(), model=False).out.splitlines() == lines


def test_locate_describe_ask_score(run: Runner, photo: Path) -> None:
    located = run("locate", photo, "a dog")
    expected = tiny_model().locate(photo, "a dog")
    assert located.code == 0 and len(located.out.splitlines()) == len(expected.boxes)
    assert bool(expected.boxes) != ("no box" in located.err)
    pixels = run("describe", photo, "--box", "10,10,50,60", "-n", 6, "-f", "json")
    assert json.loads(pixels.out)["box"]["cells"] == list(tiny_model().describe(photo, (10, 10, 50, 60)).box.cells)
    fractions = run("describe", photo, "--box", "0.1,0.125,0.5,0.75", "--normalized", "-n", 6, "-f", "json")
    assert json.loads(fractions.out)["token_ids"] == json.loads(pixels.out)["token_ids"]
    outside = run("describe", photo, "--box", "10,10,500,60")
    assert outside.code == 1 and outside.out == "" and "100 x 80" in outside.err
    asked = run("ask", photo, "Who?", "--choice", "a dog", "--choice", "the cat")
    assert asked.out.strip() in ("a dog", "the cat")
    scored = run("score", photo, "a dog", "a cat", "--template", "It is {text}", "--normalize", "mean")
    rows = [line.split("\t") for line in scored.out.splitlines()]
    best = tiny_model().score(photo, ["a dog", "a cat"], "It is {text}", normalize="mean").ranking
    assert [row[2] for row in rows] == [score.text for score in best]
    assert float(rows[0][0]) == pytest.approx(best[0].score, abs=1e-4)


def test_generate_keeps_the_order(run: Runner, photo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    other.write_bytes(png(5, 60, 60))
    args = [
        "--image",
        other,
        "--text",
        "An image of a cat.",
        "-i",
        photo,
        "--text=An image of",
        "-n",
        "8",
        "-f",
        "json",
    ]
    expected = tiny_model().generate([other, "An image of a cat.", photo, "An image of"], max_tokens=8)
    record = json.loads(run("generate", *args).out)
    assert record["token_ids"] == expected.token_ids and record["width"] == 100
    swapped = [
        "-i",
        photo,
        "--text",
        "An image of a cat.",
        "--image",
        other,
        "--text",
        "An image of",
        "-n",
        "8",
        "-f",
        "json",
    ]
    assert json.loads(run("generate", *swapped).out)["width"] == 60
    raw = run("generate", "-i", photo, "-p", "<grounding>An image of", "--raw", "--grammar", "-n", 8, "-f", "json")
    assert json.loads(raw.out)["token_ids"] == tiny_model().caption(photo, ground=True, max_tokens=8).token_ids
    text = run("generate", "-p", "An image of", "-n", 5)
    assert text.code == 0 and text.out == tiny_model().generate(["An image of"], max_tokens=5).text + "\n"
    boxed = run("generate", "-i", photo, "-p", "It", "--box", "10,10,50,50", "-p", "is", "-n", 3)
    assert boxed.code == 0


def test_shots(run: Runner, photo: Path, tmp_path: Path) -> None:
    other = tmp_path / "shot.png"
    other.write_bytes(png(5))
    done = run("caption", photo, "--no-boxes", "--shot", f"{other}::a red house.", "-n", 8, "-f", "json")
    expected = tiny_model().caption(photo, examples=[(other, "a red house.")], max_tokens=8)
    assert json.loads(done.out)["token_ids"] == expected.token_ids
    asked = run("ask", photo, "Who?", "--shot", f"{other}::What?::a house", "-n", 8, "-f", "json")
    expected = tiny_model().ask(photo, "Who?", examples=[(other, "What?", "a house")], max_tokens=8)
    assert json.loads(asked.out)["token_ids"] == expected.token_ids


# ---- inputs


def test_several_inputs_and_a_bad_one(run: Runner, photo: Path, album: Path) -> None:
    done = run("caption", photo, album / "b.jpg", album / "a.png", "-n", 4, "--no-boxes")
    assert done.code == 1
    assert [line.split(": ")[0] for line in done.out.splitlines()] == [str(photo), str(album / "a.png")]
    assert f"{album / 'b.jpg'}: " in done.err and "1 of 3 failed" in done.err
    fast = run("caption", album / "b.jpg", photo, "-n", 4, "--fail-fast")
    assert fast.code == 1 and fast.out == ""


def test_folders_globs_lists_and_stdin(
    run: Runner, photo: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(*args: object) -> list[str]:
        done = run("caption", *args, "-n", 2, "-f", "jsonl")
        return [os.path.relpath(json.loads(line)["path"], album) for line in done.out.splitlines()]

    assert names(album) == ["a.png", "b.jpg", "c.PNG"]
    assert names(album, "-r") == ["a.png", "b.jpg", "c.PNG", os.path.join("inner", "d.png")]
    assert names(f"{album}/*.png") == ["a.png"]
    assert names(f"{album}/**/*.png") == ["a.png", os.path.join("inner", "d.png")]
    listed = tmp_path / "list.txt"
    listed.write_text(f"{album / 'c.PNG'}\n\n{album / 'a.png'}\r\n", encoding="utf-8")
    assert names(f"@{listed}") == ["c.PNG", "a.png"]
    odd = tmp_path / "a[1].png"  # exists, so it is no pattern
    odd.write_bytes(png())
    assert run("caption", odd, "-n", 2).code == 0
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("caption", empty).code == 2

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(png())))
    done = run("caption", "-", "-n", 6, "-f", "json")
    assert json.loads(done.out)["path"] == "-"
    assert json.loads(done.out)["token_ids"] == tiny_model().caption(photo, ground=True, max_tokens=6).token_ids


def test_exif_and_frame(run: Runner, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / "turned.png"
    Image.fromarray(picture()).save(turned, exif=exif)
    record = json.loads(run("caption", turned, "-n", 2, "-f", "json").out)
    assert (record["width"], record["height"]) == (80, 100) and any("EXIF" in note for note in record["notes"])
    record = json.loads(run("caption", turned, "-n", 2, "-f", "json", "--no-exif").out)
    assert (record["width"], record["height"]) == (100, 80)
    moving = tmp_path / "moving.gif"
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "lime")]
    frames[0].save(moving, save_all=True, append_images=frames[1:])
    assert "frame 1" in json.loads(run("caption", moving, "-n", 2, "-f", "json", "--frame", 1).out)["notes"][0]
    assert run("caption", moving, "--frame", 2).code == 1


def test_unusual_names_come_out_as_they_are(run: Runner, tmp_path: Path) -> None:
    path = tmp_path / "Ж 画像 😀.png"
    path.write_bytes(png())
    assert json.loads(run("caption", path, "-n", 2, "-f", "jsonl").out)["path"] == str(path)
    done = process("caption", path, path, "-n", 2, "--no-boxes", "-m", tiny_file(), env={**os.environ, "LC_ALL": "C"})
    assert done.returncode == 0 and str(path).encode() in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="file names are Unicode there")
def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.png"
    with open(path, "wb") as file:
        file.write(png())
    name = os.fsdecode(path)
    text = process("caption", name, name, "-n", 2, "--no-boxes", "-m", tiny_file())
    assert text.returncode == 0 and path in text.stdout
    record = json.loads(process("caption", name, "-n", 2, "-f", "json", "-m", tiny_file()).stdout)
    assert os.fsencode(record["path"]) == path


# ---- forms


def test_json_is_one_document(run: Runner, photo: Path, album: Path) -> None:
    one = json.loads(run("caption", photo, "-n", 4, "-f", "json").out)
    assert isinstance(one, dict) and one["path"] == str(photo) and one["error"] is None and "logprobs" in one
    assert one["timings"]["decode_image_ms"] > 0
    done = run("caption", photo, album / "b.jpg", "-n", 4, "-f", "json")
    many = json.loads(done.out)
    assert done.code == 1 and [record["error_type"] for record in many] == [None, "ImageDecodeError"]
    assert many[1]["path"] == str(album / "b.jpg") and many[1]["finish_reason"] == "error"
    assert isinstance(json.loads(run("caption", f"{album}/a*", "-n", 2, "-f", "json").out), list)


def test_jsonl_and_csv(run: Runner, photo: Path, album: Path) -> None:
    lines = run("caption", photo, album / "b.jpg", "-n", 4, "-f", "jsonl", "--logprobs").out.splitlines()
    records = [json.loads(line) for line in lines]
    assert len(records) == 2 and len(records[0]["logprobs"]) == len(records[0]["token_ids"])
    done = run("caption", photo, album / "b.jpg", "-n", 4, "-f", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["path"] for row in rows] == [str(photo), str(album / "b.jpg")]
    assert (
        rows[0]["error"] == ""
        and "b.jpg" in rows[1]["error"]
        and json.loads(rows[0]["entities"]) == records[0]["entities"]
    )
    scored = list(csv.DictReader(io.StringIO(run("score", photo, "a dog", "a cat", "-f", "csv").out)))
    assert {row["text"] for row in scored} == {"a dog", "a cat"} and float(scored[0]["share"]) >= 0.5


def test_output_file(run: Runner, photo: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    done = run("caption", photo, "-n", 4, "-f", "jsonl", "-o", target)
    assert done.code == 0 and done.out == "" and json.loads(target.read_text())["path"] == str(photo)
    again = run("caption", photo, "-n", 4, "-o", target)
    assert again.code == 2 and "overwrite" in again.err and json.loads(target.read_text())
    assert run("caption", photo, "-n", 4, "-o", target, "--overwrite").code == 0
    assert run("caption", photo, "-n", 4, "-o", tmp_path / "no" / "x").code == 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".kosmos")]


def test_draw(run: Runner, photo: Path, album: Path, tmp_path: Path) -> None:
    target = tmp_path / "drawn.png"
    assert run("ground", photo, "-n", 8, "--draw", target).code == 0
    with Image.open(target) as drawn:
        assert drawn.size == (100, 80)
    assert run("ground", photo, "-n", 8, "--draw", target).code == 2
    assert run("ground", photo, "-n", 8, "--draw", photo, "--overwrite").code == 2  # never the picture itself
    assert photo.read_bytes() == png()
    folder = tmp_path / "drawings"
    assert run("ground", album, "-n", 8, "--draw", folder).code == 1  # b.jpg is damaged
    assert sorted(path.name for path in folder.iterdir()) == ["a.boxes.png", "c.boxes.png"]
    assert run("ground", photo, "-n", 8, "--draw", tmp_path / "x.xyz").code == 2


def test_draw_svg_and_html(run: Runner, photo: Path, album: Path, tmp_path: Path) -> None:
    done = run("caption", photo, "-n", 8, "--draw", tmp_path / "drawn.html")
    assert done.code == 0
    page = (tmp_path / "drawn.html").read_text()
    assert page.startswith("<!doctype html>") and "data:image/jpeg;base64," in page
    assert f"<title>{photo}</title>" in page and done.out.splitlines()[0].strip() in page
    assert run("caption", photo, "-n", 8, "--draw", tmp_path / "drawn.html").code == 2
    assert run("caption", photo, "-n", 8, "--draw", tmp_path / "drawn.svg").code == 0
    assert (tmp_path / "drawn.svg").read_text().startswith("<?xml")
    for form in ("svg", "html", "jpg"):
        folder = tmp_path / form
        assert run("ground", album, "-n", 8, "--draw", folder, "--draw-format", form).code == 1  # b.jpg is damaged
        assert sorted(path.name for path in folder.iterdir()) == [f"a.boxes.{form}", f"c.boxes.{form}"]


# ---- stderr, environment


def test_stdout_has_results_only(run: Runner, photo: Path) -> None:
    loud = run("caption", photo, "-n", 4, "-v", "-f", "jsonl")
    assert len(loud.out.splitlines()) == 1 and "loaded in" in loud.err and "ms" in loud.err
    normal = run("caption", photo, "-n", 4, "-f", "jsonl")
    assert normal.err == "" and len(normal.out.splitlines()) == 1


def test_the_models_notice_goes_to_stderr_once(run: Runner, photo: Path, tmp_path: Path) -> None:
    from helpers.tiny import write_tiny

    path = tmp_path / "noticed.gguf"
    write_tiny(path, edit=lambda content: content.metadata.update({"kosmos2.notice": ("str", "I know shapes only.")}))
    done = run("caption", photo, photo, "-n", 2, "-m", path, model=False)
    assert done.err.count("I know shapes only.") == 1 and "shapes" not in done.out
    assert run("caption", photo, "-n", 2, "-q", "-m", path, model=False).err == ""


def test_options_have_twins_in_the_environment(run: Runner, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one: tests/cli/test_env_twins.py."""
    monkeypatch.setenv("KOSMOS_EDGE_MODEL", str(tiny_file()))
    monkeypatch.setenv("KOSMOS_EDGE_MAX_TOKENS", "3")
    monkeypatch.setenv("KOSMOS_EDGE_FORMAT", "json")
    monkeypatch.setenv("KOSMOS_EDGE_BOXES", "0")
    record = json.loads(run("caption", photo, model=False).out)
    assert record["token_ids"] == tiny_model().caption(photo, max_tokens=3).token_ids and record["model"] == "tiny"
    monkeypatch.setenv("KOSMOS_EDGE_MAX_TOKENS", "x")
    assert run("caption", photo, model=False).code == 2


# ---- ends


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
def test_ctrl_c_is_exit_130_and_leaves_nothing(photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    command = [sys.executable, "-P", "-m", "kosmos_edge", "generate", "-i", photo, "-p", "An image of", "-v"]
    command += [
        "--choice",
        ("a dog " * 7000).strip(),
        "-n",
        "15000",
        "-m",
        long_file(),
        "-t",
        "1",
        "-o",
        folder / "x.txt",
    ]
    with subprocess.Popen(
        [str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        assert "loaded in" in running.stderr.readline()
        running.send_signal(signal.SIGINT)
        rest = running.stderr.read()
    assert running.returncode == 130 and "interrupted" in rest and "Traceback" not in rest
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGPIPE there")
def test_a_reader_that_goes_away_is_no_traceback(photo: Path) -> None:
    command = [
        sys.executable,
        "-P",
        "-m",
        "kosmos_edge",
        "caption",
        *[str(photo)] * 50,
        "-m",
        str(tiny_file()),
        "-n",
        "2",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        assert b"Traceback" not in running.stderr.read()
    assert running.returncode == 1


def test_the_installed_command_is_the_module() -> None:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        scripts = [e for e in distribution("kosmos-edge").entry_points if e.name == "kosmos-edge"]
    except PackageNotFoundError:
        pytest.skip("kosmos-edge is not installed here, only on the path")
    assert [e.value for e in scripts] == ["kosmos_edge.cli:main"]
    assert process("--version").stdout.decode().strip() == f"kosmos-edge {__version__}"
    with pytest.raises(SystemExit) as caught:
        cli.main(["--no-such-option"])
    assert caught.value.code == 2


def test_list_devices(run: Runner) -> None:
    rows = [line.split("\t") for line in run("--list-devices", model=False).out.splitlines()]
    assert ["cpu", "available"] in [row[:2] for row in rows] and {"cuda", "metal"} <= {row[0] for row in rows}
    assert all(len(row) == 3 and row[2] for row in rows)
