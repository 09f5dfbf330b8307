"""Wire protocol between host and worker process: JSON text and raw byte strings, each preceded by its length.

One table lists the classes that a message may name. Reading a message builds only those, so a broken worker can send
nonsense, which is a ValueError here, but never code.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import struct
from typing import Any

from kosmos_edge import errors
from kosmos_edge.images import Picture
from kosmos_edge.inference.prompts import BoxSegment, PictureSegment, RowsSegment
from kosmos_edge.inference.tasks import Plan, ScorePlan
from kosmos_edge.options import Options
from kosmos_edge.results import (
    Box,
    Done,
    Entity,
    EntityEvent,
    Line,
    Ranking,
    Result,
    Score,
    TextDelta,
    Timings,
    TokenLogprob,
)

HEAD = struct.Struct("<II")  # bytes of JSON, number of byte strings; then the length of each as LENGTH, then all
LENGTH = struct.Struct("<Q")
MAX_TEXT = 1 << 28
MAX_BLOBS = 1 << 16
MAX_BLOB = 1 << 32

CLASSES: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (
        BoxSegment,
        Box,
        Done,
        Entity,
        EntityEvent,
        Line,
        Options,
        Picture,
        PictureSegment,
        Plan,
        Ranking,
        Result,
        RowsSegment,
        Score,
        ScorePlan,
        TextDelta,
        Timings,
        TokenLogprob,
    )
}
ERRORS: dict[str, type[errors.KosmosError]] = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.KosmosError)
}


def encode(message: Any) -> list[bytes | memoryview]:
    """The message as parts, to be sent in order."""
    blobs: list[memoryview] = []
    text = json.dumps(_pack(message, blobs), separators=(",", ":")).encode()
    head = HEAD.pack(len(text), len(blobs)) + b"".join(LENGTH.pack(blob.nbytes) for blob in blobs)
    return [head + text, *blobs]


def read(connection: socket.socket, most: int = MAX_BLOB) -> Any:
    """The next message; None after the last, however the connection ended. most: the limit of a byte string, in bytes.

    Raises ValueError for a malformed message.
    """
    try:
        text_bytes, count = HEAD.unpack(_receive(connection, HEAD.size))
        if text_bytes > MAX_TEXT or count > MAX_BLOBS:
            raise ValueError("malformed message: its lengths are out of range")
        sizes = [size for (size,) in LENGTH.iter_unpack(_receive(connection, LENGTH.size * count))]
        if any(size > most for size in sizes):
            raise ValueError("malformed message: its lengths are out of range")
        text = _receive(connection, text_bytes)
        blobs = [_receive(connection, size) for size in sizes]
    except OSError:
        return None
    try:
        return _unpack(json.loads(text), blobs)
    except (KeyError, IndexError, TypeError, RecursionError) as error:
        raise ValueError(f"malformed message: {error!r}") from error


def _receive(connection: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        got = connection.recv_into(view)
        if got == 0:
            raise ConnectionResetError("the connection ended")
        view = view[got:]
    return data


def _pack(value: Any, blobs: list[memoryview]) -> Any:
    """JSON types unchanged, a dictionary with one key for everything else."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_pack(item, blobs) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_pack(item, blobs) for item in value]}
    if isinstance(value, bytes | bytearray | memoryview):
        blobs.append(memoryview(value).cast("B"))
        return {"bytes": len(blobs) - 1}
    if isinstance(value, dict):
        return {"dict": [[key, _pack(item, blobs)] for key, item in value.items()]}
    if isinstance(value, BaseException):
        return _pack_error(value, blobs)
    name = type(value).__name__
    if CLASSES.get(name) is not type(value):
        raise TypeError(f"{type(value)} cannot be sent")
    fields = [_pack(getattr(value, f.name), blobs) for f in dataclasses.fields(value) if f.init]
    return {"class": name, "fields": fields}


def _pack_error(error: BaseException, blobs: list[memoryview]) -> Any:
    if not isinstance(error, errors.KosmosError):  # not one of ours: its class goes into the text
        kind = errors.OutOfMemory if isinstance(error, MemoryError) else errors.KosmosError
        error = kind(f"in the worker process: {type(error).__name__}: {error}")
    arguments = [item if isinstance(item, int | str) else str(item) for item in error.args]
    if isinstance(error, OSError) and error.filename is not None:
        arguments.append(str(error.filename))
    return {"error": type(error).__name__, "arguments": _pack(arguments, blobs)}


def _unpack(value: Any, blobs: list[bytearray]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, blobs) for item in value]
    if not isinstance(value, dict):
        return value
    if "class" in value:
        cls = CLASSES[value["class"]]
        return cls(*(_unpack(item, blobs) for item in value["fields"]))
    if "error" in value:
        return ERRORS[value["error"]](*_unpack(value["arguments"], blobs))
    if "tuple" in value:
        return tuple(_unpack(item, blobs) for item in value["tuple"])
    if "bytes" in value:
        return blobs[value["bytes"]]
    return {key: _unpack(item, blobs) for key, item in value["dict"]}
