"""A loaded model in this process, batches included."""

from __future__ import annotations

from kosmos_edge.images import Opening
from kosmos_edge.inference.batch_worker import BatchWorker
from kosmos_edge.inference.requests import Request
from kosmos_edge.inference.session import EngineSession


class LocalSession(EngineSession):
    """A Session in this process."""

    def batch_worker(self, request: Request, size: int, opening: Opening) -> BatchWorker:
        """The threads that answer the request about many images."""
        return BatchWorker(self, request, size, opening)
