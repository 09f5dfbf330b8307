"""Any picture a caller may hold -> upright RGB bytes, or an ImageDecodeError; never an answer about half a picture.

The rules, all of them:

* Orientation: the EXIF tag is applied whatever the container (JPEG, PNG, WebP, AVIF, TIFF, HEIC, a PIL image);
  `exif=False` leaves the pixels as they are stored (HEIC: its decoder has turned them already). Boxes always refer
  to the picture made here.
* Transparency (alpha channel, palette or colour-key): composited on white, as transformers does.
* CMYK, YCbCr, HSV, palette, 1-bit: Pillow's conversion to RGB. LAB: through littlecms to sRGB. Colour profiles
  are not applied, as in the reference.
* 16-bit grey: value / 257, rounded. 16-bit RGB: Pillow keeps the high byte. 32-bit integer grey counts as 16-bit and
  is refused when a value lies outside 0..65535. Floating-point pictures have no stated range and are refused.
* Several frames or pages: the first one, unless `frame` says which; the result's notes say so.
* Size: more pixels than PIL.Image.MAX_IMAGE_PIXELS in a file, a side above 65535, or more than 2^28 pixels: refused.
* A file that ends early, a format that needs an external program (EPS), a document, a text: refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import time
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias, cast

from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from kosmos_edge.errors import ImageDecodeError, InvalidRequest, KosmosIOError, OutOfMemory

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAX_SIDE = 65535  # csrc/image/image.h
MAX_PIXELS = 1 << 28
MAX_STREAM_BYTES = 1 << 30  # of a pipe or a file object: these have no size to look at beforehand

# What Pillow would hand to another program (EPS), cannot decode (the stubs), or reads from text.
REFUSED_FORMATS = frozenset({"EPS", "BUFR", "GRIB", "HDF5", "WMF", "MPEG", "IPTC", "XBM", "XPM"})
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
_EXIF_ORIENTATION = 0x0112
_TURN = {  # EXIF orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURN_BACK = {**_TURN, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
_SIXTEEN_TO_EIGHT = [(value + 128) // 257 for value in range(65536)]

_formats: tuple[str, ...] | None = None
_formats_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture: upright, RGB, 8 bits. Every verb takes it where it takes an image."""

    rgb: bytes  # height rows of width pixels of 3 bytes
    width: int
    height: int
    name: str | None = None  # the file's path, when there is one
    orientation: int = 1  # the EXIF orientation that was found, 1..8
    notes: tuple[str, ...] = ()  # what had to be decided: frame, transparency, bit depth, turning
    decode_ms: float = 0.0


class Array(Protocol):
    """A numpy array, for type checkers: before Python 3.12 its type does not say that it has a buffer."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


ImageInput: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | Image.Image | Buffer | Array | Picture"


def open_image(source: ImageInput, *, exif: bool = True, frame: int | None = None) -> Picture:
    """Decodes a path, bytes, file object, PIL image, or HxWx3 uint8 buffer (a numpy array, a memoryview).

    exif: turn the picture upright by its EXIF orientation. frame: which frame or page (0 is the first) of a file that
    has several; of a PIL image the current one is the default.
    Raises ImageDecodeError, KosmosIOError (the operating system refused), InvalidRequest (not a picture's type).
    """
    if not isinstance(exif, bool):
        raise InvalidRequest(f"exif: expected True or False, got {exif!r}")
    if frame is not None and (not isinstance(frame, int) or isinstance(frame, bool) or frame < 0):
        raise InvalidRequest(f"frame: expected an integer of at least 0, got {frame!r}")
    start = time.perf_counter()
    if isinstance(source, Picture):
        if frame is not None or not exif:
            raise InvalidRequest("exif and frame have no effect on a picture that is decoded already")
        return source
    name: str | None = None
    try:
        if isinstance(source, str | os.PathLike):
            name = os.fsdecode(os.fspath(source))
            if "\0" in name:
                raise ImageDecodeError(f"{name!r}: a path cannot contain a NUL character")
            with _open_file(name) as file:
                rgb, size, orientation, notes = _decode_file(file, name, exif, frame)
        elif isinstance(source, bytes | bytearray):
            rgb, size, orientation, notes = _decode_file(BytesIO(source), "the given bytes", exif, frame)
        elif isinstance(source, Image.Image):
            rgb, size, orientation, notes = _decode_pil(source, "the given PIL image", exif, frame)
        elif hasattr(source, "read"):
            stream = _read_all(cast(BinaryIO, source), "the given file object")
            rgb, size, orientation, notes = _decode_file(BytesIO(stream), "the given file object", exif, frame)
        else:
            rgb, size, orientation, notes = _decode_buffer(source, exif, frame)
    except MemoryError as error:
        if isinstance(error, OutOfMemory):
            raise
        raise OutOfMemory(f"{name or 'the picture'}: not enough memory to decode it") from error
    elapsed_ms = (time.perf_counter() - start) * 1000
    return Picture(rgb, size[0], size[1], name, orientation, tuple(notes), elapsed_ms)


_Decoded: TypeAlias = tuple[bytes, tuple[int, int], int, list[str]]


def _open_file(name: str) -> BinaryIO:
    try:
        mode = os.stat(name).st_mode
        if stat.S_ISDIR(mode):
            raise ImageDecodeError(f"{name}: is a directory, expected a picture file")
        file = open(name, "rb")  # noqa: SIM115 (the caller's `with` closes it)
        if stat.S_ISREG(mode):
            return file
        with file:  # a pipe or a device: Pillow needs to seek
            return BytesIO(_read_all(file, name))
    except OSError as error:
        if isinstance(error, KosmosIOError):
            raise
        raise KosmosIOError(error.errno or errno.EIO, error.strerror or str(error), name) from error


def _read_all(file: BinaryIO, name: str) -> bytes:
    data = bytearray()
    while len(data) <= MAX_STREAM_BYTES:
        try:
            part = file.read(MAX_STREAM_BYTES + 1 - len(data))  # a pipe gives less than asked for
        except OSError as error:
            raise KosmosIOError(error.errno or errno.EIO, error.strerror or str(error), name) from error
        if not isinstance(part, bytes | bytearray):
            raise InvalidRequest(f"{name}: expected a binary file object, its read() gave {type(part).__name__}")
        if not part:
            return bytes(data)
        data += part
    raise ImageDecodeError(f"{name}: more than {MAX_STREAM_BYTES} bytes, which is the limit for a stream")


def read_stream(file: BinaryIO) -> bytes:
    """The rest of a file object, which open_image would decode."""
    return _read_all(file, "the given file object")


def allowed_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are decoded here; includes HEIF where pi-heif is installed."""
    global _formats
    with _formats_lock:
        if _formats is None:
            with contextlib.suppress(ImportError):
                import_module("pi_heif").register_heif_opener()
            Image.init()
            _formats = tuple(name for name in Image.ID if name not in REFUSED_FORMATS)
        return _formats


def _decode_file(file: BinaryIO, name: str, exif: bool, frame: int | None) -> _Decoded:
    try:
        head = file.read(64)
        file.seek(0)
    except OSError as error:
        raise _from_os_error(error, name) from error
    if not head:
        raise ImageDecodeError(f"{name}: the file is empty")
    try:
        image = Image.open(file, formats=allowed_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageDecodeError(f"{name}: {_too_large()}") from error
    except UnidentifiedImageError as error:
        raise ImageDecodeError(f"{name}: {_why_not_a_picture(head)}") from error
    except OSError as error:
        raise _from_os_error(error, name) from error
    except MemoryError:
        raise
    except Exception as error:  # plugins raise whatever the damaged header made them do
        raise ImageDecodeError(f"{name}: damaged header ({_reason(error)})") from error
    with image:
        if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
            raise ImageDecodeError(f"{name}: {_too_large(image.size)}")
        return _decode_pil(image, name, exif, frame)


def _decode_pil(image: Image.Image, name: str, exif: bool, frame: int | None) -> _Decoded:
    notes: list[str] = []
    _check_size(image.size, name)
    try:
        _choose_frame(image, name, frame, notes)
        stored = _orientation(image)
        image.load()
        left = _orientation(image)  # Pillow turns TIFF itself and drops the tag
        turned = image
        if exif and left in _TURN:
            turned = image.transpose(_TURN[left])
        elif not exif and stored != left and stored in _TURN_BACK:
            turned = image.transpose(_TURN_BACK[stored])
        if exif and stored in _TURN:
            notes.append(f"turned upright by EXIF orientation {stored}")
        rgb = _to_rgb(turned, image.info.get("transparency"), name, notes)
        if ImageFile.LOAD_TRUNCATED_IMAGES:
            notes.append("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: a truncated picture would not have been refused")
        return rgb.tobytes(), rgb.size, stored, notes
    except (ImageDecodeError, InvalidRequest, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageDecodeError(f"{name}: {_too_large()}") from error
    except OSError as error:
        raise _from_os_error(error, name) from error
    except Exception as error:  # plugins raise whatever the damaged data made them do
        raise ImageDecodeError(f"{name}: damaged ({_reason(error)})") from error


def _decode_buffer(source: object, exif: bool, frame: int | None) -> _Decoded:
    try:
        view = memoryview(cast(Any, source))
    except TypeError:
        raise InvalidRequest(
            "image: expected a path, bytes, a binary file object, a PIL image or an HxWx3 uint8 buffer, "
            f"got {type(source).__name__}"
        ) from None
    if view.ndim == 1 and view.format in ("B", "b", "c"):
        return _decode_file(BytesIO(view), "the given bytes", exif, frame)
    if view.ndim != 3 or view.shape is None or view.shape[2] != 3 or view.format not in ("B", "<B", "=B", "|B", "@B"):
        raise InvalidRequest(
            f"image: expected a buffer of shape (height, width, 3) and type uint8, got shape {view.shape} "
            f"and format {view.format!r}"
        )
    if frame is not None:
        raise InvalidRequest(f"frame: an array has only one frame, got frame={frame}")
    height, width = view.shape[0], view.shape[1]
    _check_size((width, height), "the given array")
    return view.tobytes(), (width, height), 1, []


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise ImageDecodeError(
            f"{name}: {width} x {height} pixels; expected 1..{MAX_SIDE} on each side and at most {MAX_PIXELS} in all"
        )


def _too_large(size: tuple[int, int] | None = None) -> str:
    got = f"{size[0]} x {size[1]} pixels are" if size else "the picture is"
    return f"{got} more than the {Image.MAX_IMAGE_PIXELS} pixels that PIL.Image.MAX_IMAGE_PIXELS allows"


def _choose_frame(image: Image.Image, name: str, frame: int | None, notes: list[str]) -> None:
    several = bool(getattr(image, "is_animated", False))
    if frame is None:
        if several:
            notes.append(f"the file has several frames: frame {_current_frame(image)} was used")
        return
    if not several and frame == 0:
        return
    count = int(getattr(image, "n_frames", 1))
    if frame >= count:
        raise InvalidRequest(f"{name}: frame {frame} asked for, the file has {count} (0..{count - 1})")
    image.seek(frame)
    notes.append(f"the file has several frames: frame {frame} was used")


def _current_frame(image: Image.Image) -> int:
    try:
        return image.tell()
    except (AttributeError, EOFError):
        return 0


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except (OSError, MemoryError):
        raise
    except Exception:  # EXIF is written by anybody; an unreadable one says nothing about the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image, key: object, name: str, notes: list[str]) -> Image.Image:
    mode = image.mode
    if mode == "F":
        raise ImageDecodeError(f"{name}: floating-point pixels have no stated range; convert the picture to 8 bits")
    if mode == "I" or mode.startswith("I;16"):
        return _grey16_to_rgb(image, key, name, notes)
    if mode == "LAB":
        profile = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, *profile, outputMode="RGB")
        assert converted is not None
        return converted
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or key is not None:
        if mode == "La":
            image = image.convert("LA")
        return _on_white(image.convert("RGBA"), notes)
    return image.convert("RGB")


def _grey16_to_rgb(image: Image.Image, key: object, name: str, notes: list[str]) -> Image.Image:
    wide = image.convert("I")
    low, high = cast(tuple[int, int], wide.getextrema())
    if low < 0 or high > 65535:
        raise ImageDecodeError(f"{name}: grey values {low}..{high}; expected 0..65535 in a picture of more than 8 bits")
    notes.append("16-bit grey scaled to 8 bits")
    grey = wide.point(_SIXTEEN_TO_EIGHT, "L")
    if isinstance(key, int) and 0 <= key <= 65535:
        opaque = [255] * 65536
        opaque[key] = 0
        return _on_white(Image.merge("LA", (grey, wide.point(opaque, "L"))).convert("RGBA"), notes)
    return grey.convert("RGB")


def _on_white(image: Image.Image, notes: list[str]) -> Image.Image:
    alpha = cast(tuple[int, int], image.getchannel("A").getextrema())
    if alpha[0] == 255:
        return image.convert("RGB")
    notes.append("transparent parts shown on white")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _from_os_error(error: OSError, name: str) -> Exception:
    if error.errno:  # the disk, not the format
        return KosmosIOError(error.errno, error.strerror or str(error), name)
    text = str(error).strip() or "damaged"
    return ImageDecodeError(f"{name}: {text}")


def _why_not_a_picture(head: bytes) -> str:
    start = head.lstrip()
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS and "HEIF" not in allowed_formats():
        return "HEIC/HEIF needs a decoder that is not installed: pip install kosmos-edge[heif]"
    if start.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return "PostScript is not decoded here (it needs an external program); convert it to PNG first"
    if start.startswith(b"%PDF"):
        return "a PDF document, not a picture; render its pages to PNG first"
    if start[:5].lower() in (b"<svg ", b"<?xml"):
        return "an SVG or XML text, not a picture of pixels; render it to PNG first"
    return "not a picture, or of a format that is not decoded here"
