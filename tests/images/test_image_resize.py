"""Bicubic resizing equals Pillow byte for byte; patches equal numpy's; sizes out of range are refused."""

import numpy as np
import PIL
import pytest
from PIL import Image

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest

BICUBIC = Image.Resampling.BICUBIC
PILLOW_13 = int(PIL.__version__.split(".")[0]) >= 13


def picture(rng: np.random.Generator, width: int, height: int, kind: str) -> np.ndarray:
    """(height, width, 3) uint8: noise, black-and-white noise (overshoots most), or smooth like a photograph."""
    if kind == "noise":
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "extreme":
        return rng.integers(0, 2, (height, width, 3), dtype=np.uint8) * np.uint8(255)
    y, x = np.mgrid[0:height, 0:width]
    waves = [
        128 + 100 * np.sin(x * rng.uniform(0.01, 0.3) + rng.uniform(0, 6)) * np.cos(y * rng.uniform(0.01, 0.3))
        for _ in range(3)
    ]
    return np.clip(np.stack(waves, axis=-1) + rng.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)


def one_axis_at_a_time(pixels: np.ndarray, width: int, height: int) -> bytes:
    """Pillow's own passes in the order that resize_bicubic documents; single passes are the same in every release."""
    image = Image.fromarray(pixels)
    shrinks = image.height - height
    if shrinks > 0 and shrinks > 2 * max(0, image.width - width):
        image = image.resize((image.width, height), BICUBIC).resize((width, height), BICUBIC)
    else:
        image = image.resize((width, image.height), BICUBIC).resize((width, height), BICUBIC)
    return image.tobytes()


def resized(pixels: np.ndarray, width: int, height: int) -> bytes:
    return _core.resize_bicubic(pixels.tobytes(), pixels.shape[1], pixels.shape[0], width, height)


SMALL = [1, 2, 3, 5, 8]
GEOMETRIES = [
    *((w, h, W, H) for w in SMALL for h in (1, 4) for W, H in [(1, 1), (3, 2), (7, 7), (1, 9)]),
    *((w, h, 224, 224) for w in (1, 2, 16, 223, 224, 225, 448, 500) for h in (1, 3, 100, 224, 227, 333, 900)),
    *((1, 700, 224, 224), (700, 1, 224, 224), (1, 3000, 5, 7), (3000, 1, 5, 7), (2000, 3, 1, 1), (3, 2000, 1, 1)),
    *((224, 224, 224, 224), (224, 300, 224, 224), (300, 224, 224, 224), (640, 480, 224, 224), (480, 640, 224, 224)),
    *((1080, 1920, 224, 224), (1080, 2400, 224, 224), (1200, 602, 224, 224), (97, 89, 640, 480), (53, 211, 300, 17)),
    *((250, 276, 224, 224), (250, 277, 224, 224), (10, 1000, 224, 224), (10, 1001, 224, 224), (60, 121, 50, 100)),
]
GEOMETRIES += [tuple(int(v) for v in g) for g in np.random.default_rng(7).integers(1, 400, (100, 4))]


@pytest.mark.parametrize("kind", ["noise", "extreme", "smooth"])
def test_pixels_equal_pillow(kind: str) -> None:
    rng = np.random.default_rng(len(kind))
    assert len(GEOMETRIES) > 200
    wrong = []
    for width, height, out_width, out_height in GEOMETRIES:
        pixels = picture(rng, width, height, kind)
        ours = resized(pixels, out_width, out_height)
        equal = ours == one_axis_at_a_time(pixels, out_width, out_height)
        if PILLOW_13:
            equal &= ours == Image.fromarray(pixels).resize((out_width, out_height), BICUBIC).tobytes()
        if not equal:
            wrong.append((width, height, out_width, out_height))
    assert wrong == []


def test_a_large_picture_equals_pillow() -> None:
    pixels = picture(np.random.default_rng(1), 4001, 2999, "noise")
    assert resized(pixels, 224, 224) == one_axis_at_a_time(pixels, 224, 224)


def test_the_longest_sides_work() -> None:
    for width, height in [(65535, 1), (1, 65535), (65535, 2), (2, 65535)]:
        pixels = picture(np.random.default_rng(2), width, height, "extreme")
        assert resized(pixels, 3, 5) == one_axis_at_a_time(pixels, 3, 5)
    assert len(_core.resize_bicubic(b"abc", 1, 1, 65535, 1)) == 3 * 65535


def test_any_buffer_is_read() -> None:
    pixels = picture(np.random.default_rng(3), 9, 7, "noise")
    expected = resized(pixels, 4, 4)
    for buffer in (bytearray(pixels.tobytes()), memoryview(pixels.tobytes()), pixels):
        assert _core.resize_bicubic(buffer, 9, 7, 4, 4) == expected
    with pytest.raises(TypeError, match="contiguous"):
        _core.resize_bicubic(pixels[:, ::2], 5, 7, 4, 4)
    with pytest.raises(TypeError):
        _core.resize_bicubic("pixels", 1, 2, 4, 4)


@pytest.mark.parametrize(
    "size", [(0, 1), (1, 0), (-1, 5), (65536, 1), (1, 65536), (2**62, 2**62), (20000, 20000), (-(2**63), -(2**63))]
)
def test_sizes_out_of_range_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidRequest, match=f"a picture of {size[0]} x {size[1]} pixels"):
        _core.resize_bicubic(b"", *size, 224, 224)
    with pytest.raises(InvalidRequest, match=f"a resized picture of {size[0]} x {size[1]} pixels"):
        _core.resize_bicubic(b"abc", 1, 1, *size)


def test_a_buffer_of_another_size_is_refused() -> None:
    for data in (b"", bytes(17), bytes(19), bytes(24)):
        with pytest.raises(InvalidRequest, match=f"has 18 bytes of RGB, not {len(data)}"):
            _core.resize_bicubic(data, 3, 2, 4, 4)


MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.mark.parametrize(("size", "patch"), [(224, 14), (56, 14), (12, 3), (8, 8), (5, 1), (30, 14), (5, 4)])
def test_patches_equal_numpy(size: int, patch: int) -> None:
    pixels = picture(np.random.default_rng(size), size, size, "noise")
    mean, std = np.float32(MEAN).astype(np.float64), np.float32(STD).astype(np.float64)
    values = ((pixels / 255.0 - mean) / std).astype(np.float32)
    side = size // patch
    values = values[: side * patch, : side * patch]  # a convolution leaves out what is beside its whole patches
    expected = values.reshape(side, patch, side, patch, 3).transpose(0, 2, 4, 1, 3).reshape(side * side, -1)
    ours = np.frombuffer(_core.to_patches(pixels.tobytes(), size, patch, MEAN, STD), np.float32)
    assert np.array_equal(ours.reshape(side * side, 3 * patch * patch), expected)


def test_patches_that_do_not_fit_are_refused() -> None:
    good = bytes(12)
    for size, patch in [(2, 0), (2, -1), (2, 3), (2, 4)]:
        with pytest.raises(InvalidRequest, match=f"patches of side {patch} do not fit a picture of side {size}"):
            _core.to_patches(good, size, patch, MEAN, STD)
    for size in (0, -1, 65536, 2**62):
        with pytest.raises(InvalidRequest, match=f"{size} x {size} pixels"):
            _core.to_patches(good, size, 1, MEAN, STD)
    with pytest.raises(InvalidRequest, match="has 12 bytes, not 11"):
        _core.to_patches(bytes(11), 2, 1, MEAN, STD)
    for value in (float("nan"), float("inf")):
        with pytest.raises(InvalidRequest, match="channel 1 has mean"):
            _core.to_patches(good, 2, 1, (0, value, 0), STD)
    for value in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidRequest, match="channel 2 has mean 0 and standard deviation"):
            _core.to_patches(good, 2, 1, (0, 0, 0), (1, 1, value))
