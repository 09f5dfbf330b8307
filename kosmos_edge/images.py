"""Decodes an image from any source into upright RGB bytes, or raises ImageDecodeError; never decodes it in part.

The rules:

* Orientation: the EXIF tag is applied in every container (JPEG, PNG, WebP, AVIF, TIFF, HEIC, a PIL image); `exif=False`
  leaves the pixels as stored (HEIC: the decoder has already rotated them). Boxes always refer to the image made here.
* Transparency (alpha channel, palette or colour-key): composited on white, as transformers does.
* CMYK, YCbCr, HSV, palette, 1-bit: Pillow's conversion to RGB. LAB: through littlecms to sRGB. Colour profiles
  are not applied, as in the reference.
* 16-bit grey: value / 257, rounded. 16-bit RGB: Pillow keeps the high byte. 32-bit integer grey counts as 16-bit and
  is refused if a value is outside 0..65535. Floating-point images have no defined range and are refused.
* Several frames or pages: the first one, or the one that `frame` names; a note in the result says so.
* Size: refused above `max_pixels` (default for files: PIL.Image.MAX_IMAGE_PIXELS), above 65535 on a side, and above
  2^28 pixels.
* Truncated file: refused, or with `allow_truncated` its beginning and a note.
* A format that needs an external program (EPS), a document, a text: refused. A URL: refused, nothing is fetched.
* Threads: any number may pass the same object at once (sharing.py); each gets what it would get alone. A PIL image is
  unchanged, except that it is loaded. File objects: see files.py.

Pillow's switches are global. LOAD_TRUNCATED_IMAGES is not touched: the decoded part of a truncated file is taken from
the image that refused it. MAX_IMAGE_PIXELS is raised only for the few formats that read it in their own code (frames of
GIF, ICO, ICNS, MPO; WebP; tiles of TIFF), only if max_pixels is larger, by one thread at a time, and then restored;
other users of Pillow in the process may see the raised value meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias, cast

from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from kosmos_edge import files
from kosmos_edge._native import _core
from kosmos_edge.errors import ImageDecodeError, InvalidRequest, KosmosError, KosmosIOError, OutOfMemory
from kosmos_edge.sharing import exclusive, file_keys, files_of, object_key

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAX_SIDE = _core.limits.MAX_IMAGE_SIDE
MAX_PIXELS = _core.limits.MAX_IMAGE_PIXELS

# Formats that Pillow passes to another program (EPS), cannot decode (the stubs), or reads from text.
REFUSED_FORMATS = frozenset({"EPS", "BUFR", "GRIB", "HDF5", "WMF", "MPEG", "IPTC", "XBM", "XPM"})
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
_EXIF_ORIENTATION = 0x0112
_TURN = {  # EXIF orientation -> the transpose that makes the image upright
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
    """A decoded image: upright, RGB, 8 bits. Every verb accepts it as an image."""

    rgb: bytes  # height rows of width pixels of 3 bytes
    width: int
    height: int
    name: str | None = None  # the file's path, if there is one
    orientation: int = 1  # the EXIF orientation in the file, 1..8
    notes: tuple[str, ...] = ()  # decisions: frame, transparency, bit depth, rotation
    decode_ms: float = 0.0


class Array(Protocol):
    """A numpy array, for type checkers: before Python 3.12 its type does not declare the buffer protocol."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


ImageInput: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | Image.Image | Buffer | Array | Picture"
_Decoded: TypeAlias = tuple[bytes, tuple[int, int], int, list[str]]


@dataclass(frozen=True, slots=True)
class Unusable:
    """Stands for an image that is known to be unusable; opening it raises the error."""

    error: KosmosError


@dataclass(frozen=True, slots=True)
class Opening:
    """How images are opened: the keywords of open_image."""

    exif: bool = True
    frame: int | None = None
    max_pixels: int | None = None
    allow_truncated: bool = False
    pipes: bool = True  # a path may name a pipe or a device, which may block its reader forever

    def __post_init__(self) -> None:
        for name in ("exif", "allow_truncated"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidRequest(f"{name}: expected True or False, got {getattr(self, name)!r}")
        for name, least, most in (("frame", 0, None), ("max_pixels", 1, MAX_PIXELS)):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least or (most and value > most):
                limits = f"of at least {least}" if most is None else f"from {least} to {most}"
                raise InvalidRequest(f"{name}: expected an integer {limits}, got {value!r}")

    def open(self, source: ImageInput | Unusable) -> Picture:
        """As open_image; a Picture is returned unchanged."""
        if isinstance(source, Unusable):
            raise source.error
        if isinstance(source, Picture):
            return source
        start = time.perf_counter()
        name: str | None = None
        try:
            if isinstance(source, str | os.PathLike):
                name = files.path_name(source)
                with files.open_file(name, pipes=self.pipes) as file:
                    rgb, size, orientation, notes = _decode_file(file, name, self)
            elif isinstance(source, bytes | bytearray):
                rgb, size, orientation, notes = _decode_file(BytesIO(source), "the given bytes", self)
            elif isinstance(source, Image.Image):
                rgb, size, orientation, notes = _decode_shared(source, "the given PIL image", self)
            elif hasattr(source, "read"):
                stream = BytesIO(files.read_stream(source))
                rgb, size, orientation, notes = _decode_file(stream, files.GIVEN_FILE, self)
            else:
                rgb, size, orientation, notes = _decode_buffer(source, self)
        except MemoryError as error:
            if isinstance(error, OutOfMemory):
                raise
            raise OutOfMemory(f"{name or 'the image'}: not enough memory to decode it") from error
        elapsed_ms = (time.perf_counter() - start) * 1000
        return Picture(rgb, size[0], size[1], name, orientation, tuple(notes), elapsed_ms)


AS_USUAL = Opening()


def open_image(
    source: ImageInput,
    *,
    exif: bool = True,
    frame: int | None = None,
    max_pixels: int | None = None,
    allow_truncated: bool = False,
) -> Picture:
    """Decodes a path, bytes, file object, PIL image, or HxWx3 uint8 buffer (a numpy array, a memoryview).

    exif: rotate the image upright by its EXIF orientation. frame: the frame or page (0 is the first) of a file with
    several; default for a PIL image: the current one. max_pixels: 1..268435456, the limit of width times height; None:
    PIL.Image.MAX_IMAGE_PIXELS for files. allow_truncated: use the available part of a truncated file, with a note (the
    rest is black or grey); only for formats that are decoded row by row: PNG, JPEG, GIF, BMP, PPM, uncompressed TIFF
    and the like, not WebP, AVIF, HEIC, JPEG 2000.
    Threads may pass the same object at the same time. A file object that can seek is read from its start, and its
    position is restored; any other is read from its position, once.
    Raises ImageDecodeError, KosmosIOError (the operating system refused), InvalidRequest (wrong type, a URL).
    """
    opening = Opening(exif, frame, max_pixels, allow_truncated)
    if isinstance(source, Picture) and opening != AS_USUAL:
        raise InvalidRequest(
            "exif, frame, max_pixels and allow_truncated have no effect on an image that is already decoded"
        )
    return opening.open(source)


def allowed_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are decoded here; includes HEIF if pi-heif is installed."""
    global _formats
    with _formats_lock:
        if _formats is None:
            with contextlib.suppress(ImportError):
                import_module("pi_heif").register_heif_opener()
            Image.init()
            _formats = tuple(name for name in Image.ID if name not in REFUSED_FORMATS)
        return _formats


def picture_suffixes() -> frozenset[str]:
    """Suffixes of the decoded formats, and .heic even without its decoder, so that the error says what is missing."""
    formats = set(allowed_formats())
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in formats}
    return frozenset((known | {".heic", ".heif"}) - {".mpg", ".mpeg", ".im", ".h5"})


def names_picture(text: str) -> bool:
    """Whether a text is the path of an existing image file, or the URL of an image."""
    name = text.strip()
    if not name or len(name) > 4096 or not name.isprintable():
        return False
    if os.path.isfile(name):
        return _suffix(name) in picture_suffixes() or _is_picture(name)
    if name.lower().startswith("data:image/"):
        return True
    endings = {_suffix(name), _suffix(name.partition("?")[0].partition("#")[0])}
    return " " not in name and not endings.isdisjoint(picture_suffixes()) and files.url_problem(name) is not None


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _is_picture(name: str) -> bool:
    """Whether a file begins like an image, regardless of its name."""
    try:
        with open(name, "rb") as file, identify(file, name):
            return True
    except (OSError, ImageDecodeError):
        return False


# ---- Pillow's limit of pixels


class _PillowsLimit(ImageDecodeError):
    """A format's own code applied MAX_IMAGE_PIXELS."""


_limit_lock = threading.Lock()  # held while the limit is raised
_raised_from: list[int | None] = []  # the limit before it was raised


def _pillows_limit() -> int | None:
    with contextlib.suppress(IndexError):
        return _raised_from[0]
    return Image.MAX_IMAGE_PIXELS


@contextlib.contextmanager
def _raised_limit(pixels: int) -> Iterator[None]:
    with _limit_lock:
        _raised_from.append(Image.MAX_IMAGE_PIXELS)
        Image.MAX_IMAGE_PIXELS = pixels
        try:
            yield
        finally:
            if pixels == Image.MAX_IMAGE_PIXELS:  # otherwise other code has set it meanwhile
                Image.MAX_IMAGE_PIXELS = _raised_from[0]
            _raised_from.clear()


def _within_limit(opening: Opening, decode: Callable[[], _Decoded]) -> _Decoded:
    """decode(), repeated with a raised limit if max_pixels allows the image but Pillow's limit does not."""
    try:
        return decode()
    except _PillowsLimit:
        limit = _pillows_limit()
        if opening.max_pixels is None or limit is None or opening.max_pixels <= limit:
            raise
    with _raised_limit(opening.max_pixels):
        return decode()


def check_size(size: tuple[int, int], name: str, opening: Opening, *, of_file: bool) -> None:
    """ImageDecodeError if an image of this size is refused; of_file: PIL.Image.MAX_IMAGE_PIXELS counts, too."""
    width, height = size
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise ImageDecodeError(
            f"{name}: {width} x {height} pixels; expected 1..{MAX_SIDE} on each side and at most {MAX_PIXELS} in all"
        )
    limit = opening.max_pixels
    if limit is not None and width * height > limit:
        raise ImageDecodeError(f"{name}: {width} x {height} pixels are more than the {limit} that max_pixels allows")
    limit = _pillows_limit()
    if opening.max_pixels is None and of_file and limit is not None and width * height > limit:
        raise ImageDecodeError(f"{name}: {_too_large(size)}")


def _too_large(size: tuple[int, int] | None = None) -> str:
    got = f"{size[0]} x {size[1]} pixels are" if size else "the image is"
    return (
        f"{got} more than the {_pillows_limit()} pixels that PIL.Image.MAX_IMAGE_PIXELS allows; "
        "max_pixels (--max-pixels) allows more"
    )


# ---- decoding


def _decode_file(file: BinaryIO, name: str, opening: Opening) -> _Decoded:
    def decode() -> _Decoded:
        with identify(file, name) as image:
            if image.format != "TIFF":  # whose pages have sizes of their own, and are not decoded by a seek
                check_size(image.size, name, opening, of_file=True)
            return _decode_pil(image, name, opening, of_file=True)

    return _within_limit(opening, decode)


def identify(file: BinaryIO, name: str, formats: tuple[str, ...] | None = None) -> Image.Image:
    """As Image.open, but without its check of MAX_IMAGE_PIXELS, which check_size replaces. ImageDecodeError."""
    try:
        file.seek(0)
        head = file.read(64)
        if not head:
            raise ImageDecodeError(f"{name}: the file is empty")
        for plugin in formats or allowed_formats():
            factory, accept = Image.OPEN[plugin]
            try:
                found = not accept or accept(head[:16])
                if found and not isinstance(found, str):  # a str says why not
                    file.seek(0)
                    return factory(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error):  # how plugins reject a file
                continue
        raise UnidentifiedImageError(name)
    except (ImageDecodeError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _PillowsLimit(f"{name}: {_too_large()}") from error
    except UnidentifiedImageError as error:
        raise ImageDecodeError(f"{name}: {_why_not_a_picture(head)}") from error
    except OSError as error:
        raise _from_os_error(error, name) from error
    except Exception as error:  # a damaged header can make a plugin raise anything
        raise ImageDecodeError(f"{name}: damaged header ({_reason(error)})") from error


def _decode_shared(image: Image.Image, name: str, opening: Opening) -> _Decoded:
    """Decodes a caller's image, which other threads may use at the same time; keeps its current frame."""
    with exclusive([object_key(image)]), exclusive(file_keys(files_of(image))):
        check_size(image.size, name, opening, of_file=False)
        before = None if opening.frame is None else _current_frame(image)
        if before is not None and before != opening.frame and _goes_one_way(image):
            return _within_limit(opening, lambda: _decode_copy(image, name, opening))
        try:
            return _within_limit(opening, lambda: _decode_pil(image, name, opening))
        finally:
            if before is not None and _current_frame(image) != before:
                with contextlib.suppress(Exception):  # as it was, but loaded; impossible if its file is damaged
                    image.seek(before)
                    image.load()


def _goes_one_way(image: Image.Image) -> bool:
    """Whether the image might not return to its frame: Pillow often cannot load an earlier one of an animated PNG."""
    return image.format == "PNG" and bool(getattr(image, "is_animated", False)) and bool(files_of(image))


def _decode_copy(image: Image.Image, name: str, opening: Opening, *, rest: bool = False) -> _Decoded:
    """Decodes a copy of the image's file; the image itself is unchanged."""
    copy = BytesIO(files.read_stream(files_of(image)[0], name))
    with identify(copy, name, (image.format,) if image.format else None) as other:
        return _decode_pil(other, name, opening, rest=rest)


def _decode_pil(
    image: Image.Image, name: str, opening: Opening, *, of_file: bool = False, rest: bool = False
) -> _Decoded:
    """of_file: as in check_size. rest: a copy of an image whose file is truncated; its available part is used."""
    notes: list[str] = []
    try:
        _choose_frame(image, name, opening.frame, notes)
        check_size(image.size, name, opening, of_file=of_file)
        if rest:
            stored = _load_what_there_is(image, notes)
        else:
            stored = _orientation(image)
            image.load()
        left = _orientation(image)  # Pillow rotates TIFF itself and drops the tag
        turned = image
        if opening.exif and left in _TURN:
            turned = image.transpose(_TURN[left])
        elif not opening.exif and stored != left and stored in _TURN_BACK:
            turned = image.transpose(_TURN_BACK[stored])
        if opening.exif and stored in _TURN:
            notes.append(f"turned upright by EXIF orientation {stored}")
        rgb = _to_rgb(turned, image.info.get("transparency"), name, notes)
        if ImageFile.LOAD_TRUNCATED_IMAGES:
            notes.append("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: a truncated image would not have been refused")
        return rgb.tobytes(), rgb.size, stored, notes
    except (ImageDecodeError, InvalidRequest, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _PillowsLimit(f"{name}: {_too_large()}") from error
    except Exception as error:  # damaged data can make a plugin raise anything
        if _ends_early(error) and opening.allow_truncated and not rest:
            return _decode_rest(image, name, opening)
        if isinstance(error, OSError):
            raise _from_os_error(error, name) from error
        raise ImageDecodeError(f"{name}: damaged ({_reason(error)})") from error


# ---- files that end early


def _ends_early(error: Exception) -> bool:
    text = str(error)
    return "truncated" in text if isinstance(error, OSError) else "not enough image data" in text


def _decode_rest(image: Image.Image, name: str, opening: Opening) -> _Decoded:
    """Decodes the beginning of an image from a copy of its file; the image itself is unchanged."""
    if not files_of(image) or image.format is None:
        raise ImageDecodeError(f"{name}: the file ends early, and cannot be read again")
    frame = opening.frame if opening.frame is not None else _current_frame(image) or None
    return _decode_copy(image, name, replace(opening, frame=frame), rest=True)


def _load_what_there_is(image: Image.Image, notes: list[str]) -> int:
    """Loads the available part of the image; returns its EXIF orientation."""
    lazy = cast(Any, image)
    before = 0
    with contextlib.suppress(OSError):  # in PNG it is after the pixels
        before = _orientation(image)
    if (
        lazy.tile and lazy.tile[0][0] == "jpeg"
    ):  # libjpeg outputs what it has, of a progressive file too, at an end mark
        read, ends = lazy.load_read, [b"\xff\xd9"]
        lazy.load_read = lambda count: read(count) or (ends.pop() if ends else b"")
    reason = "it was given an end"
    try:
        image.load()
    except Exception as error:
        if not _ends_early(error):
            raise
        reason = str(error)
        lazy.tile = []  # as Pillow does after decoding everything
        lazy.load_end()
        image.load()
    notes.append(f"the file ends early ({reason}): the missing part is blank")
    return before or _orientation(image)


def _decode_buffer(source: object, opening: Opening) -> _Decoded:
    try:
        view = memoryview(cast(Any, source))
    except TypeError:
        raise InvalidRequest(
            "image: expected a path, bytes, a binary file object, a PIL image or an HxWx3 uint8 buffer, "
            f"got {type(source).__name__}"
        ) from None
    if view.ndim == 1 and view.format in ("B", "b", "c"):
        return _decode_file(BytesIO(view), "the given bytes", opening)
    if view.ndim != 3 or view.shape is None or view.shape[2] != 3 or view.format not in ("B", "<B", "=B", "|B", "@B"):
        raise InvalidRequest(
            f"image: expected a buffer of shape (height, width, 3) and type uint8, got shape {view.shape} "
            f"and format {view.format!r}"
        )
    if opening.frame is not None:
        raise InvalidRequest(f"frame: an array has only one frame, got frame={opening.frame}")
    height, width = view.shape[0], view.shape[1]
    check_size((width, height), "the given array", opening, of_file=False)
    return view.tobytes(), (width, height), 1, []


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
        raise InvalidRequest(f"{name}: frame {frame} requested, the file has {count} (0..{count - 1})")
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
    except Exception:  # an unreadable EXIF block says nothing about the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image, key: object, name: str, notes: list[str]) -> Image.Image:
    mode = image.mode
    if mode == "F":
        raise ImageDecodeError(f"{name}: floating-point pixels have no defined range; convert the image to 8 bits")
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
        raise ImageDecodeError(f"{name}: grey values {low}..{high}; expected 0..65535 in an image of more than 8 bits")
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
        return "HEIC/HEIF needs a decoder that is not installed: pip install pi-heif"
    if start.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return "PostScript is not decoded here (it needs an external program); convert it to PNG first"
    if start.startswith(b"%PDF"):
        return "a PDF document, not an image; only the command read takes PDFs, so render its pages to PNG first"
    if start[:5].lower() in (b"<svg ", b"<?xml"):
        return "an SVG or XML text, not an image of pixels; render it to PNG first"
    return "not an image, or in a format that is not supported"
