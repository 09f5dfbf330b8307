"""kosmos-edge agent: a language model answers a question about images, with our verbs as its tools."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from kosmos_edge.cli.common import (
    Messages,
    model_options,
    opening_options,
    option,
    options,
    take_messages,
    take_model,
    take_opening,
)
from kosmos_edge.errors import InvalidRequest

if TYPE_CHECKING:
    from kosmos_edge.apps.agent import Transcript
    from kosmos_edge.model import Model
    from kosmos_edge.targets import Target


@click.command()
@click.argument("question", metavar="QUESTION")
@click.argument("pictures", nargs=-1, required=True, metavar="IMAGE...")
@option("--llm", required=True, metavar="URL", help="OpenAI-compatible endpoint, up to /v1: http://127.0.0.1:8080/v1.")
@option("--llm-model", required=True, metavar="NAME", help="Language model at the endpoint.")
@option("--llm-temperature", default="0", show_default=True, metavar="T|none", help="Its temperature; none: not sent.")
@option("--llm-max-tokens", type=click.IntRange(1), metavar="N", help="Maximum tokens of one of its replies.")
@option("--react", is_flag=True, help="Tool calls as JSON in the text, for models without function calling.")
@option("--caption-first", is_flag=True, help="Give it a caption of each image with the question.")
@option("--reader", metavar="TAG|FILE", help="Model for the tool read. Default: the model, or one here that reads.")
@option("--max-steps", type=click.IntRange(1), default=12, show_default=True, metavar="N", help="Most requests to it.")
@option("--max-tokens-total", type=click.IntRange(1), metavar="N", help="Most tokens of all requests and replies.")
@option("--max-cost", type=click.FloatRange(0, min_open=True), metavar="X", help="Most money; needs --price.")
@option("--price", metavar="IN,OUT", help="Price of a million prompt tokens and of a million reply tokens.")
@option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="S",
    help="Seconds for the whole run.",
)
@option("--html", prefix="AGENT_", metavar="FILE", help="Write the transcript with its images as one HTML file.")
@option("--overwrite", is_flag=True, help="Replace an existing file.")
@option("--json", "as_json", is_flag=True, help="Print the transcript as JSON instead of the answer.")
@option("--json-pictures", is_flag=True, help="With --json: and the images in it, as data: URIs.")
@options(opening_options, model_options)
def agent(question: str, pictures: tuple[str, ...], **rest: Any) -> int:
    """Let a language model answer QUESTION about each IMAGE, with the tasks of the model here as its tools.

    \b
    kosmos-edge agent "What is left of the truck?" photo.jpg --llm http://127.0.0.1:8080/v1 --llm-model NAME

    The language model gets no images, only what the tools say about them. The key of the endpoint is read from
    OPENAI_API_KEY in the environment. -v shows each call.
    """
    from kosmos_edge.cli.inputs import expand_inputs
    from kosmos_edge.targets import find_target, refuse_inputs

    if os.path.isfile(question):
        raise click.UsageError(f"{question} is a file: the question comes first, then the images")
    messages, opening = take_messages(rest), take_opening(rest)
    html, overwrite = rest.pop("html"), rest.pop("overwrite")
    as_json, with_pictures = rest.pop("as_json"), rest.pop("json_pictures")
    if with_pictures and not as_json:
        raise click.UsageError("--json-pictures needs --json")
    settings = _settings(rest)
    inputs, _ = expand_inputs(pictures, False)
    target: Target | None = None
    if html is not None:
        target = find_target(html, overwrite=overwrite)
        refuse_inputs("--html", [target], [item.path for item in inputs if item.path is not None])
    from kosmos_edge.apps.agent import Agent
    from kosmos_edge.apps.endpoint import Endpoint

    url, name, reader = rest.pop("llm"), rest.pop("llm_model"), rest.pop("reader")
    if Endpoint(url, name).sends_key_in_clear:  # what is wrong with them is told before a model is loaded
        messages.say(f"the key goes to {url} without encryption: its address begins with http:")
    most = settings["limits"].max_pictures
    if len(inputs) > most:
        raise click.UsageError(f"expected at most {most} images, got {len(inputs)}")
    images = [opening.open(item.source()) for item in inputs]
    loading = dict(rest)
    model = take_model(rest, messages)
    assert not rest, rest
    program = Agent(model, url, name, reader=_reader(reader, model, loading, messages), **settings)
    shows = messages.say if sys.stderr.isatty() else messages.detail
    run = program.start(question, images, watch=lambda line: shows(printable(line)))
    try:
        log = run.finish()
    except BaseException as error:
        note = _keep(run.transcript, target, as_json, with_pictures)
        if note is not None:
            error.add_note(note)
        raise
    _keep(log, target, as_json, with_pictures)
    if log.answer and not as_json:
        click.echo(printable(log.answer))
    if not log.answer:
        messages.error("kosmos-edge", f"error: no answer: {log.why}")
    for line in [*([log.why] if log.why and log.answer else []), *log.notes]:
        messages.say(line)
    spent = log.spent
    cost = "" if spent.cost is None else f", cost {spent.cost:.6f}"
    messages.detail(f"{len(log.steps)} steps, {spent.tokens} tokens{cost}, {log.seconds:.1f} s")
    return 0 if log.answer else 1


def printable(text: str) -> str:
    """The text without control characters: an image's text may reach a terminal through the answer."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in text)


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    """Moves what Agent takes out of `values`."""
    from kosmos_edge.apps.agent import Limits

    given, price = values.pop("llm_temperature"), values.pop("price")
    try:
        temperature = None if given.strip().lower() == "none" else float(given)
    except ValueError:
        raise click.UsageError(f"--llm-temperature: expected a number or none, got {given!r}") from None
    prices: tuple[float, ...] | None = None
    if price is not None:
        try:
            prices = tuple(float(part) for part in price.split(","))
        except ValueError:
            prices = ()
        if len(prices) != 2:
            raise click.UsageError(f"--price: expected two numbers IN,OUT, got {price!r}")
    limits = Limits(
        max_steps=values.pop("max_steps"),
        max_tokens_total=values.pop("max_tokens_total"),
        max_cost=values.pop("max_cost"),
        price=prices,  # type: ignore[arg-type]
        seconds=values.pop("timeout"),
    )
    return {
        "limits": limits,
        "temperature": temperature,
        "max_tokens": values.pop("llm_max_tokens"),
        "text_protocol": values.pop("react"),
        "caption_first": values.pop("caption_first"),
    }


def _reader(spec: str | None, model: Model, loading: dict[str, Any], messages: Messages) -> Model | None:
    """The model for the tool read; None: the other one does it."""
    from kosmos_edge import hub

    if spec is None and "read" in model.model_info["tasks"]:
        return None
    found = spec if spec is not None else hub.reader_here()[0]
    reader = take_model({**loading, "model": found, "mmproj": None}, messages)
    if "read" not in reader.model_info["tasks"]:
        raise InvalidRequest(f"--reader: {reader.name} does not read")
    return reader


def _keep(log: Transcript, target: Target | None, as_json: bool, with_pictures: bool) -> str | None:
    """Writes what was asked for. -> a note about the HTML file"""
    from kosmos_edge.targets import write_whole

    note = None
    try:
        if target is not None:
            write_whole(target, log.to_html().encode())
            note = f"the transcript is in {target.name}"
    finally:
        if as_json:
            click.echo(log.to_json(2, pictures=with_pictures))
    return note


__all__ = ["agent", "printable"]
