"""kosmos-edge: the command line. stdout carries results only; exit 0 ok, 1 some input failed, 2 usage, 130 Ctrl-C.

Commands live in cli_*.py and are imported when they are called, so that --help is quick.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from kosmos_edge.errors import InvalidRequest, KosmosError

# command -> (module, one line of help)
COMMANDS = {
    "caption": ("cli_tasks", "Say what a picture shows, with boxes."),
    "ground": ("cli_tasks", "Go on from given words, with boxes; --draw them."),
    "locate": ("cli_tasks", "Find the boxes of a phrase."),
    "describe": ("cli_tasks", "Say what is in a box."),
    "ask": ("cli_tasks", "Answer a question about a picture."),
    "score": ("cli_tasks", "Rank texts by their likelihood for a picture."),
    "batch": ("cli_batch", "Put any of these to folders of pictures."),
    "generate": ("cli_generate", "Go on from pictures, texts and boxes in any order."),
    "models": ("cli_models", "List, pull, remove, verify models; print their paths."),
    "convert": ("cli_models", "Turn a published checkpoint into one GGUF file."),
    "bench": ("cli_bench", "Measure speed; bench quality: what a storage type costs."),
    "doctor": ("cli_doctor", "Say what runs here, and why."),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and one line about each, and imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command itself."""
        if name not in COMMANDS:
            return None
        command = getattr(import_module(f"kosmos_edge.{COMMANDS[name][0]}"), name)
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
        from kosmos_edge.cli_doctor import devices

        for device in devices():
            click.echo(f"{device['name']}\t{'available' if device['available'] else 'unavailable'}\t{device['why']}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Every option has a twin in the environment: --max-tokens is KOSMOS_EDGE_MAX_TOKENS.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Version.")
@click.option(
    "--list-devices",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_devices,
    help="Devices, and why some are unavailable.",
)
def cli() -> None:
    """Captions, answers and boxes from pictures, on this machine.

    \b
    kosmos-edge caption photo.jpg
    kosmos-edge ground photo.jpg --draw boxes.png
    kosmos-edge locate photo.jpg "a red hat"
    kosmos-edge ask photo.jpg "How many people?"
    """


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line and exits."""
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit code."""
    _prepare_streams()
    try:
        with warnings.catch_warnings():  # Pillow's remarks about odd files: what counts is an error or a note here
            warnings.filterwarnings("ignore", module="PIL")
            code = cli.main(args=args, prog_name="kosmos-edge", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output went away; Python would complain once more at exit
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KosmosError as error:
        _say(f"error: {error}")
        return 2 if isinstance(error, InvalidRequest) else 1


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        click.echo(f"kosmos-edge: {text}", err=True)


def _prepare_streams() -> None:
    """UTF-8 out whatever the console says; file names that are no UTF-8 leave as the bytes they came as."""
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors=errors)
