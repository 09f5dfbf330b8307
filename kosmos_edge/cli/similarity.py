"""The command that compares images with texts."""

from __future__ import annotations

from typing import Any

import click

from kosmos_edge.cli.abilities import read_text
from kosmos_edge.cli.common import (
    model_options,
    option,
    options,
    picture_options,
    report_format_option,
    take_messages,
    take_model,
    take_opening,
)
from kosmos_edge.cli.streams import plain_error
from kosmos_edge.cli.tasks import picture
from kosmos_edge.errors import KosmosError


@click.command()
@picture
@click.argument("texts", nargs=-1, metavar="TEXT...")
@option("--texts", "listed", metavar="FILE", help="Texts, one per line, besides those of the command line.")
@option("--truncate", is_flag=True, help="Cut texts that are longer than the model's, as published.")
@report_format_option
@options(picture_options, model_options)
def similarity(picture: str, texts: tuple[str, ...], listed: str | None, truncate: bool, form: str, **rest: Any) -> int:
    """Compare each IMAGE with each TEXT, with a model such as CLIP.

    Prints cosine, probability among the texts, and text, the best first; with several images each line begins with
    the image. IMAGE is a file, a folder, a glob in quotes, @list.txt with one path per line, or - for stdin.

    \b
    kosmos-edge similarity photo.jpg "a cat" "a dog"
    """
    from kosmos_edge import hub
    from kosmos_edge.cli.inputs import expand_inputs
    from kosmos_edge.json_text import to_json

    words = list(texts)
    if listed is not None:
        words += [line for line in read_text(listed).splitlines() if line.strip()]
    if not words:
        raise click.UsageError("no texts: give them behind the image, or --texts")
    messages, opening, fail_fast = take_messages(rest), take_opening(rest), rest.pop("fail_fast")
    inputs, several = expand_inputs([picture], rest.pop("recursive"))
    several = several or len(inputs) != 1
    if rest["model"] is None and rest["mmproj"] is None:
        rest["model"], why = hub.default_comparer()
        messages.detail(f"model {rest['model']}: {why}")
    model = take_model(rest, messages)
    assert not rest, rest
    compare = model.similarity_to(words, truncate=truncate)  # what is wrong with model or texts is no image's fault
    names, encoded, failed = [], [], False
    for item in inputs:
        try:
            encoded.append(model.encode(opening.open(item.source())))
        except KosmosError as error:
            messages.error(item.name, plain_error(error))
            failed = True
            if fail_fast:
                break
        else:
            names.append(item.name)
    if not encoded:
        return 1
    answer = compare(encoded)
    answer.sources = list(names)
    if form == "json":
        click.echo(to_json(answer.to_dict(), 2))
    else:
        for name, cosines, chances in zip(names, answer.cosines, answer.probabilities, strict=True):
            for number in sorted(range(len(words)), key=lambda n, row=cosines: (-row[n], n)):  # type: ignore[misc]
                line = f"{cosines[number]:.4f}\t{chances[number]:.4f}\t{words[number]}"
                click.echo(f"{name}\t{line}" if several else line)
    messages.notes("kosmos-edge", answer.notes)
    messages.detail(f"{answer.total_ms:.0f} ms")
    return 1 if failed else 0


__all__ = ["similarity"]
