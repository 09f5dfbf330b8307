"""Bounded reader of the zip container of `torch.save`: which bytes of the file hold which record.

Only what torch writes is read: STORED (uncompressed) entries, zip64 where needed, no encryption, no parts. The local
header of every entry must agree with the directory, and no two entries may share bytes. Layout: PKWARE APPNOTE 6.3,
4.3.
"""

import itertools
import struct
from collections.abc import Callable
from dataclasses import dataclass

from kosmos_edge.errors import ModelCorrupt

from .files import SourceFile

MAX_ENTRIES = 1 << 16
MAX_DIRECTORY_BYTES = 1 << 24
_END = struct.Struct("<4s4H2LH")  # end of central directory
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_Bad = Callable[[str], ModelCorrupt]  # makes the error for a message


@dataclass(frozen=True)
class Record:
    """An entry of the archive: `size` bytes of the file from `offset`."""

    name: str
    offset: int
    size: int


def read_zip(file: SourceFile) -> dict[str, Record]:
    """The records of an archive by name; a folder entry (empty, name ends in '/') is left out."""

    def bad(what: str) -> ModelCorrupt:
        return ModelCorrupt(f"{file.path}: zip archive: {what}")

    entries, directory_bytes, directory_at, end_at = _find_directory(file, bad)
    if entries > MAX_ENTRIES or directory_bytes > MAX_DIRECTORY_BYTES:
        raise bad(
            f"{entries} entries in {directory_bytes} bytes; expected at most {MAX_ENTRIES} in {MAX_DIRECTORY_BYTES}"
        )
    if directory_at + directory_bytes > end_at:
        raise bad(f"directory at {directory_at} + {directory_bytes} passes its end record at {end_at}")
    directory = bytes(file.read(directory_at, directory_bytes))
    records: dict[str, Record] = {}
    spans = []
    at = 0
    for _ in range(entries):
        record, header_at, at = _central_entry(file, directory, at, bad)
        if record.name in records:
            raise bad(f"two entries are named {record.name!r}")
        if record.offset + record.size > directory_at:
            raise bad(f"entry {record.name!r} reaches into the directory")
        spans.append((header_at, record.offset + record.size, record.name))
        records[record.name] = record
    if at != directory_bytes:
        raise bad(f"directory of {directory_bytes} bytes, but its {entries} entries take {at}")
    spans.sort()
    for (_, end, _), (start, _, name) in itertools.pairwise(spans):
        if start < end:
            raise bad(f"entry {name!r} overlaps another one")
    return {name: record for name, record in records.items() if not (name.endswith("/") and record.size == 0)}


def _find_directory(file: SourceFile, bad: _Bad) -> tuple[int, int, int, int]:
    """-> (entries, bytes, offset of the directory, offset of what follows it)"""
    tail_bytes = min(file.size, _END.size + 0xFFFF)
    tail_at = file.size - tail_bytes
    tail = bytes(file.read(tail_at, tail_bytes))
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or end + _END.size > len(tail):
        raise bad("no end record: the file is cut off or not a zip archive")
    _, disk, start_disk, here, entries, size, offset, comment = _END.unpack_from(tail, end)
    if end + _END.size + comment != len(tail):
        raise bad("bytes after the end record")
    end_at = tail_at + end
    if 0xFFFF in (here, entries) or 0xFFFFFFFF in (size, offset):
        if end_at < _LOCATOR64.size:
            raise bad("no room for the zip64 end record")
        magic, disk64, at64, disks = _LOCATOR64.unpack(bytes(file.read(end_at - _LOCATOR64.size, _LOCATOR64.size)))
        if magic != b"PK\x06\x07" or disk64 != 0 or disks > 1 or at64 + _END64.size > end_at:
            raise bad("the zip64 locator is malformed")
        magic, _, _, _, disk, start_disk, here, entries, size, offset = _END64.unpack(
            bytes(file.read(at64, _END64.size))
        )
        if magic != b"PK\x06\x06":
            raise bad("the zip64 end record is malformed")
        end_at = at64
    if disk or start_disk or here != entries:
        raise bad("an archive of several parts")
    return entries, size, offset, end_at


def _central_entry(file: SourceFile, directory: bytes, at: int, bad: _Bad) -> tuple[Record, int, int]:
    """-> (record, offset of its local header, offset of the next entry in the directory)"""
    if at + _CENTRAL.size > len(directory):
        raise bad("the directory is cut off")
    (
        magic,
        _,
        _,
        flags,
        method,
        _,
        _,
        _,
        packed,
        size,
        name_bytes,
        extra_bytes,
        comment_bytes,
        disk,
        _,
        _,
        header_at,
    ) = _CENTRAL.unpack_from(directory, at)
    names_at = at + _CENTRAL.size
    end = names_at + name_bytes + extra_bytes + comment_bytes
    if magic != b"PK\x01\x02" or end > len(directory):
        raise bad("a directory entry is malformed")
    raw_name = directory[names_at : names_at + name_bytes]
    try:
        name = raw_name.decode("utf-8")
    except UnicodeDecodeError:
        raise bad(f"entry name {raw_name[:80]!r} is not UTF-8") from None
    if flags & ~0x0808 or method != 0:  # bit 3: sizes follow the data, bit 11: UTF-8 names
        raise bad(
            f"entry {name!r} is compressed or encrypted (method {method}, flags {flags:#x}); torch writes plain entries"
        )
    extra = directory[names_at + name_bytes : names_at + name_bytes + extra_bytes]
    size, packed, header_at = _zip64_values(extra, [size, packed, header_at], bad)
    if size != packed or disk:
        raise bad(f"entry {name!r}: stored size {packed} differs from its size {size}")
    if header_at + _LOCAL.size > file.size:
        raise bad(f"entry {name!r}: header at {header_at} lies outside of the file")
    local = _LOCAL.unpack(bytes(file.read(header_at, _LOCAL.size)))
    magic, _, _, local_method, _, _, _, _, _, local_name_bytes, local_extra_bytes = local
    data_at = header_at + _LOCAL.size + local_name_bytes + local_extra_bytes
    if magic != b"PK\x03\x04" or local_method != 0 or local_name_bytes != name_bytes or data_at + size > file.size:
        raise bad(f"entry {name!r}: its local header disagrees with the directory")
    if bytes(file.read(header_at + _LOCAL.size, name_bytes)) != raw_name:
        raise bad(f"entry {name!r} has another name in its local header")
    return Record(name, data_at, size), header_at, end


def _zip64_values(extra: bytes, values: list[int], bad: _Bad) -> list[int]:
    """Replaces the values that are 2^32 - 1 by those of the zip64 extra field (id 1), in order."""
    if 0xFFFFFFFF not in values:
        return values
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        body = extra[at + 4 : at + 4 + length]
        if kind == 1:
            wide = [number for (number,) in struct.iter_unpack("<Q", body[: len(body) // 8 * 8])]
            needed = values.count(0xFFFFFFFF)
            if len(wide) < needed:
                raise bad("a zip64 field is too short")
            return [wide.pop(0) if value == 0xFFFFFFFF else value for value in values]
        at += 4 + length
    raise bad("a zip64 field is missing")
