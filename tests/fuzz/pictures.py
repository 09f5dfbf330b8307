"""Hostile pictures: mutants of small files of every format, bombs, and the matrix of modes that must equal Pillow."""

import io
import random
import struct
import zlib

from mutation import Chance
from PIL import Image, PngImagePlugin

FORMATS = (
    "PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "ICO", "PPM", "QOI", "JPEG2000", "AVIF", "TGA", "DDS", "PCX", "SGI",
    "ICNS",
)  # fmt: skip


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A picture of half noise, half flat, in that mode."""
    source = random.Random(seed)
    rows = [
        bytes([y * 8 & 255, 40, 200]) * (width // 2) + source.randbytes(3 * (width - width // 2)) for y in range(height)
    ]
    return Image.frombytes("RGB", (width, height), b"".join(rows)).convert(mode)


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    """The picture as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _seeds() -> list[bytes]:
    """Small valid files: every format, and the variants whose decoders take other ways."""
    still = noise(19, 13)
    files = []
    for file_format in FORMATS:
        size = (32, 32) if file_format in ("ICNS", "ICO") else (19, 13)
        files.append(encoded(noise(*size), file_format))
    exif = Image.Exif()
    exif[0x0112] = 6
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * 50, zip=True)
    text.add_itxt("Title", "é" * 20, "de", "Titel", zip=True)
    frames = [noise(9, 9, seed=i).convert("P") for i in range(3)]
    files += [
        encoded(still.convert("P"), "PNG", bits=4), encoded(still.convert("1"), "PNG"),
        encoded(still.convert("RGBA"), "PNG", pnginfo=text), encoded(still.convert("I;16"), "PNG"),
        encoded(still, "PNG", exif=exif), encoded(still.convert("P"), "PNG", transparency=3),
        encoded(still, "JPEG", progressive=True, quality=90, exif=exif, comment=b"x" * 30),
        encoded(still.convert("CMYK"), "JPEG"), encoded(still.convert("L"), "JPEG", restart_marker_blocks=1),
        encoded(still, "WEBP", lossless=True, exif=exif), encoded(still.convert("RGBA"), "WEBP"),
        encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], interlace=1),
        encoded(frames[0].convert("RGBA"), "PNG", save_all=True, append_images=frames[1:]),
        encoded(frames[0].convert("RGB"), "WEBP", save_all=True, append_images=frames[1:]),
        encoded(still, "TIFF", compression="tiff_lzw"), encoded(still, "TIFF", compression="tiff_adobe_deflate"),
        encoded(still, "TIFF", compression="jpeg"), encoded(still.convert("1"), "TIFF", compression="group4"),
        encoded(still.convert("P"), "BMP"), encoded(still.convert("1"), "BMP"),
        encoded(still, "TGA", compression="tga_rle"),
    ]  # fmt: skip
    return files


PICTURES = _seeds()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """(kind, content) of every chunk of a valid PNG file."""
    out, at = [], 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        out.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return out


def _mutated_png(chance: Chance, data: bytes) -> bytes:
    """Chunks changed, dropped, repeated, moved, with right checksums: what damage of bytes never gets past."""
    chunks = png_chunks(data)
    for _ in range(chance.randrange(1, 4)):
        i = chance.randrange(len(chunks))
        kind, content = chunks[i]
        action = chance.randrange(6)
        if action == 0:
            chunks.insert(chance.randrange(len(chunks) + 1), (kind, content))
        elif action == 1 and len(chunks) > 1:
            del chunks[i]
        elif action == 2 and kind == b"IDAT":
            try:
                raw = zlib.decompress(content)
            except zlib.error:
                raw = content
            chunks[i] = kind, zlib.compress(chance.damage(raw))
        elif action == 3 and kind == b"IHDR" and len(content) == 13:
            fields = list(struct.unpack(">2I5B", content))
            field = chance.randrange(7)
            fields[field] = chance.nasty(fields[field]) % (2**32 if field < 2 else 256)
            chunks[i] = kind, struct.pack(">2I5B", *fields)
        elif action == 4:
            chunks[i] = (
                chance.choice(
                    (
                        b"PLTE",
                        b"tRNS",
                        b"iCCP",
                        b"eXIf",
                        b"acTL",
                        b"fcTL",
                        b"zTXt",
                        b"gAMA",
                    )
                ),
                content,
            )
        else:
            chunks[i] = kind, chance.damage(content) if content else b"\xff" * 4
    return data[:8] + b"".join(chunk(kind, content) for kind, content in chunks)


def make_picture_case(chance: Chance) -> bytes:
    """A mutant of one of the files."""
    data = chance.choice(PICTURES)
    if chance.one_in(200):
        return data
    if data.startswith(b"\x89PNG") and chance.randrange(4):
        return _mutated_png(chance, data)
    out = chance.damage(data[: chance.randrange(len(data))] if chance.one_in(10) else data)
    return chance.choice(PICTURES)[: chance.randrange(64)] + out if chance.one_in(30) else out


# ---- bombs: what promises more than a picture may have


def _png(width: int, height: int, idat: bytes = b"", depth: int = 8, colour: int = 2, before: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + before + chunk(b"IDAT", idat) + chunk(b"IEND", b"")


def _bmp(w: int, h: int) -> bytes:
    sizes = struct.pack("<IHHI", 154, 0, 0, 54)
    return b"BM" + sizes + struct.pack("<IIIHHIIiiII", 40, w % 2**31, h % 2**31, 1, 24, 0, 100, 1, 1, 0, 0) + bytes(100)


def _gif(side: int, frames: bytes) -> bytes:
    return b"GIF89a" + struct.pack("<HH3B", side, side, 0x80, 0, 0) + bytes(6) + frames + b";"


def _dds(side: int) -> bytes:
    head = b"DDS " + struct.pack("<7I", 124, 0x1007, side, side, side * 4, 0, 0) + bytes(44)
    return head + struct.pack("<8I", 32, 0x41, 0, 32, 255, 255, 255, 255) + bytes(220)


def _pcx(side: int) -> bytes:
    return bytes([10, 5, 1, 8]) + struct.pack("<4H", 0, 0, side - 1, side - 1) + bytes(53) + b"\3\0\1" + bytes(60)


def _tga(side: int) -> bytes:
    return bytes([0, 0, 10]) + bytes(9) + struct.pack("<HH", side, side) + bytes([24, 0]) + b"\xff\0\0\0" * 50


_LARGE = {
    "gif": lambda s: _gif(s, b"," + struct.pack("<4HB", 0, 0, s, s, 0) + b"\x02\x01\x44\x00"),
    "png": lambda s: _png(s, s, zlib.compress(bytes(1 << 20), 9)),
    "png16": lambda s: _png(s, s, zlib.compress(bytes(1 << 16), 9), depth=16, colour=6),
    "ppm": lambda s: b"P6 %d %d 255\n" % (s, s) + bytes(100),
    "sgi": lambda s: struct.pack(">HBBHHHH", 474, 1, 1, 3, s, s, 3) + bytes(600),
    "jpeg": lambda s: _jpeg(s),
    "webp": lambda s: _webp(s),
    "dds": _dds,
    "pcx": _pcx,
    "tga": _tga,
}


def bombs() -> dict[str, bytes]:
    """Two hundred files that must be refused, or give a picture of the size that they say, at little cost."""
    out: dict[str, bytes] = {}
    for w in (65536, 100_000, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1):  # beyond the limits, in four headers
        for h in (1, 20_000, 65536, (1 << 31) - 1):
            out[f"png {w}x{h}"] = _png(w, h, zlib.compress(bytes(1000)))
            out[f"bmp {w}x{h}"] = _bmp(w, h)
            out[f"tiff {w}x{h}"] = _tiff(w, h)
            out[f"qoi {w}x{h}"] = b"qoif" + struct.pack(">2I2B", w, h, 3, 0) + b"\xfd" * 100 + bytes(7) + b"\x01"
    for side in (9_500, 16_384, 30_000, 65_535):
        for name, make in _LARGE.items():
            out[f"{name} {side}"] = make(side)
    packed = zlib.compress(bytes(80 << 20), 9)  # 80 MiB in 80 kB
    good = zlib.compress(b"\0" + bytes(3))
    for kind, prefix in (
        (b"zTXt", b"a\0\0"),
        (b"iCCP", b"a\0\0"),
        (b"iTXt", b"a\0\1\0\0\0"),
    ):
        for copies in (1, 3, 9):
            out[f"png {kind.decode()} x{copies}"] = _png(1, 1, good, before=chunk(kind, prefix + packed) * copies)
    for count in (1_000, 20_000):  # text and empty chunks without end
        out[f"png {count} tEXt"] = _png(1, 1, good, before=chunk(b"tEXt", b"k\0" + b"x" * 90) * count)
        out[f"png {count} unknown"] = _png(1, 1, good, before=chunk(b"abCd", b"") * count)
    for claimed in (0, 1, 1 << 31, (1 << 32) - 1):  # lengths that lie
        for kind in (b"IDAT", b"PLTE", b"tEXt", b"eXIf"):
            out[f"png {kind.decode()} of {claimed}"] = _png(1, 1)[:33] + struct.pack(">I", claimed) + kind + bytes(64)
    out["png IDAT of 80 MiB for one pixel"] = _png(1, 1, packed)
    frame = b"," + struct.pack("<4HB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    for count in (
        10_000,
        60_000,
    ):  # frames: the first is decoded, the others are not even found
        out[f"gif {count} frames"] = _gif(1, frame * count)
        out[f"gif {count} comments"] = _gif(1, b"!\xfe\x01x\0" * count + frame)
        out[f"apng of {count} frames"] = _png(1, 1, good, before=chunk(b"acTL", struct.pack(">2I", count, 0)))
        out[f"tiff loop of {count} pages"] = _tiff(1, 1, next_page=8)
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + b"\xaa"  # progressive scans without end
    for count in (1_000, 20_000):
        out[f"jpeg {count} scans"] = _jpeg(64)[:-2] + scan * count + b"\xff\xd9"
        out[f"jpeg {count} comments"] = b"\xff\xd8" + b"\xff\xfe\x00\x04xx" * count + _jpeg(16)[2:]
    for i in range(200 - len(out)):  # sizes around the limit of pixels
        side = 9_459 + 97 * i
        out[f"png limit {i}"] = _png(side, side, b"")
    return out


def _tiff(width: int, height: int, next_page: int = 0) -> bytes:
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 200),
        (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 100),
    ]  # fmt: skip
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + struct.pack("<I", next_page)
    return data + bytes(400 - len(data))


def _jpeg(side: int) -> bytes:
    """A small JPEG file whose frame header says side x side."""
    data = bytearray(encoded(noise(16, 16), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">2H", min(side, 65535), min(side, 65535))
    return bytes(data)


def _webp(side: int) -> bytes:
    """A lossless WebP file whose header says side x side (at most 16384)."""
    data = bytearray(encoded(noise(16, 16), "WEBP", lossless=True))
    at = data.index(b"VP8L") + 9
    bits = int.from_bytes(data[at : at + 4], "little") & ~0xFFFFFFF
    side = min(side, 16384) - 1
    data[at : at + 4] = (bits | side | side << 14).to_bytes(4, "little")
    return bytes(data)
