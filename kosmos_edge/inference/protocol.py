"""The interface of a loaded model, in this process or a worker."""

from __future__ import annotations

from typing import Any, Protocol

from kosmos_edge._native import _core
from kosmos_edge.images import ImageInput, Opening
from kosmos_edge.inference import tasks
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.inference.requests import Request
from kosmos_edge.options import Options
from kosmos_edge.results import OnEvent, Ranking, Result


class Session(Protocol):
    """A loaded model in this process (local.LocalSession) or in a worker (isolation's RemoteSession)."""

    @property
    def engine(self) -> _core.Engine:
        """Properties of the model and its device."""
        ...

    def encode(self, image: ImageInput | EncodedImage, token: _core.CancelToken) -> EncodedImage:
        """Decodes and encodes one image, to be used more than once."""
        ...

    def embed_texts(self, texts: tuple[str, ...], truncate: bool, token: _core.CancelToken) -> tuple[bytes, int]:
        """The vectors of texts as float32, and how many texts were cut; of a model that compares."""
        ...

    def run(self, name: str, plan: tasks.Plan, options: Options, token: _core.CancelToken) -> Result:
        """The whole answer."""
        ...

    def stream(self, name: str, plan: tasks.Plan, options: Options, token: _core.CancelToken, emit: OnEvent) -> None:
        """The answer as events, the last of which is Done."""
        ...

    def score(self, name: str, image: Any, plan: tasks.ScorePlan, token: _core.CancelToken) -> Ranking:
        """Texts by falling likelihood."""
        ...

    def fit(self, options: Options) -> Options:
        """The options with room for the longest choice; InvalidRequest if no answer could be exactly a choice."""
        ...

    def batch_worker(self, request: Request, size: int, opening: Opening) -> Any:
        """The threads that answer the request about many images: a BatchWorker, or one in the worker process."""
        ...
