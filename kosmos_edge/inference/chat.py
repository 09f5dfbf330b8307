"""A conversation about images: each question stands behind the questions and answers before it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Unpack, overload

from kosmos_edge.images import ImageInput
from kosmos_edge.inference.async_calls import AsyncAnswer, Lane
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.options import GenerationOptions
from kosmos_edge.results import Done, Event, Result


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer."""

    question: str
    answer: str
    image: EncodedImage | None = None  # that the question brought


class Talker(Protocol):
    """What a chat needs from a Model."""

    @property
    def awaiting(self) -> Lane:
        """Where aask runs."""
        ...

    def encode(self, image: ImageInput, *, cancel: Any = None) -> EncodedImage:
        """Decodes and encodes one image."""
        ...

    def answer_turn(
        self,
        turns: Sequence[tuple[EncodedImage | None, str, str]],
        image: EncodedImage | None,
        question: str,
        ground: bool,
        choices: Sequence[str] | None,
        stream: bool,
        options: GenerationOptions,
    ) -> Result | Generator[Event, None, None]:
        """The answer to a question behind turns of (image, question, answer)."""
        ...


class Chat:
    """A conversation with a model. Its images are encoded once, and what earlier questions have computed is reused.

    The prompt is the transcript in the model's own form: the template or the model's question prompt for every turn,
    its image place only where a turn brings an image. Not for use by several threads at once.
    """

    def __init__(
        self, model: Talker, image: ImageInput | EncodedImage | None = None, *, template: str | None = None
    ) -> None:
        """image: what the first question is about. template: the prompt of every question, with {question} in it."""
        self._model, self._template = model, template
        self._next = None if image is None else self._encoded(image)
        self._turns: list[Turn] = []

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What was said so far."""
        return tuple(self._turns)

    @overload
    def ask(
        self,
        question: str,
        *,
        image: ImageInput | EncodedImage | None = None,
        ground: bool = False,
        choices: Sequence[str] | None = None,
        stream: Literal[False] = False,
        **options: Unpack[GenerationOptions],
    ) -> Result: ...
    @overload
    def ask(
        self,
        question: str,
        *,
        image: ImageInput | EncodedImage | None = None,
        ground: bool = False,
        choices: Sequence[str] | None = None,
        stream: Literal[True],
        **options: Unpack[GenerationOptions],
    ) -> Generator[Event, None, None]: ...
    def ask(
        self,
        question: str,
        *,
        image: ImageInput | EncodedImage | None = None,
        ground: bool = False,
        choices: Sequence[str] | None = None,
        stream: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> Result | Generator[Event, None, None]:
        """Answers the next question, and keeps both as a turn; a call that fails or is cancelled leaves none.

        image: a further image, which this question is about. With stream=True the turn is kept with the Done event.
        Result.timings.reused_tokens: positions of the transcript that were not computed again. ContextTooLong: the
        transcript does not fit any more; undo(), or begin a new chat.
        """
        shown = self._next if image is None else self._encoded(image, options.get("cancel"))
        turns = [(turn.image, turn.question, turn.answer) for turn in self._turns]
        if self._template is not None:
            options.setdefault("template", self._template)

        def keep(result: Result) -> None:
            self._turns.append(Turn(question, result.text, shown))
            self._next = None

        answer = self._model.answer_turn(turns, shown, question, ground, choices, stream, options)
        if isinstance(answer, Result):
            keep(answer)
            return answer
        return _watch(answer, keep)

    def aask(
        self,
        question: str,
        *,
        image: ImageInput | EncodedImage | None = None,
        ground: bool = False,
        choices: Sequence[str] | None = None,
        **options: Unpack[GenerationOptions],
    ) -> AsyncAnswer:
        """ask() for asyncio: `await` it, or iterate over its events with `async for`; see AsyncAnswer."""
        arguments = {"question": question, "image": image, "ground": ground, "choices": choices, **options}
        return AsyncAnswer(self._model, self.ask, arguments)

    def _encoded(self, image: ImageInput | EncodedImage, cancel: Any = None) -> EncodedImage:
        return image if isinstance(image, EncodedImage) else self._model.encode(image, cancel=cancel)

    def undo(self) -> Turn:
        """Forgets the last turn, and returns it; its image goes with the next question. IndexError: there is none."""
        turn = self._turns.pop()
        self._next = turn.image
        return turn


def _watch(events: Generator[Event, None, None], keep: Callable[[Result], None]) -> Generator[Event, None, None]:
    with closing(events):
        for event in events:
            if isinstance(event, Done):
                keep(event.result)
            yield event


__all__ = ["Chat", "Turn"]
