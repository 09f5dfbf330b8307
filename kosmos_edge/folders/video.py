"""Pictures of a video at regular times, with PyAV: pip install 'kosmos-edge[video]'."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from kosmos_edge.errors import ImageDecodeError, InvalidRequest
from kosmos_edge.folders.journal import Journal, digest_bytes
from kosmos_edge.folders.running import Entry

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".3gp"})
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_SEEK_SECONDS = 5.0  # a gap from which on seeking is faster than decoding what lies between


def parse_interval(text: str) -> float:
    """ "2s", "500ms", "1.5", "2m" -> seconds; InvalidRequest."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|min|m|h|)\s*", text)
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0.001 <= seconds < math.inf:
        raise InvalidRequest(f"every: expected a time of at least 1 ms, such as 2s or 500ms, got {text!r}")
    return seconds


def video_entries(path: str, every: float, about: Any = None) -> Iterator[Entry]:
    """The pictures that are shown at 0, every, 2 * every, ... seconds; names are PATH#t=SECONDS.

    A picture is decoded when it is asked for, so one whose answer is known costs nothing. Raises ImageDecodeError for a
    file that is no video, InvalidRequest without PyAV.
    """
    video = Video(path)
    try:
        for number in range(max(1, math.ceil(video.seconds / every - 1e-6))):
            time = number * every
            load, digest = partial(video.picture_at, time), partial(_digest, path, time)
            yield Entry(f"{path}#t={time:.3f}", None, load, digest, about, partial(_picture, path, time))
    finally:
        video.close()


def _picture(path: str, time: float) -> Any:
    video = Video(path)
    try:
        return video.picture_at(time)
    finally:
        video.close()


def _digest(path: str, time: float, journal: Journal) -> bytes:
    """Of the file and the time: what is there need not be decoded."""
    return digest_bytes(journal.file_digest(path) + f"t={time:.6f}".encode())


class Video:
    """An open video; pictures are asked for in the order of their times."""

    def __init__(self, path: str) -> None:
        try:
            import av
        except ImportError:
            raise InvalidRequest("videos need PyAV: pip install 'kosmos-edge[video]'") from None
        self._path, self._av = path, av
        try:
            self._file = av.open(os.fspath(path))
        except (av.error.FFmpegError, OSError) as error:
            raise ImageDecodeError(f"{path}: {error.strerror or error}") from error
        try:
            if not self._file.streams.video:
                raise ImageDecodeError(f"{path}: has no video stream")
            self._stream = self._file.streams.video[0]
            self._stream.thread_type = "AUTO"
            self._start = float((self._stream.start_time or 0) * self._stream.time_base)
            self.seconds = self._duration()
            self._frames = self._file.decode(self._stream)
            self._shown: Any = None
            self._next: Any = None
            self._ended = False
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _duration(self) -> float:
        if self._stream.duration:
            return float(self._stream.duration * self._stream.time_base)
        if self._file.duration:
            return float(self._file.duration / self._av.time_base)
        last = 0.0
        for packet in self._file.demux(self._stream):
            if packet.pts is not None:
                last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base) - self._start)
        self._file.seek(0)
        return last

    def picture_at(self, time: float) -> Any:
        """The picture that is shown at this time, upright, as a PIL image. ImageDecodeError."""
        try:
            self._go_to(time)
        except (self._av.error.FFmpegError, OSError) as error:
            raise ImageDecodeError(f"{self._path}#t={time:.3f}: damaged ({error.strerror or error})") from error
        if self._shown is None:
            raise ImageDecodeError(f"{self._path}#t={time:.3f}: no picture could be decoded")
        image = self._shown.to_image()
        turn = int(getattr(self._shown, "rotation", 0) or 0)  # counterclockwise, as the file says
        return image.rotate(turn, expand=True) if turn else image

    def _go_to(self, time: float) -> None:
        at = -math.inf if self._shown is None else self._time(self._shown)
        if (time - at > _SEEK_SECONDS and time > _SEEK_SECONDS) or time < at:
            self._shown = None if time < at else self._shown
            self._file.seek(round((time + self._start) / float(self._stream.time_base)), stream=self._stream)
            self._frames, self._next, self._ended = self._file.decode(self._stream), None, False
        while not self._ended:
            if self._next is None:
                self._next = next(self._frames, None)
                if self._next is None:
                    self._ended = True
                    return
            if self._shown is not None and self._time(self._next) > time + 1e-6:
                return
            self._shown, self._next = self._next, None

    def _time(self, frame: Any) -> float:
        return (float(frame.time) if frame.time is not None else 0.0) - self._start
