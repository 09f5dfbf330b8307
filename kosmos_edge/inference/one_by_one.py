"""The images of a batch whose answers take several requests each: one after another, in the caller's thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from kosmos_edge.images import Opening
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.results import Result


@dataclass(slots=True, eq=False)
class OwnJob:
    """One image."""

    source: Any  # as the caller gave it
    done: threading.Event = field(default_factory=threading.Event)
    result: Result | None = None


class OneByOne:
    """As BatchWorker, for a verb that is called as it is. An image is opened when its turn has come."""

    ahead = 1

    def __init__(self, verb: Callable[..., Result], arguments: Mapping[str, Any], opening: Opening) -> None:
        """verb: of a model; arguments: its own, but for the image."""
        self._verb, self._arguments, self._opening = verb, arguments, opening

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def submit(self, source: Any) -> OwnJob:
        """Adds an image."""
        return OwnJob(source)

    def wait(self, job: OwnJob) -> BaseException | None:
        """Computes the job's result; its error, if it has one."""
        try:
            source = job.source
            image = source if isinstance(source, EncodedImage) else self._opening.open(source)
            job.result = self._verb(image, **self._arguments)
        except BaseException as error:
            return error
        finally:
            job.done.set()
        return None
