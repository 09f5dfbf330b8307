"""The manual page in man's macros, made of the help of all commands."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click


def manual_page(program: click.Group) -> str:
    """The page, section 1."""
    from kosmos_edge import __version__

    ctx = click.Context(program, info_name="kosmos-edge", **program.context_settings)
    lines = [
        f'.TH "KOSMOS\\-EDGE" "1" "" "kosmos\\-edge {_plain(__version__)}" "User Commands"',
        ".SH NAME",
        "kosmos\\-edge \\- captions, answers and boxes for images, computed on this machine",
        ".SH SYNOPSIS",
        ".B kosmos\\-edge",
        "COMMAND [OPTIONS] [ARGUMENTS]",
        ".SH DESCRIPTION",
        *_help(program),
        *_options(program, ctx),
        ".SH COMMANDS",
    ]
    for words, command, inner in _commands(program, ctx):
        lines += [f".SS {_plain(words)}", ".B kosmos\\-edge " + _plain(words)]
        lines += [_plain(" ".join(command.collect_usage_pieces(inner))), ".PP", *_help(command)]
        lines += _options(command, inner)
    lines += [".SH ENVIRONMENT AND FILES", _plain(" ".join((program.epilog or "").split()))]
    lines += [".SH EXIT STATUS", "0 done; 1 an input failed or the system refused something; 2 wrong usage;"]
    lines += ["128 + n ended by signal n."]
    return "\n".join(lines) + "\n"


def _commands(group: click.Group, ctx: click.Context) -> Iterator[tuple[str, click.Command, click.Context]]:
    """(its words, the command, its context) of all, groups before what they hold."""
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=ctx)
        words = inner.command_path.partition(" ")[2]
        yield words, command, inner
        if isinstance(command, click.Group):
            yield from _commands(command, inner)


def _help(command: click.Command) -> Iterator[str]:
    """The paragraphs of the help; those behind \\b as they stand."""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b\n"):
            yield ".nf"
            yield from (_plain(line) for line in paragraph[2:].splitlines())
            yield ".fi"
        else:
            yield _plain(" ".join(paragraph.split()))
        yield ".PP"


def _options(command: click.Command, ctx: click.Context) -> Iterator[str]:
    # Not get_params: a command keeps the help option that it made first, for a context that may have had other names.
    records = [parameter.get_help_record(ctx) for parameter in command.params]
    records.append((", ".join(ctx.help_option_names), "Show this message and exit."))
    for record in records:
        if record is not None:
            yield ".TP"
            yield f".B {_plain(record[0])}"
            yield _plain(record[1]) or "\\&"


def _plain(text: str) -> str:
    """Escaped: backslashes, hyphens, which man would make a typographic one, and a dot or quote that begins a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text
