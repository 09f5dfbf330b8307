"""Pictures become squares as Pillow makes them of the padded or the cut picture, without making those."""

import numpy as np
import pytest
from PIL import Image

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest

COLOUR = (122, 116, 104)
SIZES = [
    (1, 1), (1, 2), (2, 1), (3, 5), (56, 56), (56, 57), (57, 56), (100, 80), (80, 100), (333, 56), (56, 333), (30, 20),
    (20, 31), (1, 700), (700, 1), (640, 480), (480, 641), (9, 1500), (1500, 9),
]  # fmt: skip


def pixels_of(width: int, height: int) -> np.ndarray:
    return np.random.default_rng([width, height]).integers(0, 256, (height, width, 3), dtype=np.uint8)


def fitted(pixels: np.ndarray, size: int, fit: str) -> np.ndarray:
    height, width = pixels.shape[:2]
    out = _core.testing.fit_square(pixels.tobytes(), width, height, size, fit, COLOUR)
    return np.frombuffer(out, np.uint8).reshape(size, size, 3)


def resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """By the engine's resize, which test_image_resize.py holds to Pillow's whatever its release."""
    out = _core.resize_bicubic(pixels.tobytes(), pixels.shape[1], pixels.shape[0], width, height)
    return np.frombuffer(out, np.uint8).reshape(height, width, 3)


def padded(pixels: np.ndarray) -> np.ndarray:
    """LLaVA's expand2square (llava/mm_utils.py)."""
    image = Image.fromarray(pixels)
    side = max(image.size)
    square = Image.new("RGB", (side, side), COLOUR)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(square)


def cut(pixels: np.ndarray, size: int) -> np.ndarray:
    """transformers' CLIPImageProcessor: shortest_edge, then center_crop."""
    height, width = pixels.shape[:2]
    short, long = min(width, height), max(width, height)
    other = int(size * long / short)
    out = resized(pixels, *((size, other) if width <= height else (other, size)))
    top, left = (out.shape[0] - size) // 2, (out.shape[1] - size) // 2
    return out[top : top + size, left : left + size]


@pytest.mark.parametrize("size", [1, 7, 56, 224])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_squares(width: int, height: int, size: int) -> None:
    pixels = pixels_of(width, height)
    np.testing.assert_array_equal(fitted(pixels, size, "squash"), resized(pixels, size, size))
    np.testing.assert_array_equal(fitted(pixels, size, "pad"), resized(padded(pixels), size, size))
    if size * max(width, height) // min(width, height) < 65536:
        np.testing.assert_array_equal(fitted(pixels, size, "crop"), cut(pixels, size))


def test_long_pictures_need_neither_the_padding_nor_what_is_cut_off() -> None:
    """65535 pixels by 1: padded they would be 12 GB; cut, a picture of 22 million pixels by 336."""
    line = np.full((1, 65535, 3), 200, np.uint8)
    for pixels in (line, line.swapaxes(0, 1)):
        assert (fitted(pixels, 336, "crop") == 200).all()
        square = fitted(np.ascontiguousarray(pixels), 336, "pad")
        assert (square[0, 0] == COLOUR).all() and square.shape == (336, 336, 3)


def test_what_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="has 12 bytes"):
        _core.testing.fit_square(b"123", 2, 2, 5, "pad", COLOUR)
    with pytest.raises(InvalidRequest, match="a resized picture of 0 x 0"):
        _core.testing.fit_square(bytes(12), 2, 2, 0, "crop", COLOUR)
