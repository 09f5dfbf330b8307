"""The line on stderr that says how far a run has come: count, rate, time left."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable

_SECONDS = 0.1  # between two changes of the line
_WINDOW = 30.0  # seconds that the rate is about


def duration(seconds: float) -> str:
    """1:02:03, 2:03, 0:03."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


class Progress:
    """The line. Whoever writes to the same terminal calls clear() before, so results and messages stay whole.

    total: None if it is unknown. shown: False for a line that is never written.
    """

    def __init__(self, total: int | None, *, shown: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._on, self._clock = total, shown, clock
        self._done, self._worked = 0, 0
        self._times: list[tuple[float, int]] = [(clock(), 0)]  # (time, computed until then), of the window
        self._written, self._changed = False, float("-inf")

    def advance(self, *, worked: bool = True) -> None:
        """One more image. worked: False for one whose answer was known: it says nothing about the rate."""
        self._done += 1
        self._worked += worked
        if not self._on:
            return
        now = self._clock()
        if now - self._changed >= _SECONDS:
            self._times.append((now, self._worked))
            while len(self._times) > 2 and now - self._times[1][0] > _WINDOW:
                del self._times[0]
            self._show(now)

    def clear(self) -> None:
        """Removes the line."""
        if self._written:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
            self._written = False

    def text(self) -> str:
        """The line."""
        counted = str(self._done) if self._total is None else f"{self._done}/{self._total}"
        (start, before), (end, after) = self._times[0], self._times[-1]
        rate = (after - before) / (end - start) if end > start else 0.0
        parts = [f"{counted} images"]
        if rate:
            parts.append(f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each")
            if self._total is not None:
                parts.append(f"{duration((self._total - self._done) / rate)} left")
        return ", ".join(parts)

    def _show(self, now: float) -> None:
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write("\r\033[K" + self.text()[:width])
        sys.stderr.flush()
        self._written, self._changed = True, now
