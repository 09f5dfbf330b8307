"""Names of every kind, for a model that is opened, a picture that is read, a checkpoint that is converted."""

import os
from ctypes import byref
from pathlib import Path

import pytest
from helpers import capi
from helpers.api_model import png, tiny_file
from helpers.convert_checkpoint import convert_state, convert_write_hf

from kosmos_edge import load
from kosmos_edge.convert import convert, requantize, verify
from kosmos_edge.errors import InvalidRequest, KosmosIOError, ModelNotFound

NAMES = [
    "Модель",
    "画像/モデル",
    "模型 文件",
    "한국어",
    "🙂 model",
    "👩\u200d👩\u200d👧",
    "\u202eeltit",
    "שלום עולם",
    "مرحبا",
    "a  b ",
    "\u3000",
    "\u00a0",
    "'quote\"",
    "-o",
    "%s%n",
    "a\nb",
    "a\tb",
    "*",
    "[x]",
    "$HOME",
    "~",
    "x" * 200,
    "é" * 100,
    "cafe\u0301",  # decomposed
    "/".join(["y" * 100] * 3),  # 302 characters
    "/".join(["字" * 60] * 5),  # 904 bytes
]


@pytest.fixture(scope="module")
def hf(tmp_path_factory):
    one_layer = {"text_config__layers": 1, "vision_config__num_hidden_layers": 1}
    state = convert_state(seed=4, layers=1, vision_layers=1)
    return convert_write_hf(tmp_path_factory.mktemp("hf"), state, **one_layer)


@pytest.fixture(scope="module")
def expected():
    return load(tiny_file(), threads=1).caption(png(), max_tokens=4).text


def place(tmp_path: Path, name: str, source: Path) -> Path:
    """`source` under tmp_path/name/<last part of name>."""
    path = tmp_path / name / name.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    os.link(source, path) if source.stat().st_dev == path.parent.stat().st_dev else path.write_bytes(
        source.read_bytes()
    )
    return path


@pytest.mark.parametrize("name", NAMES)
def test_open_and_picture(tmp_path, name, expected):
    model = place(tmp_path, name, tiny_file())
    picture = model.with_name("p" + model.name[:50])
    picture.write_bytes(png())
    with load(model, threads=1) as m:
        assert m.caption(picture, max_tokens=4).text == m.caption(str(picture), max_tokens=4).text == expected
    handle = capi.load(model)
    capi.lib().kosmos_model_free(handle)


@pytest.mark.parametrize("name", NAMES)
def test_convert(tmp_path, hf, name):
    folder = tmp_path / name
    folder.mkdir(parents=True)
    for file in hf.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    output = folder / f"{name.rpartition('/')[2]}.gguf"
    assert convert(folder, output, type="q8_0").output == output and verify(output) == []
    smaller = requantize(output, folder / "again", type="q4_0").output
    assert verify(smaller) == []
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_names_that_are_not_unicode(tmp_path, hf, expected):
    """Read by the picture reader, the checkpoint reader and the C interface; refused with a reason for model files."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    folder.mkdir()
    for file in hf.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    assert verify(convert(folder, tmp_path / "a.gguf").output) == []
    with pytest.raises(InvalidRequest, match="not valid Unicode"):
        convert(hf, folder / "a.gguf")
    picture, model = folder / "p.png", folder / "m.gguf"
    picture.write_bytes(png())
    model.write_bytes(tiny_file().read_bytes())
    assert load(tiny_file(), threads=1).caption(picture, max_tokens=4).text == expected
    with pytest.raises(ModelNotFound, match="valid Unicode"):
        load(model)
    handle = capi.load(model)
    image = capi.encode(handle, capi_picture())
    result = capi.make("caption", handle, image, byref(capi.Options(max_tokens=4)))
    assert capi.read(result)["ids"]
    capi.lib().kosmos_model_free(handle)


def capi_picture():
    from helpers.api_model import picture

    return picture()


@pytest.mark.parametrize("name", ["x" * 256, "字" * 86, "z" * 300])
def test_names_that_no_file_can_have(tmp_path, hf, name):
    with pytest.raises((ModelNotFound, KosmosIOError)):
        load(tmp_path / name)
    with pytest.raises(KosmosIOError):
        convert(hf, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
