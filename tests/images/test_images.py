"""kosmos_edge.images: the stated rule for every kind of picture, and a refusal for everything that is none."""

import io
import os
import random
import struct
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.pictures import encode, noise, stored_for, with_tag
from PIL import Image, ImageFile

from kosmos_edge import images
from kosmos_edge.errors import ImageDecodeError, InvalidRequest, KosmosError, KosmosIOError
from kosmos_edge.images import open_image


def array(picture: images.Picture) -> np.ndarray:
    return np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3)


# ---- what may be handed in


def test_every_kind_of_input_gives_the_same_picture(tmp_path: Path) -> None:
    image = noise(20, 13)
    data = encode(image, "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    pixels = np.asarray(image)
    with open(path, "rb") as file:
        inputs = [str(path), path, data, bytearray(data), memoryview(data), io.BytesIO(data), file, image, pixels]
        inputs += [memoryview(pixels), np.asfortranarray(pixels), pixels[::-1][::-1]]
        for source in inputs:
            picture = open_image(source)
            assert (picture.width, picture.height) == (20, 13)
            assert picture.rgb == image.tobytes(), type(source)
            assert picture.notes == ()
    assert open_image(path).name == str(path)
    assert open_image(data).name is None
    assert open_image(picture) is picture


def test_a_pipe_can_be_read(tmp_path: Path) -> None:
    image = noise(9, 9)
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(encode(image, "PNG")))
    writer.start()
    assert open_image(fifo).rgb == image.tobytes()
    writer.join()


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (None, "NoneType"),
        (12, "int"),
        (["a.png"], "list"),
        (np.zeros((4, 5), np.uint8), r"\(4, 5\)"),
        (np.zeros((4, 5, 4), np.uint8), r"\(4, 5, 4\)"),
        (np.zeros((4, 5, 3), np.float32), "'f'"),
        (np.zeros((4, 5, 3), np.int8), "'b'"),
        (io.StringIO("text"), "str"),
    ],
)
def test_what_is_no_picture_is_an_invalid_request(source: object, what: str) -> None:
    with pytest.raises(InvalidRequest, match=what):
        open_image(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"exif": 1}, {"frame": -1}, {"frame": True}, {"frame": 1.0}])
def test_options_are_checked(options: dict) -> None:
    with pytest.raises(InvalidRequest):
        open_image(encode(noise(4, 4), "PNG"), **options)


# ---- orientation


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF", "JPEG", "AVIF", "MPO"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_in_all_containers(file_format: str, orientation: int) -> None:
    upright = noise(40, 24)
    stored = stored_for(upright, orientation)
    options: dict[str, object] = {"exif": with_tag(orientation)}
    if file_format == "WEBP":
        options["lossless"] = True
    if file_format in ("JPEG", "MPO", "AVIF"):
        options |= {"quality": 95, "subsampling": "4:4:4"}
    data = encode(stored, file_format, **options)
    lossless = file_format in ("PNG", "WEBP", "TIFF")
    allowed = 0 if lossless else 12

    picture = open_image(data)
    assert (picture.width, picture.height, picture.orientation) == (40, 24, orientation)
    assert np.abs(array(picture).astype(int) - np.asarray(upright).astype(int)).max() <= allowed
    assert any("EXIF" in note for note in picture.notes) == (orientation != 1)

    as_stored = open_image(data, exif=False)
    assert (as_stored.width, as_stored.height) == stored.size
    assert np.abs(array(as_stored).astype(int) - np.asarray(stored).astype(int)).max() <= allowed
    assert not any("EXIF" in note for note in as_stored.notes)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_pil_image(orientation: int) -> None:
    upright = noise(12, 7)
    opened = Image.open(io.BytesIO(encode(stored_for(upright, orientation), "PNG", exif=with_tag(orientation))))
    assert open_image(opened).rgb == upright.tobytes()
    assert open_image(opened).rgb == upright.tobytes()  # the caller's image is left as it was
    assert open_image(opened, exif=False).rgb == opened.tobytes()


@pytest.mark.parametrize("tag", [0, 9, 65535])
def test_meaningless_orientation_is_ignored(tag: int) -> None:
    image = noise(5, 6)
    assert open_image(encode(image, "PNG", exif=with_tag(tag))).rgb == image.tobytes()


def test_unreadable_exif_is_ignored() -> None:
    image = noise(5, 6)
    assert open_image(encode(image, "PNG", exif=b"Exif\0\0MM\0\x2a\0\0\0\x08\xff\xff")).rgb == image.tobytes()


# ---- pixel formats


def test_alpha_is_composited_on_white() -> None:
    generator = np.random.default_rng(1)
    pixels = generator.integers(0, 256, (11, 14, 4), dtype=np.uint8)
    pixels[0] = [10, 20, 30, 0]
    pixels[1] = [10, 20, 30, 255]
    picture = open_image(encode(Image.fromarray(pixels), "PNG"))
    alpha = pixels[..., 3:].astype(float) / 255
    expected = alpha * pixels[..., :3] + (1 - alpha) * 255
    assert np.abs(array(picture) - expected).max() <= 1
    assert (array(picture)[0] == 255).all() and (array(picture)[1] == [10, 20, 30]).all()
    assert any("white" in note for note in picture.notes)
    opaque = np.concatenate([pixels[..., :3], np.full((11, 14, 1), 255, np.uint8)], axis=2)
    picture = open_image(encode(Image.fromarray(opaque), "PNG"))
    assert (array(picture) == pixels[..., :3]).all() and picture.notes == ()


def test_grey_with_alpha_and_premultiplied_alpha() -> None:
    grey_alpha = Image.merge("LA", (Image.new("L", (2, 1), 100), Image.frombytes("L", (2, 1), b"\x00\xff")))
    for image in (grey_alpha, grey_alpha.convert("La"), grey_alpha.convert("RGBA").convert("RGBa")):
        assert array(open_image(image)).tolist() == [[[255] * 3, [100] * 3]], image.mode


def test_palette_with_and_without_transparency() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    assert array(open_image(encode(image, "PNG"))).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    clear = array(open_image(encode(image, "PNG", transparency=1))).tolist()
    assert clear == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]
    half = array(open_image(encode(image, "PNG", transparency=bytes([255, 255, 128]))))
    assert half[0, 2].tolist() == [127, 127, 255]
    assert array(open_image(encode(image, "GIF", transparency=2)))[0, 2].tolist() == [255, 255, 255]


def test_colour_key_of_rgb_and_grey() -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert array(open_image(encode(image, "PNG", transparency=(4, 5, 6)))).tolist() == [[[1, 2, 3], [255] * 3]]
    grey = Image.fromarray(np.array([[7, 8]], np.uint8))
    assert array(open_image(encode(grey, "PNG", transparency=7))).tolist() == [[[255] * 3, [8] * 3]]


def test_cmyk_is_pillows_conversion() -> None:
    image = noise(16, 16).convert("CMYK")
    for file_format in ("TIFF", "JPEG"):
        data = encode(image, file_format)
        assert open_image(data).rgb == Image.open(io.BytesIO(data)).convert("RGB").tobytes()
    red = Image.new("CMYK", (1, 1), (0, 255, 255, 0))
    assert array(open_image(red)).tolist() == [[[255, 0, 0]]]


def test_one_bit_grey_and_other_modes() -> None:
    image = noise(8, 8)
    for mode in ("1", "L", "YCbCr", "HSV"):
        converted = image.convert(mode)
        assert open_image(converted).rgb == converted.convert("RGB").tobytes(), mode


def test_lab_goes_through_littlecms() -> None:
    white, grey = (255, 0, 0), (136, 0, 0)  # L 0..255; a and b signed
    lab = Image.frombytes("LAB", (2, 1), bytes([*white, *grey]))
    out = array(open_image(lab)).astype(int)
    assert (out[0, 0] >= 250).all() and np.ptp(out[0, 1]) <= 4 and 100 < out[0, 1, 0] < 150


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled(file_format: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65534, 65535, 1000]], np.uint16)
    picture = open_image(encode(Image.fromarray(values), file_format))
    assert array(picture)[0, :, 0].tolist() == [round(v / 257) for v in values[0].tolist()]
    assert any("16-bit" in note for note in picture.notes)


def test_sixteen_bit_modes_of_pil() -> None:
    values = np.array([[0, 300, 40000, 65535]], np.uint16)
    expected = [round(v / 257) for v in values[0].tolist()]
    for image in (
        Image.frombytes("I;16", (4, 1), values.astype("<u2").tobytes()),
        Image.frombytes("I;16B", (4, 1), values.astype(">u2").tobytes()),
        Image.fromarray(values.astype(np.int32)),
    ):
        assert array(open_image(image))[0, :, 0].tolist() == expected, image.mode


def png_of(bit_depth: int, colour_type: int, width: int, rows: list[bytes], transparency: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), bit_depth, colour_type, 0, 0, 0)
    raw = b"".join(b"\0" + row for row in rows)
    body = chunk(b"tRNS", transparency) if transparency else b""
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )


def test_sixteen_bit_rgb_and_grey_with_colour_key() -> None:
    colour = open_image(png_of(16, 2, 2, [struct.pack(">6H", 0, 32768, 65535, 257, 514, 60000)]))
    assert np.abs(array(colour).astype(int).ravel() - [0, 128, 255, 1, 2, 233]).max() <= 1
    grey = open_image(png_of(16, 0, 2, [struct.pack(">2H", 1000, 2000)], transparency=struct.pack(">H", 1000)))
    assert array(grey)[0, :, 0].tolist() == [255, round(2000 / 257)]


@pytest.mark.parametrize("values", [[[-1, 5]], [[0, 65536]]])
def test_integers_beyond_sixteen_bits_are_refused(values: list) -> None:
    with pytest.raises(ImageDecodeError, match=r"0\.\.65535"):
        open_image(Image.fromarray(np.array(values, np.int32)))


def test_floating_point_is_refused() -> None:
    image = Image.fromarray(np.full((3, 3), 0.5, np.float32))
    for source in (image, encode(image, "TIFF")):
        with pytest.raises(ImageDecodeError, match="floating-point"):
            open_image(source)


# ---- several frames


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_first_frame_unless_told_otherwise(file_format: str) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    frames = [Image.new("RGB", (16, 16), colour) for colour in colours]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encode(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    for frame, colour in [(None, colours[0]), (0, colours[0]), (2, colours[2])]:
        picture = open_image(data, frame=frame)
        assert np.abs(array(picture).astype(int) - colour).max() <= 8
        assert any(f"frame {frame or 0} was used" in note for note in picture.notes)
    with pytest.raises(InvalidRequest, match="frame 3 requested, the file has 3"):
        open_image(data, frame=3)


def test_every_page_of_a_tiff_has_its_own_size() -> None:
    """The limits are for the page that is decoded, before it is."""
    pages = [Image.new("L", size) for size in ((30, 20), (50, 40), (10, 10))]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    for source in (data, io.BytesIO(data)):
        assert open_image(source, frame=2, max_pixels=100).width == 10
        for frame in (None, 0, 1):
            with pytest.raises(ImageDecodeError, match="pixels are more than the 100 that max_pixels allows"):
                open_image(source, frame=frame, max_pixels=100)
    with Image.open(io.BytesIO(data)) as image, pytest.raises(ImageDecodeError, match="50 x 40 pixels are more than"):
        open_image(image, frame=1, max_pixels=600)


def test_a_later_page_of_a_tiff_is_no_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [Image.new("L", size) for size in ((30, 20), (50, 40))]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    assert open_image(data, frame=0).width == 30
    with pytest.raises(ImageDecodeError, match="50 x 40 pixels are more than the 600 pixels that PIL"):
        open_image(data, frame=1)
    assert open_image(data, frame=1, max_pixels=2000).width == 50


def test_frame_of_a_still_picture() -> None:
    data = encode(noise(4, 4), "PNG")
    assert open_image(data, frame=0).notes == ()
    with pytest.raises(InvalidRequest, match="frame 1 requested, the file has 1"):
        open_image(data, frame=1)


# ---- formats


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM", "QOI", "TGA", "SGI", "PCX", "DDS"])
def test_lossless_formats(file_format: str) -> None:
    image = noise(32, 32)
    assert open_image(encode(image, file_format)).rgb == image.tobytes()


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP", "AVIF", "JPEG2000", "GIF"])
def test_lossy_formats(file_format: str) -> None:
    image = noise(64, 48)
    out = array(open_image(encode(image, file_format))).astype(int)
    assert np.abs(out - np.asarray(image).astype(int)).mean() < 12


def test_heic_says_what_to_install_or_is_decoded() -> None:
    header = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40
    if "HEIF" in images.allowed_formats():
        with pytest.raises(ImageDecodeError):
            open_image(header)
    else:
        with pytest.raises(ImageDecodeError, match=r"pip install pi-heif$"):
            open_image(header)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "PostScript"),
        (b"%PDF-1.7\n" + b"x" * 100, "PDF document.*command read takes PDFs"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b'<?xml version="1.0"?><svg/>', "SVG"),
        (b'/* XPM */\nstatic char *a[] = {\n"1 1 1 1",\n"a c #ffffff",\n"a"};', "not an image"),
        (b"#define a_width 8\n#define a_height 1\nstatic char a_bits[] = {0x01};", "not an image"),
        (b"just some text, and more of it, to be long enough for any header", "not an image"),
        (bytes(1000), "not an image"),
        (b"PK\x03\x04" + b"\0" * 100, "not an image"),
    ],
)
def test_other_files_are_refused(data: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "thing.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageDecodeError, match=what) as caught:
        open_image(path)
    assert str(path) in str(caught.value)


def test_formats_that_start_a_program_are_not_in_the_list() -> None:
    assert not images.REFUSED_FORMATS & set(images.allowed_formats())
    assert {"PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "JPEG2000"} <= set(images.allowed_formats())


# ---- what cannot be read


def test_empty_directory_missing(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jpg"
    empty.touch()
    with pytest.raises(ImageDecodeError, match=r"empty\.jpg: the file is empty"):
        open_image(empty)
    with pytest.raises(ImageDecodeError, match="is a directory"):
        open_image(tmp_path)
    with pytest.raises(KosmosIOError, match=r"nothing\.jpg") as caught:
        open_image(tmp_path / "nothing.jpg")
    assert isinstance(caught.value, OSError) and caught.value.filename.endswith("nothing.jpg")
    with pytest.raises(ImageDecodeError, match="NUL"):
        open_image("a\0b.jpg")
    with pytest.raises(ImageDecodeError, match="empty"):
        open_image(b"")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_read_error_of_the_operating_system() -> None:
    with pytest.raises(KosmosIOError, match="/proc/self/mem"):
        open_image("/proc/self/mem")


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "QOI", "PPM", "JPEG2000", "AVIF"])
def test_truncated_files_are_refused_or_whole(file_format: str) -> None:
    """Cut anywhere: an error, or (only trailing bytes lost) exactly the pixels of the whole file."""
    data = encode(noise(61, 47), file_format)
    whole = open_image(data)
    generator = random.Random(file_format)
    cuts = {1, 2, 3, 7, 8, 9, 12, len(data) // 2} | {generator.randrange(1, len(data)) for _ in range(80)}
    refused = 0
    for cut in sorted(cuts):
        try:
            assert open_image(data[:cut]).rgb == whole.rgb, cut
        except ImageDecodeError:
            refused += 1
    assert refused >= 0.9 * len(cuts)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "ICO", "JPEG2000"])
def test_damaged_files_never_give_another_exception(file_format: str) -> None:
    data = encode(noise(32, 32), file_format)
    generator = random.Random(file_format)
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(generator.randrange(1, 6)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        try:
            picture = open_image(bytes(damaged))
            assert len(picture.rgb) == picture.width * picture.height * 3
        except KosmosError as error:
            assert isinstance(error, ImageDecodeError), repr(error)


def test_a_program_that_allows_truncated_files_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert any("LOAD_TRUNCATED_IMAGES" in note for note in open_image(encode(noise(4, 4), "PNG")).notes)


# ---- size


def test_bombs_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    for side, what in [(9500, "MAX_IMAGE_PIXELS"), (14000, "MAX_IMAGE_PIXELS"), (30000, "at most 268435456")]:
        header = png_of(8, 2, side, [b""] * 1)
        bomb = header[:20] + struct.pack(">I", side) + header[24:29]
        bomb += struct.pack(">I", zlib.crc32(bomb[12:29])) + header[33:]
        with pytest.raises(ImageDecodeError, match=what):
            open_image(bomb)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageDecodeError, match="100 pixels"):
        open_image(encode(noise(11, 10), "PNG"))
    assert open_image(encode(noise(10, 10), "PNG")).width == 10


@pytest.mark.parametrize("size", [(65536, 1), (1, 65536), (0, 5)])
def test_sides_beyond_the_engines_limit(size: tuple[int, int]) -> None:
    with pytest.raises(ImageDecodeError, match="65535"):
        open_image(np.zeros((size[1], size[0], 3), np.uint8))


@pytest.mark.parametrize(
    "size",
    [(w, h) for w in (1, 2, 3, 7, 16) for h in (1, 2, 5, 16)]
    + [
        (1, 1000),
        (1000, 1),
        (223, 224),
        (224, 224),
        (225, 224),
        (400, 800),
        (997, 13),
        (1, 65535),
        (65535, 1),
        (640, 480),
    ],
)
def test_any_geometry(size: tuple[int, int]) -> None:
    image = Image.frombytes("RGB", size, random.Random(0).randbytes(size[0] * size[1] * 3))
    picture = open_image(encode(image, "PNG", compress_level=1))
    assert (picture.width, picture.height) == size and picture.rgb == image.tobytes()


# ---- paths


@pytest.mark.parametrize(
    "name", ["Ж画像.png", "smile 😀.png", "全角　空白.png", "עברית.png", "a'b\"c$(d).png", "x" * 250 + ".png"]
)
def test_unusual_paths(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "папка 写真"
    folder.mkdir()
    image = noise(6, 5)
    path = folder / name
    path.write_bytes(encode(image, "PNG"))
    for source in (path, str(path)):
        picture = open_image(source)
        assert picture.rgb == image.tobytes() and picture.name == str(path)


@pytest.mark.skipif(sys.platform == "win32", reason="file names are Unicode there")
def test_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    with open(path, "wb") as file:
        file.write(encode(noise(6, 5), "PNG"))
    assert open_image(os.fsdecode(path)).width == 6
