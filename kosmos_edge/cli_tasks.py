"""The commands that answer about pictures: caption, ground, locate, describe, ask, score."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kosmos_edge.cli_common import (
    Messages,
    batch_size_option,
    generation_options,
    model_options,
    option,
    options,
    output_options,
    picture_options,
    take_generation,
    take_messages,
    take_model,
)

if TYPE_CHECKING:
    from kosmos_edge.cli_inputs import Input
    from kosmos_edge.cli_output import Answer
    from kosmos_edge.images import Picture

pictures = click.argument("pictures", nargs=-1, required=True, metavar="PICTURE...")
picture = click.argument("picture", metavar="PICTURE")
shared = options(generation_options, picture_options, output_options, model_options)
draw_option = option(
    "--draw", metavar="FILE", help="Write the picture with its boxes; a folder where several pictures are named."
)
boxes_option = option("--boxes/--no-boxes", default=True, help="Ask for boxes and print them (default).")


@click.command()
@pictures
@option("--length", type=click.Choice(["short", "long"]), default="short", show_default=True, help="Of the caption.")
@boxes_option
@option("--lead-in", is_flag=True, help='Begin with the prompt\'s words ("An image of").')
@option("--shot", multiple=True, metavar="PICTURE::TEXT", help="An example that goes before; may be given again.")
@batch_size_option
@draw_option
@shared
def caption(
    pictures: tuple[str, ...], length: str, boxes: bool, lead_in: bool, shot: tuple[str, ...], **rest: Any
) -> int:
    """Say what each PICTURE shows, with the boxes of what is named.

    A PICTURE is a file, a folder, a glob in quotes, @list.txt with one path per line, or - for stdin.
    """
    shots = [_split("--shot", value, 2) for value in shot]
    arguments = {"length": length, "ground": boxes, "lead_in": lead_in}
    return answer_all("caption", pictures, arguments, rest, shots=shots)


@click.command()
@pictures
@option("-p", "--prompt", metavar="TEXT", help='Words to go on from, such as "Describe this image in detail:".')
@option("--lead-in", is_flag=True, help="Begin with the prompt's words.")
@batch_size_option
@draw_option
@shared
def ground(pictures: tuple[str, ...], prompt: str | None, lead_in: bool, **rest: Any) -> int:
    """Text with the boxes of what it names, about each PICTURE."""
    return answer_all("ground", pictures, {"prompt": prompt, "lead_in": lead_in}, rest)


@click.command()
@picture
@click.argument("phrase")
@draw_option
@shared
def locate(picture: str, phrase: str, **rest: Any) -> int:
    """Find the boxes of PHRASE, such as "a red hat"; prints nothing where the model gives none."""
    return answer_all("locate", [picture], {"phrase": phrase}, rest)


def corners(_: click.Context, __: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """The four numbers of --box."""
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4:
        raise click.BadParameter(f"expected four numbers x1,y1,x2,y2, got {value!r}")
    return numbers


@click.command()
@picture
@option("--box", required=True, callback=corners, metavar="X1,Y1,X2,Y2", help="In pixels of the upright picture.")
@option("--normalized", is_flag=True, help="The box is in fractions of the picture, 0..1.")
@boxes_option
@option("--lead-in", is_flag=True, help="Begin with the prompt's words.")
@draw_option
@shared
def describe(picture: str, box: tuple[float, ...], normalized: bool, boxes: bool, lead_in: bool, **rest: Any) -> int:
    """Say what is in the box of PICTURE."""
    arguments = {"box": box, "normalized": normalized, "ground": boxes, "lead_in": lead_in}
    return answer_all("describe", [picture], arguments, rest)


@click.command()
@picture
@click.argument("question")
@option("--boxes/--no-boxes", default=False, help="Ask for boxes and print them.")
@option("--choice", multiple=True, metavar="TEXT", help="The answer is one of these; give it two times or more.")
@option("--lead-in", is_flag=True, help="Begin with the question.")
@option("--shot", multiple=True, metavar="PICTURE::QUESTION::ANSWER", help="An example that goes before.")
@draw_option
@shared
def ask(
    picture: str,
    question: str,
    boxes: bool,
    choice: tuple[str, ...],
    lead_in: bool,
    shot: tuple[str, ...],
    **rest: Any,
) -> int:
    """Answer QUESTION about PICTURE."""
    shots = [_split("--shot", value, 3) for value in shot]
    arguments = {"question": question, "ground": boxes, "choices": list(choice) or None, "lead_in": lead_in}
    return answer_all("ask", [picture], arguments, rest, shots=shots)


@click.command()
@picture
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@option("--template", metavar="TEXT", help='Words around {text}; "An image of {text}".')
@option(
    "--normalize", type=click.Choice(["sum", "mean"]), default="sum", show_default=True, help="Sum of ln p or mean."
)
@options(picture_options, output_options, model_options)
def score(picture: str, texts: tuple[str, ...], template: str | None, normalize: str, **rest: Any) -> int:
    """Rank TEXTs by their likelihood for PICTURE: ln p, share, text; the likeliest first."""
    arguments = {"texts": texts, "template": template, "normalize": normalize}
    return answer_all("score", [picture], arguments, rest)


def _split(name: str, value: str, parts: int) -> tuple[str, ...]:
    fields = tuple(value.split("::"))
    if len(fields) != parts or not all(field.strip() for field in fields):
        raise click.UsageError(f"{name}: expected {parts} parts joined by ::, got {value!r}")
    return fields


def answer_all(
    task: str,
    given: Iterable[str],
    arguments: dict[str, Any],
    rest: dict[str, Any],
    shots: list[tuple[str, ...]] | None = None,
) -> int:
    """One verb over all pictures; the exit code. `rest` holds the shared options."""
    from kosmos_edge.batching import run_batch
    from kosmos_edge.cli_inputs import expand_inputs
    from kosmos_edge.cli_output import Writer, open_output
    from kosmos_edge.images import open_image

    messages = take_messages(rest)
    inputs, several = expand_inputs(given, rest.pop("recursive"))
    if task != "score":
        arguments |= take_generation(rest)
    drawings = Drawings(rest.pop("draw", None), inputs, several, rest["overwrite"])
    with open_output(rest.pop("output"), rest.pop("overwrite")) as out:
        exif, frame, fail_fast, form = (rest.pop(name) for name in ("exif", "frame", "fail_fast", "form"))
        size = min(rest.pop("batch_size", 1), len(inputs))
        model = take_model(rest, messages)
        assert not rest, rest
        if shots:
            arguments["examples"] = [(model.encode(shot[0]), *shot[1:]) for shot in shots]
        stdin: list[bytes] = []

        def sources() -> Iterator[str | bytes]:
            for item in inputs:
                source = item.source()
                if isinstance(source, bytes):  # read here, where Ctrl-C is heard; kept, for it cannot be read again
                    stdin.append(source)
                yield source

        opened: Callable[[str | bytes], Picture] = partial(open_image, exif=exif, frame=frame)

        answers = run_batch(model, sources(), task, "yield", size, arguments, opener=opened, namer=_name)
        writer = Writer(form, several, out, _lines_of(task, arguments))
        failed = 0
        try:
            with closing(answers):
                numbered = enumerate(_progress(answers, len(inputs), messages, to_terminal=out is sys.stdout))
                for number, answer in numbered:
                    item = inputs[number]
                    writer.write(item.name, answer)
                    if answer.error is not None:
                        failed += 1
                        messages.error(item.name, str(answer.error))
                        if fail_fast:
                            break
                        continue
                    if item.name in drawings.targets:
                        drawings.draw(opened(stdin[0] if item.path is None else item.path), answer, item)
                    _report(messages, item, answer, number + 1, len(inputs))
        finally:
            writer.close()
    if failed:
        messages.say(f"{failed} of {len(inputs)} failed") if len(inputs) > 1 else None
    return 1 if failed else 0


def _name(source: str | bytes) -> str:
    return source if isinstance(source, str) else "-"


def _lines_of(task: str, arguments: dict[str, Any]) -> Callable[[Answer], list[str]]:
    from kosmos_edge.cli_output import text_lines

    boxes = task in ("ground", "locate") or bool(arguments.get("ground"))
    return lambda answer: text_lines(answer, text=task != "locate", boxes=boxes)


def _report(messages: Messages, item: Input, answer: Answer, number: int, count: int) -> None:
    timings = answer.timings
    for note in answer.notes:
        (messages.say if note.startswith("the model gave no box") else messages.detail)(f"{item.name}: {note}")
    messages.detail(
        f"{number}/{count} {item.name}: {timings.total_ms:.0f} ms (decode {timings.decode_image_ms:.0f}, encode "
        f"{timings.encode_ms:.0f}, prefill {timings.prefill_ms:.0f}, {timings.tokens} tokens {timings.decode_ms:.0f})"
    )


def _progress(answers: Iterator[Answer], count: int, messages: Messages, *, to_terminal: bool) -> Iterator[Answer]:
    """The answers; with a bar on stderr where it disturbs nobody: many pictures, results not on the same terminal."""
    shown = count > 1 and sys.stderr.isatty() and not (to_terminal and sys.stdout.isatty())
    if not shown or messages.quiet or messages.verbose:
        yield from answers
        return
    with click.progressbar(answers, count, label="pictures", file=sys.stderr, show_pos=True) as bar:
        yield from bar


class Drawings:
    """Where --draw writes: the file itself, or one file per picture in a folder."""

    def __init__(self, target: str | None, inputs: list[Input], several: bool, overwrite: bool) -> None:
        from kosmos_edge.cli_output import check_free

        self.targets: dict[str, Path] = {}  # by the picture's name
        if target is None:
            return
        for item in inputs:
            stem = Path(item.path).stem if item.path is not None else "stdin"
            path = Path(target) / f"{stem}.boxes.png" if several else Path(target)
            if path in self.targets.values():
                raise click.UsageError(f"--draw: two pictures would be written to {path}")
            if item.path is not None and path.exists() and path.samefile(item.path):
                raise click.UsageError(f"--draw: {path} is the picture itself")
            check_free(path, overwrite)
            self.targets[item.name] = path
        if several:
            Path(target).mkdir(parents=True, exist_ok=True)

    def draw(self, picture: Picture, answer: Answer, item: Input) -> None:
        """Writes the drawing of one answer about a picture that is among the targets."""
        from kosmos_edge.draw import draw_boxes, save_drawing
        from kosmos_edge.results import Result

        if isinstance(answer, Result):
            save_drawing(draw_boxes(picture, answer), self.targets[item.name])
