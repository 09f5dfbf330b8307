"""kosmos-edge pica: a language model that sees no images answers by captions and tags."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from kosmos_edge.cli.agent import printable
from kosmos_edge.cli.common import (
    Messages,
    model_options,
    opening_options,
    option,
    options,
    report_format_option,
    take_messages,
    take_model,
    take_opening,
)
from kosmos_edge.cli.pica_file import file_options, find_results, finish_file, run_file, take_file
from kosmos_edge.cli.twins import unless_default
from kosmos_edge.errors import InvalidRequest, ModelNotFound

if TYPE_CHECKING:
    from contextlib import ExitStack

    from kosmos_edge.apps.index import PictureIndex
    from kosmos_edge.model import Model


@click.command()
@click.argument("picture", metavar="[IMAGE", required=False)
@click.argument("question", metavar="QUESTION]", required=False)
@option("--llm", metavar="URL", help="OpenAI-compatible endpoint, up to /v1: http://127.0.0.1:8080/v1.")
@option("--llm-model", metavar="NAME", help="Language model at the endpoint.")
@option("--llm-max-tokens", type=click.IntRange(1), metavar="N", help="Most tokens of an answer. Default: by --style.")
@option(
    "--llm-chat",
    is_flag=True,
    help="Send the prompt as a chat message, for endpoints without /completions; the most frequent answer wins.",
)
@option(
    "--examples", metavar="FILE", help="Solved questions, a JSON object per line: image, question, answer, context."
)
@option("--index", "index_file", metavar="INDEX", help="Image index with the examples' images, to choose them by.")
@option("--in-context", type=click.IntRange(0), metavar="N", help="Examples in a prompt. Default: 16 with --examples.")
@option("--ensemble", type=click.IntRange(1, 100), default=1, show_default=True, metavar="K", help="Prompts to ask.")
@option(
    "--style",
    type=click.Choice(["pica", "promptcap"]),
    default="pica",
    show_default=True,
    help="Published format of the prompt.",
)
@option(
    "--captioning",
    type=click.Choice(["general", "question", "both"]),
    default="general",
    show_default=True,
    help="A general caption, one that is guided by the question, or both.",
)
@option(
    "--tags/--no-tags", default=None, help="Phrases that the model grounds, behind the caption. Default: if it can."
)
@option("--show-prompt", is_flag=True, help="Print the prompts and ask nobody.")
@option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="S",
    help="Seconds for all answers to a question.",
)
@report_format_option
@options(file_options, opening_options, model_options)
def pica(picture: str | None, question: str | None, form: str, **rest: Any) -> int:
    """Let a language model that sees no images answer QUESTION about IMAGE, or all questions of a file.

    \b
    kosmos-edge pica photo.jpg "What is it made of?" --llm http://127.0.0.1:8080/v1 --llm-model NAME
    kosmos-edge pica --questions questions.jsonl -o answers.jsonl --llm http://127.0.0.1:8080/v1 --llm-model NAME

    A caption and tags stand for the image, in the prompt of PICa or PromptCap. The key of the endpoint is read from
    OPENAI_API_KEY in the environment. docs/pica.md has more.
    """
    from contextlib import ExitStack

    from kosmos_edge.apps.endpoint import Endpoint
    from kosmos_edge.apps.pica import Pica, Pool, read_examples, read_questions
    from kosmos_edge.json_text import to_json

    if picture is not None and question is None:
        raise click.UsageError("expected QUESTION behind IMAGE")
    messages, opening = take_messages(rest), take_opening(rest)
    url, name, shown = rest.pop("llm"), rest.pop("llm_model"), rest.pop("show_prompt")
    chat, most, seconds = rest.pop("llm_chat"), rest.pop("llm_max_tokens"), rest.pop("timeout")
    examples, index_file = rest.pop("examples"), rest.pop("index_file")
    settings = {key: rest.pop(key) for key in ("ensemble", "style", "tags")}
    settings |= {"shots": rest.pop("in_context"), "captions": rest.pop("captioning")}
    if examples is None:  # defaults for questions with examples
        index_file = unless_default("index_file", index_file, None)
        settings["shots"] = unless_default("in_context", settings["shots"], None)
        settings["ensemble"] = unless_default("ensemble", settings["ensemble"], 1)
    given = take_file(rest, alone=picture is not None, shown=shown)
    if not shown and (url is None or name is None):
        raise click.UsageError("expected --llm and --llm-model, or --show-prompt")
    if index_file is not None and examples is None:
        raise click.UsageError("--index chooses among examples: expected --examples, too")
    endpoint = None if shown else Endpoint(url, name)
    if endpoint is not None and endpoint.sends_key_in_clear:
        messages.say(f"the key goes to {url} without encryption: its address begins with http:")
    known = None if examples is None else read_examples(examples)
    source = None if picture is None else _source(picture)
    questions, target = None, None
    if picture is None:
        questions = read_questions(given["questions"], given["annotations"], given["images"])[: given["limit"]]
        target = find_results(given)
    loading = dict(rest)
    with ExitStack() as stack:
        model = stack.enter_context(take_model(rest, messages))
        assert not rest, rest
        index = None if index_file is None else _index(index_file, model, loading, messages, stack)
        pool = None if known is None else Pool(known, index)
        asker = Pica(model, pool, opening=opening, **settings)
        api: Any = "chat" if chat else "completions"
        if endpoint is not None:
            stack.callback(endpoint.close)
        if endpoint is not None and questions is not None:
            how = {"api": api, "max_tokens": most, "seconds": seconds}
            done = run_file(asker, endpoint, questions, given, messages, **how)
            return finish_file(done, questions, target, given, form, messages)
        assert question is not None
        if endpoint is None:
            prompts = asker.prompts(source, question)
            click.echo(to_json({"prompts": prompts.texts}, 2) if form == "json" else "\n\n\n".join(prompts.texts))
            return 0
        answer = asker.ask(endpoint, source, question, api=api, max_tokens=most, seconds=seconds)
    click.echo(to_json(answer.to_dict(), 2) if form == "json" else printable(answer.answer))
    for note in answer.notes:
        messages.say(note)
    return 0 if answer.answer else 1


def _source(picture: str) -> Any:
    from kosmos_edge.cli.inputs import Input
    from kosmos_edge.images import Unusable

    source = Input(picture, None if picture == "-" else picture).source()
    if isinstance(source, Unusable):
        raise source.error
    return source


def _index(path: str, model: Model, loading: dict[str, Any], messages: Messages, stack: ExitStack) -> PictureIndex:
    """The index with its own model, which is the captions' where that is the same file."""
    from kosmos_edge.apps.index import PictureIndex, read_maker

    maker = read_maker(path)
    if maker is None:
        raise InvalidRequest(f"{path}: no index, or an empty one; `kosmos-edge index build` makes one")
    if os.path.abspath(model.path) != maker.path:
        if not os.path.isfile(maker.path):
            raise ModelNotFound(f"{maker.path}: the index's model {maker.name} is not there")
        model = stack.enter_context(take_model({**loading, "model": maker.path, "mmproj": maker.mmproj}, messages))
    return stack.enter_context(PictureIndex(path, model, mmproj=maker.mmproj, read_only=True))


__all__ = ["pica"]
