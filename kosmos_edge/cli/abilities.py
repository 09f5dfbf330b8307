"""The commands that are made of other requests: classify, reason, iq, webqa."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import click

from kosmos_edge.cli.common import (
    GENERATION_NAMES,
    Parts,
    model_options,
    opening_options,
    option,
    options,
    report_format_option,
    settle_choices,
    take_messages,
    take_model,
    take_opening,
)
from kosmos_edge.cli.shots import pool_options, shot_option
from kosmos_edge.cli.tasks import answer_all, picture, pictures, shared
from kosmos_edge.cli.twins import from_environment, set_aside
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.options import Normalize

if TYPE_CHECKING:
    pass

normalize_option = option(
    "--normalize",
    type=click.Choice(get_args(Normalize)),
    default="sum",
    show_default=True,
    help="Rank by the sum of ln p, its mean per token, or the sum by the number of the text's characters.",
)


@click.command()
@pictures
@option("--label", multiple=True, metavar="TEXT", help="A label. Can be repeated.")
@option("--labels", metavar="FILE", help="Labels, one per line; behind a tab, the label's description for --category.")
@option("--question", prefix="CLASSIFY_", metavar="TEXT", help="Ask this question, with the labels as its answers.")
@option(
    "-p",
    "--prompt",
    prefix="CLASSIFY_",
    metavar="TEXT",
    help='Words before the label. Default: "The photo of the".',
)
@option("--category", metavar="TEXT", help='What all labels are, such as "bird": ask for its name, with descriptions.')
@option(
    "--by",
    type=click.Choice(["likelihood", "choices", "free"]),
    default="likelihood",
    show_default=True,
    help="Rank the labels, decode one of them (choices), or any text (free).",
)
@normalize_option
@shot_option("classify", Parts(2), "IMAGE::LABEL")
@pool_options
@shared
def classify(
    pictures: tuple[str, ...],
    label: tuple[str, ...],
    labels: str | None,
    question: str | None,
    prompt: str | None,
    category: str | None,
    by: str,
    normalize: str,
    shot: tuple[tuple[str, ...], ...],
    **rest: Any,
) -> int:
    """Choose the label that fits each IMAGE. Prints ln p, share and label, the most likely first.

    \b
    kosmos-edge classify photo.jpg --label cat --label dog
    kosmos-edge classify photo.jpg --labels birds.tsv --category woodpecker
    """
    names = list(label)
    descriptions: dict[str, str] = {}
    if labels is not None:
        listed, descriptions = read_labels(labels)
        names += listed
    if not names:
        raise click.UsageError("no labels: give --label or --labels")
    if by == "likelihood":  # generates nothing
        for name in GENERATION_NAMES:
            if from_environment(name):
                set_aside(name)
                rest[name] = () if name == "stop" else None
    arguments: dict[str, Any] = {"labels": names, "by": by, "normalize": normalize}
    given = {"question": question, "prompt": prompt, "category": category, "descriptions": descriptions or None}
    arguments |= {name: value for name, value in given.items() if value is not None}
    return answer_all("classify", pictures, arguments, rest, shots=list(shot))


def read_labels(path: str) -> tuple[list[str], dict[str, str]]:
    """The labels of a file, and their descriptions by label; InvalidRequest if only some lines have one."""
    labels: list[str] = []
    descriptions: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        label, _, description = (part.strip() for part in line.partition("\t"))
        if labels and bool(descriptions) != bool(description):
            what = "a description behind a tab" if descriptions else "no description"
            raise InvalidRequest(f"{path}:{number}: expected {what}, as in the lines before, got {line!r}")
        labels.append(label)
        if description:
            descriptions[label] = description
    return labels, descriptions


def read_text(path: str) -> str:
    """A file's text; InvalidRequest if it is not UTF-8."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path}: expected UTF-8, got byte {data[error.start]:#04x} at {error.start}") from None


@click.command()
@picture
@click.argument("question")
@option("--rationale-prompt", metavar="TEXT", help='Default: "Introduce this picture in detail:".')
@option("--rationale-tokens", type=int, metavar="N", help="Maximum length of the rationale. Default: 128.")
@option("--choice", multiple=True, metavar="TEXT", help="Possible answer; use the option at least twice.")
@normalize_option
@shot_option("reason", Parts(4), "IMAGE::QUESTION::RATIONALE::ANSWER")
@pool_options
@shared
def reason(
    picture: str,
    question: str,
    rationale_prompt: str | None,
    rationale_tokens: int | None,
    choice: tuple[str, ...],
    normalize: str,
    shot: tuple[tuple[str, ...], ...],
    **rest: Any,
) -> int:
    """Describe IMAGE, then answer QUESTION behind the description. Prints both, a line each.

    \b
    kosmos-edge reason photo.jpg "What is the sentiment of the opinion?" --choice positive --choice negative
    """
    _, choice = settle_choices(None, choice, ("", "choice"))
    arguments: dict[str, Any] = {"question": question, "choices": list(choice) or None, "normalize": normalize}
    given = {"rationale_prompt": rationale_prompt, "rationale_tokens": rationale_tokens}
    arguments |= {name: value for name, value in given.items() if value is not None}
    return answer_all("reason", [picture], arguments, rest, shots=list(shot))


@click.command()
@click.argument("cells", nargs=-1, required=True, metavar="IMAGE...")
@option(
    "-c",
    "--candidate",
    multiple=True,
    required=True,
    metavar="IMAGE",
    help="An image that may complete the matrix. Can be repeated.",
)
@report_format_option
@options(opening_options, model_options)
def iq(cells: tuple[str, ...], candidate: tuple[str, ...], form: str, **rest: Any) -> int:
    """Complete one of Raven's matrices, whose cells are the IMAGEs, row by row.

    Prints P("Yes"), its share of "Yes" and "No", and the candidate, the best first.

    \b
    kosmos-edge iq a.png b.png c.png -c 1.png -c 2.png -c 3.png
    """
    from kosmos_edge.json_text import to_json

    messages, opening = take_messages(rest), take_opening(rest)
    model = take_model(rest, messages)
    assert not rest, rest
    answer = model.iq([opening.open(path) for path in cells], [opening.open(path) for path in candidate])
    if form == "json":
        click.echo(to_json(answer.to_dict(), 2))
    else:
        order = sorted(range(len(candidate)), key=lambda index: (-answer.candidates[index].yes, index))
        for index in order:
            found = answer.candidates[index]
            click.echo(f"{found.yes:.3e}\t{found.margin:.3f}\t{candidate[index]}")
    messages.notes("kosmos-edge", answer.notes)
    spent = answer.timings
    messages.detail(f"{spent.total_ms:.0f} ms; {spent.reused_tokens} positions of the prompts reused")
    return 0


@click.command()
@picture
@click.argument("question")
@option("--html", metavar="FILE", help="The page's HTML, whose visible text is read.")
@option("--page-text", metavar="FILE", help="The page's text.")
@shared
def webqa(picture: str, question: str, html: str | None, page_text: str | None, **rest: Any) -> int:
    """Answer QUESTION about a web page from its screenshot IMAGE and its text.

    \b
    kosmos-edge webqa page.png "Who is the author?" --html page.html
    """
    arguments: dict[str, Any] = {"question": question}
    if html is not None:
        arguments["html"] = read_text(html)
    if page_text is not None:
        arguments["text"] = read_text(page_text)
    return answer_all("webqa", [picture], arguments, rest)


__all__ = ["classify", "iq", "reason", "webqa"]
