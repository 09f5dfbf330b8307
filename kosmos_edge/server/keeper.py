"""Keeps the model: loads it when a request needs it, unloads it when idle, loads it again when its file changes."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_edge.model import Model

logger = logging.getLogger("kosmos_edge.server")
WATCH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class About:
    """What is known of the model while it is not loaded."""

    id: str  # the name in requests and answers
    name: str
    path: Path
    info: dict[str, Any]
    metadata: dict[str, Any]
    device: str
    context_length: int
    bytes: int
    modified: float  # seconds since 1970


class Keeper:
    """The model of a server. All methods are for the thread of the event loop."""

    def __init__(
        self, load: Callable[[], Model], id: str, keep_alive: float | None, forget: Callable[[], None]
    ) -> None:
        """load: loads the model; called in another thread, but for the first time here. forget: called when the model
        that it gave is not used any more."""
        self._load, self._id, self._forget = load, id, forget
        self.keep_alive = keep_alive
        self._uses = 0
        self._timer: asyncio.TimerHandle | None = None
        self._lock = asyncio.Lock()  # one load at a time
        self._model: Model | None = load()
        self.about = self._describe(self._model)
        self.loads, self.failures = 1, 0
        self._seen = self._stamp()

    def _describe(self, model: Model) -> About:
        stat = os.stat(model.path)
        return About(
            self._id,
            model.name,
            model.path,
            model.model_info,
            model.metadata,
            model.device,
            model.context_length,
            stat.st_size,
            stat.st_mtime,
        )

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._model is not None

    def answers_to(self, name: str) -> bool:
        """Whether a request may call the model so: its id, its own name, its file's, each with :latest, too."""
        plain = name.removesuffix(":latest")
        return plain.casefold() in {
            text.casefold() for text in (self.about.id, self.about.name, self.about.path.name, self.about.path.stem)
        }

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Model]:
        """The model, loaded if it is not; it stays while it is used. Raises what loading raises."""
        self._uses += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            yield self._model or await self._loaded()
        finally:
            self._uses -= 1
            self.settle()

    def settle(self) -> None:
        """Unloads the model once keep_alive has passed, if it is not in use."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._uses == 0 and self._model is not None and self.keep_alive is not None:
            self._timer = asyncio.get_running_loop().call_later(self.keep_alive, self.unload)

    def unload(self) -> None:
        """Frees the model's memory, unless it is in use."""
        if self._uses == 0 and self._model is not None:
            self._model.close()
            self._model = None
            self._forget()
            logger.info("unloaded %s", self.about.id)

    async def _loaded(self) -> Model:
        async with self._lock:
            if self._model is None:
                self._model = await asyncio.to_thread(self._load)
                self.about = self._describe(self._model)
                self._seen = self._stamp()
                self.loads += 1
        return self._model

    async def reload(self) -> None:
        """Loads the model's file again. Requests that have begun end with the model that they began with; if loading
        fails, the old model stays, and the error is raised."""
        async with self._lock:
            self._seen = self._stamp()
            try:
                model = await asyncio.to_thread(self._load)
            except Exception:
                self.failures += 1
                raise
            self._model = model  # the old one ends with the last request that has it
            self.about = self._describe(model)
            self.loads += 1
        self._forget()
        self.settle()
        logger.info("loaded %s from %s again", self.about.id, self.about.path)

    async def reload_quietly(self) -> None:
        """reload(), where nobody waits for its error."""
        try:
            await self.reload()
        except Exception as error:
            logger.error("the old model stays: %s", error)

    async def watch(self) -> None:
        """Reloads when the file has changed, and has stayed as it is since the last look; never returns."""
        last = self._seen
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            now = self._stamp()
            if now is not None and now == last and now != self._seen:
                await self.reload_quietly()
            last = now

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            stat = os.stat(self.about.path)
        except OSError:
            return None
        return stat.st_ino, stat.st_size, stat.st_mtime_ns
