"""The commands that answer about images: caption, ground, locate, describe, ask, score."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, get_args

import click

from kosmos_edge.cli.common import (
    Corners,
    Messages,
    Parts,
    batch_size_option,
    check_unit,
    generation_options,
    model_options,
    option,
    options,
    output_options,
    picture_options,
    settle_choices,
    take_generation,
    take_messages,
    take_model,
    take_opening,
)
from kosmos_edge.cli.progress import Progress
from kosmos_edge.cli.shots import BoxShot, answer_each, pool_options, shot_option, take_picking
from kosmos_edge.cli.streams import plain_error
from kosmos_edge.errors import InvalidRequest, KosmosError
from kosmos_edge.options import Normalize

if TYPE_CHECKING:
    from kosmos_edge.cli.inputs import Input
    from kosmos_edge.cli.output import Answer, Output
    from kosmos_edge.images import Opening
    from kosmos_edge.model import Model
    from kosmos_edge.targets import Target

pictures = click.argument("pictures", nargs=-1, required=True, metavar="IMAGE...")
picture = click.argument("picture", metavar="IMAGE")
shared = options(generation_options, picture_options, output_options, model_options)
clipboard_option = option("--clipboard", is_flag=True, help="Copy the text to the clipboard, too.")
stream_option = option("--stream", is_flag=True, help="Print the text as it is decoded; for one image and text.")
draw_option = options(
    option(
        "--draw",
        metavar="FILE",
        help="Write the image with its boxes: .png, .jpg, .svg, .html, ...; with several images, a folder.",
    ),
    option(
        "--draw-format",
        type=click.Choice(["png", "jpg", "svg", "html"]),
        default="png",
        show_default=True,
        help="Format of the drawings in a folder; html has the text, too.",
    ),
)
boxes_option = option(
    "--boxes/--no-boxes", default=None, help="Request boxes and print them. Default: if the model has boxes."
)


@click.command()
@pictures
@option("--length", type=click.Choice(["short", "long"]), default="short", show_default=True, help="Caption length.")
@boxes_option
@option("--lead-in", is_flag=True, help='Begin the text with the prompt\'s words ("An image of").')
@option(
    "--shot",
    multiple=True,
    type=Parts(2),
    elsewhere=Parts(3),
    metavar="IMAGE::TEXT",
    help="Few-shot example before the request. Can be repeated.",
)
@pool_options
@batch_size_option
@draw_option
@stream_option
@clipboard_option
@shared
def caption(
    pictures: tuple[str, ...],
    length: str,
    boxes: bool | None,
    lead_in: bool,
    shot: tuple[tuple[str, ...], ...],
    **rest: Any,
) -> int:
    """Caption each IMAGE, with boxes for what the caption names.

    IMAGE is a file, a folder, a glob in quotes, @list.txt with one path per line, or - for stdin.
    """
    arguments = {"length": length, "ground": boxes, "lead_in": lead_in}
    return answer_all("caption", pictures, arguments, rest, shots=list(shot))


@click.command()
@pictures
@option("-p", "--prompt", metavar="TEXT", help='Words to continue, such as "Describe this image in detail:".')
@option("--lead-in", is_flag=True, help="Begin the text with the prompt's words.")
@batch_size_option
@draw_option
@stream_option
@clipboard_option
@shared
def ground(pictures: tuple[str, ...], prompt: str | None, lead_in: bool, **rest: Any) -> int:
    """Continue a prompt about each IMAGE, with boxes for what the text names."""
    return answer_all("ground", pictures, {"prompt": prompt, "lead_in": lead_in}, rest)


@click.command()
@picture
@click.argument("phrase")
@draw_option
@clipboard_option
@shared
def locate(picture: str, phrase: str, **rest: Any) -> int:
    """Find the boxes of PHRASE, such as "a red hat". Prints nothing if the model gives none."""
    return answer_all("locate", [picture], {"phrase": phrase}, rest)


@click.command()
@picture
@option("--box", required=True, type=Corners(), metavar="X1,Y1,X2,Y2", help="Box in pixels of the upright image.")
@option("--normalized", is_flag=True, help="Give the box in fractions of the image, 0..1.")
@boxes_option
@option("--lead-in", is_flag=True, help="Begin the text with the prompt's words.")
@shot_option("describe", BoxShot(), "IMAGE::X1,Y1,X2,Y2::TEXT")
@pool_options
@draw_option
@stream_option
@clipboard_option
@shared
def describe(
    picture: str,
    box: tuple[float, float, float, float],
    normalized: bool,
    boxes: bool | None,
    lead_in: bool,
    shot: tuple[tuple[Any, ...], ...],
    **rest: Any,
) -> int:
    """Describe what is in the box of IMAGE."""
    check_unit(box, normalized)
    arguments = {"box": box, "normalized": normalized, "ground": boxes, "lead_in": lead_in}
    return answer_all("describe", [picture], arguments, rest, shots=list(shot))


@click.command()
@picture
@click.argument("question")
@option("--boxes/--no-boxes", default=False, show_default=True, help="Request boxes and print them.")
@option("--choice", multiple=True, metavar="TEXT", help="Allowed answer; use the option at least twice.")
@option("--lead-in", is_flag=True, help="Begin the text with the question.")
@option(
    "--shot",
    multiple=True,
    type=Parts(3),
    elsewhere=Parts(2),
    metavar="IMAGE::QUESTION::ANSWER",
    help="Few-shot example before the request. Can be repeated.",
)
@pool_options
@draw_option
@stream_option
@clipboard_option
@shared
def ask(
    picture: str,
    question: str,
    boxes: bool,
    choice: tuple[str, ...],
    lead_in: bool,
    shot: tuple[tuple[str, ...], ...],
    **rest: Any,
) -> int:
    """Answer QUESTION about IMAGE."""
    ground, choice = settle_choices(boxes, choice, ("boxes", "choice"))
    arguments = {"question": question, "ground": bool(ground), "choices": list(choice) or None, "lead_in": lead_in}
    return answer_all("ask", [picture], arguments, rest, shots=list(shot))


@click.command()
@picture
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@option("--template", metavar="TEXT", help="Words around {text}. Default: the model's caption prompt.")
@option(
    "--normalize",
    type=click.Choice(get_args(Normalize)),
    default="sum",
    show_default=True,
    help="Rank by the sum of ln p, its mean per token, or the sum by the number of the text's characters.",
)
@options(clipboard_option, picture_options, output_options, model_options)
def score(picture: str, texts: tuple[str, ...], template: str | None, normalize: str, **rest: Any) -> int:
    """Rank TEXTs by their likelihood given IMAGE. Prints ln p, share and text, the most likely first."""
    arguments = {"texts": texts, "template": template, "normalize": normalize}
    return answer_all("score", [picture], arguments, rest)


def answer_all(
    task: str,
    given: Iterable[str],
    arguments: dict[str, Any],
    rest: dict[str, Any],
    shots: list[tuple[Any, ...]] | None = None,
    lines: Callable[[Answer], list[str]] | None = None,
) -> int:
    """Runs one task on all images and returns the exit status. `rest` holds the shared options.

    lines: the text form of an answer, if it is another than usual.
    """
    from kosmos_edge.cli.inputs import expand_inputs
    from kosmos_edge.cli.output import Writer, choose_format, open_output
    from kosmos_edge.inference.batching import TASKS, run_batch

    messages = take_messages(rest)
    given = list(given)
    copied = Copied(rest.pop("clipboard", False))
    streams_text = rest.pop("stream", False)
    inputs, several = expand_inputs(given, rest.pop("recursive"))
    picking = take_picking(rest)
    if "max_tokens" in rest:
        arguments |= take_generation(rest)
    output, overwrite, form = rest.pop("output"), rest.pop("overwrite"), rest.pop("form")
    draw_format = rest.pop("draw_format", "png")
    drawings = Drawings(rest.pop("draw", None), inputs, several, overwrite, draw_format)
    shown = [shot[0] for shot in shots or ()]
    if picking is not None:
        if streams_text:
            raise click.UsageError("--stream: not with examples that are chosen for each image")
        shown += [picking.path, *(row[0] for row in picking.rows(task))]
    drawings.keep_apart(output, shown)
    paths = [item.path for item in inputs if item.path is not None]
    lists = [name[1:] for name in given if name.startswith("@") and os.path.isfile(name[1:])]
    read = [*paths, *shown, *lists, *filter(None, [rest["model"]])]
    with open_output(output, overwrite, inputs=read, say=messages.say) as out:
        form = choose_format(form, output)
        if streams_text and (several or form != "text"):
            raise click.UsageError(f"--stream is for one image and text, got {'several' if several else form}")
        opening, fail_fast = take_opening(rest), rest.pop("fail_fast")
        size = min(rest.pop("batch_size", 1), len(inputs))
        model = take_model(rest, messages, reads=task == "read")
        assert not rest, rest
        if "ground" in arguments and arguments["ground"] is None:
            arguments["ground"] = model.model_info["grounding"] is not None
        if shots:
            arguments["examples"] = [(model.encode(_shot(shot[0], opening)), *shot[1:]) for shot in shots]
        streams: dict[str, bytes] = {}  # stdin and pipes that need a drawing: they cannot be read again

        def sources() -> Iterator[Any]:
            for item in inputs:
                drawn = item.name in drawings.targets
                source = item.source(read=drawn)
                if drawn and isinstance(source, bytes):
                    streams[item.name] = source
                yield source

        answers: Generator[Answer, None, None]
        if picking is not None or task not in TASKS:
            answers = answer_each(model, sources(), inputs, task, arguments, opening, picking)
        elif streams_text:
            answers = _streamed(model, opening, next(sources()), task, arguments, out)
        else:
            answers = run_batch(model, sources(), task, "yield", size, arguments, opening=opening, namer=_name)
        writer = Writer(form, several, out, lines or lines_of(task, arguments, text=not streams_text))
        failed = 0
        progress = Progress(len(inputs), shown=len(inputs) > 1 and shows_progress(messages))
        with closing(answers):
            for number, answer in enumerate(answers):
                item = inputs[number]
                progress.clear()
                writer.write(item.name, answer)
                error = answer.error
                copied.add(answer, task)
                if error is None and item.name in drawings.targets:
                    error = drawings.draw(opening, streams.get(item.name) or item.path or b"", answer, item)
                if error is None:
                    report(messages, item.name, answer, number + 1, len(inputs))
                    progress.advance()
                    continue
                failed += 1
                messages.error(item.name, plain_error(error))
                if fail_fast:
                    out.complete = number + 1 == len(inputs)
                    break
                progress.advance()
        progress.clear()
        writer.close()
    copied.finish()
    if failed:
        messages.say(f"{failed} of {len(inputs)} failed") if len(inputs) > 1 else None
    return 1 if failed else 0


def _shot(path: str, opening: Opening) -> Any:
    """The image of an example: its path, or the opened image if an option changes how it is opened, or a URL's."""
    from kosmos_edge.cli.inputs import Input
    from kosmos_edge.images import AS_USUAL, Opening

    wanted = Opening(max_pixels=opening.max_pixels, allow_truncated=opening.allow_truncated)
    source = Input(path, path).source()
    return source if wanted == AS_USUAL and source is path else wanted.open(source)


def _name(source: Any) -> str | None:
    """The name in a failed result; the writer knows the names of all."""
    return source if isinstance(source, str) else None


def _streamed(
    model: Model, opening: Opening, source: Any, task: str, arguments: dict[str, Any], out: Output
) -> Generator[Answer, None, None]:
    """The one answer, after its text was written piece by piece."""
    from kosmos_edge.inference.batching import bind_task, failed_answer
    from kosmos_edge.results import Done, TextDelta

    model.request(task, bind_task(model, task, arguments))  # what is wrong for every image is raised
    begun = False
    try:
        with closing(getattr(model, task)(opening.open(source), stream=True, **arguments)) as events:
            for event in events:
                if isinstance(event, TextDelta):
                    begun = True
                    out.end(event.text)
                elif isinstance(event, Done):
                    out.end("\n")
                    yield event.result
    except KosmosError as error:
        if begun:
            out.end("\n")
        yield failed_answer(model, task, None, error)


class Copied:
    """What --clipboard copies: the texts, of locate the boxes, each answer in lines of its own."""

    def __init__(self, wanted: bool) -> None:
        """Raises what says that there is no clipboard, before anything is computed."""
        self._lines: list[str] = []
        self._command: list[str] | None = None
        if wanted:
            from kosmos_edge.cli.clipboard import find_clipboard

            self._command = find_clipboard()

    def add(self, answer: Answer, task: str) -> None:
        """One answer; those with an error have no text."""
        from kosmos_edge.cli.output import text_lines

        if self._command is not None and answer.error is None:
            self._lines += text_lines(answer, text=task != "locate", boxes=task == "locate")

    def finish(self) -> None:
        """Copies all; nothing if there is none."""
        if self._command is not None and self._lines:
            from kosmos_edge.cli.clipboard import copy

            copy(self._command, "\n".join(self._lines))


def lines_of(task: str, arguments: dict[str, Any], *, text: bool = True) -> Callable[[Answer], list[str]]:
    """How the text form shows an answer; text: False: its text was written already."""
    from kosmos_edge.cli.output import text_lines

    if task == "reason":
        return _both_lines
    boxes = task in ("ground", "locate") or bool(arguments.get("ground"))
    return lambda answer: text_lines(answer, text=text and task != "locate", boxes=boxes)


def _both_lines(answer: Answer) -> list[str]:
    """The rationale in one line, and the answer."""
    from kosmos_edge.inference.ability_results import Reasoned

    assert isinstance(answer, Reasoned)
    return [" ".join(answer.rationale.split()), answer.text]


def shows_progress(messages: Messages) -> bool:
    """Whether stderr is a terminal on which nothing else is written for each image."""
    return sys.stderr.isatty() and not messages.quiet and not messages.verbose


def report(messages: Messages, name: str, answer: Answer, number: int, count: int | str) -> None:
    """An answer's notes, and its timings with --verbose. count: of all images."""
    timings = answer.timings
    messages.notes(name, answer.notes)
    messages.detail(
        f"{number}/{count} {name}: {timings.total_ms:.0f} ms (decode {timings.decode_image_ms:.0f}, encode "
        f"{timings.encode_ms:.0f}, prefill {timings.prefill_ms:.0f}, {timings.tokens} tokens {timings.decode_ms:.0f})"
    )


class Drawings:
    """Where --draw writes: the file itself, or one file per image in a folder."""

    def __init__(
        self, target: str | None, inputs: list[Input], several: bool, overwrite: bool, draw_format: str = "png"
    ) -> None:
        """draw_format: the suffix of the files in a folder."""
        self.targets: dict[str, str] = {}  # by the image's name
        self._found: list[Target] = []
        if target is None:
            return
        from kosmos_edge.draw import overlay_format, picture_format
        from kosmos_edge.drawing_names import drawing_names
        from kosmos_edge.targets import find_target, make_folder, refuse_inputs

        if several:
            make_folder(target, "--draw: several images need a folder")
            names = drawing_names([item.path or "/stdin" for item in inputs], f".boxes.{draw_format}")
            self.targets = {item.name: os.path.join(target, name) for item, name in zip(inputs, names, strict=True)}
        else:
            self.targets = {item.name: target for item in inputs}
        self._found = [find_target(path, overwrite=overwrite) for path in self.targets.values()]
        for found in self._found:
            if overlay_format(found.name) is None:
                picture_format(found)
        refuse_inputs("--draw", self._found, (item.path for item in inputs if item.path is not None))

    def keep_apart(self, output: str | None, shots: Iterable[str] = ()) -> None:
        """InvalidRequest if a drawing would replace the results or the image of an example."""
        from kosmos_edge.targets import find_target, refuse_inputs, standard_output

        refuse_inputs("--draw", self._found, shots)
        results = standard_output() if output is None else find_target(output, overwrite=True)
        for found in self._found:
            if results is not None and found.identity is not None and found.identity == results.identity:
                raise InvalidRequest(f"--draw: {found.name} is also the output of the results: choose another name")

    def draw(self, opening: Opening, source: str | bytes, answer: Answer, item: Input) -> KosmosError | None:
        """Writes the drawing of one answer; returns the error if this image cannot be drawn.

        A failed write is raised, because it would fail for the remaining images, too.
        """
        from kosmos_edge.draw import drawing, save_drawing
        from kosmos_edge.results import Result

        if not isinstance(answer, Result):
            return None
        try:
            drawn = drawing(opening.open(source), answer, self.targets[item.name], title=item.name)
        except KosmosError as error:
            return error
        save_drawing(drawn, self.targets[item.name])
        return None
