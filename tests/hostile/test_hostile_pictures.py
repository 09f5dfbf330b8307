"""Pictures that nobody vouches for: bombs, files cut short, every geometry, and pixels that must equal Pillow's."""

import io
import itertools
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.small_model import small_model
from helpers.tiny import write_gguf
from pictures import PICTURES, bombs, chunk, encoded, noise
from PIL import Image, ImageOps

from kosmos_edge import Model, _core, open_image
from kosmos_edge.errors import ImageDecodeError, InvalidRequest

FUZZ = Path(__file__).resolve().parents[1] / "fuzz"
MEMORY_MB = 32  # what all two hundred bombs together may take beyond what the first picture did
# Decodes every bomb and says: refused, accepted, largest side of an accepted one, growth of peak memory in MiB.
BOMBS = """
import io, resource, sys, warnings
sys.path[:0] = [%r, %r]
from pictures import bombs, encoded, noise
from kosmos_edge.errors import ImageDecodeError
from kosmos_edge.images import open_image
warnings.simplefilter("error")
files = bombs()
open_image(encoded(noise(64, 64), "PNG"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
refused, sides = 0, []
for name, data in files.items():
    try:
        picture = open_image(data)
        sides.append(max(picture.width, picture.height))
    except ImageDecodeError as error:
        refused += 1
print(refused, len(sides), max(sides), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> _core.Engine:
    path = tmp_path_factory.mktemp("small") / "small.gguf"
    write_gguf(path, small_model())
    return _core.Engine(str(path), threads=1)


def test_bombs_cost_nothing():
    assert len(bombs()) == 200
    script = BOMBS % (str(FUZZ), str(FUZZ.parent))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    refused, accepted, largest, grown = map(int, done.stdout.split())
    assert refused >= 180 and refused + accepted == 200
    assert largest <= 64  # what is accepted is a small picture with much beside it
    if "libasan" not in os.environ.get("LD_PRELOAD", ""):  # which keeps what was freed
        assert grown < MEMORY_MB


@pytest.mark.parametrize("index", range(len(PICTURES)))
def test_truncation_at_every_percent_gives_one_verdict(index):
    """The policy: refused, or (only bytes that no pixel needs were lost) exactly the pixels of the whole file."""
    data = PICTURES[index]
    whole = open_image(data)
    refused = 0
    for percent in range(100):
        verdicts = []
        for _ in range(2):
            try:
                verdicts.append(open_image(data[: len(data) * percent // 100]).rgb)
            except ImageDecodeError as error:
                verdicts.append(str(error))
        assert verdicts[0] == verdicts[1], percent
        assert isinstance(verdicts[0], str) or verdicts[0] == whole.rgb, percent
        refused += isinstance(verdicts[0], str)
    assert refused >= 30  # animations and pictures with metadata behind the pixels survive losing those


def geometries() -> list[tuple[int, int]]:
    """Five thousand: all up to 16 x 16, lines, primes, the largest sides, shapes known for harm."""
    sizes = set(itertools.product(range(1, 17), range(1, 17)))
    primes = [n for n in range(2, 500) if all(n % k for k in range(2, int(n**0.5) + 1))]
    sizes |= {(n, m) for n in primes for m in (1, 2, 3, 29, 31)} | {(m, n) for n in primes for m in (1, 2, 3, 29, 31)}
    sizes |= {(1, n) for n in range(1, 1600)} | {(n, 1) for n in range(1, 1600)}
    sizes |= {(400, 800), (800, 400), (65535, 1), (1, 65535), (65535, 2), (28, 28), (27, 29), (14, 1000), (333, 777)}
    source = np.random.PCG64([1, 2]).random_raw(4000)
    for i in range(0, 4000, 2):
        if len(sizes) >= 5000:
            break
        sizes.add((1 + int(source[i] % 120), 1 + int(source[i + 1] % 120)))
    return sorted(sizes)


def test_five_thousand_geometries(engine):
    sizes = geometries()
    assert len(sizes) >= 5000
    pattern = bytes(range(256)) * 3 * 800
    params = _core.GenerateParams()
    params.max_tokens = 1
    for number, (width, height) in enumerate(sizes):
        pixels = pattern[number % 256 :][: width * height * 3]
        if len(pixels) < width * height * 3:
            pixels = (pattern * (1 + width * height * 3 // len(pattern)))[: width * height * 3]
        picture = engine.encode_image(pixels, width, height)
        assert picture.shape == (4, 16)
        if number % 7 == 0:
            assert len(engine.generate([("image", picture), ("text", "An image of")], params).token_ids) == 1


@pytest.mark.parametrize(
    ("width", "height"), [(65536, 1), (1, 65536), (0, 1), (1, 0), (-1, 5), (2**31, 1), (2**62, 2**62)]
)
def test_sides_beyond_the_cap(engine, width, height):
    with pytest.raises((InvalidRequest, TypeError, OverflowError)):
        engine.encode_image(bytes(12), width, height)


def test_geometries_through_the_interface(engine, tmp_path):
    with Model(engine, tmp_path / "small.gguf") as model:
        for size in ((1, 1), (1, 3), (3, 1), (400, 800), (997, 13), (65535, 1)):
            result = model.caption(encoded(noise(*size), "PNG"), max_tokens=1)
            assert result.image_size == size if hasattr(result, "image_size") else result.text is not None


# ---- pixels: a generated suite of modes, depths, layouts and orientations


def png(depth: int, colour: int, interlace: int, transparent: bool) -> bytes | None:
    """A PNG file of 13 x 7 in that combination, written by hand; None where PNG has none."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    if depth not in {0: (1, 2, 4, 8, 16), 3: (1, 2, 4, 8)}.get(colour, (8, 16)) or (transparent and colour in (4, 6)):
        return None
    width, height = 13, 7
    source = np.random.PCG64([depth, colour, interlace, transparent]).random_raw(4096)
    values = (source % (1 << min(depth, 8))).astype(int)
    if depth == 16:
        values = values * 257
    pixels = values[: width * height * channels].reshape(height, width, channels)
    passes = [(0, 0, 1, 1)]
    if interlace:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    raw = b""
    for x, y, dx, dy in passes:
        for row in pixels[y::dy, x::dx]:
            if row.size:
                bits = "".join(f"{v:0{depth}b}" for v in row.reshape(-1))
                bits += "0" * (-len(bits) % 8)
                raw += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, interlace))
    if colour == 3:
        out += chunk(b"PLTE", bytes(int(v) % 256 for v in source[: 3 << depth]))
    if transparent:
        key = {0: struct.pack(">H", int(pixels[0, 0, 0])), 3: bytes([0, 128, 255][: 1 << depth])}.get(colour)
        out += chunk(b"tRNS", key or struct.pack(">3H", *map(int, pixels[0, 0])))
    return out + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def by_pillow(data: bytes) -> Image.Image:
    """Upright RGB on white by Pillow's own words."""
    with Image.open(io.BytesIO(data)) as opened:  # by path, Pillow 12 leaves some TIFF files lying on their side
        image = ImageOps.exif_transpose(opened)
        if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return image.convert("RGB")


MATRIX = [
    (depth, colour, interlace, transparent)
    for depth, colour, interlace, transparent in itertools.product(
        (1, 2, 4, 8, 16), (0, 2, 3, 4, 6), (0, 1), (False, True)
    )
    if png(depth, colour, interlace, transparent) and not (depth == 16 and colour == 0)  # grey 16: test_images.py
]


@pytest.mark.parametrize(("depth", "colour", "interlace", "transparent"), MATRIX)
def test_every_kind_of_png_equals_pillow(depth, colour, interlace, transparent):
    data = png(depth, colour, interlace, transparent)
    assert open_image(data).rgb == by_pillow(data).tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK", "P", "1", "LA"])
def test_modes_and_orientations_equal_pillow(mode, file_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = noise(17, 9).convert("L").convert("LA") if mode == "LA" else noise(17, 9).convert(mode)
    try:
        data = encoded(image, file_format, exif=exif)
    except (OSError, KeyError):
        pytest.skip(f"{file_format} holds no {mode}")
    picture = open_image(data)
    expected = by_pillow(data)
    assert (picture.width, picture.height) == expected.size == ((9, 17) if orientation > 4 else (17, 9))
    assert picture.rgb == expected.tobytes()
