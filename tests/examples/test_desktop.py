"""The desktop program, built with all warnings and used under a virtual X server: by its options, and by hand."""

import contextlib
import os
import re
import struct
import subprocess
import time
import zlib

import pytest
from helpers.programs import NANO, ROOT, flags, installed_library, need, need_packages, run
from PIL import Image, ImageGrab

import kosmos_edge

SOURCE = ROOT / "examples" / "desktop"
PICTURE = ROOT / "examples" / "scene-00004.png"
QUESTION = "How many sheep are there?"
BLUE, RED = (0x1A, 0x5F, 0xB4), (0xC0, 0x1C, 0x28)  # of the first and the second phrase, as in phrase.h


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    need("cc", "make", "Xvfb")
    need_packages("gtk4")
    out = tmp_path_factory.mktemp("desktop")
    given = [f"{name}={value}" for name, value in flags(installed_library()).items()]
    run("make", "-f", SOURCE / "Makefile", f"OUT={out}", "CFLAGS=-O0", *given)
    return out / "kosmos-desktop"


@pytest.fixture(scope="module")
def display():
    """The name of a display of its own."""
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1000x640x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as pipe:
        number = pipe.readline().strip()
    assert number, "Xvfb did not start"
    yield f":{number}"
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def environment(display):
    # Drawn by the processor; no session bus, no desktop.
    return {
        "DISPLAY": display,
        "GDK_BACKEND": "x11",
        "GSK_RENDERER": "cairo",
        "GTK_A11Y": "none",
        "DBUS_SESSION_BUS_ADDRESS": "disabled:",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def expected():
    model = kosmos_edge.load(NANO, threads=1)
    image = model.encode(PICTURE)
    return model.caption(image, ground=True), model.ask(image, QUESTION).text


def count(image: Image.Image, color: tuple[int, int, int]) -> int:
    return sum(n for n, c in image.convert("RGB").getcolors(1 << 24) if c == color)


def test_it_captions_answers_cancels_and_saves_what_it_shows(program, environment, expected, tmp_path):
    caption, answer = expected
    shot = tmp_path / "window.png"
    arguments = ("--ask", QUESTION, "--cancel", "What is it?", "--print", "--screenshot", shot, PICTURE)
    done = run(program, *arguments, **environment)
    assert len(caption.entities) == 2
    assert done.stdout.splitlines() == [caption.text, QUESTION, answer, "What is it?", "(cancelled)"]
    with Image.open(shot) as image:
        assert image.width >= 940 and image.height >= 560
        for color in (BLUE, RED):  # both boxes
            assert count(image, color) > 500


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--model", "missing.gguf", PICTURE], "missing.gguf"),
        (["--memory", "1", PICTURE], "above its limit of 1 MB"),
        (["missing.png"], "missing.png"),
        ([SOURCE / "README.md"], "README.md"),
        (["--ask", QUESTION], "Open a picture first"),
    ],
)
def test_errors_are_shown(program, environment, options, why):
    assert why in run(program, "--print", *options, status=1, **environment).stderr


def test_two_pictures_are_refused(program, environment):
    assert "expected one picture, got 2" in run(program, "--print", PICTURE, PICTURE, status=2, **environment).stderr
    assert "--memory" in run(program, "--memory", "-1", status=2, **environment).stderr


def test_the_model_is_that_of_the_environment(program, environment):
    done = run(program, "--print", PICTURE, status=1, KOSMOS_EDGE_MODEL="other.gguf", **environment)
    assert "other.gguf" in done.stderr


def test_a_huge_picture_is_refused_by_its_header(program, environment, tmp_path):
    bomb = tmp_path / "bomb.png"
    Image.new("L", (20, 20)).save(bomb)
    data = bytearray(bomb.read_bytes())
    data[16:24] = struct.pack(">II", 20000, 20000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    bomb.write_bytes(data)
    done = run(program, "--print", bomb, status=1, **environment)
    assert "bomb.png" in done.stderr and "20000 x 20000" in done.stderr


def test_the_memory_limit_ends_an_answer(program, environment, tmp_path):
    """There is room for the model, but not for this picture of 144 MB, too, whichever is there first."""
    refused = run(program, "--print", "--memory", "1", PICTURE, status=1, **environment).stderr
    limit = int(re.search(r"would need about (\d+) MB", refused).group(1)) + 80
    large = tmp_path / "large.png"
    Image.new("RGB", (8000, 6000)).save(large, compress_level=1)
    run(program, "--print", "--memory", str(limit), PICTURE, **environment)
    ended = run(program, "--print", "--memory", str(limit), large, status=1, **environment).stderr
    used = re.search(rf"(?:came to|would need about) (\d+) MB, above its limit of {limit} MB", ended)
    assert used and int(used.group(1)) >= limit, ended


# ---- by hand


class Hands:
    """Mouse and keyboard on the program's window."""

    def __init__(self, display: str):
        self.display = display
        self.x("search", "--sync", "--onlyvisible", "--name", "What is in the picture")
        found = self.x("search", "--onlyvisible", "--name", "What is in the picture")
        self.x("windowfocus", "--sync", found.split()[-1])

    def x(self, *arguments: object) -> str:
        return run("xdotool", *arguments, DISPLAY=self.display).stdout

    def seen(self) -> Image.Image:
        return ImageGrab.grab(xdisplay=self.display).convert("RGB")

    def wait(self, true, seconds: float = 30) -> Image.Image:
        """The screen, as soon as `true` of it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            image = self.seen()
            if true(image):
                return image
            time.sleep(0.05)
        raise AssertionError("the window did not come to look as expected in time")

    def clipboard(self) -> str:
        return run("xclip", "-o", "-selection", "clipboard", DISPLAY=self.display).stdout

    def paste(self, kind: str, content: bytes) -> None:
        """By the clipboard, until there is another picture: the window may not know yet that its own text is gone."""
        command = ["xclip", "-i", "-selection", "clipboard", "-t", kind]
        environment = os.environ | {"DISPLAY": self.display}
        area = (80, 60, 540, 520)
        before = self.seen().crop(area)
        for _ in range(6):
            subprocess.run(command, input=content, env=environment, check=True, timeout=30, stdout=subprocess.DEVNULL)
            time.sleep(0.3)
            self.x("key", "ctrl+v")
            with contextlib.suppress(AssertionError):
                self.wait(lambda image: image.crop(area) != before, seconds=5)
                return
        raise AssertionError("no picture came from the clipboard")

    def wait_for_text(self, expected: str) -> None:
        """Until the answers, copied by hand, read so."""
        end, text = time.monotonic() + 60, None
        while text != expected and time.monotonic() < end:
            self.x("mousemove", 700, 350, "click", 1, "key", "ctrl+a", "key", "ctrl+c")
            time.sleep(0.2)
            text = self.clipboard()
        assert text == expected


def test_by_mouse_and_keyboard(program, environment, display, expected, tmp_path):
    need("xdotool", "xclip")
    window = subprocess.Popen([program, PICTURE], env=os.environ | environment, stderr=subprocess.DEVNULL)
    try:
        hands = Hands(display)
        plain = hands.wait(lambda image: count(image, BLUE) > 500 and count(image, RED) > 500)
        # Where the first box is, and a word of the first phrase: under its underline's colour.
        width, height = plain.size
        left = [(x, y) for y in range(height) for x in range(width) if plain.getpixel((x, y)) == BLUE]
        x, y = left[0][0] + 40, left[0][1] + 40
        assert count(plain.crop((x - 20, y - 20, x + 20, y + 20)), BLUE) == 0
        hands.x("mousemove", x, y)
        lit = hands.wait(lambda image: count(image, BLUE) > 1.5 * len(left))  # the name on its box
        assert count(lit, RED) == 0  # the other box is faint
        hands.x("mousemove", 5, 300)
        hands.wait(lambda image: count(image, RED) == count(plain, RED))
        # The text lights the picture, too: its first word is in the first phrase.
        hands.x("mousemove", 660, 82)
        hands.wait(lambda image: count(image, RED) == 0)
        hands.x("key", "ctrl+shift+c")
        hands.x("mousemove", 5, 300)
        hands.wait(lambda image: count(image, RED) == count(plain, RED))
        text = expected[0].text
        assert hands.clipboard() == text[0].upper() + text[1:].rstrip(".") + "."
        # A question from the keyboard alone: to the entry by Tab.
        hands.x("key", "Tab")
        hands.x("type", QUESTION)
        hands.x("key", "Return")
        hands.wait_for_text(f"{text}\n{QUESTION}\n{expected[1]}")
        # A picture, and a copied file, from the clipboard.
        model = kosmos_edge.load(NANO, threads=1)
        for number in (0, 2):
            other = PICTURE.with_name(f"scene-0000{number}.png")
            if number == 0:
                hands.paste("image/png", other.read_bytes())
            else:
                hands.paste("text/uri-list", f"{other.as_uri()}\r\n".encode())
            hands.wait_for_text(model.caption(other, ground=True).text)
        # A memory limit from the menu, which the next question meets. Menus have black edges without a compositor.
        edges = count(hands.seen(), (0, 0, 0))
        hands.x("mousemove", 785, 26, "click", 1)
        hands.wait(lambda image: count(image, (0, 0, 0)) > edges + 2000)
        hands.x("key", "ctrl+a")
        hands.x("type", "1")
        hands.x("key", "Return", "key", "Escape")
        hands.wait(lambda image: count(image, (0, 0, 0)) < edges + 500)
        hands.x("mousemove", 740, 464, "click", 1)
        hands.x("type", QUESTION)
        hands.x("key", "Return")
        hands.wait(lambda image: count(image, (204, 0, 0)) > 10000)  # the bar with the error
        hands.x("key", "ctrl+w")
        assert window.wait(timeout=30) == 0
    finally:
        window.kill()
        window.wait()


def test_it_follows_the_desktop_s_colours(program, environment, display, tmp_path):
    """As a portal tells them: dark, then light while the window is open."""
    need("dbus-daemon", "xdotool")
    given = run("pkg-config", "--cflags", "--libs", "gio-2.0").stdout.split()
    run("cc", ROOT / "tests" / "examples" / "portal.c", *given, "-o", tmp_path / "portal")
    command = ["dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address=1"]
    with contextlib.ExitStack() as started:

        def start(*arguments, **rest) -> subprocess.Popen:
            process = started.enter_context(
                subprocess.Popen(arguments, env=os.environ | environment | bus, stderr=subprocess.DEVNULL, **rest)
            )
            started.callback(process.kill)
            return process

        bus = {}
        pipes = {"stdout": subprocess.PIPE, "stdin": subprocess.PIPE, "text": True}
        bus = {"DBUS_SESSION_BUS_ADDRESS": start(*command, **pipes).stdout.readline().strip()}
        portal = start(tmp_path / "portal", **pipes)
        assert portal.stdout.readline() == "ready\n"
        start(program)
        hands = Hands(display)
        hands.wait(lambda image: max(image.getpixel((300, 500))) < 100)
        portal.stdin.write("2\n")
        portal.stdin.flush()
        hands.wait(lambda image: min(image.getpixel((300, 500))) > 200)
