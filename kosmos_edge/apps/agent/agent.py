"""Agent: a language model that answers questions about pictures, with our models as its eyes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from kosmos_edge.apps.agent.conversation import Run, Settings
from kosmos_edge.apps.agent.dialects import Dialect, FunctionCalling, TextProtocol
from kosmos_edge.apps.agent.gallery import Gallery
from kosmos_edge.apps.agent.limits import Limits, Spent
from kosmos_edge.apps.agent.toolbox import Toolbox
from kosmos_edge.apps.agent.transcript import Transcript
from kosmos_edge.apps.endpoint import KEY_VARIABLE, Endpoint, clean
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import ImageInput, Opening
from kosmos_edge.model import Model
from kosmos_edge.options import check_bool, check_cancel
from kosmos_edge.tools import verb_tools


class Agent:
    """A language model behind any OpenAI-compatible endpoint, which looks at pictures with the verbs of a model.

    It plans with tools: the verbs of `model` (caption, ask, ground, locate, describe_region, read), crop, draw_boxes
    and measure. Pictures have handles (image_1, crop_2); it can name nothing else, and sees no pixels. docs/agent.md
    has the threat model. Runs are independent of each other; any number of threads may ask at once.
    """

    def __init__(
        self,
        model: Model,
        url: str,
        llm: str,
        *,
        reader: Model | None = None,
        limits: Limits | None = None,
        text_protocol: bool = False,
        caption_first: bool = False,
        temperature: float | None = 0.0,
        max_tokens: int | None = None,
        key_variable: str = KEY_VARIABLE,
    ) -> None:
        """url: the endpoint up to /v1. llm: the name of its model. reader: a model for read, and for the verbs that
        `model` lacks. text_protocol: for models without function calling. caption_first: with a caption of each picture
        in the first message. temperature: None sends none. max_tokens: of one reply. key_variable: the variable of the
        environment with the key.

        Raises InvalidRequest; the endpoint is not contacted.
        """
        if not verb_tools(model.model_info["tasks"]):
            raise InvalidRequest(f"{model.name} has none of the tasks that the tools are made of")
        number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
        if temperature is not None and not (number and math.isfinite(temperature) and temperature >= 0):
            raise InvalidRequest(f"temperature: expected None or a number of at least 0, got {temperature!r}")
        whole = isinstance(max_tokens, int) and not isinstance(max_tokens, bool)
        if max_tokens is not None and not (whole and max_tokens >= 1):
            raise InvalidRequest(f"max_tokens: expected None or an integer of at least 1, got {max_tokens!r}")
        self._model, self._reader = model, reader
        self._limits = Limits() if limits is None else limits
        self._text_protocol = check_bool("text_protocol", text_protocol)
        self._settings = Settings(temperature, max_tokens, check_bool("caption_first", caption_first))
        self._endpoint = url, llm, key_variable
        self.endpoint = self._connect()

    def _connect(self) -> Endpoint:
        url, llm, key_variable = self._endpoint
        return Endpoint(url, llm, key_variable=key_variable)

    def start(
        self,
        question: str,
        images: Sequence[ImageInput],
        *,
        opening: Opening | None = None,
        watch: Callable[[str], None] | None = None,
        cancel: Any = None,
    ) -> Run:
        """Opens the pictures and prepares a run; nothing is sent before Run.finish().

        images: image_1, image_2, ... in this order. opening: how they are opened. watch: gets a line about each reply
        and each call. cancel: a threading.Event or a CancelToken. Errors: InvalidRequest, those of open_image.
        """
        if not isinstance(question, str) or not question.strip():
            raise InvalidRequest(f"question: expected a text, got {question!r}")
        if clean(question) != question:
            raise InvalidRequest("question: not valid Unicode text")
        if isinstance(images, str | bytes) or not images:
            raise InvalidRequest("images: expected a list of at least one image")
        if len(images) > self._limits.max_pictures:
            raise InvalidRequest(f"images: expected at most {self._limits.max_pictures}, got {len(images)}")
        check_cancel(cancel)
        gallery = Gallery(self._limits.max_pictures)
        for image in images:
            gallery.add((opening or Opening()).open(image))
        toolbox = Toolbox(self._model, self._reader, gallery)
        if self._settings.caption_first and "caption" not in toolbox.tools:
            raise InvalidRequest(f"caption_first: {self._model.name} has no captions")
        endpoint = self._connect()
        transcript = Transcript(
            question=question.strip(),
            url=endpoint.url,
            llm=endpoint.model,
            models=[model.name for model in (self._model, self._reader) if model is not None],
            limits=self._limits,
            gallery=gallery,
            spent=Spent(self._limits),
        )
        dialect: Dialect = TextProtocol() if self._text_protocol else FunctionCalling()
        return Run(transcript, toolbox, endpoint, dialect, self._settings, watch, cancel)

    def ask(self, question: str, images: Sequence[ImageInput], **options: Any) -> Transcript:
        """Answers a question about pictures: Transcript.answer. options: those of start.

        A limit that is reached is no error: finish_reason says which. Raises EndpointError, Cancelled,
        KeyboardInterrupt and what start raises; whoever wants the transcript then calls start and Run.finish.
        """
        return self.start(question, images, **options).finish()


__all__ = ["Agent"]
