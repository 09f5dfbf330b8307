"""The C example with gdk-pixbuf: pictures as they come from cameras and drawing programs."""

import pytest
from helpers.programs import NANO, ROOT, boxless_model, flags, installed_library, need, need_packages, run
from PIL import Image

import kosmos_edge

PICTURE = ROOT / "examples" / "scene-00004.png"
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    need("cc")
    need_packages("gdk-pixbuf-2.0")
    out = tmp_path_factory.mktemp("c") / "caption"
    given = " ".join(flags(installed_library()).values()).split()
    pixbuf = run("pkg-config", "--cflags", "--libs", "gdk-pixbuf-2.0").stdout.split()
    sources = [ROOT / "examples" / "c" / name for name in ("caption.c", "picture.c")]
    run("cc", *STRICT, *sources, *given, *pixbuf, "-o", out)
    return out


@pytest.fixture(scope="module")
def model():
    return kosmos_edge.load(NANO, threads=1)


def lines_of(result) -> list[str]:
    boxes = [(e.phrase, box.pixels) for e in result.entities for box in e.boxes]
    return [result.text] + [f"{phrase}\t" + " ".join(f"{v:.1f}" for v in pixels) for phrase, pixels in boxes]


def turned(path):
    """A photograph taken with the camera on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(PICTURE) as image:
        image.convert("RGB").rotate(90, expand=True).save(path, quality=95, exif=exif)


def transparent(path):
    with Image.open(PICTURE) as image:
        image = image.convert("RGBA")
        image.putalpha(Image.new("L", image.size, 255).point(lambda _: 255))
        image.paste((9, 9, 9, 0), (0, 0, image.width, 40))
        image.save(path)


def plain(path):
    with Image.open(PICTURE) as image:
        image.save(path)


@pytest.mark.parametrize(("name", "make"), [("a.png", plain), ("a.jpg", turned), ("b.png", transparent)])
def test_it_says_what_the_python_package_says(program, model, tmp_path, name, make):
    make(tmp_path / name)
    expected = model.caption(tmp_path / name, ground=True)
    assert expected.entities
    assert run(program, NANO, tmp_path / name, OMP_NUM_THREADS="1").stdout.splitlines() == lines_of(expected)


def test_a_model_without_boxes_captions_alike(program, tmp_path):
    plain(tmp_path / "a.png")
    path = boxless_model(tmp_path)
    expected = kosmos_edge.load(path, threads=1).caption(tmp_path / "a.png").text
    done = run(program, path, tmp_path / "a.png", OMP_NUM_THREADS="1")
    assert expected.strip() and done.stdout == expected + "\n"


def test_what_is_no_picture_is_an_error(program, tmp_path):
    (tmp_path / "no.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    for name in ("no.png", "missing.png"):
        assert name in run(program, NANO, tmp_path / name, status=1).stderr
