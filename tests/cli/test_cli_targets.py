"""Where output goes: files, links, devices, pipes, sockets, folders, modes; formats by suffix; names of drawings."""

import csv
import json
import os
import pty
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.api_model import picture, png, tiny_file
from PIL import Image
from test_cli import Runner, photo, process, run  # noqa: F401  (fixtures)

from kosmos_edge import InvalidRequest, KosmosIOError, targets
from kosmos_edge.cli import tasks as cli_tasks
from kosmos_edge.cli.inputs import Input
from kosmos_edge.convert.atomic import AtomicFile
from kosmos_edge.draw import save_drawing
from kosmos_edge.drawing_names import drawing_names

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes, modes and links are otherwise there")
IMAGE = Image.new("RGB", (8, 8), "red")


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    before = os.umask(0o022)
    yield lambda mask: os.umask(mask) and None
    os.umask(before)


def mode(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the test may not come as far as to load a model."""
    monkeypatch.setattr(cli_tasks, "take_model", lambda *_, **__: pytest.fail("a model was loaded"))
    monkeypatch.setattr("kosmos_edge.cli.generate.take_model", lambda *_, **__: pytest.fail("a model was loaded"))


# ---- modes, links


def test_modes(run: Runner, photo: Path, tmp_path: Path, umask: Callable[[int], None]) -> None:  # noqa: F811
    out, drawn, model = tmp_path / "o.txt", tmp_path / "d.png", tmp_path / "m.gguf"

    def write() -> list[str]:
        assert run("ground", photo, "-n", 4, "-o", out, "--draw", drawn, "--overwrite").code == 0
        with AtomicFile(model, 4, True) as file:
            file.write(0, b"GGUF")
            file.commit(lambda path: None)
        return [mode(path) for path in (out, drawn, model)]

    assert write() == ["0o644"] * 3
    for path, bits in ((out, 0o600), (drawn, 0o664), (model, 0o640)):
        path.chmod(bits)
    assert write() == ["0o600", "0o664", "0o640"]
    for path in (out, drawn, model):
        path.unlink()
    umask(0o077)
    assert write() == ["0o600"] * 3


def test_links_are_followed(run: Runner, photo: Path, tmp_path: Path) -> None:  # noqa: F811
    real, links = tmp_path / "real", tmp_path / "links"
    real.mkdir()
    links.mkdir()
    for name in ("o.txt", "d.png", "new.png"):
        (links / name).symlink_to(links / f"second {name}")
        (links / f"second {name}").symlink_to(Path("..") / "real" / name)
    (real / "o.txt").write_text("before")
    assert run("ground", photo, "-n", 4, "-o", links / "o.txt").code == 2
    assert (real / "o.txt").read_text() == "before"
    code = run("ground", photo, "-n", 4, "-o", links / "o.txt", "--draw", links / "d.png", "--overwrite").code
    save_drawing(IMAGE, links / "new.png")
    assert code == 0 and (real / "o.txt").read_text() != "before"
    assert names(real) == ["d.png", "new.png", "o.txt"]
    assert len(names(links)) == 6 and all(path.is_symlink() for path in links.iterdir())
    (links / "loop.png").symlink_to("loop.png")
    with pytest.raises(KosmosIOError, match="links"):
        save_drawing(IMAGE, links / "loop.png")


def test_the_picture_itself_is_never_the_output(
    run: Runner,  # noqa: F811
    photo: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    no_model(monkeypatch)
    link, hard, other = tmp_path / "link.png", tmp_path / "hard.png", tmp_path / "other.png"
    link.symlink_to(photo)
    os.link(photo, hard)
    other.write_bytes(png(4))
    for path in (photo, link, hard):
        for option in ("-o", "--draw"):
            done = run("ground", photo, option, path, "--overwrite")
            assert done.code == 2 and "is the same file as the input" in done.err and len(done.err.splitlines()) == 1
        assert run("generate", "-i", photo, "-p", "x", "-o", path, "--overwrite").code == 2
        assert run("ground", other, photo, "-o", path, "--overwrite").code == 2
    assert photo.read_bytes() == png()
    both = run("ground", photo, "-o", tmp_path / "x.png", "--draw", f"{tmp_path}//./x.png")
    assert both.code == 2 and "also the output of the results" in both.err


def test_nothing_that_is_read_is_ever_the_output(
    run: Runner,  # noqa: F811
    photo: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An example's picture, a list, the model, and a picture that has the name of the file beside the output."""
    no_model(monkeypatch)
    listed, model, example, part = (tmp_path / name for name in ("l.txt", "m.gguf", "e.png", "p.part"))
    listed.write_text(f"{photo}\n")
    model.write_bytes(b"GGUF")
    example.write_bytes(png(5))
    part.write_bytes(png(6))
    before = {path: path.read_bytes() for path in (listed, model, example, part)}
    for arguments in (
        ("caption", photo, "--shot", f"{example}::a dog", "-o", example),
        ("caption", photo, "--shot", f"{example}::a dog", "--draw", example),
        ("batch", f"@{listed}", "-o", listed),
        ("caption", part, "-o", tmp_path / "p"),
    ):
        done = run(*arguments, "--overwrite")
        assert done.code == 2 and "is the same file as the input" in done.err, (arguments, done.err)
    for words in (["caption", photo], ["generate", "-i", photo, "-p", "x"]):
        ended = process(*words, "-m", model, "-o", model, "--overwrite")
        assert ended.returncode == 2 and b"is the same file as the input" in ended.stderr, (words, ended.stderr)
    assert before == {path: path.read_bytes() for path in before}


def test_what_is_in_the_way_of_the_file_beside_the_output_is_named(
    run: Runner,  # noqa: F811
    photo: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    no_model(monkeypatch)
    (tmp_path / "a.part").mkdir()
    (tmp_path / "b.part").symlink_to("elsewhere")
    os.mkfifo(tmp_path / "c.part")
    for name in ("a", "b", "c"):
        done = run("caption", photo, "-o", tmp_path / name, "--overwrite")
        assert done.code == 1 and f"{name}.part is in the way" in done.err, done.err
    assert photo.read_bytes() == png()


# ---- what is no regular file


class Sink:
    """Reads what comes out of a pipe, socket or terminal."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self.data = b""
        self._read = read
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.data = self._read()

    def wait(self) -> bytes:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.data


def test_pipes(run: Runner, photo: Path, tmp_path: Path) -> None:  # noqa: F811
    expected = run("caption", photo, "-n", 4).out
    pipe, link, picture = tmp_path / "pipe", tmp_path / "link", tmp_path / "pipe.png"
    os.mkfifo(pipe)
    os.mkfifo(picture)
    link.symlink_to(pipe)
    for path in (pipe, link):
        sink = Sink(pipe.read_bytes)
        assert run("caption", photo, "-n", 4, "-o", path).code == 0
        assert sink.wait().decode() == expected
    sink = Sink(picture.read_bytes)
    assert run("ground", photo, "-n", 4, "--draw", picture).code == 0
    assert sink.wait().startswith(b"\x89PNG")
    assert stat.S_ISFIFO(pipe.stat().st_mode) and stat.S_ISFIFO(picture.stat().st_mode) and link.is_symlink()
    sink = Sink(pipe.read_bytes)
    save_drawing(IMAGE, pipe)  # without a suffix: PNG
    assert sink.wait().startswith(b"\x89PNG")


def test_a_socket(run: Runner, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        server.listen()

        def read() -> bytes:
            with server.accept()[0] as connection, connection.makefile("rb") as file:
                return file.read()

        sink = Sink(read)
        assert run("caption", photo, "-n", 4, "-o", "socket", "-f", "jsonl").code == 0
        assert json.loads(sink.wait())["path"] == str(photo)
        assert stat.S_ISSOCK((tmp_path / "socket").stat().st_mode)
    done = run("caption", photo, "-o", "socket")  # nobody listens
    assert done.code == 1 and done.err.count("\n") == 1 and "refused" in done.err


def test_a_dash_is_stdout_or_refused(
    run: Runner,  # noqa: F811
    photo: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    words = ("caption", photo, "-n", 3, "-f", "json", "--no-boxes")
    ids = json.loads(run(*words).out)["token_ids"]
    assert json.loads(run(*words, "-o", "-").out)["token_ids"] == ids
    monkeypatch.setenv("KOSMOS_EDGE_OUTPUT", "-")
    assert json.loads(run(*words).out)["token_ids"] == ids
    monkeypatch.delenv("KOSMOS_EDGE_OUTPUT")
    assert json.loads(run("batch", photo, "-n", 3, "-o", "-").out)["path"] == str(photo)
    for refused in (
        run(*words, "--draw", "-"),
        run("batch", photo, "-o", "-", "--format", "yolo"),
        run("convert", tiny_file(), "-o", "-", model=False),
        run("caption", photo, photo, "--draw", "-"),
        run("batch", photo, "--journal", "-"),
        run("models", "pull", "nano", "--to", "-", model=False),
    ):
        assert refused.code == 2 and refused.out == "", refused
    assert "-: expected the name of a file to write; this does not go to stdout" in run(*words, "--draw", "-").err
    assert sorted(tmp_path.iterdir()) == before
    assert run(*words, "-o", "./-").code == 0 and (tmp_path / "-").exists()


def test_a_terminal_and_other_devices(run: Runner, photo: Path, tmp_path: Path) -> None:  # noqa: F811
    ours, theirs = pty.openpty()
    link, null, full = tmp_path / "link.png", tmp_path / "null.png", tmp_path / "full.png"
    link.symlink_to(os.ttyname(theirs))
    null.symlink_to("/dev/null")
    full.symlink_to("/dev/full")
    try:
        assert run("caption", photo, "-n", 4, "-f", "jsonl", "-o", link).code == 0
        assert b'"path"' in os.read(ours, 100_000)
    finally:
        os.close(ours)
        os.close(theirs)
    before = os.stat("/dev/null").st_ino, os.stat("/dev/null").st_rdev
    assert run("ground", photo, "-n", 4, "-o", null, "--draw", null).code == 0
    save_drawing(IMAGE, null)
    done = run("caption", photo, "-n", 4, "-o", full)
    assert done.code == 1 and "No space left" in done.err and len(done.err.splitlines()) == 1
    with pytest.raises(KosmosIOError, match="No space left"):
        save_drawing(IMAGE, full)
    assert null.is_symlink() and full.is_symlink()
    assert (os.stat("/dev/null").st_ino, os.stat("/dev/null").st_rdev) == before


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="links to open files are Linux's")
def test_stdout_by_name_is_written_where_it_stands(photo: Path, tmp_path: Path) -> None:  # noqa: F811
    got, link, drawn = tmp_path / "got", tmp_path / "link", tmp_path / "drawn.png"
    link.symlink_to("/proc/self/fd/1")
    drawn.symlink_to(link)
    command = [sys.executable, "-P", "-m", "kosmos_edge", "caption", str(photo), "-n", "4", "-m", str(tiny_file())]
    with got.open("wb") as file:
        file.write(b"before\n")
        file.flush()
        subprocess.run([*command, "-o", str(link), "-f", "jsonl"], stdout=file, check=True)
        inode = os.fstat(file.fileno()).st_ino
        subprocess.run([*command, "-o", "/dev/stdout", "-f", "jsonl", "--overwrite"], stdout=file, check=True)
    lines = got.read_text().splitlines()
    assert lines[0] == "before" and [json.loads(line)["path"] for line in lines[1:]] == [str(photo)] * 2
    assert got.stat().st_ino == inode and link.is_symlink()
    done = process(*command[4:], "-o", tmp_path / "o.txt", "--draw", drawn)
    assert done.returncode == 0 and done.stdout.startswith(b"\x89PNG") and drawn.is_symlink()
    with (tmp_path / "both").open("wb") as file:
        mixed = subprocess.run([*command, "--draw", str(drawn)], stdout=file, stderr=subprocess.PIPE, check=False)
    assert mixed.returncode == 2 and b"also the output of the results" in mixed.stderr


def test_a_model_goes_into_a_file_only(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    for name, what in (("null", "a device"), ("pipe", "a pipe"), ("", "a folder")):
        for overwrite in (False, True):
            with pytest.raises(InvalidRequest, match=what):
                AtomicFile(tmp_path / name, 10, overwrite)
    assert names(tmp_path) == ["null", "pipe"] and (tmp_path / "null").is_symlink()


# ---- found before anything is computed


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("folder", 2, "folder is a folder"),
        ("folder/", 2, "is a folder"),
        ("to folder", 2, "is a folder"),
        ("none/x.png", 1, "there is no folder"),
        ("none/", 1, "there is no folder"),
        ("file/x.png", 1, "Not a directory"),
        ("y" * 300 + ".png", 1, "too long"),
        ("file", 2, "exists"),
        ("", 2, "expected the name of a file"),
    ],
)
@pytest.mark.parametrize("command", ["caption", "generate"])
def test_places_are_checked_before_the_model_is_loaded(
    run: Runner,  # noqa: F811
    photo: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    code: int,
    said: str,
    command: str,
) -> None:
    no_model(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "to folder").symlink_to("folder")
    (tmp_path / "file").write_text("kept")
    before = names(tmp_path)
    words = ["caption", photo] if command == "caption" else ["generate", "-i", photo, "-p", "x"]
    overwrite = [] if name == "file" else ["--overwrite"]
    for option in ["-o", "--draw"] if command == "caption" else ["-o"]:
        done = run(*words, option, name, *overwrite)
        assert (done.code, done.out) == (code, "") and said in done.err, done.err
        assert len(done.err.splitlines()) == 1 and done.err.startswith("kosmos-edge: error: ")
    assert names(tmp_path) == before


def test_unwritable_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As os.access tells: root, who may write everywhere, runs this, too."""
    (tmp_path / "file.png").write_bytes(b"kept")
    real = os.access
    refused = [tmp_path / "file.png"]
    monkeypatch.setattr(os, "access", lambda path, bits: Path(path) not in refused and real(path, bits))
    with pytest.raises(KosmosIOError, match="not writable"):
        save_drawing(IMAGE, tmp_path / "file.png")
    refused[:] = [tmp_path]
    for name in ("file.png", "new.png"):
        with pytest.raises(KosmosIOError, match=r"folder .* is not writable"):
            save_drawing(IMAGE, tmp_path / name)
    with pytest.raises(KosmosIOError, match="not writable"):
        targets.make_folder(str(tmp_path / "a" / "b"), "drawings need a folder")
    assert names(tmp_path) == ["file.png"] and (tmp_path / "file.png").read_bytes() == b"kept"


@pytest.mark.parametrize("suffix", [".xyz", "", ".msp", ".hdf"])
def test_suffixes_of_drawings(
    run: Runner,  # noqa: F811
    photo: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:
    no_model(monkeypatch)
    done = run("ground", photo, "--draw", tmp_path / f"x{suffix}")
    assert done.code == 2 and "cannot write" in done.err and len(done.err.splitlines()) == 1
    assert names(tmp_path) == [photo.name]


def test_a_picture_that_its_format_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="as JPEG"):
        save_drawing(Image.new("RGB", (70_000, 1)), tmp_path / "x.jpg")
    assert names(tmp_path) == []


def test_several_drawings_need_a_folder(
    run: Runner,  # noqa: F811
    photo: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    no_model(monkeypatch)
    file, other = tmp_path / "file.png", tmp_path / "other.png"
    file.write_bytes(b"kept")
    other.write_bytes(png(2))
    for target in (file, file / "inner"):
        done = run("ground", photo, other, "--draw", target, "--overwrite")
        assert done.code == 2 and "need a folder" in done.err and len(done.err.splitlines()) == 1
    (tmp_path / "taken" / "other.boxes.png").mkdir(parents=True)
    assert "is a folder" in run("ground", photo, other, "--draw", tmp_path / "taken").err
    assert file.read_bytes() == b"kept"


def test_a_pull_checks_its_folder_before_it_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kosmos_edge.hub import download as hub_download

    (tmp_path / "file").write_text("kept")
    plan = hub_download.Plan("kosmos-2:q8_0", "r/r", "0" * 40, "q8_0", folder=tmp_path / "file" / "models")
    monkeypatch.setattr(hub_download, "_fetch", lambda *_, **__: pytest.fail("something was fetched"))
    with pytest.raises(InvalidRequest, match="folder"):
        hub_download.run_plan(plan, None, False, None)


# ---- formats


@pytest.mark.parametrize("command", ["caption", "batch", "score", "generate"])
def test_the_suffix_is_the_format_unless_one_is_given(
    run: Runner,  # noqa: F811
    photo: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    words = {"score": ["score", photo, "a", "b"], "generate": ["generate", "-i", photo, "-p", "x", "-n", 2]}
    arguments = words.get(command, [command, photo, "-n", 2])

    def form(name: str, *more: str) -> str:
        target = tmp_path / name
        assert run(*arguments, "-o", target, "--overwrite", *more).code == 0
        text = target.read_text()
        if text.startswith("path,"):
            return "csv" if next(csv.DictReader(text.splitlines()))["path"] == str(photo) else "?"
        if not text.startswith("{"):
            return "text"
        return "jsonl" if text.count("\n") == 1 and json.loads(text) else "json"

    default = "jsonl" if command == "batch" else "text"
    assert [form(f"x.{suffix}") for suffix in ("csv", "json", "jsonl", "txt", "CSV", "log")] == [
        *("csv", "json", "jsonl", "text", "csv"),
        default,
    ]
    assert form("x.csv", "-f", "json") == "json" and form("x.json", "-f", default) == default
    monkeypatch.setenv("KOSMOS_EDGE_FORMAT", "csv")
    assert form("x.json") == "csv"
    monkeypatch.delenv("KOSMOS_EDGE_FORMAT")
    monkeypatch.setenv("KOSMOS_EDGE_OUTPUT", str(tmp_path / "env.csv"))
    assert run(*arguments).code == 0 and (tmp_path / "env.csv").read_text().startswith("path,")


# ---- names of drawings


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        (["f/a.png", "f/b.jpg"], ["a", "b"]),
        (["f/IMG.png", "f/IMG.jpg", "f/x.png"], ["IMG.png", "IMG.jpg", "x"]),
        (["a/IMG_1.png", "b/IMG_1.png"], ["a_IMG_1.png", "b_IMG_1.png"]),
        (["a/IMG.png", "a/IMG.jpg", "b/IMG.png"], ["a_IMG.png", "IMG.jpg", "b_IMG.png"]),
        (["r/a/s/x.png", "r/b/s/x.png"], ["a_s_x.png", "b_s_x.png"]),
        (["f/IMG.png", "f/img.PNG"], ["IMG.png", "img.PNG-2"]),  # one name where case does not count
        (["f/é.png", "f/e\u0301.png"], ["é.png", "e\u0301.png-2"]),
        (["f/a_x.png.png", "a/x.png", "b/x.png"], ["a_x.png", "a_x.png-2", "b_x.png"]),
        (["f/x.png", "./f/x.png", "f/x.png"], ["x.png", "x.png-2", "x.png"]),
        (["../x.png", "x.png"], None),
    ],
)
def test_names_of_drawings(pictures: list[str], expected: list[str] | None) -> None:
    made = drawing_names(pictures)
    assert made == drawing_names(pictures) and len(set(made)) == len(set(pictures))
    if expected is not None:
        assert [name.removesuffix(".boxes.png") for name in made] == expected


def test_long_names_of_drawings(tmp_path: Path) -> None:
    stems = ["é" * 120 + str(n) for n in range(3)] + ["x" * 251]
    made = drawing_names([f"{stem}.png" for stem in stems] + [f"other/{stem}.png" for stem in stems])
    assert len(set(made)) == 8 and all(len(os.fsencode(name)) < 255 for name in made)
    for name in made:
        save_drawing(IMAGE, tmp_path / name)
    assert names(tmp_path) == sorted(made)
    assert all(len(os.fsencode(name)) < 255 for name in drawing_names([f"{stem}.png" for stem in stems], ".boxes.html"))


def test_equal_stems_are_drawn(run: Runner, tmp_path: Path) -> None:  # noqa: F811
    for name in ("a/IMG.png", "b/IMG.png", "b/IMG.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture(len(name))).save(path)
    assert run("ground", tmp_path / "a", tmp_path / "b", "-n", 4, "--draw", tmp_path / "drawn").code == 0
    assert names(tmp_path / "drawn") == ["IMG.jpg.boxes.png", "a_IMG.png.boxes.png", "b_IMG.png.boxes.png"]


def test_preparing_drawings_asks_about_each_picture_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: four times the pictures are four times the work, equal stems among them or not."""
    calls = 0

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            nonlocal calls
            calls += 1
            return real(*arguments, **named)

        return call

    for module, name in ((os, "stat"), (os, "lstat"), (os, "access"), (os.path, "realpath"), (os.path, "abspath")):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))

    def prepare(count: int) -> int:
        nonlocal calls
        calls = 0
        paths = [f"f{k % 7}/p{k // 2}.png" for k in range(count)]
        drawings = cli_tasks.Drawings(str(tmp_path), [Input(path, path) for path in paths], True, False)
        assert len(set(drawings.targets.values())) == count
        return calls

    few, many = prepare(200), prepare(800)
    assert many < 4.5 * few


# ---- a picture that cannot be drawn


def test_one_that_cannot_be_drawn_does_not_end_the_others(
    run: Runner,  # noqa: F811
    photo: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import kosmos_edge.draw

    other, real = tmp_path / "other.png", kosmos_edge.draw.draw_boxes
    other.write_bytes(png(5, 60, 60))

    def refuse(picture: object, answer: object) -> object:
        if getattr(picture, "width", 0) == 100:
            raise InvalidRequest("it changed meanwhile")
        return real(picture, answer)  # type: ignore[arg-type]

    monkeypatch.setattr(kosmos_edge.draw, "draw_boxes", refuse)
    done = run("ground", photo, other, "-n", 4, "--draw", tmp_path / "drawn")
    assert done.code == 1 and "it changed meanwhile" in done.err and "1 of 2 failed" in done.err
    assert names(tmp_path / "drawn") == ["other.boxes.png"]


def test_two_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    """The second one waits for the first one's file, then replaces it."""
    images = [Image.effect_noise((300, 300), 90).convert("RGB") for _ in range(4)]
    errors = []

    def save(image: Image.Image) -> None:
        for _ in range(5):
            try:
                save_drawing(image, tmp_path / "x.png")
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=save, args=(image,)) for image in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and names(tmp_path) == ["x.png"]
    with Image.open(tmp_path / "x.png") as saved:
        assert any(saved.convert("RGB").tobytes() == image.tobytes() for image in images)


def test_what_a_killed_run_left_of_a_drawing_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "x.png.kosmos-edge.part").write_bytes(b"half a picture" * 1000)
    save_drawing(IMAGE, tmp_path / "x.png")
    assert names(tmp_path) == ["x.png"]
    with Image.open(tmp_path / "x.png") as saved:
        assert saved.size == (8, 8)
    (tmp_path / "y.png.kosmos-edge.part").mkdir()
    (tmp_path / "z.png.kosmos-edge.part").symlink_to(tmp_path / "x.png")
    os.mkfifo(tmp_path / "w.png.kosmos-edge.part")
    before = (tmp_path / "x.png").read_bytes()
    for name in "yzw":
        with pytest.raises(KosmosIOError):
            save_drawing(IMAGE, tmp_path / f"{name}.png")
    assert (tmp_path / "x.png").read_bytes() == before
