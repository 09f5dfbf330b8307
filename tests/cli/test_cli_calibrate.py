"""kosmos-edge convert --calibrate, --texts, --imatrix, --save-imatrix."""

import re
from pathlib import Path

import pytest
from helpers.api_model import png
from helpers.tiny import make_tiny
from helpers.tiny_hf import write_hf_folder
from test_cli import Runner

from kosmos_edge import _core


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Runner:
    return Runner(capsys)


def test_a_checkpoint_is_calibrated(run: Runner, tmp_path: Path) -> None:
    checkpoint = write_hf_folder(tmp_path / "checkpoint", make_tiny(0))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(8):
        (pictures / f"{i}.png").write_bytes(png(i, 50, 50))
    (tmp_path / "texts.txt").write_text("What is it?\nHow many?\n", encoding="utf-8")
    given = ("convert", checkpoint, "-o", tmp_path, "--texts", tmp_path / "texts.txt")
    done = run(*given, "--calibrate", pictures, "--save-imatrix", tmp_path / "i.gguf", model=False)
    assert done.code == 0, done.err
    made = Path(done.out.strip())
    assert made.parent == tmp_path and made.name.endswith("-Q4_K_M.gguf")
    metadata = _core.GgufFile(str(made)).metadata()
    assert metadata["quantize.imatrix.chunks_count"] == 10 and metadata["quantize.imatrix.dataset"] == "pictures"
    assert run("models", "verify", made, model=False).code == 0
    assert run("caption", pictures / "0.png", "-m", made, model=False).code == 0
    # the statistics of that run, and the same file
    again = run("convert", checkpoint, "-o", tmp_path / "j.gguf", "--imatrix", tmp_path / "i.gguf", model=False)
    assert again.code == 0 and again.out == f"{tmp_path / 'j.gguf'}\n"

    broken = pictures / "broken.png"
    broken.write_bytes(b"no picture")
    failed = run("convert", checkpoint, "-o", tmp_path / "k.gguf", "--calibrate", pictures, model=False)
    assert failed.code == 1 and "broken.png" in failed.err
    assert not [path.name for path in tmp_path.iterdir() if "kosmos-edge" in path.name or path.name == "k.gguf"]


def test_a_checkpoint_of_a_size(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = write_hf_folder(tmp_path / "checkpoint", make_tiny(0))
    monkeypatch.setenv("KOSMOS_EDGE_TYPE", "f16")  # for conversions that say nothing
    done = run("convert", checkpoint, "-o", tmp_path, "--size", "2.6MB", "-v", model=False)
    assert done.code == 0, done.err
    made = Path(done.out.strip())
    assert made.name.endswith("-2.6MB.gguf") and made.stat().st_size <= 2_600_000
    rows = [line for line in done.err.splitlines() if "ffn_down.weight" in line]
    assert len(rows) == 4 and all(re.search(r"Q\d\S* +\d+ +\d\.\d+ +\d\.\d+e", row) for row in rows)
    assert run("models", "verify", made, model=False).code == 0
    failed = run("convert", checkpoint, "-o", tmp_path / "x.gguf", "--size", "1MB", model=False)
    assert failed.code == 2 and "the smallest has" in failed.err and not (tmp_path / "x.gguf").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--texts", "t"), "--texts: needs --calibrate"),
        (("--save-imatrix", "s"), "--save-imatrix: needs --calibrate"),
        (("--calibrate", "p", "--imatrix", "s"), "expected one of them"),
        (("--calibrate", "p"), "is not a folder of pictures"),
        (("--size", "1GB", "--type", "q8_0"), "--type and --size: expected one of them"),
        (("--size", "1 GBit", "--imatrix", "s"), "--size is '1 GBit'; expected a number and a unit"),
    ],
)
def test_wrong_use(run: Runner, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    done = run("convert", tmp_path, "-o", tmp_path / "x.gguf", *options, model=False)
    assert done.code == 2 and message in done.err
