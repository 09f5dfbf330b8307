"""How far a document has been read, in one line on a terminal."""

from __future__ import annotations

import shutil
import sys
import time

from kosmos_edge.results import Done, EntityEvent, Event

_SECONDS = 0.1  # between two changes of the line


class ReadingProgress:
    """The line on stderr: page, its lines and tokens so far, tokens of the finished pages."""

    def __init__(self, name: str, pages: int, most: int | None) -> None:
        """most: tokens of a page, where a limit was asked for."""
        self._name, self._pages, self._most = name, pages, most
        self._page, self._lines, self._tokens, self._before = 0, 0, 0, 0
        self._shown, self._changed = False, 0.0

    def event(self, event: Event) -> None:
        """Counts what the model has written."""
        if not isinstance(event, Done):
            self._tokens = event.tokens
        self._lines += isinstance(event, EntityEvent)
        if time.monotonic() - self._changed >= _SECONDS:
            self._show()

    def begin(self, page: int) -> None:
        """The page, 1 is the first of those that are read, begins."""
        self._page, self._lines, self._tokens = page, 0, 0

    def page_done(self, tokens: int) -> None:
        """A page was read with so many tokens."""
        self._before += tokens

    def clear(self) -> None:
        """Removes the line, so that a message can be written."""
        if self._shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
            self._shown = False

    def _show(self) -> None:
        page = f"page {self._page}/{self._pages}, " if self._pages > 1 else ""
        most = f" of at most {self._most}" if self._most else ""
        before = f"; {self._before} on the pages before" if self._before else ""
        text = f"{self._name}: {page}{self._lines} lines, {self._tokens} tokens{most}{before}"
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write("\r\033[K" + text[-width:])
        sys.stderr.flush()
        self._shown, self._changed = True, time.monotonic()
