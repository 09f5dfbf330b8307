"""The rows of an encoded image stay where they were computed, as long as somebody holds the image."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.cuda_emulated import EmulatedDevice, lend_device, use_cuda
from helpers.tiny import make_picture

from kosmos_edge import _core
from kosmos_edge.errors import KosmosError
from models.description import Described

PIXELS = make_picture(1, 60, 40).tobytes()
ILLEGAL_ADDRESS = 700  # CUDA's code


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedDevice]:
    yield from lend_device(use_cuda(monkeypatch))


def check_that_they_outlive(path: Path, where: str, tokens: int) -> _core.ImageEmbedding:
    engine = _core.Engine(str(path), device=where)
    image = engine.encode_image(PIXELS, 60, 40)
    values = image.tobytes()
    again = engine.restore_image(values)
    params = _core.GenerateParams()
    params.max_tokens = tokens
    ids = [engine.generate([("image", i), ("text", "It is")], params).token_ids for i in (image, again)]
    assert ids[0] == ids[1]
    del engine
    gc.collect()
    assert image.tobytes() == again.tobytes() == values
    return image


def test_they_outlive_their_model(of: Described, path: Path) -> None:
    check_that_they_outlive(path, "cpu", 4)


def test_they_are_on_the_device(of: Described, path: Path, device: EmulatedDevice) -> None:
    """There, too, they outlive their model. What is lost with the device cannot be read any more."""
    image = check_that_they_outlive(path, "cuda", 1)
    assert len(image.tobytes()) == 4 * image.shape[0] * image.shape[1]
    device.lose(ILLEGAL_ADDRESS)
    with pytest.raises(KosmosError):
        image.tobytes()
