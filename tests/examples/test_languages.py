"""The programs in Go, Rust and JavaScript: built, and told from the Python package's answers by nothing."""

from pathlib import Path

import pytest
from helpers.programs import NANO, ROOT, boxless_model, flags, installed_library, need, run
from PIL import Image

import kosmos_edge

EXAMPLES = ROOT / "examples"
PICTURE = EXAMPLES / "scene-00004.png"
QUESTION = "How many sheep are there?"


def build_go(out: Path) -> list[str]:
    need("go", "cc")
    given = flags(installed_library())
    environment = {"CGO_CFLAGS": given["KOSMOS_CFLAGS"], "CGO_LDFLAGS": given["KOSMOS_LIBS"], "GOFLAGS": "-mod=mod"}
    environment |= {"GOPROXY": "off", "GOTOOLCHAIN": "local", "GOCACHE": str(out / "cache")}
    run("go", "build", "-o", out / "caption", ".", folder=EXAMPLES / "go", **environment)
    run("go", "vet", "./...", folder=EXAMPLES / "go", **environment)
    return [str(out / "caption")]


def build_rust(out: Path) -> list[str]:
    need("cargo", "cc")
    environment = {"KOSMOS_LIBS": flags(installed_library())["KOSMOS_LIBS"], "CARGO_TARGET_DIR": str(out)}
    environment |= {"RUSTFLAGS": "-D warnings"}
    run("cargo", "build", "--offline", "--locked", "--manifest-path", EXAMPLES / "rust" / "Cargo.toml", **environment)
    return [str(out / "debug" / "caption")]


def build_node(out: Path) -> list[str]:
    need("node", "cc", "make")
    include = run("node", "-p", "require('path').resolve(process.execPath, '../../include/node')").stdout.strip()
    if not (Path(include) / "node_api.h").exists():
        pytest.skip(f"not here: node_api.h in {include} (Debian: libnode-dev)")
    given = [f"{name}={value}" for name, value in flags(installed_library()).items()]
    run("make", "-f", EXAMPLES / "node" / "Makefile", f"OUT={out}", "CFLAGS=-O1", *given)
    return ["env", f"KOSMOS_ADDON={out / 'kosmos.node'}", "node", str(EXAMPLES / "node" / "caption.js")]


BUILDS = {"go": build_go, "rust": build_rust, "node": build_node}


@pytest.fixture(scope="module", params=list(BUILDS))
def program(request, tmp_path_factory) -> list[str]:
    return BUILDS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def ppm(tmp_path_factory) -> Path:
    """All three read it, Go as PNG."""
    out = tmp_path_factory.mktemp("picture") / "photo.ppm"
    with Image.open(PICTURE) as opened:
        opened.convert("RGB").save(out)
    return out


def picture_for(program: list[str], ppm: Path) -> Path:
    return PICTURE if "go" in Path(program[0]).parent.name else ppm


def test_it_says_what_the_python_package_says(program, ppm):
    done = run(*program, "--ask", QUESTION, NANO, picture_for(program, ppm), OMP_NUM_THREADS="1")
    model = kosmos_edge.load(NANO, threads=1)
    caption = model.caption(PICTURE, ground=True)
    boxes = [(e.phrase, box.pixels) for e in caption.entities for box in e.boxes]
    lines = [caption.text] + [f"{phrase}\t" + " ".join(f"{v:.1f}" for v in pixels) for phrase, pixels in boxes]
    assert len(boxes) == 2
    assert done.stdout.splitlines() == [*lines, model.ask(PICTURE, QUESTION).text]


def test_a_model_without_boxes_captions_alike(program, ppm, tmp_path):
    path = boxless_model(tmp_path)
    expected = kosmos_edge.load(path, threads=1).caption(PICTURE).text
    done = run(*program, path, picture_for(program, ppm), OMP_NUM_THREADS="1")
    assert expected.strip() and done.stdout == expected + "\n"


def test_cancelling_ends_it(program, ppm):
    """In the middle of the text."""
    done = run(*program, "--stop-after", "2", NANO, picture_for(program, ppm), status=130, OMP_NUM_THREADS="1")
    assert "cancelled" in done.stderr
    assert done.stdout.startswith("a sheep") and "\t" not in done.stdout  # no boxes: the answer did not come


@pytest.mark.parametrize("wrong", ["model", "picture", "corrupt"])
def test_errors_have_their_reason(program, ppm, tmp_path, wrong):
    (tmp_path / "corrupt.gguf").write_bytes(b"GGUF" + bytes(64))
    (tmp_path / "corrupt.png").write_bytes(b"P6 9 9 255 ")
    if wrong == "picture":
        for name in ("missing.png", "corrupt.png"):
            assert name in run(*program, NANO, tmp_path / name, status=1).stderr
    else:
        model = tmp_path / ("missing.gguf" if wrong == "model" else "corrupt.gguf")
        assert model.name in run(*program, model, picture_for(program, ppm), status=1).stderr
