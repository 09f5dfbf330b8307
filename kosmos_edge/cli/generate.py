"""kosmos-edge generate: continues images, texts and boxes in the order of the command line."""

from __future__ import annotations

from typing import Any

import click

from kosmos_edge.cli.common import (
    Corners,
    check_unit,
    generation_options,
    model_options,
    opening_options,
    option,
    output_options,
    settle_choices,
    take_generation,
    take_messages,
    take_model,
    take_opening,
)


class OrderedCommand(click.Command):
    """Keeps in ctx.obj the values of --image, --text and --box in the order of the command line."""

    KINDS = ("image", "text", "box")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, after a first pass that records the order."""
        order = [parameter.name for parameter in self.make_parser(ctx).parse_args(args=list(args))[2]]
        left = super().parse_args(ctx, args)
        taken = {kind: iter(ctx.params.get(kind) or ()) for kind in self.KINDS}
        ctx.obj = [(name, next(taken[name])) for name in order if name in taken]
        return left


@click.command(cls=OrderedCommand)
@click.option("--image", "-i", multiple=True, metavar="IMAGE", help="An image; - for stdin. Can be repeated.")
@click.option("--text", "-p", multiple=True, metavar="TEXT", help="A text. Can be repeated.")
@click.option(
    "--box",
    multiple=True,
    type=Corners(),
    metavar="X1,Y1,X2,Y2",
    help="A box in pixels of the upright image before it. Can be repeated.",
)
@option("--normalized", is_flag=True, help="Give boxes in fractions of the image, 0..1.")
@option("--raw", is_flag=True, help="Treat tag strings in the texts, such as <grounding>, as tags.")
@option("--choice", multiple=True, metavar="TEXT", help="Allowed answer; use the option at least twice.")
@option("--lead-in", is_flag=True, help="Begin the text with the prompt's words.")
@generation_options
@opening_options
@output_options
@model_options
@click.pass_context
def generate(
    ctx: click.Context, /, raw: bool, normalized: bool, choice: tuple[str, ...], lead_in: bool, **rest: Any
) -> int:
    """Continue any sequence of --image, --text and --box, in their order.

    \b
    kosmos-edge generate --image a.png --text "An image of a cat." --image b.png --text "An image of"
    """
    from kosmos_edge.cli.inputs import Input
    from kosmos_edge.cli.output import Writer, choose_format, open_output, text_lines

    for kind in ("image", "text"):
        rest.pop(kind)
    messages = take_messages(rest)
    _, choice = settle_choices(None, choice, ("", "choice"))
    generation = take_generation(rest)
    if not ctx.obj:
        raise click.UsageError("nothing to continue: give --image or --text")
    for kind, value in ctx.obj:
        if kind == "text":
            _check_words(value)
    if ctx.obj.count(("image", "-")) > 1:
        raise click.UsageError("stdin (-) can be read only once")
    for box in rest.pop("box"):
        check_unit(box, normalized)
    opening, output = take_opening(rest), rest.pop("output")
    form = choose_format(rest.pop("form"), output)
    segments: list[Any] = []
    name = ""
    paths = [value for kind, value in ctx.obj if kind == "image" and value != "-"]
    read = [*paths, *filter(None, [rest["model"]])]
    with open_output(output, rest.pop("overwrite"), inputs=read, say=messages.say) as out:
        for kind, value in ctx.obj:
            if kind in ("text", "box"):
                segments.append(value)
            else:
                name = value
                item = Input(value, None if value == "-" else value)
                segments.append(opening.open(item.source()))
        model = take_model(rest, messages)
        assert not rest, rest
        choices = list(choice) or None
        answer = model.generate(
            segments, raw=raw, normalized=normalized, lead_in=lead_in, choices=choices, **generation
        )
        writer = Writer(form, False, out, text_lines)
        writer.write(name, answer)
        writer.close()
        messages.notes(name, answer.notes)
    return 0


def _check_words(text: str) -> None:
    """UsageError if --text is the name of an image: the answer would be about the name."""
    from kosmos_edge.images import names_picture

    if names_picture(text):
        way = "download it and pass its path to --image" if "://" in text else f"use --image {text} to show the image"
        raise click.UsageError(f"--text {text}: this is the name of an image, not a text about one; {way}")
