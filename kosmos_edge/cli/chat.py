"""kosmos-edge chat: a conversation about images, in a terminal or with questions from a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from kosmos_edge.cli.common import (
    Messages,
    generation_options,
    model_options,
    opening_options,
    option,
    options,
    take_generation,
    take_messages,
    take_model,
    take_opening,
)
from kosmos_edge.cli.streams import plain_error
from kosmos_edge.errors import KosmosError
from kosmos_edge.results import Done, TextDelta

if TYPE_CHECKING:
    from kosmos_edge.images import Opening
    from kosmos_edge.inference.chat import Chat

HELP = """/image FILE   the next question brings this image
/undo         forget the last question and its answer
/reset        begin again, with the first image
/help         these lines
/quit         end; so does Ctrl-D"""


@click.command()
@click.argument("picture", required=False, metavar="[IMAGE]")
@option("--ask", "asked", multiple=True, metavar="TEXT", help="A question; then stdin is not read. Can be repeated.")
@options(generation_options, opening_options, model_options)
def chat(picture: str | None, asked: tuple[str, ...], **rest: Any) -> int:
    """Talk about IMAGE: one question per line, each behind those before it.

    \b
    kosmos-edge chat photo.jpg
    kosmos-edge chat photo.jpg --ask "What is this?" --ask "What colour is it?"
    /help in the conversation lists its commands.
    """
    from kosmos_edge.inference.batching import bind_task

    messages = take_messages(rest)
    generation, opening = take_generation(rest), take_opening(rest)
    if picture == "-" and not asked:
        raise click.UsageError("an image from stdin needs --ask: the questions cannot come from stdin, too")
    model = take_model(rest, messages)
    assert not rest, rest
    # what this model refuses of any question is said now, not at the first one
    model.request("ask", bind_task(model, "ask", {"question": "?", **generation}))
    talk = Conversation(model, opening, generation, messages)
    talk.begin(picture)
    failed = 0
    for line in asked or _lines():
        try:
            if not talk.take(line):
                break
        except KosmosError as error:
            failed += 1
            messages.error("kosmos-edge", f"error: {plain_error(error)}")
        if asked and failed:
            break
    return 1 if failed else 0


class Conversation:
    """A chat and its commands."""

    def __init__(self, model: Any, opening: Opening, generation: dict[str, Any], messages: Messages) -> None:
        self._model, self._opening, self._generation, self._messages = model, opening, generation, messages
        self._first: Any = None  # the encoded first image
        self._next: Any = None  # an image for the next question
        self._chat: Chat
        self._commands: dict[str, Callable[[str], None]] = {
            "/image": self._image,
            "/undo": self._undo,
            "/reset": self._reset,
            "/help": lambda _: click.echo(HELP, err=True),
        }

    def begin(self, picture: str | None) -> None:
        """Encodes the first image, if there is one."""
        if picture is not None:
            self._first = self._encode(picture)
        self._reset("")

    def take(self, line: str) -> bool:
        """Answers a question or does a command; False: the conversation is over."""
        line = line.strip()
        name, _, argument = line.partition(" ")
        if name == "/quit":
            return False
        if name in self._commands:
            self._commands[name](argument.strip())
        elif name.startswith("/"):
            self._messages.say(f"{name} is not a command; /help lists them")
        elif line:
            self._ask(line)
        return True

    def _ask(self, question: str) -> None:
        for event in self._chat.ask(question, image=self._next, stream=True, **self._generation):
            if isinstance(event, TextDelta):
                click.echo(event.text, nl=False)
                sys.stdout.flush()
            elif isinstance(event, Done):
                self._next = None  # a question that failed has not shown it
                click.echo()
                self._messages.notes("kosmos-edge", event.result.notes)
                timings = event.result.timings
                self._messages.detail(
                    f"{timings.total_ms:.0f} ms, {timings.tokens} tokens; {timings.reused_tokens} of "
                    f"{timings.prompt_tokens} positions of the prompt reused"
                )

    def _encode(self, path: str) -> Any:
        from kosmos_edge.cli.inputs import Input

        return self._model.encode(self._opening.open(Input(path, None if path == "-" else path).source()))

    def _image(self, path: str) -> None:
        if not path:
            self._messages.say("/image needs the path of an image")
            return
        self._next = self._encode(path)

    def _undo(self, _: str) -> None:
        if not self._chat.turns:
            self._messages.say("there is no question to forget")
            return
        self._chat.undo()

    def _reset(self, _: str) -> None:
        self._chat, self._next = self._model.chat(self._first), None


def _lines() -> Iterator[str]:
    """Questions from stdin; a prompt is shown on a terminal."""
    shown = sys.stdin.isatty() and sys.stderr.isatty()
    if shown:
        import contextlib

        with contextlib.suppress(ImportError):  # line editing and history, where Python has it
            import readline  # noqa: F401
    while True:
        if shown:
            click.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            if shown:
                click.echo(err=True)
            return
        yield line


__all__ = ["chat"]
