"""kosmos-edge: the command line. stdout carries results only.

Exit status: 0 ok, 1 an input failed or the system refused something, 2 wrong usage, 128 + n ended by signal n (130
Ctrl-C, 143 SIGTERM, 129 SIGHUP).

Commands are in the modules of this package and are imported when they are called, so that --help is fast.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

import click

from kosmos_edge.cli.streams import Ended, ended_by_signals, keep_bytecode_whole, plain_error, standard_streams
from kosmos_edge.errors import InvalidRequest, KosmosError

# command -> (module, one line of help)
COMMANDS = {
    "caption": ("tasks", "Caption images, with boxes."),
    "ground": ("tasks", "Continue a prompt with boxes; --draw draws them."),
    "locate": ("tasks", "Find the boxes of a phrase."),
    "describe": ("tasks", "Describe what is in a box."),
    "ask": ("tasks", "Answer a question about an image."),
    "chat": ("chat", "Talk about images, question after question."),
    "score": ("tasks", "Rank texts by their likelihood given an image."),
    "classify": ("abilities", "Choose the label that fits an image."),
    "similarity": ("similarity", "Compare images with texts, with a model such as CLIP."),
    "pica": ("pica", "Ask a language model that sees no images, by captions."),
    "index": ("index", "Find images in folders by an image or a text."),
    "reason": ("abilities", "Answer a question after a description of the image."),
    "iq": ("abilities", "Complete one of Raven's matrices."),
    "webqa": ("abilities", "Answer a question about a web page."),
    "read": ("read", "Read the text of images, TIFF files and PDFs; write hOCR, ALTO, searchable PDFs."),
    "batch": ("batch", "Run one of these tasks on folders of images."),
    "watch": ("watch", "Run one of these tasks on the images that come into a folder."),
    "generate": ("generate", "Continue images, texts and boxes in any order."),
    "serve": ("serve", "Serve a model over HTTP: OpenAI's, Ollama's, Moondream's and own routes."),
    "mcp": ("mcp", "Give agents tools for images, by the Model Context Protocol."),
    "agent": ("agent", "Let a language model answer about images, with these tasks as its tools."),
    "models": ("models", "List, pull, remove and verify models; print their paths."),
    "convert": ("models", "Convert a published checkpoint to one GGUF file."),
    "bench": ("bench", "Measure speed; bench quality measures accuracy by storage type."),
    "eval": ("eval", "Run published benchmarks on a model, beside the published figures."),
    "grit": ("grit", "Make grounded image-text pairs from captioned images."),
    "completion": ("completion", "Print a script for bash, zsh or fish that completes commands and options."),
    "man": ("completion", "Print the manual page."),
    "doctor": ("doctor", "Report versions, devices and models, with reasons."),
}


class LazyGroup(click.Group):
    """A group that lists its commands without importing them, and imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of COMMANDS, not sorted."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command itself."""
        if name not in COMMANDS:
            return None
        command = getattr(import_module(f"kosmos_edge.cli.{COMMANDS[name][0]}"), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from kosmos_edge import __version__

        click.echo(f"kosmos-edge {__version__}")
        ctx.exit()


def _print_devices(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from kosmos_edge.cli.doctor import devices

        for device in devices():
            click.echo(f"{device['name']}\t{'available' if device['available'] else 'unavailable'}\t{device['why']}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Options can be set in the environment, too: KOSMOS_EDGE_MAX_TOKENS=9 is --max-tokens 9, "
    "KOSMOS_EDGE_BOXES=0 is --no-boxes. A repeated option takes one value per line. Empty variables are ignored, and "
    "so are those that a command cannot use (--verbose lists them). --image, --text and --box of generate have no "
    "variable; the outputs of convert, grit and index have their own, such as KOSMOS_EDGE_CONVERT_OUTPUT, and so have "
    "--format and --shots of eval, KOSMOS_EDGE_EVAL_FORMAT, --html of agent, KOSMOS_EDGE_AGENT_HTML, and --shot, "
    "--prompt and --question of describe, classify and reason, such as KOSMOS_EDGE_CLASSIFY_SHOT. config.toml in the "
    "folder for settings sets defaults, too: kosmos-edge doctor shows where it is, docs/config.md what may be in it.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
@click.option(
    "--list-devices",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_devices,
    help="List devices, and why some are unavailable.",
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Captions, answers and boxes for images, computed on this machine.

    \b
    kosmos-edge caption photo.jpg
    kosmos-edge ground photo.jpg --draw boxes.png
    kosmos-edge locate photo.jpg "a red hat"
    kosmos-edge ask photo.jpg "How many people?"
    kosmos-edge read page.png
    """
    if ctx.invoked_subcommand not in (None, "doctor"):  # doctor reports what is wrong with the config file
        from kosmos_edge.cli.config import check_config

        check_config(ctx, cli, cli.get_command(ctx, str(ctx.invoked_subcommand)))


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line and exits."""
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status. Errors become one line on stderr, here for all commands."""
    args = sys.argv[1:] if args is None else list(args)
    with standard_streams(), ended_by_signals():
        try:
            keep_bytecode_whole()
            with warnings.catch_warnings():  # Pillow's warnings about odd files: those that matter are errors or notes
                warnings.filterwarnings("ignore", module="PIL")
                code = _invoke(args)
            sys.stdout.flush()
            return code
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except click.Abort:
            _say("interrupted")
            return 130
        except KeyboardInterrupt as error:
            number = error.number if isinstance(error, Ended) else signal.SIGINT
            what = f"ended by {error}" if isinstance(error, Ended) else "interrupted"
            _say("; ".join([what, *_notes(error)]), after_echo=number == signal.SIGINT)
            return 128 + number
        except (KosmosError, OSError, MemoryError) as error:
            text = plain_error(error)
            if "--boxes" in args and text.startswith("ground: "):  # the argument that this option sets
                text = text.replace("ground", "--boxes", 1)
            _say("; ".join([f"error: {text}", *_notes(error)]))
            return 2 if isinstance(error, InvalidRequest) else 1


def _invoke(args: list[str]) -> int:
    """As click's main, but without its error handling, which turns a closed stdout into a silent exit."""
    if "_KOSMOS_EDGE_COMPLETE" in os.environ:  # a shell asks for completions
        cli.main(args, "kosmos-edge")
    try:
        with cli.make_context("kosmos-edge", args) as context:
            code = cli.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    return code if isinstance(code, int) else 0


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", []))


def _say(text: str, *, after_echo: bool = False) -> None:
    """after_echo: the terminal has just shown ^C."""
    click.echo(("\n" if after_echo and sys.stderr.isatty() else "") + f"kosmos-edge: {text}", err=True)
