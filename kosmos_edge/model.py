"""Model: the verbs. A verb makes a plan (inference/tasks.py), inference/session.py runs it and returns a Result."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, Unpack, overload

from kosmos_edge._native import _core
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import ImageInput, Opening, Picture
from kosmos_edge.inference import running, tasks
from kosmos_edge.inference.abilities import Abilities
from kosmos_edge.inference.async_calls import Lane
from kosmos_edge.inference.async_verbs import AsyncVerbs
from kosmos_edge.inference.batching import DEFAULT_BATCH, run_batch
from kosmos_edge.inference.calls import PLANS, bind_call, run_calls
from kosmos_edge.inference.chat import Chat
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.inference.engine_facts import EngineFacts
from kosmos_edge.inference.local import LocalSession
from kosmos_edge.inference.protocol import Session
from kosmos_edge.inference.requests import Call, GenerateRequest, Request, ScoreRequest
from kosmos_edge.options import (
    GenerationOptions,
    Limits,
    Normalize,
    Options,
    check_bool,
    check_cancel,
    check_options,
)
from kosmos_edge.results import Box, Corners, Event, Ranking, Result

AnyImage: TypeAlias = "ImageInput | EncodedImage"
EventStream: TypeAlias = Generator[Event, None, None]
BoxInput: TypeAlias = Box | Corners | Sequence[float]


class Model(EngineFacts, Abilities, AsyncVerbs):
    """A loaded model. Any number of threads may call it at once; calls are independent of each other.

    caption, locate, describe and ask accept template: the prompt of this call and its examples instead of the model's
    (model_info["prompts"]), with {phrase} for locate, {boxes} for describe, {question} for ask, each once; tag
    strings in it are tags.
    Every generating verb takes the options of GenerationOptions as keywords. With stream=True it returns an iterator
    of TextDelta, EntityEvent and finally Done instead of a Result; closing the iterator ends the computation.
    With an a before its name (acaption) a verb is for asyncio, see AsyncVerbs.
    An image is a path, bytes, a binary file object, a PIL image, an HxWx3 uint8 buffer (a numpy array), a Picture
    from open_image, or an EncodedImage from encode; threads may share any of them. A file object that can seek is read
    from its start. Ctrl-C raises KeyboardInterrupt within about 0.2 s.
    Raises InvalidRequest, ImageDecodeError, ContextTooLong, OutOfMemory, Cancelled, KosmosIOError; Forked in a forked
    child of the process that loaded the model, WorkerDied with isolation="process".
    """

    def __init__(self, engine: _core.Engine | Session, path: str | os.PathLike[str] = "") -> None:
        self._session: Session | None = LocalSession(engine) if isinstance(engine, _core.Engine) else engine
        self._process = os.getpid()
        self._path = Path(path)
        self._lane = Lane()
        self._metadata: dict[str, Any] = dict(self._session.engine.metadata)
        self._info: dict[str, Any] = dict(self._session.engine.info)

    # ---- life

    def close(self) -> None:
        """Releases the model's memory once running calls have ended. Later calls raise InvalidRequest."""
        self._session = None
        self._lane.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._session is None else self._session.engine.description
        return f"<kosmos_edge.Model {self.name!r} from {str(self._path)!r}, {state}>"

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._session is None

    @property
    def _open(self) -> Session:
        running.check_process(self._process)
        if self._session is None:
            raise InvalidRequest("the model is closed")
        return self._session

    @property
    def awaiting(self) -> Lane:
        """The thread of acaption and its like."""
        _ = self._open
        return self._lane

    # ---- facts

    @property
    def name(self) -> str:
        """general.name of the file, else the file's name."""
        return str(self._info["name"] or self._path.stem)

    @property
    def path(self) -> Path:
        """The model file."""
        return self._path

    @property
    def metadata(self) -> dict[str, Any]:
        """The file's keys and values, without the vocabulary."""
        return dict(self._metadata)

    @property
    def model_info(self) -> dict[str, Any]:
        """Properties from the model file: architecture, name, notice, trained_tasks, context (positions), vocabulary,
        image_tokens, tasks, grounding (None if the model has no boxes), image (token ids around and of one), prompts,
        and the sizes of its parts (vision, decoder, ...)."""
        return dict(self._info)

    @property
    def notice(self) -> str | None:
        """What users should know about the model, e.g. how little it was trained on; None without a notice."""
        return str(self._info["notice"]) or None

    # ---- verbs

    @overload
    def caption(
        self,
        image: AnyImage,
        length: Literal["short", "long"] = "short",
        *,
        ground: bool = False,
        lead_in: bool = False,
        examples: Sequence[tuple[AnyImage, str]] = (),
        stream: Literal[False] = False,
        **options: Unpack[GenerationOptions],
    ) -> Result: ...
    @overload
    def caption(
        self,
        image: AnyImage,
        length: Literal["short", "long"] = "short",
        *,
        ground: bool = False,
        lead_in: bool = False,
        examples: Sequence[tuple[AnyImage, str]] = (),
        stream: Literal[True],
        **options: Unpack[GenerationOptions],
    ) -> EventStream: ...
    def caption(
        self,
        image: AnyImage,
        length: Literal["short", "long"] = "short",
        *,
        ground: bool = False,
        lead_in: bool = False,
        examples: Sequence[tuple[AnyImage, str]] = (),
        stream: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> Result | EventStream:
        """Captions the image in a sentence ("short") or a paragraph ("long").

        ground: with boxes. lead_in: begin the text with the prompt's words ("An image of"). examples: few-shot pairs of
        an image and its caption.
        """
        template = options.pop("template", None)
        plan = tasks.plan_caption(self._info, image, length, ground, lead_in, examples, template)
        return self._run(plan, stream, options)

    @overload
    def ground(
        self,
        image: AnyImage,
        prompt: str | None = None,
        *,
        lead_in: bool = False,
        stream: Literal[False] = False,
        **options: Unpack[GenerationOptions],
    ) -> Result: ...
    @overload
    def ground(
        self,
        image: AnyImage,
        prompt: str | None = None,
        *,
        lead_in: bool = False,
        stream: Literal[True],
        **options: Unpack[GenerationOptions],
    ) -> EventStream: ...
    def ground(
        self,
        image: AnyImage,
        prompt: str | None = None,
        *,
        lead_in: bool = False,
        stream: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> Result | EventStream:
        """Text with boxes for what it names. prompt: words to continue; None: those of the short caption."""
        return self._run(
            tasks.plan_ground(self._info, image, prompt, lead_in, options.pop("template", None)), stream, options
        )

    @overload
    def locate(
        self, image: AnyImage, phrase: str, *, stream: Literal[False] = False, **options: Unpack[GenerationOptions]
    ) -> Result: ...
    @overload
    def locate(
        self, image: AnyImage, phrase: str, *, stream: Literal[True], **options: Unpack[GenerationOptions]
    ) -> EventStream: ...
    def locate(
        self, image: AnyImage, phrase: str, *, stream: bool = False, **options: Unpack[GenerationOptions]
    ) -> Result | EventStream:
        """Finds the phrase: Result.boxes, which may be empty.

        The model tends to find whatever it is asked for; the scores help to judge (see Entity).
        """
        template = options.pop("template", None)
        return self._run(tasks.plan_locate(self._info, image, phrase, template), stream, options)

    @overload
    def describe(
        self,
        image: AnyImage,
        box: BoxInput,
        *,
        normalized: bool = False,
        ground: bool = True,
        lead_in: bool = False,
        examples: Sequence[tuple[AnyImage, BoxInput, str]] = (),
        stream: Literal[False] = False,
        **options: Unpack[GenerationOptions],
    ) -> Result: ...
    @overload
    def describe(
        self,
        image: AnyImage,
        box: BoxInput,
        *,
        normalized: bool = False,
        ground: bool = True,
        lead_in: bool = False,
        examples: Sequence[tuple[AnyImage, BoxInput, str]] = (),
        stream: Literal[True],
        **options: Unpack[GenerationOptions],
    ) -> EventStream: ...
    def describe(
        self,
        image: AnyImage,
        box: BoxInput,
        *,
        normalized: bool = False,
        ground: bool = True,
        lead_in: bool = False,
        examples: Sequence[tuple[AnyImage, BoxInput, str]] = (),
        stream: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> Result | EventStream:
        """Describes what is in the box (x1, y1, x2, y2).

        The numbers are pixels of the upright image, or with normalized=True fractions of it; a Box has its own unit.
        InvalidRequest for pixels that are all within 0..1 (fractions were meant) and for a box outside the image.
        Result.box is the box as the model sees it, snapped to its grid. ground: the answer may have boxes, as in
        training. examples: few-shot (image, box, text), boxes in the same unit.
        """
        plan = tasks.plan_describe(
            self._info, image, box, normalized, ground, lead_in, examples, options.pop("template", None)
        )
        return self._run(plan, stream, options)

    @overload
    def ask(
        self,
        image: AnyImage,
        question: str,
        *,
        ground: bool = False,
        choices: Sequence[str] | None = None,
        lead_in: bool = False,
        examples: Sequence[tuple[AnyImage, str, str]] = (),
        stream: Literal[False] = False,
        **options: Unpack[GenerationOptions],
    ) -> Result: ...
    @overload
    def ask(
        self,
        image: AnyImage,
        question: str,
        *,
        ground: bool = False,
        choices: Sequence[str] | None = None,
        lead_in: bool = False,
        examples: Sequence[tuple[AnyImage, str, str]] = (),
        stream: Literal[True],
        **options: Unpack[GenerationOptions],
    ) -> EventStream: ...
    def ask(
        self,
        image: AnyImage,
        question: str,
        *,
        ground: bool = False,
        choices: Sequence[str] | None = None,
        lead_in: bool = False,
        examples: Sequence[tuple[AnyImage, str, str]] = (),
        stream: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> Result | EventStream:
        """Answers a question. examples: few-shot (image, question, answer).

        choices: 1..1000 texts; the answer is exactly one of them, character for character (after the prompt's words
        with lead_in). InvalidRequest if the tokenizer cannot produce one exactly (it folds blanks and line breaks,
        rewrites characters such as a full-width "Ａ", and lacks others), or if a stop text or max_tokens would cut one
        off.
        """
        plan = tasks.plan_ask(
            self._info, image, question, ground, choices, lead_in, examples, options.pop("template", None)
        )
        return self._run(plan, stream, options)

    @overload
    def read(
        self,
        image: AnyImage,
        *,
        markdown: bool = False,
        stream: Literal[False] = False,
        **options: Unpack[GenerationOptions],
    ) -> Result: ...
    @overload
    def read(
        self, image: AnyImage, *, markdown: bool = False, stream: Literal[True], **options: Unpack[GenerationOptions]
    ) -> EventStream: ...
    def read(
        self, image: AnyImage, *, markdown: bool = False, stream: bool = False, **options: Unpack[GenerationOptions]
    ) -> Result | EventStream:
        """Reads the text of a page, receipt or sign: Result.lines, in reading order, with a box each.

        Result.text is the lines, joined by newlines; with markdown=True the page as Markdown, and lines is None.
        finish_reason "length": the page is longer than max_tokens. A stream has an EntityEvent behind a line's text.
        """
        return self._run(tasks.plan_read(self._info, image, markdown, options.pop("template", None)), stream, options)

    @overload
    def generate(
        self,
        segments: Sequence[Any],
        *,
        raw: bool = False,
        normalized: bool = False,
        lead_in: bool = False,
        choices: Sequence[str] | None = None,
        stream: Literal[False] = False,
        **options: Unpack[GenerationOptions],
    ) -> Result: ...
    @overload
    def generate(
        self,
        segments: Sequence[Any],
        *,
        raw: bool = False,
        normalized: bool = False,
        lead_in: bool = False,
        choices: Sequence[str] | None = None,
        stream: Literal[True],
        **options: Unpack[GenerationOptions],
    ) -> EventStream: ...
    def generate(
        self,
        segments: Sequence[Any],
        *,
        raw: bool = False,
        normalized: bool = False,
        lead_in: bool = False,
        choices: Sequence[str] | None = None,
        stream: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> Result | EventStream:
        """Continues any sequence of images, texts, boxes and rows.

        A string is text; pass an image's path as a pathlib.Path (a string that names an existing image file is
        InvalidRequest). A box, or a list of boxes, becomes <object>...</object>; a box is a Box or, as in describe,
        (x1, y1, x2, y2) in pixels of the upright image before it, or fractions of it (normalized=True). Rows are a
        matrix of floats (n, model_info["width"]) in the place of token embeddings, unscaled, as an image's rows are.
        raw: tag strings in the texts are tags; otherwise they are plain characters, and a note says so. The answer's
        boxes are in pixels of the last image. choices: as in ask.
        """
        plan = tasks.plan_generate(self._info, segments, raw, lead_in, normalized, choices)
        return self._run(plan, stream, options)

    def score(
        self,
        image: AnyImage | None,
        texts: Sequence[str],
        template: str | None = None,
        *,
        normalize: Normalize = "sum",
        cancel: Any = None,
    ) -> Ranking:
        """Ranks texts by their likelihood given the image (None: without an image).

        template: words around {text}; the words before it are given, the text and the words after it are scored. The
        image stands at {image} before {text}, or where there is none before all words. None: the model's caption
        prompt, of KOSMOS-2 "An image of {text}". normalize: "sum" of ln p; for texts of different lengths the "mean"
        per token, or the sum by the number of the text's "characters" (lm-evaluation-harness, acc_norm).
        """
        plan = tasks.plan_score(self._info, texts, template, normalize)
        return running.run(partial(self._open.score, self.name, image, plan), check_cancel(cancel))

    def score_segments(
        self,
        segments: Sequence[Any],
        texts: Sequence[str],
        *,
        raw: bool = False,
        normalized: bool = False,
        normalize: Normalize = "sum",
        cancel: Any = None,
    ) -> Ranking:
        """Ranks texts by their likelihood behind any sequence of images, texts, boxes and rows, as generate takes it.

        A blank that ends the last text belongs to the texts. Pass images from encode() where several calls begin alike
        (candidates behind the same pictures, items behind the same examples): what they share is computed once.
        """
        plan = tasks.plan_score_segments(self._info, segments, texts, raw, normalized, normalize)
        return running.run(partial(self._open.score, self.name, None, plan), check_cancel(cancel))

    def encode(self, image: ImageInput, *, cancel: Any = None) -> EncodedImage:
        """Encodes the image. Every verb accepts the result in place of the image and skips the encoder.

        From the second use on, a prompt that begins with it also skips the positions that it shares with the previous
        one; see EncodedImage.
        """
        return running.run(partial(self._open.encode, image), check_cancel(cancel))

    def batch(
        self,
        images: Iterable[AnyImage],
        task: Literal[
            "caption", "ground", "locate", "describe", "ask", "read", "score", "classify", "reason"
        ] = "caption",
        *,
        on_error: Literal["yield", "raise"] = "yield",
        batch_size: int = DEFAULT_BATCH,
        **arguments: Any,
    ) -> Iterator[Result | Ranking]:
        """One result per image, in order; arguments are those of the verb `task`.

        batch_size: 1..256 answers are computed in the same passes, which is faster and gives bit-identical answers
        (beams, rankings and reason are computed one by one). Each takes memory for its positions, 0.2 MB each in
        KOSMOS-2.
        Separate threads decode the images, and take up to about 2 * batch_size of them ahead of the results.
        A path that names a pipe or a device is a failed image; pass the opened file instead.
        Timings of results overlap: prefill, decode and total are wall time, shared by the answers of a batch.
        on_error "yield": an image that fails gives a Result with ok False and error set, and the batch continues.
        Wrong arguments are raised at once. Closing the iterator ends the computation.
        """
        return run_batch(self, images, task, on_error, batch_size, arguments)

    def batch_calls(
        self, calls: Iterable[tuple[str, Mapping[str, Any]]], *, batch_size: int = DEFAULT_BATCH
    ) -> Iterator[Result | Ranking]:
        """One result per call, in order: calls (verb, all its arguments by name) of any generating verbs, generate
        included, each with its own image or segments, question and options, in the same passes as far as in batch.

        A call whose images fail gives a Result with ok False and error set; wrong arguments are raised at their turn.
        With isolation="process" calls are computed one by one.
        """
        return run_calls(self, self._open, calls, batch_size)

    def chat(self, image: AnyImage | None = None, *, template: str | None = None) -> Chat:
        """A conversation: chat.ask(question), once for each turn; see Chat. image: what the first question is about."""
        return Chat(self, image, template=template)

    # ---- inside

    def answer_turn(
        self,
        turns: Sequence[tuple[EncodedImage | None, str, str]],
        image: EncodedImage | None,
        question: str,
        ground: bool,
        choices: Sequence[str] | None,
        stream: bool,
        options: GenerationOptions,
    ) -> Result | EventStream:
        """A question behind turns of (image, question, answer)."""
        template = options.pop("template", None)
        plan = tasks.plan_turn(self._info, turns, image, question, ground, choices, template)
        return self._run(plan, stream, options)

    def request(self, task: str, arguments: Mapping[str, Any]) -> Request:
        """The verb with its arguments (all of them, by name) and without its image.

        Raises what the verb would raise about these arguments for any image.
        """
        values = dict(arguments)
        if task == "score":
            cancel = check_cancel(values["cancel"])
            plan_score = tasks.plan_score(self._info, values["texts"], values["template"], values["normalize"])
            return ScoreRequest(self.name, plan_score, cancel)
        if task == "classify":
            return self.classify_request(values)
        options: GenerationOptions = values.pop("options").copy()
        template = options.pop("template", None)
        del values["stream"], values["image"]

        def plan(image: Any) -> tasks.Plan:
            return tasks.PLANS[task](self._info, image, **values, template=template)

        checked = self._open.fit(self._options(plan(None), options))
        return GenerateRequest(self.name, plan, checked)

    def plan_call(self, verb: str, arguments: Mapping[str, Any]) -> Call:
        """A call of a generating verb, checked."""
        values, options = bind_call(self, verb, arguments)
        if verb != "generate":
            values["template"] = options.pop("template", None)
        plan = PLANS[verb](self._info, **values)
        return Call(plan, self._open.fit(self._options(plan, options)))

    def batch_worker(self, request: Request, size: int, opening: Opening) -> Any:
        """The threads that answer the request about many images; here or in the worker process."""
        return self._open.batch_worker(request, size, opening)

    def settle(self, plan: tasks.Plan | None, options: Mapping[str, Any]) -> tuple[Session, Options | None]:
        """What a server needs to run a plan by itself: the session, and the checked options (None without a plan)."""
        session = self._open
        checked = None if plan is None else session.fit(self._options(plan, GenerationOptions(**options)))  # type: ignore[typeddict-item]
        return session, checked

    def _options(self, plan: tasks.Plan, options: GenerationOptions) -> Options:
        info = self._info
        numbers = info["context"], info["vocabulary"], info["max_new_tokens"], info["no_repeat_ngram_size"]
        facts = Limits(*numbers, info["grounding"] is not None, info["repetition_penalty"])
        checked = check_options(options, facts, grammar=plan.grammar, choices=plan.choices)
        plan.choices = checked.choices or None
        return checked

    def _run(self, plan: tasks.Plan, stream: bool, options: GenerationOptions) -> Result | EventStream:
        checked = self._options(plan, options)
        image = tasks.kept_image(plan)
        if check_bool("stream", stream):
            events = running.stream(partial(self._open.stream, self.name, plan, checked), checked.cancel)
            return events if image is None else running.with_image(events, image)
        result = running.run(partial(self._open.run, self.name, plan, checked), checked.cancel)
        result.image = image
        return result


__all__ = ["AnyImage", "BoxInput", "EncodedImage", "EventStream", "Model", "Picture"]
