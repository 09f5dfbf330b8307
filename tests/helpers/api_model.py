"""The tiny model as a file and as a Model, made once per test run; pictures for it."""

import atexit
import functools
import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.tiny import TinyConfig, make_picture, make_tiny, write_tiny
from kosmos_edge import Model, load


@functools.cache
def folder() -> Path:
    """A folder of this test run."""
    path = Path(tempfile.mkdtemp(prefix="kosmos-edge-tests-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@functools.cache
def tiny_file() -> Path:
    """The tiny model as GGUF."""
    path = folder() / "tiny.gguf"
    write_tiny(path)
    return path


@functools.cache
def long_file() -> Path:
    """The tiny model with many positions, for answers that take seconds."""
    path = folder() / "long.gguf"
    write_tiny(path, config=TinyConfig(context=16384))
    return path


@functools.cache
def tiny_model() -> Model:
    """The tiny model, loaded."""
    return load(tiny_file(), threads=1)


@functools.cache
def long_model() -> Model:
    """The tiny model with many positions, loaded."""
    return load(long_file(), threads=1)


def picture(seed: int = 0, width: int = 100, height: int = 80) -> np.ndarray:
    """(height, width, 3) uint8."""
    return make_picture(seed, width, height)


def png(seed: int = 0, width: int = 100, height: int = 80) -> bytes:
    """The same picture as a PNG file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(picture(seed, width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def png_folder(folder: Path, count: int) -> Path:
    """The folder with so many small images, 0.png and so on."""
    for i in range(count):
        (folder / f"{i}.png").write_bytes(png(i, 60, 50))
    return folder


@functools.cache
def grounded_file() -> Path:
    """The tiny model with a bias towards the tags of grounded text, so that answers are full of boxes."""
    path = folder() / "grounded.gguf"
    tiny = make_tiny(0)
    embedding = tiny.weights["token_embd.weight"]
    bias = tiny.weights["output_norm.bias"].copy()
    for tag, raised in {"<phrase>": 14, "</phrase>": 13, "<object>": 16, "</object>": 12, "</s>": -4}.items():
        row = embedding[tiny.vocabulary.id(tag)]
        bias += raised * row / np.dot(row, row)  # of the tag's logit
    tiny.weights["output_norm.bias"] = bias
    write_tiny(path, tiny=tiny)
    return path


@functools.cache
def grounded_model() -> Model:
    """That model, loaded."""
    return load(grounded_file(), threads=1)
